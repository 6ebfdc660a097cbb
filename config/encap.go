package config

import (
	"fmt"
	"net/netip"
	"time"
)

// An Encap is the UDP encapsulation of ESP (RFC 3948) of one SA.
type Encap struct {
	// LocalPort and RemotePort are the UDP ports of this host and of the peer,
	// whichever way the SA goes.
	LocalPort, RemotePort uint16
	// Checksum says whether an outbound SA fills the UDP checksum.
	Checksum UDPChecksum
	// Keepalive is after how long a silence an outbound SA sends a NAT keepalive; 0
	// means never.
	Keepalive time.Duration
	// Float lets the peer's address and port follow the packets of an inbound SA.
	Float bool
	// OriginalLocal and OriginalRemote are the addresses by which the peer's host knows
	// this host and itself, where a NAT changes them; invalid for the SA's own ends.
	// They are set for inbound SAs in transport mode only.
	OriginalLocal, OriginalRemote netip.Addr
}

// A UDPChecksum says whether ESP in UDP has a UDP checksum.
type UDPChecksum uint8

const (
	// ChecksumAuto fills it over IPv6, which wants one (RFC 8200 §8.1), and where
	// superframes are sent, which receivers put together only then.
	ChecksumAuto UDPChecksum = iota
	ChecksumFilled
	ChecksumZero
)

// String is how it is written.
func (c UDPChecksum) String() string { return [...]string{"auto", "true", "false"}[c] }

const (
	// DefaultEncapPort is the port of IKE and ESP in UDP (RFC 3948 §2.2).
	DefaultEncapPort = 4500
	// DefaultKeepalive is the interval of RFC 3948 §4.
	DefaultKeepalive = 20 * time.Second
	// MaxDummies is the largest rate of dummy packets, in packets a second.
	MaxDummies = 1000
	// PadToMTU as SA.TFCPadding pads to what the path takes.
	PadToMTU = -1
)

// saEncap reads how ESP is wrapped, padded and mixed with dummies.
func (d *decoder) saEncap(f *fields, sa *SA) {
	for _, key := range []string{"encap", "tfc_padding", "dummy"} {
		if n := f.by[key]; n != nil && sa.Protocol == AH {
			d.fail(n.place, "remove it, or set protocol: esp", "%s is for ESP, and protocol is ah", key)
		}
	}
	if n := f.by["encap"]; n != nil {
		sa.Encap = d.encap(n, sa)
	}
	if n := f.by["tfc_padding"]; n != nil {
		d.onlyFor(n, "tfc_padding", Out, sa)
		if n.kind == scalar && n.text == "mtu" {
			sa.TFCPadding = PadToMTU
		} else if n.kind == scalar {
			if v, err := parseNumber(n.text); err != nil || v > 65535 {
				d.fail(n.place, numberHint(n.text), "expected a number of octets from 0 to 65535 or mtu, found %s", quote(n.text))
			} else {
				sa.TFCPadding = int(v)
			}
		} else {
			d.fail(n.place, "", "expected a number of octets or mtu, found %s", n.found())
		}
	}
	if n := f.by["dummy"]; n != nil {
		d.onlyFor(n, "dummy", Out, sa)
		v, _ := d.number(n, 0, MaxDummies)
		sa.Dummies = int(v)
	}
}

// onlyFor warns of a key that has no effect on an SA of the other direction.
func (d *decoder) onlyFor(n *node, key string, direction Direction, sa *SA) {
	if sa.Direction != "" && sa.Direction != direction {
		d.warn(n.place, "remove it", "%s has no effect on an SA with direction %s", key, sa.Direction)
	}
}

