package appliance

import (
	"errors"
	"fmt"

	"bitw/config"
	"bitw/netstack/ethtap"
)

// offloads is what has become of Config.Offloads: why those that may be used are not.
type offloads struct {
	superframes, coalescing, forwarding error
}

// setOffloads does what the configuration in force says of offloads, but for the ring,
// which a device has from the start or never. b.mu is held, or nobody else knows b.
func (b *bump) setOffloads(o config.Offloads) {
	b.offloads = offloads{}
	encap := !o.NoUDPSuperframes && b.device != nil
	b.engine.SetCoalescing(!o.NoCoalescing)
	b.dev.SetUDPSuperframes(encap)
	b.engine.SetUDPOffload(encap)
	if b.device == nil {
		return
	}
	b.device.SetBatches(!o.NoBatches)
	b.kern.SetUDPSuperframes(false) // the engine joins what goes there
	b.engine.SetJoinUDP(b.device.Info().UDPSuperframes)
	b.offloads.superframes = b.device.SetSuperframes(!o.NoSuperframes)
	b.offloads.forwarding = b.device.SetUDPForwarding(encap && b.receivesEncap())
}

// receivesEncap says whether ESP in UDP is expected from the wire.
func (b *bump) receivesEncap() bool {
	for _, s := range b.live.Load().SAs {
		if s.Encap != nil {
			return true
		}
	}
	return false
}

// watchOffloads turns off what a link has refused. It is done once a second: what was
// refused meanwhile has been cut and sent nevertheless.
func (b *bump) watchOffloads() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.kern.RefusedUDP(); err != nil {
		b.engine.SetJoinUDP(false)
	}
	if err := b.kern.RefusedTCP(); err != nil && b.offloads.coalescing == nil && !b.live.Load().Offloads.NoCoalescing {
		b.offloads.coalescing = err
		b.engine.SetCoalescing(false)
		b.log.WithError(err).Warn("the kernel refused a superframe, so TCP segments for the host are not joined any more")
	}
	if err := b.dev.RefusedUDP(); err != nil && !b.udpRefused {
		b.log.WithError(err).Warn("the kernel refused a UDP superframe, so ESP in UDP goes datagram by datagram")
	}
	b.udpRefused = b.dev.RefusedUDP() != nil
}

// Reasons of an OffloadStatus.
const (
	offByConfiguration = "configuration"
	offWithoutDevice   = "there is no interface of the kernel's"
)

// offloadStatus tells of each offload whether it is in use, and why not.
func (b *bump) offloadStatus() []OffloadStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	var info ethtap.Info
	if b.device != nil {
		info = b.device.Info()
	}
	text := func(err error) string {
		if err != nil {
			return err.Error()
		}
		return ""
	}
	why := map[string]string{
		"ring": info.NoRing, "batches": info.NoBatches, "superframes": info.NoSuperframes,
		"coalescing": text(b.offloads.coalescing), "udp_superframes": text(errors.Join(b.dev.RefusedUDP(), b.offloads.forwarding)),
	}
	if err := b.offloads.superframes; err != nil {
		why["superframes"] = err.Error()
	}
	var list []OffloadStatus
	b.live.Load().Offloads.Each(func(name string, on bool) {
		st := OffloadStatus{Name: name, On: on, Why: why[name]}
		switch {
		case name == "ring" && !on && info.Rings > 0:
			st.On, st.Why = true, "the process before had it; bitw down and bitw up end it"
		case !on:
			st.Why = offByConfiguration
		case b.device == nil && name != "coalescing":
			st.On, st.Why = false, offWithoutDevice
		case st.Why != "":
			st.On = name == "udp_superframes" && b.dev.UDPSuperframes() // half of it
		}
		list = append(list, st)
	})
	return list
}

// offloads is about what the kernel does not do.
func (c *checkup) offloads() {
	for _, o := range c.s.Offloads {
		if o.Why == "" || o.Why == offByConfiguration || o.Why == offWithoutDevice {
			continue
		}
		about := "offload " + o.Name
		c.say(Notice, about, "nothing, if it is fast enough; offloads: {"+o.Name+": false} ends this notice", "the kernel does without, which is slower (%s)", o.Why)
	}
}

// String is such as "ring off (configuration)".
func (o OffloadStatus) String() string {
	s := o.Name + " off"
	if o.On {
		s = o.Name + " on"
	}
	if o.Why != "" {
		s += fmt.Sprintf(" (%s)", o.Why)
	}
	return s
}
