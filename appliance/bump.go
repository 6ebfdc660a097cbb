package appliance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/appliance/hostnet"
	"bitw/config"
	"bitw/netstack/ethtap"
	"bitw/netstack/hook"
	"bitw/netstack/ipsec"
	"bitw/netstack/link"
	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/keyer"
)

// bump is a started appliance: the picture in the package comment.
type bump struct {
	cfg     *Config                 // as it was started with
	live    *atomic.Pointer[Config] // in force
	log     logrus.FieldLogger
	tell    func(Event)
	clock   func() int64
	fail    func(error)
	device  *ethtap.Device // nil with WithLinks
	taps    *taps          // of device
	watcher *hostnet.Watcher
	nics    nics // of the two-NIC form
	// undo says that nothing is to be left of what start made.
	undo    bool
	control *control
	metrics *metricsServer
	watch   *hook.Watch
	capture *hook.Capture // of WithCapture

	keys   *keyers
	store  sa.SequenceStore
	resume *sa.Resume // what was taken over, nil if nothing was
	handed bool       // another process has taken over
	sad    *sa.SAD
	engine *ipsec.Engine
	stack  *stack.Stack

	kern, dev   *link.Endpoint // the links of the two sides
	left, right stack.LinkEndpoint
	classes     [2]*hook.Class
	resolver    *hook.Resolver
	drops       [2]wire.DropCounters // of links, hooks and neighbours, by side
	ledger      ledger
	rates       rates
	tapCounts   tapCounts
	dropsSeen   [wire.NumDropReasons]uint64 // of noteDrops
	dropsAt     [wire.NumDropReasons]atomic.Int64
	host        atomic.Pointer[hostState]
	proxy       *hook.ProxyARP // nil where ARP and NDP cross
	neighbor    *hook.Neighbor
	claims      *hook.Claims
	crossing    atomic.Bool  // ARP and neighbour discovery cross
	relay       atomic.Bool  // neighbors: relay is in force
	again       atomic.Int32 // of announceAgain
	netNS       string       // of the interface, as ethtap.Options.NetNS
	// absent says that the interface is gone, or that what took its place is not cut yet.
	absent atomic.Bool

	offloads   offloads // under mu
	udpRefused bool     // was told

	chores atomic.Uint64 // odd while tick is at work

	mu      sync.Mutex
	added   map[netip.Addr]tcpip.LinkAddress // static neighbours beside those of the configuration
	deleted map[netip.Addr]bool              // those of the configuration that are no more
	applied *hostState                       // what engine and NICs were last told of the host; nil while not attached
}

// hostState is what is known of the protected host now.
type hostState struct {
	name      string // of the interface; empty with WithLinks
	index     int    // of the interface, 0 if there is none
	carrier   bool
	mac       tcpip.LinkAddress // on the wire
	mtu       int
	inside    insideNIC // in the two-NIC form
	addresses []netip.Prefix
	own       map[netip.Addr]struct{}
	routes    []ipsec.Route
}

// insideNIC is the inside of two NICs, as hostState has the outside.
type insideNIC struct {
	name  string
	index int
	mac   tcpip.LinkAddress
	mtu   int
}

// leftMAC is the Ethernet address of the left side.
func (h *hostState) leftMAC() tcpip.LinkAddress {
	if h.inside.mac != "" {
		return h.inside.mac
	}
	return h.mac
}

// gone tells whether an interface is missing.
func (h *hostState) gone() bool { return h.index == 0 || h.inside.name != "" && h.inside.index == 0 }

func (h *hostState) has(a netip.Addr) bool {
	_, ok := h.own[a]
	return ok
}

