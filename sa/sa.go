package sa

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"bitw/netstack/wire"
	"bitw/sa/transform"
)

// A Mode is how an SA encloses a datagram (RFC 4301 §4.1).
type Mode uint8

const (
	Transport Mode = iota
	Tunnel
	// BEET is bound end-to-end tunnel mode (draft-nikander-esp-beet-mode-09): on the wire
	// as in transport mode, but the two ends see the fixed inner addresses of the SA in
	// the place of the outer ones.
	BEET
)

// String returns "transport", "tunnel" or "beet".
func (m Mode) String() string {
	switch m {
	case Transport:
		return "transport"
	case Tunnel:
		return "tunnel"
	case BEET:
		return "beet"
	}
	return fmt.Sprintf("Mode(%d)", uint8(m))
}

// A Key names an SA (RFC 4301 §4.1).
type Key struct {
	SPI uint32 // host order
	// Dst is the destination of the datagram that carries the ESP or AH header.
	Dst netip.Addr
	// Proto is transform.ProtoESP or transform.ProtoAH.
	Proto uint8
}

// String returns for example "esp 0x00001001 to 10.0.0.2".
func (k Key) String() string {
	proto := fmt.Sprintf("proto %d", k.Proto)
	switch k.Proto {
	case transform.ProtoESP:
		proto = "esp"
	case transform.ProtoAH:
		proto = "ah"
	}
	return fmt.Sprintf("%s 0x%08x to %v", proto, k.SPI, k.Dst)
}

// ReplayOff as an SAConfig's ReplayWindow turns the anti-replay service off.
const ReplayOff = -1

// An SAConfig is what an SA is made of.
type SAConfig struct {
	Name      string
	Key       Key
	Direction Direction
	Mode      Mode
	// Src is the source of the outer header: needed in tunnel and BEET mode, and of the
	// family of Key.Dst.
	Src netip.Addr
	// InnerSrc and InnerDst are what a datagram has in the place of Src and Key.Dst
	// before it is protected, and again afterwards. They are for BEET mode only, which
	// needs both; they are of one family, which may be another than Src's.
	InnerSrc, InnerDst netip.Addr
	// Headers says how an outer header is made and read; transport mode has none.
	Headers Headers
	// Algorithm and its keys. They are copied into the transform; the caller may clear
	// them. With both keys empty, where the algorithm wants one, the SA has no key
	// yet and drops everything as DropKeyInvalid.
	Algorithm                   transform.Algorithm
	EncryptionKey, IntegrityKey Secret
	// Discard makes an SA without algorithm and keys that drops everything as
	// DropPolicyDiscard: those of the key manager "sink".
	Discard bool
	ESN     bool
	// ReplayWindow is in packets, MinReplayWindow to MaxReplayWindow; 0 stands for
	// DefaultReplayWindow, ReplayOff for none. Outbound SAs ignore it, and so does an
	// algorithm without sequence numbers, which has none.
	ReplayWindow int
	Soft, Hard   Lifetime
	Lineage      *Lineage
	// Encap is the UDP encapsulation of an ESP SA, nil for none. It must not change.
	Encap *Encap
	// TFCPadding is to how many octets an outbound ESP SA pads the payload of each
	// packet, as far as the path takes it, to hide how long it is (RFC 4303 §2.7);
	// PadToMTU for all that the path takes, 0 for none. In transport mode, payloads that
	// do not tell their own length stay as they are.
	TFCPadding int
	// Dummies is how many dummy packets an outbound ESP SA sends a second (RFC 4303
	// §2.6), at most MaxDummies.
	Dummies int
	// Store keeps the sequence numbers of an outbound SA over a restart. A
	// counter-mode algorithm needs one; others may have one, so that the peer's replay
	// window still fits after a restart.
	Store SequenceStore
	// SequenceBlock is how many numbers are reserved in the store at once; 0 stands
	// for DefaultSequenceBlock.
	SequenceBlock uint64
	// Resume may know what a predecessor in another process has become; the SA then goes
	// on from there. nil is allowed.
	Resume *Resume
	// PMTUAge is how long a learned path MTU holds; 0 stands for DefaultPMTUAge.
	PMTUAge time.Duration
	// Clock returns nanoseconds since 1970; nil stands for the system's clock. It is
	// not called per packet.
	Clock func() int64
}

