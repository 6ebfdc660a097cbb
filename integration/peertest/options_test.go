package peertest_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bitw/config"
	"bitw/integration/netlab"
)

// withOptions has a socket send what routers look at, or only the destination: IPv4
// record route, which they change, and router alert, which they do not; IPv6 hop-by-hop
// and destination options.
func withOptions(conn net.Conn, version int) error {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return errors.New("the connection is no socket")
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		if version == 4 {
			failed = unix.SetsockoptString(int(fd), unix.IPPROTO_IP, unix.IP_OPTIONS, "\x07\x07\x04\x00\x00\x00\x00\x01\x94\x04\x00\x00")
			return
		}
		failed = errors.Join(
			unix.SetsockoptString(int(fd), unix.IPPROTO_IPV6, unix.IPV6_HOPOPTS, "\x00\x00\x05\x02\x00\x00\x01\x00"),
			unix.SetsockoptString(int(fd), unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS, "\x00\x00\x01\x04\x00\x00\x00\x00"))
	})
	return errors.Join(err, failed)
}

// echoOptions is echo of one datagram with options, or with extension headers.
func echoOptions(ctx context.Context, conn net.Conn, version int) error {
	if err := withOptions(conn, version); err != nil {
		return fmt.Errorf("options of IPv%d: %w", version, err)
	}
	datagram, answer := text(333), make([]byte, 1<<16)
	for again := 0; ; again++ {
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		n := 0
		_, err := conn.Write(datagram)
		if err == nil {
			n, err = conn.Read(answer)
		}
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && again < 2 && ctx.Err() == nil: // see withoutLoss
		case err != nil:
			return fmt.Errorf("with options: %w", err)
		case !bytes.Equal(answer[:n], datagram):
			return fmt.Errorf("with options the answer is %d other octets", n)
		default:
			return nil
		}
	}
}

// judgeHeaders looks at the outer headers that the appliance made for a tunnel (RFC 4301
// §5.1.2).
func (e ends) judgeHeaders(frames []netlab.Frame) error {
	if e.mode != config.Tunnel {
		return nil
	}
	ttl, dscp := e.headers.TTL, e.headers.DSCP[0] // what the host sends has DSCP 0
	if ttl == 0 {
		ttl = 64
	}
	seen := 0
	for _, f := range frames {
		if f.Port != "port-a" || len(f.Data) < 14+40 {
			continue
		}
		seen++
		ip := f.Data[14:]
		gotTTL, gotDSCP := ip[7], uint8(binary.BigEndian.Uint16(ip)>>6&0x3f)
		if e.outer == 4 {
			gotTTL, gotDSCP = ip[8], ip[1]>>2
			if e.headers.CopyDF == config.CopySet && ip[6]&0x40 == 0 {
				return fmt.Errorf("an outer header without DF: % x", ip[:20])
			}
			if ip[0] != 0x45 {
				return fmt.Errorf("an outer header with options: % x", ip[:20])
			}
		}
		if gotTTL != ttl || gotDSCP != dscp {
			return fmt.Errorf("an outer header with TTL %d and DSCP %d, want %d and %d", gotTTL, gotDSCP, ttl, dscp)
		}
	}
	if seen == 0 {
		return errors.New("no outer header was seen")
	}
	return nil
}
