package appliance

import (
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/sirupsen/logrus"

	"bitw/config"
	"bitw/netstack/ethtap"
	"bitw/netstack/ipsec"
	"bitw/netstack/link"
	"bitw/sa"
	"bitw/sa/keyer"
)

// Config is what a user writes in a file (config.Load), or a program fills in.
// Control and LogLevel are for the program bitw; New takes the logger from
// WithLogger, and serves a control socket only where Control is not empty.
type Config = config.Config

// A Host describes the protected host on the left where no interface tells:
// with WithLinks.
type Host struct {
	// MAC is the host's Ethernet address, 6 octets; on the wire bitw uses it as its own.
	MAC net.HardwareAddr
	// Addresses are the host's own, with the prefix of the network that each is on.
	Addresses []netip.Prefix
	// Routes are those of the host beside its networks, such as the default route.
	Routes []ipsec.Route
	// MTU is the largest IP datagram in octets on the wire; 0 stands for 1500.
	MTU int
}

// An Option of New.
type Option func(*options)

type options struct {
	log         *logrus.Logger
	left, right link.Device
	host        *Host
	netNS       string
	hook        ethtap.Hook
	queues      int
	store       sa.SequenceStore
	capture     io.Writer
	clock       func() int64
	steady      *steadyClock // that clock is of, nil with WithClock
	openOnStop  bool
	takeover    bool
	keyManagers []keyer.Manager
	state       func(string)
	applied     func(*Config)
	confine     func() error

	iface string // where a graph names none
	graph *graph

	heartbeat      func()
	heartbeatEvery time.Duration
}

// WithLogger hands in the logger. The default discards everything.
func WithLogger(l *logrus.Logger) Option { return func(o *options) { o.log = l } }

// WithLinks runs the appliance between two links of the caller's choice instead
// of cutting an interface: left towards the host, right towards the wire. The
// appliance closes them. No privilege is needed, and nothing of the machine is
// touched.
func WithLinks(left, right link.Device, host Host) Option {
	return func(o *options) { o.left, o.right, o.host = left, right, &host }
}

// WithNetNS takes the interface from the network namespace with that path.
func WithNetNS(path string) Option { return func(o *options) { o.netNS = path } }

// WithHook forces the way in which the eBPF programs are attached.
func WithHook(h ethtap.Hook) Option { return func(o *options) { o.hook = h } }

// Readers is how many goroutines wait for frames, for each queue of an appliance that cuts
// an interface. They wait in system calls, and Go's scheduler counts that as a processor in
// use, until 20 µs to 10 ms later it looks and takes it back: where all are in use so,
// whatever else becomes ready to run in the program waits that long. So the program should have as
// many more processors by runtime.GOMAXPROCS; New leaves that, which is the process's, as
// it is.
const Readers = 2

// WithQueues sets the number of queues of each tap; the kernel spreads flows
// over them. The default is 1.
func WithQueues(n int) Option { return func(o *options) { o.queues = n } }

// WithSequenceStore keeps the sequence numbers of outbound SAs elsewhere than
// under Config.StateDir. sa.NewMemoryStore is for keys that end with the process.
func WithSequenceStore(s sa.SequenceStore) Option { return func(o *options) { o.store = s } }

// WithKeyManager adds a key manager. Policies name its lineages as they name the SAs
// of the configuration, with names that the configuration does not have. It is started
// and closed with the appliance; package keyer says what it can do.
func WithKeyManager(m keyer.Manager) Option {
	return func(o *options) { o.keyManagers = append(o.keyManagers, m) }
}

// WithCapture writes all frames of both sides to w as pcapng, with the interfaces
// "inside" and "outside". w is written by one goroutine, and never waited for.
func WithCapture(w io.Writer) Option { return func(o *options) { o.capture = w } }

// WithClock sets the clock of SAs and counters, in nanoseconds since 1970. Without it that is
// the machine's as it was at the start, so that nothing ends early or late when somebody sets that.
func WithClock(clock func() int64) Option {
	return func(o *options) { o.clock, o.steady = clock, nil }
}

// WithOpenOnStop restores the direct flow when the appliance is stopped, although
// the configuration says on_failure: shut. Without it such an appliance leaves the
// interface shut when it stops, because what follows it may not be there yet:
// nothing that a policy protects leaves in the clear by a restart. A crash, or a
// failure that ends Run, leaves it shut all the same.
func WithOpenOnStop() Option { return func(o *options) { o.openOnStop = true } }

// WithStates has f called with each state that Status.State goes through. It must not
// wait.
func WithStates(f func(state string)) Option { return func(o *options) { o.state = f } }

// WithApplied has f called with each configuration that Apply has put in force, so that
// what is the program's own, such as LogLevel, can follow.
func WithApplied(f func(*Config)) Option { return func(o *options) { o.applied = f } }

// WithConfine has f called once the interface is cut, and all that the appliance starts
// with is open, before it reads a frame or answers a request: the program can let go of
// what it needed for that. An error ends the start.
func WithConfine(f func() error) Option { return func(o *options) { o.confine = f } }

// WithHeartbeat has beat called about as often as said, from Ready on, as long as all
// sides make progress and the appliance itself does. It falls silent when a side is
// stalled for Config.Watchdog, or for as long as every where that is off, and goes on when
// the side does. It must not wait.
func WithHeartbeat(every time.Duration, beat func()) Option {
	return func(o *options) { o.heartbeat, o.heartbeatEvery = beat, every }
}

// WithTakeover takes the interface over from the living process that holds it and
// answers on Config.Control, if there is one: see TakeoverVersion. If nobody answers
// there the appliance starts as it would without.
func WithTakeover() Option { return func(o *options) { o.takeover = true } }

func defaultOptions() options {
	log := logrus.New()
	log.SetOutput(io.Discard)
	steady := newSteadyClock()
	return options{log: log, queues: 1, clock: steady.now, steady: steady}
}
