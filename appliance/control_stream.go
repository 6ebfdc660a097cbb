package appliance

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

const (
	// controlStreams are the streams at a time, of which those who may only read have at
	// most controlReaderStreams, so that others can always have one.
	controlStreams       = 16
	controlReaderStreams = 8
	// streamRest is how long a stream that its client ends may take to say what it still
	// has to say.
	streamRest = 5 * time.Second
)

// A stream is an answer that goes on until the client ends it or the appliance does. The
// client ends it by closing the connection, or by shutting down its sending direction
// (shutdown(2), SHUT_WR), and then still gets the end of the answer.
//
// A client that does not read makes Write wait, so it is not for the packet path: a queue
// that counts what it has no room for stands between.
type stream struct {
	c      *control
	w      http.ResponseWriter
	rc     *http.ResponseController
	ctx    context.Context
	reader bool // the client may only read
	begun  bool
	free   func()
}

// begin says yes: the request's bounds end and the head of the answer goes out. Before it
// an error is the answer, after it the answer is cut off by one, which the client notices.
// The error is that there are too many streams.
func (s *stream) begin(contentType string) error {
	free, err := s.c.takeStream(s.reader)
	if err != nil {
		return err
	}
	s.begun = true
	_ = s.rc.SetReadDeadline(time.Time{})
	_ = s.rc.SetWriteDeadline(time.Time{})
	asked := s.ctx
	ctx, cancel := context.WithCancel(asked)
	s.ctx = ctx
	within := func(d time.Duration) { _ = s.rc.SetWriteDeadline(time.Now().Add(d)) }
	byClient := context.AfterFunc(asked, func() { within(streamRest) })
	byControl := context.AfterFunc(s.c.streaming, func() {
		within(s.c.end * 7 / 10) // connections are closed somewhat later
		cancel()
	})
	s.free = func() {
		byClient()
		byControl()
		cancel()
		free()
	}
	s.w.Header().Set("Content-Type", contentType)
	s.w.WriteHeader(http.StatusOK)
	_ = s.rc.Flush() // the client may have gone, which Done tells
	return nil
}

// Done is closed when the stream is to end; what is written soon after still arrives.
func (s *stream) Done() <-chan struct{} { return s.ctx.Done() }

// Write sends b at once.
func (s *stream) Write(b []byte) (int, error) {
	n, err := s.w.Write(b)
	if err != nil {
		return n, err
	}
	return n, s.rc.Flush()
}

// line sends v as a line of JSON.
func (s *stream) line(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = s.Write(append(text, '\n'))
	return err
}

// streamTo has f answer by a stream.
func (c *control) streamTo(w http.ResponseWriter, r *http.Request, has access, f func(*stream, *http.Request) error) error {
	s := &stream{c: c, w: w, rc: http.NewResponseController(w), ctx: r.Context(), reader: has == mayRead, free: func() {}}
	defer func() { s.free() }()
	err := f(s, r)
	if err != nil && s.begun {
		panic(http.ErrAbortHandler) // the answer lacks its end, and the connection is closed
	}
	return err
}

// takeStream counts one stream more, if there may be one, until free is called.
func (c *control) takeStream(reader bool) (free func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	readers := 0
	if reader {
		readers = 1
	}
	if c.streams == controlStreams || reader && c.readerStreams == controlReaderStreams {
		return nil, &ControlError{Status: http.StatusServiceUnavailable, Code: CodeBusy, Message: fmt.Sprintf(
			"%d captures, traces and the like go on already, %d of them of those who may only read, of at most %d and %d; end one", c.streams, c.readerStreams, controlStreams, controlReaderStreams)}
	}
	c.streams++
	c.readerStreams += readers
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.streams--
		c.readerStreams -= readers
	}, nil
}
