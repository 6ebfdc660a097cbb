package sa

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"bitw/netstack/wire"
)

// A Populate says which selectors of a policy are populated from the packet (PFP,
// RFC 4301 §4.4.1.2): each distinct value that traffic brings gets SAs of its own.
type Populate uint8

const (
	PopulateLocal Populate = 1 << iota
	PopulateRemote
	PopulateProto
	// PopulateLocalPorts and PopulateRemotePorts are for protocols that have ports.
	PopulateLocalPorts
	PopulateRemotePorts
	// PopulateICMP is for the type and code of ICMP and ICMPv6.
	PopulateICMP
	// PopulateMH is for the type of a mobility header.
	PopulateMH

	populateUpper = PopulateLocalPorts | PopulateRemotePorts | PopulateICMP | PopulateMH
	populateAll   = PopulateMH<<1 - 1
)

// check returns why p cannot populate f.
func (f Populate) check(p *Policy) error {
	s := &p.Selector
	switch {
	case f == 0:
		return nil
	case f > populateAll:
		return fmt.Errorf("unknown selectors to populate: %#x", uint8(f))
	case p.Action != Protect:
		return fmt.Errorf("action %v populates no selectors", p.Action)
	case f&(PopulateLocalPorts|PopulateRemotePorts) != 0 && s.Proto != AnyProto && !hasPorts(s.Proto):
		return fmt.Errorf("protocol %d has no ports to populate", s.Proto)
	case f&PopulateICMP != 0 && s.Proto != AnyProto && !isICMP(s.Proto):
		return fmt.Errorf("protocol %d has no ICMP type to populate", s.Proto)
	case f&PopulateMH != 0 && s.Proto != AnyProto && s.Proto != protoMH:
		return fmt.Errorf("protocol %d has no MH type to populate", s.Proto)
	case f&populateUpper != 0 && s.Proto == AnyProto && f&PopulateProto == 0:
		return fmt.Errorf("%v needs a protocol, or protocol to be populated", f&populateUpper)
	case f&populateUpper != 0 && s.Opaque:
		return errors.New("opaque leaves no ports, types and codes to populate")
	}
	return nil
}

// String returns for example "remote,remote_ports"; "none" for no flag.
func (f Populate) String() string {
	var words []string
	for i, w := range []string{"local", "remote", "protocol", "local_ports", "remote_ports", "icmp", "mh_type"} {
		if f&(1<<i) != 0 {
			words = append(words, w)
		}
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ",")
}

// maxPopulated is how many entries one policy may have at once. Their number is
// what traffic makes it, so it must end somewhere.
const maxPopulated = 1 << 14

// populatedPatience is how long an entry without SAs is kept when there are as many
// as may be.
const populatedPatience = time.Minute

// A populatedKey holds the values of the selectors that a policy populates, and
// zero for the others.
type populatedKey struct {
	local, remote         netip.Addr
	localPort, remotePort uint16
	proto, icmpType, code uint8
	mhType                uint8
}

// populated are the entries of a policy.
type populated struct {
	mu    sync.Mutex // held by those who change
	table table[populatedKey, Policy]
	// nextSweep is when sweep may look again, in nanoseconds since 1970.
	nextSweep int64
}

// populatedSeed is no secret: the entries are those that a key manager agreed to.
const populatedSeed = 0x94d049bb133111eb

func (k *populatedKey) hash() uint64 {
	h := uint64(populatedSeed)
	for _, a := range []netip.Addr{k.local, k.remote} {
		b := a.As16()
		h = mix(h^binary.LittleEndian.Uint64(b[:8]), binary.LittleEndian.Uint64(b[8:])^0x9e3779b97f4a7c15)
	}
	ports := uint64(k.localPort)<<16 | uint64(k.remotePort)
	upper := uint64(k.proto)<<24 | uint64(k.icmpType)<<16 | uint64(k.code)<<8 | uint64(k.mhType)
	return mix(h^ports, upper^0xbf58476d1ce4e5b9)
}

