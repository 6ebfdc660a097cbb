package ipsec

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/hook"
	"bitw/netstack/trace"
	"bitw/netstack/wire"
	"bitw/sa"
)

// Neighbors finds the Ethernet address of a host on the left, or of a next hop on the right.
type Neighbors interface {
	// Lookup returns the address if it is known now.
	Lookup(nextHop netip.Addr) (mac tcpip.LinkAddress, ok bool)
	// Peek is Lookup for whoever has no packet to send: nobody is asked for the sake of it.
	Peek(nextHop netip.Addr) (mac tcpip.LinkAddress, ok bool)
	// Enqueue keeps pkt, which it takes a reference of, until the address is found, and
	// then sends it, or drops and counts it.
	Enqueue(nextHop netip.Addr, pkt *stack.PacketBuffer)
}

// NextHops are the Neighbors on the right. hook.Resolver is what the appliance uses.
type NextHops interface {
	Neighbors
	// Want has the address asked for if it is not known, for packets that are to come.
	Want(nextHop netip.Addr)
}

// A Config is what an Engine needs. All fields but those that say so must be set.
type Config struct {
	SAD *sa.SAD
	// SPD and Routes may be replaced later.
	SPD    *sa.SPD
	Routes *Routes
	// HostMAC is the Ethernet address of the protected host: the destination of every
	// frame to the left.
	HostMAC tcpip.LinkAddress
	// WireMAC is the source of every frame to the right.
	WireMAC tcpip.LinkAddress
	// Hosts finds the Ethernet addresses of the hosts on the left, where there may be
	// several; HostMAC is then that of the box on the left. It may be nil.
	Hosts Neighbors
	// HostResolves says that the host finds its next hops itself: ARP and neighbour
	// discovery cross the bump. A frame of the host that names a station goes to that
	// one, as long as its datagram keeps its destination; next hops are looked up where
	// an SA gives it another, and for frames to the host's own Ethernet address, which is
	// what the host was told before.
	HostResolves bool
	// MTU is the largest datagram in octets that an SA may make for the right link.
	MTU int
	// LinkMTU is the largest datagram in octets that each link takes, by side; 0 stands for
	// all. What crosses between two NICs must fit both; a host's own kernel takes all, and
	// sends what fits the NIC.
	LinkMTU [2]int
	// IsLocal says whether an address belongs to the protected host.
	IsLocal func(netip.Addr) bool
	// Clock returns nanoseconds since 1970. It is called once a batch.
	Clock func() int64
	// ICMPErrors says which errors that come in the clear from the wire are believed.
	ICMPErrors ICMPErrorRule
	// FragmentMemory caps the octets of incomplete datagrams on each side; 0 stands
	// for DefaultFragmentMemory. FragmentTimeout is how long one may stay incomplete;
	// 0 stands for DefaultFragmentTimeout.
	FragmentMemory  int
	FragmentTimeout time.Duration
	// Hold bounds what waits for SAs that a key manager was asked for.
	Hold HoldLimits
	// Coalesce is for how many queues of the right link TCP segments, and with SetJoinUDP
	// UDP datagrams, are joined to superframes on their way to the host. The link's packets
	// carry their queue as Hash, and its reader calls EndBatch. 0 joins none.
	Coalesce int
	// HostBatch is for how many queues of the left link what becomes of the frames of one
	// batch goes to the wire at once. The link's packets carry their queue as Hash, and its
	// reader calls EndHostBatch. For others each frame goes by itself.
	HostBatch int
}

// An Engine applies policy and SAs to what crosses the bump. It is made by New,
// registered in a stack by Protocol, told its links by Bind, and runs on the
// goroutines that deliver frames.
type Engine struct {
	sad     *sa.SAD
	spd     atomic.Pointer[sa.SPD]
	routes  atomic.Pointer[Routes]
	macs    atomic.Pointer[macs]
	named   atomic.Bool // Config.HostResolves
	ahead   atomic.Bool // see SetLookAhead
	hosts   Neighbors   // nil where there is one host, with hostMAC
	mtu     atomic.Int64
	linkMTU [2]atomic.Int64 // 0 for all
	isLocal func(netip.Addr) bool
	clock   func() int64

	forwarders  *hook.Forwarders
	links       [2]stack.LinkEndpoint
	neighbors   NextHops
	ids         atomic.Uint32 // identification of the datagrams that are ours
	works       sync.Pool
	sides       [2]side
	coalescers  []coalescer // by queue of the right link
	hostBatches []hostBatch // by queue of the left link
	waiting     unresolved
	joinUDP     atomic.Bool
	icmpRule    atomic.Uint32 // an ICMPErrorRule
	udpOffload  atomic.Bool
	apart       atomic.Bool // segments and datagrams for the host are not joined
	// answering, if not nil, learns of an ICMP error of ours to the right before policy
	// decides about it: for Rehearse.
	answering func(datagram []byte)
	icmpLimit errorLimit
	holds     holds
	encap     encapsulation
	dummies   dummies // of the goroutine that calls SendDummies
}

