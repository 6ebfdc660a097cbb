package ipsec

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/hook"
	"bitw/netstack/link"
	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
)

// joined is a right link that is joined to the other engine: what is written arrives
// there before the write returns. It notes what passes.
type joined struct {
	stack.LinkEndpoint
	t    *testing.T
	to   *Engine
	mac  tcpip.LinkAddress // of the receiver
	mu   sync.Mutex
	seen map[uint64]struct{} // SPI and sequence number
}

func (j *joined) WritePackets(list stack.PacketBufferList) (int, tcpip.Error) {
	for _, f := range framesOf(list) {
		in := parse(j.t, f[link.HeaderLen:])
		spi, seq, ok := spiAndSeq(f[link.HeaderLen:], &in)
		if in.Proto != wire.ProtoESP || !ok {
			j.t.Errorf("protocol %d on the wire", in.Proto)
		}
		at := uint64(spi)<<32 | uint64(seq)
		j.mu.Lock()
		_, again := j.seen[at]
		j.seen[at] = struct{}{}
		j.mu.Unlock()
		if again {
			j.t.Errorf("SPI %#x: sequence number %d twice", spi, seq)
		}
		arriving := link.NewPacket(f, j.mac)
		j.to.inbound(arriving)
		arriving.DecRef()
	}
	return list.Len(), nil
}

// gathering is a left link that counts the octets of each flow, which must come in
// order and whole.
type gathering struct {
	stack.LinkEndpoint
	t    *testing.T
	mu   sync.Mutex
	next map[uint16]uint32 // TCP sequence number by source port
}

func (g *gathering) WritePackets(list stack.PacketBufferList) (int, tcpip.Error) {
	for _, f := range framesOf(list) {
		d := f[link.HeaderLen:]
		in := parse(g.t, d)
		if in.Proto != wire.ProtoTCP {
			g.t.Errorf("the host got protocol %d", in.Proto)
			continue
		}
		h := header.TCP(d[in.HeaderLen:])
		g.mu.Lock()
		if h.SequenceNumber() != g.next[in.SrcPort] {
			g.t.Errorf("flow %d: octet %d came where %d was due", in.SrcPort, h.SequenceNumber(), g.next[in.SrcPort])
		}
		g.next[in.SrcPort] = h.SequenceNumber() + uint32(len(d)-in.HeaderLen-int(h.DataOffset()))
		g.mu.Unlock()
	}
	return list.Len(), nil
}

// roller is two engines whose SAs a key manager changes all the time.
type roller struct {
	t       *testing.T
	s       [2]*station
	lineage [2]*sa.Lineage // of each station, for both directions
	left    [2]*gathering
	now     atomic.Int64
	keys    uint32
	store   [2]*sa.MemoryStore
	current [2][2]*sa.SA // of each station, by direction
}

func newRoller(t *testing.T) *roller {
	r := &roller{t: t}
	r.now.Store(1e18)
	addr := [2]netip.Addr{addrA4, addrB4}
	mac := [2]tcpip.LinkAddress{macA, macB}
	for i := range r.s {
		r.s[i] = newStation(t, mac[i], mac[1-i], addr[i])
		r.s[i].e.clock = r.now.Load
		r.lineage[i] = &sa.Lineage{Name: "pair"}
		r.store[i] = sa.NewMemoryStore()
		r.s[i].lineages["pair"] = r.lineage[i]
		r.s[i].policies(r.s[i].protect("all", addr[i], addr[1-i], "pair", "pair"))
	}
	for i := range r.s {
		r.left[i] = &gathering{t: t, next: make(map[uint16]uint32)}
		r.s[i].e.Bind(r.left[i], &joined{t: t, to: r.s[1-i].e, mac: mac[1-i], seen: make(map[uint64]struct{})}, fixedNeighbors{mac[1-i]})
	}
	return r
}

