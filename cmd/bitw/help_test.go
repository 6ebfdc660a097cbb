package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"bitw/appliance/explain"
)

// verbs are all verbs with a help of their own, as a command line has them.
func verbs(t *testing.T) map[string]*cobra.Command {
	t.Helper()
	all := make(map[string]*cobra.Command)
	var walk func(cmd *cobra.Command, name string)
	walk = func(cmd *cobra.Command, name string) {
		for _, sub := range cmd.Commands() {
			// cobra's own, and what is no verb
			if sub.Name() != "help" && sub.Name() != "completion" && !sub.IsAdditionalHelpTopicCommand() {
				full := strings.TrimSpace(name + " " + sub.Name())
				all[full] = sub
				walk(sub, full)
			}
		}
	}
	walk(newWorld(t).command(), "")
	return all
}

// TestR50_HelpGolden compares the help of each verb with testdata/help; BITW_UPDATE=1 go test
// ./cmd/bitw writes that anew.
func TestR50_HelpGolden(t *testing.T) {
	all := verbs(t)
	all[""] = nil
	for name := range all {
		w := newWorld(t)
		w.call(t, 0, "", "", append(strings.Fields(name), "--help")...)
		file := filepath.Join("help", strings.ReplaceAll("bitw "+name, " ", "-")+".txt")
		if name == "" {
			file = filepath.Join("help", "bitw.txt")
		}
		if _, err := os.Stat(filepath.Join("testdata", file)); err != nil && os.Getenv("BITW_UPDATE") == "" {
			t.Errorf("the help of bitw %s has no golden file: BITW_UPDATE=1 go test ./cmd/bitw writes it", name)
			continue
		}
		golden(t, file, w.out.String(), "")
	}
}

// words cuts a command line as a shell does that knows quotes and comments, up to the first
// of | & > < ;.
func words(line string) (list []string) {
	var word strings.Builder
	quote, inWord := rune(0), false
	for _, c := range line + " " {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '\'' || c == '"':
			quote, inWord = c, true
		case strings.ContainsRune("|&><;#", c) && !inWord:
			return list
		case c == ' ' || c == ';':
			if inWord {
				list = append(list, word.String())
			}
			word.Reset()
			inWord = false
			if c == ';' {
				return list
			}
		default:
			word.WriteRune(c)
			inWord = true
		}
	}
	return list
}

// calls are the command lines of bitw in a line of shell.
func calls(line string) (list [][]string) {
	for _, part := range regexp.MustCompile(`(?:^|[|&;(] *|^ +)(?:sudo +)?(?:timeout +\S+ +)?bitw +`).FindAllStringIndex(line, -1) {
		list = append(list, words(line[part[1]:]))
	}
	return list
}

// parses reports how a command line of bitw would be called wrong; it does nothing.
func parses(t *testing.T, args []string) error {
	t.Helper()
	root := newWorld(t).command()
	cmd, rest, err := root.Find(args)
	switch {
	case err != nil:
		return err
	case cmd == root:
		return usagef("no verb in %q", args)
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
		return err
	}
	if cmd.Name() == "explain" && cmd.Flags().NArg() > 0 && !cmd.Flags().Changed("pcap") {
		_, err = explain.Parse(cmd.Flags().Arg(0))
	}
	return err
}

// TestR50_ExamplesParse: the examples of each verb, and the commands of README.md, can be
// called as they are.
func TestR50_ExamplesParse(t *testing.T) {
	for name, cmd := range verbs(t) {
		if cmd.HasSubCommands() && cmd.Example == "" {
			continue
		}
		found := 0
		for _, line := range strings.Split(cmd.Example, "\n") {
			// What it does may stand beside it.
			line, _, _ = strings.Cut(strings.TrimSpace(line), "   ")
			for _, args := range calls(line) {
				if strings.HasPrefix(strings.Join(args, " "), name) {
					found++
				}
				if err := parses(t, args); err != nil {
					t.Errorf("bitw %s --help: %q: %v", name, line, err)
				}
			}
		}
		if found == 0 {
			t.Errorf("bitw %s --help has no example of itself:\n%s", name, cmd.Example)
		}
	}
	// Of bitw itself, what each example does stands beside it.
	for _, line := range strings.Split(newWorld(t).command().Example, "\n") {
		line, _, _ = strings.Cut(strings.TrimSpace(line), "   ")
		if err := parses(t, strings.Fields(line)[1:]); err != nil {
			t.Errorf("bitw --help: %q: %v", line, err)
		}
	}
	found := 0
	for _, line := range strings.Split(read(t, "../../README.md"), "\n") {
		if !strings.HasPrefix(line, "    ") {
			continue
		}
		for _, args := range calls(strings.TrimSpace(line)) {
			found++
			if err := parses(t, args); err != nil {
				t.Errorf("README.md: %q: %v", line, err)
			}
		}
	}
	if found < 20 {
		t.Errorf("%d commands of bitw in README.md", found)
	}
}
