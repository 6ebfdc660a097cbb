package main

import (
	"context"
	"errors"
	"strconv"

	"github.com/spf13/cobra"

	"bitw/appliance/demo"
)

func (p *program) demoVerb() *cobra.Command {
	var (
		memory             bool
		output, file, size string
	)
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See it work, between two hosts made for it",
		Long: `demo joins two hosts through two appliances and lets them talk: a file by HTTP, pings
and UDP, both ways. It shows what passes while it runs. Then it proves from its own
capture of the wire that nothing crossed in the clear, and compares the checksums of
what was sent and received.

As root on Linux the hosts are two network namespaces with the kernel's own TCP/IP,
joined by a veth, and the appliances cut their eth0. Without root, or with --memory,
they are two network stacks inside this process. Nothing of the machine is touched in
either case, and nothing is left behind but the capture and, beside it, the keys in
Wireshark's form.

Exit status 0 only if all held.`,
		Example: `  bitw demo
  bitw demo --memory -o json | jq .wire
  bitw demo --size 100MiB -w /tmp/wire.pcapng`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("output", output, "text", "json"); err != nil {
				return err
			}
			octets, err := parseSize(size)
			if err != nil {
				return err
			}
			if file == "" {
				return usagef("-w needs the name of a file")
			}
			if err := placeFor(file); err != nil {
				return err
			}
			ctx, stop := p.untilEnd(cmd.Context(), 0)
			defer stop()
			result, err := p.demo(ctx, demo.Options{
				Memory: memory, JSON: output == "json", Out: p.out, Err: p.err, File: file, Size: octets,
			})
			switch {
			case errors.Is(err, context.Canceled):
				return errors.New("demo interrupted, nothing was left running")
			case err != nil:
				return err
			case !result.OK:
				return errors.New("the demo failed: not all held that it sets out to show")
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&memory, "memory", false, "two network stacks in this process, also as root")
	cmd.Flags().StringVarP(&file, "write", "w", demo.DefaultFile, "where the capture goes (`FILE`)")
	cmd.Flags().StringVar(&size, "size", strconv.Itoa(demo.DefaultSize), "how much HTTP transfers each way (`OCTETS`, or with KiB, MiB, GiB)")
	outputFlag(cmd, &output)
	return cmd
}
