//go:build linux

package ethtap

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The two-NIC form: the inside NIC stands where in the other form the kernel does.
// The kernel tap reads what the inside NIC receives, and what is written to it leaves
// by the inside NIC. A frame that in the other form would go on to kernel or NIC goes
// to the opposite NIC, by the programs themselves. So in this form the programs must
// stay for a flow to be, also when the process is gone:
//
//   - Under FailShut all of them are pinned, as in the other form.
//   - Under FailOpen by tcx the guards at egress and a second, plain pair at ingress are
//     pinned, which only passes frames to the opposite NIC. The programs with the
//     states stand before that pair, end with the process, and leave the flow to it.
//   - Under FailOpen by clsact the filters outlive the process, and past the deadline of
//     the dead man's switch they pass each frame to the opposite NIC.

// The names of the places that only this form has.
const (
	pinInsideIn      = "in_in"
	pinInsideOut     = "in_out"
	pinInsideDirect  = "in_direct"
	pinOutsideDirect = "eth_direct"
)

// Bits of offPromisc: promiscuous mode was turned on by us, there.
const (
	promiscInside = 1 << iota
	promiscOutside
)

// twoNIC tells which form it is.
func (d *Device) twoNIC() bool { return d.opts.Inside != "" }

// insideProgram and outsideProgram stand at the ingress of the NICs. No frame goes to
// the kernel of the box.
func insideProgram(c *cut) asm.Instructions {
	return append(append(prologue(c), stateProgram(offKernelState, offWireState, offKernelIndex, offKernelCut, offKernelTaken, offKernelDone, offKernelOpen)...),
		across(offEthIndex)...)
}

func outsideProgram(c *cut) asm.Instructions {
	return append(append(prologue(c), stateProgram(offWireState, offKernelState, offWireIndex, offWireCut, offWireTaken, offWireDone, offWireOpen)...),
		across(offInsideIndex)...)
}

// directProgram stands behind one of these and passes what that left.
func directProgram(c *cut, to int16) asm.Instructions { return append(prologue(c), across(to)...) }

// across sends a frame out by the opposite NIC, past the guard there.
func across(to int16) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R1, asm.R7, offMark, asm.Word).WithSymbol("next"),
		asm.StoreMem(asm.R6, skbMark, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, asm.R7, to, asm.Word),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirect.Call(),
		asm.Return(),
	}
}

// guardProgram stands at the egress of a NIC: only frames with the mark leave.
func guardProgram(c *cut, own int16) asm.Instructions {
	return append(append(prologue(c), ownFrames()...), asm.Instructions{
		asm.Mov.Imm(asm.R1, 1),
		asm.AddAtomic.Mem(asm.R7, asm.R1, asm.DWord, own),
		asm.Mov.Imm(asm.R0, actShot),
		asm.Return(),
		asm.Mov.Imm(asm.R1, 0).WithSymbol("own"),
		asm.StoreMem(asm.R6, skbMark, asm.R1, asm.Word),
		asm.Mov.Imm(asm.R0, actNext),
		asm.Return(),
	}...)
}

// openInside finds and locks the inside NIC.
func (d *Device) openInside(u *undo) error {
	l, err := findInterface(d.nl, d.opts.Inside)
	if err != nil {
		return err
	}
	a := l.Attrs()
	if a.Index == d.info.Index {
		return because(ErrOccupied, "inside and outside are both %s, expected two interfaces", a.Name)
	}
	k := d.setInside(l)
	if d.insideLock, err = awaitLock(k, a.Name, lockPatience); err != nil {
		return err
	}
	u.add(func() { d.insideLock.release() })
	if outer, ok := insideOf(d.nl, l, d.insidePins); ok && (outer == d.info.Index || !linkThere(d.nl, outer)) {
		return nil // what the outside takes over, or the one that takes its place
	}
	c, err := findLeft(d.nl, l, d.insidePins)
	if c != nil {
		c.close()
		return because(ErrOccupied, "%s was left shut by itself; recover it first", a.Name)
	}
	if err != nil {
		return err
	}
	return clearLeft(d.nl, l, a.Index, d.insidePins)
}

