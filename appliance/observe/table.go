package observe

import (
	"bytes"
	"cmp"
	"container/list"
	"net/netip"
	"slices"
	"time"

	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
)

// maxFirsts bounds how many fragmented datagrams are remembered at once.
const maxFirsts = 1024

// flowKey names a flow, seen from the host.
type flowKey struct {
	local, remote         netip.Addr
	proto                 uint8
	localPort, remotePort uint16
	icmpType              uint8 // of the request
	known                 bool  // ports, or the type, are known
}

// fragKey names a fragmented datagram (RFC 791 §3.2, RFC 8200 §4.5).
type fragKey struct {
	src, dst netip.Addr
	proto    uint8 // 0 for IPv6, whose later fragments need not tell
	id       uint32
}

type entry struct {
	key         flowKey
	first, last time.Time
	halves      [2]half // by sa.Direction
	at          *list.Element
	split       bool // came in fragments, too
}

type half struct {
	packets, octets uint64
	largest         int
	opinion         *opinion
}

// A table counts flows, a bounded number of them. It is not safe for concurrent use.
type table struct {
	judge    *judge // nil if there is nothing to judge by
	mac      []byte // of the interface; nil for all
	maxFlows int
	words    bool // see is to say what would become of a frame

	flows      map[flowKey]*entry
	recent     list.List // of *entry, the one seen last in front
	firsts     map[fragKey]*entry
	forgotten  uint64
	other      map[string]Other
	unreadable uint64
}

func newTable(j *judge, mac []byte, maxFlows int) *table {
	return &table{
		judge: j, mac: mac, maxFlows: maxFlows,
		flows: make(map[flowKey]*entry), firsts: make(map[fragKey]*entry), other: make(map[string]Other),
	}
}

// see counts a frame, virtio-net header included, and says in a few words what would
// become of it, or nothing where there is nothing to judge by.
func (t *table) see(dir sa.Direction, b []byte, now time.Time) string {
	net, ok := wire.NewVirtioNet(b)
	if !ok || len(b) < wire.VirtioNetLen+ethernetLen || net.Check(len(b)-wire.VirtioNetLen) != wire.DropNone {
		t.unreadable++
		return "unreadable"
	}
	frame := b[wire.VirtioNetLen:]
	if class, action := t.class(dir, frame); class != hook.Policy {
		o := t.other[class]
		o.Frames++
		o.Bytes += uint64(len(frame))
		o.Action = action
		t.other[class] = o
		return t.join(action, class)
	}
	p := packet{dir: dir, data: frame[ethernetLen:], net: net}
	if wire.Parse(p.data, &p.info) != wire.DropNone {
		t.unreadable++
		return "unreadable"
	}
	p.data = p.data[:p.info.TotalLen]
	e := t.entry(&p, now)
	h := &e.halves[dir]
	n, largest, octets := p.sizes()
	h.packets += uint64(n)
	h.octets += uint64(octets)
	h.largest = max(h.largest, largest)
	e.last = now
	if t.judge == nil {
		return ""
	}
	if h.opinion == nil || h.opinion.passing {
		h.opinion = t.judge.of(&p)
	}
	t.judge.count(h.opinion, &p)
	return t.join(h.opinion.Action, h.opinion.Policy, h.opinion.Reason)
}

// ethernetLen is the length of an Ethernet header in octets.
const ethernetLen = 14

// class names the class of a frame and what becomes of it.
func (t *table) class(dir sa.Direction, frame []byte) (class, action string) {
	var (
		rules     []hook.ClassRule
		neighbors hook.Neighbors
		protects  func([]byte) bool
	)
	if t.judge != nil {
		rules, neighbors = t.judge.db.Classes, t.judge.db.Neighbors
		protects = func(b []byte) bool { return t.judge.protects(dir, b) }
	}
	class, bypass, handled := hook.ClassOf(frame, rules, neighbors, protects)
	if class == hook.Policy && dir == sa.Inbound && t.mac != nil && !bytes.Equal(frame[:6], t.mac) {
		class, handled = wire.DropForeignMAC.String(), false
	}
	switch {
	case t.judge == nil:
	case handled:
		action = "answered"
	case bypass:
		action = sa.Bypass.String()
	default:
		action = sa.Discard.String()
	}
	return class, action
}

