package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bitw/config"
)

func (p *program) check() *cobra.Command {
	var (
		from   origin
		output string
	)
	cmd := &cobra.Command{
		Use:   "check -c FILE | --graph FILE",
		Short: "Read and check a configuration, and do nothing else",
		Long: `check reads the configuration and the key files that it names, tells everything
that is wrong or doubtful with file, line and column, and shows in short what the
policies and security associations come to. It touches no interface and needs no
root, but must be allowed to read the keys.

With --graph it does so for a graph of the x-kernel and its key files; what the graph
itself composes is shown by 'bitw graph'.

Exit status 0: the configuration is good, warnings or not. 1: it is not.`,
		Example: `  bitw check -c /etc/bitw/eth0.yaml
  bitw check -c eth0.yaml -o json | jq .ok
  bitw check --graph graph.comp --interface eth0`,
		Args: exactly(),
		RunE: func(*cobra.Command, []string) error {
			if err := oneOf("output", output, "text", "json"); err != nil {
				return err
			}
			cfg, warnings, _, err := p.plan(from)
			path := from.path()
			if output == "json" {
				return p.checkJSON(path, cfg, warnings, err)
			}
			if err != nil {
				return p.report(path, warnings, err)
			}
			if _, err := io.WriteString(p.err, warnings.Text()); err != nil {
				return err
			}
			_, err = io.WriteString(p.out, summary(path, cfg, len(warnings)))
			return err
		},
	}
	from.flags(cmd)
	outputFlag(cmd, &output)
	return cmd
}

// report tells what is wrong with a configuration as compilers do, and how much of
// it there was.
func (p *program) report(path string, warnings config.Warnings, err error) error {
	var errs config.Errors
	if !errors.As(err, &errs) {
		return err
	}
	fmt.Fprint(p.err, warnings.Text(), errs.Text())
	fmt.Fprintf(p.err, "bitw: %s in %s\n", count(uint64(len(errs)), "error"), path)
	return reportedError{err}
}

// summary says in short what a configuration comes to.
func summary(path string, cfg *config.Config, warnings int) string {
	var b strings.Builder
	good := "is good"
	if warnings > 0 {
		good += ", with " + count(uint64(warnings), "warning")
	}
	fmt.Fprintf(&b, "%s %s\n", path, good)
	where := "interface " + cfg.Interface
	if cfg.Inside != "" {
		where = fmt.Sprintf("inside %s (%s), outside %s", cfg.Inside, join(cfg.Protected), cfg.Interface)
	}
	fmt.Fprintf(&b, "%s, on failure %s, control socket %s\n", where, cfg.OnFailure, cfg.Control)
	fmt.Fprintf(&b, "\n%s, the first match decides, no match is discard\n", count(uint64(len(cfg.Policies)), "policy"))
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for i := range cfg.Policies {
		r := &cfg.Policies[i]
		columns := []string{r.Name, string(r.Action), selector(r)}
		if sas := chains(r); sas != "" {
			columns = append(columns, sas)
		}
		fmt.Fprintf(w, "  %s\n", strings.Join(columns, "\t"))
	}
	w.Flush()
	fmt.Fprintf(&b, "\n%s\n", count(uint64(len(cfg.SAs)), "security association"))
	for i := range cfg.SAs {
		s := &cfg.SAs[i]
		fmt.Fprintf(w, "  %s\t%s\t%s %s\tspi %#08x\t%s -> %s%s\t%s\n", s.Name, s.Direction, s.Protocol, s.Mode, s.SPI, source(s), s.Destination, inner(s), s.Algorithm)
	}
	w.Flush()
	return b.String()
}

// source is any where a graph does not say who sends.
func source(s *config.SA) string {
	if !s.Source.IsValid() {
		return "any"
	}
	return s.Source.String()
}

// inner is the inner addresses of BEET mode.
func inner(s *config.SA) string {
	if s.Mode != config.BEET {
		return ""
	}
	return fmt.Sprintf(", for %s -> %s", s.InnerSource, s.InnerDestination)
}

func selector(r *config.Policy) string {
	arrow := map[config.Direction]string{config.Both: "<->", config.Out: "->", config.In: "<-"}[r.Direction]
	text := end(r.Local, r.LocalPorts) + " " + arrow + " " + end(r.Remote, r.RemotePorts)
	if r.Protocol != nil {
		text += " " + protocolName(*r.Protocol)
	}
	if r.ICMP != nil {
		text += fmt.Sprintf(" type %s code %s", span(r.ICMP.TypeFirst, r.ICMP.TypeLast), span(r.ICMP.CodeFirst, r.ICMP.CodeLast))
	}
	if len(r.MHTypes) > 0 {
		text += " mh-type " + join(r.MHTypes)
	}
	if r.Opaque {
		text += " opaque"
	}
	if len(r.Populate) > 0 {
		text += " populate " + strings.Join(r.Populate, ",")
	}
	return text
}

