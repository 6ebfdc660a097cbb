package main

import (
	"slices"

	"github.com/spf13/cobra"

	"bitw/appliance"
	"bitw/config"
)

func (p *program) schema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print a JSON schema of the configuration, for editors",
		Long: `schema prints a JSON schema (draft 2020-12) of the configuration. Editors with
yaml-language-server complete keys by it, tell what they are for, and mark what is wrong
while one writes. It does not know all that 'bitw check' finds.

It is made of the same table as the manual page bitw.yaml(5), by which the configuration
is read.`,
		Example: `  bitw schema > /etc/bitw/schema.json
  sed -i '1i # yaml-language-server: $schema=/etc/bitw/schema.json' /etc/bitw/eth0.yaml`,
		Args: exactly(),
		RunE: func(*cobra.Command, []string) error {
			opt := appliance.ConfigOptions()
			var algorithms []string
			for _, protocol := range []config.Protocol{config.ESP, config.AH} {
				algorithms = append(algorithms, opt.AlgorithmNames(protocol)...)
			}
			slices.Sort(algorithms)
			text, err := config.Schema(opt.Classes, slices.Compact(algorithms))
			if err != nil {
				return err
			}
			_, err = p.out.Write(text)
			return err
		},
	}
}
