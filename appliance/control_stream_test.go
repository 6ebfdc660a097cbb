package appliance

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// streamed serves one route with that stream at a socket of its own.
func streamed(t *testing.T, within time.Duration, f func(*stream, *http.Request) error) *control {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", besideControl(path))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	c := newControl(path, l, allowedGroups{-1, -1}, []route{{pattern: "POST /v1/stream", needs: mayRead, body: 100, within: within, stream: f}})
	if err := c.serve(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

// A streamClient is the other end of a stream.
type streamClient struct {
	*net.UnixConn
	resp *http.Response
	body *bufio.Reader
}

func openStream(t *testing.T, c *control) *streamClient {
	t.Helper()
	conn, err := net.Dial("unix", c.path)
	if err != nil {
		t.Fatal(err)
	}
	return startStream(t, conn, "/v1/stream", "{}")
}

func startStream(t *testing.T, conn net.Conn, url, body string) *streamClient {
	t.Helper()
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: b\r\nContent-Length: %d\r\n\r\n%s", url, len(body), body)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return &streamClient{conn.(*net.UnixConn), resp, bufio.NewReader(resp.Body)}
}

func (s *streamClient) line(t *testing.T) string {
	t.Helper()
	line, err := s.body.ReadString('\n')
	if err != nil {
		t.Errorf("read %q, %v", line, err)
	}
	return strings.TrimSpace(line)
}

// farewell says hello, waits for the end of the stream, and says bye.
func farewell(ended chan<- error) func(*stream, *http.Request) error {
	return func(s *stream, r *http.Request) error {
		if _, err := requested[struct{}](r); err != nil {
			return err
		}
		if err := s.begin("application/x-ndjson"); err != nil {
			return err
		}
		_ = s.line("hello")
		<-s.Done()
		err := s.line("bye")
		ended <- err
		return err
	}
}

func TestR50_StreamEnds(t *testing.T) {
	for _, x := range []struct {
		name string
		end  func(*control, *streamClient)
		hear bool // the client gets the end
	}{
		{"the client says so", func(_ *control, s *streamClient) { _ = s.CloseWrite() }, true},
		{"the appliance closes", func(c *control, _ *streamClient) { c.close() }, true},
		{"the client leaves", func(_ *control, s *streamClient) { _ = s.Close() }, false},
	} {
		t.Run(x.name, func(t *testing.T) {
			ended := make(chan error, 1)
			c := streamed(t, 0, farewell(ended))
			c.end = time.Minute
			s := openStream(t, c)
			if got := s.line(t); got != `"hello"` || s.resp.Header.Get("Content-Type") != "application/x-ndjson" {
				t.Errorf("first %s, %v", got, s.resp.Header)
			}
			x.end(c, s)
			<-ended
			if !x.hear {
				return
			}
			if rest, err := io.ReadAll(s.body); string(rest) != "\"bye\"\n" || err != nil {
				t.Errorf("the end: %q, %v", rest, err)
			}
		})
	}
}

// A stream outlives the time of a request.
func TestR50_StreamLasts(t *testing.T) {
	const within = 5 * time.Second // for the request, too
	c := streamed(t, within, func(s *stream, _ *http.Request) error {
		if err := s.begin("text/plain"); err != nil {
			return err
		}
		time.Sleep(within + within/4)
		if s.ctx.Err() != nil {
			t.Error("it was ended")
		}
		_, err := s.Write([]byte("late\n"))
		return err
	})
	if got := openStream(t, c).line(t); got != "late" {
		t.Errorf("read %q", got)
	}
}

// A request that does not come to its end gets no stream, and no place among them.
func TestR50_StreamSlowRequest(t *testing.T) {
	c := streamed(t, 100*time.Millisecond, farewell(make(chan error, 1)))
	conn, err := net.Dial("unix", c.path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprint(conn, "POST /v1/stream HTTP/1.1\r\nHost: b\r\nContent-Length: 2\r\n\r\n{")
	if answer, err := io.ReadAll(conn); strings.HasPrefix(string(answer), "HTTP/1.1 200") || err != nil {
		t.Errorf("answered %q, %v", answer, err)
	}
	if c.streams != 0 {
		t.Errorf("%d streams", c.streams)
	}
}

// A client that does not read holds up its own stream alone, and not the end.
func TestR50_StreamNotRead(t *testing.T) {
	ended := make(chan error, 1)
	c := streamed(t, 0, func(s *stream, _ *http.Request) error {
		err := s.begin("text/plain")
		for err == nil {
			_, err = s.Write(make([]byte, 1<<16))
		}
		ended <- err
		return err
	})
	openStream(t, c)
	c.close()
	if err := <-ended; err == nil {
		t.Error("all was written")
	}
}

func TestR50_StreamErrors(t *testing.T) {
	fail := errors.New("the disk is full")
	c := streamed(t, 0, func(*stream, *http.Request) error { return badRequest("no such filter") })
	s := openStream(t, c)
	var e ControlError
	if err := json.NewDecoder(s.body).Decode(&e); err != nil || s.resp.StatusCode != 400 || e.Message != "no such filter" {
		t.Errorf("before it begins: %d %+v, %v", s.resp.StatusCode, e, err)
	}
	c = streamed(t, 0, func(s *stream, _ *http.Request) error {
		if err := s.begin("text/plain"); err != nil {
			return err
		}
		_, _ = s.Write([]byte("half"))
		return fail
	})
	s = openStream(t, c)
	if text, err := io.ReadAll(s.body); string(text) != "half" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("after it has begun: %q, %v", text, err)
	}
}

func TestR50_StreamsAreBounded(t *testing.T) {
	ended := make(chan error, controlStreams)
	c := streamed(t, 0, farewell(ended))
	var open []*streamClient
	for range controlStreams {
		s := openStream(t, c)
		s.line(t)
		open = append(open, s)
	}
	busy := openStream(t, c)
	var e ControlError
	if err := json.NewDecoder(busy.body).Decode(&e); err != nil || busy.resp.StatusCode != 503 || e.Code != CodeBusy {
		t.Errorf("one too many: %d %+v, %v", busy.resp.StatusCode, e, err)
	}
	_ = open[0].CloseWrite()
	if _, err := io.ReadAll(open[0].body); err != nil {
		t.Error(err)
	}
	deadline := time.Now().Add(time.Minute)
	for {
		if s := openStream(t, c); s.resp.StatusCode == 200 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("there is no room though one has ended")
		}
		time.Sleep(time.Millisecond)
	}
}

// Those who may only read leave room for others.
func TestR50_StreamsOfReaders(t *testing.T) {
	c := streamed(t, 0, farewell(make(chan error, controlStreams)))
	for range controlReaderStreams {
		if _, err := c.takeStream(true); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.takeStream(true); err == nil {
		t.Error("no bound for readers")
	}
	if s := openStream(t, c); s.resp.StatusCode != 200 {
		t.Errorf("one who may do everything was answered %d", s.resp.StatusCode)
	}
}
