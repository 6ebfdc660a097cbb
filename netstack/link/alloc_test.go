//go:build !race

package link

// The race detector makes pools forget, so that these numbers mean nothing with it.

import (
	"strconv"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/wire"
)

func TestAllocations(t *testing.T) {
	dev := &countDevice{}
	e, _ := newManual(t, dev, nil)
	for _, n := range []int{40, 1500, 60000} {
		f := frame(0, macA, macB, 0x0800, n)
		e.Attach(dispatcherFunc(func() {}))
		if a := testing.AllocsPerRun(200, func() { e.handle(f, nil, 0) }); a >= 1 {
			t.Errorf("%v allocations to receive %d octets", a, n)
		}
		var l stack.PacketBufferList
		l.PushBack(NewPacket(f, macA))
		if a := testing.AllocsPerRun(200, func() { e.WritePackets(l) }); a >= 1 {
			t.Errorf("%v allocations to send %d octets", a, n)
		}
		l.DecRef()
	}
	a, b := Pipe(PipeOptions{})
	fs, bufs, sizes := [][]byte{frame(0, macA, macB, 0x0800, 60000)}, [][]byte{make([]byte, MaxFrameLen)}, make([]int, 1)
	if n := testing.AllocsPerRun(200, func() { a.WriteFrames(fs); b.ReadFrames(bufs, sizes) }); n >= 1 {
		t.Errorf("%v allocations through a pipe", n)
	}
}

type countDevice struct{ fakeDevice }

func (d *countDevice) WriteFrames(fs [][]byte) (int, error) { return len(fs), nil }

// A train of 42 frames to a device that takes them all.
func BenchmarkWriteTrain(b *testing.B) {
	e, err := New(Options{Devices: []Device{&countDevice{}}, MAC: macA, MTU: 1500, Manual: true})
	if err != nil {
		b.Fatal(err)
	}
	var t wire.Train
	for i := range 42 {
		t.Frames = append(t.Frames, frame(byte(i), macA, macB, 0x0800, 1500))
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{})
	pkt.Owner = &t
	var l stack.PacketBufferList
	l.PushBack(pkt)
	b.ReportAllocs()
	for b.Loop() {
		e.WritePackets(l)
	}
}

func BenchmarkReceive(b *testing.B) {
	e, err := New(Options{Devices: []Device{new(fakeDevice)}, MAC: macA, MTU: 1500, Manual: true})
	if err != nil {
		b.Fatal(err)
	}
	e.Attach(dispatcherFunc(func() {}))
	for _, n := range []int{64, 1500, 65200} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			f := frame(0, macA, macB, 0x0800, n)
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				e.handle(f, nil, 0)
			}
		})
	}
}
