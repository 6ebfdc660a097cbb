package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"bitw/appliance"
	"bitw/config"
)

func (p *program) down() *cobra.Command {
	var (
		where   address
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use:   "down [-c FILE | IFACE | --socket PATH]",
		Short: "End a running bitw cleanly",
		Long: `down tells a running bitw to end and waits until it has. Frames that it accepted
are delivered. After that the interface is shut, and 'bitw recover' gives it back
without protection; with on_failure: open, or when it was started with
--open-on-stop, it is given back at once.

` + addressing,
		Example: `  bitw down
  bitw down eth0 --timeout 1m`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if timeout <= 0 {
				return usagef("--timeout is a time above 0, such as 30s, not %v", timeout)
			}
			path, err := p.path(where)
			if err != nil {
				return err
			}
			client, err := p.client(path)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			// Without the answer the sentence at the end only says less.
			s, statusErr := client.Status(ctx)
			if err := client.Down(ctx); err != nil {
				return err
			}
			if statusErr != nil {
				_, err = fmt.Fprintf(p.out, "bitw behind %s is down\n", path)
			} else {
				_, err = fmt.Fprintf(p.out, "bitw on %s is down; %s\n", s.Interface, afterDown(s))
			}
			return err
		},
	}
	where.flags(cmd, p)
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait for its end (`TIME`)")
	return cmd
}

// afterDown says what becomes of the interface. Whether bitw up was told
// --open-on-stop, a status does not tell.
func afterDown(s *appliance.Status) string {
	if s.OnFailure == string(config.Open) {
		return leftIn(s.Interface, true)
	}
	return "unless it was started with --open-on-stop, " + leftIn(s.Interface, false)
}