// start builds everything, and makes the taps Active last. After an error nothing
// is left of it.
func (a *Appliance) start(ctx context.Context, down func()) (_ *bump, err error) {
	b := &bump{cfg: &a.cfg, live: &a.live, log: a.log, tell: a.tell, clock: a.opt.clock, fail: a.fail, sad: sa.NewSAD(), netNS: a.opt.netNS}
	b.relay.Store(a.cfg.Neighbors == config.Relay)
	b.crossing.Store(b.relay.Load())
	b.sad.Observe(a.saEvent)
	defer func() {
		if err != nil {
			b.undo = b.device != nil && !b.device.TookOver() && !b.device.TookOverOpen()
			_ = b.stop(b.device != nil && !b.device.TookOver())
		}
	}()
	from, err := a.predecessor(ctx)
	if err != nil {
		return nil, err
	}
	if from != nil {
		b.resume = from.resume
		defer func() {
			if err != nil {
				from.close()
			}
		}()
	}
	var devices [2][]link.Device
	if a.opt.host != nil {
		devices = [2][]link.Device{{a.opt.left}, {a.opt.right}}
		b.host.Store(givenHost(a.opt.host))
	} else if devices, err = b.cutInterface(ctx, &a.opt, from); err != nil {
		return nil, err
	}
	store := a.opt.store
	if store == nil && a.cfg.StateDir != "" {
		if store, err = sa.NewFileStore(a.cfg.StateDir); err != nil {
			return nil, unwritable(err)
		}
	}
	keys, spd, err := a.databases(store, b.resume)
	if err != nil {
		return nil, err
	}
	b.keys, b.store = keys, store
	b.watch = hook.NewWatch(tcpip.NewStdClock())
	if a.opt.capture != nil {
		b.capture = hook.NewCapture(b.watch)
		if err := b.capture.Start(a.opt.capture, hook.CaptureOptions{}); err != nil {
			return nil, fmt.Errorf("capture: %w", err)
		}
	}
	if err := b.assemble(spd, devices); err != nil {
		return nil, err
	}
	if a.cfg.Control != "" {
		if b.control, err = a.listenControl(&a.cfg, down, from != nil); err != nil {
			return nil, err
		}
	}
	if a.cfg.Metrics.IsValid() {
		if b.metrics, err = a.serveMetrics(from != nil); err != nil {
			return nil, err
		}
	}
	if a.opt.confine != nil {
		if err := a.opt.confine(); err != nil {
			return nil, fmt.Errorf("confine: %w", err)
		}
	}
	if from != nil {
		if err := from.ready(); err != nil {
			return nil, err
		}
	}
	if err := keys.Start(&keyer.Commands{SAD: b.sad, Store: store, Resume: b.resume, AllowInsecure: b.cfg.AllowInsecure, Clock: b.clock}); err != nil {
		return nil, unwritable(err)
	}
	a.since = time.Unix(0, a.opt.clock())
	a.bump.Store(b)
	a.trace.log.watch(b.watch)
	known := b.kernelKnows()
	if from != nil {
		b.count(from)
		b.nics.learn(&from.last)
		known = neighbors(from.last.Hops)
	}
	// A NIC drops what it is given before it is up, so the readers come to wait first.
	if err := b.attach(known); err != nil {
		return nil, err
	}
	if b.device != nil {
		if err := b.activate(from); err != nil {
			return nil, err
		}
	}
	b.mu.Lock()
	b.setOffloads(b.cfg.Offloads)
	b.mu.Unlock()
	if b.control != nil {
		if err := b.control.serve(); err != nil {
			return nil, err
		}
	}
	if err := b.nics.mirror.begin(b.setLink, from != nil); err != nil {
		return nil, err
	}
	if from != nil {
		b.settle(from)
		if from.last.Neighbors == string(config.Relay) {
			return b, nil
		}
	}
	return b, b.trueNeighbors()
}

// unwritable adds what to do where it is the file system that refuses sequence numbers.
func unwritable(err error) error {
	if !errors.As(err, new(*fs.PathError)) {
		return err
	}
	return fmt.Errorf("state_dir: %w; let bitw write there, or name another folder as state_dir", err)
}

