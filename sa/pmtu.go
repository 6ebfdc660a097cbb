package sa

import "time"

// DefaultPMTUAge is how long a learned path MTU holds before the path may be tried
// again (RFC 1191 §6.3, RFC 8201 §4; RFC 4301 §8.2.2 leaves it to the implementation).
const DefaultPMTUAge = 10 * time.Minute

// Path MTUs below these are not possible on any path, so a message that reports
// one is a forgery (RFC 791 §3.2; RFC 8201 §4).
const (
	minPMTU4 = 68
	minPMTU6 = 1280
)

// The path MTU and the time until which it holds share one word, so that readers
// never see one without the other: milliseconds since 1970 above, octets below.
const pmtuBits = 17

// SetPMTU lowers the path MTU to mtu octets, the outer IP header included, as a
// Packet Too Big told at now (nanoseconds since 1970). It returns false, and
// changes nothing but the age, when the path MTU is not lowered by it. The caller
// has made sure that the message quotes a packet of this SA (see Sent).
func (s *SA) SetPMTU(mtu int, now int64) bool {
	floor := minPMTU4
	if s.Key.Dst.Is6() {
		floor = minPMTU6
	}
	if mtu < floor || mtu > 65535 {
		return false
	}
	until := uint64(now+int64(s.pmtuAge)) / uint64(time.Millisecond)
	next := until<<pmtuBits | uint64(mtu)
	for {
		word := s.pmtu.Load()
		old := pmtuAt(word, now)
		if old != 0 && mtu > old {
			return false
		}
		if s.pmtu.CompareAndSwap(word, next) {
			if mtu == old {
				return false
			}
			s.observe(Event{Kind: PathMTU, SA: s, Lineage: s.Lineage, PMTU: mtu})
			return true
		}
	}
}

// PMTU returns the learned path MTU in octets, the outer IP header included, or 0
// when none is known or the last one has aged. For the packet path.
func (s *SA) PMTU(now int64) int { return pmtuAt(s.pmtu.Load(), now) }

// PMTUUntil returns when a learned path MTU will have aged, in nanoseconds since 1970; 0
// when none is known.
func (s *SA) PMTUUntil(now int64) int64 {
	word := s.pmtu.Load()
	if pmtuAt(word, now) == 0 {
		return 0
	}
	return int64(word>>pmtuBits) * int64(time.Millisecond)
}

func pmtuAt(word uint64, now int64) int {
	if uint64(now)/uint64(time.Millisecond) >= word>>pmtuBits {
		return 0
	}
	return int(word & (1<<pmtuBits - 1))
}
