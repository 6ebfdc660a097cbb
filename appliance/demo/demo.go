package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"bitw/appliance"
	"bitw/appliance/keylog"
)

const (
	// DefaultFile is where the capture goes.
	DefaultFile = "demo.pcapng"
	// DefaultSize is what HTTP transfers each way, in octets.
	DefaultSize = 20_000_000
	// maxSize is far more than anybody will wait for.
	maxSize = 1 << 40
)

// A demo that hangs is ended after timeout, and a second more for every slowest
// octets of its files. It takes a few seconds when nothing is wrong.
const (
	timeout = 2 * time.Minute
	slowest = 1_000_000
)

// refresh is how often the table is drawn on a terminal.
const refresh = 200 * time.Millisecond

// Options of a demo.
type Options struct {
	// Memory keeps it inside the process even where network namespaces could be had.
	Memory bool
	// JSON prints the Result to Out at the end, and nothing else.
	JSON bool
	// Out takes what there is to read; if it is a terminal, with a table that lives.
	// Err takes what is said besides. Nil writers take nothing.
	Out, Err io.Writer
	// File is the capture, DefaultFile if empty; the keys go beside it, with the
	// extension .esp_sa.
	File string
	// Size is how many octets HTTP transfers each way, DefaultSize if 0.
	Size int64
}

// Modes of a Result.
const (
	ModeKernel = "kernel"
	ModeMemory = "memory"
)

// A Result tells what a demo came to.
type Result struct {
	// OK says that all checks held.
	OK bool `json:"ok"`
	// Mode is "kernel" with network namespaces, and "memory" without.
	Mode string `json:"mode"`
	// Fallback says why Mode is memory although nobody asked for it.
	Fallback string `json:"fallback,omitempty"`
	// BytesVerified are octets of data that were received, and found to be what was
	// sent.
	BytesVerified int64 `json:"bytes_verified"`
	Wire          Wire  `json:"wire"`
	// Drops are those of both appliances by reason.
	Drops  map[string]uint64 `json:"drops"`
	Checks []Check           `json:"checks"`
	// Capture and Keys are the files. CaptureFrames are in the capture, and
	// CaptureLeftOut exceeded its bounds.
	Capture        string  `json:"capture"`
	Keys           string  `json:"keys"`
	CaptureFrames  int     `json:"capture_frames"`
	CaptureLeftOut int     `json:"capture_left_out"`
	Seconds        float64 `json:"seconds"`
}

// A Check is one thing that the demo sets out to show.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// Run shows the demo. The error says why it could not be shown to its end, such
// as that of ctx; that something did not hold is told by Result.OK. The files are
// there if there is no error. Whatever the outcome, nothing else is left.
func Run(ctx context.Context, o Options) (Result, error) {
	if o.File == "" {
		o.File = DefaultFile
	}
	if o.Size == 0 {
		o.Size = DefaultSize
	}
	if o.Size < 0 || o.Size > maxSize {
		return Result{}, fmt.Errorf("demo: a size of %d octets, expected 1 to %d", o.Size, int64(maxSize))
	}
	limit := timeout + time.Duration(2*(o.Size/slowest))*time.Second
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("demo: it has not come to its end within %v", limit))
	defer cancel()
	d := &run{o: o, screen: newScreen(o.Out), started: time.Now(), kernel: newKernelNetwork}
	if o.JSON {
		d.screen = newScreen(nil)
	}
	return d.run(ctx)
}

// run is Run for options that are complete.
func (d *run) run(ctx context.Context) (Result, error) {
	err := d.whole(ctx)
	d.screen.clear()
	d.result.Seconds = time.Since(d.started).Seconds()
	if err != nil {
		return d.result, err
	}
	if d.o.JSON && d.o.Out != nil {
		e := json.NewEncoder(d.o.Out)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return d.result, e.Encode(d.result)
	}
	return d.result, nil
}

// run is one demo.
type run struct {
	o            Options
	kernel       func() (network, error) // newKernelNetwork
	screen       *screen
	started      time.Time
	result       Result
	associations []association
	network      network
	boxes        [2]*box
}

// whole is the demo from the first namespace to the last line, with real kernels
// if this machine lets it.
func (d *run) whole(ctx context.Context) (err error) {
	if d.associations, err = newAssociations(); err != nil {
		return err
	}
	if !d.o.Memory {
		d.result.Mode = ModeKernel
		n, err := d.kernel()
		if err == nil {
			d.screen.say("Two network namespaces, each with an eth0 that bitw cuts, joined by a veth.")
			if err = d.over(ctx, n); !cannotCut(err) {
				return err
			}
		}
		d.result.Fallback = err.Error()
		if d.o.Err != nil {
			fmt.Fprintf(d.o.Err, "The demo stays in memory: %v.\n", err)
		}
	}
	d.result.Mode = ModeMemory
	n, err := newMemoryNetwork()
	if err != nil {
		return err
	}
	d.screen.say("Two network stacks in this process, each behind bitw, joined by a link in memory.")
	return d.over(ctx, n)
}

