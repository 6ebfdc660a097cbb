package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"bitw/appliance"
)

// statusText is a status for people: a block for the interface and for each policy
// and SA, then drops, neighbours and warnings.
func statusText(s *appliance.Status, now time.Time) string {
	t := &text{now: now, mtu: s.MTU, mtuFrom: s.MTUFrom}
	name := s.Interface
	if s.RenamedTo != "" {
		name += ", now called " + s.RenamedTo
	}
	t.block("interface", name)
	if s.Inside != "" {
		t.line("inside", "%s", s.Inside)
	}
	t.line("state", "%s, started %s (%s)", s.State, s.Since.Format("2006-01-02 15:04:05 MST"), age(s.Since, now))
	cut := s.Cut + ", on failure " + s.OnFailure
	if s.TookOver {
		cut += ", taken over from a process that had left it shut"
	}
	t.line("cut", "%s", cut)
	t.line("created anew", "%s", guardWords(s.Guard))
	if s.BypassForbidden != "" {
		t.line("round the cut", "forbidden in %s, %s refused", s.BypassForbidden, count(s.BypassRefused, "socket"))
	}
	if len(s.AllowInsecure) > 0 {
		t.line("insecure", "%s allowed, used by %s", strings.Join(s.AllowInsecure, ", "), count(uint64(s.InsecureSAs), "security association"))
	}
	t.line("addresses", "%s", strings.Join(s.Addresses, ", "))
	mtu := ""
	if s.MTUFrom != "" {
		mtu = ", by the " + s.MTUFrom
	}
	if s.InsideMTU != 0 {
		mtu += fmt.Sprintf("; %d on the inside", s.InsideMTU)
	}
	if s.MTUConfigured != 0 {
		mtu += fmt.Sprintf("; the configuration says %d, which is more than it has", s.MTUConfigured)
	}
	t.line("mtu", "%d%s", s.MTU, mtu)
	for _, side := range slices.Sorted(maps.Keys(s.Links)) {
		l := s.Links[side]
		t.line(sideWords(side), "%s read (%s), %s written (%s)",
			count(l.FramesIn, "frame"), bytesText(l.BytesIn), count(l.FramesOut, "frame"), bytesText(l.BytesOut))
	}
	if len(s.Offloads) > 0 {
		list := make([]string, len(s.Offloads))
		for i, o := range s.Offloads {
			list[i] = o.String()
		}
		t.line("offloads", "%s", strings.Join(list, ", "))
	}
	for i := range s.Watchers {
		t.watcher(&s.Watchers[i])
	}
	for i := range s.Policies {
		t.policy(&s.Policies[i])
	}
	for i := range s.SAs {
		t.sa(&s.SAs[i])
	}
	t.drops(s.Drops, s.DropsBySide)
	t.classes(s.Classes)
	t.neighbors(s.Neighbors)
	t.health(s.Health)
	return t.String()
}

// watcher tells of a capture or trace.
func (t *text) watcher(x *appliance.Watcher) {
	line := count(x.Packets, map[bool]string{true: "frame", false: "packet"}[x.Kind == appliance.WatcherCapture])
	if x.Missed > 0 {
		line += fmt.Sprintf(" and %d missed", x.Missed)
	}
	if x.Kind == appliance.WatcherKeys {
		line = "for Wireshark"
	}
	line += ", since " + x.Since.Format("2006-01-02 15:04:05 MST") + " (" + age(x.Since, t.now) + ")"
	if x.By != "" {
		line += ", by " + x.By
	}
	if x.Filter != "" {
		line += ", of " + strconv.Quote(x.Filter)
	}
	if x.File != "" {
		line += ", to " + strconv.Quote(x.File)
	}
	t.line(x.Kind, "%s", line)
}

// health lists what should be looked at.
func (t *text) health(list []appliance.Finding) {
	if len(list) == 0 {
		t.WriteString("\nhealth: nothing to do\n")
		return
	}
	t.WriteString("\nhealth:\n")
	for _, f := range list {
		about := ""
		if f.About != "" {
			about = f.About + ": "
		}
		t.WriteString("  " + f.Severity + ": " + about + f.Problem + "\n    " + f.Remedy + "\n")
	}
}