func (t *table) join(words ...string) string {
	if !t.words {
		return ""
	}
	var b []byte
	for _, w := range words {
		if w != "" && len(b) > 0 {
			b = append(b, ' ')
		}
		b = append(b, w...)
	}
	return string(b)
}

// entry finds or makes the flow of a packet, the least recent one going if there are
// too many.
func (t *table) entry(p *packet, now time.Time) *entry {
	f := fragKey{src: p.info.Src, dst: p.info.Dst, id: p.info.ID}
	if p.info.Version == 4 {
		f.proto = p.info.Proto
	}
	if p.info.IsFragment && p.info.FragOffset > 0 {
		if e := t.firsts[f]; e != nil {
			t.recent.MoveToFront(e.at)
			return e
		}
	}
	k := keyOf(p)
	e := t.flows[k]
	if e == nil {
		for len(t.flows) >= t.maxFlows {
			t.forget(t.recent.Back().Value.(*entry))
		}
		e = &entry{key: k, first: now}
		e.at = t.recent.PushFront(e)
		t.flows[k] = e
	} else {
		t.recent.MoveToFront(e.at)
	}
	if p.info.IsFragment && p.info.FragOffset == 0 {
		if len(t.firsts) >= maxFirsts {
			clear(t.firsts)
		}
		t.firsts[f], e.split = e, true
	}
	return e
}

func (t *table) forget(e *entry) {
	t.recent.Remove(e.at)
	delete(t.flows, e.key)
	for f, of := range t.firsts {
		if !e.split {
			break
		}
		if of == e {
			delete(t.firsts, f)
		}
	}
	t.forgotten++
}

func keyOf(p *packet) flowKey {
	f := flowOf(p.dir, &p.info)
	k := flowKey{local: f.Local, remote: f.Remote, proto: f.Proto, known: f.HasPorts}
	switch {
	case !f.HasPorts:
	case f.Proto == wire.ProtoICMP || f.Proto == wire.ProtoICMPv6:
		k.icmpType = requestOf(f.Proto, f.ICMPType)
	default:
		k.localPort, k.remotePort = f.LocalPort, f.RemotePort
	}
	return k
}

// requestOf makes one flow of an echo request and its reply.
func requestOf(proto, typ uint8) uint8 {
	switch {
	case proto == wire.ProtoICMP && typ == 0:
		return 8
	case proto == wire.ProtoICMPv6 && typ == 129:
		return 128
	}
	return typ
}

// report fills in what the table knows.
func (t *table) report(r *Report) {
	r.Judged, r.Forgotten, r.Unreadable = t.judge != nil, t.forgotten, t.unreadable
	r.Other = make(map[string]Other, len(t.other))
	for name, o := range t.other {
		r.Other[name] = o
	}
	r.Flows = make([]Flow, 0, len(t.flows))
	for at := t.recent.Front(); at != nil; at = at.Next() {
		r.Flows = append(r.Flows, at.Value.(*entry).report())
	}
	slices.SortStableFunc(r.Flows, func(a, b Flow) int {
		return cmp.Compare(b.Out.Bytes+b.In.Bytes, a.Out.Bytes+a.In.Bytes)
	})
}

func (e *entry) report() Flow {
	f := Flow{
		Local: e.key.local.String(), Remote: e.key.remote.String(), Protocol: e.key.proto,
		LocalPort: e.key.localPort, RemotePort: e.key.remotePort, First: e.first, Last: e.last,
		Out: e.halves[sa.Outbound].report(), In: e.halves[sa.Inbound].report(),
	}
	if e.key.known && (e.key.proto == wire.ProtoICMP || e.key.proto == wire.ProtoICMPv6) {
		f.ICMPType = &e.key.icmpType
	}
	return f
}

func (h *half) report() Half {
	r := Half{Packets: h.packets, Bytes: h.octets, Largest: h.largest}
	if h.opinion != nil {
		v := h.opinion.Verdict
		r.Verdict = &v
	}
	return r
}
