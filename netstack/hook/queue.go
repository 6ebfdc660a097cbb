package hook

import "gvisor.dev/gvisor/pkg/tcpip/stack"

const (
	// DefaultWaiting is how many packets wait for one next hop or host: what comes by a link
	// of 1 Gbit/s in ten milliseconds.
	DefaultWaiting = 1024
	// maxQueueOctets bounds what waits for one of them, for it may be superframes.
	maxQueueOctets = 4 << 20
)

// A queue has the packets that wait for one Ethernet address, the oldest first. Its owner
// guards it.
type queue struct {
	list   []*stack.PacketBuffer
	octets int // of memory
}

// fits says whether pkt may be one of at most so many.
func (q *queue) fits(pkt *stack.PacketBuffer, most int) bool {
	return len(q.list) < most && (len(q.list) == 0 || q.octets+pkt.MemSize() <= maxQueueOctets)
}

// put adds pkt, for which it takes a reference.
func (q *queue) put(pkt *stack.PacketBuffer) {
	q.list = append(q.list, pkt.IncRef())
	q.octets += pkt.MemSize()
}

// shift takes the oldest one out.
func (q *queue) shift() *stack.PacketBuffer {
	pkt := q.list[0]
	q.list[0] = nil
	q.list = q.list[1:]
	q.octets -= pkt.MemSize()
	return pkt
}
