package appliance

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"bitw/config"
)

// Bounds of the control socket. What it speaks is in package appliance/client.
const (
	controlTime    = 5 * time.Second // for a request and its answer, if its route says no other
	controlEnd     = time.Second     // for what is under way when the appliance ends
	controlHeader  = 1 << 14         // octets of a request's head
	controlConns   = 128             // connections at a time; others wait
	controlReaders = 32              // requests at a time of those who may only read
)

// control is the server's end.
type control struct {
	path     string
	listener net.Listener
	server   *http.Server
	allowed  allowedGroups
	readers  atomic.Int32 // requests under way of those who may only read
	// streaming ends when streams are to.
	streaming  context.Context
	endStreams context.CancelFunc
	serving    bool          // the socket at path is this one
	handed     bool          // the socket at path is another process's
	end        time.Duration // controlEnd

	mu                     sync.Mutex
	streams, readerStreams int
}

// listenControl listens on a socket beside path; serve puts it there. A socket that a
// dead process left will be replaced; one that answers is an error, unless its process
// is being taken over.
func (a *Appliance) listenControl(cfg *config.Config, down func(), takeover bool) (*control, error) {
	path := cfg.Control
	groups, err := controlGroups(cfg)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket == 0 {
		return nil, fmt.Errorf("control socket %s: a file that is no socket is in the way", path)
	}
	if !takeover {
		if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
			_ = conn.Close()
			return nil, fmt.Errorf("control socket %s: another process answers on it", path)
		}
	}
	beside := besideControl(path)
	if err := os.Remove(beside); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: beside, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l.SetUnlinkOnClose(false) // it is somewhere else then
	if err := groups.open(beside); err != nil {
		_ = l.Close()
		_ = os.Remove(beside)
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return newControl(path, l, groups, a.routes(down)), nil
}

// newControl answers what comes by l, once it serves.
func newControl(path string, l net.Listener, groups allowedGroups, routes []route) *control {
	limited := limitConns(l, controlConns)
	c := &control{path: path, listener: limited, allowed: groups, end: controlEnd}
	c.streaming, c.endStreams = context.WithCancel(context.Background())
	c.server = &http.Server{
		Handler: c.handler(routes), ConnContext: withPeer, ConnState: limited.state,
		ReadTimeout: controlTime, WriteTimeout: controlTime, MaxHeaderBytes: controlHeader,
	}
	return c
}

// besideControl is where a socket waits for its turn. No verb looks there.
func besideControl(path string) string { return path + "~" }

// serve puts the socket in its place, at once, and answers.
func (c *control) serve() error {
	if err := os.Rename(besideControl(c.path), c.path); err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	c.serving = true
	go func() { _ = c.server.Serve(c.listener) }()
	return nil
}

// close ends requests and removes the socket.
func (c *control) close() {
	c.endStreams()
	switch {
	case !c.serving:
		_ = os.Remove(besideControl(c.path))
		_ = c.listener.Close()
	case !c.handed:
		_ = os.Remove(c.path)
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.end)
	defer cancel()
	if c.server.Shutdown(ctx) != nil {
		_ = c.server.Close()
	}
}

// limitedListener has at most cap(room) connections open. Whoever serves them calls
// state with what becomes of each.
type limitedListener struct {
	net.Listener
	room  chan struct{}
	ended chan struct{}
	once  sync.Once
}

func limitConns(l net.Listener, most int) *limitedListener {
	return &limitedListener{Listener: l, room: make(chan struct{}, most), ended: make(chan struct{})}
}

func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.room <- struct{}{}:
	case <-l.ended:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.room
	}
	return conn, err
}

func (l *limitedListener) state(_ net.Conn, s http.ConnState) {
	if s == http.StateClosed || s == http.StateHijacked {
		<-l.room
	}
}

func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.ended) })
	return l.Listener.Close()
}
