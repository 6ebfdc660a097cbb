package netlab

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"
)

// HTTPTransfer moves size octets by HTTP: to asks the server that from runs at
// addr, one of from's addresses, on a port of the kernel's choice. It returns
// what was received, after it has been found to be what was sent. A context
// with a deadline bounds it.
func HTTPTransfer(ctx context.Context, from, to *Host, addr netip.Addr, size int64) (Digest, error) {
	return HTTPTransferPort(ctx, from, to, netip.AddrPortFrom(addr, 0), size)
}

// HTTPTransferPort is HTTPTransfer with the server's port given.
func HTTPTransferPort(ctx context.Context, from, to *Host, addr netip.AddrPort, size int64) (Digest, error) {
	listener, err := from.Listen(ctx, "tcp", addr.String())
	if err != nil {
		return Digest{}, err
	}
	type outcome struct {
		digest Digest
		err    error
	}
	served := make(chan outcome, 1)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		w.Header().Set("X-Marker", Marker)
		digest, err := Send(w, uint64(size), size)
		select {
		case served <- outcome{digest, err}:
		default:
		}
	})}
	go func() { _ = server.Serve(listener) }()
	defer server.Close()

	transport := &http.Transport{DialContext: to.Dial, DisableCompression: true}
	defer transport.CloseIdleConnections()
	received, err := func() (Digest, error) {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+listener.Addr().String()+"/file", nil)
		if err != nil {
			return Digest{}, err
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			return Digest{}, err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return Digest{}, fmt.Errorf("status %s", response.Status)
		}
		return Receive(response.Body)
	}()
	if err != nil {
		return received, fmt.Errorf("netlab: HTTP from %s to %s: %w", from.name, to.name, err)
	}
	sent := <-served
	if err := compare(sent.digest, received, sent.err, nil); err != nil {
		return received, fmt.Errorf("netlab: HTTP from %s to %s: %w", from.name, to.name, err)
	}
	return received, nil
}

// TCPBulk moves size octets over one TCP connection that from opens to a port
// of the kernel's choice at addr, an address of to's: the data goes with the
// direction of the connection, unlike HTTPTransfer's.
func TCPBulk(ctx context.Context, from, to *Host, addr netip.Addr, size int64) (Digest, error) {
	return TCPBulkPort(ctx, from, to, netip.AddrPortFrom(addr, 0), size)
}

// TCPBulkPort is TCPBulk with the port given.
func TCPBulkPort(ctx context.Context, from, to *Host, addr netip.AddrPort, size int64) (Digest, error) {
	listener, err := to.Listen(ctx, "tcp", addr.String())
	if err != nil {
		return Digest{}, err
	}
	defer listener.Close()
	var received Digest
	receiveErr := make(chan error, 1)
	go func() {
		conn, err := listener.Accept()
		if err == nil {
			stop := closeWith(ctx, conn)
			received, err = Receive(conn)
			stop()
		}
		receiveErr <- err
	}()
	sent, sendErr := func() (Digest, error) {
		conn, err := from.Dial(ctx, "tcp", listener.Addr().String())
		if err != nil {
			listener.Close()
			return Digest{}, err
		}
		defer closeWith(ctx, conn)()
		digest, err := Send(conn, uint64(size), size)
		if err != nil {
			return digest, err
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			return digest, err
		}
		// The receiver closes once it has everything.
		_, err = io.Copy(io.Discard, conn)
		return digest, err
	}()
	if err := compare(sent, received, sendErr, <-receiveErr); err != nil {
		return received, fmt.Errorf("netlab: TCP from %s to %s: %w", from.name, to.name, err)
	}
	return received, nil
}

// closeWith closes the connection when the context ends or the returned
// function is called.
func closeWith(ctx context.Context, conn net.Conn) func() {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return func() {
		stop()
		_ = conn.Close()
	}
}
