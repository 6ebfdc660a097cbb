package appliance

import (
	"errors"
	"fmt"
	"strings"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"bitw/appliance/hostnet"
	"bitw/config"
	"bitw/netstack/ethtap"
	"bitw/netstack/hook"
	"bitw/netstack/ipsec"
)

// stateWaiting is the state in which there is no interface to cut. Everything else,
// the SAs with their sequence numbers too, is kept, and goes on as soon as an
// interface has the name.
const stateWaiting = "waiting for interface"

// hostChanged follows the interface.
func (b *bump) hostChanged(i *hostnet.Interface, ev hostnet.Event) {
	now := interfaceHost(i)
	if ev.Has(hostnet.Initial) {
		b.host.Store(now)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changed(now, now.name, ev, false)
}

// changed acts on a change of an interface, which may be the inside of two. b.mu is held.
func (b *bump) changed(now *hostState, name string, ev hostnet.Event, inside bool) {
	b.host.Store(now)
	if b.applied == nil {
		return // not yet attached, or no more
	}
	b.logChange(now, name, ev)
	old := b.applied
	b.apply(now)
	for _, k := range []hostnet.Event{hostnet.Gone, hostnet.Recreated, hostnet.MAC, hostnet.MTU, hostnet.Renamed} {
		if ev.Has(k) {
			b.followDevice(now, name)
			break
		}
	}
	if !ev.Has(hostnet.Recreated) && !ev.Has(hostnet.MAC) && !ev.Has(hostnet.Carrier) {
		if !b.twoNIC() {
			b.announceHost(now, old)
		}
		return
	}
	switch {
	case !b.twoNIC():
		b.announceHost(now, nil)
	case b.answers() && !b.crossing.Load():
		b.announceBox()
	}
	if inside {
		b.nics.hosts.Forget()
	} else {
		b.forgetNeighbors()
	}
}

// logChange tells what happened to the interface.
func (b *bump) logChange(now *hostState, name string, ev hostnet.Event) {
	x := interfaceEvent(now, ev)
	if x.Name = name; name == now.inside.name {
		x.MAC, x.MTU = now.inside.mac.String(), now.inside.mtu
	}
	x.Level = "warning"
	switch {
	case ev.Has(hostnet.Gone):
		x.Kind, x.Text = InterfaceGone, "the interface is gone; waiting for one of that name"
	case ev.Has(hostnet.Recreated) && b.cfg.OnFailure == config.Open:
		x.Kind, x.Text = InterfaceRecreated, "the interface was created anew; on_failure is open, so its traffic passed in the clear until now"
	case ev.Has(hostnet.Recreated):
		x.Kind, x.Text = InterfaceRecreated, "the interface was created anew"
	case ev.Has(hostnet.Renamed):
		x.Text = "the interface has another name; it stays cut"
	case ev.Has(hostnet.CarrierLost), ev.Has(hostnet.Carrier):
		x.Text = "the interface's carrier changed"
	default:
		x.Level = "info"
	}
	b.tell(x)
}

// interfaceEvent is the event of a change of the interface.
func interfaceEvent(now *hostState, ev hostnet.Event) Event {
	return Event{
		Kind: InterfaceChanged, Level: "info", Text: "the interface changed", Changes: strings.Split(ev.String(), ","),
		Name: now.name, MAC: now.mac.String(), MTU: now.mtu,
	}
}

// follow applies what is known of the host from now on as it changes.
func (b *bump) follow() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.applied = &hostState{}
	now := b.host.Load()
	b.apply(now)
	if b.device == nil {
		return
	}
	if i := b.device.Info(); i.Index != now.index || i.Name != now.name || i.InsideIndex != now.inside.index || i.Inside != now.inside.name {
		b.followDevice(now, now.name) // it changed while everything was being built
	}
}

// followDevice brings the cut to the interfaces as they are now, of which that of the name
// has changed. b.mu is held.
func (b *bump) followDevice(now *hostState, name string) {
	if b.device == nil {
		return
	}
	was := b.absent.Load()
	var err error
	switch {
	case !b.twoNIC():
		err = b.device.Follow(now.index)
	case now.index == 0: // first that it is gone, which the other must know
		err = errors.Join(b.device.Follow(0), b.device.FollowInside(now.inside.index))
	default:
		err = errors.Join(b.device.FollowInside(now.inside.index), b.device.Follow(now.index))
	}
	b.absent.Store(err != nil || now.gone())
	switch {
	case errors.Is(err, ethtap.ErrClosed):
	case err != nil && !was:
		b.tell(Event{Kind: InterfaceUncut, Level: "error", Text: "the interface cannot be cut; trying again", Name: name, Error: err.Error()})
	case err != nil:
		b.log.WithError(err).Debug("the interface still cannot be cut")
	case was && !now.gone():
		b.tell(Event{Kind: InterfaceCut, Level: "warning", Text: "the interface is cut again, by " + b.cut(), Name: name})
	}
}

