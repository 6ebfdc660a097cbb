//go:build linux

package ethtap

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Open cuts the interface with both taps Closed, so that nothing changes for the
// flow, or takes over a cut that an earlier process left shut, in the states in
// which that is (see Device.TookOver). On an error everything is undone, except
// that a cut found shut stays shut.
//
// The errors match ErrPermission, ErrNoTUN, ErrNoHook, ErrBusy, ErrNoInterface,
// ErrNotEthernet and ErrOccupied.
func Open(o Options) (*Device, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	if err := checkCapabilities(); err != nil {
		return nil, err
	}
	if err := checkTUN(); err != nil {
		return nil, err
	}
	liftMemlock()
	ns, ino, err := openNamespace(o.NetNS)
	if err != nil {
		return nil, err
	}
	d := &Device{opts: o, ns: ns, fails: o.OnFailure}
	d.info.NetNS = ino
	if err := inNamespace(ns, func() error {
		var u undo
		err := d.open(&u)
		if err != nil {
			u.all()
		}
		return err
	}); err != nil {
		ns.Close()
		return nil, err
	}
	return d, nil
}

// liftMemlock takes away the limit of locked memory, against which kernels below 5.11
// count maps and programs; where that cannot be done making the map tells.
func liftMemlock() {
	_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY})
}

// complete fills in defaults and refuses what makes no sense.
func (o *Options) complete() error {
	if o.Queues == 0 {
		o.Queues = 1
	}
	if o.DeadMan == 0 {
		o.DeadMan = time.Second
	}
	if o.DrainTimeout == 0 {
		o.DrainTimeout = time.Second
	}
	switch {
	case o.Interface == "":
		return because(ErrNoInterface, "no interface named")
	case o.OnFailure > FailOpen:
		return fmt.Errorf("no such fail state: %v", o.OnFailure)
	case o.Hook > HookCLSACT:
		return fmt.Errorf("no such hook: %v", o.Hook)
	case o.Queues < 0 || o.Queues > 64:
		return fmt.Errorf("%d queues, expected 1 to 64", o.Queues)
	case o.DeadMan < 4*time.Millisecond:
		return fmt.Errorf("a dead man's switch of %v, expected 4ms or more", o.DeadMan)
	case o.DrainTimeout < 0:
		return fmt.Errorf("a drain timeout of %v", o.DrainTimeout)
	}
	return nil
}

// undo is what to do if a later step fails, last first.
type undo []func()

func (u *undo) add(f func()) { *u = append(*u, f) }
func (u *undo) all() {
	for i := len(*u) - 1; i >= 0; i-- {
		(*u)[i]()
	}
}

