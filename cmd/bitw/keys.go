package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bitw/appliance"
	"bitw/appliance/client"
	"bitw/config"
)

// maxKeyInput is the most octets of a key as text.
const maxKeyInput = 1 << 17

func (p *program) keys() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "List, set, invalidate and clear the keys of a running bitw",
		Long: `keys shows and changes the keys of a running 'bitw up'. A key is empty, valid or
invalid; while it is not valid, what it protects is dropped. A change has effect from
the next packet on, and lasts until bitw ends: it is written to no file.

A key is called by the name of its security association. Where bitw was composed by a
graph, it is MANAGER/ADDRESS instead, such as km/md5/0x1001/192.0.2.2, and the values
of km/sauser, km/b and km/alg, which say what is protected and how, are set in the
same way.`,
		Example: `  bitw keys list
  bitw keys set to-b --file to-b.key
  bitw keys invalidate to-b
  bitw keys clear to-b`,
	}
	cmd.AddCommand(p.keysList(), p.keysSet(),
		p.keysChange("invalidate", "Make a key invalid, and keep it",
			"invalidate makes a key invalid. What it protects is dropped, until the key is set again.", "bitw keys invalidate to-b"),
		p.keysChange("clear", "Make a key empty, and forget it",
			"clear makes a key empty and forgets it. What it protects is dropped, until another is set.", "bitw keys clear km/md5/0x1001/192.0.2.2"))
	for _, verb := range cmd.Commands() {
		verb.DisableFlagsInUseLine = true
	}
	onlySubVerbs(cmd)
	return cmd
}

