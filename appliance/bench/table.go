package bench

import (
	"fmt"
	"os"
	"runtime"
	"strings"
)

// noisy is the spread above which the table warns.
const noisy = 0.25

// Table is the result for people to read.
func (r *Result) Table() string {
	var t strings.Builder
	m := r.Machine
	fmt.Fprintf(&t, "%s, %s, %s, %s\n", r.Suite, cpuText(m), m.Release, m.Go)
	fmt.Fprintf(&t, "\nIn memory, TCP segments of %d octets in superframes of %d\n", r.Segment, segmentsEach)
	r.rows(&t, false)
	if r.Kernel.Measured {
		fmt.Fprintf(&t, "\nBetween two hosts with a kernel each, over a veth %s\n", map[string]string{
			WireOff: "without offloads: its frames are as on a wire",
			WireGSO: "whose frames are as on a wire, cut and joined by the kernels as for most NICs",
			WireOn:  "with offloads: superframes cross it, as on no wire",
		}[r.Kernel.Wire])
		r.rows(&t, true)
	} else {
		fmt.Fprintf(&t, "\nNothing was measured between kernels: %s\n", r.Kernel.Why)
	}
	t.WriteString("\nEach is the median of its rounds; the spread is from the lowest to the highest. A ratio is the median of\n" +
		"the quotients round by round, with the lowest and the highest. In memory a round is its shortest pass of\n" +
		"many.\n")
	if r.Bare == BareTransform {
		fmt.Fprintf(&t, "%s is no AEAD of Go's: bitw's own transform of it stands for the bare algorithm.\n", r.Suite)
	}
	if r.Kernel.Measured {
		fmt.Fprintf(&t, "Between kernels both hosts, both appliances and the source of the traffic share the same %d CPUs.\n"+
			"A UDP rate is the highest found at which less than 1 %% is lost. Of TCP and UDP more is better, of round\n"+
			"trips less: a ratio of 0.50 is half of what the same kernels do without bitw. encap is ESP in UDP.\n", m.CPUs)
	}
	var loud []string
	for _, x := range r.Measures {
		if x.Spread > noisy && x.Unit != unitAllocs {
			loud = append(loud, x.Name)
		}
	}
	if loud != nil {
		fmt.Fprintf(&t, "Noisy, with a spread above %d %%: %s.\n", int(noisy*100), strings.Join(loud, ", "))
	}
	return t.String()
}

// rows has the measures between kernels, or the others.
func (r *Result) rows(t *strings.Builder, kernel bool) {
	header := "ratio"
	if kernel {
		header += " to plain"
	}
	fmt.Fprintf(t, "  %-26s %9s  %-13s %7s  %s\n", "", "median", "", "spread", header)
	for _, m := range r.Measures {
		if strings.HasPrefix(m.Name, "kernel/") != kernel {
			continue
		}
		spread, ratio := fmt.Sprintf("%.0f %%", 100*m.Spread), ""
		if m.Median == 0 || m.Unit == unitAllocs {
			spread = ""
		}
		if m.Ratio != nil {
			ratio = fmt.Sprintf("%.2f (%.2f to %.2f)", m.Ratio.Median, m.Ratio.Low, m.Ratio.High)
			if !kernel {
				ratio += " to " + m.Ratio.To
			}
		}
		row := fmt.Sprintf("  %-26s %9s  %-13s %7s  %s", m.Name, figure(m.Median), m.Unit, spread, ratio)
		t.WriteString(strings.TrimRight(row, " ") + "\n")
	}
}

// figure has about three digits that mean something.
func figure(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1 || v == 0:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.4f", v)
}

func cpuText(m Machine) string {
	if m.CPUs == 1 {
		return "1 CPU (" + m.CPU + ")"
	}
	return fmt.Sprintf("%d CPUs (%s)", m.CPUs, m.CPU)
}

// processor is what the kernel calls the CPU, or its architecture.
func processor() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// release is the kernel's, or the name of the system.
func release() string {
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return runtime.GOOS
	}
	return "Linux " + strings.TrimSpace(string(text))
}
