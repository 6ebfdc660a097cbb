package bench

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"time"

	"bitw/appliance"
	"bitw/config"
	"bitw/netstack/link"
)

// superframes is how many one feed has: as many as a link reads at once.
const superframes = link.DefaultBatch

// An engine is two appliances with links in memory. One seals what it is fed and the
// other opens it; the bench carries it from one to the other, so that each has its
// time.
type engine struct {
	boxes                 [2]*box
	left, right           [2]*port
	template              []byte
	clear                 [][]byte
	sealed                *arena
	allocsOut, allocsIn   uint64
	packetsOut, packetsIn int
	memory                runtime.MemStats
}

func newEngine(ctx context.Context, s *suite) (_ *engine, err error) {
	e := &engine{
		sealed: newArena(superframes*segmentsEach*(Segment+300), superframes*segmentsEach),
	}
	defer func() {
		if err != nil {
			_ = e.stop()
		}
	}()
	for i := range e.boxes {
		e.left[i], e.right[i] = newPort(tcpPayload), newPort(espPackets)
		cfg := s.config(i, "", config.Protect)
		cfg.StaticNeighbors = []config.Neighbor{{Address: address(1 - i).Addr(), MAC: mac(1 - i)}}
		host := appliance.Host{MAC: mac(i), Addresses: []netip.Prefix{address(i)}, MTU: memoryMTU}
		if e.boxes[i], err = startBox(ctx, cfg, appliance.WithLinks(e.left[i], e.right[i], host)); err != nil {
			return nil, err
		}
	}
	e.template = superframe(mac(0), mac(0), address(0).Addr(), address(1).Addr())
	for range superframes {
		e.clear = append(e.clear, make([]byte, len(e.template)))
	}
	// The first finds the next hop unresolved: few can wait for that.
	copy(e.clear[0], e.template)
	if _, err := e.right[0].feed(e.left[0], e.clear[:1], segmentsEach, nil); err != nil {
		return nil, e.explain("outbound", 0, err)
	}
	for range 2 { // and these find pools empty
		if _, _, err := e.pass(); err != nil {
			return nil, err
		}
	}
	e.allocsOut, e.allocsIn, e.packetsOut, e.packetsIn = 0, 0, 0, 0
	return e, nil
}

// memoryMTU has room for a segment under every suite, in octets.
const memoryMTU = Segment + 200

// allocs returns how many objects the process has allocated so far.
func (e *engine) allocs() uint64 {
	runtime.ReadMemStats(&e.memory)
	return e.memory.Mallocs
}

// outbound seals one feed, and keeps what comes out if asked, which takes its time.
func (e *engine) outbound(keep bool) (time.Duration, error) {
	for _, f := range e.clear {
		copy(f, e.template)
	}
	var sealed *arena
	if keep {
		sealed = e.sealed
		sealed.reset()
	}
	before := e.allocs()
	d, err := e.right[0].feed(e.left[0], e.clear, superframes*segmentsEach, sealed)
	if err != nil {
		return 0, e.explain("outbound", 0, err)
	}
	e.allocsOut += e.allocs() - before
	e.packetsOut += superframes * segmentsEach
	return d, nil
}

// inbound opens what outbound has kept. It can be opened once.
func (e *engine) inbound() (time.Duration, error) {
	before := e.allocs()
	d, err := e.left[1].feed(e.right[1], e.sealed.frames, superframes*payloadEach, nil)
	if err != nil {
		return 0, e.explain("inbound", 1, err)
	}
	e.allocsIn += e.allocs() - before
	e.packetsIn += superframes * segmentsEach
	return d, nil
}

func (e *engine) explain(what string, box int, err error) error {
	return fmt.Errorf("bench: engine %s: %w; drops %v", what, err, e.boxes[box].Status().Drops)
}

// pass seals what one feed has, and opens it.
func (e *engine) pass() (out, in time.Duration, err error) {
	if out, err = e.outbound(false); err != nil {
		return 0, 0, err
	}
	// Once more, since to keep what comes out takes its time.
	if _, err = e.outbound(true); err != nil {
		return 0, 0, err
	}
	in, err = e.inbound()
	return out, in, err
}

// takeAllocs returns allocations a packet since it was called last.
func (e *engine) takeAllocs() (out, in float64) {
	out, in = float64(e.allocsOut)/float64(e.packetsOut), float64(e.allocsIn)/float64(e.packetsIn)
	e.allocsOut, e.allocsIn, e.packetsOut, e.packetsIn = 0, 0, 0, 0
	return out, in
}

func (e *engine) stop() error { return stopBoxes(e.boxes) }

// address is that of a host with the prefix of its network (RFC 5737).
func address(host int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(host + 1)}), 24)
}

// mac is the Ethernet address of a host, from the locally administered ones.
func mac(host int) net.HardwareAddr {
	return net.HardwareAddr{0x02, 0x00, 0x5e, 0x10, 0x01, byte(host + 1)}
}