// compare orders keys by local address, remote address, and so on.
func (k *populatedKey) compare(l *populatedKey) int {
	return cmp.Or(k.local.Compare(l.local), k.remote.Compare(l.remote), cmp.Compare(k.proto, l.proto),
		cmp.Compare(k.localPort, l.localPort), cmp.Compare(k.remotePort, l.remotePort),
		cmp.Compare(k.icmpType, l.icmpType), cmp.Compare(k.code, l.code), cmp.Compare(k.mhType, l.mhType))
}

// keyOf returns the key of a flow that p's selector matches. false means that a
// value is wanted which the datagram does not tell.
func (p *Policy) keyOf(f *Flow) (k populatedKey, ok bool) {
	if p.Populate&PopulateLocal != 0 {
		k.local = f.Local.Unmap()
	}
	if p.Populate&PopulateRemote != 0 {
		k.remote = f.Remote.Unmap()
	}
	if p.Populate&PopulateProto != 0 {
		k.proto = f.Proto
	}
	const upper = PopulateLocalPorts | PopulateRemotePorts
	switch {
	case hasPorts(f.Proto) && p.Populate&upper != 0:
		if p.Populate&PopulateLocalPorts != 0 {
			k.localPort = f.LocalPort
		}
		if p.Populate&PopulateRemotePorts != 0 {
			k.remotePort = f.RemotePort
		}
	case isICMP(f.Proto) && p.Populate&PopulateICMP != 0:
		k.icmpType, k.code = f.ICMPType, f.ICMPCode
	case f.Proto == protoMH && p.Populate&PopulateMH != 0:
		k.mhType = f.MHType
	default:
		return k, true
	}
	return k, f.HasPorts
}

// entry returns the entry for the values of f, or p if there is none or p populates
// nothing.
func (p *Policy) entry(f *Flow) *Policy {
	if p.Populate == 0 {
		return p
	}
	if k, ok := p.keyOf(f); ok {
		if entry := p.populated.table.find(k.hash(), &k); entry != nil {
			return entry
		}
	}
	return p
}

// Narrow returns p's selector with the values of f where p populates: what SAs for
// this flow are to cover (RFC 4301 §4.4.1.2). p's selector matches f. ok is false
// when f does not tell a value that is wanted.
func (p *Policy) Narrow(f *Flow) (s Selector, ok bool) {
	k, ok := p.keyOf(f)
	if !ok {
		return Selector{}, false
	}
	s = p.Selector
	if k.local.IsValid() {
		s.Local = []AddrRange{AddrRangeFrom(k.local)}
	}
	if k.remote.IsValid() {
		s.Remote = []AddrRange{AddrRangeFrom(k.remote)}
	}
	if p.Populate&PopulateProto != 0 {
		s.Proto = f.Proto
	}
	switch {
	case hasPorts(s.Proto):
		if p.Populate&PopulateLocalPorts != 0 {
			s.LocalPorts = []PortRange{{k.localPort, k.localPort}}
		}
		if p.Populate&PopulateRemotePorts != 0 {
			s.RemotePorts = []PortRange{{k.remotePort, k.remotePort}}
		}
	case isICMP(s.Proto) && p.Populate&PopulateICMP != 0:
		s.ICMPTypes, s.ICMPCodes = []ByteRange{{k.icmpType, k.icmpType}}, []ByteRange{{k.code, k.code}}
	case s.Proto == protoMH && p.Populate&PopulateMH != 0:
		s.MHTypes = []ByteRange{{k.mhType, k.mhType}}
	}
	return s, true
}