// open runs inside the namespace.
func (d *Device) open(u *undo) error {
	var err error
	if d.nl, err = netlink.NewHandle(); err != nil {
		return fmt.Errorf("open netlink: %w", permission(err))
	}
	u.add(d.nl.Close)
	eth, err := findInterface(d.nl, d.opts.Interface)
	if err != nil {
		return err
	}
	d.setInfo(eth)
	k := key{d.info.NetNS, d.info.Index}
	if d.lock, err = awaitLock(k, d.info.Name, lockPatience); err != nil {
		return err
	}
	u.add(func() { d.lock.release() })
	d.pins = pinPath(d.opts.PinDir, k)
	if d.twoNIC() {
		if err := d.openInside(u); err != nil {
			return err
		}
	}

	left, err := findLeft(d.nl, eth, d.pins)
	if err == nil && left == nil {
		left, err = d.adopt(eth)
	}
	if err != nil {
		return err
	}
	var formerly []string
	if left != nil {
		d.cut, d.tookOver = left, true
		u.add(d.cut.close)
		if err := fits(d.nl, left, d.info.Name, d.opts.Inside, d.info.InsideIndex); err != nil {
			return err
		}
		formerly = left.guardNames()
		if err := moveTaps(d.nl, int(left.get(offEthIndex)), d.info.Index); err != nil {
			return err
		}
		if found := Hook(d.cut.get(offHook)); d.opts.Hook != HookAuto && d.opts.Hook != found {
			return because(ErrOccupied, "%s was left shut by %v, which %v cannot take over; recover it first", d.info.Name, found, d.opts.Hook)
		}
	} else {
		if err := clearLeft(d.nl, eth, d.info.Index, d.pins); err != nil {
			return err
		}
		if d.cut, err = newCut(); err != nil {
			return permission(err)
		}
		u.add(d.cut.close)
		// Once taps and programs are there, this is how they go.
		u.add(func() { clearLeft(d.nl, eth, d.info.Index, d.pins) })
		d.guardKept = guardBlocks(d.opts.Interface, d.info.Index) || d.twoNIC() && guardBlocks(d.opts.Inside, d.info.InsideIndex)
		if d.guardKept || d.opts.Severed {
			d.cut.setFlow(flowOf(Active, Active))
		}
	}
	if d.twoNIC() {
		if err := d.adoptInside(); err != nil {
			return err
		}
	}
	if err := d.makeTaps(u); err != nil {
		return err
	}
	u.add(d.wire.closeBatches)
	if err := d.openBatches(); err != nil {
		return err
	}
	d.describe()
	if d.progs, err = loadPrograms(d.cut, d.twoNIC()); err != nil {
		return permission(err)
	}
	u.add(d.progs.close)
	if err := d.attachAll(u); err != nil {
		return err
	}
	if err := d.forbidBypass(); err != nil {
		return err
	}
	u.add(d.ban.close)
	if err := d.settleFailure(); err != nil {
		return err
	}
	d.raiseGuard()
	return errors.Join(d.settleBan(), d.dropGuards(formerly))
}

// describe writes into the map what the programs and later processes must know.
func (d *Device) describe() {
	d.cut.set(offEthIndex, uint32(d.info.Index))
	d.cut.set(offKernelIndex, uint32(d.kernel.tap.index))
	d.cut.set(offWireIndex, uint32(d.wire.tap.index))
	d.cut.setName(offOpenedName, d.opts.Interface)
	d.cut.setName(offName, d.info.Name)
	if d.twoNIC() {
		d.cut.set(offInsideIndex, uint32(d.info.InsideIndex))
		d.cut.setName(offInsideName, d.opts.Inside)
	}
}

// findInterface finds the interface or tells which there are.
func findInterface(nl *netlink.Handle, name string) (netlink.Link, error) {
	l, err := nl.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		ls, err := nl.LinkList()
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) { // another may come or go meanwhile
			return nil, fmt.Errorf("list the interfaces: %w", err)
		}
		var names []string
		for _, l := range ls {
			names = append(names, l.Attrs().Name)
		}
		return nil, because(ErrNoInterface, "no interface %q in this network namespace, there are %s", name, strings.Join(names, ", "))
	}
	if err != nil {
		return nil, fmt.Errorf("look for the interface %s: %w", name, permission(err))
	}
	return l, fitToCut(l)
}

// fitToCut tells what cannot be cut.
func fitToCut(l netlink.Link) error {
	name := l.Attrs().Name
	if e := l.Attrs().EncapType; e != "ether" {
		return because(ErrNotEthernet, "interface %s is of kind %s, expected Ethernet", name, e)
	}
	if ownTap(l) {
		return because(ErrOccupied, "interface %s is itself a tap of a cut", name)
	}
	return nil
}

func (d *Device) setInfo(eth netlink.Link) {
	a := eth.Attrs()
	d.info.Name, d.info.Index, d.info.MAC, d.info.MTU = a.Name, a.Index, a.HardwareAddr, a.MTU
	d.info.KernelTap, d.info.WireTap = tapNames(a.Index)
}