// over is the demo over a network, which it closes.
func (d *run) over(ctx context.Context, n network) (err error) {
	d.network = n
	defer func() { err = errors.Join(err, n.close()) }()
	files, err := newFiles(d.o.File)
	if err != nil {
		return err
	}
	defer files.discard()
	if err := d.protected(ctx, files); err != nil {
		return err
	}
	d.result.CaptureFrames, d.result.CaptureLeftOut = files.bounded.frames()
	if err := files.keep(d.associations); err != nil {
		return err
	}
	d.result.Capture, d.result.Keys = files.capture, files.keys
	d.conclude()
	return nil
}

// protected starts the appliances, has the hosts talk, and stops the appliances.
func (d *run) protected(ctx context.Context, files *files) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer func() {
		d.screen.clear()
		for i, b := range d.boxes {
			if b != nil {
				err = errors.Join(err, b.stop())
				d.boxes[i] = nil
			}
		}
	}()
	for i := range d.boxes {
		var more []appliance.Option
		if i == a {
			more = append(more, appliance.WithCapture(files.bounded))
		}
		if d.boxes[i], err = startBox(ctx, cancel, i, d.network, d.associations, more...); err != nil {
			return err
		}
	}
	stopTable := d.keepTable()
	err = d.talk(ctx)
	stopTable()
	if err != nil {
		return err
	}
	// Before the appliances stop: what the kernels say without them is not theirs.
	if err := d.network.settle(); err != nil {
		return err
	}
	d.result.Wire = d.network.evidence().counts()
	status := d.status()
	d.result.Drops = dropsOf(status)
	d.screen.clear()
	d.screen.say("\n%s", tableOf(d.associations, status, d.result.Wire))
	return nil
}

// talk takes the steps. The first one that fails is the last one.
func (d *run) talk(ctx context.Context) error {
	list := steps(d.network, d.o.Size)
	for i, s := range list {
		octets, detail, err := s.run(ctx)
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		d.result.BytesVerified += octets
		d.check(s.name, err == nil, errorOr(err, detail))
		if err != nil {
			if rest := len(list) - i - 1; rest > 0 {
				d.check("the rest", false, fmt.Sprintf("%d more were not tried", rest))
			}
			return nil
		}
	}
	return nil
}

// check notes and prints one thing that held, or did not.
func (d *run) check(name string, ok bool, detail string) {
	d.result.Checks = append(d.result.Checks, Check{name, ok, detail})
	word := "ok    "
	if !ok {
		word = "FAILED"
	}
	d.screen.say("  %s  %-16s %s", word, name, detail)
}

func errorOr(err error, detail string) string {
	if err != nil {
		return err.Error()
	}
	return detail
}

// keepTable draws the table until the returned function is called.
func (d *run) keepTable() (stop func()) {
	if !d.screen.live {
		return func() {}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(refresh)
		defer tick.Stop()
		for {
			d.screen.update("\n" + tableOf(d.associations, d.status(), d.network.evidence().counts()))
			select {
			case <-quit:
				return
			case <-tick.C:
			}
		}
	}()
	return func() {
		close(quit)
		<-done
	}
}

func (d *run) status() [2]*appliance.Status {
	return [2]*appliance.Status{d.boxes[a].Status(), d.boxes[b].Status()}
}

// conclude draws the conclusions from the evidence, and tells of the files.
func (d *run) conclude() {
	w := d.result.Wire
	d.check("protected", w.ESPPackets > 0, fmt.Sprintf("%s ESP packets crossed the wire", grouped(w.ESPPackets)))
	d.check("nothing clear", w.ClearPackets == 0, fmt.Sprintf("%s packets crossed it in the clear", grouped(w.ClearPackets)))
	d.check("unreadable", w.MarkedFrames == 0, fmt.Sprintf("%q, which is in all data, was in %s frames", marker, grouped(w.MarkedFrames)))
	d.check("in place", w.ForeignSources == 0, fmt.Sprintf("%s frames had another source than the host's own Ethernet and IP address", grouped(w.ForeignSources)))
	d.check("all seen", w.Missed == 0, fmt.Sprintf("the capture of the wire missed %s frames", grouped(w.Missed)))
	d.result.OK = true
	for _, c := range d.result.Checks {
		d.result.OK = d.result.OK && c.OK
	}
	bounds := ""
	if d.result.CaptureLeftOut > 0 {
		bounds = fmt.Sprintf(", the first %s of %s", grouped(uint64(d.result.CaptureFrames)), grouped(uint64(d.result.CaptureFrames+d.result.CaptureLeftOut)))
	}
	d.screen.say("\n%s has the frames of host a inside and outside%s; %s has the keys, which end with this demo.", d.result.Capture, bounds, d.result.Keys)
	d.screen.say("%s", keylog.Hint("bitw-demo", d.result.Capture, d.result.Keys))
	verdict := "All held"
	if !d.result.OK {
		verdict = "Not all held"
	}
	d.screen.say("%s: %s octets verified in %.1f s.", verdict, grouped(uint64(d.result.BytesVerified)), time.Since(d.started).Seconds())
}
