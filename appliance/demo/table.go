package demo

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"bitw/appliance"
)

// tableOf shows what the two appliances and the wire came to so far: the packets
// of the hosts as the policies count them, clear inside, and what became of them
// outside, by SA. A superframe counts as the packets that it was cut into. It fits
// 80 columns.
func tableOf(associations []association, status [2]*appliance.Status, w Wire) string {
	var t strings.Builder
	row := func(name string, packets, octets string, what string) {
		t.WriteString(strings.TrimRight(fmt.Sprintf("  %-18s %9s %13s  %s", name, packets, octets, what), " ") + "\n")
	}
	count := func(name string, c appliance.Traffic, what string) {
		row(name, grouped(c.Packets), grouped(c.Bytes), what)
	}
	row("clear, inside", "packets", "octets", "")
	for host, s := range status {
		for _, p := range s.Policies {
			count(fmt.Sprintf("%s sent %s", hostName(host), p.Name), p.Out, "")
			count(fmt.Sprintf("%s received %s", hostName(host), p.Name), p.In, "")
		}
	}
	row("protected, outside", "packets", "octets", "")
	for _, x := range associations {
		for _, s := range status[x.from].SAs {
			if s.Name == x.name {
				count("SA "+s.Name, s.Traffic, fmt.Sprintf("%s %s %s", s.SPI, s.Mode, s.Algorithm))
			}
		}
	}
	row("on the wire", grouped(w.ESPPackets), grouped(w.ESPBytes), fmt.Sprintf("ESP, in the clear: %s", grouped(w.ClearPackets)))
	fmt.Fprintf(&t, "  dropped: %s\n", dropText(dropsOf(status)))
	return t.String()
}

// dropsOf sums the drops of both appliances by reason.
func dropsOf(status [2]*appliance.Status) map[string]uint64 {
	sum := make(map[string]uint64)
	for _, s := range status {
		for reason, n := range s.Drops {
			sum[reason] += n
		}
	}
	return sum
}

func dropText(drops map[string]uint64) string {
	var list []string
	for _, reason := range slices.Sorted(maps.Keys(drops)) {
		if n := drops[reason]; n != 0 {
			list = append(list, reason+" "+grouped(n))
		}
	}
	if list == nil {
		return "nothing"
	}
	return strings.Join(list, ", ")
}
