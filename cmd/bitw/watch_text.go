package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"bitw/appliance"
)

// watchText is the table of bitw status --watch. last is the one before, nil at first. What
// there is to do comes first, so that no terminal is too low for it, and in lines of at most
// width characters, 0 for any.
func watchText(s, last *appliance.Status, width int) string {
	var t strings.Builder
	over := time.Duration(0)
	if last != nil {
		over = s.Time.Sub(last.Time)
	}
	fmt.Fprintf(&t, "%s  %s  %s  mtu %d\n\n", s.Interface, s.State, s.Time.Format("15:04:05"), s.MTU)
	for i, f := range s.Health {
		t.WriteString(wrapped(f.Severity+": "+f.String(), width) + "\n")
		if i == len(s.Health)-1 {
			t.WriteString("\n")
		}
	}
	w := tabwriter.NewWriter(&t, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "POLICY\tACTION\tOUT\tPACKETS/s\tIN\tPACKETS/s\tLAST IN\tDROPPED")
	before := make(map[string]*appliance.PolicyStatus)
	if last != nil {
		for i := range last.Policies {
			before[last.Policies[i].Name] = &last.Policies[i]
		}
	}
	for i := range s.Policies {
		p := &s.Policies[i]
		old := before[p.Name]
		if old == nil {
			old = p
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\n", p.Name, p.Action,
			bitRate(p.Out.Bytes, old.Out.Bytes, over), rate(p.Out.Packets, old.Out.Packets, over),
			bitRate(p.In.Bytes, old.In.Bytes, over), rate(p.In.Packets, old.In.Packets, over),
			short(p.In.LastUse, s.Time), total(p.Out.Drops)+total(p.In.Drops))
	}
	w.Flush()
	watchSAs(&t, s, last, over)
	watchDrops(&t, s, last, over)
	return t.String()
}

// wrapped breaks a line between words, those after the first indented.
func wrapped(line string, width int) string {
	var b strings.Builder
	column := 0
	for i, word := range strings.Fields(line) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case width > 0 && column+1+n > width:
			b.WriteString("\n  ")
			column = 2
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String()
}

func watchSAs(t *strings.Builder, s, last *appliance.Status, over time.Duration) {
	if len(s.SAs) == 0 {
		return
	}
	type id struct{ name, direction, spi, destination string }
	before := make(map[id]*appliance.SAStatus)
	if last != nil {
		for i := range last.SAs {
			x := &last.SAs[i]
			before[id{x.Name, x.Direction, x.SPI, x.Destination}] = x
		}
	}
	t.WriteString("\n")
	w := tabwriter.NewWriter(t, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SA\tDIR\tSPI\tPEER\tRATE\tPACKETS/s\tLAST\tLEFT\tAUTH FAIL\tREPLAY")
	for i := range s.SAs {
		x := &s.SAs[i]
		old := before[id{x.Name, x.Direction, x.SPI, x.Destination}]
		if old == nil {
			old = x
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\n", x.Name, x.Direction, x.SPI, peerOf(x),
			bitRate(x.Bytes, old.Bytes, over), rate(x.Packets, old.Packets, over), short(x.LastUse, s.Time), leftShort(x, s.Time),
			x.Drops["icv"], x.Drops["replay"]+x.Drops["replay_old"])
	}
	w.Flush()
}

func watchDrops(t *strings.Builder, s, last *appliance.Status, over time.Duration) {
	const most = 6
	reasons := byCount(s.Drops)
	if len(reasons) == 0 {
		return
	}
	t.WriteString("\n")
	w := tabwriter.NewWriter(t, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "DROPS\tCOUNT\tPACKETS/s\tLAST")
	for i, reason := range reasons {
		if i == most {
			fmt.Fprintf(w, "and %s more: bitw drops\n", count(uint64(len(reasons)-most), "reason"))
			break
		}
		n := s.Drops[reason]
		old := n
		if last != nil {
			old = last.Drops[reason]
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", reason, n, rate(n, old, over), short(s.DropsLast[reason], s.Time))
	}
	w.Flush()
}

// peerOf is the other end of an SA.
func peerOf(x *appliance.SAStatus) string {
	switch {
	case x.Encap != nil && x.Encap.Peer != "":
		return x.Encap.Peer
	case x.Direction == "in":
		return x.Source
	}
	return x.Destination
}

// leftShort is what is left of an SA in a column.
func leftShort(x *appliance.SAStatus, now time.Time) string {
	switch {
	case x.Key != "" && x.Key != "valid":
		return "no key"
	case x.Expired == "hard":
		return "over"
	case x.Retiring:
		return "retiring"
	case x.Lifetime == nil || x.Lifetime.Expires.IsZero():
		return "-"
	}
	return max(x.Lifetime.Expires.Sub(now), 0).Round(time.Second).String()
}

// short is an age in a column.
func short(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return max(now.Sub(t), 0).Round(time.Second).String()
}

func total(drops map[string]uint64) (n uint64) {
	for _, v := range drops {
		n += v
	}
	return n
}

// perSecond is how many came each second. Counters that went back are those of another
// process or SA.
func perSecond(now, before uint64, over time.Duration) (float64, bool) {
	if over <= 0 || now < before {
		return 0, false
	}
	return float64(now-before) / over.Seconds(), true
}

func rate(now, before uint64, over time.Duration) string {
	r, ok := perSecond(now, before, over)
	if !ok {
		return "-"
	}
	return fmt.Sprintf("%.0f", r)
}

// bitRate is of octets.
func bitRate(now, before uint64, over time.Duration) string {
	r, ok := perSecond(now, before, over)
	if !ok {
		return "-"
	}
	return bits(8 * r)
}

// bits is a rate for people.
func bits(r float64) string {
	for _, unit := range []string{"bit/s", "kbit/s", "Mbit/s"} {
		if r < 999.5 {
			return fmt.Sprintf("%.3g %s", r, unit)
		}
		r /= 1000
	}
	return fmt.Sprintf("%.3g Gbit/s", r)
}
