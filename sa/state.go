package sa

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"

	"bitw/sa/transform"
)

// A State is what an SA has become in use: all that a process must know that goes on
// with the SA in the place of another, so that no sequence number is used twice
// (RFC 4303 §3.3.3), no packet that was received is accepted again (§3.4.3) and no
// lifetime begins anew (RFC 4301 §4.4.2.1). It holds no key, and its JSON form is what
// one process hands to the next (see Export).
type State struct {
	Name string `json:"name"`
	// Direction is "out" or "in".
	Direction   string     `json:"direction"`
	SPI         uint32     `json:"spi"` // host order
	Destination netip.Addr `json:"destination"`
	// Protocol is transform.ProtoESP or transform.ProtoAH.
	Protocol uint8 `json:"protocol"`
	// KeyID tells the key from others without giving it away; empty where there is no
	// key. It is the name under which a SequenceStore keeps the numbers.
	KeyID string `json:"key_id,omitempty"`
	// CounterMode says that the key's numbers make nonces.
	CounterMode bool `json:"counter_mode,omitempty"`
	ESN         bool `json:"esn,omitempty"`
	// NoSequence says that packets carry no numbers; they are counted with 64 bits.
	NoSequence bool `json:"no_sequence,omitempty"`

	Created int64             `json:"created"` // nanoseconds since 1970
	Packets uint64            `json:"packets"`
	Bytes   uint64            `json:"bytes"`              // octets
	LastUse int64             `json:"last_use,omitempty"` // nanoseconds since 1970
	Drops   map[string]uint64 `json:"drops,omitempty"`    // by the names of wire.DropReason

	// First and Next are of an outbound SA with a key: the number that it began with and
	// the one that it would use next, 64 bits with ESN as without.
	First uint64 `json:"first,omitempty"`
	Next  uint64 `json:"next,omitempty"`

	// Replay is the replay window of an inbound SA, nil for none.
	Replay *ReplayState `json:"replay,omitempty"`

	// PathMTU is in octets, the outer IP header included, 0 if none was learned. It
	// holds until PathMTUUntil, in milliseconds since 1970.
	PathMTU      int   `json:"path_mtu,omitempty"`
	PathMTUUntil int64 `json:"path_mtu_until,omitempty"`

	// Moved says where the peer of an outbound SA in UDP is, if not where it was
	// configured.
	Moved *MovedState `json:"moved,omitempty"`
}

// A MovedState is where a peer has moved to (see Lineage.Follow).
type MovedState struct {
	From netip.AddrPort `json:"from"` // as it was configured
	To   netip.AddrPort `json:"to"`
	// SPI and Created are those of the inbound SA that told, Sequence its packet's number.
	SPI      uint32 `json:"spi"`
	Created  int64  `json:"created"`
	Sequence uint64 `json:"sequence"`
}

// A ReplayState is a replay window.
type ReplayState struct {
	Size int    `json:"size"` // in packets
	Top  uint64 `json:"top"`  // the highest number that was accepted, 64 bits with ESN
	// Seen has a bit for each number of the window: bit i, counted from the lowest of
	// the first octet, is that of Top - i. It has as many octets as Size needs; those
	// of numbers below 0 are not set.
	Seen []byte `json:"seen"`
}

const (
	stateOut = "out"
	stateIn  = "in"

	keyIDLen     = 32 // of a fingerprint
	maxStateName = 1 << 10
)

// State returns what the SA has become. It is exact when nothing uses the SA any
// more, and stays so after Close.
func (s *SA) State() State {
	st := State{
		Name: s.Name, Direction: stateOut, SPI: s.Key.SPI, Destination: s.Key.Dst, Protocol: s.Key.Proto,
		KeyID: s.keyID, CounterMode: s.Algorithm.CounterMode, ESN: s.ESN, NoSequence: s.Algorithm.NoSequence,
		Created: s.Created, Packets: s.Packets.Load(), Bytes: s.Bytes.Load(), LastUse: s.LastUse.Load(),
		Drops: s.Drops.Snapshot(),
	}
	if word := s.pmtu.Load(); word != 0 {
		st.PathMTU, st.PathMTUUntil = int(word&(1<<pmtuBits-1)), int64(word>>pmtuBits)
	}
	if s.Direction == Inbound {
		st.Direction = stateIn
		if s.replay != nil {
			st.Replay = s.replay.state()
		}
		return st
	}
	if s.Lineage != nil {
		if m := s.Lineage.move.Load(); m != nil && s.Encap != nil {
			st.Moved = &MovedState{m.home, m.to, m.spi, m.created, m.seq}
		}
	}
	if s.seq.last != 0 {
		st.First, st.Next = s.seq.first, s.seq.next()
	}
	return st
}

// restore makes s what st says. Nobody else knows s yet.
func (s *SA) restore(st *State) {
	s.Created = st.Created
	s.softEnd, s.hardEnd = s.Soft.end(s.Created), s.Hard.end(s.Created)
	s.Packets.Store(st.Packets)
	s.Bytes.Store(st.Bytes)
	s.LastUse.Store(st.LastUse)
	s.Drops.AddSnapshot(st.Drops)
	if st.PathMTU != 0 {
		s.pmtu.Store(uint64(st.PathMTUUntil)<<pmtuBits | uint64(st.PathMTU))
	}
	if m := st.Moved; m != nil && s.Lineage != nil && s.Encap != nil {
		s.Lineage.move.CompareAndSwap(nil, &peerMove{m.From, m.To, m.SPI, m.Created, m.Sequence})
	}
	if st.Replay != nil && s.replay != nil {
		s.replay.restore(st.Replay)
	}
}

