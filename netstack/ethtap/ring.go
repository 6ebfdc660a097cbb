//go:build linux

package ethtap

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The wire's frames come one by one, and one read from a TAP for each costs more
// than all else that the kernel does for it. So a packet ring stands on ltap: the
// kernel leaves a copy of every frame that is redirected there in memory that both
// share, and wakes the reader only if it waits. Since the ring is filled by the
// redirect itself, the states of the tap hold for it as for the TAP's own queue,
// which has a filter that takes nothing.

const (
	ringSize  = 8 << 20 // octets of a ring
	ringSlot  = 2048    // octets of a slot for an MTU up to 1,800; with a larger one it is larger
	ringBlock = 1 << 16

	// ringRoom is kept free before each frame, for a virtio-net header of 12 octets
	// instead of 10, and a VLAN tag.
	ringRoom = 32

	vlanTag    = 4
	vlanTagAt  = 12 // behind the two addresses
	vlanAccess = unix.TP_STATUS_VLAN_VALID

	// Offsets in struct tpacket2_hdr.
	ringStatus  = 0
	ringLen     = 4
	ringSnaplen = 8
	ringMAC     = 12
	ringSec     = 16 // of the clock, and nanoseconds behind
	ringTCI     = 24
	ringTPID    = 26

	// vnetLen is the length of struct virtio_net_hdr, without num_buffers: in a ring it
	// is that long whatever PACKET_VNET_HDR_SZ says.
	vnetLen = 10

	packetCopyThresh = 7          // PACKET_COPY_THRESH
	skfPktType       = 0xfffff004 // SKF_AD_OFF + SKF_AD_PKTTYPE
)

// ring is a packet ring of TPACKET_V2 on ltap. One goroutine reads it.
type ring struct {
	fd    int
	wakes int // eventfd
	slot  int // octets
	slots int

	mu     sync.Mutex // the reader and others that discard or close
	mem    []byte
	head   int      // the slot that is filled next
	lent   []int    // slots that the reader still has
	big    [][]byte // for frames that fit no slot
	used   int      // of big
	busy   bool     // the reader is inside
	closed bool
	astray bool // where head is has to be found out

	waiter waiter // of the reader

	taken    atomic.Uint64 // frames read
	lost     atomic.Uint64 // malformed, or of a size that no read takes
	overflow uint64        // found the ring full; under the device's lock
}

// newRing opens a ring on the device of that index. It runs in its namespace. With
// several, each takes the flows of its own.
func newRing(ifindex, mtu, queues int) (r *ring, err error) {
	r = &ring{fd: -1, wakes: -1, slot: ringSlot}
	for r.slot < mtu+ringSlot/8 && r.slot < ringBlock {
		r.slot *= 2
	}
	r.slots = ringSize / r.slot
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	// Without a protocol it receives nothing before it is bound.
	if r.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	for _, o := range []struct {
		name       string
		opt, value int
	}{
		{"PACKET_VERSION", unix.PACKET_VERSION, unix.TPACKET_V2},
		{"PACKET_VNET_HDR", unix.PACKET_VNET_HDR, 1},
		{"PACKET_RESERVE", unix.PACKET_RESERVE, ringRoom},
		{"PACKET_COPY_THRESH", packetCopyThresh, 1},
	} {
		if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, o.opt, o.value); err != nil {
			return nil, fmt.Errorf("%s: %w", o.name, err)
		}
	}
	// What is written to the tap passes here, too.
	outgoing := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: skfPktType},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.PACKET_OUTGOING, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 18},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
	}
	if err := unix.SetsockoptSockFprog(r.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(outgoing)), Filter: &outgoing[0]}); err != nil {
		return nil, fmt.Errorf("SO_ATTACH_FILTER: %w", err)
	}
	// Room for the few superframes that do not fit a slot.
	_ = unix.SetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
	req := &unix.TpacketReq{
		Block_size: ringBlock, Block_nr: ringSize / ringBlock,
		Frame_size: uint32(r.slot), Frame_nr: uint32(r.slots),
	}
	if err := unix.SetsockoptTpacketReq(r.fd, unix.SOL_PACKET, unix.PACKET_RX_RING, req); err != nil {
		return nil, fmt.Errorf("PACKET_RX_RING: %w", err)
	}
	if err := r.open(); err != nil {
		return nil, err
	}
	all := htons(unix.ETH_P_ALL)
	if err := unix.Bind(r.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifindex}); err != nil {
		return nil, fmt.Errorf("bind: %w", err)
	}
	if queues > 1 {
		group := ifindex & 0xffff
		if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, unix.PACKET_FANOUT, group|unix.PACKET_FANOUT_HASH<<16); err != nil {
			return nil, fmt.Errorf("PACKET_FANOUT: %w", err)
		}
	}
	return r, nil
}

