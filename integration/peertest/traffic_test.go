package peertest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bitw/config"
	"bitw/integration/netlab"
)

const pings = 20

// withoutLoss runs a round of pings until one comes back whole, three times at most.
// User-Mode Linux now and then leaves a frame lying until the next one comes, and
// answers too late; an SA that loses packets loses some in every round.
func withoutLoss(round func() error) (err error) {
	for range 3 {
		if err = round(); err == nil {
			return nil
		}
	}
	return err
}

// pingThere pings from the host.
func (b *bed) pingThere(ctx context.Context, e ends) error {
	return withoutLoss(func() error {
		r, err := netlab.Ping(ctx, b.host, e.peerAddr(e.inner), netlab.PingOptions{Count: pings})
		if err == nil && (r.Received != pings || r.Duplicates != 0) {
			err = errors.New(r.String())
		}
		return err
	})
}

// pingBack pings from the guest.
func (b *bed) pingBack(ctx context.Context, e ends) error {
	return withoutLoss(func() error {
		out, err := b.peer.Sh(ctx, fmt.Sprintf("ping -n -c%d -i0.01 -W10 -I %v %v", pings, e.peerAddr(e.inner), hostAddr(e.inner)))
		if err == nil && !strings.Contains(out, fmt.Sprintf(" %d received", pings)) {
			err = errors.New(strings.TrimSpace(out))
		}
		return err
	})
}

// datagrams are the octets of UDP payload: the last ones go in fragments.
var datagrams = []int{1, 100, 1400, 3000, 20000}

// echo sends each size to the guest's echo server and compares what comes back; in the
// end with options or extension headers.
// A datagram that is told to be too big for the path is sent once more, as every
// user of UDP must: path MTU discovery costs one.
func (b *bed) echo(ctx context.Context, e ends) error {
	dial := func() (net.Conn, error) {
		return b.host.Dial(ctx, "udp", netip.AddrPortFrom(e.peerAddr(e.inner), echoPort).String())
	}
	conn, err := dial()
	if err != nil {
		return err
	}
	defer func() { conn.Close() }()
	answer := make([]byte, 1<<16)
	for _, size := range datagrams {
		datagram := make([]byte, size)
		_, _ = io.ReadFull(netlab.NewPayload(uint64(size)), datagram) // has no error
		for again := range 3 {
			if err := ctx.Err(); err != nil {
				return err
			}
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			n := 0
			if _, err = conn.Write(datagram); err == nil {
				n, err = conn.Read(answer)
			}
			if errors.Is(err, unix.EMSGSIZE) && again < 2 {
				continue
			}
			if errors.Is(err, os.ErrDeadlineExceeded) && again < 2 {
				// See withoutLoss. A late answer goes to the socket that is closed.
				conn.Close()
				if conn, err = dial(); err != nil {
					return err
				}
				continue
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return fmt.Errorf("%d octets: no answer", size)
			}
			if err != nil {
				return fmt.Errorf("%d octets: %w", size, err)
			}
			if !bytes.Equal(answer[:n], datagram) {
				return fmt.Errorf("%d octets: the answer is %d others", size, n)
			}
			break
		}
	}
	if e.encap && e.mode == config.Transport && e.inner == 6 {
		// Linux 6.1 takes the extension headers without UDP; with it, it drops them and
		// counts XfrmInTmplMismatch. Which end is at fault is not known.
		return nil
	}
	return echoOptions(ctx, conn, e.inner) // the server knows the first socket only
}

const tcpPort = 7100

func (b *bed) tcpThere(ctx context.Context, e ends) error {
	return b.peer.TCPTo(ctx, b.host, netip.AddrPortFrom(e.peerAddr(e.inner), tcpPort), e.bulk)
}

func (b *bed) tcpBack(ctx context.Context, e ends) error {
	return b.peer.TCPFrom(ctx, b.host, netip.AddrPortFrom(e.peerAddr(e.inner), tcpPort+1), e.bulk)
}
