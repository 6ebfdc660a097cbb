package client

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bitw/appliance"
	"bitw/config"
	"bitw/netstack/link"
)

// box starts an appliance between two links that lead nowhere.
func box(t *testing.T) (path string, ended chan error) {
	t.Helper()
	_, left := link.Pipe(link.PipeOptions{})
	right, _ := link.Pipe(link.PipeOptions{})
	path = filepath.Join(t.TempDir(), "s")
	a, err := appliance.New(config.Config{Control: path}, appliance.WithLinks(left, right, appliance.Host{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}}))
	if err != nil {
		t.Fatal(err)
	}
	ended = make(chan error, 1)
	go func() { ended <- a.Run(context.Background()) }()
	t.Cleanup(func() { _ = a.Close() })
	select {
	case <-a.Ready():
	case err := <-ended:
		t.Fatal(err)
	}
	return path, ended
}

func TestR50_Client(t *testing.T) {
	path, ended := box(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c := New(path)
	s, err := c.Status(ctx)
	if err != nil || s.State != "active" || s.Cut != "links" {
		t.Errorf("status %+v, %v", s, err)
	}
	_, err = c.SetTaps(ctx, appliance.TapRequest{Kernel: "closed"})
	var e *appliance.ControlError
	if !errors.Is(err, appliance.ErrNoTaps) || errors.Is(err, appliance.ErrClear) || !errors.As(err, &e) || e.Status != http.StatusConflict {
		t.Errorf("taps: %v", err)
	}
	if err := c.Down(ctx); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := c.Status(ctx); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "nothing runs") {
		t.Errorf("of nobody: %v", err)
	}
}

// Streams are read to their end, or refused with what is wrong.
func TestR50_ClientStreams(t *testing.T) {
	path, _ := box(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c := New(path)
	var e *appliance.ControlError
	for _, r := range []appliance.TraceRequest{{Filter: "tpc"}, {Count: -1}, {Seconds: 1e9}} {
		if _, err := c.Trace(ctx, r); !errors.As(err, &e) || e.Code != appliance.CodeBadRequest {
			t.Errorf("%+v: %v", r, err)
		}
	}
	if _, err := c.Events(ctx, appliance.EventsRequest{Last: -1}); !errors.As(err, &e) || e.Code != appliance.CodeBadRequest {
		t.Errorf("events before the first: %v", err)
	}
	x, err := c.Trace(ctx, appliance.TraceRequest{Filter: "tcp"})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if err := x.End(); err != nil {
		t.Error(err)
	}
	if line, err := x.Next(); err != nil || line.TracedPacket != nil || line.End == nil || *line.End != (appliance.TraceEnd{}) {
		t.Errorf("the end of nothing: %+v, %v", line, err)
	}
	if _, err := x.Next(); err != io.EOF {
		t.Errorf("behind the end: %v", err)
	}
	events, err := c.Events(ctx, appliance.EventsRequest{Last: appliance.KeptEvents, Once: true})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	last := uint64(0)
	kinds := make(map[appliance.EventKind]int)
	for {
		ev, err := events.Next()
		if err == io.EOF {
			break
		} else if err != nil || ev.Number != last+1 {
			t.Fatalf("%+v after %d, %v", ev, last, err)
		}
		last = ev.Number
		kinds[ev.Kind]++
	}
	if kinds[appliance.TraceStarted] != 1 || kinds[appliance.TraceStopped] != 1 || kinds[appliance.StateChanged] < 3 {
		t.Errorf("events %v", kinds)
	}
}

// What answers need not be a bitw, or not one of this version.
func TestR50_ClientStrangeAnswers(t *testing.T) {
	for name, x := range map[string]struct{ answer, says string }{
		"no HTTP":      {"SSH-2.0-x\r\n", "malformed HTTP"},
		"nothing":      {"", "EOF"},
		"no JSON":      {"HTTP/1.1 200 OK\r\n\r\nhello", "not the answer"},
		"other JSON":   {"HTTP/1.1 200 OK\r\n\r\n[1]", "not the answer"},
		"cut short":    {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "unexpected EOF"},
		"another":      {"HTTP/1.1 404 Not Found\r\n\r\n404 page not found", "another version"},
		"text":         {"HTTP/1.1 500 No\r\n\r\nbroken", "500 No broken"},
		"half a no":    {"HTTP/1.1 403 Forbidden\r\n\r\n{}", "403"},
		"a proper one": {"HTTP/1.1 403 Forbidden\r\n\r\n{\"code\":\"forbidden\",\"error\":\"you may not\"}", "you may not"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				_, _ = conn.Read(make([]byte, 4096))
				_, _ = io.WriteString(conn, x.answer)
			}()
			if _, err := New(path).Status(t.Context()); err == nil || !strings.Contains(err.Error(), x.says) {
				t.Errorf("error %v, expected one that says %q", err, x.says)
			}
		})
	}
}