// makeTaps makes both taps, or opens the ones left behind.
func (d *Device) makeTaps(u *undo) error {
	persist := d.opts.OnFailure == FailShut || d.tookOver
	for _, s := range []struct {
		to       **Tap
		name     string
		what     string
		queueLen int
	}{
		{&d.kernel, d.info.KernelTap, "kernel side of " + d.info.Name, kernelQueueLen},
		{&d.wire, d.info.WireTap, "wire side of " + d.info.Name, wireQueueLen},
	} {
		t, err := makeTap(d.nl, s.name, s.what, d.opts.Queues, s.queueLen, persist, !d.opts.NoSuperframes)
		if err != nil {
			return err
		}
		u.add(t.close)
		d.info.UDPSuperframes = t.udp // the same for both
		if t.plain != nil {
			d.info.NoSuperframes = t.plain.Error()
		}
		if *s.to, err = newTap(d, t); err != nil {
			return err
		}
		u.add((*s.to).closeWakers)
	}
	return nil
}

// attachAll attaches the programs by the hook in use, or by the first that the kernel has.
// There is no trial of a hook, which would take as long as the first of them.
func (d *Device) attachAll(u *undo) error {
	want := d.opts.Hook
	if d.tookOver {
		want = Hook(d.cut.get(offHook))
	}
	if want == HookCLSACT {
		return d.attachBy(d.byHook(HookCLSACT), u)
	}
	err := d.attachBy(d.byHook(HookTCX), u)
	switch {
	case len(d.attached) > 0 || !errors.Is(err, ebpf.ErrNotSupported):
		return err
	case want == HookTCX:
		return because(ErrNoHook, "kernel %s has no tcx (Linux 6.6, CONFIG_NET_XGRESS)", kernelRelease())
	}
	return d.attachBy(d.byHook(HookCLSACT), u)
}

// attachBy is attachAll by one hook.
func (d *Device) attachBy(h hooker, u *undo) error {
	if d.opts.OnFailure == FailShut || d.twoNIC() || h.hook() == HookCLSACT {
		// With clsact the filters outlive the process in any case, and the next
		// one needs the map to know what they are.
		if err := makePinDir(d.pins); err != nil {
			return err
		}
		if !d.tookOver {
			if err := d.cut.pin(filepath.Join(d.pins, cutPin)); err != nil {
				return fmt.Errorf("pin the map of the cut in %s: %w", d.pins, permission(err))
			}
		}
	}
	d.info.Hook = h.hook()
	d.cut.set(offHook, uint32(h.hook()))
	if !d.tookOver {
		d.cut.set(offFail, uint32(d.opts.OnFailure))
	}
	if d.twoNIC() {
		if err := d.join(); err != nil {
			return err
		}
	}
	for _, p := range d.points() {
		a, err := h.attach(p)
		if err != nil {
			return err
		}
		d.attached = append(d.attached, a)
		if d.tookOver {
			u.add(func() { a.release() })
		} else {
			u.add(func() { a.detach() })
		}
		if d.opts.OnFailure == FailShut || p.stays {
			if err := a.keep(); err != nil {
				return err
			}
		}
	}
	return nil
}

// points are the places of the device's programs.
func (d *Device) points() []point {
	if d.twoNIC() {
		// A clsact filter has no other behind it, and needs none: it stays.
		direct := d.fails == FailOpen && d.info.Hook == HookTCX
		return pointsBetween(d.progs, d.info.InsideIndex, d.info.Index, d.kernel.tap.index, d.wire.tap.index, direct)
	}
	return points(d.progs, d.info.Index, d.kernel.tap.index, d.wire.tap.index)
}

// byHook gives what attaches by a hook.
func (d *Device) byHook(h Hook) hooker {
	if h == HookTCX {
		return tcx{dir: d.pins}
	}
	return clsact{nl: d.nl, onQdisc: func(ifindex int) {
		switch ifindex {
		case d.info.Index:
			d.cut.set(offQdisc, 1)
		case d.info.InsideIndex:
			d.cut.set(offInsideQdisc, 1)
		}
	}}
}