// Demand returns the entry for the values of f, which p matched, and makes it if
// there is none: a policy with the narrowed selector, and with lineages of its own,
// which have the names of p's and notify whom those notify, but have no SAs yet. So
// the first datagram makes the key manager be asked (see Lineage.NeedSA), and a key
// manager that the peer asked first calls it as well. now is in nanoseconds since
// 1970.
//
// The reasons are DropFragPolicy, when f does not tell a value that is wanted, and
// DropNoSA when the policy has as many entries as it may.
func (p *Policy) Demand(f *Flow, now int64) (*Policy, wire.DropReason) {
	k, ok := p.keyOf(f)
	if !ok {
		return nil, wire.DropFragPolicy
	}
	e := &p.populated
	e.mu.Lock()
	defer e.mu.Unlock()
	if entry := e.table.find(k.hash(), &k); entry != nil {
		return entry, wire.DropNone
	}
	if e.table.count >= maxPopulated {
		p.sweep(now)
	}
	if e.table.count >= maxPopulated {
		return nil, wire.DropNoSA
	}
	entry := &Policy{
		Name: p.Name, Action: p.Action, Directions: p.Directions,
		DiscardFragments: p.DiscardFragments, MSSClamp: p.MSSClamp, parent: p, key: k, born: now,
	}
	entry.Selector, _ = p.Narrow(f)
	fresh := make(map[*Lineage]*Lineage)
	entry.Out, entry.In = renew(fresh, p.Out), renew(fresh, p.In)
	e.table.hash = (*populatedKey).hash
	e.table.set(k, entry)
	return entry, wire.DropNone
}

// renew returns lineages like those of list; one that stood twice is one again.
func renew(fresh map[*Lineage]*Lineage, list []*Lineage) []*Lineage {
	var out []*Lineage
	for _, l := range list {
		if fresh[l] == nil {
			fresh[l] = &Lineage{Name: l.Name, Notify: l.Notify, DeadAfter: l.DeadAfter}
		}
		out = append(out, fresh[l])
	}
	return out
}

// sweep removes entries for which no SA came in time. It looks once a second, since
// it looks at all of them.
func (p *Policy) sweep(now int64) {
	e := &p.populated
	if now < e.nextSweep {
		return
	}
	e.nextSweep = now + int64(time.Second)
	var gone []*Policy
	e.table.all(func(entry *Policy) {
		for _, l := range entry.Out {
			if l.Outbound() != nil {
				return
			}
		}
		if now-entry.born > int64(populatedPatience) {
			gone = append(gone, entry)
		}
	})
	for _, entry := range gone {
		p.remove(entry)
	}
}

// Remove takes an entry out, from the next datagram on, and says whether it was
// there. What it counted stays with p. Its SAs are the key manager's to delete.
func (p *Policy) Remove(entry *Policy) bool {
	p.populated.mu.Lock()
	defer p.populated.mu.Unlock()
	return p.remove(entry)
}

func (p *Policy) remove(entry *Policy) bool {
	e := &p.populated
	if entry.parent != p || e.table.find(entry.key.hash(), &entry.key) != entry {
		return false
	}
	e.table.set(entry.key, nil)
	for d := range p.Counters {
		p.Counters[d].merge(&entry.Counters[d])
	}
	return true
}

// Parent returns the policy that an entry belongs to, and nil for a policy that
// is not an entry.
func (p *Policy) Parent() *Policy { return p.parent }

// Entries returns the entries of a policy that populates selectors, in the order of
// their values.
func (p *Policy) Entries() []*Policy {
	e := &p.populated
	e.mu.Lock()
	defer e.mu.Unlock()
	list := make([]*Policy, 0, e.table.count)
	e.table.all(func(entry *Policy) { list = append(list, entry) })
	slices.SortFunc(list, func(a, b *Policy) int { return a.key.compare(&b.key) })
	return list
}

// Traffic returns what p and its entries counted in direction d, as a copy.
func (p *Policy) Traffic(d Direction) *Counters {
	sum := new(Counters)
	for _, entry := range p.Entries() {
		sum.merge(&entry.Counters[d])
	}
	sum.merge(&p.Counters[d])
	return sum
}
