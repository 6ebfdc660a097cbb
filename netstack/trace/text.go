package trace

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"bitw/netstack/wire"
)

// Verdict says in one line what became of the packet, as the comment of a capture has it:
// "protect by rule to-b; SA to-b 0x00001001 aes128gcm16", "dropped: icv; SA from-b 0x00002001".
func (t *Trail) Verdict() string {
	var parts []string
	if t.Reason != wire.DropNone {
		parts = append(parts, "dropped: "+t.Reason.String())
	}
	seen := uint32(0)
	for i := range t.steps[:t.n] {
		switch s := &t.steps[i]; {
		case s.Station == Rule && s.Name == "":
			parts = append(parts, "no rule")
		case s.Station == Rule:
			parts = append(parts, s.Verdict+" by rule "+s.Name)
		case s.Station == Hook:
			parts = append(parts, s.Verdict+" as "+s.Name)
		case (s.Station == SA || s.Station == Drop) && s.SPI != 0 && s.SPI != seen:
			seen = s.SPI
			parts = append(parts, strings.TrimSpace("SA "+saText(s)))
		case s.Station == Fragment:
			parts = append(parts, "fragment: "+s.Verdict)
		case s.Station == PathMTU:
			parts = append(parts, "path MTU "+strconv.Itoa(s.Octets)+" "+s.Verdict)
		}
	}
	if t.Joined > 1 {
		parts = append(parts, fmt.Sprintf("joined of %d packets", t.Joined))
	}
	return strings.Join(parts, "; ")
}

func saText(s *Step) string {
	parts := make([]string, 0, 3)
	if s.Name != "" {
		parts = append(parts, s.Name)
	}
	parts = append(parts, fmt.Sprintf("0x%08x", s.SPI))
	if s.Algorithm != "" {
		parts = append(parts, s.Algorithm)
	}
	return strings.Join(parts, " ")
}

// Text says what a station did.
func (s *Step) Text() string {
	side := [2]string{"wire", "host"}[index(s.Left)]
	switch s.Station {
	case Link:
		return fmt.Sprintf("a frame of %d octets from the %s", s.Octets, side)
	case Hook:
		text := s.Verdict + " as " + s.Name
		if s.Address.IsValid() {
			text += " for " + s.Address.String()
		}
		return text
	case Rule:
		if s.Name == "" {
			return "none fits"
		}
		return s.Name + ": " + s.Verdict
	case SA:
		if s.SPI == 0 {
			return s.Verdict
		}
		text := s.Verdict
		if text == "found" {
			text = ""
		}
		text = strings.TrimSpace(saText(s) + " " + text)
		if s.Address.IsValid() {
			text += " to " + s.Address.String()
		}
		return text
	case Transform:
		text := s.Verdict + " by " + s.Name
		if s.Octets != 0 {
			text += fmt.Sprintf(", %d → %d octets", s.From, s.Octets)
		}
		return text
	case Fragment, PathMTU:
		return fmt.Sprintf("%s, %d octets", s.Verdict, s.Octets)
	case Neighbor:
		text := s.Address.String() + " " + s.Verdict
		if s.MAC != [6]byte{} {
			text += fmt.Sprintf(", %02x:%02x:%02x:%02x:%02x:%02x", s.MAC[0], s.MAC[1], s.MAC[2], s.MAC[3], s.MAC[4], s.MAC[5])
		}
		return text
	case Forward:
		return fmt.Sprintf("%s turned round to the %s, %d octets", s.Name, side, s.Octets)
	case Out:
		switch {
		case s.Verdict != "":
			return "to the " + side + " " + s.Verdict
		case s.Frames == 1:
			return fmt.Sprintf("a frame of %d octets to the %s", s.Octets, side)
		}
		return fmt.Sprintf("%d frames of together %d octets to the %s", s.Frames, s.Octets, side)
	case Drop:
		text := s.Reason.String()
		if s.Verdict != "" {
			text += ", on the account of rule " + s.Verdict
		}
		if s.SPI != 0 {
			text += ", of SA " + saText(s)
		}
		return text
	}
	return ""
}

func index(b bool) int {
	if b {
		return 1
	}
	return 0
}

// String writes a flow as filters have it: "tcp 10.0.0.5:1234 > 192.0.2.9:443 len 1500 df".
func (f *Flow) String() string {
	if !f.Src.IsValid() {
		if f.EtherType == 0x0806 {
			return "arp"
		}
		return fmt.Sprintf("ethertype 0x%04x", f.EtherType)
	}
	var b strings.Builder
	b.WriteString(protocolText(f.Proto))
	if f.HasPorts && f.hasPortNumbers() {
		fmt.Fprintf(&b, " %v > %v", netip.AddrPortFrom(f.Src, f.SrcPort), netip.AddrPortFrom(f.Dst, f.DstPort))
	} else {
		fmt.Fprintf(&b, " %v > %v", f.Src, f.Dst)
	}
	switch {
	case f.SPI != 0:
		fmt.Fprintf(&b, " spi 0x%08x", f.SPI)
	case f.HasPorts && (f.Proto == wire.ProtoICMP || f.Proto == wire.ProtoICMPv6):
		fmt.Fprintf(&b, " type %d", f.ICMPType)
	}
	fmt.Fprintf(&b, " len %d", f.Len)
	if f.DF {
		b.WriteString(" df")
	}
	if f.Fragment {
		b.WriteString(" frag")
	}
	if f.Offset > 0 {
		fmt.Fprintf(&b, " %d", f.Offset)
	}
	return b.String()
}

func protocolText(p uint8) string {
	switch p {
	case wire.ProtoICMPv6:
		return "icmpv6"
	case wire.ProtoICMP:
		return "icmp"
	}
	for name, list := range filterProtocols() {
		if len(list) == 1 && list[0] == p {
			return name
		}
	}
	return "proto " + strconv.Itoa(int(p))
}
