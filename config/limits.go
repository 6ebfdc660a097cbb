package config

import (
	"fmt"
	"time"
)

// Limits bound the memory that incomplete datagrams and those that wait for an SA may
// take, and how long; 0 stands for the default of netstack/ipsec.
type Limits struct {
	// FragmentMemory is in octets, for each side. FragmentTimeout is how long a datagram
	// may stay incomplete.
	FragmentMemory  uint64
	FragmentTimeout time.Duration
	Acquire         AcquireLimits
}

// AcquireLimits bound what waits for an SA that a key manager was asked for.
type AcquireLimits struct {
	// Packets and Bytes are for one SA, Memory in octets for all.
	Packets, Bytes, Memory uint64
	// Time is how long a datagram waits at most.
	Time time.Duration
}

const (
	// minMemory takes a few of the longest datagrams in fragments.
	minMemory = 256 << 10
	maxMemory = 1 << 40
	// maxWait is how long RFC 1122 §3.3.2 lets fragments wait, and more than any sender
	// waits for an answer.
	maxWait = 120 * time.Second
)

// limits reads the keys of Limits.
func (d *decoder) limits(f *fields) {
	l := &d.config.Limits
	if n := f.by["fragment_memory"]; n != nil {
		l.FragmentMemory = d.memory(n, "fragment_memory")
	}
	if n := f.by["fragment_timeout"]; n != nil {
		l.FragmentTimeout = d.wait(n, "fragment_timeout")
	}
	n := f.by["acquire"]
	if n == nil {
		return
	}
	a := d.fields(n, "the limits of acquire", acquireKeyNames...)
	if a == nil {
		return
	}
	if n := a.by["packets"]; n != nil {
		l.Acquire.Packets, _ = d.number(n, 1, 1<<20)
	}
	if n := a.by["bytes"]; n != nil {
		l.Acquire.Bytes = d.memory(n, "bytes")
	}
	if n := a.by["memory"]; n != nil {
		l.Acquire.Memory = d.memory(n, "memory")
	}
	if n := a.by["time"]; n != nil {
		l.Acquire.Time = d.wait(n, "time")
	}
}

// memory reads a number of octets that something of use fits into.
func (d *decoder) memory(n *node, key string) uint64 {
	before := len(d.errs)
	v := d.bytes(n)
	if len(d.errs) == before && (v < minMemory || v > maxMemory) {
		d.fail(n.place, "", "%s is %s, expected 256KiB to 1TiB", key, quote(n.text))
	}
	return v
}

// wait reads how long a datagram may be kept.
func (d *decoder) wait(n *node, key string) time.Duration {
	before := len(d.errs)
	v := d.duration(n)
	if len(d.errs) == before && (v < time.Second || v > maxWait) {
		d.fail(n.place, "", "%s is %s, expected 1s to %v", key, quote(n.text), maxWait)
	}
	return v
}

// limits writes what differs from the default.
func (w *writer) limits(l *Limits) {
	if l.FragmentMemory != 0 {
		w.line(0, "fragment_memory", fmt.Sprint(l.FragmentMemory))
	}
	if l.FragmentTimeout != 0 {
		w.line(0, "fragment_timeout", l.FragmentTimeout.String())
	}
	if l.Acquire == (AcquireLimits{}) {
		return
	}
	w.WriteString("acquire:\n")
	for _, x := range []struct {
		key   string
		value uint64
	}{{"packets", l.Acquire.Packets}, {"bytes", l.Acquire.Bytes}, {"memory", l.Acquire.Memory}} {
		if x.value != 0 {
			w.line(2, x.key, fmt.Sprint(x.value))
		}
	}
	if l.Acquire.Time != 0 {
		w.line(2, "time", l.Acquire.Time.String())
	}
}

// lifetime reads the limits of an SA.
func (d *decoder) lifetime(n *node) (v Lifetime) {
	l := d.fields(n, "a lifetime", lifetimeKeyNames...)
	if l == nil {
		return v
	}
	if n := l.by["packets"]; n != nil {
		v.Packets, _ = d.number(n, 0, 1<<64-1)
	}
	if n := l.by["bytes"]; n != nil {
		v.Bytes = d.bytes(n)
	}
	if n := l.by["time"]; n != nil {
		v.Time = d.duration(n)
	}
	return v
}

// lifetimes reads both of an SA. A soft limit beyond the hard one would never be heard
// of.
func (d *decoder) lifetimes(f *fields, sa *SA) {
	if n := f.by["lifetime"]; n != nil {
		sa.Lifetime = d.lifetime(n)
	}
	n := f.by["soft_lifetime"]
	if n == nil {
		return
	}
	sa.SoftLifetime = d.lifetime(n)
	for _, x := range []struct {
		key        string
		soft, hard uint64
	}{
		{"packets", sa.SoftLifetime.Packets, sa.Lifetime.Packets}, {"bytes", sa.SoftLifetime.Bytes, sa.Lifetime.Bytes},
		{"time", uint64(sa.SoftLifetime.Time), uint64(sa.Lifetime.Time)},
	} {
		if x.hard != 0 && x.soft > x.hard {
			d.fail(n.place, "", "soft_lifetime has more %s than lifetime", x.key)
		}
	}
}

// lifetime writes one of the limits of an SA.
func (w *writer) lifetime(key string, l Lifetime) {
	if l != (Lifetime{}) {
		fmt.Fprintf(w, "    %s: {packets: %d, bytes: %d, time: %s}\n", key, l.Packets, l.Bytes, l.Time)
	}
}
