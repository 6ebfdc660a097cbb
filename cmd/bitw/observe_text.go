package main

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"bitw/appliance/observe"
)

// observeText is a report for people, with at most n flows.
func observeText(r *observe.Report, n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, MTU %d, watched for %s, %s\n\n", r.Interface, r.MTU, r.Until.Sub(r.Since).Round(1e8), count(uint64(len(r.Flows)), "flow"))
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "LOCAL\tREMOTE\tPROTOCOL\tOUT\tIN")
	if r.Judged {
		fmt.Fprint(w, "\tWOULD BE")
	}
	fmt.Fprintln(w)
	for i := range r.Flows[:min(n, len(r.Flows))] {
		f := &r.Flows[i]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s", endpoint(f.Local, f.LocalPort), endpoint(f.Remote, f.RemotePort), flowProtocol(f), halfText(&f.Out), halfText(&f.In))
		if r.Judged {
			fmt.Fprintf(w, "\t%s", fateText(f))
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	if left := len(r.Flows) - n; left > 0 {
		fmt.Fprintf(&b, "and %s more\n", count(uint64(left), "flow"))
	}
	for _, class := range slices.Sorted(maps.Keys(r.Other)) {
		o := r.Other[class]
		fmt.Fprintf(&b, "%s: %s (%s)", class, count(o.Frames, "frame"), bytesText(o.Bytes))
		if o.Action != "" {
			fmt.Fprintf(&b, ", would be %s", done(o.Action))
		}
		b.WriteByte('\n')
	}
	troubles(&b, r)
	return b.String()
}

// troubles are what an operator should look at.
func troubles(b *strings.Builder, r *observe.Report) {
	for i := range r.Flows {
		f := &r.Flows[i]
		if v := f.Out.Verdict; v != nil && v.Fit == observe.TooBig {
			fmt.Fprintf(b, "warning: %s -> %s %s: %s too big once protected, and not to be fragmented; their sender would be told to make them at most %d bytes: see that its path MTU discovery works\n",
				endpoint(f.Local, f.LocalPort), endpoint(f.Remote, f.RemotePort), flowProtocol(f), count(v.TooBig, "packet"), v.MaxInner)
		}
	}
	if r.Forgotten > 0 {
		fmt.Fprintf(b, "warning: %s left out, there were too many at once; see --flows\n", count(r.Forgotten, "flow"))
	}
	if n := r.Missed.Inside + r.Missed.Outside; n > 0 {
		fmt.Fprintf(b, "warning: %s passed unseen, they came too fast\n", count(n, "frame"))
	}
	if r.Unreadable > 0 {
		fmt.Fprintf(b, "warning: %s could not be read\n", count(r.Unreadable, "frame"))
	}
}

func endpoint(addr string, port uint16) string {
	if port == 0 {
		return addr
	}
	return net.JoinHostPort(addr, strconv.Itoa(int(port)))
}

func flowProtocol(f *observe.Flow) string {
	name := protocolName(f.Protocol)
	if f.ICMPType != nil {
		name += " type " + strconv.Itoa(int(*f.ICMPType))
	}
	return name
}

func halfText(h *observe.Half) string {
	if h.Packets == 0 {
		return "-"
	}
	return fmt.Sprintf("%d, %s", h.Packets, bytesText(h.Bytes))
}

// fateText says what would become of a flow, once where both directions agree.
func fateText(f *observe.Flow) string {
	out, in := verdictText(f.Out.Verdict), verdictText(f.In.Verdict)
	if f.In.Verdict != nil && f.Out.Verdict != nil && f.In.Verdict.Action == "protect" && f.Out.Verdict.Action == "protect" && f.In.Verdict.Policy == f.Out.Verdict.Policy {
		return out // that the other end does not protect yet is no news
	}
	switch {
	case out == in || in == "":
		return out
	case out == "":
		return "in: " + in
	}
	return "out: " + out + "; in: " + in
}

func verdictText(v *observe.Verdict) string {
	if v == nil {
		return ""
	}
	text := done(v.Action)
	switch {
	case v.Policy != "":
		text += " by " + v.Policy
	case v.Reason == "no_policy":
		text += ", no policy matches"
	case v.Reason != "":
		text += ", " + v.Reason
	}
	if len(v.SAs) > 0 {
		text += " with " + strings.Join(v.SAs, " + ")
	}
	if v.Overhead > 0 {
		text += fmt.Sprintf(", +%s", bytesText(v.Overhead))
	}
	switch v.Fit {
	case observe.Fragmented:
		text += ", fragmented"
	case observe.TooBig:
		text += fmt.Sprintf(", TOO BIG, at most %d fit", v.MaxInner)
	}
	return text
}

func done(action string) string {
	switch action {
	case "protect":
		return "protected"
	case "discard":
		return "discarded"
	case "bypass":
		return "let through"
	case "answered":
		return "answered by bitw"
	}
	return action
}

// cutText keeps what fits a terminal, so that each line stays one.
func cutText(s string, width, height int) string {
	lines := strings.Split(strings.TrimSuffix(s, "\n"), "\n")
	lines = lines[:max(0, min(height, len(lines)))]
	for i, line := range lines {
		if runes := []rune(line); len(runes) > width {
			lines[i] = string(runes[:width])
		}
	}
	return strings.Join(lines, "\n") + "\n"
}