// settleFailure is the last step: it makes the fail state what the options say,
// and shows the states of the map.
func (d *Device) settleFailure() error {
	if d.opts.OnFailure == FailOpen {
		if d.tookOver {
			if err := d.unshut(); err != nil {
				d.reshut()
				return err
			}
		}
		d.feed()
	} else if d.twoNIC() {
		if err := d.shutDirect(); err != nil {
			return err
		}
	}
	d.showStates()
	return nil
}

// showStates shows the states of the map.
func (d *Device) showStates() {
	// A process that ended in the middle of a drain left the permissions to write.
	f := d.cut.flow()
	for _, s := range []*State{&f.kernel, &f.wire} {
		if *s == draining {
			*s = Closed
		}
	}
	d.cut.setFlow(flowOf(f.kernel, f.wire))
	for _, n := range []struct {
		t *Tap
		s State
	}{{d.kernel, f.kernel}, {d.wire, f.wire}} {
		n.t.state.Store(uint32(n.s))
		n.t.readable.Store(n.s != Closed)
		n.t.writable.Store(n.s == Active)
	}
}

// unshut makes a cut that was left shut end with this process.
func (d *Device) unshut() error {
	for _, t := range []*Tap{d.kernel, d.wire} {
		if err := t.tap.persistent(false); err != nil {
			return err
		}
	}
	d.cut.set(offFail, uint32(FailOpen))
	points := d.points()
	for i, a := range d.attached {
		if points[i].stays {
			continue
		}
		if err := a.drop(); err != nil {
			return err
		}
	}
	if d.info.Hook == HookTCX && !d.twoNIC() {
		// What cannot be removed now says FailOpen, and the next Open clears it.
		removePinDir(d.pins)
	}
	return nil
}

// reshut undoes unshut: a takeover that fails leaves the cut shut.
func (d *Device) reshut() {
	d.cut.set(offFail, uint32(FailShut))
	for _, a := range d.attached {
		a.keep()
	}
	for _, t := range []*Tap{d.kernel, d.wire} {
		t.tap.persistent(true)
	}
}

// findLeft finds a cut that an earlier process left shut and that is still in
// force; nil if there is none.
func findLeft(nl *netlink.Handle, eth netlink.Link, pins string) (*cut, error) {
	c, err := loadCut(filepath.Join(pins, cutPin))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	index := eth.Attrs().Index
	if outer, ok := insideOf(nl, eth, pins); ok {
		c.close()
		return nil, because(ErrOccupied, "%s was left as the inside of interface %d; recover that one first", eth.Attrs().Name, outer)
	}
	if errors.Is(err, ErrOccupied) {
		// Of another version. It says nothing if its programs are gone, as after the end
		// of a namespace whose number has been given to this one.
		if fs, ferr := ownFilters(nl, eth); ferr == nil && len(fs) == 0 &&
			!holdsTCX(filepath.Join(pins, "eth_in"), index) && !holdsTCX(filepath.Join(pins, "eth_out"), index) {
			return nil, nil
		}
	}
	if err != nil {
		return nil, permission(err)
	}
	force := false
	switch Hook(c.get(offHook)) {
	case HookTCX:
		force = holdsTCX(filepath.Join(pins, "eth_in"), index) || holdsTCX(filepath.Join(pins, "eth_out"), index)
	case HookCLSACT:
		fs, err := ownFilters(nl, eth)
		if err != nil {
			c.close()
			return nil, err
		}
		force = len(fs) > 0
	}
	if force && c.get(offInsideIndex) != 0 && int(c.get(offEthIndex)) == index {
		return c, nil // also where it was left open, since its programs are the flow
	}
	if was := int(c.get(offEthIndex)); was != index {
		// A move to this interface was cut short, if the taps are there; the programs of
		// the interface before went with that.
		force = tapOf(nl, index) != nil || !linkThere(nl, was) && tapOf(nl, was) != nil
	}
	if !force || FailState(c.get(offFail)) != FailShut {
		c.close()
		return nil, nil
	}
	return c, nil
}
