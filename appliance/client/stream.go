package client

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync/atomic"
)

// A Stream is an answer that goes on. Its end is io.EOF; io.ErrUnexpectedEOF says that it
// was cut off, as by an appliance that died.
type Stream struct {
	body io.ReadCloser
	conn *net.UnixConn
}

// Read implements io.Reader. It waits until there is something.
func (s *Stream) Read(b []byte) (int, error) { return s.body.Read(b) }

// End asks for the end of the stream, which is then to be read up to io.EOF: what the
// appliance still has to say comes before it. It may be called while another goroutine reads.
func (s *Stream) End() error { return s.conn.CloseWrite() }

// Close leaves the stream at once.
func (s *Stream) Close() error { return s.body.Close() }

// stream sends a request whose answer is a stream, which ctx cuts off. The errors are those
// of do.
func (c *Client) stream(ctx context.Context, method, path string, in any) (*Stream, error) {
	var conn atomic.Pointer[net.UnixConn]
	own := &Client{path: c.path, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			dialed, err := c.dial(ctx)
			if err == nil {
				conn.Store(dialed)
				return dialed, nil
			}
			return nil, err
		},
		DisableKeepAlives: true, DisableCompression: true, ResponseHeaderTimeout: answerTime,
	}}}
	resp, err := own.do(ctx, method, path, in)
	if err != nil {
		return nil, err
	}
	return &Stream{resp.Body, conn.Load()}, nil
}

func (c *Client) dial(ctx context.Context) (*net.UnixConn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", c.path)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}
