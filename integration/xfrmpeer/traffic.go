package xfrmpeer

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"bitw/integration/netlab"
)

// TCPTo sends size octets by TCP from a lab's host to the guest, which listens
// at addr, an address and port of its own, and compares the SHA-256 sums.
func (p *Peer) TCPTo(ctx context.Context, from *netlab.Host, addr netip.AddrPort, size int64) error {
	fail := func(err error) error {
		return fmt.Errorf("xfrmpeer: TCP from %s to the guest: %w", from.Name(), err)
	}
	sum, cancel := p.background(ctx, fmt.Sprintf("set -o pipefail; socat -u %s STDOUT | sha256sum", socatListen(addr)))
	defer cancel()
	conn, err := p.dial(ctx, from, addr)
	if err != nil {
		return fail(err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	sent, err := netlab.Send(conn, uint64(size), size)
	if err == nil {
		err = conn.(*net.TCPConn).CloseWrite()
	}
	if err != nil {
		return fail(fmt.Errorf("%w (after %v)", err, sent))
	}
	got := <-sum
	if got.err != nil {
		return fail(got.err)
	}
	return compareSum(sent, got.out, fail)
}

// TCPFrom is TCPTo in the other direction of the data: the guest listens and
// sends, the host connects and receives.
func (p *Peer) TCPFrom(ctx context.Context, to *netlab.Host, addr netip.AddrPort, size int64) error {
	fail := func(err error) error {
		return fmt.Errorf("xfrmpeer: TCP from the guest to %s: %w", to.Name(), err)
	}
	if _, err := p.Sh(ctx, fmt.Sprintf("head -c %d /dev/urandom >/tmp/tcp-%d", size, addr.Port())); err != nil {
		return fail(err)
	}
	sum, cancel := p.background(ctx, fmt.Sprintf("sha256sum </tmp/tcp-%d; socat -u OPEN:/tmp/tcp-%d %s; s=$?; rm /tmp/tcp-%d; exit $s",
		addr.Port(), addr.Port(), socatListen(addr), addr.Port()))
	defer cancel()
	conn, err := p.dial(ctx, to, addr)
	if err != nil {
		return fail(err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	received, err := netlab.Receive(conn)
	if err != nil {
		return fail(fmt.Errorf("%w (after %v)", err, received))
	}
	if received.Size != size {
		return fail(fmt.Errorf("received %v, want %d octets", received, size))
	}
	conn.Close()
	got := <-sum
	if got.err != nil {
		return fail(got.err)
	}
	return compareSum(received, got.out, fail)
}

func socatListen(addr netip.AddrPort) string {
	if addr.Addr().Is6() {
		return fmt.Sprintf("TCP6-LISTEN:%d,bind=[%v],reuseaddr", addr.Port(), addr.Addr())
	}
	return fmt.Sprintf("TCP4-LISTEN:%d,bind=%v,reuseaddr", addr.Port(), addr.Addr())
}

type scriptEnd struct {
	out string
	err error
}

// background runs a script until it ends or is cancelled; cancelling waits.
func (p *Peer) background(ctx context.Context, script string) (<-chan scriptEnd, func()) {
	ctx, cancel := context.WithCancel(ctx)
	end := make(chan scriptEnd, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		out, err := p.Sh(ctx, script)
		end <- scriptEnd{out, err}
	}()
	return end, func() {
		cancel()
		<-done
	}
}

// dial connects once the guest listens. Trying sooner would be refused.
func (p *Peer) dial(ctx context.Context, from *netlab.Host, addr netip.AddrPort) (net.Conn, error) {
	wait := fmt.Sprintf("until ss -Htln sport = :%d | grep -q .; do sleep 0.05; done", addr.Port())
	waitCtx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if _, err := p.Sh(waitCtx, wait); err != nil {
		return nil, fmt.Errorf("the guest does not listen at %v: %w", addr, err)
	}
	return from.Dial(ctx, "tcp", addr.String())
}

// compareSum compares with the output of sha256sum.
func compareSum(have netlab.Digest, line string, fail func(error) error) error {
	word, _, _ := strings.Cut(line, " ")
	if word != hex.EncodeToString(have.Sum[:]) {
		return fail(fmt.Errorf("the host has %v, the guest's sum is %s", have, word))
	}
	return nil
}