// trueNeighbors makes the kernel ask anew what it may have been told by a bitw that
// answered for its neighbours and left the interface shut.
func (b *bump) trueNeighbors() error {
	if b.device == nil || !b.device.TookOver() || b.twoNIC() || !b.relay.Load() {
		return nil
	}
	_, err := b.device.CorrectNeighbors(nil)
	return err
}

// cutInterface opens the taps, still Closed, and begins to follow the interface.
func (b *bump) cutInterface(ctx context.Context, o *options, from *successor) (devices [2][]link.Device, err error) {
	if b.twoNIC() {
		err = b.watchBoth(ctx, o.netNS)
	} else if b.watcher, err = hostnet.Watch(ctx, o.netNS, b.cfg.Interface, b.hostChanged); err != nil {
		err = b.positioned("interface", err)
	}
	if err != nil {
		return devices, err
	}
	onFailure := ethtap.FailShut
	if b.cfg.OnFailure == config.Open {
		onFailure = ethtap.FailOpen
	}
	ban, err := bypassCgroup(b.cfg)
	if err != nil {
		return devices, err
	}
	cut := ethtap.Options{
		Interface: b.cfg.Interface, NetNS: o.netNS, OnFailure: onFailure, Hook: o.hook, Queues: o.queues,
		ForbidBypass: ban,
		Inside:       b.cfg.Inside, Severed: b.twoNIC(),
		NoRing: b.cfg.Offloads.NoRing, NoBatches: b.cfg.Offloads.NoBatches, NoSuperframes: b.cfg.Offloads.NoSuperframes,
	}
	if from != nil {
		b.device, err = from.adopt(cut)
	} else {
		b.device, err = ethtap.Open(cut)
	}
	if err != nil {
		return devices, err
	}
	if err := b.tapCounts.begin(b.device); err != nil {
		return devices, err
	}
	b.taps = &taps{device: b.device, before: b.beforeDirect, after: b.afterDirect, back: b.inService}
	for i, tap := range []*ethtap.Tap{b.device.Kernel(), b.device.Wire()} {
		b.taps.gates[i] = newTapGate()
		for _, q := range tap.Queues() {
			devices[i] = append(devices[i], newTapQueue(q, b.taps.gates[i]))
		}
	}
	return devices, nil
}

// positioned names the place in the file that named a missing interface.
func (b *bump) positioned(key string, err error) error {
	if errors.Is(err, hostnet.ErrNoInterface) {
		return b.cfg.ErrorAt(key, err.Error(), "", err)
	}
	return err
}

