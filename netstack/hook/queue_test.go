package hook

import (
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/wire"
)

// What comes for a station that was not known when it came waits for the answer, however
// many packets a fast sender has under way, and leaves in order; of superframes less.
func TestR13_R22_ABurstWaitsForTheAnswer(t *testing.T) {
	for _, c := range []struct{ octets, sent, lost int }{{100, DefaultWaiting, 0}, {100, DefaultWaiting + 3, 3}, {64 << 10, 70, 70 - maxQueueOctets>>16 + 1}} {
		var drops wire.DropCounters
		h, out, _ := newTestHosts(&drops)
		b := newBump(t)
		way := map[string]struct {
			enqueue func(netip.Addr, *stack.PacketBuffer)
			answer  func() [][]byte
			a       netip.Addr
			drops   *wire.DropCounters
		}{
			"host": {h.Enqueue, func() [][]byte { out.take(); h.Heard(host4, macHost); return out.take() }, host4, &drops},
			"next hop": {b.resolver.Enqueue, func() [][]byte {
				take(&b.fromRight)
				b.send(b.dev, arpFrame(macHost, 2, macPeer, peer4, macHost, host4))
				return take(&b.fromRight)
			}, peer4, &b.drops},
		}
		for name, w := range way {
			for i := range c.sent {
				pkt, f := newFrame("\x00\x00\x00\x00\x00\x00", macInside, wire.EtherTypeIPv4, c.octets)
				f[0], f[1] = byte(i>>8), byte(i)
				w.enqueue(w.a, pkt)
				pkt.DecRef()
			}
			b.run(0)
			sent := w.answer()
			if n := int(w.drops.Load(wire.DropQueueFull)); len(sent) != c.sent-c.lost || n != c.lost {
				t.Errorf("%s: of %d packets of %d octets %d were sent and %d dropped, expected %d dropped", name, c.sent, c.octets, len(sent), n, c.lost)
				continue
			}
			for i, f := range sent {
				if n := int(f[14])<<8 | int(f[15]); n != i+c.lost {
					t.Fatalf("%s: packet %d was sent at %d", name, n, i+c.lost)
				}
			}
		}
	}
}
