package main

import (
	"github.com/spf13/cobra"

	"bitw/appliance"
)

func (p *program) dashboard() *cobra.Command {
	return &cobra.Command{
		Use:   "dashboard",
		Short: "Print a Grafana dashboard of the metrics",
		Long: `dashboard prints a dashboard for Grafana, as JSON to be imported there. It shows the
metrics that a running bitw serves where its configuration says metrics: 127.0.0.1:9469,
or any other address, and on its control socket under /metrics.`,
		Example: `  bitw dashboard > bitw.json
  curl --unix-socket /run/bitw/eth0.sock http://bitw/metrics`,
		Args: exactly(),
		RunE: func(*cobra.Command, []string) error {
			_, err := p.out.Write(appliance.Dashboard())
			return err
		},
	}
}
