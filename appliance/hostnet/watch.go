//go:build linux

package hostnet

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	// gather is how long a Watcher lets notifications come in before it reads a
	// snapshot: one command of an administrator makes many of them.
	gather = 20 * time.Millisecond
	// retry is the pause after a snapshot could not be read.
	retry = 250 * time.Millisecond
)

// A Watcher follows one interface. It does so by index as long as the interface
// exists, whatever its name becomes; once it is gone, the next interface with the
// name given to Watch takes its place.
//
//	kernel ── notification ──► receive: does it concern us? ── dirty ──► follow:
//	wait a little, read the whole snapshot, compare, hand it out
//
// Notifications only tell when to read, never what, so a lost or reordered one
// cannot leave a wrong picture behind; when the kernel had to drop some
// (ENOBUFS) that too means reading. One alone tells more: that the interface came to
// its end, for the one that is there when it is read may have the same index.
type Watcher struct {
	name    string
	reader  *reader
	sub     subscription
	changed func(*Interface, Event)

	current atomic.Pointer[Interface]
	index   atomic.Int64 // of the interface; 0 while it is gone
	ended   atomic.Bool  // it was deleted, or left, since the last snapshot
	fault   atomic.Pointer[error]

	dirty   chan struct{} // holds one token while a snapshot is due
	done    chan struct{}
	once    sync.Once
	running sync.WaitGroup
	detach  func() bool // from the context
}

// subscription is the socket that notifications come by.
type subscription interface {
	Receive() ([]syscall.NetlinkMessage, *unix.SockaddrNetlink, error)
	Close()
}

// Watch follows the interface with that name in the network namespace with that
// path ("" is the calling thread's). It calls changed with the first snapshot and
// Initial before it returns, then once for every later snapshot that differs,
// with the set of what differs, until ctx ends or Close is called. Calls never
// overlap, and Current is already the snapshot handed over. Changes within about
// 20 ms come as one, but that the interface is no more comes at once.
//
// errors.Is(err, ErrNoInterface) tells that there is no such interface; changed
// has not been called then.
func Watch(ctx context.Context, netns, name string, changed func(*Interface, Event)) (*Watcher, error) {
	w, err := subscribe(netns, name, changed)
	if err != nil {
		return nil, err
	}
	w.start(ctx)
	return w, nil
}

// subscribe opens the sockets and takes the first snapshot, in this order, so that
// no change falls between the two.
func subscribe(path, name string, changed func(*Interface, Event)) (*Watcher, error) {
	w := &Watcher{name: name, changed: changed, dirty: make(chan struct{}, 1), done: make(chan struct{})}
	err := inNamespace(path, func(ns nsHandle) error {
		s, err := nl.SubscribeAt(ns, netns.None(), unix.NETLINK_ROUTE,
			unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
			unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_NEXTHOP)
		if err != nil {
			return fmt.Errorf("subscribe to rtnetlink: %w", err)
		}
		if w.reader, err = openReader(ns); err != nil {
			s.Close()
			return err
		}
		w.sub = s
		return nil
	})
	if err != nil {
		return nil, err
	}
	first, err := w.reader.named(name, w.found)
	if err != nil {
		w.sub.Close()
		w.reader.close()
		return nil, err
	}
	w.current.Store(first)
	return w, nil
}

func (w *Watcher) start(ctx context.Context) {
	w.changed(w.current.Load(), Initial)
	w.running.Add(2)
	go w.receive()
	go w.follow()
	w.detach = context.AfterFunc(ctx, w.stop)
}

// Current returns the newest snapshot, never nil. It may be called at any time,
// from changed and after Close too.
func (w *Watcher) Current() *Interface { return w.current.Load() }

// Err returns why the newest attempt to read a snapshot failed, nil when it did
// not. The Watcher goes on trying, with Current as it was.
func (w *Watcher) Err() error {
	if err := w.fault.Load(); err != nil {
		return *err
	}
	return nil
}

// Close ends the watching and waits for it: changed is not called afterwards. It
// may be called more than once, but not from changed. The end of the context does
// the same without waiting.
func (w *Watcher) Close() {
	w.detach()
	w.stop()
	w.running.Wait()
}

func (w *Watcher) stop() {
	w.once.Do(func() {
		close(w.done)
		w.sub.Close()
	})
}

// receive reads notifications and says when a snapshot is due.
func (w *Watcher) receive() {
	defer w.running.Done()
	for {
		messages, _, err := w.sub.Receive()
		select {
		case <-w.done:
			return
		default:
		}
		if err != nil {
			w.due()
			// After an overflow the socket goes on with what comes next. Anything
			// else may last, so it must not keep the processor busy.
			if !errors.Is(err, unix.ENOBUFS) && !w.pause(gather) {
				return
			}
			continue
		}
		index := int(w.index.Load())
		for _, m := range messages {
			if ends(m, index) {
				w.ended.Store(true)
			}
			if concerns(m, index) {
				w.due()
			}
		}
	}
}

// due leaves a token for follow, unless one is there.
func (w *Watcher) due() {
	select {
	case w.dirty <- struct{}{}:
	default:
	}
}

// pause waits and tells whether the Watcher still runs.
func (w *Watcher) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-w.done:
		return false
	}
}

// follow reads snapshots when they are due and hands out those that differ.
func (w *Watcher) follow() {
	defer w.running.Done()
	defer w.reader.close()
	wait, ended := gather, false
	for {
		select {
		case <-w.done:
			return
		case <-w.dirty:
		}
		// Whoever cuts the interface must know at once that what he has cut is no more.
		if !w.ended.Load() && !w.pause(wait) {
			return
		}
		select { // what came during the wait is covered by the snapshot to come
		case <-w.dirty:
		default:
		}
		began := time.Now()
		ended = w.ended.Swap(false) || ended
		cur, err := w.snapshot()
		if err != nil {
			w.fault.Store(&err)
			wait = retry
			w.due()
			continue
		}
		w.fault.Store(nil)
		// With huge tables reading takes its time; let it take half at most.
		wait = max(gather, time.Since(began))
		event := difference(w.current.Load(), cur)
		if ended && !cur.Gone {
			event = Recreated
		}
		ended = false
		if event == 0 {
			continue
		}
		select {
		case <-w.done:
			return
		default:
		}
		w.current.Store(cur)
		w.changed(cur, event)
	}
}

// found records the index that notifications must have from now on.
func (w *Watcher) found(index int) { w.index.Store(int64(index)) }

// snapshot reads the interface followed so far, or the one that took its place,
// or returns a snapshot that says it is gone. The index is always stored before
// the step that a notification must not be missed for: 0, which lets every new
// link count, before looking for the name; the new one before reading its
// addresses.
func (w *Watcher) snapshot() (*Interface, error) {
	if index := int(w.index.Load()); index != 0 {
		i, err := w.reader.numbered(index)
		if !errors.Is(err, ErrNoInterface) && !errors.Is(err, unix.ENODEV) {
			return i, err
		}
		w.found(0)
	}
	i, err := w.reader.named(w.name, w.found)
	if errors.Is(err, ErrNoInterface) {
		last := w.current.Load()
		return &Interface{Name: last.Name, Index: last.Index, MAC: last.MAC, MTU: last.MTU, Gone: true}, nil
	}
	return i, err
}