// side is what belongs to the datagrams that come from one side. Nothing of it
// is shared with the other.
type side struct {
	fragments reassembler
	drops     wire.DropCounters
	// learned counts messages from the wire that lowered an SA's path MTU.
	learned atomic.Uint64
	// errors counts ICMP errors made about datagrams of this side.
	errors atomic.Uint64
	_      [64]byte
	recent [wire.NumDropReasons]recent
}

// New makes an engine that has no links yet.
func New(cfg Config) *Engine {
	if cfg.FragmentMemory == 0 {
		cfg.FragmentMemory = DefaultFragmentMemory
	}
	if cfg.FragmentTimeout == 0 {
		cfg.FragmentTimeout = DefaultFragmentTimeout
	}
	e := &Engine{
		sad: cfg.SAD, hosts: cfg.Hosts,
		isLocal: cfg.IsLocal, clock: cfg.Clock,
		forwarders: hook.NewForwarders(), coalescers: make([]coalescer, cfg.Coalesce), hostBatches: make([]hostBatch, cfg.HostBatch),
	}
	e.holds.limits = cfg.Hold.withDefaults()
	e.SetMACs(cfg.HostMAC, cfg.WireMAC)
	e.SetSPD(cfg.SPD)
	e.SetRoutes(cfg.Routes)
	e.SetMTU(cfg.MTU)
	e.SetLinkMTU(hook.Left, cfg.LinkMTU[hook.Left])
	e.SetLinkMTU(hook.Right, cfg.LinkMTU[hook.Right])
	e.SetICMPErrors(cfg.ICMPErrors)
	e.SetHostResolves(cfg.HostResolves)
	e.ids.Store(rand.Uint32())
	e.works.New = func() any { return new(work) }
	for i := range e.sides {
		e.sides[i].fragments.init(cfg.FragmentMemory, cfg.FragmentTimeout, &e.sides[i].drops)
	}
	return e
}

// Bind tells the engine its links, outermost hook first, and who resolves next
// hops on the right. It must come before the first frame.
func (e *Engine) Bind(left, right stack.LinkEndpoint, neighbors NextHops) {
	e.links = [2]stack.LinkEndpoint{left, right}
	e.neighbors = neighbors
}

// SetSPD replaces the policies, from the next datagram on.
func (e *Engine) SetSPD(d *sa.SPD) { e.spd.Store(d) }

// SPD returns the policies in force.
func (e *Engine) SPD() *sa.SPD { return e.spd.Load() }

// SetRoutes replaces the routes, from the next datagram on.
func (e *Engine) SetRoutes(r *Routes) { e.routes.Store(r) }

// Routes returns the routes in force.
func (e *Engine) Routes() *Routes { return e.routes.Load() }

// macs are the Ethernet addresses of Config.
type macs struct{ host, wire tcpip.LinkAddress }

// SetMACs replaces the Ethernet addresses of the host and of the wire side, as in
// Config, from the next datagram on.
func (e *Engine) SetMACs(host, wire tcpip.LinkAddress) { e.macs.Store(&macs{host, wire}) }

func (e *Engine) hostMAC() tcpip.LinkAddress { return e.macs.Load().host }
func (e *Engine) wireMAC() tcpip.LinkAddress { return e.macs.Load().wire }

// SetMTU replaces Config.MTU, from the next datagram on.
func (e *Engine) SetMTU(mtu int) { e.mtu.Store(int64(mtu)) }

// MTU returns Config.MTU as it is in force.
func (e *Engine) MTU() int { return int(e.mtu.Load()) }

// SetLinkMTU replaces Config.LinkMTU of a side, from the next datagram on.
func (e *Engine) SetLinkMTU(side hook.Side, mtu int) { e.linkMTU[side].Store(int64(mtu)) }

// LinkMTU returns Config.LinkMTU of a side as it is in force: for all, the longest
// datagram that can be, of IPv6.
func (e *Engine) LinkMTU(side hook.Side) int {
	if mtu := e.linkMTU[side].Load(); mtu != 0 {
		return int(mtu)
	}
	return header.IPv6MinimumSize + maxDatagram
}

// SetICMPErrors replaces the rule of Config.ICMPErrors, from the next datagram on.
func (e *Engine) SetICMPErrors(r ICMPErrorRule) { e.icmpRule.Store(uint32(r)) }

// SetHostResolves replaces Config.HostResolves, from the next frame on.
func (e *Engine) SetHostResolves(on bool) { e.named.Store(on) }

