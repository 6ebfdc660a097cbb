package ipsec

import (
	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
)

// The segments of a superframe go as a wire.Train: sealed side by side in memory that
// stays the engine's, and written at once.

const (
	// trainRoom bounds the memory of a train in octets.
	trainRoom = 96 << 10
	// trainAlign is what frames in it are aligned to.
	trainAlign = 64
)

// protectTrain does what is left of protect for the n segments of a superframe, none
// longer than piece, whose sequence numbers are taken. It returns false, and has done
// nothing, where each needs a packet of its own: while somebody looks, while the next
// hop's Ethernet address is not known, and for fragments.
func (e *Engine) protectTrain(w *work, p *sa.Policy, hop route, piece, n int) bool {
	b := &w.plan
	if w.trail != nil || b.cutAfter {
		return false
	}
	var eth [ethernetLen]byte
	if hop.named {
		copy(eth[:], w.station[:])
	} else {
		mac, known := e.neighbors.Lookup(hop.nextHop)
		if !known {
			return false
		}
		copy(eth[:], mac)
	}
	copy(eth[6:], e.wireMAC())
	stride := (frameHead + b.room(piece) + trainAlign - 1) &^ (trainAlign - 1)
	if stride > trainRoom {
		return false
	}
	if w.room == nil {
		w.room = make([]byte, trainRoom)
	}
	octets, room := 0, w.room
	w.train.Frames = w.train.Frames[:0]
	for i := range n {
		if len(room) < stride {
			e.sendTrain(w, hook.Right)
			w.train.Frames, room = w.train.Frames[:0], w.room
		}
		buf := room[:stride:stride]
		room = room[stride:]
		start := frameHead + b.front
		end := start + w.cut.Next(buf[start:start+piece])
		octets += end - start
		start, end, reason, s := b.seal(buf, start, end, i, &w.d.Info, e.nextID)
		if reason != wire.DropNone {
			e.drop(w, hook.Left, reason, p, s)
			continue
		}
		head := buf[start-frameHead : start]
		clear(head[:wire.VirtioNetLen])
		copy(head[wire.VirtioNetLen:], eth[:12])
		putEthernet(head, eth[6:], buf[start]>>4)
		w.train.Frames = append(w.train.Frames, buf[start-frameHead:end])
	}
	e.countProtected(w, p, n, octets)
	e.turned(w, hook.Right, len(w.d.Bytes))
	e.sendTrain(w, hook.Right)
	return true
}
