package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bitw/appliance"
)

// A list is a verb that shows one part of a status.
type list struct {
	use, short, long, example string
	// part is what -o json prints, table what is printed else.
	part  func(*appliance.Status) any
	table func(w io.Writer, s *appliance.Status)
}

func (p *program) list(l list) *cobra.Command {
	var (
		where  address
		output string
	)
	cmd := &cobra.Command{
		Use: l.use + " [-c FILE | IFACE | --socket PATH]", Short: l.short, Long: l.long + "\n\n" + addressing, Example: l.example,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("output", output, "text", "json"); err != nil {
				return err
			}
			return p.showPart(cmd.Context(), where, output, l)
		},
	}
	where.flags(cmd, p)
	outputFlag(cmd, &output)
	return cmd
}

func (p *program) showPart(ctx context.Context, where address, output string, l list) error {
	c, err := p.find(where)
	if err != nil {
		return err
	}
	s, err := c.Status(ctx)
	if err != nil {
		return err
	}
	if output == "json" {
		return writeJSON(p.out, l.part(s))
	}
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	l.table(w, s)
	return w.Flush()
}

// some is the list itself, or an empty one that JSON does not print as null.
func some[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func (p *program) saVerb() *cobra.Command {
	return p.list(list{
		use: "sa", short: "List the security associations",
		long: `sa lists the security associations of a running bitw, one a line: what each has
carried, when it was last used (for an inbound one: when the last authentic packet
came), and what is left of its lifetime.`,
		example: `  bitw sa
  bitw sa eth0 -o json | jq '.[] | select(.direction == "in") | .last_use'`,
		part: func(s *appliance.Status) any { return some(s.SAs) },
		table: func(w io.Writer, s *appliance.Status) {
			fmt.Fprintln(w, "NAME\tDIR\tKIND\tSPI\tPEER\tALGORITHM\tKEY\tPACKETS\tBYTES\tLAST USE\tLEFT\tDROPPED")
			for i := range s.SAs {
				x := &s.SAs[i]
				fmt.Fprintf(w, "%s\t%s\t%s %s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\n", x.Name, x.Direction, x.Protocol, x.Mode, x.SPI, peerOf(x), x.Algorithm,
					x.Key, x.Packets, bytesText(x.Bytes), short(x.LastUse, s.Time), leftShort(x, s.Time), dropList(x.Drops))
			}
		},
	})
}

func (p *program) policyVerb() *cobra.Command {
	return p.list(list{
		use: "policy", short: "List the policies",
		long: `policy lists the policies of a running bitw in the order in which they are asked; the
first that matches decides, and what none matches is discarded.`,
		example: `  bitw policy
  bitw policy eth0 -o json | jq -r '.[] | select(.down) | .name'`,
		part: func(s *appliance.Status) any { return some(s.Policies) },
		table: func(w io.Writer, s *appliance.Status) {
			fmt.Fprintln(w, "NAME\tACTION\tDIR\tSELECTOR\tOUT\tIN\tLAST OUT\tLAST IN\tDROPPED\tNOT UP")
			for i := range s.Policies {
				x := &s.Policies[i]
				drops := maps.Clone(x.Out.Drops)
				if drops == nil {
					drops = make(map[string]uint64)
				}
				for reason, n := range x.In.Drops {
					drops[reason] += n
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\t%s\n", x.Name, x.Action, x.Direction, x.Selector, x.Out.Packets, x.In.Packets,
					short(x.Out.LastUse, s.Time), short(x.In.LastUse, s.Time), dropList(drops), cmp.Or(strings.Join(x.Down, ","), "-"))
			}
		},
	})
}

func (p *program) route() *cobra.Command {
	return p.list(list{
		use: "route", short: "List the routes",
		long: `route lists the routes by which bitw sends to the wire: those of the interface, which
it follows while it runs, and before them those of the configuration. The longest
match counts.`,
		example: `  bitw route
  bitw route eth0 -o json`,
		part: func(s *appliance.Status) any { return some(s.Routes) },
		table: func(w io.Writer, s *appliance.Status) {
			for _, r := range s.Routes {
				fmt.Fprintln(w, r)
			}
		},
	})
}

// A dropLine is one reason in bitw drops.
type dropLine struct {
	Reason   string                  `json:"reason"`
	Count    uint64                  `json:"count"`
	From     map[string]uint64       `json:"from,omitempty"`
	Last     time.Time               `json:"last,omitzero"`
	Meaning  string                  `json:"meaning"`
	Examples []appliance.DroppedFlow `json:"examples,omitempty"`
}

func dropLines(s *appliance.Status) []dropLine {
	lines := []dropLine{}
	for _, reason := range byCount(s.Drops) {
		l := dropLine{Reason: reason, Count: s.Drops[reason], Last: s.DropsLast[reason], Meaning: cmp.Or(dropWords(reason), "not known to this program")}
		for side, counts := range s.DropsBySide {
			if n := counts[reason]; n > 0 {
				if l.From == nil {
					l.From = make(map[string]uint64)
				}
				l.From[strings.TrimSuffix(sideWords(side), " side")] = n
			}
		}
		for _, f := range s.RecentDrops {
			if f.Reason == reason {
				l.Examples = append(l.Examples, f)
			}
		}
		lines = append(lines, l)
	}
	return lines
}

func (p *program) dropsVerb() *cobra.Command {
	return p.list(list{
		use: "drops", short: "List what was dropped, why, and which flows it was",
		long: `drops lists every reason for which a running bitw has dropped packets: how many, from
which side, when the last one came, what the reason means, and the last flows that it
was about, at most four for each side.`,
		example: `  bitw drops
  bitw drops eth0 -o json | jq -r '.[] | "\(.reason) \(.count)"'`,
		part: func(s *appliance.Status) any { return dropLines(s) },
		table: func(w io.Writer, s *appliance.Status) {
			lines := dropLines(s)
			if len(lines) == 0 {
				fmt.Fprintln(w, "nothing was dropped")
			}
			for _, l := range lines {
				var from []string
				for _, side := range slices.Sorted(maps.Keys(l.From)) {
					from = append(from, fmt.Sprintf("%d from the %s", l.From[side], side))
				}
				fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", l.Reason, l.Count, strings.Join(from, ", "), age(l.Last, s.Time))
				fmt.Fprintf(w, "  %s\n", l.Meaning)
				for _, f := range l.Examples {
					account := ""
					if f.Policy != "" {
						account += ", policy " + f.Policy
					}
					if f.SA != "" {
						account += ", SA " + f.SA
					}
					fmt.Fprintf(w, "  %s%s, %s\n", f, account, age(f.Last, s.Time))
				}
			}
		},
	})
}

// dropList is what was dropped in a column, the most frequent first.
func dropList(drops map[string]uint64) string {
	var list []string
	for _, reason := range byCount(drops) {
		list = append(list, fmt.Sprintf("%d %s", drops[reason], reason))
	}
	return cmp.Or(strings.Join(list, ", "), "-")
}