// next returns the number that would be taken next. After close it is what the claim
// was released with.
func (q *sequence) next() uint64 {
	used := q.used.Load()
	if used == closedUsed {
		used = q.ended.Load()
	}
	return used + 1
}

// state copies the window.
func (w *replayWindow) state() *ReplayState {
	w.mu.Lock()
	defer w.mu.Unlock()
	st := &ReplayState{Size: int(w.size), Top: w.top.Load(), Seen: make([]byte, (w.size+7)/8)}
	for i := range min(w.size-1, st.Top) + 1 {
		seq := st.Top - i
		if w.ring[seq/wordBits&w.mask].Load()&(1<<(seq%wordBits)) != 0 {
			st.Seen[i/8] |= 1 << (i % 8)
		}
	}
	return st
}

// restore makes the window what st says. A window that is now wider counts as seen
// what st cannot tell.
func (w *replayWindow) restore(st *ReplayState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.ring {
		w.ring[i].Store(0)
	}
	w.top.Store(st.Top)
	for i := range min(w.size-1, st.Top) + 1 {
		if i < uint64(st.Size) && st.Seen[i/8]&(1<<(i%8)) == 0 {
			continue
		}
		seq := st.Top - i
		word := &w.ring[seq/wordBits&w.mask]
		word.Store(word.Load() | 1<<(seq%wordBits))
	}
	if st.Top < w.size {
		w.ring[0].Or(1) // see newReplayWindow
	}
}

// An Export is what a process hands to the next one of all its SAs.
type Export struct {
	SAs []State `json:"security_associations"`
	// Next has for each key that was ever used for sending, and that no store on a disk
	// knows, the first number that was not used with it; by KeyID.
	Next map[string]uint64 `json:"next,omitempty"`
}

// ParseExport reads an Export as json.Marshal writes it, and refuses what no SA can have
// become. The errors name the SA.
func ParseExport(text []byte) (Export, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	var e Export
	if err := d.Decode(&e); err != nil {
		return Export{}, fmt.Errorf("states of SAs: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Export{}, errors.New("states of SAs: more follows")
	}
	for i := range e.SAs {
		if err := e.SAs[i].check(); err != nil {
			return Export{}, fmt.Errorf("state %d, of SA %.40q: %w", i, e.SAs[i].Name, err)
		}
	}
	for id, next := range e.Next {
		if !isKeyID(id) || next == 0 {
			return Export{}, fmt.Errorf("states of SAs: key %.40q goes on with number %d, which cannot be", id, next)
		}
	}
	return e, nil
}

func (st *State) check() error {
	switch {
	case st.Name == "" || len(st.Name) > maxStateName:
		return fmt.Errorf("the name has %d octets, want 1 to %d", len(st.Name), maxStateName)
	case st.Direction != stateOut && st.Direction != stateIn:
		return fmt.Errorf("direction is %.10q, want %q or %q", st.Direction, stateOut, stateIn)
	case st.SPI < 256:
		return fmt.Errorf("SPI is %d, but 0 to 255 are reserved (RFC 4303 §2.1)", st.SPI)
	case !st.Destination.IsValid() || st.Destination.Zone() != "" || st.Destination.Is4In6():
		return fmt.Errorf("%v is no destination of an SA", st.Destination)
	case st.Protocol != transform.ProtoESP && st.Protocol != transform.ProtoAH:
		return fmt.Errorf("protocol is %d, want %d (ESP) or %d (AH)", st.Protocol, transform.ProtoESP, transform.ProtoAH)
	case st.KeyID != "" && !isKeyID(st.KeyID):
		return fmt.Errorf("%.40q names no key", st.KeyID)
	case st.Created < 0 || st.LastUse < 0:
		return errors.New("a time before 1970")
	case st.PathMTU < 0 || st.PathMTU > 65535 || st.PathMTUUntil < 0 || st.PathMTUUntil > math.MaxInt64>>pmtuBits:
		return fmt.Errorf("path MTU of %d octets until %d", st.PathMTU, st.PathMTUUntil)
	}
	if m := st.Moved; m != nil && (st.Direction != stateOut || !couldBePeer(m.To, st.Destination)) {
		return fmt.Errorf("a peer at %v cannot be", m.To)
	}
	if st.Direction == stateOut {
		return st.checkOutbound()
	}
	return st.checkInbound()
}

func (st *State) checkOutbound() error {
	last := lastNumber(st.ESN, st.NoSequence)
	switch {
	case st.Replay != nil:
		return errors.New("an outbound SA has no replay window")
	case st.KeyID == "" && st.Next == 0 && st.First == 0:
		return nil // of an SA without key
	case st.KeyID == "" || st.First == 0 || st.First > st.Next || st.Next > last+1:
		return fmt.Errorf("the numbers began with %d and go on with %d, which cannot be", st.First, st.Next)
	}
	return nil
}

func (st *State) checkInbound() error {
	r := st.Replay
	switch {
	case st.First != 0 || st.Next != 0:
		return errors.New("an inbound SA hands out no numbers")
	case r == nil:
		return nil
	case r.Size < MinReplayWindow || r.Size > MaxReplayWindow:
		return fmt.Errorf("replay window is %d packets, want %d to %d", r.Size, MinReplayWindow, MaxReplayWindow)
	case len(r.Seen) != (r.Size+7)/8:
		return fmt.Errorf("replay window of %d packets has %d octets, want %d", r.Size, len(r.Seen), (r.Size+7)/8)
	case !st.ESN && r.Top > math.MaxUint32:
		return fmt.Errorf("the highest number is %d, which takes extended sequence numbers", r.Top)
	}
	return nil
}

func isKeyID(id string) bool {
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(id) == keyIDLen
}
