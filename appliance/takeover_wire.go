package appliance

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"bitw/netstack/ethtap"
	"bitw/sa"
)

// TakeoverVersion is that of the protocol by which a living process hands its
// interface to another over the control socket. Both must speak the same.
//
// The new process asks for POST /v1/takeover. After the answer 101 the connection
// carries messages: an octet that says which, four with the length of what follows in
// network order, and a JSON object:
//
//	new  hello  what it wants to take over
//	old  offer  the descriptors of the cut, by SCM_RIGHTS, and the states of the SAs
//	new  ready  everything is prepared that can be
//	old  go     its readers are held, its SAs are closed, these are their last states
//	new  taken  the interface is in its hands
//	old  refuse instead of offer or go: why not
//
// Up to go the old process works on as if nothing were, and goes on if anything fails or
// takes too long. From go on it never seals a packet again: if the new one fails then,
// what the configuration says of failures happens.
const TakeoverVersion = 1

type message uint8

const (
	msgHello message = iota + 1
	msgOffer
	msgReady
	msgGo
	msgTaken
	msgRefuse
)

func (m message) String() string {
	names := [...]string{msgHello: "hello", msgOffer: "offer", msgReady: "ready", msgGo: "go", msgTaken: "taken", msgRefuse: "refuse"}
	if int(m) < len(names) && names[m] != "" {
		return names[m]
	}
	return fmt.Sprintf("message(%d)", uint8(m))
}

type helloMessage struct {
	Version   int    `json:"version"`
	Interface string `json:"interface"`
}

type offerMessage struct {
	Version int                 `json:"version"`
	Device  ethtap.HandoverInfo `json:"device"`
	SAs     json.RawMessage     `json:"sas"` // an sa.Export
	// Clock is what times in SAs are by, in nanoseconds since 1970; 0 where nobody says.
	Clock int64 `json:"clock,omitempty"`
}

type goMessage struct {
	SAs   json.RawMessage `json:"sas"`             // an sa.Export
	Moved bool            `json:"moved,omitempty"` // the taps are not in the states of the start
	// Neighbors is a config.Neighbors: who has told the kernel of them.
	Neighbors string                      `json:"neighbors"`
	Policies  map[string][2]counterState  `json:"policies,omitempty"` // by name and sa.Direction
	Drops     [2]map[string]uint64        `json:"drops"`              // by hook.Side
	Hops      map[string]net.HardwareAddr `json:"next_hops,omitempty"`
	// Of two NICs: the hosts on the inside, and the Ethernet addresses heard there.
	Hosts    map[string]net.HardwareAddr `json:"hosts,omitempty"`
	Stations []net.HardwareAddr          `json:"stations,omitempty"`
}

// counterState is an sa.Counters.
type counterState struct {
	Packets uint64            `json:"packets"`
	Bytes   uint64            `json:"bytes"`
	LastUse int64             `json:"last_use,omitempty"`
	Drops   map[string]uint64 `json:"drops,omitempty"`
}

func stateOf(c *sa.Counters) counterState {
	return counterState{c.Packets.Load(), c.Bytes.Load(), c.LastUse.Load(), c.Drops.Snapshot()}
}

func (s *counterState) addTo(c *sa.Counters) {
	c.Packets.Add(s.Packets)
	c.Bytes.Add(s.Bytes)
	c.LastUse.Store(max(c.LastUse.Load(), s.LastUse))
	c.Drops.AddSnapshot(s.Drops)
}

type refuseMessage struct {
	Reason string `json:"reason"`
}

const (
	// maxShort is how long in octets a message without states of SAs may be.
	maxShort = 1 << 12
	// maxLong is how long one with them may be: a replay window has 11 KB at most.
	maxLong = 64 << 20

	messageHeader = 5
)

// handoverConn is one end of the connection.
type handoverConn struct {
	conn *net.UnixConn
}

