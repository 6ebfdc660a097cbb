package demo

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// Ports of the servers, on both hosts.
const (
	httpPort = 80
	udpPort  = 5000
)

// How long an answer is waited for, and how often a datagram is sent before it
// counts as lost. The first one that is too long for the protected path is always
// lost: it is answered by ICMP, and the host sends the next one in fragments.
const (
	answerTimeout = 400 * time.Millisecond
	datagramTries = 10
)

// pings are how many echo requests go each way.
const pings = 25

// pingSizes are octets of data, in turn.
func pingSizes() []int { return []int{56, 0, 600, 1300} }

// udpSizes are octets of datagrams without headers, each once: within a packet, too
// long for it only once they are protected, and in fragments. None is in IPv6 what
// the second is in IPv4, for the UDP of gVisor's hosts does not learn the path MTU;
// TCP does.
func udpSizes() []int { return []int{1, 2, 100, 1200, 1300, 1472, 1473, 4000, 20_000, 65_000} }

// A step is one kind of traffic in one direction. It returns the octets that
// arrived as they were sent, and what there is to tell of them.
type step struct {
	name string
	run  func(ctx context.Context) (octets int64, detail string, err error)
}

// steps are all traffic of the demo, size octets each way by HTTP. The kinds and
// families take turns, so that the bounded capture file has some of each.
func steps(n network, size int64) []step {
	var list []step
	add := func(what string, f family, from, to int, run func(context.Context, direction) (int64, string, error)) {
		l := direction{from: n.host(from), to: n.host(to), source: f.hosts[from].Addr(), target: f.hosts[to].Addr()}
		list = append(list, step{
			name: fmt.Sprintf("%s %s %s → %s", what, f.name, hostName(from), hostName(to)),
			run:  func(ctx context.Context) (int64, string, error) { return run(ctx, l) },
		})
	}
	directions := [][2]int{{a, b}, {b, a}}
	for _, f := range families() {
		for _, d := range directions {
			add("ping", f, d[0], d[1], ping)
		}
	}
	for _, f := range families() {
		for _, d := range directions {
			add("UDP", f, d[0], d[1], echoUDP)
		}
	}
	for turn := range directions {
		for i, f := range families() {
			d := directions[(turn+i)%2]
			half := size / 2
			if i == 1 {
				half = size - half
			}
			seed := byte(2*turn + i)
			add("HTTP", f, d[0], d[1], func(ctx context.Context, l direction) (int64, string, error) {
				return transfer(ctx, l, seed, half)
			})
		}
	}
	return list
}

// direction is one of the two between the hosts, in one family.
type direction struct {
	from, to       host
	source, target netip.Addr
}

// ping sends echo requests, one after the other, and compares the answers.
func ping(ctx context.Context, l direction) (octets int64, detail string, err error) {
	conn, err := l.from.DialPing(ctx, l.target)
	if err != nil {
		return 0, "", err
	}
	defer endWith(ctx, conn)()
	request, reply := byte(8), byte(0)
	if l.target.Is6() {
		request, reply = 128, 129
	}
	answer := make([]byte, 1<<16)
	sizes := pingSizes()
	for seq := range pings {
		data := contentOf(byte(seq), sizes[seq%len(sizes)])
		message := append([]byte{0: request, 7: 0}, data...)
		binary.BigEndian.PutUint16(message[6:], uint16(seq))
		// An answer has a type and an identifier of its own, so that what it is compared
		// by is its sequence number and data.
		same := func(got []byte) verdict {
			switch {
			case len(got) < 8 || got[0] != reply || !bytes.Equal(got[6:8], message[6:8]):
				return notThis
			case !bytes.Equal(got[8:], data):
				return changed
			}
			return equal
		}
		if err := exchange(ctx, conn, message, answer, same); err != nil {
			return octets, "", fmt.Errorf("request %d of %d with %d octets: %w", seq+1, pings, len(data), err)
		}
		octets += int64(len(data))
	}
	return octets, fmt.Sprintf("%d of %d answered", pings, pings), nil
}

// echoUDP sends datagrams to a server that sends them back, and compares.
func echoUDP(ctx context.Context, l direction) (octets int64, detail string, err error) {
	server, err := l.to.ListenUDP(ctx, netip.AddrPortFrom(l.target, udpPort))
	if err != nil {
		return 0, "", err
	}
	served := make(chan error, 1)
	go func() { served <- serveUDP(server, l.source) }()
	defer func() {
		_ = server.Close()
		if e := <-served; e != nil {
			err = e // the better explanation of whatever the client has seen
		}
	}()
	conn, err := l.from.DialUDP(ctx, netip.AddrPortFrom(l.target, udpPort))
	if err != nil {
		return 0, "", err
	}
	defer endWith(ctx, conn)()
	answer := make([]byte, 1<<16)
	sizes := udpSizes()
	for i, size := range sizes {
		datagram := contentOf(byte(i), size)
		same := func(got []byte) verdict {
			switch {
			case len(got) != size: // the late answer to another one
				return notThis
			case !bytes.Equal(got, datagram):
				return changed
			}
			return equal
		}
		if err := exchange(ctx, conn, datagram, answer, same); err != nil {
			return octets, "", fmt.Errorf("a datagram of %d octets: %w", size, err)
		}
		octets += int64(size)
	}
	return octets, fmt.Sprintf("%d of %d came back equal, of %d to %s octets", len(sizes), len(sizes), sizes[0], grouped(uint64(sizes[len(sizes)-1]))), nil
}

// serveUDP sends back what comes, until the socket is closed. The sender must be
// the other host by its real address.
func serveUDP(server net.PacketConn, source netip.Addr) error {
	buffer := make([]byte, 1<<16)
	for {
		n, from, err := server.ReadFrom(buffer)
		if err != nil {
			return nil // closed; if it was anything else, the client misses its answer
		}
		if got, err := netip.ParseAddrPort(from.String()); err != nil || got.Addr() != source {
			return fmt.Errorf("the server sees %v as sender, expected %v", from, source)
		}
		_, _ = server.WriteTo(buffer[:n], from) // a failed answer is the client's to miss
	}
}

// verdict is what an answer is.
type verdict int

const (
	notThis verdict = iota // to something else
	changed
	equal
)

// exchange sends a message until its answer comes. answer is a buffer.
func exchange(ctx context.Context, conn net.Conn, message, answer []byte, judge func([]byte) verdict) error {
	for range datagramTries {
		if _, err := conn.Write(message); err != nil && !tooLong(err) && ctx.Err() == nil {
			return fmt.Errorf("sending: %w", err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(answerTimeout)); err != nil {
			return err
		}
		for again := false; !again; {
			// Asked after the deadline was set, which the end of the context does, too.
			if err := ctx.Err(); err != nil {
				return err
			}
			n, err := conn.Read(answer)
			switch {
			case isTimeout(err):
				again = true
			case tooLong(err):
				again = true // the next try is better at it
			case err != nil:
				return fmt.Errorf("waiting for the answer: %w", err)
			default:
				switch judge(answer[:n]) {
				case equal:
					return nil
				case changed:
					return errors.New("the answer is not what was sent")
				}
			}
		}
	}
	return fmt.Errorf("no answer within %v, sent %d times", answerTimeout, datagramTries)
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}

// tooLong tells that the path MTU was learned by an earlier datagram.
func tooLong(err error) bool { return errors.Is(err, syscall.EMSGSIZE) }

// endWith ends waiting on conn when ctx ends. The returned function closes conn.
func endWith(ctx context.Context, conn net.Conn) func() {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return func() {
		stop()
		_ = conn.Close()
	}
}
