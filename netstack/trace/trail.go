package trace

import (
	"net/netip"
	"time"

	"bitw/netstack/wire"
)

const (
	// maxSteps bounds a trail; a packet whose way is longer has the rest counted.
	maxSteps = 24
	// maxFrames is how many frames that a packet became are kept with its trail.
	maxFrames = 64
	// keepOctets is how much memory for frames a trail keeps for the next packet.
	keepOctets = 1 << 18
)

// A Station is a place on a packet's way.
type Station uint8

// The stations.
const (
	Link      Station = iota // the frame came; Octets
	Hook                     // what no policy decides: classes, ARP, neighbour discovery; Name, Verdict
	Rule                     // the SPD; Name is the policy, Verdict its action
	SA                       // an SA was chosen or found; Name, SPI, Address its destination
	Transform                // it was applied or taken off; Name, SPI, Algorithm, From and Octets before and after
	Fragment                 // Verdict, Octets
	PathMTU                  // Octets is what is told or learned
	Neighbor                 // Address is the next hop, MAC where it is, if known
	Forward                  // turned round by the forwarder Name
	Out                      // Frames, of together Octets, were given to the other link
	Drop                     // Reason
)

var stationNames = [...]string{"link", "hook", "rule", "sa", "transform", "fragment", "pmtu", "neighbor", "forward", "out", "drop"}

// String returns the name, such as "neighbor".
func (s Station) String() string {
	if int(s) < len(stationNames) {
		return stationNames[s]
	}
	return "unknown"
}

// MarshalText is String.
func (s Station) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A Step is what one station did. Which fields are set is told at the stations. Octets
// count IP datagrams without Ethernet header; at Link and in captures they count the frame.
type Step struct {
	Station   Station
	Verdict   string
	Name      string
	Algorithm string
	SPI       uint32 // host order
	Address   netip.Addr
	MAC       [6]byte
	From      int
	Octets    int
	Frames    int
	Reason    wire.DropReason
	// Left is the side where the station is: that of the host.
	Left bool
}

// A Flow is what a filter can ask of a datagram.
type Flow struct {
	Src, Dst         netip.Addr // invalid if the frame brings no IP
	Proto            uint8
	SrcPort, DstPort uint16
	ICMPType         uint8
	HasPorts         bool
	Fragment         bool   // one of several
	Offset           int    // of the fragment, in octets; in one that is not the first neither ports nor SPI are
	SPI              uint32 // of ESP and AH, host order
	Len              int    // octets of the datagram
	DF               bool
	EtherType        uint16
}

// SetInfo fills in the flow of a parsed datagram b.
func (f *Flow) SetInfo(in *wire.Info, b []byte) {
	*f = Flow{
		Src: in.Src, Dst: in.Dst, Proto: in.Proto, SrcPort: in.SrcPort, DstPort: in.DstPort, ICMPType: in.ICMPType,
		HasPorts: in.HasPorts, Fragment: in.IsFragment, Offset: in.FragOffset, Len: in.TotalLen, DF: in.DF && in.Version == 4, EtherType: wire.EtherTypeIPv4,
	}
	if in.Version == 6 {
		f.EtherType = wire.EtherTypeIPv6
	}
	at := in.HeaderLen
	switch {
	case in.FragOffset > 0:
		return
	case in.Proto == wire.ProtoAH:
		at += 4
	case in.Proto != wire.ProtoESP:
		return
	}
	if at+4 <= len(b) {
		f.SPI = uint32(b[at])<<24 | uint32(b[at+1])<<16 | uint32(b[at+2])<<8 | uint32(b[at+3])
	}
}

// A Frame is a copy of one for a capture.
type Frame struct {
	At time.Time
	// Left says by which link it came or went, Written that it went.
	Left, Written bool
	Data          []byte // from the Ethernet header on, maybe cut short
	Length        int    // octets of the whole
	// Flow is what it brings, and Trail that of a packet that it comes of, kept until it was
	// written, or nil. They are for frames that are told apart from a trail.
	Flow  Flow
	Trail *Trail
}