// guardWords says what becomes of an interface that is created anew.
func guardWords(guard string) string {
	switch guard {
	case "netdev":
		return "nothing passes until it is cut again"
	case "inet":
		return "no IP passes until it is cut again, ARP does"
	case "none":
		return "it is open until it is cut again"
	}
	return ""
}

func sideWords(side string) string {
	switch side {
	case "left":
		return "host side"
	case "right":
		return "wire side"
	}
	return side
}

// text is a status being written.
type text struct {
	strings.Builder
	now time.Time
	// mtu is that of the wire, and mtuFrom what it is by.
	mtu     int
	mtuFrom string
}

func (t *text) block(what, name string) {
	if t.Len() > 0 {
		t.WriteByte('\n')
	}
	t.WriteString(what + ": " + name + "\n")
}

func (t *text) line(what, format string, args ...any) {
	value := fmt.Sprintf(format, args...)
	if value != "" {
		t.WriteString("  " + what + ": " + value + "\n")
	}
}

func (t *text) policy(p *appliance.PolicyStatus) {
	t.block("policy", p.Name)
	direction := p.Direction
	if direction == "both" {
		direction = "both directions"
	}
	t.line("action", "%s, %s", p.Action, direction)
	t.line("selector", "%s", p.Selector)
	if len(p.Down) > 0 {
		t.line("not up", "%s", strings.Join(p.Down, ", "))
	}
	if p.Populate != "" {
		t.line("populate", "%s, %s", p.Populate, count(uint64(p.Entries), "value"))
	}
	if p.Direction != "in" {
		t.traffic("out", p.OutSAs, &p.Out)
	}
	if p.Direction != "out" {
		t.traffic("in", p.InSAs, &p.In)
	}
}

func (t *text) sa(a *appliance.SAStatus) {
	t.block("security association", a.Name)
	ends := "to " + a.Destination
	if a.Source != "" {
		ends = "from " + a.Source + " " + ends
	}
	if a.InnerSource != "" {
		ends += ", for " + a.InnerSource + " to " + a.InnerDestination
	}
	t.line("kind", "%s %s, %s, spi %s, %s", a.Protocol, a.Mode, a.Direction, a.SPI, ends)
	algorithm := a.Algorithm
	if a.ESN {
		algorithm += " with 64-bit sequence numbers"
	}
	switch {
	case a.Insecure:
		algorithm += ", INSECURE: " + a.Weak
	case a.Weak != "":
		algorithm += ", WEAK: " + a.Weak
	}
	t.line("algorithm", "%s", algorithm)
	t.line("key", "%s", a.Key)
	if a.Sequence > 0 {
		t.line("sequence", "%d", a.Sequence)
	}
	if a.PathMTU > 0 {
		line := fmt.Sprint(a.PathMTU)
		if a.PathMTUFrom != "" {
			line += ", learned by " + a.PathMTUFrom
		}
		if !a.PathMTUUntil.IsZero() {
			line += ", believed for " + duration(a.PathMTUUntil.Sub(t.now))
		}
		t.line("path mtu", "%s", line)
	} else if a.Direction == "out" && t.mtuFrom != "" {
		t.line("path mtu", "%d, that of the %s; nothing smaller was learned", t.mtu, t.mtuFrom)
	}
	if e := a.Encap; e != nil {
		line := fmt.Sprintf("UDP, local port %d, remote port %d", e.LocalPort, e.RemotePort)
		if e.Peer != "" {
			line += ", peer at " + e.Peer
		}
		if e.Moves > 0 {
			line += " after " + count(e.Moves, "move")
		}
		if e.KeepalivesSent > 0 {
			line += ", " + count(e.KeepalivesSent, "keepalive") + " sent"
		}
		t.line("encap", "%s", line)
	}
	if a.DummiesSent > 0 {
		t.line("dummies", "%s sent", count(a.DummiesSent, "dummy packet"))
	}
	switch {
	case a.Retiring:
		t.line("lifetime", "retiring, its successor is at work")
	case a.Expired == "":
	case a.Expired == "hard":
		t.line("lifetime", "over, nothing passes any more")
	case a.Expired == "soft":
		t.line("lifetime", "soon over")
	default:
		t.line("lifetime", "%s", a.Expired)
	}
	t.line("left", "%s", strings.Join(leftWords(a.Lifetime, t.now), ", "))
	if a.Direction == "in" {
		t.line("last authenticated", "%s", age(a.LastUse, t.now))
		t.line("failures", "%d authentication, %d replay", a.Drops["icv"], a.Drops["replay"]+a.Drops["replay_old"])
	}
	t.traffic("traffic", nil, &a.Traffic)
}