// setInside notes what is known of the inside NIC.
func (d *Device) setInside(l netlink.Link) key {
	a := l.Attrs()
	d.info.Inside, d.info.InsideIndex, d.info.InsideMAC = a.Name, a.Index, a.HardwareAddr
	k := key{d.info.NetNS, a.Index}
	d.insidePins = pinPath(d.opts.PinDir, k)
	return k
}

// insideOf tells of which outside NIC, by its index, this one was left as the inside by
// a cut that is still in force.
func insideOf(nl *netlink.Handle, l netlink.Link, pins string) (outer int, ok bool) {
	c, err := loadCut(filepath.Join(pins, cutPin))
	if err != nil {
		return 0, false
	}
	defer c.close()
	index := l.Attrs().Index
	if int(c.get(offInsideIndex)) != index {
		return 0, false
	}
	outer = int(c.get(offEthIndex))
	if holdsTCX(filepath.Join(sibling(pins, outer), pinInsideOut), index) {
		return outer, true
	}
	fs, err := ownFilters(nl, l)
	return outer, err == nil && len(fs) > 0
}

// sibling is the directory of pins of another interface in the same namespace.
func sibling(pins string, ifindex int) string {
	netns, _, _ := strings.Cut(filepath.Base(pins), "-")
	return filepath.Join(filepath.Dir(pins), netns+"-"+strconv.Itoa(ifindex))
}

// fits says whether a cut that was left is of the form and the interfaces asked for. In
// the place of an inside NIC that is gone there may be another.
func fits(nl *netlink.Handle, c *cut, name, inside string, insideIndex int) error {
	found := int(c.get(offInsideIndex))
	switch {
	case found == insideIndex, found != 0 && inside != "" && !linkThere(nl, found):
		return nil
	case inside == "":
		return because(ErrOccupied, "%s was left as the outside of two interfaces, expected to cut it alone; recover it first", name)
	case found == 0:
		return because(ErrOccupied, "%s was left shut by itself, expected the outside of %s; recover it first", name, inside)
	}
	return because(ErrOccupied, "%s was left as the outside of another interface than %s; recover it first", name, inside)
}

// adoptInside makes the inside NIC that of the cut. One that was left open is readied: as
// long as nobody changes the states, all that will be attached to it passes frames
// directly.
func (d *Device) adoptInside() error {
	if was := int(d.cut.get(offInsideIndex)); was != 0 && was != d.info.InsideIndex {
		// That one is gone.
		d.freshInside()
		if err := removePinDir(sibling(d.pins, was)); err != nil {
			return err
		}
	}
	d.cut.set(offInsideIndex, uint32(d.info.InsideIndex))
	d.leftOpen = FailState(d.cut.get(offFail)) == FailOpen
	if d.leftOpen {
		d.cut.setFlow(flowOf(Closed, Closed))
		d.cut.setDeadline(0)
	}
	return nil
}

// freshInside forgets what was done to an inside NIC that is gone.
func (d *Device) freshInside() {
	d.cut.set(offInsideQdisc, 0)
	d.cut.set(offPromisc, d.cut.get(offPromisc)&^promiscInside)
}

// join turns promiscuous mode on, because hosts on either side address each other,
// and leaves a trace at the inside NIC of where its cut is.
func (d *Device) join() error {
	set := d.cut.get(offPromisc)
	for _, n := range []struct {
		index int
		bit   uint32
	}{{d.info.InsideIndex, promiscInside}, {d.info.Index, promiscOutside}} {
		if d.isGone(n.index) {
			continue
		}
		l, err := d.nl.LinkByIndex(n.index)
		if err != nil {
			return fmt.Errorf("look for interface %d: %w", n.index, err)
		}
		if l.Attrs().RawFlags&unix.IFF_PROMISC != 0 {
			continue // an administrator's, or ours from before
		}
		if err := d.nl.SetPromiscOn(l); err != nil {
			return fmt.Errorf("promiscuous mode of %s: %w", l.Attrs().Name, permission(err))
		}
		set |= n.bit
		d.cut.set(offPromisc, set)
	}
	path := filepath.Join(d.insidePins, cutPin)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := makePinDir(d.insidePins); err != nil {
		return err
	}
	// A pinned object has one name, but a map may be pinned once more by a clone.
	m, err := d.cut.m.Clone()
	if err != nil {
		return fmt.Errorf("clone the map of the cut: %w", err)
	}
	defer m.Close()
	if err := m.Pin(path); err != nil {
		return fmt.Errorf("pin the map of the cut in %s: %w", d.insidePins, permission(err))
	}
	return nil
}

