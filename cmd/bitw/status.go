package main

import (
	"io"

	"github.com/spf13/cobra"
)

func (p *program) status() *cobra.Command {
	var (
		where  address
		output string
	)
	cmd := &cobra.Command{
		Use:   "status [-c FILE | IFACE | --socket PATH]",
		Short: "What passed, what was dropped and why",
		Long: `status asks a running bitw what it does: for each policy and security association
the packets and bytes, when it was last used, and what was dropped; all drops by
their reason; and warnings, each with what to do.

` + addressing,
		Example: `  bitw status
  bitw status eth0
  bitw status -c /etc/bitw/eth0.yaml -o json | jq .drops`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("output", output, "text", "json"); err != nil {
				return err
			}
			path, err := p.path(where)
			if err != nil {
				return err
			}
			client, err := p.client(path)
			if err != nil {
				return err
			}
			s, err := client.Status(cmd.Context())
			if err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(p.out, s)
			}
			_, err = io.WriteString(p.out, statusText(s, p.now()))
			return err
		},
	}
	where.flags(cmd, p)
	outputFlag(cmd, &output)
	return cmd
}
