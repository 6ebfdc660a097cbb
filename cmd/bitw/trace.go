package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bitw/appliance"
	"bitw/appliance/client"
	"bitw/netstack/trace"
)

type traceFlags struct {
	where  address
	count  int
	limit  time.Duration
	tree   bool
	output string
}

func (p *program) traceVerb() *cobra.Command {
	var f traceFlags
	cmd := &cobra.Command{
		Use:   "trace 'FILTER' [-c FILE | IFACE | --socket PATH]",
		Short: "What becomes of packets, live",
		Long: `trace tells of each packet that fits a filter what it meets on its way through a running
bitw: the link, hooks, the rule that decides, the security association and what it makes
of the packet, fragments and path MTU, the neighbour, what goes out, and where it is
dropped the reason. One line is one packet, with --tree one station.

` + trace.FilterGrammar + `

It ends with Ctrl-C, after --count packets, after the time --for, or with bitw. At most
4000 packets a second are told, and fewer to a slow reader; no packet waits for it, and
how many are missing is told. What has to wait inside, for a neighbour or for a security
association, is told up to there. It shows addresses and ports, but no contents, and needs
the right to change things: while somebody traces, packets take bitw more time.

With -o json each line is an object, whose fields 'go doc bitw/appliance.TracedPacket'
has; the last one has only "end".

` + addressing,
		Example: `  bitw trace all
  bitw trace 'tcp 10.0.0.5 > 192.0.2.9:443' eth0 --tree
  bitw trace 'drop icv' --count 10
  bitw trace 'in esp not drop' -o json --for 10s | jq -r '.inner // empty'`,
	}
	f.where.flags(cmd, p)
	where, names := cmd.Args, cmd.ValidArgsFunction
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usagef("trace needs a filter, such as 'tcp port 443', or all")
		}
		if text := strings.Join(args, " "); len(args) > 2 {
			if _, err := trace.ParseFilter(text); err == nil {
				return usagef("the filter is one argument: put quotes around it, '%s'", text)
			}
		}
		return where(cmd, args[1:])
	}
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return names(cmd, args[1:], word)
	}
	cmd.Flags().IntVarP(&f.count, "count", "n", 0, "end after `N` packets")
	cmd.Flags().DurationVar(&f.limit, "for", 0, "end after that `TIME`")
	cmd.Flags().BoolVar(&f.tree, "tree", false, "a line for each station")
	outputFlag(cmd, &f.output)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case f.count < 0:
			return usagef("--count is 1 or more, not %d", f.count)
		case f.limit < 0:
			return usagef("--for is a time such as 30s, not %v", f.limit)
		}
		if err := oneOf("output", f.output, "text", "json"); err != nil {
			return err
		}
		filter, err := parseFilter(args[0])
		if err != nil {
			return p.filterHint(args, err, "it stands behind the filter: bitw trace all")
		}
		c, err := p.meant(f.where)
		if err != nil {
			return err
		}
		fmt.Fprint(p.err, unknownNames(cmd.Context(), c, filter))
		return p.runTrace(cmd.Context(), c, args[0], f)
	}
	return cmd
}

func (p *program) runTrace(ctx context.Context, c *client.Client, filter string, f traceFlags) error {
	r := appliance.TraceRequest{Filter: filter, Count: f.count, Seconds: f.limit.Seconds()}
	return follow(ctx, p, func(ctx context.Context) (*client.Lines[appliance.TraceLine], error) { return c.Trace(ctx, r) },
		func(x *appliance.TraceLine) error {
			switch {
			case f.output == "json":
				return json.NewEncoder(p.out).Encode(x)
			case x.End != nil:
				_, err := fmt.Fprintln(p.err, endText(x.End))
				return err
			case x.TracedPacket == nil:
				return nil // of a later version
			}
			_, err := io.WriteString(p.out, p.packetText(x.TracedPacket, f.tree))
			return err
		})
}

func endText(e *appliance.TraceEnd) string {
	text := count(e.Packets, "packet")
	if e.Missed > 0 {
		text += fmt.Sprintf(", and %d more that fit were missed", e.Missed)
	}
	return text
}

// packetText is a traced packet as a line, or as a tree.
func (p *program) packetText(x *appliance.TracedPacket, tree bool) string {
	var b strings.Builder
	if x.Missed > 0 {
		fmt.Fprintf(&b, "… %s missed\n", count(x.Missed, "packet"))
	}
	fmt.Fprintf(&b, "%s %s %s", x.Time.In(p.now().Location()).Format("15:04:05.000000"), x.Direction, x.Packet)
	if x.Inner != "" {
		fmt.Fprintf(&b, " [%s]", x.Inner)
	}
	if !tree {
		sep := ": "
		for i := range x.Stations {
			b.WriteString(sep + stationBrief(&x.Stations[i]))
			sep = " → "
		}
		if x.MoreStations > 0 {
			fmt.Fprintf(&b, " → … %d more", x.MoreStations)
		}
		b.WriteByte('\n')
		return b.String()
	}
	b.WriteByte('\n')
	for i := range x.Stations {
		branch := "├─"
		if i == len(x.Stations)-1 && x.MoreStations == 0 {
			branch = "└─"
		}
		fmt.Fprintf(&b, "  %s %-9s %s\n", branch, x.Stations[i].Station, x.Stations[i].Text)
	}
	if x.MoreStations > 0 {
		fmt.Fprintf(&b, "  └─ %s\n", count(uint64(x.MoreStations), "more station"))
	}
	return b.String()
}

// stationBrief is a station in a line that has all of them.
func stationBrief(s *appliance.TraceStation) string {
	words := []string{s.Station}
	add := func(list ...string) {
		for _, w := range list {
			if w != "" {
				words = append(words, w)
			}
		}
	}
	octets := ""
	if s.Octets > 0 {
		octets = fmt.Sprint(s.Octets)
	}
	switch s.Station {
	case "sa":
		if s.Verdict == "found" {
			add(s.Name, s.SPI)
		} else {
			add(s.Name, s.SPI, s.Verdict)
		}
	case "transform":
		add(s.Verdict, octets)
	case "neighbor":
		add(s.Address, s.Verdict)
	case "out":
		if s.Verdict != "" {
			octets = ""
		}
		if s.Frames > 1 {
			add(count(uint64(s.Frames), "frame"))
		}
		add(octets, s.Verdict)
	case "drop":
		add(s.Reason)
	default:
		add(s.Name, s.Verdict, octets)
	}
	return strings.Join(words, " ")
}
