package appliance_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/netip"

	"bitw/appliance"
	"bitw/config"
	"bitw/netstack/link"
	"bitw/sa"
)

// An appliance between two links in memory: what the host sends to 192.0.2.2
// leaves as ESP. No interface is touched and no privilege needed.
func ExampleNew() {
	addr := netip.MustParseAddr
	one := func(s string) []config.AddressRange {
		return []config.AddressRange{{First: addr(s), Last: addr(s)}}
	}
	peer := net.HardwareAddr{2, 0, 0, 0, 0, 2}
	cfg := appliance.Config{
		StaticNeighbors: []config.Neighbor{{Address: addr("192.0.2.2"), MAC: peer}},
		SAs: []config.SA{{
			Name: "out", Direction: config.Out, Protocol: config.ESP, Mode: config.Transport,
			SPI: 0x1001, Source: addr("192.0.2.1"), Destination: addr("192.0.2.2"),
			Algorithm: "aes128gcm16", EncryptionKey: config.NewSecret([]byte("sixteen octets!!salt")),
		}},
		Policies: []config.Policy{{
			Name: "to-peer", Direction: config.Out, Local: one("192.0.2.1"), Remote: one("192.0.2.2"),
			Action: config.Protect, Out: []string{"out"},
		}},
	}

	host, left := link.Pipe(link.PipeOptions{})
	right, wire := link.Pipe(link.PipeOptions{})
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	box, err := appliance.New(cfg,
		appliance.WithLinks(left, right, appliance.Host{MAC: mac, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}}),
		appliance.WithSequenceStore(sa.NewMemoryStore())) // the key ends with the process
	if err != nil {
		log.Fatal(err)
	}
	go func() { _ = box.Run(context.Background()) }()
	<-box.Ready()
	defer box.Close()

	// A frame begins with a virtio-net header of 12 octets, all zero without offloads.
	frame := append(make([]byte, 12), peer...)
	frame = append(append(frame, mac...), 0x08, 0x00)
	frame = append(frame, udpDatagram...)
	if _, err := host.WriteFrames([][]byte{frame}); err != nil {
		log.Fatal(err)
	}
	buf, size := [][]byte{make([]byte, link.MaxFrameLen)}, make([]int, 1)
	if _, err := wire.ReadFrames(buf, size); err != nil {
		log.Fatal(err)
	}
	fmt.Println("IP protocol on the wire:", buf[0][12+14+9])
	fmt.Println("packets protected:", box.Status().SAs[0].Packets)
	// Output:
	// IP protocol on the wire: 50
	// packets protected: 1
}

// What happens to an appliance, and what becomes of a packet.
func ExampleAppliance_Trace() {
	host, left := link.Pipe(link.PipeOptions{})
	right, _ := link.Pipe(link.PipeOptions{})
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	box, err := appliance.New(appliance.Config{}, // without policies nothing passes
		appliance.WithLinks(left, right, appliance.Host{MAC: mac, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}}))
	if err != nil {
		log.Fatal(err)
	}
	events := box.Subscribe(appliance.KeptEvents) // those from New on, too
	defer events.Close()
	ctx := context.Background()
	go func() { _ = box.Run(ctx) }()
	<-box.Ready()
	defer box.Close()
	packets, err := box.Trace("udp port 2 drop")
	if err != nil {
		log.Fatal(err)
	}
	defer packets.Close()

	frame := append(make([]byte, 12), mac...)
	frame = append(append(frame, mac...), 0x08, 0x00)
	if _, err := host.WriteFrames([][]byte{append(frame, udpDatagram...)}); err != nil {
		log.Fatal(err)
	}
	p, err := packets.Next(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(p.Direction, p.Packet)
	for _, s := range p.Stations {
		fmt.Println("  "+s.Station+":", s.Text)
	}
	for range 4 {
		ev, err := events.Next(ctx)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(ev.Number, ev.String())
	}
	// Output:
	// out udp 192.0.2.1:1 > 192.0.2.2:2 len 33
	//   link: a frame of 47 octets from the host
	//   rule: none fits
	//   drop: no_policy
	// 1 state: state new
	// 2 state: state starting
	// 3 state: state active
	// 4 trace-started: a trace was started (filter="udp port 2 drop")
}

// udpDatagram is one from 192.0.2.1 port 1 to 192.0.2.2 port 2 that says "hello".
var udpDatagram = []byte{
	0x45, 0, 0, 33, 0, 1, 0, 0, 64, 17, 0xf6, 0xc7, 192, 0, 2, 1, 192, 0, 2, 2,
	0, 1, 0, 2, 0, 13, 0, 0, 'h', 'e', 'l', 'l', 'o',
}