// peer returns the other end's process and user.
func (c *handoverConn) peer() (pid, uid int, err error) {
	p := peerOf(c.conn)
	if !p.known {
		return 0, 0, errors.New("the kernel does not tell whose process it is")
	}
	return p.pid, int(p.uid), nil
}

// within bounds what follows, all of it.
func (c *handoverConn) within(d time.Duration) { _ = c.conn.SetDeadline(time.Now().Add(d)) }

// send sends a message, with descriptors that stay the caller's.
func (c *handoverConn) send(m message, body any, fds ...int) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	if len(text) > maxLong {
		return fmt.Errorf("%v has %d octets, want at most %d", m, len(text), maxLong)
	}
	head := binary.BigEndian.AppendUint32([]byte{byte(m)}, uint32(len(text)))
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if _, _, err := c.conn.WriteMsgUnix(head, rights, nil); err != nil {
		return fmt.Errorf("send %v: %w", m, err)
	}
	if _, err := c.conn.Write(text); err != nil {
		return fmt.Errorf("send %v: %w", m, err)
	}
	return nil
}

// errRefused is a refusal of the other end.
var errRefused = errors.New("it refuses")

// receive waits for one message of at most limit octets, unless the other end refuses.
// The descriptors are those that came with it, and the caller's to close.
func (c *handoverConn) receive(want message, limit int, body any) (fds []int, err error) {
	defer func() {
		if err != nil {
			closeAll(fds)
			fds = nil
			err = fmt.Errorf("waiting for %v: %w", want, err)
		}
	}()
	var head [messageHeader]byte
	for n := 0; n < len(head); {
		k, more, err := c.readRights(head[n:])
		fds = append(fds, more...)
		if err != nil {
			return fds, err
		}
		n += k
	}
	got, size := message(head[0]), int64(binary.BigEndian.Uint32(head[1:]))
	if got == msgRefuse {
		limit = maxShort
	}
	if got != want && got != msgRefuse {
		return fds, fmt.Errorf("%v came", got)
	}
	if size > int64(limit) {
		return fds, fmt.Errorf("%v of %d octets, want at most %d", got, size, limit)
	}
	// Memory only for what comes, not for what is announced.
	text, err := io.ReadAll(io.LimitReader(c.conn, size))
	if err != nil {
		return fds, err
	}
	if int64(len(text)) < size {
		return fds, io.ErrUnexpectedEOF
	}
	if got == msgRefuse {
		var r refuseMessage
		if err := json.Unmarshal(text, &r); err != nil {
			return fds, fmt.Errorf("%v: %w", got, err)
		}
		return fds, fmt.Errorf("%w: %s", errRefused, r.Reason)
	}
	if err := json.Unmarshal(text, body); err != nil {
		return fds, fmt.Errorf("%v: %w", got, err)
	}
	return fds, nil
}

// readRights reads, with the descriptors that came along.
func (c *handoverConn) readRights(p []byte) (n int, fds []int, err error) {
	oob := make([]byte, unix.CmsgSpace(4*ethtap.MaxHandoverFDs))
	n, oobn, flags, _, err := c.conn.ReadMsgUnix(p, oob)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if oobn > 0 {
		messages, perr := unix.ParseSocketControlMessage(oob[:oobn])
		err = errors.Join(err, perr)
		for i := range messages {
			if more, perr := unix.ParseUnixRights(&messages[i]); perr == nil {
				fds = append(fds, more...)
			}
		}
	}
	if flags&unix.MSG_CTRUNC != 0 {
		err = errors.Join(err, fmt.Errorf("more than %d descriptors", ethtap.MaxHandoverFDs))
	}
	return n, fds, err
}

// alive says whether the other end is still there.
func (c *handoverConn) alive() bool {
	raw, err := c.conn.SyscallConn()
	if err != nil {
		return false
	}
	gone := true
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		_, perr := unix.Poll(p, 0)
		for errors.Is(perr, unix.EINTR) { // a signal of Go's own
			_, perr = unix.Poll(p, 0)
		}
		gone = perr != nil || p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
	})
	return err == nil && !gone
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