// newSA adds an SA that carries from station i to the other, at one end of it. Its
// replay window is wide because two goroutines send by it, of which one may stop
// between numbering a packet and its arrival.
func (r *roller) newSA(at, i int, key uint32) *sa.SA {
	r.t.Helper()
	alg, err := transform.Lookup(transform.ProtoESP, "aes128gcm16")
	if err != nil {
		r.t.Fatal(err)
	}
	secret := make([]byte, alg.EncryptionKeyLen)
	binary.BigEndian.PutUint32(secret, key)
	ends := [2]netip.Addr{addrA4, addrB4}
	cfg := sa.SAConfig{
		Name: "pair", Key: sa.Key{SPI: 0x1000 + key, Dst: ends[1-i], Proto: transform.ProtoESP}, Src: ends[i], Mode: sa.Tunnel,
		Algorithm: alg, EncryptionKey: sa.NewSecret(secret), ReplayWindow: sa.MaxReplayWindow,
		Lineage: r.lineage[at], Store: r.store[at], Clock: r.now.Load,
	}
	if at != i {
		cfg.Direction = sa.Inbound
	}
	s, err := sa.New(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.s[at].sad.Add(s); err != nil {
		r.t.Fatal(err)
	}
	return s
}

// rollover makes before it breaks, at both ends. Where grace is 0 the old outbound SAs
// are deleted the moment they have a successor.
func (r *roller) rollover(grace time.Duration) {
	r.t.Helper()
	var next [2][2]*sa.SA
	for i := range r.s { // inbound first
		r.keys++
		next[1-i][sa.Inbound] = r.newSA(1-i, i, r.keys)
		next[i][sa.Outbound] = r.newSA(i, i, r.keys)
	}
	for i := range r.s {
		old, err := r.lineage[i].Switch(next[i][sa.Outbound])
		if err != nil || old != r.current[i][sa.Outbound] {
			r.t.Fatalf("switched from %v: %v", old, err)
		}
		if old == nil {
			continue
		}
		if grace == 0 {
			err = r.s[i].sad.Delete(old)
		} else {
			err = r.s[i].sad.Retire(old, grace)
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
	for i := range r.s {
		if old := r.current[i][sa.Inbound]; old != nil {
			if err := r.s[i].sad.Retire(old, time.Second); err != nil {
				r.t.Fatal(err)
			}
		}
	}
	r.current = next
}

// send is one flow of superframes at full speed. sent counts them, and other those of the
// other flow by the same SA, of which a replay window must hold what was numbered since one
// has stopped.
func (r *roller) send(i int, port uint16, stop chan struct{}, sent, other *atomic.Uint64) (octets uint32) {
	ends := [2]netip.Addr{addrA4, addrB4}
	const segments = 20
	const payload = segments * 1400
	const ahead = sa.MaxReplayWindow / segments / 4
	d := tcpTo(ends[i], ends[1-i], payload, true)
	binary.BigEndian.PutUint16(d[20:], port)
	for {
		select {
		case <-stop:
			return octets
		default:
		}
		if sent.Load() > other.Load()+ahead {
			runtime.Gosched()
			continue
		}
		binary.BigEndian.PutUint32(d[24:], octets)
		r.s[i].fromHost(d, superframe(d, 1400))
		octets += payload
		sent.Add(1)
		runtime.Gosched() // else each turn lasts until the scheduler ends it
	}
}

func TestR41_AThousandRolloversLoseNothing(t *testing.T) {
	r := newRoller(t)
	r.rollover(time.Second)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var sent [2][2]atomic.Uint64
	var octets [2][2]uint32
	each := func(f func(i, flow int)) {
		for i := range 4 {
			f(i/2, i%2)
		}
	}
	each(func(i, flow int) {
		wg.Go(func() { octets[i][flow] = r.send(i, uint16(1000+flow), stop, &sent[i][flow], &sent[i][1-flow]) })
	})
	// Whatever was on its way at a switch is at its end once each flow has sent twice.
	pass := func() {
		var from [2][2]uint64
		each(func(i, flow int) { from[i][flow] = sent[i][flow].Load() })
		each(func(i, flow int) {
			for sent[i][flow].Load() < from[i][flow]+2 {
				runtime.Gosched()
			}
		})
	}
	for n := range 1000 {
		r.rollover(time.Duration(n%2) * time.Second)
		pass()
		r.now.Add(int64(time.Second)) // the grace time is over
		for i := range r.s {
			if err := r.s[i].sad.Tick(r.now.Load()); err != nil {
				t.Fatal(err)
			}
			if n := r.s[i].sad.Len(); n != 2 {
				t.Fatalf("%d SAs after the grace time, expected 2", n)
			}
		}
	}
	close(stop)
	wg.Wait()
	for i := range r.s {
		for flow, want := range octets[i] {
			port := uint16(1000 + flow)
			if got := r.left[1-i].next[port]; got != want {
				t.Errorf("station %d, flow %d: %d octets of %d (mod 2^32) came", i, port, got, want)
			}
		}
		for _, side := range []hook.Side{hook.Left, hook.Right} {
			if drops := r.s[i].drops(side); len(drops) != 0 {
				t.Errorf("station %d dropped %v on the %v", i, drops, side)
			}
		}
	}
	t.Logf("%d superframes in 1000 rollovers", sent[0][0].Load()+sent[0][1].Load()+sent[1][0].Load()+sent[1][1].Load())
}

// The hard lifetime ends an SA in both directions, whichever limit is reached, and the
// successor takes over where there is one (RFC 4301 §4.4.2.1).
func TestR41_RFC4301_4_4_2_1_HardLifetimes(t *testing.T) {
	for _, c := range []struct {
		name string
		hard sa.Lifetime
		wait time.Duration
	}{
		{"packets", sa.Lifetime{Packets: 3}, 0},
		{"bytes", sa.Lifetime{Bytes: 3 * 128}, 0},
		{"time", sa.Lifetime{Time: time.Minute}, time.Minute},
	} {
		for _, dir := range []sa.Direction{sa.Outbound, sa.Inbound} {
			t.Run(c.name+"/"+dir.String(), func(t *testing.T) {
				p := &pair{newStation(t, macA, macB, addrA4), newStation(t, macB, macA, addrB4)}
				var events []sa.EventKind
				limit := func(cfg *sa.SAConfig) {
					if cfg.Direction == dir {
						cfg.Hard = c.hard
						cfg.Soft = sa.Lifetime{Packets: c.hard.Packets / 2, Bytes: c.hard.Bytes / 2, Time: c.hard.Time / 2}
						cfg.Lineage.Notify = func(ev sa.Event) { events = append(events, ev.Kind) }
					}
				}
				p.a.add("ab", "aes128gcm16", transform.ProtoESP, sa.Outbound, sa.Transport, 0x1001, addrA4, addrB4, limit)
				p.b.add("ab", "aes128gcm16", transform.ProtoESP, sa.Inbound, sa.Transport, 0x1001, addrA4, addrB4, limit)
				p.a.policies(&sa.Policy{Name: "p", Action: sa.Protect, Directions: sa.OnlyOutbound, Selector: sa.Selector{Proto: sa.AnyProto}, Out: []*sa.Lineage{p.a.lineages["ab"]}})
				p.b.policies(&sa.Policy{Name: "p", Action: sa.Protect, Directions: sa.OnlyInbound, Selector: sa.Selector{Proto: sa.AnyProto}, In: []*sa.Lineage{p.b.lineages["ab"]}})
				d := udpTo(addrA4, addrB4, 1, 2, 100) // 128 octets
				for i := range 3 {
					if got, _ := p.cross(d, nil); len(got) != 1 {
						t.Fatalf("datagram %d did not come: %v %v", i, p.a.drops(hook.Left), p.b.drops(hook.Right))
					}
				}
				for range 2 {
					p.a.now += int64(c.wait) / 2
					p.b.now += int64(c.wait) / 2
					if err := errors.Join(p.a.sad.Tick(p.a.now), p.b.sad.Tick(p.b.now)); err != nil {
						t.Fatal(err)
					}
				}
				got, wired := p.cross(d, nil)
				if len(got) != 0 {
					t.Error("a datagram came after the hard lifetime")
				}
				if dir == sa.Outbound {
					if len(wired) != 0 {
						t.Error("a datagram left after the hard lifetime")
					}
					p.a.expectDrop(hook.Left, wire.DropLifetimeExpired)
				} else {
					p.b.expectDrop(hook.Right, wire.DropLifetimeExpired)
				}
				if len(events) != 2 || events[0] != sa.ExpireSoft || events[1] != sa.ExpireHard {
					t.Errorf("events %v", events)
				}
			})
		}
	}
}
