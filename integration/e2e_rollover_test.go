package integration

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bitw/appliance"
	"bitw/config"
	"bitw/integration/netlab"
	"bitw/sa"
	"bitw/sa/keyer"
	"bitw/sa/transform"
)

// An end is the key manager of one host, which does what the negotiator says.
type end struct {
	here, peer netip.Addr
	lineage    *sa.Lineage
	events     *keyer.Events
	cmd        *keyer.Commands
	in, out    *sa.SA
	box        *appliance.Appliance
}

func (e *end) Name() string { return "test" }

func (e *end) Lineage(name string) *sa.Lineage {
	if name == e.lineage.Name {
		return e.lineage
	}
	return nil
}

func (e *end) Start(c *keyer.Commands) error {
	e.cmd = c
	return nil
}

func (e *end) Close() error { return e.cmd.DeleteAll(e.lineage) }

// A negotiator agrees on SAs for both ends, as IKEv2 would by messages.
type negotiator struct {
	t          *testing.T
	ends       [2]*end
	spi        uint32
	soft, hard atomic.Uint64 // packets
	rollovers  atomic.Int64
	acquired   atomic.Int64
	expired    atomic.Int64 // hard
}

// serve acts upon the events of both ends until ctx is over.
func (n *negotiator) serve(ctx context.Context) {
	var (
		wg sync.WaitGroup
		mu sync.Mutex
	)
	for _, e := range n.ends {
		wg.Go(func() {
			for {
				ev, err := e.events.Next(ctx)
				if err != nil {
					return
				}
				mu.Lock()
				n.handle(e, ev)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func (n *negotiator) handle(e *end, ev sa.Event) {
	switch ev.Kind {
	case sa.Acquire:
		if e.lineage.Outbound() == nil {
			n.acquired.Add(1)
			n.rollover()
		}
	case sa.ExpireSoft:
		if (ev.SA == e.in || ev.SA == e.out) && n.soft.Load() != n.hard.Load() {
			n.rollovers.Add(1)
			n.rollover()
		}
	case sa.ExpireHard:
		if ev.SA.Retiring() {
			return
		}
		n.expired.Add(1)
		for _, x := range n.ends {
			if err := x.cmd.DeleteAll(x.lineage); err != nil {
				n.t.Error(err)
			}
			x.in, x.out = nil, nil
		}
	}
}

// rollover makes before it breaks, at both ends.
func (n *negotiator) rollover() {
	var next [2][2]*sa.SA // of each end, by direction
	for i := range n.ends {
		n.spi++
		secret := make([]byte, 20)
		_, _ = rand.Read(secret)
		next[i][sa.Outbound] = n.add(n.ends[i], n.ends[i].peer, n.ends[i].here, sa.Outbound, secret)
		next[1-i][sa.Inbound] = n.add(n.ends[1-i], n.ends[i].peer, n.ends[i].here, sa.Inbound, secret)
	}
	for i, e := range n.ends {
		if _, err := e.cmd.Switch(next[i][sa.Outbound]); err != nil {
			n.t.Error(err)
		}
	}
	for i, e := range n.ends {
		for _, old := range []*sa.SA{e.in, e.out} {
			if old == nil {
				continue
			}
			if err := e.cmd.Retire(old, patience); err != nil {
				n.t.Error(err)
			}
		}
		e.in, e.out = next[i][sa.Inbound], next[i][sa.Outbound]
	}
}

func (n *negotiator) add(at *end, dst, src netip.Addr, dir sa.Direction, secret []byte) *sa.SA {
	alg, err := transform.Lookup(transform.ProtoESP, "aes128gcm16")
	if err != nil {
		n.t.Error(err)
	}
	s, err := at.cmd.Add(sa.SAConfig{
		Name: at.lineage.Name, Lineage: at.lineage, Direction: dir, Mode: sa.Transport,
		Key:       sa.Key{SPI: 0x10000 + n.spi, Dst: dst, Proto: transform.ProtoESP},
		Algorithm: alg, EncryptionKey: sa.NewSecret(secret), ReplayWindow: 4096,
		Soft: sa.Lifetime{Packets: n.soft.Load()}, Hard: sa.Lifetime{Packets: n.hard.Load()},
	})
	if err != nil {
		n.t.Error(err)
	}
	return s
}

// repeated is a match of ESP frames whose SPI and sequence number were seen before.
func repeated() netlab.Match {
	seen := make(map[uint64]struct{})
	return func(f *netlab.Frame) bool {
		const ip = 14
		if len(f.Data) < ip+28 || f.Data[ip]>>4 != 4 || f.Data[ip+9] != transform.ProtoESP {
			return false
		}
		at := binary.BigEndian.Uint64(f.Data[ip+20:])
		_, again := seen[at]
		seen[at] = struct{}{}
		return again
	}
}

// A key manager of the appliance's API renews the SAs of a TCP flow each time that
// their soft lifetime is over, some hundreds of times, and nothing is lost, in the
// clear or numbered twice. Then a hard lifetime ends the flow, and an acquire lets it
// begin again.
func TestR41_RolloversUnderTraffic(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	n := &negotiator{t: t}
	n.soft.Store(400)
	n.hard.Store(1 << 20)
	one := func(a netip.Addr) []config.AddressRange { return []config.AddressRange{{First: a, Last: a}} }
	for i, x := range []struct {
		host       *netlab.Host
		here, peer netip.Addr
	}{{pair.A, a4, b4}, {pair.B, b4, a4}} {
		e := &end{here: x.here, peer: x.peer, events: keyer.NewEvents()}
		e.lineage = &sa.Lineage{Name: "peer", Notify: e.events.Put}
		n.ends[i] = e
		cfg := config.Config{Interface: "eth0", Policies: []config.Policy{{
			Name: "peer", Local: one(x.here), Remote: one(x.peer), Action: config.Protect, Out: []string{"peer"}, In: []string{"peer"},
		}}}
		box, err := appliance.New(cfg, appliance.WithNetNS(x.host.NetNSPath()), appliance.WithKeyManager(e), appliance.WithOpenOnStop())
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- box.Run(context.Background()) }()
		select {
		case <-box.Ready():
		case err := <-ended:
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = box.Close()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
		e.box = box
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() {
		defer close(served)
		n.serve(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-served
	})
	seen := pair.Wire.Capture(netlab.CaptureOptions{
		Watch:   []netlab.Match{netlab.Containing([]byte(netlab.Marker)), netlab.OfClass(netlab.Other, netlab.AH), repeated()},
		SnapLen: 64,
	})

	// The first packet acquires the SAs, and none is lost for that.
	pings(t, pair.A, b4, netlab.PingOptions{Count: 5})
	if n.acquired.Load() != 1 {
		t.Errorf("%d acquires, expected one", n.acquired.Load())
	}
	for n.rollovers.Load() < 300 {
		before := n.rollovers.Load()
		if _, err := netlab.TCPBulk(deadline(t, 5*patience), pair.A, pair.B, b4, 32<<20); err != nil {
			t.Fatal(err)
		}
		if _, err := netlab.HTTPTransfer(deadline(t, 5*patience), pair.A, pair.B, a4, 32<<20); err != nil {
			t.Fatal(err)
		}
		if n.rollovers.Load() == before {
			t.Fatal("no soft lifetime ended")
		}
	}
	pings(t, pair.A, b4, netlab.PingOptions{Count: 20})
	lost := []string{
		"no_sa", "acquire_timeout", "unknown_spi", "replay", "replay_old", "icv", "key_invalid", "lifetime_expired",
		"seq_exhausted", "seq_unreserved", "clear_not_protected", "selector_mismatch", "no_policy", "queue_full",
	}
	for i, e := range n.ends {
		drops := e.box.Status().Drops
		for _, reason := range lost {
			if drops[reason] != 0 {
				t.Errorf("end %d dropped %d packets as %s", i, drops[reason], reason)
			}
		}
	}
	t.Logf("%d rollovers; on the wire: %v", n.rollovers.Load(), allESP(t, seen))
	if w := seen.Watched(2); w.Frames != 0 {
		t.Errorf("%d frames have an SPI and sequence number that were there before", w.Frames)
	}

	// Else what a connection says at its end asks for SAs.
	spoken(t, pair.A, pair.B)
	// A short hard lifetime, and nobody to renew: the SAs end, and the next packet asks
	// for others.
	n.soft.Store(40)
	n.hard.Store(40)
	n.ends[0].events.Put(sa.Event{Kind: sa.ExpireHard, SA: n.ends[0].lineage.Outbound(), Lineage: n.ends[0].lineage})
	eventually(t, "the SAs are deleted", func() bool { return len(n.ends[0].box.Status().SAs) == 0 })
	acquired := n.acquired.Load()
	// What comes between the end and the key manager's notice of it is dropped.
	r, err := netlab.Ping(deadline(t, patience), pair.A, b4, netlab.PingOptions{Count: 200, Timeout: 200 * time.Millisecond})
	if err != nil || r.Received < 150 {
		t.Errorf("ping: %v, %v", r, err)
	}
	eventually(t, "an acquire, and the end of a hard lifetime, each 40 packets", func() bool {
		return n.acquired.Load()-acquired >= 4 && n.expired.Load() >= 4
	})
}
