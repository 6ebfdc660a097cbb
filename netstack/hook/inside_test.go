package hook

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/faketime"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/wire"
)

// sunk takes what is written to a link, as frames without virtio-net header.
type sunk struct{ frames [][]byte }

func (s *sunk) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	for _, p := range pkts.AsSlice() {
		s.frames = append(s.frames, append(bytes.Clone(p.LinkHeader().Slice()), datagram(p)...))
	}
	return pkts.Len(), nil
}

func (s *sunk) take() [][]byte {
	f := s.frames
	s.frames = nil
	return f
}

const macInside, macOutside = tcpip.LinkAddress("\x02\x00\x00\x00\x00\xaa"), tcpip.LinkAddress("\x02\x00\x00\x00\x00\xbb")

func newTestHosts(drops *wire.DropCounters) (*Hosts, *sunk, *faketime.ManualClock) {
	clock, out := faketime.NewManualClock(), new(sunk)
	h := NewHosts(HostsOptions{MAC: macInside, Clock: clock, Probes: NewProbes(clock), Drops: drops})
	h.Bind(out)
	return h, out, clock
}

// A host is asked for, what waits for it goes in order, and one that is silent is asked
// again before it is forgotten.
func TestR13_HostsAreFound(t *testing.T) {
	for _, a := range []netip.Addr{host4, host6} {
		var drops wire.DropCounters
		h, out, clock := newTestHosts(&drops)
		for i := range byte(3) {
			pkt, b := newFrame("\x00\x00\x00\x00\x00\x00", macInside, wire.EtherTypeIPv4, 20)
			b[0] = i
			h.Enqueue(a, pkt)
			pkt.DecRef()
		}
		asked := out.take()
		if len(asked) != 1 || !bytes.Equal(asked[0][6:12], []byte(macInside)) {
			t.Fatalf("%v: asked by %x, expected one question", a, asked)
		}
		if a.Is4() && !bytes.Equal(asked[0][14+14:14+18], []byte{0, 0, 0, 0}) {
			t.Errorf("the question %x names a sender", asked[0])
		}
		h.Heard(a, macHost)
		sent := out.take()
		for i, f := range sent {
			if len(sent) != 3 || f[14] != byte(i) || !bytes.Equal(f[:6], []byte(macHost)) {
				t.Fatalf("%v: %x was sent", a, sent)
			}
		}
		if mac, ok := h.Lookup(a); !ok || mac != macHost {
			t.Errorf("%v is at %v, %v", a, mac, ok)
		}
		clock.Advance(hostStale + time.Second)
		for range hostQuestions {
			if _, ok := h.Lookup(a); !ok {
				t.Errorf("%v was forgotten unasked", a)
			}
			clock.Advance(2 * time.Second)
		}
		if n := len(out.take()); n != hostQuestions {
			t.Errorf("%v: %d questions", a, n)
		}
		if _, ok := h.Lookup(a); ok {
			t.Errorf("%v is still known", a)
		}
		// One that never answers costs what waits for it, counted.
		pkt, _ := newFrame("\x00\x00\x00\x00\x00\x00", macInside, wire.EtherTypeIPv4, 20)
		h.Enqueue(a, pkt)
		pkt.DecRef()
		clock.Advance(5 * time.Second)
		if n := drops.Load(wire.DropUnresolved); n != 1 || len(h.List()) != 0 {
			t.Errorf("%v: %d unresolved, %v known", a, n, h.List())
		}
	}
}

// What a datagram says of its source counts for less than ARP, and nothing where an
// address is fixed.
func TestHostsBelieve(t *testing.T) {
	h, _, _ := newTestHosts(new(wire.DropCounters))
	at := func(want tcpip.LinkAddress) {
		t.Helper()
		if mac, ok := h.Lookup(host4); !ok || mac != want {
			t.Errorf("%v, %v, expected %v", mac, ok, want)
		}
	}
	h.Seen(host4, []byte(macHost))
	at(macHost)
	h.Seen(host4, []byte(macPeer))
	at(macHost)
	h.Heard(host4, macPeer)
	at(macPeer)
	h.Fix(host4, macHost)
	h.Heard(host4, macPeer)
	at(macHost)
	for i := range maxHosts + 10 {
		h.Seen(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), []byte(macPeer))
	}
	if n := len(h.List()); n > maxHosts {
		t.Errorf("%d hosts, expected at most %d", n, maxHosts)
	}
	at(macHost)
}