// assemble makes engine, hooks and stack between the devices. No frame moves yet.
func (b *bump) assemble(spd *sa.SPD, devices [2][]link.Device) error {
	host := b.host.Load()
	clock := tcpip.NewStdClock()
	probes := hook.NewProbes(clock)
	leftMAC := host.leftMAC()
	if b.twoNIC() {
		b.nics.find(b, leftMAC, clock, probes)
	}
	b.engine = ipsec.New(ipsec.Config{
		SAD: b.sad, SPD: spd, Routes: ipsec.NewRoutes(b.routes(host)),
		Hosts: b.nics.neighbors(), HostMAC: leftMAC, WireMAC: host.mac, MTU: b.mtu(host), LinkMTU: host.linkMTU(),
		IsLocal: b.own, Clock: b.clock, ICMPErrors: icmpErrors(b.cfg.ICMPErrors), HostResolves: b.relay.Load(),
		FragmentMemory: int(b.cfg.Limits.FragmentMemory), FragmentTimeout: b.cfg.Limits.FragmentTimeout,
		Hold:     holdLimits(&b.cfg.Limits.Acquire),
		Coalesce: len(devices[hook.Right]), HostBatch: len(devices[hook.Left]),
	})
	b.resolver = hook.NewResolver(hook.ResolverOptions{
		Clock: clock, Failed: b.engine.Unresolved, Drops: &b.drops[hook.Left], // what waits comes from the host
	})
	ends := make([]*link.Endpoint, 2)
	for side, name := range []string{"kern", "dev"} {
		o := link.Options{
			Devices: devices[side], MAC: []tcpip.LinkAddress{leftMAC, host.mac}[side], MTU: []uint32{uint32(host.leftMTU()), uint32(host.mtu)}[side], Name: name,
			Drops: &b.drops[side], Logger: b.log, Lend: b.watch.Idle,
		}
		if o.EndBatch = b.engine.EndHostBatch; hook.Side(side) == hook.Right {
			o.EndBatch = b.engine.EndBatch
			o.Apart = b.sad.Encapsulated
		}
		end, err := link.New(o)
		if err != nil {
			return err
		}
		ends[side] = end
	}
	b.kern, b.dev = ends[hook.Left], ends[hook.Right]

	var toLeft, toRight hook.Relay
	inner, err := b.decorate(b.kern, hook.Left, &toRight)
	if err != nil {
		return err
	}
	b.claims = hook.NewClaims(b.clock)
	atRight := hook.NeighborOptions{MAC: host.mac, Own: b.own, Announced: b.resolver.Announced, Claims: b.claims, Drops: &b.drops[hook.Right]}
	b.left = inner
	atRight.Host, atRight.Probes = &toLeft, probes
	if !b.twoNIC() { // under relay nothing comes to it
		b.proxy = hook.NewProxyARP(inner, hook.ProxyOptions{
			MAC: host.mac, Own: b.own, Wire: &toRight, Probes: probes, Drops: &b.drops[hook.Left],
		})
		b.left = b.proxy
	}
	if inner, err = b.decorate(b.dev, hook.Right, &toLeft); err != nil {
		return err
	}
	b.neighbor = hook.NewNeighbor(inner, atRight)
	b.neighbor.SetCrossed(b.relay.Load())
	b.right = b.neighbor
	toLeft.Bind(b.left)
	toRight.Bind(b.right)
	b.engine.Bind(b.left, b.right, b.resolver)
	b.stack = stack.New(stack.Options{
		NetworkProtocols: append(b.engine.Protocols(), arp.NewProtocol),
		NUDDisp:          b.resolver,
		Clock:            clock,
	})
	b.resolver.Attach(b.stack, ipsec.RightNIC, b.right)
	return nil
}

// decorate hangs what both sides have on a link.
func (b *bump) decorate(end stack.LinkEndpoint, side hook.Side, other *hook.Relay) (stack.LinkEndpoint, error) {
	end = b.watch.Wrap(end, side)
	if b.twoNIC() {
		end = b.between(end, side, other)
	}
	class, err := hook.NewClass(end, hook.ClassOptions{
		Rules: classRules(b.cfg), Neighbors: crossing(b.relay.Load())[side], Other: other, Drops: &b.drops[side],
		Protects: func(datagram []byte) bool { return b.protects(side, datagram) },
	})
	if err != nil {
		return nil, err
	}
	b.classes[side] = class
	return class, nil
}

// activate makes the taps Active, or what they were where they are taken over from a
// living process, and with that begins to read.
func (b *bump) activate(from *successor) error {
	if from != nil {
		return b.takeOver(from)
	}
	if err := b.device.SetStates(ethtap.Active, ethtap.Active); err != nil {
		return err
	}
	for _, g := range b.taps.gates {
		g.change()
	}
	b.askAnew()
	return nil
}

// kernelKnows are the neighbours that the host's kernel has found while its frames met them
// directly, so that those that are under way need not wait for an answer once more.
func (b *bump) kernelKnows() []hostnet.Neighbor {
	if b.device == nil || b.twoNIC() {
		return nil // of two NICs the kernel has no part in the traffic
	}
	host := b.host.Load()
	list, err := hostnet.Neighbors(b.netNS, host.index)
	if err != nil {
		b.log.WithError(err).Warn("what the kernel knows of its neighbours cannot be read; they are asked")
	}
	return slices.DeleteFunc(list, func(n hostnet.Neighbor) bool {
		// A bitw that answered in their place may have left its word for them.
		return tcpip.LinkAddress(n.MAC) == host.mac || b.own(n.Address)
	})
}