// adoptRing goes on with a ring that another process has filled.
func adoptRing(fd, slot int) (*ring, error) {
	r := &ring{fd: fd, wakes: -1, slot: slot, astray: true}
	if slot < ringSlot || slot > ringBlock || slot&(slot-1) != 0 {
		r.close()
		return nil, fmt.Errorf("slots of %d octets", slot)
	}
	r.slots = ringSize / slot
	if err := r.open(); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// open maps the ring of r.fd.
func (r *ring) open() (err error) {
	if r.mem, err = unix.Mmap(r.fd, 0, ringSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("map the ring: %w", err)
	}
	if r.wakes, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	return nil
}

var ne = binary.NativeEndian

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// enter is the reader coming for frames: it is done with those lent before. It
// returns false if the ring is closed.
func (r *ring) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mem != nil {
		for _, slot := range r.lent {
			r.status(slot).Store(unix.TP_STATUS_KERNEL)
		}
	}
	r.lent, r.used = r.lent[:0], 0
	if r.closed {
		r.free()
	}
	r.busy = !r.closed
	return r.busy
}

// leave is the reader going away with what was lent.
func (r *ring) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy = false; r.closed {
		r.free()
	}
}

// close ends the ring as soon as its reader has left, and takes the memory away when
// the reader comes back from the frames that it was lent.
func (r *ring) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.busy {
		setEvent(r.wakes, true)
		return
	}
	r.free()
}

func (r *ring) free() {
	for _, fd := range []*int{&r.fd, &r.wakes} {
		if *fd >= 0 {
			unix.Close(*fd)
		}
		*fd = -1
	}
	if r.mem != nil && len(r.lent) == 0 {
		unix.Munmap(r.mem)
		r.mem = nil
	}
}

func (r *ring) status(slot int) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&r.mem[slot*r.slot+ringStatus]))
}

// filled tells whether a frame waits.
func (r *ring) filled() bool {
	if r.fd < 0 {
		return false
	}
	if r.astray {
		r.find()
	}
	return r.status(r.head).Load()&unix.TP_STATUS_USER != 0
}

// find sets head to the slot that was filled first, if any is: nobody tells a process
// that takes over where the other one was.
func (r *ring) find() {
	var first [2]uint32
	for slot := range r.slots {
		if r.status(slot).Load()&unix.TP_STATUS_USER == 0 {
			continue
		}
		h := r.mem[slot*r.slot:]
		at := [2]uint32{ne.Uint32(h[ringSec:]), ne.Uint32(h[ringSec+4:])}
		if r.astray || at[0] < first[0] || at[0] == first[0] && at[1] < first[1] {
			r.astray, r.head, first = false, slot, at
		}
	}
}

// waiting is filled for others than the reader.
func (r *ring) waiting() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.filled()
}

// lend sets frames to those that wait, and returns how many. Half of the slots stay the
// kernel's at least.
func (r *ring) lend(frames [][]byte) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	frames = frames[:min(len(frames), r.slots/2)]
	n := 0
	for n < len(frames) && r.filled() {
		f := r.frame(r.head)
		r.lent = append(r.lent, r.head)
		r.head = (r.head + 1) % r.slots
		if f == nil {
			r.lost.Add(1)
			continue
		}
		frames[n] = f
		n++
	}
	r.taken.Add(uint64(n))
	return n
}