// An SA is one unidirectional security association (RFC 4301 §4.1). Its exported
// fields do not change once it is made, but for counters. A new key makes a new SA.
type SA struct {
	// What every packet reads comes first, in one line of memory, what it writes in the
	// next: with more SAs than the caches hold, waiting for these is what a packet costs.
	state     atomic.Uint32
	discard   bool
	ESN       bool
	Direction Direction
	Mode      Mode
	hardEnd   int64 // of the lifetime, nanoseconds since 1970; 0 for none
	softEnd   int64
	// Transform is nil while the SA has no key, and for an SA that discards; Usable
	// never returns DropNone then.
	Transform transform.Transform
	Lineage   *Lineage
	replay    *replayWindow
	Encap     *Encap

	// What the SA carried (see Used).
	Packets, Bytes atomic.Uint64
	LastUse        atomic.Int64 // nanoseconds since 1970, 0 if never used
	Key            Key

	seq   sequence
	pmtu  atomic.Uint64
	clock func() int64

	Name    string
	Src     netip.Addr
	Headers Headers
	// InnerSrc and InnerDst are valid in BEET mode only.
	InnerSrc, InnerDst netip.Addr
	Algorithm          transform.Algorithm
	ReplayWindow       int // in packets, 0 for none and for outbound SAs
	Soft, Hard         Lifetime
	Created            int64 // nanoseconds since 1970
	TFCPadding         int   // in octets or PadToMTU, 0 for inbound SAs
	Dummies            int   // packets a second, 0 for inbound SAs

	// What was dropped on the SA's account.
	Drops wire.DropCounters
	// What an outbound SA sent of itself.
	DummiesSent, KeepalivesSent atomic.Uint64

	keyID   string // fingerprint of the key, empty without
	pmtuAge time.Duration
	secrets secrets
	// observer is that of the database, once s is in one that has one.
	observer atomic.Pointer[func(Event)]
}

// Bits of SA.state.
const (
	stateNoKey    = 1 << iota // never had one
	stateInvalid              // Invalidate
	stateClosed               // Close
	stateSoft                 // soft lifetime is over, and was notified
	stateHard                 // hard lifetime is over, and was notified
	stateSeqLow               // sequence numbers are nearly exhausted, and was notified
	stateRetiring             // Retire
)

// New makes an SA. It belongs to no database yet: SAD.Add and Lineage.Switch put
// it to work, and Close ends it. The errors name what was expected and found;
// ErrNoSequenceStore, ErrSequenceExhausted and ErrKeyInUse can be matched.
func New(cfg SAConfig) (*SA, error) {
	s, err := newSA(&cfg, false)
	if err != nil {
		return nil, fmt.Errorf("SA %q: %w", cfg.Name, err)
	}
	return s, nil
}

// newSA makes an SA; later says that its numbers come from one before it.
func newSA(cfg *SAConfig, later bool) (*SA, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s := &SA{
		Name: cfg.Name, Key: cfg.Key, Direction: cfg.Direction, Mode: cfg.Mode, Src: cfg.Src.Unmap(),
		InnerSrc: cfg.InnerSrc.Unmap(), InnerDst: cfg.InnerDst.Unmap(), Headers: cfg.Headers,
		Algorithm: cfg.Algorithm, ESN: cfg.ESN, Soft: cfg.Soft, Hard: cfg.Hard, Lineage: cfg.Lineage,
		Encap: cfg.Encap, discard: cfg.Discard, clock: cfg.Clock, pmtuAge: cfg.PMTUAge,
	}
	s.Key.Dst = s.Key.Dst.Unmap()
	if s.Direction == Outbound {
		s.TFCPadding, s.Dummies = cfg.TFCPadding, cfg.Dummies
	}
	if s.clock == nil {
		s.clock = systemClock
	}
	if s.pmtuAge == 0 {
		s.pmtuAge = DefaultPMTUAge
	}
	s.Created = s.clock()
	s.softEnd, s.hardEnd = s.Soft.end(s.Created), s.Hard.end(s.Created)
	if s.Direction == Inbound && cfg.ReplayWindow != ReplayOff && !s.Algorithm.NoSequence {
		s.ReplayWindow = cfg.ReplayWindow
		if s.ReplayWindow == 0 {
			s.ReplayWindow = DefaultReplayWindow
		}
		s.replay = newReplayWindow(s.ReplayWindow)
	}
	if cfg.Discard {
		return s, nil
	}
	if cfg.keyless() {
		s.state.Store(stateNoKey)
		return s, nil
	}
	t, err := cfg.Algorithm.New(cfg.EncryptionKey.Bytes(), cfg.IntegrityKey.Bytes(), transform.Options{IPv6: s.Key.Dst.Is6()})
	if err != nil {
		return nil, err
	}
	s.Transform = t
	s.keyID = fingerprint(&cfg.Algorithm, s.Key, cfg.EncryptionKey, cfg.IntegrityKey)
	s.secrets.keep(cfg.EncryptionKey, cfg.IntegrityKey)
	if later {
		if s.Direction == Outbound {
			s.seq.prepare(cfg, s.clock)
		}
		return s, nil
	}
	was := cfg.Resume.of(s)
	if s.Direction == Outbound {
		if err := s.seq.open(cfg, s.keyID, was, s.clock); err != nil {
			return nil, err
		}
	}
	if was != nil {
		s.restore(was)
	}
	return s, nil
}

