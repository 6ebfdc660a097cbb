package netlab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// PingOptions are the properties of a Ping.
type PingOptions struct {
	Count    int           // echo requests; 0 is 1
	Interval time.Duration // from request to request at least; 0: each waits for the last one's answer
	Size     int           // octets of data; 0 is 56
	Timeout  time.Duration // for an answer; 0 is 10 s
	// DontFragment has every request go whole or not at all. One that is
	// longer than the path's MTU, as far as that is known, is not sent and
	// counts in TooBig.
	DontFragment bool
}

// PingResult tells how the requests of a Ping fared.
type PingResult struct {
	Sent, Received int
	Lost           int
	Duplicates     int             // answers that came again
	TooBig         int             // requests that DontFragment kept back
	RTTs           []time.Duration // of each answer, in the order of arrival
}

func (r PingResult) String() string {
	return fmt.Sprintf("%d sent, %d received, %d lost, %d duplicates, %d too big", r.Sent, r.Received, r.Lost, r.Duplicates, r.TooBig)
}

// Ping sends echo requests from a host to an IPv4 or IPv6 address, with that
// kernel's own ICMP ("ping socket"), and compares the answers' data with what
// was sent. Lost requests are not an error, but a wrong answer is.
func Ping(ctx context.Context, host *Host, to netip.Addr, o PingOptions) (PingResult, error) {
	if o.Count == 0 {
		o.Count = 1
	}
	if o.Size == 0 {
		o.Size = 56
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	p := &pinger{o: o, to: to, sent: make(map[int]time.Time)}
	err := host.Do(func() (err error) { p.conn, err = pingSocket(to.Is6(), o.DontFragment); return err })
	if err == nil {
		defer p.conn.Close()
		stop := context.AfterFunc(ctx, func() { _ = p.conn.SetReadDeadline(time.Unix(1, 0)) })
		defer stop()
		p.data = make([]byte, o.Size)
		_, _ = io.ReadFull(NewPayload(uint64(o.Size)), p.data) // has no error
		err = p.run(ctx)
	}
	p.result.Lost = p.result.Sent - p.result.Received
	if err != nil {
		return p.result, fmt.Errorf("netlab: ping from %s to %v: %w", host.name, to, err)
	}
	return p.result, nil
}

// pingSocket opens an ICMP socket that needs no privilege: the kernel chooses
// the identifier and delivers the answers to it only.
func pingSocket(six, dontFragment bool) (net.PacketConn, error) {
	family, proto := unix.AF_INET, unix.IPPROTO_ICMP
	level, option, value := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO
	var any unix.Sockaddr = &unix.SockaddrInet4{}
	if six {
		family, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
		level, option, value = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO
		any = &unix.SockaddrInet6{}
	}
	if !dontFragment {
		value = unix.IP_PMTUDISC_DONT // the same number for IPv6
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return nil, fmt.Errorf("ping socket: %w", err)
	}
	file := os.NewFile(uintptr(fd), "ping")
	defer file.Close() // FilePacketConn has a descriptor of its own
	if err := unix.SetsockoptInt(fd, level, option, value); err != nil {
		return nil, fmt.Errorf("ping socket: %w", err)
	}
	// Who comes late on a busy machine finds all answers at once.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
	if err := unix.Bind(fd, any); err != nil {
		return nil, fmt.Errorf("ping socket: %w", err)
	}
	return net.FilePacketConn(file)
}

type pinger struct {
	o       PingOptions
	to      netip.Addr
	conn    net.PacketConn
	data    []byte
	sent    map[int]time.Time // by sequence number; zero once answered
	givenUp int               // requests that nothing waits for any more
	result  PingResult
}

// maxUnanswered is how many requests wait for their answers at a time: no queue on the way is
// to overflow because somebody does not get a processor for a while. The shortest holds 1000
// frames, and may have to hold those of four Pings and a connection.
const maxUnanswered = 128

func (p *pinger) run(ctx context.Context) error {
	for seq := range p.o.Count {
		if err := p.request(seq & 0xffff); err != nil {
			return err
		}
		most := 0
		if p.o.Interval > 0 {
			if err := p.collect(ctx, time.Now().Add(p.o.Interval), math.MinInt); err != nil {
				return err
			}
			most = maxUnanswered - 1
		}
		if err := p.collect(ctx, time.Now().Add(p.o.Timeout), most); err != nil {
			return err
		}
		if p.unanswered() > most {
			p.givenUp += p.unanswered()
		}
	}
	return p.collect(ctx, time.Now().Add(p.o.Timeout), 0)
}

// unanswered is how many requests wait for an answer.
func (p *pinger) unanswered() int { return p.result.Sent - p.result.Received - p.givenUp }

func (p *pinger) request(seq int) error {
	message := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{Seq: seq, Data: p.data}}
	if p.to.Is6() {
		message.Type = ipv6.ICMPTypeEchoRequest
	}
	packet, err := message.Marshal(nil)
	if err != nil {
		return err
	}
	p.sent[seq] = time.Now()
	_, err = p.conn.WriteTo(packet, net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.to, 0)))
	switch {
	case errors.Is(err, unix.EMSGSIZE) && p.o.DontFragment:
		p.sent[seq] = time.Time{}
		p.result.TooBig++
		return nil
	case unreachable(err):
		// The answer to an earlier request; this one counts as lost.
		err = nil
	}
	p.result.Sent++
	return err
}

// unreachable tells the errors that stand for an ICMP error about an earlier
// request, or for a neighbour that does not answer.
func unreachable(err error) bool {
	for _, e := range []error{unix.EHOSTUNREACH, unix.ENETUNREACH, unix.ECONNREFUSED, unix.EPROTO, unix.EACCES, unix.ENOPROTOOPT, unix.EMSGSIZE} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// collect takes answers until that time, or until no more than so many requests wait for one.
func (p *pinger) collect(ctx context.Context, until time.Time, most int) error {
	buffer := make([]byte, 1<<16)
	for p.unanswered() > most {
		if err := p.conn.SetReadDeadline(until); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil { // asked after the deadline is set, which the context's end does, too
			return err
		}
		n, _, err := p.conn.ReadFrom(buffer)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return ctx.Err()
		case unreachable(err):
			continue
		case err != nil:
			return err
		}
		if err := p.answer(buffer[:n]); err != nil {
			return err
		}
	}
	return nil
}

func (p *pinger) answer(packet []byte) error {
	proto := unix.IPPROTO_ICMP
	if p.to.Is6() {
		proto = unix.IPPROTO_ICMPV6
	}
	message, err := icmp.ParseMessage(proto, packet)
	if err != nil {
		return fmt.Errorf("the answer: %w", err)
	}
	echo, ok := message.Body.(*icmp.Echo)
	if !ok || (message.Type != ipv4.ICMPTypeEchoReply && message.Type != ipv6.ICMPTypeEchoReply) {
		return nil
	}
	when, ok := p.sent[echo.Seq]
	switch {
	case !ok:
		return fmt.Errorf("an answer to request %d, which was not sent", echo.Seq)
	case !bytes.Equal(echo.Data, p.data):
		return fmt.Errorf("the answer to request %d has other data than was sent", echo.Seq)
	case when.IsZero():
		p.result.Duplicates++
	default:
		p.sent[echo.Seq] = time.Time{}
		p.result.Received++
		p.result.RTTs = append(p.result.RTTs, time.Since(when))
	}
	return nil
}
