package demo

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"
)

// stallTimeout is how long a transfer may stand still.
const stallTimeout = 5 * time.Second

// transfer moves a file of size octets by HTTP from l.from, which is the server,
// to l.to.
func transfer(ctx context.Context, l direction, seed byte, size int64) (int64, string, error) {
	server, err := serveHTTP(ctx, l, seed, size)
	if err != nil {
		return 0, "", err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	received, err := fetch(ctx, cancel, l)
	sent, served := server.close(err == nil)
	switch {
	case served != nil:
		return 0, "", served
	case err != nil:
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return 0, "", fmt.Errorf("after %d octets: %w", received.octets, err)
	case received != sent || sent.octets != size:
		return 0, "", fmt.Errorf("%d octets with SHA-256 %v were sent, %d octets with SHA-256 %v received",
			sent.octets, sent, received.octets, received)
	}
	return size, fmt.Sprintf("%s octets, SHA-256 %v at both ends", grouped(uint64(size)), received), nil
}

// fileServer serves one file once.
type fileServer struct {
	server *http.Server
	ended  chan struct{} // Serve has returned
	sent   chan sent     // of the one request
}

type sent struct {
	digest
	err error
}

func serveHTTP(ctx context.Context, l direction, seed byte, size int64) (*fileServer, error) {
	listener, err := l.from.ListenTCP(ctx, netip.AddrPortFrom(l.source, httpPort))
	if err != nil {
		return nil, err
	}
	f := &fileServer{ended: make(chan struct{}), sent: make(chan sent, 1)}
	f.server = &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := sent{}
		// What the server sees of its client must be the real address of the other host.
		if got, err := netip.ParseAddrPort(r.RemoteAddr); err != nil || got.Addr() != l.target {
			out.err = fmt.Errorf("the server sees %s as client, expected %v", r.RemoteAddr, l.target)
		} else {
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
			h := sha256.New()
			n, _ := io.Copy(io.MultiWriter(w, h), io.LimitReader(newContent(seed), size))
			out.digest = digestOf(n, h) // if that is short, the client tells why
		}
		select {
		case f.sent <- out:
		default: // a second request; the first one counts
		}
	})}
	f.server.SetKeepAlivesEnabled(false)
	go func() {
		defer close(f.ended)
		_ = f.server.Serve(listener) // until close
	}()
	return f, nil
}

// close ends the server and tells what it has sent. whole says that the client
// has all of it, so that the server is sure to be at its end.
func (f *fileServer) close(whole bool) (digest, error) {
	if whole {
		s := <-f.sent
		f.sent <- s // there is room again
	}
	_ = f.server.Close()
	<-f.ended
	select {
	case s := <-f.sent:
		return s.digest, s.err
	default:
		return digest{}, nil // never asked
	}
}

// fetch is the client, which gives up by cancel when the transfer stands still.
func fetch(ctx context.Context, cancel context.CancelCauseFunc, l direction) (digest, error) {
	server := netip.AddrPortFrom(l.source, httpPort)
	transport := &http.Transport{
		DisableCompression: true, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return l.to.DialTCP(ctx, server) },
	}
	defer transport.CloseIdleConnections()
	stalled := time.AfterFunc(stallTimeout, func() {
		cancel(fmt.Errorf("nothing came for %v", stallTimeout))
	})
	defer stalled.Stop()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+server.String()+"/file", nil)
	if err != nil {
		return digest{}, err
	}
	request.Header.Set("X-Marker", marker)
	response, err := transport.RoundTrip(request)
	if err != nil {
		return digest{}, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return digest{}, errors.New("status " + response.Status)
	}
	h := sha256.New()
	n, err := io.Copy(h, &progress{response.Body, stalled})
	return digestOf(n, h), err
}

// progress puts a timer off whenever something was read.
type progress struct {
	io.Reader
	stalled *time.Timer
}

func (p *progress) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	if n > 0 {
		p.stalled.Reset(stallTimeout)
	}
	return n, err
}