// SetLookAhead says whether the next hops that the host finds itself are looked for all the
// same, so that they are known when HostResolves is taken away. It is off in a new engine.
func (e *Engine) SetLookAhead(on bool) { e.ahead.Store(on) }

// SetJoinUDP says whether the left link takes superframes of UDP datagrams, from the next
// batch on. It does not in a new engine.
func (e *Engine) SetJoinUDP(on bool) { e.joinUDP.Store(on) }

// SetUDPOffload says whether the right link finishes the UDP checksums of ESP in UDP, from
// the next datagram on. Datagrams then have one unless the SA says never (see
// sa.UDPChecksum), so that links and receivers can join them to superframes. It is off in
// a new engine.
func (e *Engine) SetUDPOffload(on bool) { e.udpOffload.Store(on) }

// SetCoalescing says whether what goes to the host is joined to superframes, where
// Config.Coalesce allows it. It is on in a new engine.
func (e *Engine) SetCoalescing(on bool) { e.apart.Store(!on) }

// Tick frees what has waited too long and lets SAs notice the time. The owner
// calls it about once a second.
func (e *Engine) Tick() {
	now := e.clock()
	for i := range e.sides {
		e.sides[i].fragments.expire(now)
	}
	e.waiting.expire(now, int64(unresolvedAge))
	e.keepalives(now)
	e.expireHolds(now)
}

// Close frees what the engine still holds. No frame may come afterwards.
func (e *Engine) Close() {
	e.closeHolds()
	for i := range e.sides {
		e.sides[i].fragments.clear()
	}
	for i := range e.coalescers {
		e.coalescers[i].clear()
	}
	for i := range e.hostBatches {
		e.hostBatches[i].out.Reset()
	}
}

// Drops returns the counters of the datagrams that came from one side and did
// not go on. Links, hooks and neighbours count their own.
func (e *Engine) Drops(from hook.Side) *wire.DropCounters { return &e.sides[from].drops }

// Forwarders returns the forwarders with what they carried.
func (e *Engine) Forwarders() *hook.Forwarders { return e.forwarders }

// ICMPErrorsLimited returns how many ICMP errors were not sent because there were too
// many.
func (e *Engine) ICMPErrorsLimited() uint64 { return e.icmpLimit.refused.Load() }

// PathMTUsLearned returns how many messages from the wire lowered an SA's path
// MTU.
func (e *Engine) PathMTUsLearned() uint64 { return e.sides[hook.Right].learned.Load() }

// ICMPErrors returns how many ICMP errors were made about datagrams that came from a
// side. Of those to the right it is for policy to let them go.
func (e *Engine) ICMPErrors(from hook.Side) uint64 { return e.sides[from].errors.Load() }

// maxBundle is how many SAs a policy may apply to one datagram.
const maxBundle = 4

// work is the scratch memory of one datagram's way. It comes from a pool, so
// that what is handed to a transform through an interface needs no allocation.
type work struct {
	d        hook.Datagram
	flow     sa.Flow
	inner    wire.Info // of the datagram that an ICMP error encloses
	now      int64
	queue    uint32     // that brought the frame
	batch    *hostBatch // that the frame came in, nil if what becomes of it is not held back
	cut      wire.Cutter
	frag     wire.Fragmenter
	plan     bundle
	open     opening
	out      stack.PacketBufferList
	train    wire.Train
	puller   *stack.PacketBuffer // that pulls train; it has no octets
	room     []byte              // in which the frames of train are sealed
	lane     lane
	like     wire.Likeness // of the frames that the lane is for
	run      run
	wireInfo wire.Info // of a datagram that has to be fragmented
	// quotes says that the datagram from the left quotes what was opened: it leaves protected
	// or not at all.
	quotes bool
	// fragmentID is the identification of the IPv6 fragments that the host sent, else 0.
	fragmentID uint32
	icmp       []byte
	// whole is the frame that came if the packet holds only its headers, and kept a packet
	// that holds all of it, made when it was needed.
	whole []byte
	kept  *stack.PacketBuffer
	// head is what whole began with, up to the SPI of ESP.
	head [frameHead + 40 + wire.ESPMinLen]byte
	// releasing is the queue that w.d waited in for an SA, nil if it did not.
	releasing *holdQueue
	// station is where the host's frame goes if there is one and it names a station;
	// else all zeros.
	station [6]byte
	// trail is what is told of w.d, nil while nobody looks.
	trail *trace.Trail
}

func (e *Engine) work() *work {
	w := e.works.Get().(*work)
	w.now = e.clock()
	w.plan.offload = e.udpOffload.Load()
	return w
}

func (e *Engine) done(w *work) {
	w.reset()
	e.works.Put(w)
}