func systemClock() int64 { return time.Now().UnixNano() }

// keyless says that keys are wanted and none was given.
func (cfg *SAConfig) keyless() bool {
	return cfg.Algorithm.EncryptionKeyLen+cfg.Algorithm.IntegrityKeyLen > 0 &&
		cfg.EncryptionKey.Empty() && cfg.IntegrityKey.Empty()
}

func (cfg *SAConfig) check() error {
	switch {
	case cfg.Name == "":
		return errors.New("name is empty")
	case cfg.Direction > Inbound:
		return fmt.Errorf("unknown direction %d", cfg.Direction)
	case cfg.Mode > BEET:
		return fmt.Errorf("unknown mode %d", cfg.Mode)
	case cfg.Key.Proto != transform.ProtoESP && cfg.Key.Proto != transform.ProtoAH:
		return fmt.Errorf("protocol is %d, want %d (ESP) or %d (AH)", cfg.Key.Proto, transform.ProtoESP, transform.ProtoAH)
	case cfg.Key.SPI < 256:
		return fmt.Errorf("SPI is %d, but 0 to 255 are reserved (RFC 4303 §2.1)", cfg.Key.SPI)
	case !cfg.Key.Dst.IsValid():
		return errors.New("destination address is missing")
	case cfg.Key.Dst.Zone() != "" || cfg.Src.Zone() != "":
		return fmt.Errorf("address with a zone: %v or %v", cfg.Src, cfg.Key.Dst)
	case cfg.Mode != Transport && !cfg.Src.IsValid():
		return fmt.Errorf("%v mode needs a source address", cfg.Mode)
	case cfg.Src.IsValid() && cfg.Src.Unmap().BitLen() != cfg.Key.Dst.Unmap().BitLen():
		return fmt.Errorf("source %v and destination %v are not of one address family", cfg.Src, cfg.Key.Dst)
	}
	if err := cfg.checkInner(); err != nil {
		return err
	}
	if w := cfg.ReplayWindow; cfg.Direction == Inbound {
		if w != 0 && w != ReplayOff && (w < MinReplayWindow || w > MaxReplayWindow) {
			return fmt.Errorf("replay window is %d packets, want %d to %d", w, MinReplayWindow, MaxReplayWindow)
		}
		if w == ReplayOff && cfg.ESN {
			return errors.New("extended sequence numbers need a replay window to tell their high half (RFC 4303 §3.4.3)")
		}
	}
	if err := checkLifetimes(cfg.Soft, cfg.Hard); err != nil {
		return err
	}
	if err := cfg.checkEncap(); err != nil {
		return err
	}
	if err := cfg.Headers.check(); err != nil {
		return err
	}
	if cfg.Discard {
		return nil
	}
	switch {
	case cfg.Algorithm.New == nil:
		return errors.New("algorithm is missing")
	case cfg.Algorithm.Protocol != cfg.Key.Proto:
		return fmt.Errorf("algorithm %q is for protocol %d, but the SA's is %d", cfg.Algorithm.Name, cfg.Algorithm.Protocol, cfg.Key.Proto)
	case cfg.Algorithm.NoSequence && cfg.ESN:
		return fmt.Errorf("algorithm %q has no sequence numbers, so there are no extended ones", cfg.Algorithm.Name)
	case cfg.Algorithm.NoSequence && cfg.Encap != nil:
		return fmt.Errorf("algorithm %q is older than ESP in UDP (RFC 3948)", cfg.Algorithm.Name)
	case cfg.Direction == Outbound && cfg.Algorithm.CounterMode && !cfg.keyless() && cfg.Store == nil:
		return fmt.Errorf("algorithm %q: %w", cfg.Algorithm.Name, ErrNoSequenceStore)
	}
	return nil
}