// attach makes the NICs, whose links begin to read. The wire comes first, so
// that what the host sends finds its way, by neighbours that are known.
func (b *bump) attach(known []hostnet.Neighbor) error {
	if err := b.stack.CreateNICWithOptions(ipsec.RightNIC, b.right, stack.NICOptions{Name: "dev"}); err != nil {
		return fmt.Errorf("right NIC: %v", err)
	}
	b.follow()
	for _, n := range known {
		if err := b.resolver.Learn(n.Address, tcpip.LinkAddress(n.MAC)); err != nil {
			return err
		}
	}
	if err := b.staticNeighbors(); err != nil {
		return err
	}
	if err := b.stack.CreateNICWithOptions(ipsec.LeftNIC, b.left, stack.NICOptions{Name: "kern"}); err != nil {
		return fmt.Errorf("left NIC: %v", err)
	}
	return nil
}

// staticNeighbors tells the right NIC the static neighbours. b.mu is held, or nobody else
// knows b.
func (b *bump) staticNeighbors() error {
	static := maps.Clone(b.added)
	if static == nil {
		static = make(map[netip.Addr]tcpip.LinkAddress)
	}
	for _, n := range b.live.Load().StaticNeighbors {
		inside := b.twoNIC() && b.cfg.IsProtected(n.Address)
		if _, ok := static[n.Address]; !ok && !inside && !b.deleted[n.Address] {
			static[n.Address] = tcpip.LinkAddress(n.MAC)
		}
	}
	for a, mac := range static {
		if err := b.stack.AddStaticNeighbor(ipsec.RightNIC, protocolOf(a), addressOf(a), mac); err != nil {
			return fmt.Errorf("neighbor %v: %v", a, err)
		}
	}
	return nil
}

// stop takes down what start built, leaving Active first. open says that the
// direct flow is to be restored.
func (b *bump) stop(open bool) error {
	var errs []error
	b.metrics.close()
	if b.watcher != nil {
		b.watcher.Close()
	}
	b.nics.stop()
	switch {
	case b.device == nil:
	case b.handed:
		errs = append(errs, b.device.Yield())
	default:
		errs = append(errs, b.taps.stop(!open))
		if open {
			if b.undo {
				errs = append(errs, b.device.Close())
			} else {
				errs = append(errs, b.device.Leave()) // drains while the readers still copy
			}
		} else {
			errs = append(errs, b.device.Release())
		}
	}
	if err := b.endReaders(); err != nil {
		if b.control != nil {
			b.control.close()
		}
		return errors.Join(append(errs, err)...)
	}
	if b.stack != nil {
		b.stack.Destroy()
	}
	if b.engine != nil {
		b.engine.Close()
	}
	if b.capture != nil {
		_, err := b.capture.Stop()
		errs = append(errs, err)
	}
	if b.keys != nil {
		errs = append(errs, b.keys.Close())
	}
	if b.control != nil {
		b.control.handed = b.handed
		b.control.close()
	}
	return errors.Join(errs...)
}

// tick does what has to be done once a second.
func (b *bump) tick() {
	b.chores.Add(1)
	defer b.chores.Add(1)
	b.nics.mirror.look()
	b.engine.Tick()
	b.countTaps()
	b.noteDrops()
	b.watchOffloads()
	b.ledger.tick(b.sad)
	b.rates.tick(b.clock(), b.gauges)
	b.keepCut()
	b.announceAgain()
	if err := b.sad.Tick(b.clock()); err != nil {
		b.log.WithError(err).Warn("sequence numbers of a deleted SA cannot be handed back")
	}
}

// cut says how the frames come.
func (b *bump) cut() string {
	if b.device == nil {
		return "links"
	}
	return b.device.Info().Hook.String()
}

func protocolOf(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return header.IPv4ProtocolNumber
	}
	return header.IPv6ProtocolNumber
}

func addressOf(a netip.Addr) tcpip.Address { return tcpip.AddrFromSlice(a.AsSlice()) }