func (p *program) keysList() *cobra.Command {
	var (
		where  address
		output string
		show   bool
	)
	cmd := &cobra.Command{
		Use:   "list [-c FILE | IFACE | --socket PATH] [--show-values]",
		Short: "Which keys there are, and the state of each",
		Long: `list tells name, state and length of each key.

With --show-values it also shows the keys themselves, to root and the user that bitw
runs as, where bitw keeps them: only for the key managers of a graph.

` + addressing,
		Example: `  bitw keys list
  bitw keys list eth0 -o json | jq '.keys[] | select(.state != "valid")'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("output", output, "text", "json"); err != nil {
				return err
			}
			c, err := p.meant(where)
			if err != nil {
				return err
			}
			list, err := c.Keys(cmd.Context(), show)
			if err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(p.out, appliance.KeyList{Keys: list})
			}
			_, err = io.WriteString(p.out, keysText(list, show))
			return err
		},
	}
	where.flags(cmd, p)
	outputFlag(cmd, &output)
	cmd.Flags().BoolVar(&show, "show-values", false, "show the keys themselves")
	return cmd
}

func keysText(list []appliance.KeyStatus, show bool) string {
	if len(list) == 0 {
		return "no keys\n"
	}
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, k := range list {
		fmt.Fprintf(w, "%s\t%s\t%s", k.Name, k.State, count(uint64(k.Octets), "octet"))
		switch {
		case show && k.Value != "":
			fmt.Fprintf(w, "\t%s", k.Value)
		case show:
			fmt.Fprint(w, "\t(not kept)")
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	return b.String()
}

// keyAddress adds what names an appliance to a verb whose argument is a key.
func keyAddress(cmd *cobra.Command, a *address) {
	configFlag(cmd, &a.config, "of the one with this configuration `FILE`")
	cmd.Flags().StringVar(&a.socket, "socket", "", "of the one behind this control socket (`PATH`)")
	cmd.Flags().StringVar(&a.iface, "interface", "", "of the one on this interface (`IFACE`)")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		ways := 0
		for _, given := range []string{a.config, a.socket, a.iface} {
			if given != "" {
				ways++
			}
		}
		if ways > 1 {
			return usagef("-c, --socket and --interface each name one: give only one of them")
		}
		return nil
	}
}

// meant makes a client for the appliance that is meant.
func (p *program) meant(where address) (*client.Client, error) {
	path, err := p.path(where)
	if err != nil {
		return nil, err
	}
	return p.client(path)
}

func (p *program) keysSet() *cobra.Command {
	var (
		where address
		file  string
	)
	cmd := &cobra.Command{
		Use:   "set NAME [--file FILE] [-c FILE | --interface IFACE | --socket PATH]",
		Short: "Set a key, and make it valid",
		Long: `set reads a key from standard input, or with --file from a file, and makes it valid. It
has what a key file has behind the name: the encryption key and the integrity key in
hexadecimal, without those that the algorithm does not take. A key never stands on the
command line, which others can see.

Another key than before begins with new sequence numbers. The other end needs the same
key; what is sent until it has it is dropped there.`,
		Example: `  (umask 077; openssl rand -hex 20 > to-b.key) && bitw keys set to-b --file to-b.key
  bitw keys set km/md5/0x1001/192.0.2.2 --file md5.key
  echo 0x1001/0x1002 | bitw keys set km/sauser/192.0.2.1/192.0.2.2`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 || len(args) == 1 && likeKey(args[0]) {
				return usagef("set takes the NAME of a key alone; the key itself goes to standard input, or in a file by --file: others see what stands on the command line")
			}
			return exactly("NAME")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			value, err := p.keyInput(file)
			if err != nil {
				return err
			}
			return p.changeKey(cmd, where, appliance.KeyRequest{Name: args[0], Change: "set", Value: value})
		},
	}
	keyAddress(cmd, &where)
	cmd.Flags().StringVar(&file, "file", "", "read the key from this `FILE`")
	return cmd
}

// likeKey says whether a name looks like a key that was given instead.
func likeKey(name string) bool {
	return len(name) >= 16 && strings.Trim(name, "0123456789abcdefABCDEFx:_") == ""
}

// keyInput reads a key from a file, or from standard input.
func (p *program) keyInput(file string) (string, error) {
	in := p.in
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return "", err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxKeyInput+1))
	if err != nil {
		return "", fmt.Errorf("reading the key: %w", err)
	}
	defer clear(b)
	value := strings.TrimSpace(string(b))
	switch {
	case len(b) > maxKeyInput:
		return "", errors.New("the key is too long")
	case value == "":
		return "", errors.New(`no key came; the key of no octets is written ""`)
	case strings.ContainsAny(value, "\r\n"):
		return "", errors.New("a key is one line, and more came")
	}
	return value, nil
}

func (p *program) keysChange(change, short, long, example string) *cobra.Command {
	var where address
	cmd := &cobra.Command{
		Use:   change + " NAME [-c FILE | --interface IFACE | --socket PATH]",
		Short: short, Long: long, Example: "  " + example,
		Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.changeKey(cmd, where, appliance.KeyRequest{Name: args[0], Change: change})
		},
	}
	keyAddress(cmd, &where)
	return cmd
}

// meantKey adds to an error about a key that is not there which one may be meant. Those of
// a graph are made by being set.
func meantKey(ctx context.Context, c *client.Client, name string, err error) error {
	list, listErr := c.Keys(ctx, false)
	names := make([]string, len(list))
	for i := range list {
		names[i] = list[i].Name
	}
	near := config.Nearest(name, names)
	switch {
	case listErr != nil || strings.Contains(name, "/") || slices.Contains(names, name):
		return err
	case near != "":
		return fmt.Errorf("%w; did you mean %q?", err, near)
	}
	return fmt.Errorf("%w; see bitw keys list", err)
}

func (p *program) changeKey(cmd *cobra.Command, where address, r appliance.KeyRequest) error {
	c, err := p.meant(where)
	if err != nil {
		return err
	}
	if err := c.ChangeKey(cmd.Context(), r); err != nil {
		return meantKey(cmd.Context(), c, r.Name, err)
	}
	now := map[string]string{"set": "valid", "invalidate": "invalid", "clear": "empty"}[r.Change]
	_, err = fmt.Fprintf(p.out, "%s is %s now\n", r.Name, now)
	return err
}
