package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"bitw/appliance/client"
	"bitw/config"
)

// An address says which running appliance is meant.
type address struct {
	config, socket, iface string
}

const addressing = `Which one is meant: the one of a configuration (-c FILE), of an interface (IFACE) or
behind a control socket (--socket PATH); with none of these, the only one that runs.`

// flags adds what names an appliance to a verb.
func (a *address) flags(cmd *cobra.Command, p *program) {
	configFlag(cmd, &a.config, "the one with this configuration `FILE`")
	cmd.Flags().StringVar(&a.socket, "socket", "", "the one behind this control socket (`PATH`)")
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usagef("%s takes one interface, not %d", cmd.Name(), len(args))
		}
		ways := 0
		for _, given := range []bool{a.config != "", a.socket != "", len(args) == 1} {
			if given {
				ways++
			}
		}
		if ways > 1 {
			return usagef("-c, --socket and an interface each name one: give only one of them")
		}
		if len(args) == 1 {
			if args[0] == "" || strings.ContainsRune(args[0], '/') {
				return usagef("%q is not the name of an interface; a file goes after -c, a socket after --socket", args[0])
			}
			a.iface = args[0]
		}
		return nil
	}
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		var names []string
		if len(args) == 0 {
			for _, path := range p.socketPaths() {
				names = append(names, ifaceOf(path))
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func (p *program) socketPaths() []string {
	// The pattern is well formed, and a missing folder is no match.
	paths, _ := filepath.Glob(filepath.Join(p.sockets, "*.sock"))
	return paths
}

func (p *program) defaultSocket(iface string) string {
	return filepath.Join(p.sockets, filepath.Base(config.DefaultControl(iface)))
}

func ifaceOf(socket string) string { return strings.TrimSuffix(filepath.Base(socket), ".sock") }

// path finds the control socket.
func (p *program) path(a address) (string, error) {
	switch {
	case a.socket != "":
		return a.socket, nil
	case a.iface != "":
		return p.defaultSocket(a.iface), nil
	case a.config != "":
		cfg, warnings, err := p.load(a.config)
		if err != nil {
			return "", p.report(a.config, warnings, err)
		}
		return cfg.Control, nil
	}
	paths := p.socketPaths()
	if len(paths) > 1 {
		// A process that was killed leaves its socket; it is not meant while
		// another answers.
		var live []string
		for _, path := range paths {
			if answers(path) {
				live = append(live, path)
			}
		}
		if len(live) > 0 {
			paths = live
		}
	}
	switch len(paths) {
	case 0:
		if names, err := p.keptShut(); err == nil && len(names) > 0 {
			return "", fmt.Errorf("none runs here, and %s", leftIn(names[0], false))
		}
		return "", fmt.Errorf("none runs here, there is no control socket in %s; start one with: bitw up -c FILE", p.sockets)
	case 1:
		return paths[0], nil
	}
	names := make([]string, len(paths))
	for i, path := range paths {
		names[i] = ifaceOf(path)
	}
	return "", usagef("several run here, name one of them: %s", strings.Join(names, ", "))
}

// answers tells whether somebody listens on a socket, or may do so.
func answers(path string) bool {
	conn, err := net.Dial("unix", path)
	if err != nil {
		return errors.Is(err, fs.ErrPermission)
	}
	conn.Close()
	return true
}

// others says where bitw runs, as the remedy for having asked where it does not.
func (p *program) others() string {
	var names []string
	for _, path := range p.socketPaths() {
		if answers(path) {
			names = append(names, ifaceOf(path))
		}
	}
	if len(names) == 0 {
		return "start one with: bitw up -c FILE"
	}
	return "it runs here on " + strings.Join(names, ", ") + ": bitw status " + names[0]
}

// client makes a client for a socket on which somebody listens; the error says in
// words why nobody does.
func (p *program) client(path string) (*client.Client, error) {
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
		return client.New(path), nil
	}
	iface := ""
	if filepath.Dir(path) == filepath.Clean(p.sockets) {
		iface = ifaceOf(path)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if shut := p.whetherShut(iface); shut != "" {
			return nil, fmt.Errorf("none runs behind %s, and %s", path, shut)
		}
		return nil, fmt.Errorf("none runs behind %s; %s", path, p.others())
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("the control socket %s is not for this user (uid %d); ask as root, or see control_group in the configuration", path, os.Geteuid())
	case errors.Is(err, syscall.ECONNREFUSED):
		if info, statErr := os.Stat(path); statErr == nil && info.Mode()&fs.ModeSocket == 0 {
			return nil, fmt.Errorf("%s is not a socket", path)
		}
		if shut, err := p.isShut(iface); iface != "" && err == nil {
			return nil, fmt.Errorf("nobody answers on %s, its process ended without being told to; %s", path, leftIn(iface, !shut))
		}
		return nil, fmt.Errorf("nobody answers on %s, its process ended without being told to; "+
			"the interface may be shut: bitw up -c FILE takes it over, bitw recover %s gives it back", path, cmp.Or(iface, "IFACE"))
	}
	return nil, fmt.Errorf("control socket: %w", err)
}