// encap reads yes, no, or a mapping; nil means none.
func (d *decoder) encap(n *node, sa *SA) *Encap {
	e := &Encap{
		LocalPort: DefaultEncapPort, RemotePort: DefaultEncapPort, Keepalive: DefaultKeepalive, Float: true,
	}
	if n.kind == scalar {
		if !d.boolean(n) {
			return nil
		}
		return e
	}
	f := d.fields(n, "an encap", encapKeyNames...)
	if f == nil {
		return nil
	}
	for _, p := range []struct {
		key string
		to  *uint16
	}{{"local_port", &e.LocalPort}, {"remote_port", &e.RemotePort}} {
		if n := f.by[p.key]; n != nil {
			if v, ok := d.number(n, 1, 65535); ok {
				*p.to = uint16(v)
			}
		}
	}
	if n := f.by["checksum"]; n != nil {
		d.onlyFor(n, "checksum", Out, sa)
		switch {
		case n.kind == scalar && n.text == ChecksumAuto.String():
		case d.boolean(n):
			e.Checksum = ChecksumFilled
		default:
			e.Checksum = ChecksumZero
		}
		if e.Checksum == ChecksumZero && sa.Destination.Is6() {
			d.warn(n.place, "remove it unless the other end is known to take them",
				"IPv6 drops UDP without checksum, but for receivers made for it (RFC 6935 §5)")
		}
	}
	if n := f.by["keepalive"]; n != nil {
		d.onlyFor(n, "keepalive", Out, sa)
		if e.Keepalive = d.duration(n); e.Keepalive != 0 && e.Keepalive < time.Second {
			d.fail(n.place, "", "keepalive is %s, expected 1s or more, or 0s for none", e.Keepalive)
		}
	}
	if n := f.by["float"]; n != nil {
		d.onlyFor(n, "float", In, sa)
		e.Float = d.boolean(n)
	}
	e.OriginalLocal = d.original(f, "original_local", sa)
	e.OriginalRemote = d.original(f, "original_remote", sa)
	return e
}

// original reads an address that a NAT has changed.
func (d *decoder) original(f *fields, key string, sa *SA) netip.Addr {
	n := f.by[key]
	if n == nil {
		return netip.Addr{}
	}
	d.onlyFor(n, key, In, sa)
	a, ok := d.address(n)
	switch {
	case !ok:
	case sa.Mode == Tunnel:
		d.fail(n.place, "remove it", "%s is for transport mode, in which checksums have to be repaired (RFC 3948 §3.1.2)", key)
	case sa.Destination.IsValid() && a.BitLen() != sa.Destination.BitLen():
		d.fail(n.place, "", "%s %s is %s, destination %s is %s", key, a, family(a), sa.Destination, family(sa.Destination))
	default:
		return a
	}
	return netip.Addr{}
}

// sameEncap warns where what goes to a peer and what comes from it would not meet: a NAT
// keeps one mapping for one pair of ports (RFC 3948 §2.2), and a peer that has moved is
// followed by the SA at the same place.
func (d *decoder) sameEncap(f *fields, p *policyNode) {
	for i := range min(len(p.Out), len(p.In)) {
		out, ok := d.config.SA(p.Out[i])
		in, also := d.config.SA(p.In[i])
		if !ok || !also {
			continue
		}
		at := f.by["in"].place
		switch o, n := out.Encap, in.Encap; {
		case o == nil && n == nil:
		case o == nil || n == nil:
			d.warn(at, "set encap: for both", "of %q and %q, which %s has at one place of out and in, only one has encap", out.Name, in.Name, p.what)
		case o.LocalPort != n.LocalPort || o.RemotePort != n.RemotePort:
			d.warn(at, "set the same local_port and remote_port", "%q has the ports %d and %d, %q has %d and %d; a NAT between the hosts would not let both pass",
				out.Name, o.LocalPort, o.RemotePort, in.Name, n.LocalPort, n.RemotePort)
		}
	}
}

// encap writes the keys of saEncap.
func (w *writer) encap(sa *SA) {
	if e := sa.Encap; e != nil {
		fmt.Fprintf(w, "    encap: {local_port: %d, remote_port: %d", e.LocalPort, e.RemotePort)
		if sa.Direction == Out {
			fmt.Fprintf(w, ", checksum: %v, keepalive: %s", e.Checksum, e.Keepalive)
		} else {
			fmt.Fprintf(w, ", float: %t", e.Float)
		}
		for _, o := range []struct {
			key  string
			addr netip.Addr
		}{{"original_local", e.OriginalLocal}, {"original_remote", e.OriginalRemote}} {
			if o.addr.IsValid() {
				fmt.Fprintf(w, ", %s: %s", o.key, plain(o.addr.String()))
			}
		}
		w.WriteString("}\n")
	}
	switch {
	case sa.TFCPadding == PadToMTU:
		w.line(4, "tfc_padding", "mtu")
	case sa.TFCPadding != 0:
		w.line(4, "tfc_padding", fmt.Sprint(sa.TFCPadding))
	}
	if sa.Dummies != 0 {
		w.line(4, "dummy", fmt.Sprint(sa.Dummies))
	}
}
