package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"bitw/appliance/bench"
)

func (p *program) benchVerb() *cobra.Command {
	var (
		o      bench.Options
		output string
	)
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure what protection costs on this machine",
		Long: `bench measures, in rounds in which all have their turn, and tells median, spread and
ratios:

  aead     seal and open of the algorithm on the octets that ESP protects in a TCP
           segment of 1,400 octets, in a loop: what no IPsec can be faster than
  engine   superframes through an appliance whose links are in memory, to ESP and back
           to superframes, as a ratio to the bare algorithm; allocations per packet
  kernel   two hosts made for it, as root on Linux: network namespaces with the kernel's
           own TCP/IP over a veth, without bitw (plain), with bitw and a policy that
           bypasses (bypass), one that protects (protected), and one that does so by ESP
           in UDP (encap), as ratios to plain: TCP in both directions (tcp-ab, tcp-ba),
           the rate of UDP packets of 64 and 1,400 octets at which less than 1 % is lost
           (udp-64, udp-1400), and the 50th and 99th percentile of 1,000 round trips
           (rtt-p50, rtt-p99), and of those beside a TCP stream (rtt-tcp-p50,
           rtt-tcp-p99)

Without root it measures the first two and says why not the third. The veth has no
offloads, so that its frames are as on a wire. With --wire gso they still are, but the
kernels cut superframes just before it and join frames just behind it, as they do
for most NICs; that is where ESP in UDP gains by UDP superframes. With --wire on
the veth is as the kernel makes it, and superframes cross it whole.

It takes less than 30 seconds, with --quick less than 8. Progress goes to standard
error, the result to standard output. Compare only what one run has measured. Nothing
of the machine is touched, and nothing is left behind.`,
		Example: `  sudo bitw bench
  sudo bitw bench --wire gso
  bitw bench --quick --suite chacha20poly1305
  sudo bitw bench -o json | jq '.measures[] | select(.ratio) | {name, ratio}'`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("output", output, "text", "json"); err != nil {
				return err
			}
			if err := oneOf("wire", o.Wire, bench.Wires()...); err != nil {
				return err
			}
			if err := o.Check(); err != nil {
				return usageError{err}
			}
			o.JSON, o.Out, o.Err = output == "json", p.out, p.err
			ctx, stop := p.untilEnd(cmd.Context(), 0)
			defer stop()
			_, err := p.bench(ctx, o)
			if errors.Is(err, context.Canceled) {
				return errors.New("bench interrupted, nothing was left running")
			}
			return err
		},
	}
	cmd.Flags().StringVar(&o.Suite, "suite", bench.DefaultSuite, "the ESP `ALGORITHM`, by the name that a configuration has for it")
	cmd.Flags().StringVar(&o.Wire, "wire", bench.WireOff, "offloads of the veth: off, gso or on (`OFFLOADS`)")
	cmd.Flags().BoolVar(&o.Quick, "quick", false, "measure for a shorter time, which is more noisy")
	cmd.Flags().BoolVar(&o.Memory, "memory", false, "only what is in memory, also as root")
	complete(cmd, "wire", bench.Wires()...)
	outputFlag(cmd, &output)
	return cmd
}
