package main

import (
	"bytes"
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

//go:embed topics/*.txt
var topicTexts embed.FS

// topics are what there is to read beside the verbs: bitw help NAME, and a manual page
// bitw-NAME(8) each.
func topics() (list []*cobra.Command) {
	for _, x := range []struct{ name, short string }{
		{"interface", "What happens when the interface changes, and how neighbours are found"},
		{"paths", "NAT between the hosts, fragments, and hiding the length of packets"},
		{"algorithms", "The algorithms of ESP and AH, and those that must be allowed by name"},
		{"limits", "What bitw does not do, and what goes past it"},
	} {
		text, err := topicTexts.ReadFile("topics/" + x.name + ".txt")
		if err != nil {
			panic(err) // the file is part of the program
		}
		list = append(list, &cobra.Command{Use: x.name, Short: x.short, Long: string(text), DisableAutoGenTag: true})
	}
	return list
}

// writeTopics writes the manual pages of the topics, and names them and bitw.yaml(5) at the
// end of that of root, where cobra has only the verbs.
func writeTopics(root *cobra.Command, header *doc.GenManHeader, dir string) error {
	var more strings.Builder
	for _, cmd := range root.Commands() {
		if !cmd.IsAdditionalHelpTopicCommand() {
			continue
		}
		f, err := os.Create(filepath.Join(dir, "bitw-"+cmd.Name()+".8"))
		if err != nil {
			return err
		}
		own := *header // GenMan sets the title
		own.Title = ""
		err = doc.GenMan(cmd, &own, f)
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return fmt.Errorf("%s: %w", cmd.Name(), err)
		}
		fmt.Fprintf(&more, ", \\fBbitw-%s(8)\\fP", cmd.Name())
	}
	page := filepath.Join(dir, root.Name()+".8")
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	text = append(bytes.TrimRight(text, "\n"), more.String()+", \\fBbitw.yaml(5)\\fP\n"...)
	return os.WriteFile(page, text, 0o644)
}
