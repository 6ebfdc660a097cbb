package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"bitw/appliance"
	"bitw/config"
)

func (p *program) man() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages",
		Long: `man writes the manual pages of all verbs, and bitw.yaml(5), into a folder, which is
made if need be.`,
		Example: `  bitw man man8 && man ./man8/bitw-up.8`,
		Hidden:  true,
		Args:    exactly("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fmt.Errorf("manual pages: %w", err)
			}
			header := &doc.GenManHeader{Section: "8", Source: "bitw", Manual: "bitw manual"}
			if err := doc.GenManTree(cmd.Root(), header, args[0]); err != nil {
				return fmt.Errorf("manual pages: %w", err)
			}
			if err := writeTopics(cmd.Root(), header, args[0]); err != nil {
				return fmt.Errorf("manual pages: %w", err)
			}
			page := config.ManualPage(appliance.ConfigOptions().Classes)
			if err := os.WriteFile(filepath.Join(args[0], "bitw.yaml.5"), []byte(page), 0o644); err != nil {
				return fmt.Errorf("manual pages: %w", err)
			}
			return nil
		},
	}
}