// leftWords is what is left of a lifetime.
func leftWords(l *appliance.Lifetime, now time.Time) (words []string) {
	if l == nil {
		return nil
	}
	if !l.Expires.IsZero() {
		words = append(words, duration(l.Expires.Sub(now)))
	}
	if l.PacketsLeft != nil {
		words = append(words, count(*l.PacketsLeft, "packet"))
	}
	if l.BytesLeft != nil {
		words = append(words, bytesText(*l.BytesLeft))
	}
	if l.SequenceLeft != nil {
		words = append(words, count(*l.SequenceLeft, "sequence number"))
	}
	return words
}

// duration is a time for people, as age tells it.
func duration(d time.Duration) string {
	if d < time.Second {
		return "no time"
	}
	start := time.Unix(1, 0)
	return strings.TrimSuffix(age(start, start.Add(d)), " ago")
}

func (t *text) traffic(what string, sas []string, x *appliance.Traffic) {
	value := fmt.Sprintf("%s, %s, last use %s", count(x.Packets, "packet"), bytesText(x.Bytes), age(x.LastUse, t.now))
	if r := x.Rate; r != nil && r.Bits > 0 {
		value += fmt.Sprintf(", of late %s, %s packets/s", bits(r.Bits), strings.TrimSuffix(fmt.Sprintf("%.1f", r.Packets), ".0"))
	}
	if len(sas) > 0 {
		value += ", by " + strings.Join(sas, ", then ")
	}
	t.line(what, "%s", value)
	var drops []string
	for _, reason := range byCount(x.Drops) {
		drops = append(drops, fmt.Sprintf("%d %s", x.Drops[reason], reason))
	}
	if len(drops) > 0 {
		if what != "traffic" {
			what += " dropped"
		} else {
			what = "dropped"
		}
		t.line(what, "%s", strings.Join(drops, ", "))
	}
}

// drops lists all drops, the most frequent reason first.
func (t *text) drops(all map[string]uint64, bySide map[string]map[string]uint64) {
	reasons := byCount(all)
	if len(reasons) == 0 {
		t.block("drops", "none")
		return
	}
	t.WriteString("\ndrops:\n")
	w := tabwriter.NewWriter(t, 0, 0, 2, ' ', 0)
	for _, reason := range reasons {
		fmt.Fprintf(w, "  %s\t%d\t%s\n", reason, all[reason], cmp.Or(dropWords(reason), "not known to this program"))
		var from []string
		for _, side := range slices.Sorted(maps.Keys(bySide)) {
			if n := bySide[side][reason]; n > 0 {
				from = append(from, fmt.Sprintf("%d from the %s", n, strings.TrimSuffix(sideWords(side), " side")))
			}
		}
		if len(from) > 0 {
			fmt.Fprintf(w, "  \t\t%s\n", strings.Join(from, ", "))
		}
	}
	w.Flush()
}

// byCount are the names whose number is not 0, the largest first.
func byCount(m map[string]uint64) []string {
	var names []string
	for name, n := range m {
		if n > 0 {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(m[b], m[a]), cmp.Compare(a, b)) })
	return names
}

func (t *text) classes(classes map[string]appliance.ClassStatus) {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(classes)) {
		if c := classes[name]; c.Bypassed+c.Discarded > 0 {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return
	}
	t.WriteString("\nclasses:\n")
	w := tabwriter.NewWriter(t, 0, 0, 2, ' ', 0)
	for _, name := range names {
		c := classes[name]
		fmt.Fprintf(w, "  %s\t%s\t%d passed, %d discarded\n", name, c.Action, c.Bypassed, c.Discarded)
	}
	w.Flush()
}

func (t *text) neighbors(list []appliance.NeighborStatus) {
	if len(list) == 0 {
		return
	}
	t.WriteString("\nneighbors:\n")
	w := tabwriter.NewWriter(t, 0, 0, 2, ' ', 0)
	for _, n := range list {
		fmt.Fprintf(w, "  %s\t%s\t%s\n", n.Address, n.MAC, n.State)
	}
	w.Flush()
}
