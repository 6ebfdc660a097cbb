package appliance

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"bitw/config"
	"bitw/netstack/link"
	"bitw/netstack/wire"
	"bitw/sa"
)

// The whole way through two graphs in memory: a 60,000-octet TCP superframe from
// a host's link through one appliance, over the wire as ESP and through the other
// to the far host's link. Bytes are of TCP payload. Every goroutine, queue and
// copy of the real thing takes part, but for the kernel.
func BenchmarkGraph(b *testing.B) {
	for _, action := range []config.Action{config.Protect, config.Bypass} {
		b.Run(string(action), func(b *testing.B) { benchmarkGraph(b, action) })
	}
}

func benchmarkGraph(b *testing.B, action config.Action) {
	const payload = 60000
	macA, macB := net.HardwareAddr{2, 0, 0, 0, 0, 10}, net.HardwareAddr{2, 0, 0, 0, 0, 11}
	addrA, addrB := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	cfgA := protectAll(b)
	cfgB := mirror(cfgA)
	for _, c := range []*config.Config{&cfgA, &cfgB} {
		for i := range c.Policies {
			if c.Policies[i].Action = action; action == config.Bypass {
				c.Policies[i].Out, c.Policies[i].In = nil, nil
			}
		}
	}
	cfgA.StaticNeighbors = []config.Neighbor{{Address: addrB, MAC: macB}}
	cfgB.StaticNeighbors = []config.Neighbor{{Address: addrA, MAC: macA}}
	hostA, leftA := link.Pipe(link.PipeOptions{Queue: 8192})
	hostB, leftB := link.Pipe(link.PipeOptions{Queue: 8192})
	rightA, rightB := link.Pipe(link.PipeOptions{Queue: 8192})
	var boxes []*Appliance
	for _, x := range []struct {
		cfg         config.Config
		left, right link.Device
		host        Host
	}{
		{cfgA, leftA, rightA, Host{MAC: macA, Addresses: []netip.Prefix{netip.PrefixFrom(addrA, 24)}}},
		{cfgB, leftB, rightB, Host{MAC: macB, Addresses: []netip.Prefix{netip.PrefixFrom(addrB, 24)}}},
	} {
		box, err := New(x.cfg, WithSequenceStore(sa.NewMemoryStore()), WithLinks(x.left, x.right, x.host))
		if err != nil {
			b.Fatal(err)
		}
		go func() { _ = box.Run(context.Background()) }()
		<-box.Ready()
		defer box.Close()
		boxes = append(boxes, box)
	}
	frames := [][]byte{tcpSuperframe(macA, macB, addrA, addrB, payload, 1448)}
	arrived := make(chan int, 1024)
	go func() {
		defer close(arrived)
		bufs, sizes := make([][]byte, 64), make([]int, 64)
		for i := range bufs {
			bufs[i] = make([]byte, link.MaxFrameLen)
		}
		for {
			n, err := hostB.ReadFrames(bufs, sizes)
			octets := 0
			for i := range n {
				octets += sizes[i] - link.HeaderLen - 20 - 32
			}
			arrived <- octets
			if err != nil {
				return
			}
		}
	}()
	// As many superframes are under way as fit the queues.
	const window = 64
	b.SetBytes(payload)
	b.ReportAllocs()
	// The first finds the next hop unresolved.
	if _, err := hostA.WriteFrames(frames); err != nil {
		b.Fatal(err)
	}
	for got := 0; got < payload; {
		got += <-arrived
	}
	b.ResetTimer()
	sent, got := 0, 0
	for got < b.N*payload {
		for sent < b.N && sent*payload-got < window*payload {
			if _, err := hostA.WriteFrames(frames); err != nil {
				b.Fatal(err)
			}
			sent++
		}
		select {
		case n := <-arrived:
			got += n
		case <-time.After(5 * time.Second):
			b.Fatalf("after %d of %d octets nothing comes any more: %v %v", got, sent*payload, dropsOf(boxes[0]), dropsOf(boxes[1]))
		}
	}
	b.StopTimer()
	_ = hostB.Close()
	for range arrived {
	}
}

// tcpSuperframe is a frame as a kernel hands it to a TAP: checksum and cutting
// left to the device.
func tcpSuperframe(src, dst net.HardwareAddr, from, to netip.Addr, payload, mss int) []byte {
	const l3, l4 = header.IPv4MinimumSize, 32
	b := make([]byte, link.HeaderLen+l3+l4+payload)
	v := wire.VirtioNet(b)
	v.SetFlags(wire.VirtioNetNeedsCsum)
	v.SetGSOType(wire.GSOTCPv4)
	v.SetGSOSize(uint16(mss))
	v.SetHdrLen(14 + l3 + l4)
	v.SetCsumStart(14 + l3)
	v.SetCsumOffset(16)
	eth := b[wire.VirtioNetLen:]
	copy(eth, dst)
	copy(eth[6:], src)
	binary.BigEndian.PutUint16(eth[12:], 0x0800)
	ip := header.IPv4(b[link.HeaderLen:])
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(l3 + l4 + payload), TTL: 64, Protocol: wire.ProtoTCP, Flags: header.IPv4FlagDontFragment,
		SrcAddr: addressOf(from), DstAddr: addressOf(to),
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	tcp := header.TCP(b[link.HeaderLen+l3:])
	tcp.Encode(&header.TCPFields{SrcPort: 1, DstPort: 2, DataOffset: l4, Flags: header.TCPFlagAck, WindowSize: 1000})
	copy(tcp[20:], []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2})
	tcp.SetChecksum(header.PseudoHeaderChecksum(header.TCPProtocolNumber, addressOf(from), addressOf(to), uint16(l4+payload)))
	return b
}
