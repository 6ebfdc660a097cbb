package link

import (
	"errors"
	"net/netip"

	"github.com/sirupsen/logrus"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/wire"
)

// DefaultBatch is how many frames an Endpoint asks a Device for at once.
const DefaultBatch = 32

// Options describe an Endpoint or a HostEndpoint.
type Options struct {
	// Devices are the link's queues, at least one; the endpoint closes them.
	Devices []Device
	// MAC is the endpoint's Ethernet address, 6 octets.
	MAC tcpip.LinkAddress
	// MTU is the longest IP datagram in octets.
	MTU uint32
	// Name stands in log entries.
	Name string
	// Drops counts what could not be moved. If nil, the endpoint has its own.
	Drops *wire.DropCounters
	// Logger may be nil. Nothing is logged per packet.
	Logger logrus.FieldLogger
	// Clock is for waiting after a failed read; if nil, the real one.
	Clock tcpip.Clock
	// Batch is the number of frames for one read, DefaultBatch if 0. Each has a buffer
	// of MaxFrameLen octets.
	Batch int
	// EndBatch, if not nil, is called on the reader's goroutine when all frames that one
	// read from Devices[queue] brought have been delivered. Each packet has its queue as
	// Hash.
	EndBatch func(queue int)
	// Lend, if not nil, says whether frames may be delivered where they lie, by a wire.Train:
	// TCP superframes and ESP packets as a packet with their headers, and what came behind
	// them for who wants to take it at once. Who gets them may change them. It is asked once a
	// read.
	Lend func() bool
	// Apart, if not nil, says of which UDP superframes, by their destination, each datagram
	// is delivered as a packet of its own, with its checksum left to the device.
	Apart func(dst netip.Addr, port uint16) bool
	// Manual makes the endpoint read only when Pump is called, on the caller's
	// goroutine, for tests that must be deterministic. The devices must be Pollers.
	Manual bool
}

// An Endpoint is a link of the bump, an Ethernet stack.LinkEndpoint over a Device.
// What it delivers and takes is described at NewPacket.
//
// It delivers every frame, whoever it is addressed to, with its EtherType as
// protocol number: VLAN tags and everything else that is not IP are for the hooks.
type Endpoint struct {
	base
	reader
	super superframes
}

var _ stack.LinkEndpoint = (*Endpoint)(nil)

// New returns an Endpoint. Its readers, one for each device, start when a stack
// attaches itself and end on Close.
func New(o Options) (*Endpoint, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	e := new(Endpoint)
	e.base.init(o.MAC, o.MTU, o.Drops)
	e.super.init(o.Apart)
	e.reader.init(&e.base, o, func(frame []byte, rest [][]byte, queue int) int {
		e.countIn(frame)
		if e.apart(frame, queue) {
			return 0
		}
		if t := &e.turns[queue]; t.lends && (wire.ESPAt(frame) != 0 || isSuperframe(frame)) {
			taken := e.lendFrom(queue, frame, rest)
			e.countIn(rest[:taken]...)
			return taken
		}
		e.deliverFrom(queue, NewPacket(frame, e.LinkAddress()))
		return 0
	})
	return e, nil
}

// lendFrom delivers a frame that a queue brought where it lies, with what came behind it,
// of which it returns how many were taken.
func (e *Endpoint) lendFrom(queue int, frame []byte, rest [][]byte) (taken int) {
	train := &e.turns[queue].train
	*train = wire.Train{Whole: frame, Frames: rest}
	pkt := NewPacket(frame[:min(len(frame), maxHeaders)], e.LinkAddress())
	pkt.Owner = train
	e.deliverFrom(queue, pkt)
	return train.Taken
}

// deliverFrom delivers a packet that a queue brought.
func (e *Endpoint) deliverFrom(queue int, pkt *stack.PacketBuffer) {
	pkt.Hash = uint32(queue)
	e.deliver(pkt)
}

func (o *Options) check() error {
	if len(o.Devices) == 0 {
		return errors.New("link needs a device")
	}
	if len(o.MAC) != header.EthernetAddressSize {
		return errors.New("link needs an Ethernet address of 6 octets")
	}
	if o.Manual {
		for _, d := range o.Devices {
			if _, ok := d.(Poller); !ok {
				return errors.New("link with manual reading needs devices that can be polled")
			}
		}
	}
	return nil
}

// Capabilities implements stack.LinkEndpoint.
func (*Endpoint) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityResolutionRequired
}

// MaxHeaderLength implements stack.LinkEndpoint: the virtio-net header has its room
// too, so that a packet of the stack's own becomes a frame without a copy.
func (*Endpoint) MaxHeaderLength() uint16 { return HeaderLen }

// AddHeader implements stack.LinkEndpoint. A packet that has an Ethernet header with
// a destination keeps it.
func (*Endpoint) AddHeader(pkt *stack.PacketBuffer) { addHeader(pkt) }

// Attach implements stack.LinkEndpoint.
func (e *Endpoint) Attach(d stack.NetworkDispatcher) { e.attach(d) }

// Close implements stack.LinkEndpoint: it closes the devices and lets the readers
// end; Wait returns when they have. It may be called more than once.
func (e *Endpoint) Close() { e.close(e.devices...) }

// WritePackets implements stack.LinkEndpoint. It never waits for the link, tries each
// frame once and counts those that the link does not take. The packets stay the
// caller's. The queue goes by pkt.Hash, so that the packets of a flow keep their order.
// Any number of goroutines may call it.
func (e *Endpoint) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	list := pkts.AsSlice()
	b := e.batches.Get().(*batch)
	sent, last := 0, wire.DropNone
	for len(list) > 0 {
		q, n := list[0].Hash%uint32(len(e.devices)), 0
		for n < len(list) && list[n].Hash%uint32(len(e.devices)) == q {
			e.gather(b, list[n])
			n++
		}
		list = list[n:]
		s, l := e.writeJoined(e.devices[q], b)
		if sent += s; l != wire.DropNone {
			last = l
		}
		b.reset()
	}
	e.batches.Put(b)
	return writeResult(sent, last)
}
