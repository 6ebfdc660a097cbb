package ipsec

import (
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/hook"
)

// hostBatchLen is how many frames for the wire are held back at most.
const hostBatchLen = 64

// A hostBatch has the frames for the wire that became of what one queue of the left link
// brought in one batch, so that they go by one call. It belongs to the goroutine that
// reads the queue.
type hostBatch struct {
	out stack.PacketBufferList
	_   [64]byte
}

// batchOf returns the batch of the queue that brought pkt, nil if there is none.
func (e *Engine) batchOf(pkt *stack.PacketBuffer) *hostBatch {
	if int(pkt.Hash) >= len(e.hostBatches) {
		return nil
	}
	return &e.hostBatches[pkt.Hash]
}

// EndHostBatch sends to the wire what was held back of the frames that a queue of the
// left link brought. The link's reader calls it before it waits for the next ones.
func (e *Engine) EndHostBatch(queue int) {
	if queue < len(e.hostBatches) {
		e.sendBatch(&e.hostBatches[queue])
	}
}

// add takes over the packets in list.
func (b *hostBatch) add(list *stack.PacketBufferList) {
	for _, pkt := range list.AsSlice() {
		b.out.PushBack(pkt.IncRef())
	}
	list.Reset()
}

func (e *Engine) sendBatch(b *hostBatch) {
	if b.out.Len() > 0 {
		_, _ = e.links[hook.Right].WritePackets(b.out)
		b.out.Reset()
	}
}

// holdsBack keeps what is in w.out for the wire until the end of the batch that w.d came
// in, and returns whether it did. If not, nothing of the batch is left that w.out could
// overtake.
func (e *Engine) holdsBack(w *work) bool {
	b := w.batch
	if b == nil {
		return false
	}
	if w.trail == nil && b.out.Len()+w.out.Len() <= hostBatchLen {
		b.add(&w.out)
		return true
	}
	e.sendBatch(b)
	return false
}
