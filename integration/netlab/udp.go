package netlab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"
)

// UDPOptions are the properties of a UDPEcho.
type UDPOptions struct {
	Addr    netip.Addr    // the server's address, one of to's
	Port    uint16        // the server's port; 0 is the kernel's choice
	Sizes   []int         // of the datagrams, in octets without headers: 0 to 65,507 (IPv6: 65,527)
	Timeout time.Duration // for each answer; 0 is 10 s
}

// UDPResult tells how the datagrams of a UDPEcho fared.
type UDPResult struct {
	Sent, Received int
	Lost           []int // sizes for which no answer came in time
}

// UDPEcho sends datagrams of the given sizes from one host to an echo server at
// the other, one after the other, and compares each answer with what was sent.
// Datagrams that are longer than the MTU go in fragments. A lost datagram is
// not an error, but a wrong answer is.
func UDPEcho(ctx context.Context, from, to *Host, o UDPOptions) (UDPResult, error) {
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	fail := func(r UDPResult, err error) (UDPResult, error) {
		return r, fmt.Errorf("netlab: UDP from %s to %s: %w", from.name, to.name, err)
	}
	server, err := to.ListenPacket(ctx, "udp", netip.AddrPortFrom(o.Addr, o.Port).String())
	if err != nil {
		return UDPResult{}, err
	}
	defer server.Close()
	go func() {
		buffer := make([]byte, 1<<16)
		for {
			n, client, err := server.ReadFrom(buffer)
			if err != nil {
				return
			}
			// A failed answer is the client's to miss.
			_, _ = server.WriteTo(buffer[:n], client)
		}
	}()
	conn, err := from.Dial(ctx, "udp", server.LocalAddr().String())
	if err != nil {
		return UDPResult{}, err
	}
	defer closeWith(ctx, conn)()

	var result UDPResult
	answer := make([]byte, 1<<16)
	for i, size := range o.Sizes {
		datagram := make([]byte, size)
		_, _ = io.ReadFull(NewPayload(uint64(i)), datagram) // has no error
		if _, err := conn.Write(datagram); err != nil {
			return fail(result, fmt.Errorf("sending %d octets: %w", size, err))
		}
		result.Sent++
		deadline := time.Now().Add(o.Timeout)
		for {
			if err := ctx.Err(); err != nil {
				return fail(result, err)
			}
			if err := conn.SetReadDeadline(deadline); err != nil {
				return fail(result, err)
			}
			n, err := conn.Read(answer)
			var timeout interface{ Timeout() bool }
			if errors.As(err, &timeout) && timeout.Timeout() {
				result.Lost = append(result.Lost, size)
				break
			}
			if err != nil {
				return fail(result, fmt.Errorf("the answer to %d octets: %w", size, err))
			}
			if bytes.Equal(answer[:n], datagram) {
				result.Received++
				break
			}
			// What may come is the late answer to an earlier datagram.
			if !lateAnswer(answer[:n], o.Sizes[:i]) {
				return fail(result, fmt.Errorf("the answer to %d octets is %d other octets", size, n))
			}
		}
	}
	return result, nil
}

func lateAnswer(answer []byte, sizes []int) bool {
	for i, size := range sizes {
		if size != len(answer) {
			continue
		}
		datagram := make([]byte, size)
		_, _ = io.ReadFull(NewPayload(uint64(i)), datagram) // has no error
		if bytes.Equal(answer, datagram) {
			return true
		}
	}
	return false
}
