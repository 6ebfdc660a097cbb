package ipsec

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/hook"
	"bitw/netstack/link"
	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
)

// trainFromWire is fromWire for datagrams that a link lends together. It returns how many
// were taken that way.
func (s *station) trainFromWire(datagrams ...[]byte) (taken int) {
	var frames [][]byte
	for _, d := range datagrams {
		frames = append(frames, frame(s.peer, s.mac, d, nil))
	}
	for len(frames) > 0 {
		t := wire.Train{Whole: frames[0], Frames: frames[1:]}
		pkt := lent(frames[0], s.mac, &t)
		s.e.inbound(pkt)
		pkt.DecRef()
		taken += t.Taken
		frames = frames[1+t.Taken:]
	}
	return taken
}

// lent returns the packet that a link delivers for a frame that stays where it is.
func lent(f []byte, mac tcpip.LinkAddress, t *wire.Train) *stack.PacketBuffer {
	pkt := link.NewPacket(f[:min(len(f), 146)], mac)
	pkt.Owner = t
	return pkt
}

// A superframe that the link lends goes its way as one that it hands over: protected,
// bypassed, and held for an SA that comes later. The lent octets may be gone by then.
func TestLentSuperframes(t *testing.T) {
	super := tcpTo(addrA4, addrB4, 30000, true)
	f := frame(macA, macA, super, superframe(super, 1448))
	for name, c := range map[string]struct {
		action sa.Action
		wait   bool
	}{"protect": {action: sa.Protect}, "bypass": {action: sa.Bypass}, "hold": {sa.Protect, true}} {
		var got [2][][]byte
		for i := range got {
			p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Transport, false, false)
			switch {
			case c.wait:
				l := sa.NewLineage("later")
				l.Notify = func(sa.Event) {}
				p.a.lineages["later"] = l
				p.a.policies(p.a.protect("to-b", addrA4, addrB4, "later", "ba"))
			case c.action == sa.Bypass:
				p.a.policies(&sa.Policy{Name: "all", Action: sa.Bypass})
			}
			mine := bytes.Clone(f)
			pkt := link.NewPacket(mine, macA)
			if i == 1 {
				pkt.DecRef()
				pkt = lent(mine, macA, &wire.Train{Whole: mine})
			}
			p.a.e.outbound(pkt)
			pkt.DecRef()
			clear(mine)
			if c.wait {
				if len(p.a.right.frames) != 0 {
					t.Fatal("sent without SA")
				}
				s := p.a.make("later", p.a.lineages["later"], 0x3003, addrB4)
				if err := p.a.sad.Add(s); err != nil {
					t.Fatal(err)
				}
				if _, err := p.a.lineages["later"].Switch(s); err != nil {
					t.Fatal(err)
				}
				eventually(t, func() bool { return p.a.e.holds.count.Load() == 0 })
			}
			p.a.right.mu.Lock()
			got[i] = p.a.right.frames
			p.a.right.mu.Unlock()
		}
		if len(got[0]) == 0 {
			t.Errorf("%s: nothing was sent", name)
		}
		if d := cmp.Diff(got[0], got[1]); d != "" {
			t.Errorf("%s: %d frames handed over, %d lent, and they differ", name, len(got[0]), len(got[1]))
		}
	}
}

// What comes as a train reaches the host as if each packet had come alone, and is counted
// the same: flows mixed, with gaps and repetitions, packets that are forged, malformed,
// dummies, too old, or have been cut short, wrong checksums, flags, changed TOS, UDP.
func TestR15_ATrainIsAsManyPackets(t *testing.T) {
	aTrainIsAsManyPackets(t, 8, false, func(mode sa.Mode, six bool) *pair {
		return newPair(t, "aes128gcm16", transform.ProtoESP, mode, six, false)
	})
}

// And so does ESP in UDP, which moves the peer as well.
func TestR42_ATrainIsAsManyPackets(t *testing.T) {
	aTrainIsAsManyPackets(t, 4, true, func(mode sa.Mode, six bool) *pair {
		return newEncapPair(t, encapCase{mode: mode, six: six}).pair
	})
}

func aTrainIsAsManyPackets(t *testing.T, seeds uint64, encap bool, newPair func(sa.Mode, bool) *pair) {
	for _, mode := range []sa.Mode{sa.Transport, sa.Tunnel} {
		for _, six := range []bool{false, true} {
			taken := 0
			for seed := range seeds {
				r := rand.New(rand.NewPCG(seed, 1))
				p := newPair(mode, six)
				wired := mixture(t, p, six, encap, r)
				var got [2][][]byte
				var counted [2]map[string]uint64
				for i := range 2 {
					p := newPair(mode, six)
					coalescing(p)
					p.b.e.SetJoinUDP(seed%2 == 1)
					for list := wired; len(list) > 0; {
						n := 1 + r.IntN(min(len(list), 40))
						if i == 0 {
							n = len(list)
						}
						part := list[:n]
						list = list[n:]
						var clones [][]byte
						for _, d := range part {
							clones = append(clones, bytes.Clone(d))
						}
						if i == 0 {
							p.b.fromWire(clones...)
						} else {
							taken += p.b.trainFromWire(clones...)
						}
					}
					p.b.e.EndBatch(0)
					got[i] = append(got[i], p.b.left.frames...)
					counted[i] = counts(p.b)
				}
				if d := cmp.Diff(counted[0], counted[1]); d != "" {
					t.Errorf("%v, seed %d: counters (- one by one, + as a train):\n%s", modeName(mode, six, false), seed, d)
				}
				if !slices.EqualFunc(got[0], got[1], bytes.Equal) {
					t.Fatalf("%v, seed %d: %d frames one by one, %d as a train", modeName(mode, six, false), seed, len(got[0]), len(got[1]))
				}
			}
			if taken == 0 {
				t.Errorf("%v: nothing was taken behind another", modeName(mode, six, false))
			}
		}
	}
}