// frame makes of a filled slot a frame as a TAP gives it: with a virtio-net header of
// HeaderLen octets, and VLAN tags inline. It returns nil for one that is lost.
func (r *ring) frame(slot int) []byte {
	b := r.mem[slot*r.slot:][:r.slot]
	status := r.status(slot).Load()
	at, n := int(ne.Uint16(b[ringMAC:])), int(ne.Uint32(b[ringSnaplen:]))
	if status&unix.TP_STATUS_COPY != 0 {
		at = vlanTag + HeaderLen
		if b, n = r.receive(at); b == nil {
			return nil
		}
	} else if at < vlanTag+HeaderLen || at+n > len(b) || n != int(ne.Uint32(b[ringLen:])) {
		return nil
	}
	if n < minFrame-HeaderLen {
		return nil
	}
	start := at - HeaderLen
	copy(b[start:], b[at-vnetLen:at])
	b[at-2], b[at-1] = 0, 0 // num_buffers
	if status&vlanAccess == 0 {
		return b[start : at+n]
	}
	// The tag that the device or the kernel took out.
	head := r.mem[slot*r.slot:]
	tpid := uint16(unix.ETH_P_8021Q)
	if status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
		tpid = ne.Uint16(head[ringTPID:])
	}
	tci := ne.Uint16(head[ringTCI:])
	copy(b[start-vlanTag:], b[start:at+vlanTagAt])
	f := b[start-vlanTag : at+n]
	binary.BigEndian.PutUint16(f[HeaderLen+vlanTagAt:], tpid)
	binary.BigEndian.PutUint16(f[HeaderLen+vlanTagAt+2:], tci)
	return shiftOffsets(f)
}

// shiftOffsets adds a VLAN tag to what a virtio-net header says of a frame.
func shiftOffsets(f []byte) []byte {
	const flags, gsoType, hdrLen, csumStart = 0, 1, 2, 6
	if f[flags]&unix.VIRTIO_NET_HDR_F_NEEDS_CSUM != 0 {
		binary.LittleEndian.PutUint16(f[csumStart:], binary.LittleEndian.Uint16(f[csumStart:])+vlanTag)
	}
	if f[gsoType] != unix.VIRTIO_NET_HDR_GSO_NONE {
		binary.LittleEndian.PutUint16(f[hdrLen:], binary.LittleEndian.Uint16(f[hdrLen:])+vlanTag)
	}
	return f
}

// receive reads a frame that fits no slot to offset at of a buffer, its virtio-net
// header in front. It returns a length of the frame, or nil if it is lost.
func (r *ring) receive(at int) ([]byte, int) {
	if r.used == len(r.big) {
		r.big = append(r.big, make([]byte, vlanTag+MaxFrame))
	}
	b := r.big[r.used]
	n, _, err := unix.Recvfrom(r.fd, b[at-vnetLen:], unix.MSG_DONTWAIT)
	if err != nil || at-vnetLen+n >= len(b) {
		return nil, 0
	}
	r.used++
	return b, n - vnetLen
}

// wait returns when a frame waits or wake was called.
func (r *ring) wait() error {
	ready, _, err := r.waiter.wait(r.fd, r.wakes)
	if err == nil && ready&unix.POLLERR != 0 {
		_, err = unix.GetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_ERROR)
	}
	return err
}

// wake makes the reader look up, until on is false again.
func (r *ring) wake(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	setEvent(r.wakes, on)
}

// discard gives back unread what waits, and returns how many frames it was.
func (r *ring) discard() (n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.filled() {
		st := r.status(r.head)
		if st.Load()&unix.TP_STATUS_COPY != 0 {
			var b [1]byte
			unix.Recvfrom(r.fd, b[:], unix.MSG_DONTWAIT)
		}
		st.Store(unix.TP_STATUS_KERNEL)
		r.head = (r.head + 1) % r.slots
		n++
	}
	return n
}

// overflows returns how many frames found the ring full.
func (r *ring) overflows() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	// Reading the counters clears them.
	if s, err := unix.GetsockoptTpacketStats(r.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		r.overflow += uint64(s.Drops)
	}
	return r.overflow
}
