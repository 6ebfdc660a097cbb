package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"bitw/appliance"
	"bitw/appliance/client"
)

type statusFlags struct {
	output       string
	watch, check bool
	every, limit time.Duration
}

func (p *program) status() *cobra.Command {
	var (
		where address
		f     statusFlags
	)
	cmd := &cobra.Command{
		Use:   "status [--watch | --check] [-c FILE | IFACE | --socket PATH]",
		Short: "What passed, what was dropped and why",
		Long: `status asks a running bitw what it does: for each policy and security association
the packets and bytes, when it was last used (for an inbound one: when the last
authentic packet came), what is left of its lifetime, its path MTU and how that was
learned, and what was dropped; all drops by their reason; what is configured and not
up; the captures and traces that go on, and whose they are; and at the end its health:
what to look at, each with what to do.

--watch is a table that is drawn anew, with rates, until Ctrl-C; where the output is no
terminal, one table after the other.

--check is for monitors: one line, and the exit status 0 if all is well, 1 for a
warning, 2 if something is critical (traffic that should pass does not, or passes in the
clear), 3 if it cannot be told, as when none runs.

` + addressing,
		Example: `  bitw status
  bitw status eth0 --watch
  bitw status eth0 --check || systemctl status bitw@eth0
  bitw status -c /etc/bitw/eth0.yaml -o json | jq .drops`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("output", f.output, "text", "json"); err != nil {
				return err
			}
			switch {
			case f.watch && f.check, f.watch && f.output == "json":
				return usagef("--watch is a table for people: give it without --check and -o json")
			case !f.watch && (cmd.Flags().Changed("every") || cmd.Flags().Changed("for")):
				return usagef("--every and --for are for --watch")
			case f.every < 100*time.Millisecond:
				return usagef("--every is 100ms or more, not %v", f.every)
			case f.check:
				return p.checkStatus(cmd.Context(), where, f.output)
			}
			path, err := p.path(where)
			if err != nil {
				return err
			}
			c, err := p.client(path)
			if err != nil {
				return err
			}
			if f.watch {
				err := p.watchStatus(cmd.Context(), c, f)
				if _, gone := p.client(path); err != nil && gone != nil {
					return gone
				}
				return err
			}
			s, err := c.Status(cmd.Context())
			if err != nil {
				return err
			}
			if f.output == "json" {
				return writeJSON(p.out, s)
			}
			now := s.Time // by whose clock its times are
			if now.IsZero() {
				now = p.now()
			}
			_, err = io.WriteString(p.out, statusText(s, now))
			return err
		},
	}
	where.flags(cmd, p)
	outputFlag(cmd, &f.output)
	cmd.Flags().BoolVar(&f.watch, "watch", false, "draw a table anew, with rates, until Ctrl-C")
	cmd.Flags().DurationVar(&f.every, "every", time.Second, "with --watch, draw it every `TIME`")
	cmd.Flags().DurationVar(&f.limit, "for", 0, "with --watch, end after that `TIME`")
	cmd.Flags().BoolVar(&f.check, "check", false, "one line and an exit status, for monitors")
	return cmd
}

// find makes a client for the appliance that is meant.
func (p *program) find(where address) (*client.Client, error) {
	path, err := p.path(where)
	if err != nil {
		return nil, err
	}
	return p.client(path)
}

// The exit statuses of --check, which are those of Nagios's plugins and what reads them.
const (
	checkOK = iota
	checkWarning
	checkCritical
	checkUnknown
)

// checkStatus is --check.
func (p *program) checkStatus(ctx context.Context, where address, output string) error {
	code, words := checkUnknown, "UNKNOWN"
	c, err := p.find(where)
	var s *appliance.Status
	if err == nil {
		s, err = c.Status(ctx)
	}
	if err != nil {
		var reported reportedError
		if !errors.As(err, &reported) {
			words += ": " + err.Error()
		}
	} else {
		code, words = verdict(s)
	}
	if output == "json" {
		err = writeJSON(p.out, struct {
			Status  int                 `json:"status"`
			Summary string              `json:"summary"`
			Health  []appliance.Finding `json:"health"`
		}{code, words, healthOf(s)})
	} else {
		_, err = fmt.Fprintln(p.out, words)
	}
	if err != nil {
		code = checkUnknown
	}
	if code != checkOK {
		return exitError(code)
	}
	return nil
}

func healthOf(s *appliance.Status) []appliance.Finding {
	if s == nil || s.Health == nil {
		return []appliance.Finding{}
	}
	return s.Health
}

// verdict is what a monitor is told of a status.
func verdict(s *appliance.Status) (code int, line string) {
	switch s.State {
	case "active", "clear", "severed", "waiting for interface":
	default:
		return checkCritical, fmt.Sprintf("CRITICAL: bitw on %s is %s", s.Interface, s.State)
	}
	var bad []appliance.Finding
	for _, f := range s.Health {
		if f.Severity != appliance.Notice {
			bad = append(bad, f)
		}
	}
	up := 0
	for i := range s.SAs {
		if x := &s.SAs[i]; (x.Key == "" || x.Key == "valid") && x.Expired != "hard" {
			up++
		}
	}
	if len(bad) == 0 {
		return checkOK, fmt.Sprintf("OK: bitw on %s is %s, %d of %s up", s.Interface, s.State, up, count(uint64(len(s.SAs)), "security association"))
	}
	code, line = checkWarning, "WARNING: "
	if bad[0].Severity == appliance.Critical {
		code, line = checkCritical, "CRITICAL: "
	}
	line += bad[0].String()
	if n := len(bad) - 1; n > 0 {
		line += fmt.Sprintf(" (and %s more)", count(uint64(n), "finding"))
	}
	return code, line
}

// watchStatus is --watch.
func (p *program) watchStatus(ctx context.Context, c *client.Client, f statusFlags) error {
	screen, live := p.out.(*os.File)
	live = live && term.IsTerminal(int(screen.Fd()))
	ctx, stop := p.untilEnd(ctx, f.limit)
	defer stop()
	tick := time.NewTicker(f.every)
	defer tick.Stop()
	var last *appliance.Status
	for {
		s, err := c.Status(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
		width, height := 0, 0
		if live {
			if width, height, err = term.GetSize(int(screen.Fd())); err != nil || width <= 0 || height <= 0 {
				width, height = 80, 24
			}
		}
		table := watchText(s, last, width)
		if live {
			table = "\x1b[H\x1b[2J" + cutText(table, width, height-1)
		} else {
			table += "\n"
		}
		if _, err := io.WriteString(p.out, table); err != nil {
			return err
		}
		last = s
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
