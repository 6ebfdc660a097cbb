package demo

import (
	"errors"
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"bitw/appliance/netns"
)

// sniffBuffer holds all that a host sends in a demo of usual size, in octets, so
// that the capture is complete even if its reader gets no time.
const sniffBuffer = 128 << 20

// sniffer reads what leaves an interface for the wire. A packet socket is shown
// outgoing frames after the egress programs and received ones before the ingress
// programs; so only the outgoing ones are what it is after.
type sniffer struct {
	fd       int
	from     int
	seen     *evidence
	stopping atomic.Bool
	done     chan error
}

// sniff begins to read the frames that the host sends from an interface.
func sniff(n *netns.Namespace, iface string, from int, seen *evidence) (*sniffer, error) {
	index, err := n.Index(iface)
	if err != nil {
		return nil, fmt.Errorf("the capture finds no %s (%w)", iface, err)
	}
	s := &sniffer{from: from, seen: seen, done: make(chan error, 1)}
	err = n.Do(func() (err error) {
		s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("no packet socket can be opened (%w)", err)
	}
	err = errors.Join(
		unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, sniffBuffer),
		// A reader that wakes up now and then can be asked to end.
		unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20_000}),
		unix.SetsockoptSockFprog(s.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, outgoingOnly()),
		unix.Bind(s.fd, &unix.SockaddrLinklayer{Protocol: hostToNet(unix.ETH_P_ALL), Ifindex: index}),
	)
	if err != nil {
		_ = unix.Close(s.fd)
		return nil, fmt.Errorf("the packet socket cannot be set up (%w)", err)
	}
	go func() { s.done <- s.read() }()
	return s, nil
}

// outgoingOnly is a filter that accepts frames of pkt_type PACKET_OUTGOING.
func outgoingOnly() *unix.SockFprog {
	const (
		adOffset  = 0xfffff000 // SKF_AD_OFF of linux/filter.h
		adPktType = 4          // SKF_AD_PKTTYPE
	)
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: adOffset + adPktType},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.PACKET_OUTGOING, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	return &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
}

func hostToNet(v uint16) uint16 { return v<<8 | v>>8 }

// read counts until stop was called and the socket is empty.
func (s *sniffer) read() error {
	frame := make([]byte, 1<<17) // a superframe and more
	for {
		// Asked before the read: then an empty socket has stayed empty since.
		stopping := s.stopping.Load()
		n, from, err := unix.Recvfrom(s.fd, frame, unix.MSG_TRUNC)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			if stopping {
				return nil
			}
		case err != nil:
			return err
		case n > len(frame):
			return fmt.Errorf("a frame of %d octets", n)
		default:
			if l, ok := from.(*unix.SockaddrLinklayer); ok && l.Pkttype == unix.PACKET_OUTGOING {
				s.seen.add(s.from, frame[:n])
			}
		}
	}
}

// stop ends the capture once all that was sent is counted.
func (s *sniffer) stop() error {
	s.stopping.Store(true)
	err := <-s.done
	stats, statErr := unix.GetsockoptTpacketStats(s.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if statErr == nil {
		s.seen.missed(uint64(stats.Drops))
	}
	if err := errors.Join(err, statErr, unix.Close(s.fd)); err != nil {
		return fmt.Errorf("demo: capture of the wire: %w", err)
	}
	return nil
}
