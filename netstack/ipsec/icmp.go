package ipsec

import (
	"sync/atomic"

	"bitw/netstack/wire"
	"bitw/sa"
)

// An ICMPErrorRule says which ICMP errors are believed that come in the clear from the
// wire, where anybody may have made them (RFC 4301 §6.1.1).
type ICMPErrorRule uint8

const (
	// ICMPErrorsAccept leaves it to the SPD: a policy for ICMP lets them pass, or the one
	// of the datagram that they enclose. Those about ESP and AH of ours tell the path MTU.
	ICMPErrorsAccept ICMPErrorRule = iota
	// ICMPErrorsVerify wants in addition that the enclosed datagram is one that the host
	// sends in the clear.
	ICMPErrorsVerify
	// ICMPErrorsDiscard drops all, those that tell the path MTU of an SA as well.
	ICMPErrorsDiscard
)

// unprotectedError says why w.d, which came in the clear, is an ICMP error that the rule
// does not let pass, or DropNone.
func (e *Engine) unprotectedError(w *work) wire.DropReason {
	d := &w.d
	rule := ICMPErrorRule(e.icmpRule.Load())
	if rule == ICMPErrorsAccept || !wire.IsICMPError(&d.Info) {
		return wire.DropNone
	}
	if rule == ICMPErrorsDiscard {
		return wire.DropICMPPolicy
	}
	quoted, reason := wire.Enclosed(d.Bytes, &d.Info, &w.inner)
	if reason != wire.DropNone || w.inner.Src != d.Info.Dst {
		return wire.DropICMPPolicy
	}
	if s, _ := e.quotedSA(quoted, &w.inner); s != nil {
		return wire.DropNone // learnPathMTU looks at the sequence number
	}
	p := e.spd.Load().Lookup(sa.Outbound, flowOf(&w.flow, sa.Outbound, &w.inner))
	if p == nil || p.Action != sa.Bypass {
		return wire.DropICMPPolicy
	}
	return wire.DropNone
}

// errorLimit bounds the ICMP errors that are sent (RFC 4443 §2.4 (f), RFC 1812
// §4.3.2.8). They go to the host that we stand before and nowhere else, so that the
// bound protects no more than the processor.
type errorLimit struct {
	// next is when the next error is due at the average rate, nanoseconds since 1970.
	next    atomic.Int64
	refused atomic.Uint64
}

const (
	errorInterval = 1e9 / 1000 // nanoseconds
	errorBurst    = 1000 * errorInterval
)

// allow says whether one more error may be sent now, and counts it if not.
func (l *errorLimit) allow(now int64) bool {
	for {
		next := l.next.Load()
		due := max(next, now-errorBurst) + errorInterval
		if due > now {
			l.refused.Add(1)
			return false
		}
		if l.next.CompareAndSwap(next, due) {
			return true
		}
	}
}
