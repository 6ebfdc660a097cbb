package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"

	"bitw/sa/transform"
)

// DefaultSuite is the ESP algorithm that is measured unless another is asked for, and
// the one that every other is measured beside.
const DefaultSuite = "aes128gcm16"

// Wires of Options.
const (
	// WireOff is a veth without offloads: every frame on it is one that a wire could
	// carry.
	WireOff = "off"
	// WireGSO carries such frames too, but the kernels cut superframes just before it and
	// join frames just behind it, as with a NIC's driver.
	WireGSO = "gso"
	// WireOn is a veth as it comes: superframes and missing checksums cross it, which no
	// wire does.
	WireOn = "on"
)

// Wires are those of Options.
func Wires() []string { return []string{WireOff, WireGSO, WireOn} }

// Cases of the measures between kernels.
const (
	casePlain     = "plain"
	caseBypass    = "bypass"
	caseProtected = "protected"
	caseEncap     = "encap" // protected, by ESP in UDP
)

// cases stand in the order in which they are told.
func cases() []string { return []string{casePlain, caseBypass, caseProtected, caseEncap} }

// Options of a bench.
type Options struct {
	// Suite is the ESP algorithm by swanctl's name, DefaultSuite if empty.
	Suite string
	// Wire is WireOff, WireGSO or WireOn, WireOff if empty.
	Wire string
	// Quick measures for a shorter time, which is more noisy.
	Quick bool
	// Memory leaves out what is measured between kernels.
	Memory bool
	// JSON prints the Result to Out instead of a table.
	JSON bool
	// Out takes the result, Err what is told while it is measured. Nil writers take
	// nothing.
	Out, Err io.Writer
}

// Check says what is wrong with the options.
func (o *Options) Check() error {
	if o.Suite != "" {
		if _, err := transform.Lookup(transform.ProtoESP, o.Suite); err != nil {
			return err
		}
	}
	if o.Wire != "" && !slices.Contains(Wires(), o.Wire) {
		return fmt.Errorf("a wire is one of %s, not %q", strings.Join(Wires(), ", "), o.Wire)
	}
	return nil
}

// A Result is what a bench has found.
type Result struct {
	Suite string `json:"suite"`
	// Bare is what stands for the bare suite: BareAEAD or BareTransform.
	Bare string `json:"bare"`
	// Segment is how many octets of payload a TCP segment has in memory.
	Segment int    `json:"segment"`
	Kernel  Kernel `json:"kernel"`
	// Machine is on what it was measured.
	Machine  Machine   `json:"machine"`
	Measures []Measure `json:"measures"`
	Seconds  float64   `json:"seconds"`
}

// Kernel says what there is of the measures between kernels.
type Kernel struct {
	Measured bool `json:"measured"`
	// Why says why they were not measured; empty if they were.
	Why  string `json:"why,omitempty"`
	Wire string `json:"wire"`
}

// A Machine is what figures depend on.
type Machine struct {
	CPU     string `json:"cpu"`
	CPUs    int    `json:"cpus"` // that Go uses at once
	Release string `json:"release"`
	Go      string `json:"go"`
}

// A plan is how much is measured.
type plan struct {
	rounds       int           // of the measures in memory
	memory       time.Duration // of all of them, a round
	kernelRounds int
	limit        time.Duration // after which no more rounds are begun
	tcp          time.Duration // of one direction, a round
	udp          time.Duration // of one trial
	trials       int           // to find a rate, twice as many in the first round
	pings        int
	beside       time.Duration // of the TCP beside round trips
}

func planOf(quick bool) plan {
	if quick {
		return plan{
			rounds: 5, memory: 120 * time.Millisecond,
			kernelRounds: 2, limit: 7 * time.Second, tcp: 80 * time.Millisecond, udp: 30 * time.Millisecond, trials: 3, pings: 1000,
			beside: 100 * time.Millisecond,
		}
	}
	return plan{
		rounds: 11, memory: 300 * time.Millisecond,
		kernelRounds: 4, limit: 27 * time.Second, tcp: 250 * time.Millisecond, udp: 70 * time.Millisecond, trials: 4, pings: 1000,
		beside: 300 * time.Millisecond,
	}
}

// run is one bench.
type run struct {
	o       Options
	plan    plan
	notes   notebook
	result  Result
	started time.Time
}

// Run measures and tells. The error says why it could not be done to its end, such as
// that of ctx; what the machine does not allow between kernels is no error, but told by
// the Result. Whatever the outcome, nothing is left.
func Run(ctx context.Context, o Options) (Result, error) {
	return start(ctx, o, planOf(o.Quick))
}

