package sa

import (
	"fmt"
	"net/netip"
	"time"
)

// A Lifetime limits the use of an SA (RFC 4301 §4.4.2.1). Each limit that is not
// 0 holds; the first to be reached ends the lifetime.
type Lifetime struct {
	Packets uint64
	Bytes   uint64        // octets, as counted by Used
	Time    time.Duration // since the SA was made
}

// end returns when the time is over, 0 for never.
func (l Lifetime) end(created int64) int64 {
	if l.Time == 0 {
		return 0
	}
	return created + int64(l.Time)
}

// over says whether the counted limits are reached.
func (l Lifetime) over(packets, bytes uint64) bool {
	return l.Packets != 0 && packets >= l.Packets || l.Bytes != 0 && bytes >= l.Bytes
}

func checkLifetimes(soft, hard Lifetime) error {
	switch {
	case soft.Time < 0 || hard.Time < 0:
		return fmt.Errorf("lifetime is negative: soft %v, hard %v", soft.Time, hard.Time)
	case hard.Packets != 0 && soft.Packets > hard.Packets:
		return fmt.Errorf("soft lifetime of %d packets is longer than the hard one of %d", soft.Packets, hard.Packets)
	case hard.Bytes != 0 && soft.Bytes > hard.Bytes:
		return fmt.Errorf("soft lifetime of %d octets is longer than the hard one of %d", soft.Bytes, hard.Bytes)
	case hard.Time != 0 && soft.Time > hard.Time:
		return fmt.Errorf("soft lifetime of %v is longer than the hard one of %v", soft.Time, hard.Time)
	}
	return nil
}

// Metered says whether a lifetime ends by what the SA carries, so that each packet has to
// be counted before the next is looked at.
func (s *SA) Metered() bool {
	return s.Soft.Packets|s.Soft.Bytes|s.Hard.Packets|s.Hard.Bytes != 0
}

// Used counts packets that the SA carried, and the octets of their payload, at now
// (nanoseconds since 1970), and notices when a lifetime is reached. The packets
// that reach a hard limit still pass, and so does what other workers hold at that
// moment; TakeSeq holds a limit of packets exactly. For the packet path.
func (s *SA) Used(packets, bytes int, now int64) {
	p := s.Packets.Add(uint64(packets))
	b := s.Bytes.Add(uint64(bytes))
	if s.LastUse.Load() < now {
		s.LastUse.Store(now)
	}
	s.checkLifetime(p, b, now)
}

// Tick notices lifetimes that end while no packet comes. The owner of the SAD
// calls it from time to time.
func (s *SA) Tick(now int64) { s.checkLifetime(s.Packets.Load(), s.Bytes.Load(), now) }

func (s *SA) checkLifetime(packets, bytes uint64, now int64) {
	if s.Soft.over(packets, bytes) || s.softEnd != 0 && now >= s.softEnd {
		s.expire(stateSoft)
	}
	if s.Hard.over(packets, bytes) || s.hardEnd != 0 && now >= s.hardEnd {
		s.expire(stateHard)
	}
}

// expire sets a state bit, and notifies the first time.
func (s *SA) expire(bit uint32) {
	if s.state.Load()&bit != 0 || s.state.Or(bit)&bit != 0 {
		return
	}
	kind := ExpireSoft
	switch bit {
	case stateHard:
		kind = ExpireHard
	case stateSeqLow:
		kind = SequenceLow
	}
	s.tell(kind, netip.AddrPort{})
}

// Expired says which lifetimes are over, as far as Usable, Used or Tick noticed.
func (s *SA) Expired() (soft, hard bool) {
	st := s.state.Load()
	return st&stateSoft != 0, st&stateHard != 0
}

// Ends returns when the time of the soft and of the hard lifetime is over, in
// nanoseconds since 1970, 0 for never.
func (s *SA) Ends() (soft, hard int64) { return s.softEnd, s.hardEnd }
