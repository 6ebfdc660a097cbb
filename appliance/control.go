package appliance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// The control socket speaks HTTP over a UNIX socket, readable and writable by
// its owner only:
//
//	GET  /v1/status   200, a Status as JSON
//	POST /v1/down     202, and the socket closes once the appliance is down
//	POST /v1/takeover 101, and the connection speaks as told at TakeoverVersion
//	POST /v1/tap      a TapRequest as JSON; 200, Taps as JSON, or the error as text

// control is the server's end.
type control struct {
	path     string
	listener net.Listener
	server   *http.Server
	serving  bool // the socket at path is this one
	handed   bool // the socket at path is another process's
}

// listenControl listens on a socket beside path; serve puts it there. A socket that a
// dead process left will be replaced; one that answers is an error, unless its process
// is being taken over.
func (a *Appliance) listenControl(path string, down func(), takeover bool) (*control, error) {
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
	if err := os.Chmod(beside, 0o600); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(a.Status())
	})
	mux.HandleFunc("POST /v1/down", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		down()
	})
	mux.HandleFunc("POST /v1/tap", a.serveTap)
	mux.HandleFunc("POST /v1/takeover", a.serveTakeover)
	return &control{path: path, listener: l, server: &http.Server{
		Handler: mux, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second,
		MaxHeaderBytes: 1 << 14,
	}}, nil
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
	switch {
	case !c.serving:
		_ = os.Remove(besideControl(c.path))
		_ = c.listener.Close()
	case !c.handed:
		_ = os.Remove(c.path)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if c.server.Shutdown(ctx) != nil {
		_ = c.server.Close()
	}
}

// A Client asks a running appliance by its control socket.
type Client struct {
	path string
	http *http.Client
}

// NewClient returns a client for the socket with that path. Nothing is opened yet.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
	return &Client{path: path, http: &http.Client{
		Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true},
		Timeout:   10 * time.Second,
	}}
}

// Status asks for the appliance's status.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	resp, err := c.do(ctx, http.MethodGet, "/v1/status", http.StatusOK)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var s Status
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return nil, fmt.Errorf("control socket %s: not a status: %w", c.path, err)
	}
	return &s, nil
}

// Down asks the appliance to stop, and waits until it has, or ctx ends.
func (c *Client) Down(ctx context.Context) error {
	resp, err := c.do(ctx, http.MethodPost, "/v1/down", http.StatusAccepted)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := net.Dial("unix", c.path)
		if err != nil {
			return nil
		}
		_ = conn.Close()
		select {
		case <-ctx.Done():
			return fmt.Errorf("control socket %s: still up: %w", c.path, ctx.Err())
		case <-tick.C:
		}
	}
}

func (c *Client) do(ctx context.Context, method, path string, want int) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://bitw"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("nothing runs at control socket %s", c.path)
		}
		return nil, fmt.Errorf("control socket %s: %w", c.path, errors.Unwrap(err))
	}
	if resp.StatusCode != want {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("control socket %s: %s %s answered %s", c.path, method, path, resp.Status)
	}
	return resp, nil
}
