//go:build linux

package ethtap

import (
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// sendBatch is how many frames one system call sends.
	sendBatch = 64
	// sendWait bounds in milliseconds how long a sender waits for the NIC.
	sendWait = 10
	// sendBuffer is how many octets may wait at the NIC, as the kernel counts them.
	sendBuffer = 8 << 20
)

// sender sends frames to the wire by a packet socket on the interface, many in one
// system call. They carry the instance's mark, so that the program at the egress
// knows them, as it knows those that ltap redirected.
type sender struct {
	file    *os.File // so that nobody sends by a descriptor that has become another's
	raw     syscall.RawConn
	batches sync.Pool // of *sendings
}

// sendings is the argument of one sendmmsg: each frame in two parts, since the
// socket's virtio-net header lacks num_buffers.
type sendings struct {
	msgs [sendBatch]struct {
		unix.Msghdr
		sent uint32
		_    [4]byte
	}
	parts [sendBatch][2]unix.Iovec
	n     int              // of msgs to send
	sent  int              // by the call
	errno unix.Errno       // of the call
	call  func(fd uintptr) // made once, since it would be allocated
}

// newSender opens a sender for the interface of that index. It runs in its namespace.
func newSender(ifindex int, mark uint32) (*sender, error) {
	// Without a protocol it receives nothing. It blocks, so that the runtime does not
	// poll it: it would wake for each frame that the NIC is done with.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	for _, o := range []struct {
		name              string
		level, opt, value int
	}{
		{"PACKET_VNET_HDR", unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1},
		{"SO_MARK", unix.SOL_SOCKET, unix.SO_MARK, int(int32(mark))},
		{"SO_SNDBUFFORCE", unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.opt, o.value); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("%s: %w", o.name, err)
		}
	}
	s := &sender{file: os.NewFile(uintptr(fd), "packet socket"), batches: sync.Pool{New: func() any { return newSendings() }}}
	if s.raw, err = s.file.SyscallConn(); err == nil {
		err = s.bind(ifindex)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// bind has the frames leave by the interface of that index from now on.
func (s *sender) bind(ifindex int) (err error) {
	if cerr := s.raw.Control(func(fd uintptr) {
		err = unix.Bind(int(fd), &unix.SockaddrLinklayer{Ifindex: ifindex})
	}); cerr != nil {
		return cerr
	}
	if err != nil {
		return fmt.Errorf("bind a packet socket: %w", err)
	}
	return nil
}

func newSendings() *sendings {
	s := new(sendings)
	for i := range s.msgs {
		s.msgs[i].Iov, s.msgs[i].Iovlen = &s.parts[i][0], 2
	}
	s.call = func(fd uintptr) {
		for {
			s.sent, s.errno = sendNow(int(fd), s)
			if s.errno != unix.EINTR && (s.errno != unix.EAGAIN || !writable(int(fd))) {
				return
			}
		}
	}
	return s
}

// writable waits until the NIC has taken some of what waits, and returns false if
// it does not.
func writable(fd int) bool {
	fds := [...]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(fds[:], sendWait)
	return n > 0 || err == unix.EINTR
}

func (s *sender) close() { s.file.Close() }

// send sends the frames in order. n is how many were sent; err says why frames[n] was
// not. It wraps os.ErrClosed after close.
func (s *sender) send(frames [][]byte) (n int, err error) {
	b := s.batches.Get().(*sendings)
	defer s.batches.Put(b)
	for n < len(frames) {
		part := frames[n:min(len(frames), n+sendBatch)]
		for i, f := range part {
			b.parts[i][0].Base, b.parts[i][0].Len = &f[0], vnetLen
			b.parts[i][1].Base, b.parts[i][1].Len = &f[HeaderLen], uint64(len(f)-HeaderLen)
		}
		b.n, b.sent, b.errno = len(part), 0, 0
		err := s.raw.Control(b.call)
		clear(b.parts[:len(part)])
		switch n += b.sent; {
		case err != nil:
			return n, err
		case b.errno != 0:
			return n, b.errno
		case b.sent == 0:
			return n, io.ErrShortWrite
		}
	}
	return n, nil
}