// clearInside removes what a cut has at its inside NIC, and promiscuous mode at both.
// pins is the directory of the outside NIC's pins.
func clearInside(nl *netlink.Handle, c *cut, pins string) error {
	index := int(c.get(offInsideIndex))
	if index == 0 {
		return nil
	}
	var errs []error
	set := c.get(offPromisc)
	if l, err := nl.LinkByIndex(index); err == nil {
		errs = append(errs, clearFilters(nl, l, c.get(offInsideQdisc) != 0))
		if set&promiscInside != 0 {
			errs = append(errs, nl.SetPromiscOff(l))
		}
	}
	if set&promiscOutside != 0 {
		if l, err := nl.LinkByIndex(int(c.get(offEthIndex))); err == nil {
			errs = append(errs, nl.SetPromiscOff(l))
		}
	}
	c.set(offPromisc, 0)
	return errors.Join(append(errs, removePinDir(sibling(pins, index)))...)
}

// TookOverOpen tells that an earlier process left the two NICs to each other and this
// device carries on. Both taps are Closed.
func (d *Device) TookOverOpen() bool { return d.leftOpen }

// Leave ends the device and lets the flow be direct. In the two-NIC form it leaves the
// programs that pass frames from one NIC to the other, and past the kernel of the box;
// a later Open takes them over, and Close of that, or Remove, ends them. In the other
// form it is Close.
func (d *Device) Leave() error {
	if !d.twoNIC() {
		return d.Close()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if more, err := d.beginEnd(); !more {
		return err
	}
	d.cut.set(offFail, uint32(FailOpen))
	d.cut.setDeadline(0)
	err := d.InNamespace(func() error {
		return errors.Join(liftBan(d.pins), undoUDPForwarding(d.pins, d.info.Name), d.lowerGuard(), removeTap(d.nl, d.info.KernelTap), removeTap(d.nl, d.info.WireTap))
	})
	return errors.Join(err, d.letGo())
}

// leaveDirect makes a cut of two NICs that was left shut pass frames directly. It
// returns false if there is none.
func leaveDirect(nl *netlink.Handle, eth netlink.Link, pins string) (bool, error) {
	c, err := findLeft(nl, eth, pins)
	if c == nil {
		return false, err
	}
	defer c.close()
	if in := int(c.get(offInsideIndex)); in == 0 || !linkThere(nl, in) {
		return false, nil // there are no two
	}
	c.set(offFail, uint32(FailOpen))
	c.setFlow(flowOf(Closed, Closed))
	c.setDeadline(0)
	htap, ltap := tapNames(eth.Attrs().Index)
	return true, errors.Join(liftBan(pins), removeTap(nl, htap), removeTap(nl, ltap))
}

// Joined tells whether Interface was left as the outside of two that pass their frames
// to each other, as Recover and Leave leave them. Of o it uses what Recover does.
func Joined(o Options) (bool, error) {
	joined := false
	err := o.lookAt(func(nl *netlink.Handle, netns uint64) error {
		eth, err := findInterface(nl, o.Interface)
		if err != nil {
			return err
		}
		c, err := findLeft(nl, eth, pinPath(o.PinDir, key{netns, eth.Attrs().Index}))
		if c != nil {
			joined = c.get(offInsideIndex) != 0 && FailState(c.get(offFail)) == FailOpen
			c.close()
		}
		return err
	})
	return joined, err
}

// shutDirect makes what was left open, if it was, end shut.
func (d *Device) shutDirect() error {
	d.cut.set(offFail, uint32(FailShut))
	for _, pin := range []string{pinInsideDirect, pinOutsideDirect} {
		if err := os.Remove(filepath.Join(d.pins, pin)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("unpin: %w", permission(err))
		}
	}
	return nil
}