// checkInner says why the inner addresses do not fit the mode.
func (cfg *SAConfig) checkInner() error {
	src, dst := cfg.InnerSrc, cfg.InnerDst
	switch {
	case cfg.Mode != BEET && (src.IsValid() || dst.IsValid()):
		return fmt.Errorf("inner addresses are for BEET mode, but the mode is %v", cfg.Mode)
	case cfg.Mode != BEET:
		return nil
	case cfg.Key.Proto != transform.ProtoESP:
		return errors.New("BEET mode is for ESP only (draft-nikander-esp-beet-mode-09 §1)")
	case !src.IsValid() || !dst.IsValid():
		return errors.New("BEET mode needs an inner source and an inner destination")
	case src.Zone() != "" || dst.Zone() != "":
		return fmt.Errorf("inner address with a zone: %v or %v", src, dst)
	case src.Unmap().BitLen() != dst.Unmap().BitLen():
		return fmt.Errorf("inner source %v and inner destination %v are not of one address family", src, dst)
	}
	return nil
}

// Usable says whether s may be used for a packet now (nanoseconds since 1970):
// DropKeyInvalid without valid key or after Close, DropLifetimeExpired after the
// hard lifetime, DropPolicyDiscard for an SA that discards. Ask before Transform
// is used. For the packet path.
func (s *SA) Usable(now int64) wire.DropReason {
	st := s.state.Load()
	switch {
	case st&(stateNoKey|stateInvalid|stateClosed) != 0:
		return wire.DropKeyInvalid
	case s.discard:
		return wire.DropPolicyDiscard
	case st&stateHard != 0:
		return wire.DropLifetimeExpired
	case s.hardEnd != 0 && now >= s.hardEnd:
		s.expire(stateHard)
		return wire.DropLifetimeExpired
	}
	return wire.DropNone
}

// Invalidate makes Usable return DropKeyInvalid from the next packet on. Sequence
// numbers and replay window stay as they are until Revalidate.
func (s *SA) Invalidate() { s.state.Or(stateInvalid) }

// Revalidate takes Invalidate back. The SA goes on with the sequence numbers and
// the replay window that it had.
func (s *SA) Revalidate() { s.state.And(^uint32(stateInvalid)) }

// Close ends the SA: nothing can be sent or received by it any more, and the
// sequence numbers that it did not use go back to the store. It may be called
// twice. An error comes from the store, and leaves the SA closed and numbers
// unused, never used twice.
func (s *SA) Close() error {
	if s.state.Or(stateClosed)&stateClosed != 0 {
		return nil
	}
	s.secrets.clear()
	if err := s.seq.close(); err != nil {
		return fmt.Errorf("SA %q: %w", s.Name, err)
	}
	return nil
}

// CheckReplay says whether a packet with the sequence number seq of its header
// (host order) could be new, and what its full number is; without ESN that is seq.
// It comes before the ICV check and changes nothing (RFC 4303 §3.4.3). For the
// packet path. The reasons are DropReplay and DropReplayOld.
func (s *SA) CheckReplay(seq uint32) (full uint64, reason wire.DropReason) {
	full = uint64(seq)
	if s.replay == nil {
		return full, wire.DropNone
	}
	if s.ESN {
		var ok bool
		if full, ok = s.replay.inferESN(seq); !ok {
			return full, wire.DropReplayOld
		}
	}
	return full, s.replay.check(full)
}

// Accept marks the full sequence number of a packet as seen, once its ICV has
// proved to be right. It checks again: of two workers with the same number one gets
// DropNone, the other DropReplay or DropReplayOld. For the packet path.
func (s *SA) Accept(full uint64) wire.DropReason {
	var reason [1]wire.DropReason
	s.AcceptRun([]uint64{full}, reason[:])
	return reason[0]
}

// AcceptRun is Accept for packets one after the other, whose full numbers fulls has. The
// reason of each goes to reasons.
func (s *SA) AcceptRun(fulls []uint64, reasons []wire.DropReason) {
	if s.replay == nil {
		clear(reasons[:len(fulls)])
		return
	}
	s.replay.accept(fulls, reasons)
}
