//go:build linux

package ethtap

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// The four programs and this process share one value of one array map, mapped
// into memory: a change of state is one aligned store. All words are in host
// byte order. The two states and the two write permissions stand in one 64-bit
// word so that no program ever sees half of a change.
const (
	offKernelState = 0  // uint16, a State
	offWireState   = 2  // uint16, a State
	offKernelWrite = 4  // uint16, not 0: frames written to htap pass
	offWireWrite   = 6  // uint16, not 0: frames written to ltap pass
	offDeadline    = 8  // uint64, CLOCK_MONOTONIC in ns; 0: no dead man's switch
	offMark        = 16 // uint32, skb->mark of the appliance's own frames
	offEthIndex    = 20 // uint32, the cut interface
	offKernelIndex = 24 // uint32, htap
	offWireIndex   = 28 // uint32, ltap
	offVersion     = 32 // uint32, layoutVersion
	offHook        = 36 // uint32, a Hook
	offFail        = 40 // uint32, a FailState
	offQdisc       = 44 // uint32, not 0: the clsact qdisc of the interface was made by us
	offKernelCut   = 48 // uint64, frames from the kernel dropped since only ltap was Active
	offWireCut     = 56 // uint64, frames from the wire dropped since only htap was Active
	offKernelDeny  = 64 // uint64, frames written to htap dropped without permission
	offWireDeny    = 72 // uint64, frames written to ltap dropped without permission
	offKernelTaken = 80 // uint64, frames from the kernel that were handed to htap
	offWireTaken   = 88 // uint64, frames from the wire that were handed to ltap
	// While a tap is draining: how many frames it had been handed when all of them
	// were seen to be dealt with, plus one; 0: not seen yet.
	offKernelDone = 96  // uint64
	offWireDone   = 104 // uint64
	// In the two-NIC form:
	offInsideIndex = 112 // uint32, the inside NIC; 0: the other form
	offPromisc     = 116 // uint32, where promiscuous mode was turned on by us
	offInsideQdisc = 120 // uint32, not 0: the clsact qdisc of the inside NIC was made by us
	offInsideOwn   = 128 // uint64, frames of the box's own kernel dropped at the inside NIC
	offOutsideOwn  = 136 // uint64, and at the outside NIC
	// The names by which a later process finds the cut, IFNAMSIZ octets each: that by
	// which the interface was opened, and its name as far as known.
	offOpenedName = 144
	offName       = 160
	offInsideName = 176 // by which the inside NIC was opened
	offKernelOpen = 192 // uint64, frames from the kernel that passed since the deadline was over
	offWireOpen   = 200 // uint64, frames from the wire
	cutSize       = 208

	nameSize = unix.IFNAMSIZ

	// layoutVersion changes with the layout above, with the meaning of a word, or with the
	// places of the programs.
	layoutVersion = 7
)

// cut is the shared value.
type cut struct {
	m   *ebpf.Map
	mem []byte
}

// newCut makes a map with both states Closed and a mark of its own. The mark is
// random, so that neither another instance nor a rule of the host meets it.
func newCut() (*cut, error) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "bitw_cut", Type: ebpf.Array, KeySize: 4, ValueSize: cutSize, MaxEntries: 1,
		Flags: unix.BPF_F_MMAPABLE,
	})
	if err != nil {
		return nil, fmt.Errorf("make the map of the cut: %w", err)
	}
	c, err := mapCut(m)
	if err != nil {
		return nil, err
	}
	var b [4]byte
	rand.Read(b[:])
	// Small values are what administrators choose for their own marks.
	mark := binary.NativeEndian.Uint32(b[:]) | 1<<31
	atomic.StoreUint32(c.u32(offMark), mark)
	atomic.StoreUint32(c.u32(offVersion), layoutVersion)
	return c, nil
}

// loadCut opens the map pinned by an earlier process.
func loadCut(path string) (*cut, error) {
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err != nil {
		return nil, err
	}
	return checkedCut(m, "pinned at "+path)
}

// checkedCut takes m over, also on failure; where says in words which map it is.
func checkedCut(m *ebpf.Map, where string) (*cut, error) {
	if m.Type() != ebpf.Array || m.ValueSize() != cutSize {
		size := m.ValueSize()
		m.Close()
		return nil, because(ErrOccupied, "the map %s has values of %d octets, expected %d", where, size, cutSize)
	}
	c, err := mapCut(m)
	if err != nil {
		return nil, err
	}
	if v := atomic.LoadUint32(c.u32(offVersion)); v != layoutVersion {
		c.close()
		return nil, because(ErrOccupied, "the map %s is of layout version %d, expected %d", where, v, layoutVersion)
	}
	return c, nil
}

// mapCut takes m over, also on failure.
func mapCut(m *ebpf.Map) (*cut, error) {
	mem, err := unix.Mmap(m.FD(), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		m.Close()
		return nil, fmt.Errorf("map the cut into memory: %w", err)
	}
	return &cut{m: m, mem: mem}, nil
}

// u32 and u64 give the address of a word; the offsets above are aligned and the
// mapping starts at a page.
func (c *cut) u32(off int) *uint32 { return (*uint32)(unsafe.Pointer(&c.mem[off])) }
func (c *cut) u64(off int) *uint64 { return (*uint64)(unsafe.Pointer(&c.mem[off])) }

// flow is the first word of the map.
type flow struct {
	kernel, wire           State
	kernelWrite, wireWrite bool
}

// flowOf gives the word for two states at rest: only an Active tap takes frames.
func flowOf(kernel, wire State) flow {
	return flow{kernel: kernel, wire: wire, kernelWrite: kernel == Active, wireWrite: wire == Active}
}

func (c *cut) setFlow(f flow) {
	var b [8]byte
	binary.NativeEndian.PutUint16(b[offKernelState:], uint16(f.kernel))
	binary.NativeEndian.PutUint16(b[offWireState:], uint16(f.wire))
	if f.kernelWrite {
		binary.NativeEndian.PutUint16(b[offKernelWrite:], 1)
	}
	if f.wireWrite {
		binary.NativeEndian.PutUint16(b[offWireWrite:], 1)
	}
	atomic.StoreUint64(c.u64(0), binary.NativeEndian.Uint64(b[:]))
}

func (c *cut) flow() flow {
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], atomic.LoadUint64(c.u64(0)))
	return flow{
		kernel:      State(binary.NativeEndian.Uint16(b[offKernelState:])),
		wire:        State(binary.NativeEndian.Uint16(b[offWireState:])),
		kernelWrite: binary.NativeEndian.Uint16(b[offKernelWrite:]) != 0,
		wireWrite:   binary.NativeEndian.Uint16(b[offWireWrite:]) != 0,
	}
}

func (c *cut) get(off int) uint32    { return atomic.LoadUint32(c.u32(off)) }
func (c *cut) set(off int, v uint32) { atomic.StoreUint32(c.u32(off), v) }

func (c *cut) setDone(off int, n uint64) { atomic.StoreUint64(c.u64(off), n) }

func (c *cut) setDeadline(ns uint64) { atomic.StoreUint64(c.u64(offDeadline), ns) }
func (c *cut) count(off int) uint64  { return atomic.LoadUint64(c.u64(off)) }
func (c *cut) pin(path string) error { return c.m.Pin(path) }

func (c *cut) close() {
	unix.Munmap(c.mem)
	c.m.Close()
}