// A Trail is the way of one packet that came by a link. It belongs to one goroutine at a
// time. All methods may be called on nil, and then do nothing.
type Trail struct {
	At   time.Time
	Left bool // it came from the host
	// Flow is what the frame brought, Inner what was in it after SAs were taken off.
	Flow, Inner Flow
	HasInner    bool
	Reason      wire.DropReason // of the drop, DropNone if it was not dropped
	// Frames are that frame, and those that it became; only if frames are wanted.
	Frames []Frame
	// Missing is how many more there were, those on the right and those on the left.
	Missing [2]int
	// Snaplen is how many octets of each frame are kept, 0 if frames are not wanted.
	Snaplen int

	// Joined is of how many packets the frame comes for which the trail was kept, 0 for one.
	Joined int

	kept  bool
	steps [maxSteps]Step
	n     int
	more  int
	data  [][]byte // memory of Frames
}

// KUID and KGID make a trail a tcpip.PacketOwner, which is how a packet takes its trail
// along.
func (*Trail) KUID() uint32 { return 0 }

// KGID is told at KUID.
func (*Trail) KGID() uint32 { return 0 }

// Reset readies a trail for a packet.
func (t *Trail) Reset(at time.Time, left bool) {
	clear(t.steps[:t.n])
	clear(t.Frames)
	kept := 0
	for i := range t.data {
		if kept += cap(t.data[i]); kept > keepOctets {
			t.data[i] = nil
		}
	}
	t.At, t.Left, t.n, t.more, t.Snaplen = at, left, 0, 0, 0
	t.Flow, t.Inner, t.HasInner, t.Reason, t.Frames = Flow{}, Flow{}, false, wire.DropNone, t.Frames[:0]
	t.Missing, t.Joined = [2]int{}, 0
}

// CopyTo makes c a copy of t, without frames.
func (t *Trail) CopyTo(c *Trail) {
	c.At, c.Left, c.Flow, c.Inner, c.HasInner, c.Reason = t.At, t.Left, t.Flow, t.Inner, t.HasInner, t.Reason
	c.n, c.more = copy(c.steps[:], t.steps[:t.n]), t.more
}

// Keep returns a copy without frames that does not change any more, for a packet that is
// written later than t lasts; nil if no frames are wanted.
func (t *Trail) Keep() *Trail {
	if t == nil || t.Snaplen == 0 {
		return nil
	}
	c := &Trail{kept: true}
	t.CopyTo(c)
	return c
}

// Kept says whether t comes from Keep.
func (t *Trail) Kept() bool { return t.kept }

// Steps are the stations in the order in which the packet met them; they stay the trail's.
func (t *Trail) Steps() []Step { return t.steps[:t.n] }

// More is how many steps came after those of Steps.
func (t *Trail) More() int { return t.more }

// Add notes a step.
func (t *Trail) Add(s Step) {
	switch {
	case t == nil || t.kept:
	case t.n == maxSteps:
		t.more++
	default:
		t.steps[t.n] = s
		t.n++
	}
}

// Drop notes that the packet, or a part of it, was dropped, where policy and SA are known
// on their account.
func (t *Trail) Drop(reason wire.DropReason, policy, sa string, spi uint32) {
	if t == nil || t.kept || reason == wire.DropNone {
		return
	}
	if t.n == maxSteps { // how it ended must not be missing
		t.n--
		t.more++
	}
	t.Reason = reason
	t.Add(Step{Station: Drop, Reason: reason, Verdict: policy, Name: sa, SPI: spi, Left: t.Left})
}

// Opened notes the datagram b that was found after an SA was taken off.
func (t *Trail) Opened(in *wire.Info, b []byte) {
	if t != nil {
		t.Inner.SetInfo(in, b)
		t.HasInner = true
	}
}

// AddFrame notes a frame for captures and returns memory of at most n octets for its copy, or
// nil if there are too many frames, and then counts it as missing.
func (t *Trail) AddFrame(at time.Time, left, written bool, length int) []byte {
	i := len(t.Frames)
	if i == maxFrames {
		t.Missing[index(left)]++
		return nil
	}
	if i == len(t.data) {
		t.data = append(t.data, nil)
	}
	n := min(length, t.Snaplen)
	if cap(t.data[i]) < n {
		t.data[i] = make([]byte, n)
	}
	b := t.data[i][:n]
	t.Frames = append(t.Frames, Frame{At: at, Left: left, Written: written, Data: b, Length: length})
	return b
}

// Out notes a frame of so many octets that was given to a link.
func (t *Trail) Out(left bool, octets int) {
	if t.n > 0 {
		if s := &t.steps[t.n-1]; s.Station == Out && s.Left == left {
			s.Frames++
			s.Octets += octets
			return
		}
	}
	t.Add(Step{Station: Out, Frames: 1, Octets: octets, Left: left})
}
