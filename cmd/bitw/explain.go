package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"bitw/appliance"
	"bitw/appliance/explain"
)

type explainFlags struct {
	where              address
	offline            bool
	pcap               string
	number, mtu        int
	direction          string
	expect, output     string
	numberGiven, isMTU bool
}

// An unmetError says that the answer is not the expected one; it ends with status 4.
type unmetError struct{ error }

func (p *program) explain() *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:   "explain 'PACKET' [-c FILE [--offline] | IFACE | --socket PATH]",
		Short: "What would become of a packet, and why",
		Long: `explain tells what bitw would do with a packet that came now: by which policy, and which
others nearly decided and why they did not; by which security associations, and whether
they can be used; what that adds, octet by octet, and whether it fits the path; what would
be on the wire, or the ICMP error that the host would get; and what to do about a drop.

The packet goes through the very code of the packet path, on copies of all that it meets:
nothing is sent, and no counter, sequence number or replay window changes.

` + explain.Grammar + `

--pcap FILE asks about a recorded packet instead, from pcap or pcapng; that an SA has had
it already is noted, and not held against it. With --offline the configuration FILE
answers, and neither a running bitw nor root is needed; keys are. With --expect the exit
status is 4 where policy says something else, for tests of policies.

` + addressing,
		Example: `  bitw explain 'tcp 10.0.0.5:1234 > 192.0.2.9:443 len 1500 df'
  bitw explain 'icmp 192.0.2.9 > 10.0.0.5 type 8 in' eth0
  bitw explain 'esp 192.0.2.9 > 10.0.0.5 spi 0x2001 seq 7'
  bitw explain --pcap bad.pcapng --number 12 eth0
  bitw explain 'udp 10.0.0.5:53 > 192.0.2.9:53' -c eth0.yaml --offline --expect protect`,
	}
	f.where.flags(cmd, p)
	where, names := cmd.Args, cmd.ValidArgsFunction
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if f.pcap == "" {
			if len(args) == 0 {
				return usagef("explain needs a packet, such as 'icmp 10.0.0.5 > 192.0.2.9 type 8', or --pcap FILE")
			}
			var cut *explain.ParseError
			if _, err := explain.Parse(args[0]); len(args) > 1 && errors.As(err, &cut) && cut.Found == "" {
				return usagef("the packet is one argument: put quotes around it, without which the shell takes > for itself")
			}
			args = args[1:]
		}
		return where(cmd, args)
	}
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if f.pcap == "" && len(args) == 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return names(cmd, args[min(len(args), 1):], word)
	}
	cmd.Flags().BoolVar(&f.offline, "offline", false, "answer by the configuration FILE alone")
	cmd.Flags().StringVar(&f.pcap, "pcap", "", "ask about a packet of this `FILE`, pcap or pcapng")
	cmd.Flags().IntVar(&f.number, "number", 1, "ask about the `N`th packet of it")
	cmd.Flags().IntVar(&f.mtu, "mtu", 0, "with --offline, the MTU of the wire in `OCTETS`")
	cmd.Flags().StringVar(&f.direction, "direction", "", "which way the packet goes: `out` or in")
	complete(cmd, "direction", explain.Out, explain.In)
	cmd.Flags().StringVar(&f.expect, "expect", "", "exit with status 4 unless the `VERDICT` is this: protect, bypass or discard")
	complete(cmd, "expect", explain.Protect, explain.Bypass, explain.Discard)
	outputFlag(cmd, &f.output)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f.numberGiven, f.isMTU = cmd.Flags().Changed("number"), cmd.Flags().Changed("mtu")
		if err := f.check(); err != nil {
			return err
		}
		q, note, err := f.question(args)
		if err != nil {
			return err
		}
		r, err := p.answer(cmd.Context(), &f, q)
		if err != nil {
			return err
		}
		if note != "" {
			r.Notes = append(r.Notes, note)
		}
		return p.tell(r, &f)
	}
	return cmd
}

func (f *explainFlags) check() error {
	switch {
	case f.offline && f.where.config == "":
		return usagef("--offline needs -c FILE")
	case f.isMTU && !f.offline:
		return usagef("--mtu is for --offline; a running bitw knows its own")
	case f.isMTU && (f.mtu < 68 || f.mtu > 65535):
		return usagef("--mtu is 68 to 65535, not %d", f.mtu)
	case f.numberGiven && f.pcap == "":
		return usagef("--number is for --pcap FILE")
	case f.number < 1:
		return usagef("--number is 1 or more, not %d", f.number)
	}
	if f.direction != "" {
		if err := oneOf("direction", f.direction, explain.Out, explain.In); err != nil {
			return err
		}
	}
	if f.expect != "" {
		if err := oneOf("expect", f.expect, explain.Protect, explain.Bypass, explain.Discard); err != nil {
			return err
		}
	}
	return oneOf("output", f.output, "text", "json")
}

// question reads the packet, so that what is wrong with it is told whoever answers.
func (f *explainFlags) question(args []string) (appliance.Question, string, error) {
	q := appliance.Question{Direction: f.direction}
	if f.pcap == "" {
		if _, err := explain.Parse(args[0]); err != nil {
			return q, "", usageError{err}
		}
		q.Packet = args[0]
		return q, "", nil
	}
	file, err := os.Open(f.pcap)
	if err != nil {
		return q, "", err
	}
	defer file.Close()
	frame, note, err := explain.Record(file, f.number)
	if err != nil {
		return q, "", fmt.Errorf("%s: %w", f.pcap, err)
	}
	q.Frame = frame
	return q, note, nil
}

// answer asks the configuration, or who runs.
func (p *program) answer(ctx context.Context, f *explainFlags, q appliance.Question) (*explain.Result, error) {
	if !f.offline {
		path, err := p.path(f.where)
		if err != nil {
			return nil, err
		}
		client, err := p.client(path)
		if err != nil {
			return nil, err
		}
		return client.Explain(ctx, q)
	}
	cfg, warnings, err := p.load(f.where.config)
	if err != nil {
		return nil, p.report(f.where.config, warnings, err)
	}
	o, err := appliance.NewOffline(*cfg, f.mtu)
	if err != nil {
		return nil, err
	}
	defer o.Close()
	return o.Explain(q)
}

// tell prints the answer and compares it with what was expected.
func (p *program) tell(r *explain.Result, f *explainFlags) error {
	var err error
	if f.output == "json" {
		err = writeJSON(p.out, r)
	} else {
		_, err = io.WriteString(p.out, r.Text())
	}
	if err == nil && f.expect != "" && r.Verdict != f.expect {
		err = unmetError{fmt.Errorf("%s: the verdict is %s, expected %s", r.Packet, r.Verdict, f.expect)}
	}
	return err
}
