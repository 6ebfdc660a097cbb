package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"time"

	"bitw/appliance"
)

// Bounds of an answer that is not a stream.
const (
	answerTime = 10 * time.Second
	applyTime  = 70 * time.Second // somewhat more than the appliance takes at most
	answerSize = 1 << 26          // octets
)

// A Client asks a running appliance by its control socket. Several goroutines may use it.
type Client struct {
	path string
	http *http.Client
}

// New returns a client for the socket with that path. Nothing is opened yet.
func New(path string) *Client {
	c := &Client{path: path}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) }
	c.http = &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	return c
}

// Status asks for the appliance's status.
func (c *Client) Status(ctx context.Context) (*appliance.Status, error) {
	var s appliance.Status
	if err := c.call(ctx, http.MethodGet, "/v1/status", nil, &s); err != nil {
		return nil, err
	}
	return &s, nil
}

// Down asks the appliance to stop, and waits until it has, or ctx ends.
func (c *Client) Down(ctx context.Context) error {
	if err := c.call(ctx, http.MethodPost, "/v1/down", nil, nil); err != nil {
		return err
	}
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

// SetTaps asks the appliance to set the states of its taps. The error matches
// appliance.ErrClear or appliance.ErrNoTaps where Appliance.SetTaps's would.
func (c *Client) SetTaps(ctx context.Context, r appliance.TapRequest) (appliance.Taps, error) {
	var t appliance.Taps
	err := c.call(ctx, http.MethodPost, "/v1/tap", r, &t)
	return t, err
}

// Keys asks for the states of all keys, and for their values if show.
func (c *Client) Keys(ctx context.Context, show bool) ([]appliance.KeyStatus, error) {
	var list appliance.KeyList
	method, path := http.MethodGet, "/v1/keys"
	if show {
		method, path = http.MethodPost, "/v1/keys/values"
	}
	err := c.call(ctx, method, path, nil, &list)
	return list.Keys, err
}

// ChangeKey asks the appliance to set, invalidate or clear a key. The error matches
// appliance.ErrKey where Appliance.ChangeKey's would.
func (c *Client) ChangeKey(ctx context.Context, r appliance.KeyRequest) error {
	return c.call(ctx, http.MethodPost, "/v1/keys", r, nil)
}

// TraceLevels asks for the trace levels of all nodes.
func (c *Client) TraceLevels(ctx context.Context) ([]appliance.TraceLevel, error) {
	var list appliance.TraceLevelList
	err := c.call(ctx, http.MethodGet, "/v1/trace-levels", nil, &list)
	return list.Nodes, err
}

// SetTraceLevel asks the appliance to set the trace level of a node.
func (c *Client) SetTraceLevel(ctx context.Context, node, level string) error {
	return c.call(ctx, http.MethodPost, "/v1/trace-levels", appliance.TraceLevel{Node: node, Level: level}, nil)
}

// call sends in as JSON, if it is not nil, and reads the answer into out, if that is
// not nil.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	return c.callWithin(ctx, answerTime, method, path, in, out)
}

func (c *Client) callWithin(ctx context.Context, limit time.Duration, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	resp, err := c.do(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, answerSize+1))
	switch {
	case err != nil:
		return fmt.Errorf("control socket %s: %s %s: %w", c.path, method, path, err)
	case len(text) > answerSize:
		return fmt.Errorf("control socket %s: %s %s: the answer has more than %d octets", c.path, method, path, answerSize)
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("control socket %s: %s %s: not the answer that was expected, is it of another version? %w", c.path, method, path, err)
	}
	return nil
}

// do sends a request. The answer is one of success, its body the caller's to close and
// to bound; the error is an *appliance.ControlError if the appliance said no.
func (c *Client) do(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://bitw"+path, body)
	if err != nil {
		return nil, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("nothing runs at control socket %s: %w", c.path, fs.ErrNotExist)
		}
		return nil, fmt.Errorf("control socket %s: %w", c.path, errors.Unwrap(err))
	}
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close()
		return nil, refusal(resp)
	}
	return resp, nil
}

// refusal is the error that an answer tells of.
func refusal(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<14))
	e := &appliance.ControlError{Status: resp.StatusCode}
	if err := json.Unmarshal(text, e); err != nil || e.Message == "" {
		e.Code, e.Message = appliance.CodeFailed, strings.TrimSpace("the running bitw answered "+resp.Status+" "+string(text))
		if resp.StatusCode == http.StatusNotFound {
			e.Code, e.Message = appliance.CodeNotFound, "the running bitw is of another version and does not know the request"
		}
	}
	return e
}
