package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"bitw/appliance"
	"bitw/appliance/client"
)

func (p *program) neigh() *cobra.Command {
	cmd := p.list(list{
		use: "neigh", short: "List, add, delete and flush the neighbours on the wire",
		long: `neigh lists the neighbours that a running bitw knows on the wire, with their Ethernet
addresses. Learned ones expire; static ones, from the configuration or from 'neigh add',
never do, and traffic never changes them.

What is added or deleted by hand holds until bitw ends: it is written to no file. While
neighbors is relay, the host finds its neighbours itself, and those here are only for
packets that get a tunnel's header.`,
		example: `  bitw neigh
  bitw neigh add 192.0.2.9 02:00:00:00:00:09
  bitw neigh del 192.0.2.9
  bitw neigh flush`,
		part: func(s *appliance.Status) any { return some(s.Neighbors) },
		table: func(w io.Writer, s *appliance.Status) {
			fmt.Fprintln(w, "ADDRESS\tMAC\tSTATE")
			for _, n := range s.Neighbors {
				fmt.Fprintf(w, "%s\t%s\t%s\n", n.Address, n.MAC, n.State)
			}
		},
	})
	cmd.AddCommand(
		p.neighChange("add", "Add a static neighbour", "add makes a neighbour known that never expires and that traffic never changes; one with that address is replaced.",
			"  bitw neigh add 192.0.2.9 02:00:00:00:00:09\n  bitw neigh add 2001:db8::9 02:00:00:00:00:09 -c /etc/bitw/eth0.yaml", []string{"ADDRESS", "MAC"},
			func(ctx context.Context, c *client.Client, n appliance.Neighbor) (string, error) {
				return fmt.Sprintf("%v is at %v", n.Address, n.MAC), c.AddNeighbor(ctx, n)
			}),
		p.neighChange("del", "Delete a neighbour", "del forgets a neighbour, learned or static. The next packet to it has bitw ask anew.",
			"  bitw neigh del 192.0.2.9", []string{"ADDRESS"},
			func(ctx context.Context, c *client.Client, n appliance.Neighbor) (string, error) {
				return fmt.Sprintf("%v is forgotten", n.Address), c.DeleteNeighbor(ctx, n.Address)
			}),
		p.neighChange("flush", "Forget all neighbours that were learned", "flush forgets all neighbours that were learned; the static ones stay.",
			"  bitw neigh flush\n  bitw neigh flush --socket /run/bitw/eth0.sock", nil,
			func(ctx context.Context, c *client.Client, _ appliance.Neighbor) (string, error) {
				n, err := c.FlushNeighbors(ctx)
				if n == 1 {
					return "1 neighbour is forgotten", err
				}
				return fmt.Sprintf("%d neighbours are forgotten", n), err
			}))
	where := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 && !slices.Contains(p.socketPaths(), p.defaultSocket(args[0])) {
			if near := nearVerb(cmd, args[0]); near != "" {
				return usagef("no bitw runs on %q%s", args[0], near)
			}
		}
		return where(cmd, args)
	}
	for _, verb := range cmd.Commands() {
		verb.DisableFlagsInUseLine = true
	}
	return cmd
}

// neighChange is a verb that changes the neighbours. Its arguments are names.
func (p *program) neighChange(name, short, long, example string, names []string, do func(context.Context, *client.Client, appliance.Neighbor) (string, error)) *cobra.Command {
	var where address
	cmd := &cobra.Command{
		Use:   strings.Join(append([]string{name}, names...), " ") + " [-c FILE | --socket PATH]",
		Short: short, Long: long + "\n\n" + addressing, Example: example,
	}
	where.flags(cmd, p)
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd.Args = exactly(names...)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if where.config != "" && where.socket != "" {
			return usagef("-c and --socket each name one: give only one of them")
		}
		var (
			n   appliance.Neighbor
			err error
		)
		if len(args) > 0 {
			if n.Address, err = netip.ParseAddr(args[0]); err != nil || n.Address.Zone() != "" {
				return usagef("expected an address such as 192.0.2.9 or fe80::9, without a zone, found %q", args[0])
			}
		}
		if len(args) > 1 {
			mac, err := net.ParseMAC(args[1])
			if err != nil || len(mac) != 6 {
				return usagef("expected an Ethernet address such as 02:00:00:00:00:09, found %q", args[1])
			}
			n.MAC = appliance.MAC(mac)
		}
		c, err := p.find(where)
		if err != nil {
			return err
		}
		words, err := do(cmd.Context(), c, n)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(p.out, words)
		return err
	}
	return cmd
}