// Where the same packets come by two queues at once, the host gets each of them once, though
// all are authentic.
func TestR40_ATrainTwiceAtOnce(t *testing.T) {
	p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Transport, false, false)
	p.b.e.coalescers = make([]coalescer, 2)
	const superframes, octets = 40, 40 * 1448
	var wired [][]byte
	for i := range superframes {
		wired = append(wired, segmentsOf(t, p, false, 4000, uint32(i*octets), octets)...)
	}
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for queue := range p.b.e.coalescers {
		var frames [][]byte
		for _, d := range wired {
			frames = append(frames, frame(macA, macB, bytes.Clone(d), nil))
		}
		wg.Go(func() {
			<-begin
			for len(frames) > 0 {
				tr := wire.Train{Whole: frames[0], Frames: frames[1:min(len(frames), 40)]}
				pkt := lent(frames[0], macB, &tr)
				pkt.Hash = uint32(queue)
				p.b.e.inbound(pkt)
				pkt.DecRef()
				frames = frames[1+tr.Taken:]
			}
			p.b.e.EndBatch(queue)
		})
	}
	close(begin)
	wg.Wait()
	_, datagrams := p.b.received()
	got := 0
	for _, d := range datagrams {
		got += len(d) - 20 - int(d[32]>>4)*4
	}
	refused := uint64(0)
	for _, n := range p.b.drops(hook.Right) {
		refused += n
	}
	if want := superframes * octets; got != want || refused != uint64(len(wired)) {
		t.Errorf("the host got %d octets of %d, and %d of %d packets were refused: %v", got, want, refused, 2*len(wired), p.b.drops(hook.Right))
	}
}

// mixture returns what is on the wire of a random mixture of the host's datagrams.
func mixture(t testing.TB, p *pair, six, encap bool, r *rand.Rand) (wired [][]byte) {
	src, dst, at := addrA4, addrB4, 20
	if six {
		src, dst, at = addrA6, addrB6, 40
	}
	if encap {
		at += wire.UDPLen
	}
	seqs := [3]uint32{}
	for range 30 {
		flow := r.IntN(len(seqs))
		n := 1 + r.IntN(9000)
		for _, d := range segmentsOf(t, p, six, uint16(4000+flow), seqs[flow], n) {
			wired = append(wired, d)
			switch r.IntN(40) {
			case 0:
				d[len(d)-1]++ // forged
			case 1:
				wired = append(wired, d) // again
			case 2:
				wired[len(wired)-1] = d[:len(d)-4] // its length contradicts
			case 3:
				wire.SetTOS(d, 3) // congestion
			case 4:
				d[at+7]++ // another number than was sealed
			case 5:
				d[at+3]++ // no SPI of ours
			case 7:
				if encap { // a NAT gave it another port
					wired[len(wired)-1] = translated(d, netip.AddrPortFrom(src, 5000+uint16(r.IntN(3))))
				}
			case 6:
				if !six {
					d[10]++ // IPv4 checksum
				}
			}
		}
		seqs[flow] += uint32(n)
		switch r.IntN(12) {
		case 0:
			seqs[flow] += 7 // a gap
		case 1:
			p.a.fromHost(udpTo(src, dst, 1, 2, r.IntN(1000)), nil)
			wired = append(wired, p.a.right.take(t, "", "")...)
		case 2:
			wired = append(wired, segmentsOf(t, p, six, uint16(4000+flow), seqs[flow], 0)...)
		case 5: // longer than the path takes, so in tunnel mode fragments are sealed
			p.a.fromHost(udpTo(src, dst, 1, 2, 2000+r.IntN(2000)), nil)
			wired = append(wired, p.a.right.take(t, "", "")...)
		case 3:
			d := tcpTo(src, dst, 100, false)
			d[at+16]++ // its own checksum
			p.a.fromHost(d, nil)
			wired = append(wired, p.a.right.take(t, "", "")...)
		case 4:
			r.Shuffle(min(len(wired), 4), func(i, j int) {
				i, j = len(wired)-1-i, len(wired)-1-j
				wired[i], wired[j] = wired[j], wired[i]
			})
		}
	}
	return wired
}

// counts returns all that a station counts.
func counts(s *station) map[string]uint64 {
	m := s.drops(hook.Right)
	for name, l := range s.lineages {
		m[name+" moves"] = l.Moves()
	}
	for _, x := range s.sad.All() {
		m[x.Name+" packets"], m[x.Name+" octets"] = x.Packets.Load(), x.Bytes.Load()
		for reason, n := range x.Drops.Snapshot() {
			m[x.Name+" "+reason] = n
		}
	}
	for _, p := range s.e.SPD().Policies() {
		c := &p.Counters[sa.Inbound]
		m["policy packets"], m["policy octets"] = c.Packets.Load(), c.Bytes.Load()
	}
	for name, c := range s.e.Forwarders().Carried() {
		m[name+" packets"], m[name+" octets"] = c[hook.Left].Packets, c[hook.Left].Bytes
	}
	return m
}