func end(addresses []config.AddressRange, ports []config.PortRange) string {
	text := "any"
	if len(addresses) > 0 {
		text = join(addresses)
	}
	if len(ports) > 0 {
		text += " port " + join(ports)
	}
	return text
}

func join[T fmt.Stringer](items []T) string {
	words := make([]string, len(items))
	for i, x := range items {
		words[i] = x.String()
	}
	return strings.Join(words, ",")
}

func span(first, last uint8) string {
	switch {
	case first == 0 && last == 255:
		return "any"
	case first == last:
		return strconv.Itoa(int(first))
	}
	return fmt.Sprintf("%d-%d", first, last)
}

func protocolName(n uint8) string {
	switch n {
	case 1:
		return "icmp"
	case 6:
		return "tcp"
	case 17:
		return "udp"
	case 58:
		return "icmpv6"
	case 135:
		return "mh"
	}
	return "protocol " + strconv.Itoa(int(n))
}

func chains(r *config.Policy) string {
	var words []string
	if len(r.Out) > 0 {
		words = append(words, "out "+strings.Join(r.Out, ", "))
	}
	if len(r.In) > 0 {
		words = append(words, "in "+strings.Join(r.In, ", "))
	}
	return strings.Join(words, "; ")
}

// What bitw check -o json prints.
type (
	checkResult struct {
		OK        bool          `json:"ok"`
		File      string        `json:"file"`
		Interface string        `json:"interface,omitempty"`
		Inside    string        `json:"inside,omitempty"`
		OnFailure string        `json:"on_failure,omitempty"`
		Control   string        `json:"control,omitempty"`
		Policies  []checkPolicy `json:"policies"`
		SAs       []checkSA     `json:"security_associations"`
		Warnings  []checkNote   `json:"warnings"`
		Errors    []checkNote   `json:"errors"`
	}
	checkPolicy struct {
		Name     string   `json:"name"`
		Action   string   `json:"action"`
		Selector string   `json:"selector"`
		Out      []string `json:"out,omitempty"`
		In       []string `json:"in,omitempty"`
	}
	checkSA struct {
		Name        string `json:"name"`
		Direction   string `json:"direction"`
		Protocol    string `json:"protocol"`
		Mode        string `json:"mode"`
		SPI         string `json:"spi"`
		Source      string `json:"source"`
		Destination string `json:"destination"`
		InnerSource string `json:"inner_source,omitempty"`
		InnerDest   string `json:"inner_destination,omitempty"`
		Algorithm   string `json:"algorithm"`
	}
	checkNote struct {
		File    string `json:"file"`
		Line    int    `json:"line,omitempty"`
		Column  int    `json:"column,omitempty"`
		Message string `json:"message"`
		Hint    string `json:"hint,omitempty"`
	}
)

func (p *program) checkJSON(path string, cfg *config.Config, warnings config.Warnings, err error) error {
	var errs config.Errors
	if err != nil && !errors.As(err, &errs) {
		return err
	}
	r := checkResult{
		OK: err == nil, File: path, Policies: []checkPolicy{}, SAs: []checkSA{},
		Warnings: notes(warnings), Errors: notes(errs),
	}
	if cfg != nil {
		r.Inside = cfg.Inside
		r.Interface, r.OnFailure, r.Control = cfg.Interface, string(cfg.OnFailure), cfg.Control
		for i := range cfg.Policies {
			x := &cfg.Policies[i]
			r.Policies = append(r.Policies, checkPolicy{x.Name, string(x.Action), selector(x), x.Out, x.In})
		}
		for i := range cfg.SAs {
			x := &cfg.SAs[i]
			s := checkSA{
				Name: x.Name, Direction: string(x.Direction), Protocol: string(x.Protocol), Mode: string(x.Mode), SPI: fmt.Sprintf("%#08x", x.SPI),
				Source: source(x), Destination: x.Destination.String(), Algorithm: x.Algorithm,
			}
			if x.Mode == config.BEET {
				s.InnerSource, s.InnerDest = x.InnerSource.String(), x.InnerDestination.String()
			}
			r.SAs = append(r.SAs, s)
		}
	}
	if err := writeJSON(p.out, r); err != nil {
		return err
	}
	if err != nil {
		fmt.Fprintf(p.err, "bitw: %s in %s\n", count(uint64(len(errs)), "error"), path)
		return reportedError{err}
	}
	return nil
}

func notes(list []*config.Error) []checkNote {
	r := make([]checkNote, 0, len(list))
	for _, e := range list {
		r = append(r, checkNote{e.File, e.Line, e.Column, e.Msg, e.Hint})
	}
	return r
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
