package appliance

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// The kinds of a Watcher.
const (
	WatcherCapture = "capture"
	WatcherTrace   = "trace"
	WatcherKeys    = "keys" // who gets keys for Wireshark as they come
)

// A Watcher is somebody who looks at what crosses the box, from the beginning of that to its
// end.
type Watcher struct {
	// Kind is "capture", "trace" or "keys".
	Kind string `json:"kind"`
	// By is who asked by the control socket, such as "user 0, process 812"; empty for the
	// program itself.
	By     string    `json:"by,omitempty"`
	Since  time.Time `json:"since"`
	Filter string    `json:"filter,omitempty"`
	// File is where it goes, as far as who asked has said so.
	File string `json:"file,omitempty"`
	// Packets is how many were written, for a capture frames of both sides, and Missed how
	// many came too fast for that.
	Packets uint64 `json:"packets"`
	Missed  uint64 `json:"missed"`
}

// watchers are those of an appliance.
type watchers struct {
	mu   sync.Mutex
	list map[*watching]struct{}
}

// watching is a Watcher and what counts for it; count is nil if nothing does.
type watching struct {
	Watcher
	count func() (packets, missed uint64)
}

// add has a watcher known until end is called.
func (w *watchers) add(x Watcher, count func() (packets, missed uint64)) (end func()) {
	entry := &watching{x, count}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.list == nil {
		w.list = make(map[*watching]struct{})
	}
	w.list[entry] = struct{}{}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.list, entry)
	}
}

// all are those that there are now, the oldest first.
func (w *watchers) all() []Watcher {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := []Watcher{}
	for e := range w.list {
		x := e.Watcher
		if e.count != nil {
			x.Packets, x.Missed = e.count()
		}
		list = append(list, x)
	}
	slices.SortFunc(list, func(a, b Watcher) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.By, b.By))
	})
	return list
}
