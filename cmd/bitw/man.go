package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

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
			keepTables(cmd.Root())
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

// keepTables has the tables in the texts of cmd and all below it stay as they are in a
// manual page.
func keepTables(cmd *cobra.Command) {
	cmd.Long = keepTable(cmd.Long)
	for _, sub := range cmd.Commands() {
		keepTables(sub)
	}
}

// keepTable makes the lines that begin with blanks, but for those of list items, what Markdown
// leaves alone.
func keepTable(text string) string {
	var b strings.Builder
	item, table := false, false
	for _, line := range strings.Split(text, "\n") {
		item = line != "" && (item || strings.HasPrefix(line, "- "))
		if is := !item && strings.HasPrefix(line, "  "); is != table {
			table = is
			b.WriteByte('\n')
		}
		if table {
			b.WriteString("  ")
		}
		b.WriteString(line + "\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}