// keepCut is done once a second: it tries again to cut an interface that could not be
// cut, and sees to it that programs, taps and guard are there.
func (b *bump) keepCut() {
	if b.device == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.applied == nil {
		return
	}
	if now := b.host.Load(); b.absent.Load() && !now.gone() {
		b.followDevice(now, now.name)
		switch {
		case b.absent.Load():
		case !b.twoNIC():
			b.announceHost(now, nil)
		case b.answers() && !b.crossing.Load():
			b.announceBox()
		}
	}
	switch restored, err := b.device.CheckCut(); {
	case errors.Is(err, ethtap.ErrClosed):
	case err != nil:
		b.tell(Event{Kind: InterfaceUncut, Level: "error", Text: "the programs of the cut were taken off by somebody, and cannot be put back; traffic passes in the clear", Error: err.Error()})
	case restored:
		b.tell(Event{Kind: InterfaceCut, Level: "error", Text: "the programs of the cut were taken off by somebody, and are back; traffic may have passed in the clear: does something delete or replace the clsact qdisc?"})
	}
	switch restored, err := b.device.CheckTaps(); {
	case errors.Is(err, ethtap.ErrClosed):
	case errors.Is(err, ethtap.ErrNoTap):
		b.fail(fmt.Errorf("nothing can pass: %w", err))
	case err != nil:
		b.log.WithError(err).Warn("the taps cannot be seen to")
	case restored:
		b.tell(Event{Kind: TapRestored, Level: "error", Text: "a tap was set down by somebody, by which nothing passed, and is up again: does a network manager take the taps for its own?"})
	}
	switch restored, err := b.device.CheckGuard(); {
	case errors.Is(err, ethtap.ErrClosed):
	case err != nil:
		b.tell(Event{Kind: GuardMissing, Level: "error", Text: "the guard was removed, and cannot be made anew", Error: err.Error()})
	case restored:
		b.tell(Event{Kind: GuardRestored, Level: "warning", Text: "the guard was removed by somebody, and is made anew: does reloading a firewall flush all of nftables?"})
	}
}

// announceHost tells the stations on the wire at which Ethernet address those of the
// host's addresses are now that it did not have before, all if old is nil. Its kernel
// tells nobody, and who sends to the address of before would notice late.
func (b *bump) announceHost(now, old *hostState) {
	if now.gone() {
		return
	}
	for a := range now.own {
		if old == nil || !old.has(a) {
			hook.Announce(b.dev, a, now.mac)
		}
	}
}

// forgetNeighbors has the right side ask for its neighbours anew, which also tells them
// the host's present Ethernet address. b.mu is held.
func (b *bump) forgetNeighbors() {
	for _, p := range []tcpip.NetworkProtocolNumber{header.IPv4ProtocolNumber, header.IPv6ProtocolNumber} {
		if err := b.stack.ClearNeighbors(ipsec.RightNIC, p); err != nil {
			b.log.Warnf("the right NIC's neighbours stay as they were: %v", err)
		}
	}
	if err := b.staticNeighbors(); err != nil {
		b.log.WithError(err).Warn("a static neighbour is lost")
	}
}

// reportInterface fills in what became of the interface.
func (b *bump) reportInterface(s *Status) {
	if b.device == nil {
		s.Carrier = true
		return
	}
	now := b.host.Load()
	s.Carrier = now.index != 0 && now.carrier
	if now.name != s.Interface {
		s.RenamedTo = now.name
	}
	kind, err := b.device.Guard()
	s.Guard = kind.String()
	say := func(severity, remedy, format string, args ...any) {
		s.Health = append(s.Health, Finding{severity, "", fmt.Sprintf(format, args...), remedy})
	}
	switch {
	case b.absent.Load() && now.index == 0:
		s.State = stateWaiting
		say(Critical, "bitw cuts it as soon as there is one", "there is no interface %s now", s.Interface)
	case b.absent.Load() && now.gone():
		s.State = stateWaiting
		say(Critical, "bitw cuts it as soon as there is one", "there is no interface %s now, the inside", s.Inside)
	case b.absent.Load():
		s.State = stateWaiting
		say(Critical, "see the log; bitw tries again each second", "interface %s was created anew and cannot be cut", s.Interface)
	case !s.Carrier:
		say(Critical, "set it up (ip link set "+now.name+" up), or see to its cable", "interface %s is down or has no carrier", now.name)
	}
	const rename = "name it so in the configuration before the next start"
	if s.RenamedTo != "" {
		say(Warning, rename, "interface %s is called %s now and stays cut", s.Interface, s.RenamedTo)
	}
	if b.twoNIC() && now.inside.name != b.cfg.Inside {
		say(Warning, rename, "interface %s is called %s now and stays cut", b.cfg.Inside, now.inside.name)
	}
	s.BypassForbidden, s.BypassRefused = b.device.Bypass()
	if err != nil {
		say(Warning, "see that the kernel has nftables", "if %s is deleted and created anew, it is open until bitw has cut it again, for want of a guard (%v)", s.Interface, err)
	}
}

// bypassCgroup is where sockets that send past the cut are to be refused, "" for nowhere.
func bypassCgroup(cfg *Config) (string, error) {
	switch {
	case !cfg.ForbidBypass:
		return "", nil
	case cfg.BypassCgroup != "":
		return cfg.BypassCgroup, nil
	}
	dir, err := ethtap.DefaultCgroup()
	if err != nil {
		return "", cfg.ErrorAt("forbid_bypass", err.Error(), "mount it, or remove forbid_bypass", err)
	}
	return dir, nil
}
