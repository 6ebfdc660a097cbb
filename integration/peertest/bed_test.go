package peertest_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"bitw/appliance"
	"bitw/config"
	"bitw/integration/netlab"
	"bitw/integration/xfrmpeer"
	"bitw/sa"
)

// echoPort is where the guest sends back each datagram.
const echoPort = 7007

// bed is a host behind the appliance, and a wire.
type bed struct {
	wire *netlab.Wire
	host *netlab.Host
	box  *appliance.Appliance
	// third is another station on the wire, without addresses, to inject from.
	third *netlab.Host
	peer  *xfrmpeer.Peer // nil without a guest
}

// patience is how long a test waits for what must happen; nothing is measured by it.
const patience = time.Minute

func deadline(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// newWire makes the host and the third station.
func newWire(t *testing.T) *bed {
	t.Helper()
	lab := netlab.New(t)
	b := &bed{wire: lab.Wire("wire"), host: lab.Host("a"), third: lab.Host("third")}
	if err := b.host.Plug(b.wire, "eth0", netlab.CardOptions{Addrs: netlab.DefaultA()}); err != nil {
		t.Fatal(err)
	}
	if err := b.third.Plug(b.wire, "eth0", netlab.CardOptions{}); err != nil {
		t.Fatal(err)
	}
	return b
}

// laterStore is a store in which every key has been in use up to a number.
type laterStore struct {
	sa.SequenceStore
	first uint64
}

func (s laterStore) Claim(fingerprint string) (sa.SequenceClaim, uint64, error) {
	claim, next, err := s.SequenceStore.Claim(fingerprint)
	return claim, max(next, s.first), err
}

// startAppliance cuts the host's eth0. Outbound sequence numbers begin with first;
// 0 stands for 1.
func (b *bed) startAppliance(t *testing.T, cfg config.Config, first uint64) {
	t.Helper()
	cfg.Interface = "eth0"
	cfg.AllowInsecure = []string{"des", "3des", "md5"}
	box, err := appliance.New(cfg, appliance.WithNetNS(b.host.NetNSPath()),
		appliance.WithSequenceStore(laterStore{sa.NewMemoryStore(), first}), appliance.WithOpenOnStop())
	if err != nil {
		t.Fatal(err)
	}
	end := make(chan error, 1)
	go func() { end <- box.Run(context.Background()) }()
	select {
	case <-box.Ready():
	case err := <-end:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = box.Close()
		if err := <-end; err != nil {
			t.Error(err)
		}
	})
	b.box = box
}

// newBed starts both ends with all cases, which have the same first number.
func newBed(ctx context.Context, t *testing.T, list []kase) (*bed, []ends) {
	t.Helper()
	b := newWire(t)
	var (
		cfg      config.Config
		all      []ends
		states   []xfrmpeer.State
		policies []xfrmpeer.Policy
		script   strings.Builder
	)
	for i, k := range list {
		k.n = i
		e := k.ends(t)
		all = append(all, e)
		cfg.SAs, cfg.Policies = append(cfg.SAs, e.sas...), append(cfg.Policies, e.policy)
		states, policies = append(states, e.states...), append(policies, e.policies...)
		v4, v6 := k.peerAddr(4), k.peerAddr(6)
		fmt.Fprintf(&script, "ip addr add %v/24 dev eth0; ip addr add %v/64 dev eth0 nodad\n", v4, v6)
		bind := fmt.Sprintf("UDP4-LISTEN:%d,bind=%v", echoPort, v4)
		if k.inner == 6 {
			bind = fmt.Sprintf("UDP6-LISTEN:%d,bind=[%v]", echoPort, v6)
		}
		script.WriteString(k.listener())
		fmt.Fprintf(&script, "socat -b 65536 %s PIPE </dev/null >/dev/null 2>&1 &\n", bind)
	}
	b.peer = xfrmpeer.OnWire(t, b.wire, "peer")
	b.keepAwake(ctx, t)
	if _, err := b.peer.Sh(ctx, script.String()); err != nil {
		t.Fatal(err)
	}
	if err := b.peer.AddState(ctx, states...); err != nil {
		t.Fatal(err)
	}
	if err := b.peer.AddPolicy(ctx, policies...); err != nil {
		t.Fatal(err)
	}
	b.startAppliance(t, cfg, list[0].first)
	return b, all
}

// stat is the guest's count of refused packets.
func (b *bed) stat(ctx context.Context, t *testing.T) map[string]int {
	t.Helper()
	s, err := b.peer.XFRMStat(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// since is what has been added to counters; those in expected are left out.
func since[N int | uint64](old, now map[string]N, expected ...string) map[string]N {
	d := make(map[string]N)
	for name, n := range now {
		if n != old[name] {
			d[name] = n - old[name]
		}
	}
	for _, name := range expected {
		delete(d, name)
	}
	return d
}

// eventually asks again until it is so, and gives up when patience is at its end.
func eventually(ctx context.Context, so func() bool) bool {
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if so() {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(50 * time.Millisecond):
		}
	}
	return false
}

// keepAwake has the third station send the guest a frame of no protocol every few
// milliseconds. User-Mode Linux sometimes misses the signal for a frame, and then
// finds it only with the next one; when the sender waits for the answer there is
// no next one, and the packet counts as lost. Captures leave the third station out.
func (b *bed) keepAwake(ctx context.Context, t *testing.T) {
	t.Helper()
	out, err := b.peer.Sh(ctx, "cat /sys/class/net/eth0/address")
	if err != nil {
		t.Fatal(err)
	}
	mac, err := net.ParseMAC(strings.TrimSpace(out))
	if err != nil {
		t.Fatal(err)
	}
	socket, err := openPacketSocket(b.third)
	if err != nil {
		t.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				// One that is refused is made up for by the next.
				_ = socket.send(mac, etherExperimental, make([]byte, 46))
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-stopped
		if err := socket.close(); err != nil {
			t.Error(err)
		}
	})
}
