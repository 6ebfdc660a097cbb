//go:build linux

package netcheck

import (
	"context"
	"fmt"
	"time"

	"bitw/appliance"
)

// A Level says how good a line is.
type Level string

// The levels.
const (
	Good    Level = "good"
	Warning Level = "warning" // it works, but worse than it could, or something to know
	Bad     Level = "bad"     // bitw will not start, or not do what it should
)

// A Line is one thing that was looked at.
type Line struct {
	// Area is privileges, kernel, interface, offload, company, clock or path.
	Area  string `json:"area"`
	Level Level  `json:"level"`
	Found string `json:"found"`
	// Remedy is what to do; empty where the level is good.
	Remedy string `json:"remedy,omitempty"`
}

// A Report is all that was looked at.
type Report struct {
	Interface string `json:"interface"`
	Inside    string `json:"inside,omitempty"`
	Lines     []Line `json:"lines"`
	// running says that bitw has cut an interface that was looked at.
	running bool
}

// Worst is the worst level of the lines.
func (r *Report) Worst() Level {
	worst := Good
	for _, l := range r.Lines {
		if l.Level == Bad || l.Level == Warning && worst == Good {
			worst = l.Level
		}
	}
	return worst
}

func (r *Report) add(area string, level Level, remedy, found string, args ...any) {
	if level == Good {
		remedy = ""
	}
	r.Lines = append(r.Lines, Line{area, level, fmt.Sprintf(found, args...), remedy})
}

// Options of Run.
type Options struct {
	// Interface is the outside one where Inside is another.
	Interface, Inside string
	// Config adds what it says of peers; nil for none.
	Config *appliance.Config
	// Probe sends echo requests to the peers of Config.
	Probe bool
	// Timeout is how long an answer may take; 0 stands for 500 ms.
	Timeout time.Duration
}

// Run looks at the machine. It is bounded in time: by some seconds, and with Probe by
// some more for each of at most 8 peers.
func Run(ctx context.Context, o Options) *Report {
	if o.Timeout == 0 {
		o.Timeout = 500 * time.Millisecond
	}
	r := &Report{Interface: o.Interface, Inside: o.Inside}
	r.privileges()
	r.kernel(o.Config != nil && o.Config.ForbidBypass)
	mtus := make(map[string]int)
	names := []string{o.Interface}
	if o.Inside != "" {
		names = []string{o.Inside, o.Interface}
	}
	for _, name := range names {
		if mtus[name] = r.device(name); mtus[name] != 0 {
			r.offloads(name)
		}
	}
	for _, name := range names {
		if mtus[name] != 0 {
			r.company(name)
		}
	}
	if o.Inside != "" {
		r.between(o.Inside, o.Interface, mtus)
	}
	if mtus[o.Interface] != 0 {
		r.paths(ctx, &o, mtus[o.Interface])
	}
	r.clock(time.Now())
	return r
}
