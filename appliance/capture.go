package appliance

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"bitw/netstack/hook"
	"bitw/netstack/trace"
)

// maxFilterRequest is how many octets a request with a filter may have.
const maxFilterRequest = 1 << 13

// maxWatchedFile is that of PATH_MAX.
const maxWatchedFile = 4096

// A CaptureRequest says what is captured.
type CaptureRequest struct {
	// Filter chooses packets, as trace.FilterGrammar has it; "" takes all.
	Filter string `json:"filter,omitempty"`
	// Snaplen is how many octets of each frame are kept; 0 stands for all.
	Snaplen int `json:"snaplen,omitempty"`
	// File is where it goes, for Status to tell; nobody here opens it.
	File string `json:"file,omitempty"`
}

// CaptureStats say how many frames were written and lost, by side: first those inside.
type CaptureStats = hook.CaptureStats

// Capture writes what crosses both links to w, as package pcapng has it, until ctx or the
// appliance ends or w fails. The packet path never waits for w: what is too much for it is
// lost, counted in the result and in the file, and told with the next frame that is
// written. Any number of captures may go on. Capture returns once w does.
func (a *Appliance) Capture(ctx context.Context, w io.Writer, r CaptureRequest) (CaptureStats, error) {
	filter, err := r.check()
	if err != nil {
		return CaptureStats{}, err
	}
	b, err := a.running()
	if err != nil {
		return CaptureStats{}, err
	}
	return a.capture(ctx, b, w, r, filter)
}

func (r *CaptureRequest) check() (*trace.Filter, error) {
	if r.Snaplen < 0 || r.Snaplen > hook.DefaultSnaplen {
		return nil, fmt.Errorf("snaplen: expected 0 to %d octets, found %d", hook.DefaultSnaplen, r.Snaplen)
	}
	if len(r.File) > maxWatchedFile {
		return nil, fmt.Errorf("file: expected at most %d octets, found %d", maxWatchedFile, len(r.File))
	}
	return trace.ParseFilter(r.Filter)
}

// capture captures until ctx ends, which says who asks.
func (a *Appliance) capture(ctx context.Context, b *bump, w io.Writer, r CaptureRequest, filter *trace.Filter) (CaptureStats, error) {
	c := hook.NewCapture(b.watch)
	if err := c.Start(w, hook.CaptureOptions{Snaplen: r.Snaplen, Filter: filter}); err != nil {
		return CaptureStats{}, err
	}
	by := who(ctx)
	defer a.watchers.add(Watcher{Kind: WatcherCapture, By: by, Since: time.Unix(0, a.opt.clock()), Filter: r.Filter, File: r.File}, func() (packets, missed uint64) {
		s := c.Stats()
		return s.Written[hook.Left] + s.Written[hook.Right], s.Lost[hook.Left] + s.Lost[hook.Right]
	})()
	a.tell(Event{Kind: CaptureStarted, Level: "info", Text: "a capture has begun", Filter: r.Filter, By: by})
	select {
	case <-ctx.Done():
	case <-a.done:
	case <-c.Ended():
	}
	stats, err := c.Stop()
	a.tell(Event{Kind: CaptureStopped, Level: "info", Filter: r.Filter, By: by, Text: fmt.Sprintf(
		"a capture has ended: %d frames inside and %d outside, and %d and %d lost",
		stats.Written[hook.Left], stats.Written[hook.Right], stats.Lost[hook.Left], stats.Lost[hook.Right])})
	return stats, err
}

// serveCapture answers POST /v1/capture.
func (a *Appliance) serveCapture(s *stream, r *http.Request) error {
	req, err := requested[CaptureRequest](r)
	if err != nil {
		return err
	}
	filter, err := req.check()
	if err != nil {
		return badRequest("%v", err)
	}
	b, err := a.running()
	if err != nil {
		return err
	}
	if err := s.begin("application/x-pcapng"); err != nil {
		return err
	}
	_, err = a.capture(s.ctx, b, s, req, filter)
	return err
}