// FuzzInside feeds any frame to the hooks of the two NICs.
func FuzzInside(f *testing.F) {
	f.Add([]byte(macAll+macHost+"\x08\x06"), true)
	f.Add(arpFrame(macAll, 1, macHost, host4, "\x00\x00\x00\x00\x00\x00", peer4), false)
	f.Add(arpFrame(macInside, 2, macHost, host4, macInside, peer4), false)
	f.Fuzz(func(t *testing.T, frame []byte, cross bool) {
		if len(frame) < ethernetLen || len(frame) > 2000 {
			return
		}
		var drops wire.DropCounters
		h, _, clock := newTestHosts(&drops)
		probes := NewProbes(clock)
		own := func(a netip.Addr) bool { return a == host4 || a == host6 }
		var relay Relay
		relay.Bind(new(sunk))
		in := NewInside(&endOfLink{}, InsideOptions{MAC: macInside, WireMAC: macOutside, Own: own, Cross: cross, Hosts: h, Wire: &relay, Probes: probes, Drops: &drops})
		out := NewOutside(&endOfLink{}, OutsideOptions{MAC: macOutside, Answers: own, Probes: probes})
		for _, d := range []stack.NetworkDispatcher{in, out} {
			pkt, b := newFrame(tcpip.LinkAddress(frame[:6]), tcpip.LinkAddress(frame[6:12]), uint16(frame[12])<<8|uint16(frame[13]), len(frame)-ethernetLen)
			copy(b, frame[ethernetLen:])
			d.DeliverNetworkPacket(pkt.NetworkProtocolNumber, pkt)
			pkt.DecRef()
		}
	})
}

// endOfLink is a link that takes everything.
type endOfLink struct {
	stack.LinkEndpoint
	sunk
}

func (e *endOfLink) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	return e.sunk.WritePackets(pkts)
}
func (*endOfLink) Attach(stack.NetworkDispatcher) {}

// What a host sends to a station that was heard on the inside is theirs; to one that was
// never heard there it goes on, as by a bridge.
func TestR13_InsideKnowsItsStations(t *testing.T) {
	var drops wire.DropCounters
	h, _, clock := newTestHosts(&drops)
	own := func(a netip.Addr) bool { return a == host4 }
	in := NewInside(&endOfLink{}, InsideOptions{MAC: macInside, WireMAC: macOutside, Own: own, Hosts: h, Wire: new(Relay), Probes: NewProbes(clock), Drops: &drops})
	const printer = tcpip.LinkAddress("\x02\x00\x00\x00\x00\x99")
	send := func(dst, src tcpip.LinkAddress, from, to netip.Addr) (goesOn bool) {
		pkt, b := newFrame(dst, src, wire.EtherTypeIPv4, 28)
		defer pkt.DecRef()
		b[0] = 0x45
		copy(b[12:], from.AsSlice())
		copy(b[16:], to.AsSlice())
		return in.data(pkt, b)
	}
	lan := netip.MustParseAddr("10.0.0.99")
	for _, c := range []struct {
		what     string
		dst, src tcpip.LinkAddress
		from, to netip.Addr
		goesOn   bool
	}{
		{"to the box", macInside, macHost, host4, peer4, true},
		{"to a station by its own address", macPeer, macHost, host4, peer4, true},
		{"from a station that is no host", macInside, printer, lan, peer4, true},
		{"to that station", printer, macHost, host4, lan, false},
		{"between hosts", macPeer, printer, lan, host4, false},
	} {
		if got := send(c.dst, c.src, c.from, c.to); got != c.goesOn {
			t.Errorf("%s: goes on %v, expected %v", c.what, got, c.goesOn)
		}
	}
	in.SetCross(true)
	if !send(printer, macHost, host4, lan) {
		t.Error("where ARP crosses a frame was kept back")
	}
}
