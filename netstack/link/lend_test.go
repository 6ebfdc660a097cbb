package link

import (
	"slices"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/wire"
)

// trains notes what is delivered.
type trains struct {
	lengths []int
	whole   [][]byte
}

func (d *trains) DeliverNetworkPacket(_ tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	n := 1
	if t := wire.TrainOf(pkt.Owner); t != nil {
		d.whole = append(d.whole, t.Whole)
		var like wire.Likeness
		like.Of(t.Whole)
		for t.Taken < len(t.Frames) && like.Fits(t.Frames[t.Taken]) {
			t.Taken++
		}
		n += t.Taken
	}
	d.lengths = append(d.lengths, n)
}

func (*trains) DeliverLinkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) {}

// ESP packets of one SA come together, and nothing else with them; not at all unless
// somebody asked for that.
func TestTogether(t *testing.T) {
	esp := func(v6 bool, change ...func(b []byte)) []byte {
		f := frame(0, macA, macB, 0x0800, 100)
		b := f[HeaderLen:]
		clear(b)
		b[0], b[9], b[16] = 0x45, wire.ProtoESP, 10
		if v6 {
			f[HeaderLen-2], f[HeaderLen-1] = 0x86, 0xdd
			b[0], b[6], b[9], b[24] = 0x60, wire.ProtoESP, 0, 0x20
		}
		for _, c := range change {
			c(f)
		}
		return f
	}
	set := func(at int, v byte) func([]byte) { return func(b []byte) { b[at] = v } }
	none := func([]byte) {}
	for _, v6 := range []bool{false, true} {
		spi := HeaderLen + 20
		if v6 {
			spi += 20
		}
		for name, c := range map[string]struct {
			change func([]byte)
			want   []int
		}{
			"alike":             {none, []int{3}},
			"sequence number":   {set(spi+7, 9), []int{3}},
			"SPI":               {set(spi+3, 9), []int{1, 1, 1}},
			"source":            {set(spi-5, 9), []int{1, 1, 1}},
			"destination":       {set(spi-1, 9), []int{1, 1, 1}},
			"Ethernet source":   {set(wire.VirtioNetLen+11, 9), []int{1, 1, 1}},
			"group":             {set(wire.VirtioNetLen, 1), []int{1, 1, 1}},
			"checksum left":     {set(0, wire.VirtioNetNeedsCsum), []int{1, 1, 1}},
			"superframe":        {set(1, wire.GSOUDPL4), []int{1, 1, 1}},
			"another protocol":  {set(HeaderLen+map[bool]int{false: 9, true: 6}[v6], wire.ProtoUDP), []int{1, 1, 1}},
			"another EtherType": {set(HeaderLen-1, 6), []int{1, 1, 1}},
			"another version":   {set(HeaderLen, 0x10), []int{1, 1, 1}},
		} {
			frames := [][]byte{esp(v6), esp(v6, c.change), esp(v6)}
			if got := deliveredAs(t, true, frames); !slices.Equal(got, c.want) {
				t.Errorf("v6 %v, %s: %v, expected %v", v6, name, got, c.want)
			}
			if got := deliveredAs(t, false, frames); !slices.Equal(got, []int{1, 1, 1}) {
				t.Errorf("v6 %v, %s: %v, though nobody asked", v6, name, got)
			}
		}
	}
	fragment := esp(false, set(HeaderLen+6, 0x20))
	if got := deliveredAs(t, true, [][]byte{fragment, fragment}); !slices.Equal(got, []int{1, 1}) {
		t.Errorf("fragments: %v", got)
	}
	short := esp(true)[:HeaderLen+40]
	if got := deliveredAs(t, true, [][]byte{short, short}); !slices.Equal(got, []int{1, 1}) {
		t.Errorf("cut short: %v", got)
	}
}

func deliveredAs(t *testing.T, lend bool, frames [][]byte) []int {
	t.Helper()
	o := Options{Devices: []Device{new(fakeDevice)}, MAC: macA, MTU: 1500, Manual: true}
	if lend {
		o.Lend = func() bool { return true }
	}
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	d := new(trains)
	e.Attach(d)
	e.take(frames, 0)
	if n := e.Stats().FramesIn; n != uint64(len(frames)) {
		t.Errorf("%d frames counted of %d", n, len(frames))
	}
	return d.lengths
}

// A TCP superframe to one station is delivered where it lies, with its headers as the
// packet; every other large frame is copied.
func TestLentSuperframe(t *testing.T) {
	for name, c := range map[string]struct {
		change func(f []byte)
		lent   bool
	}{
		"superframe":    {func([]byte) {}, true},
		"no superframe": {func(f []byte) { f[1] = wire.GSONone }, false},
		"UDP":           {func(f []byte) { f[1] = wire.GSOUDPL4 }, false},
		"to a group":    {func(f []byte) { f[HeaderLen+16] = 0xe1 }, false},
		"a fragment":    {func(f []byte) { f[HeaderLen+6] = 0x20 }, false},
	} {
		f := frame(0, macA, macB, 0x0800, 30000)
		f[1] = wire.GSOTCPv4
		b := f[HeaderLen:]
		clear(b[:20])
		b[0], b[9], b[16] = 0x45, wire.ProtoTCP, 10
		c.change(f)
		d := lendTo(t, [][]byte{f})
		if lent := len(d.whole) == 1 && &d.whole[0][0] == &f[0]; lent != c.lent {
			t.Errorf("%s: lent %v, expected %v", name, lent, c.lent)
		}
	}
}

func lendTo(t *testing.T, frames [][]byte) *trains {
	t.Helper()
	e, err := New(Options{Devices: []Device{new(fakeDevice)}, MAC: macA, MTU: 1500, Manual: true, Lend: func() bool { return true }})
	if err != nil {
		t.Fatal(err)
	}
	d := new(trains)
	e.Attach(d)
	e.take(frames, 0)
	return d
}
