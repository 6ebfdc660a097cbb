package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"bitw/appliance"
	"bitw/netstack/pcapng"
)

// A stream is read to its end, whoever ends it.
func TestR50_ClientStream(t *testing.T) {
	path, ended := box(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := New(path)
	var e *appliance.ControlError
	if _, err := c.Capture(ctx, appliance.CaptureRequest{Filter: "prot 6"}); !errors.As(err, &e) || e.Code != appliance.CodeBadRequest {
		t.Errorf("bad filter: %v", err)
	}
	first, err := c.Capture(ctx, appliance.CaptureRequest{})
	if err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 4)
	if _, err := io.ReadFull(first, head); err != nil || !bytes.Equal(head, []byte("\n\r\r\n")) {
		t.Errorf("it begins with %q, %v", head, err)
	}
	if err := first.End(); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(first)
	if err != nil {
		t.Errorf("ended by the client: %v", err)
	}
	counts := 0
	blocks := pcapng.NewBlocks(func(b pcapng.Block) error {
		if b.Type() == pcapng.Statistics {
			counts++
		}
		return nil
	})
	if _, err := blocks.Write(append(head, rest...)); err != nil || blocks.Close() != nil || counts != pcapng.Interfaces {
		t.Errorf("%v, %d counts", err, counts)
	}
	left, err := c.Capture(ctx, appliance.CaptureRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if err := left.Close(); err != nil {
		t.Error(err)
	}
	keys, err := c.KeyLog(ctx)
	if err != nil {
		t.Fatal(err)
	}
	last, err := c.Capture(ctx, appliance.CaptureRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Down(ctx); err != nil {
		t.Error(err)
	}
	for _, s := range []*Stream{keys, last} {
		if _, err := io.ReadAll(s); err != nil {
			t.Errorf("ended by the appliance: %v", err)
		}
		_ = s.Close()
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// An answer without its end was cut off.
func TestR50_ClientStreamCutOff(t *testing.T) {
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
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
	}()
	s, err := New(path).KeyLog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(s); string(b) != "half" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%q, %v", b, err)
	}
}
