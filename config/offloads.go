package config

import (
	"fmt"
	"strings"
)

// Offloads are the ways to move many packets at the cost of one that are not to be used,
// though the kernel may have them. The zero value uses all.
type Offloads struct {
	// NoRing reads the wire's frames from a TAP, one by one, and not from a packet ring.
	NoRing bool
	// NoBatches sends the wire's frames by a TAP, one by one, and not many in one system
	// call.
	NoBatches bool
	// NoSuperframes has the kernel cut the host's TCP and UDP superframes before they come,
	// which ethtool calls segmentation offload.
	NoSuperframes bool
	// NoCoalescing gives the host each TCP segment as it came, and not many as one
	// superframe, which ethtool calls generic receive offload.
	NoCoalescing bool
	// NoUDPSuperframes sends each datagram of ESP in UDP alone, which ethtool calls
	// tx-udp-segmentation, and does not have the interface join those that it receives,
	// rx-udp-gro-forwarding.
	NoUDPSuperframes bool
}

// An offload is one of Offloads by its name.
type offload struct {
	name string
	off  *bool
}

// list has them in the order of the table of keys.
func (o *Offloads) list() []offload {
	return []offload{
		{"ring", &o.NoRing}, {"batches", &o.NoBatches}, {"superframes", &o.NoSuperframes},
		{"coalescing", &o.NoCoalescing}, {"udp_superframes", &o.NoUDPSuperframes},
	}
}

// Each calls f with the name of each offload, in the order of the manual, and whether it may
// be used.
func (o Offloads) Each(f func(name string, on bool)) {
	for _, x := range o.list() {
		f(x.name, !*x.off)
	}
}

// offloads reads true or false for all, or a mapping.
func (d *decoder) offloads(f *fields) {
	n := f.by["offloads"]
	if n == nil {
		return
	}
	list := d.config.Offloads.list()
	if n.kind == scalar {
		on := d.boolean(n)
		for _, x := range list {
			*x.off = !on
		}
		return
	}
	m := d.fields(n, "the offloads", offloadKeyNames...)
	if m == nil {
		return
	}
	for _, x := range list {
		if n := m.by[x.name]; n != nil {
			*x.off = !d.boolean(n)
		}
	}
}

// offloads writes those that are off.
func (w *writer) offloads(o *Offloads) {
	var off []string
	for _, x := range o.list() {
		if *x.off {
			off = append(off, x.name+": false")
		}
	}
	if len(off) > 0 {
		fmt.Fprintf(w, "offloads: {%s}\n", strings.Join(off, ", "))
	}
}
