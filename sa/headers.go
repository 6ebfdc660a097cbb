package sa

import (
	"fmt"

	"bitw/netstack/wire"
)

// A DFRule says what the DF bit of an outer IPv4 header is (RFC 4301 §8.1).
type DFRule uint8

const (
	CopyDF DFRule = iota
	SetDF
	ClearDF
)

// A DSCPRule says in which direction the six upper bits of TOS or traffic class
// pass between inner and outer header. RFC 4301 §5.1.2.1 has them copied outwards
// and the inner ones unchanged, which is the zero value; §5.1.2.2 (9) allows the way
// back.
type DSCPRule uint8

const (
	CopyDSCPOut DSCPRule = iota
	CopyDSCPIn
	CopyDSCPBoth
	CopyDSCPNone
)

// DefaultTTL is the TTL or hop limit of an outer header for which none is set.
const DefaultTTL = 64

// Headers says how the outer IP header of an SA in tunnel mode relates to the inner
// one (RFC 4301 §5.1.2). The zero value copies DF, DSCP and ECN, has DefaultTTL and
// no flow label. BEET mode takes TTL and flow label from the datagram.
type Headers struct {
	DF   DFRule
	DSCP DSCPRule
	// DSCPMap, if not nil, gives the outer code point for each inner one, whatever DSCP
	// says of the way out. All of it is below 64.
	DSCPMap *[64]uint8
	// NoECN leaves the ECN field of the outer header 0 (RFC 6040 §4.3, compatibility
	// mode), and has that of an arriving one ignored.
	NoECN bool
	TTL   uint8 // 0 stands for DefaultTTL
	// CopyFlowLabel is for end systems alone (RFC 4301 §5.1.2.2 (8)). Where the inner
	// datagram is IPv4, or it is false, FlowLabel counts, of 20 bits.
	CopyFlowLabel bool
	FlowLabel     uint32
	// FragmentBefore has a datagram that does not fit cut before it is enclosed, where it
	// may be cut at all, so that the far end gets whole packets of ESP or AH (RFC 4301
	// §8.2.1).
	FragmentBefore bool
}

// OuterTOS returns TOS or traffic class of the outer header for that of the inner.
// For the packet path.
func (h *Headers) OuterTOS(inner uint8) uint8 {
	dscp := inner >> 2
	switch {
	case h.DSCPMap != nil:
		dscp = h.DSCPMap[dscp]
	case h.DSCP == CopyDSCPIn || h.DSCP == CopyDSCPNone:
		dscp = 0
	}
	if h.NoECN {
		return dscp << 2
	}
	return dscp<<2 | wire.EncapECN(inner)
}

// InnerTOS returns TOS or traffic class of a datagram that leaves the tunnel, or says
// that it must be dropped (see wire.DecapECN). For the packet path.
func (h *Headers) InnerTOS(outer, inner uint8) (tos uint8, drop bool) {
	dscp, ecn := inner&^wire.ECNMask, inner&wire.ECNMask
	if h.DSCP == CopyDSCPIn || h.DSCP == CopyDSCPBoth {
		dscp = outer &^ wire.ECNMask
	}
	if !h.NoECN {
		ecn, drop = wire.DecapECN(outer, inner)
	}
	return dscp | ecn, drop
}

// OuterDF returns the DF bit of the outer IPv4 header for that of the inner; an inner
// IPv6 datagram has it set. For the packet path.
func (h *Headers) OuterDF(inner bool) bool {
	switch h.DF {
	case SetDF:
		return true
	case ClearDF:
		return false
	}
	return inner
}

// OuterTTL returns TTL or hop limit of the outer header. For the packet path.
func (h *Headers) OuterTTL() uint8 {
	if h.TTL == 0 {
		return DefaultTTL
	}
	return h.TTL
}

// check returns why no SA can have h.
func (h *Headers) check() error {
	switch {
	case h.DF > ClearDF:
		return fmt.Errorf("unknown rule %d for DF", h.DF)
	case h.DSCP > CopyDSCPNone:
		return fmt.Errorf("unknown rule %d for DSCP", h.DSCP)
	case h.FlowLabel >= 1<<20:
		return fmt.Errorf("flow label is %#x, want 20 bits", h.FlowLabel)
	}
	if h.DSCPMap != nil {
		for inner, outer := range h.DSCPMap {
			if outer >= 64 {
				return fmt.Errorf("DSCP %d becomes %d, want 0 to 63", inner, outer)
			}
		}
	}
	return nil
}
