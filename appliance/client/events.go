package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"bitw/appliance"
)

// Lines is an answer that goes on, with an object in each line.
type Lines[T any] struct {
	*Stream
	decoder *json.Decoder
}

// Next returns the next object, and waits for it. The error is io.EOF at the end.
func (l *Lines[T]) Next() (v T, err error) {
	if err = l.decoder.Decode(&v); err == nil || err == io.EOF {
		return v, err
	}
	return v, fmt.Errorf("the running bitw: %w", err)
}

// lines sends a request whose answer is Lines.
func lines[T any](ctx context.Context, c *Client, method, path string, in any) (*Lines[T], error) {
	s, err := c.stream(ctx, method, path, in)
	if err != nil {
		return nil, err
	}
	return &Lines[T]{s, json.NewDecoder(s)}, nil
}

// Events asks for what has happened and happens from now on; see appliance.Event. Whoever
// reads too slowly is told how many events are missing.
func (c *Client) Events(ctx context.Context, q appliance.EventsRequest) (*Lines[appliance.Event], error) {
	path := "/v1/events"
	if query := q.Query(); query != "" {
		path += "?" + query
	}
	return lines[appliance.Event](ctx, c, http.MethodGet, path, nil)
}

// Trace asks for packets and what each meets in the box; see appliance.Appliance.Trace. The
// last line is the end.
func (c *Client) Trace(ctx context.Context, r appliance.TraceRequest) (*Lines[appliance.TraceLine], error) {
	return lines[appliance.TraceLine](ctx, c, http.MethodPost, "/v1/trace", r)
}