// reset forgets the datagram.
func (w *work) reset() {
	w.d.Bytes, w.d.Net, w.fragmentID, w.quotes = nil, nil, 0, false
	w.releasing, w.trail, w.batch = nil, nil, nil
	w.station = [6]byte{}
	w.plan.reset()
	w.open.reset()
	w.lane, w.whole = lane{}, nil
	if w.kept != nil {
		w.kept.DecRef()
		w.kept = nil
	}
}

// drop counts a datagram that came from one side, on the account of policy and
// SA where they are known. w may be nil, where it is not on its way any more.
func (e *Engine) drop(w *work, from hook.Side, reason wire.DropReason, p *sa.Policy, s *sa.SA) {
	e.sides[from].drops.Add(reason)
	if p != nil {
		p.Counters[directionFrom(from)].Drops.Add(reason)
	}
	if s != nil {
		s.Drops.Add(reason)
	}
	if w != nil && w.trail != nil {
		w.noteDrop(reason, p, s)
	}
}

func directionFrom(from hook.Side) sa.Direction {
	if from == hook.Left {
		return sa.Outbound
	}
	return sa.Inbound
}

// read fills w.d with the datagram in pkt.
func (w *work) read(pkt *stack.PacketBuffer, from hook.Side) wire.DropReason {
	var data, virtio []byte
	if w.whole != nil {
		data, virtio = w.whole[frameHead:], w.whole
	} else {
		var ok bool
		if data, ok = pkt.Data().PullUp(pkt.Data().Size()); !ok {
			return wire.DropMalformed
		}
		virtio = pkt.VirtioNetHeader().Slice()
	}
	w.d.From, w.d.Net, w.queue = from, nil, pkt.Hash
	if vn, ok := wire.NewVirtioNet(virtio); ok {
		if reason := vn.Check(ethernetLen + len(data)); reason != wire.DropNone {
			return reason
		}
		w.d.Net = vn
	}
	if reason := wire.Parse(data, &w.d.Info); reason != wire.DropNone {
		return reason
	}
	w.d.Bytes = data[:w.d.Info.TotalLen]
	return wire.DropNone
}

// packet returns pkt with all octets of the frame that it stands for. It may be nil.
func (w *work) packet(pkt *stack.PacketBuffer) *stack.PacketBuffer {
	if pkt == nil || w.whole == nil {
		return pkt
	}
	if w.kept == nil {
		w.kept = hook.PacketFrom(w.whole)
		w.kept.Hash, w.kept.PktType = pkt.Hash, pkt.PktType
	}
	return w.kept
}

// own is packet for a caller that keeps w.d.Bytes, too, wherever in the frame that is.
func (w *work) own(pkt *stack.PacketBuffer) *stack.PacketBuffer {
	if w.whole == nil || pkt == nil {
		return pkt
	}
	at := cap(w.whole) - cap(w.d.Bytes) - frameHead
	pkt = w.packet(pkt)
	data, _ := pkt.Data().PullUp(pkt.Data().Size())
	w.d.Bytes = data[at : at+len(w.d.Bytes)]
	return pkt
}

// flowOf describes a datagram of one direction as the SPD looks at it.
func flowOf(f *sa.Flow, dir sa.Direction, in *wire.Info) *sa.Flow {
	*f = sa.Flow{
		Local: in.Src, Remote: in.Dst, Proto: in.Proto,
		LocalPort: in.SrcPort, RemotePort: in.DstPort,
		ICMPType: in.ICMPType, ICMPCode: in.ICMPCode, MHType: in.MHType, HasPorts: in.HasPorts,
	}
	if dir == sa.Inbound {
		f.Local, f.Remote = f.Remote, f.Local
		f.LocalPort, f.RemotePort = f.RemotePort, f.LocalPort
	}
	return f
}

// Protects says whether a policy protects a datagram from one side. It says so of fragments,
// about which only the whole tells, and of what is malformed, too: hook.ClassOptions wants
// to know what must not go past the engine.
func (e *Engine) Protects(from hook.Side, datagram []byte) bool {
	w := e.work()
	defer e.done(w)
	w.d.From, w.d.Bytes = from, datagram
	if wire.Parse(datagram, &w.d.Info) != wire.DropNone || w.d.Info.IsFragment {
		return true
	}
	var p *sa.Policy
	if from == hook.Left {
		p = e.outboundPolicy(w)
	} else {
		p = e.spd.Load().Lookup(sa.Inbound, flowOf(&w.flow, sa.Inbound, &w.d.Info))
	}
	return p != nil && p.Action == sa.Protect
}

// Incomplete returns how many datagrams the engine holds that it was given and has
// neither passed on nor dropped: incomplete ones of fragments, and those that wait for
// an SA.
func (e *Engine) Incomplete() int {
	n := e.Held()
	for i := range e.sides {
		n += e.sides[i].fragments.incomplete()
	}
	return n
}