func start(ctx context.Context, o Options, p plan) (Result, error) {
	if err := o.Check(); err != nil {
		return Result{}, err
	}
	if o.Suite == "" {
		o.Suite = DefaultSuite
	}
	if o.Wire == "" {
		o.Wire = WireOff
	}
	r := &run{o: o, plan: p, started: time.Now()}
	if err := r.whole(ctx); err != nil {
		return r.result, err
	}
	r.result.Measures = r.notes.measures()
	r.result.Seconds = time.Since(r.started).Seconds()
	if o.Out == nil {
		return r.result, nil
	}
	if o.JSON {
		e := json.NewEncoder(o.Out)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return r.result, e.Encode(r.result)
	}
	_, err := io.WriteString(o.Out, r.result.Table())
	return r.result, err
}

// progress tells what is measured now. What cannot be told is lost.
func (r *run) progress(format string, args ...any) {
	if r.o.Err != nil {
		fmt.Fprintf(r.o.Err, "%5.1f s  %s\n", time.Since(r.started).Seconds(), fmt.Sprintf(format, args...))
	}
}

func (r *run) whole(ctx context.Context) error {
	s, err := newSuite(r.o.Suite)
	if err != nil {
		return err
	}
	r.result = Result{
		Suite: s.Name, Segment: Segment, Kernel: Kernel{Wire: r.o.Wire},
		Machine: Machine{CPU: processor(), CPUs: runtime.GOMAXPROCS(0), Release: release(), Go: runtime.Version()},
	}
	if err := r.measureMemory(ctx, s); err != nil {
		return err
	}
	if r.o.Memory {
		r.result.Kernel.Why = "not asked for"
		return nil
	}
	err = r.measureKernels(ctx, s)
	if r.result.Kernel.Measured = err == nil; err != nil && cannotMeasure(err) {
		r.result.Kernel.Why = err.Error()
		r.progress("nothing is measured between kernels: %v", err)
		return nil
	}
	return err
}

// measureMemory takes the measures of algorithms and engine.
func (r *run) measureMemory(ctx context.Context, s *suite) (err error) {
	suites := []*suite{s}
	if s.Name != DefaultSuite {
		reference, err := newSuite(DefaultSuite)
		if err != nil {
			return err
		}
		suites = append(suites, reference)
	}
	var algorithms []*bare
	for _, s := range suites {
		x, err := newBare(s)
		if err != nil {
			return err
		}
		algorithms = append(algorithms, x)
	}
	r.result.Bare = algorithms[0].source
	e, err := newEngine(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.stop()) }()
	for round := range r.plan.rounds {
		r.progress("round %d of %d in memory", round+1, r.plan.rounds)
		if err := r.memoryRound(ctx, suites, algorithms, e); err != nil {
			return err
		}
	}
	return nil
}

const (
	unitTime   = "ns/packet"
	unitAllocs = "allocs/packet"
)

// memoryRound lets the algorithms and the engine take turns for a while. Each pass
// takes about a millisecond, and what counts is the shortest: the others had something
// in their way.
func (r *run) memoryRound(ctx context.Context, suites []*suite, algorithms []*bare, e *engine) error {
	seals, opens := make([]time.Duration, len(suites)), make([]time.Duration, len(suites))
	var out, in time.Duration
	for end := time.Now().Add(r.plan.memory); out == 0 || time.Now().Before(end); {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		for i, x := range algorithms {
			seal, open, err := x.pass()
			if err != nil {
				return err
			}
			seals[i], opens[i] = shorter(seals[i], seal), shorter(opens[i], open)
		}
		o, i, err := e.pass()
		if err != nil {
			return err
		}
		out, in = shorter(out, o), shorter(in, i)
	}
	n := &r.notes
	for i, s := range suites {
		name, reference := "aead/"+s.Name, "aead/"+suites[len(suites)-1].Name
		for _, v := range []struct {
			what string
			pass time.Duration
		}{{"/seal", seals[i]}, {"/open", opens[i]}, {"/both", seals[i] + opens[i]}} {
			if name == reference {
				n.add(name+v.what, unitTime, perPacket(v.pass))
			} else {
				n.compare(name+v.what, reference+v.what, unitTime, perPacket(v.pass))
			}
		}
	}
	to := "aead/" + suites[0].Name
	n.compare("engine/outbound", to+"/seal", unitTime, perPacket(out))
	n.compare("engine/inbound", to+"/open", unitTime, perPacket(in))
	n.compare("engine/both", to+"/both", unitTime, perPacket(out+in))
	allocsOut, allocsIn := e.takeAllocs()
	n.add("engine/outbound/allocs", unitAllocs, allocsOut)
	n.add("engine/inbound/allocs", unitAllocs, allocsIn)
	return nil
}

// shorter is the shorter of two times, of which a may be 0 for none.
func shorter(a, b time.Duration) time.Duration {
	if a == 0 {
		return b
	}
	return min(a, b)
}

// perPacket is a pass's time for each packet, in nanoseconds.
func perPacket(pass time.Duration) float64 {
	return float64(pass) / (superframes * segmentsEach)
}
