//go:build linux

package hostnet

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Attributes and flags that x/sys/unix has no names for (linux/rtnetlink.h).
const (
	attrTypeMask = 0x3fff // NLA_TYPE_MASK: without "nested" and "network byte order"
	rtaPref      = 20     // RTA_PREF
	rtaNHID      = 30     // RTA_NH_ID
)

// Lengths of fixed headers in octets (linux/rtnetlink.h, linux/nexthop.h).
const (
	rtMsgLen     = 12 // struct rtmsg
	rtNexthopLen = 8  // struct rtnexthop
	nhMsgLen     = 8  // struct nhmsg
	nhGroupLen   = 8  // struct nexthop_grp
	rtAttrLen    = 4  // struct rtattr
)

// errMalformed says that a message from rtnetlink is not laid out as expected.
var errMalformed = errors.New("malformed rtnetlink message")

var order = binary.NativeEndian

// hop is one way out of a route.
type hop struct {
	oif   int        // index of the output device, 0 when absent
	via   netip.Addr // zero when on link
	flags uint32     // RTNH_F_*
}

// route is an RTM_NEWROUTE or RTM_DELROUTE message.
type route struct {
	family  byte
	table   uint32
	kind    byte   // RTN_*
	flags   uint32 // RTM_F_*
	dst     netip.Prefix
	special bool // chosen by source or TOS too
	metric  int
	pref    byte // of a router, RFC 4191 section 2.1
	mtu     int
	nhid    uint32 // nexthop object, 0 for none
	hops    []hop
}

// nexthop is an RTM_NEWNEXTHOP message.
type nexthop struct {
	id    uint32
	hop   hop
	group []uint32 // ids of the members of a group
}

// attributes calls f for each attribute of b, with its type and its value. It
// returns errMalformed when a length does not fit, and what f returned.
func attributes(b []byte, f func(kind uint16, value []byte) error) error {
	for len(b) >= rtAttrLen {
		n := int(order.Uint16(b))
		if n < rtAttrLen || n > len(b) {
			return errMalformed
		}
		if err := f(order.Uint16(b[2:])&attrTypeMask, b[rtAttrLen:n]); err != nil {
			return err
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return nil
}

func uint32Value(v []byte) (uint32, error) {
	if len(v) != 4 {
		return 0, errMalformed
	}
	return order.Uint32(v), nil
}

func addrValue(v []byte) (netip.Addr, error) {
	a, ok := netip.AddrFromSlice(v)
	if !ok {
		return a, errMalformed
	}
	return a, nil
}

// parseRoute parses the payload of a route message, which starts with a struct
// rtmsg. The result shares nothing with b.
func parseRoute(b []byte) (route, error) {
	var r route
	if len(b) < rtMsgLen {
		return r, errMalformed
	}
	r.family, r.table, r.kind, r.flags = b[0], uint32(b[4]), b[7], order.Uint32(b[8:])
	r.special = b[2] != 0 || b[3] != 0
	var dst netip.Addr
	switch r.family {
	case unix.AF_INET:
		dst = netip.IPv4Unspecified()
	case unix.AF_INET6:
		dst = netip.IPv6Unspecified()
	default:
		return r, nil // MPLS and the like, which nobody here looks at
	}
	single := hop{flags: r.flags}
	err := attributes(b[rtMsgLen:], func(kind uint16, v []byte) (err error) {
		var n uint32
		switch kind {
		case unix.RTA_DST:
			dst, err = addrValue(v)
		case unix.RTA_TABLE:
			r.table, err = uint32Value(v)
		case unix.RTA_PRIORITY:
			n, err = uint32Value(v)
			r.metric = int(n)
		case rtaPref:
			if len(v) != 1 {
				return errMalformed
			}
			r.pref = v[0]
		case rtaNHID:
			r.nhid, err = uint32Value(v)
		case unix.RTA_METRICS:
			r.mtu, err = parseMTU(v)
		case unix.RTA_MULTIPATH:
			r.hops, err = parseMultipath(v)
		default:
			err = single.attribute(kind, v)
		}
		return err
	})
	if err != nil {
		return r, err
	}
	if r.dst, err = dst.Prefix(int(b[1])); err != nil || dst.Is4() != (r.family == unix.AF_INET) {
		return r, errMalformed
	}
	if single.oif != 0 {
		r.hops = append(r.hops, single)
	}
	return r, nil
}

// attribute takes an attribute that a route and a next hop in it have in common.
func (h *hop) attribute(kind uint16, v []byte) (err error) {
	switch kind {
	case unix.RTA_OIF:
		var n uint32
		n, err = uint32Value(v)
		h.oif = int(n)
	case unix.RTA_GATEWAY:
		h.via, err = addrValue(v)
	case unix.RTA_VIA: // struct rtvia: a family, then an address of that family
		if len(v) < 2 {
			return errMalformed
		}
		h.via, err = addrValue(v[2:])
	}
	return err
}

func parseMTU(b []byte) (mtu int, err error) {
	err = attributes(b, func(kind uint16, v []byte) error {
		if kind != unix.RTAX_MTU {
			return nil
		}
		n, err := uint32Value(v)
		mtu = int(n)
		return err
	})
	return mtu, err
}

// parseMultipath parses a sequence of struct rtnexthop, each with attributes.
func parseMultipath(b []byte) ([]hop, error) {
	var hops []hop
	for len(b) >= rtNexthopLen {
		n := int(order.Uint16(b))
		if n < rtNexthopLen || n > len(b) {
			return nil, errMalformed
		}
		h := hop{flags: uint32(b[2]), oif: int(order.Uint32(b[4:]))}
		oif := h.oif
		if err := attributes(b[rtNexthopLen:n], h.attribute); err != nil {
			return nil, err
		}
		h.oif = oif // the header's; an attribute of that name has no place here
		hops = append(hops, h)
		b = b[min((n+3)&^3, len(b)):]
	}
	return hops, nil
}

// parseNexthop parses the payload of a nexthop message, which starts with a
// struct nhmsg. The result shares nothing with b.
func parseNexthop(b []byte) (nexthop, error) {
	var n nexthop
	if len(b) < nhMsgLen {
		return n, errMalformed
	}
	n.hop.flags = order.Uint32(b[4:])
	err := attributes(b[nhMsgLen:], func(kind uint16, v []byte) (err error) {
		switch kind {
		case unix.NHA_ID:
			n.id, err = uint32Value(v)
		case unix.NHA_OIF:
			var oif uint32
			oif, err = uint32Value(v)
			n.hop.oif = int(oif)
		case unix.NHA_GATEWAY:
			n.hop.via, err = addrValue(v)
		case unix.NHA_GROUP:
			if len(v)%nhGroupLen != 0 {
				return errMalformed
			}
			for ; len(v) > 0; v = v[nhGroupLen:] {
				n.group = append(n.group, order.Uint32(v))
			}
		}
		return err
	})
	return n, err
}
