package hook

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/trace"
	"bitw/netstack/wire"
)

// class is a named kind of frames that no policy decides.
type class uint8

const (
	classNone      class = iota // decided by policy
	classARP                    // EtherType 0x0806
	classNDP                    // neighbour solicitation and advertisement
	classDHCP                   // UDP 67 and 68, DHCPv6 UDP 546 and 547
	classNDPRouter              // router solicitation, router advertisement, redirect
	classMDNS                   // UDP 5353 to 224.0.0.251 and ff02::fb
	classIGMP                   // IGMP and MLD
	classMulticast              // other IP multicast
	classBroadcast              // other IPv4 broadcast
	classLLDP                   // EtherType 0x88cc
	classEAPOL                  // EtherType 0x888e
	classSTP                    // spanning tree: LLC 42 42 03 to 01:80:c2:00:00:0x, PVST
	classVLAN                   // EtherTypes 0x8100 and 0x88a8
	classEtherType              // an EtherType that has a rule of its own
	classOther                  // everything else that is not IP
	numClasses
)

var classNames = [numClasses]string{
	classNone: "policy", classARP: "arp", classNDP: "ndp", classDHCP: "dhcp", classNDPRouter: "ndp-router",
	classMDNS: "mdns", classIGMP: "igmp", classMulticast: "multicast", classBroadcast: "broadcast",
	classLLDP: "lldp", classEAPOL: "eapol", classSTP: "stp", classVLAN: "vlan",
	classEtherType: "ethertype", classOther: "other",
}

// ClassNames returns the names of the classes, beside which a rule may name any
// EtherType as "ethertype 0x8899".
func ClassNames() []string {
	var names []string
	for c := classARP; c < numClasses; c++ {
		if c != classEtherType {
			names = append(names, classNames[c])
		}
	}
	return names
}

// A ClassRule says what becomes of the frames of a class.
type ClassRule struct {
	// Name is one of ClassNames, or "ethertype 0x8899".
	Name string
	// Bypass lets the frames cross the bump unchanged. Without it they are discarded.
	Bypass bool
}

// ClassOptions describe a Class.
type ClassOptions struct {
	// Rules hold for the frames that come from this side, each name once. A class
	// without a rule is discarded, but see Neighbors for arp and ndp.
	Rules []ClassRule
	// Neighbors says what becomes of arp and ndp, until SetNeighbors.
	Neighbors Neighbors
	// Protects, if not nil, says whether a policy protects a datagram for one station, which
	// then goes on to the policies although its frame is for a group. The datagram may be
	// malformed, and holds all that came in the frame.
	Protects func(datagram []byte) bool
	// Other takes what is let through to the other side.
	Other *Relay
	// Drops counts wire.DropClassDiscard and wire.DropBadFrame; it may be shared.
	Drops *wire.DropCounters
}

// ClassCount is what one class of frames came to.
type ClassCount struct {
	Name      string `json:"name"`
	Bypassed  uint64 `json:"bypassed"`
	Discarded uint64 `json:"discarded"`
}

// Neighbors says how ARP and neighbour discovery of one side are dealt with.
type Neighbors uint8

const (
	// Answer hands them to the hooks and the stack, which answer and learn on each side.
	// No rule changes that.
	Answer Neighbors = iota
	// Cross lets them cross, so that each side learns the other's true addresses; a rule
	// may discard them.
	Cross
	// CrossAndLearn is Cross, and what tells an address goes to the hooks and the stack
	// as well: for the side on which the stack has next hops of its own.
	CrossAndLearn
)

// A Class wraps a link and decides, by one rule for each class, what no policy decides:
// frames that are not IP, and IP multicast and broadcast. Unicast IP goes on to the
// policies, but for DHCP where a rule lets it through, and router discovery. So does what a
// policy protects in a frame to a group: anybody on the wire can have a kernel believe that
// a station is at a group's address.
//
// arp and ndp are special: see Neighbors.
type Class struct {
	under
	protects  func([]byte) bool
	other     *Relay
	drops     *wire.DropCounters
	neighbors atomic.Uint32 // Neighbors
	rules     atomic.Pointer[classRules]
	counts    [numClasses]classCounter
}

// classRules do not change once they are in force.
type classRules struct {
	bypass [numClasses]bool
	// types are the EtherTypes with a rule of their own, sorted by number.
	types []etherRule
}

type classCounter struct{ bypassed, discarded atomic.Uint64 }

type etherRule struct {
	number uint16
	bypass bool
	count  *classCounter
}

var _ stack.LinkEndpoint = (*Class)(nil)

// NewClass wraps child. It fails if a rule's name is unknown or comes twice.
func NewClass(child stack.LinkEndpoint, o ClassOptions) (*Class, error) {
	c := &Class{protects: o.Protects, other: o.Other, drops: o.Drops}
	c.SetNeighbors(o.Neighbors)
	if err := c.SetRules(o.Rules); err != nil {
		return nil, err
	}
	c.Init(child, c)
	return c, nil
}

// CheckClassRules returns why a Class would not take rules.
func CheckClassRules(rules []ClassRule) error {
	_, err := compileClasses(rules)
	return err
}

// SetRules replaces the rules, from the next frame on. The counters go on. After an error
// the rules are as they were; the errors are those of NewClass.
func (c *Class) SetRules(rules []ClassRule) error {
	next, err := compileClasses(rules)
	if err != nil {
		return err
	}
	if old := c.rules.Load(); old != nil {
		for i := range next.types {
			if was := old.etherRule(next.types[i].number); was != nil {
				next.types[i].count = was.count
			}
		}
	}
	c.rules.Store(next)
	return nil
}

func compileClasses(rules []ClassRule) (*classRules, error) {
	c := new(classRules)
	c.bypass[classARP], c.bypass[classNDP] = true, true
	var seen [numClasses]bool
	for _, r := range rules {
		if text, ok := strings.CutPrefix(r.Name, "ethertype "); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(text), 0, 16)
			if err != nil || n < minEtherType || n == wire.EtherTypeIPv4 || n == wire.EtherTypeIPv6 || n == wire.EtherTypeARP {
				return nil, fmt.Errorf("class %q: expected an EtherType from 0x0600 that is neither IP nor ARP", r.Name)
			}
			c.types = append(c.types, etherRule{uint16(n), r.Bypass, new(classCounter)})
			continue
		}
		i := class(slices.Index(classNames[:], r.Name))
		if i >= numClasses || i == classNone || i == classEtherType {
			return nil, fmt.Errorf("unknown class %q, known are %s and ethertype 0x0600 to 0xffff",
				r.Name, strings.Join(ClassNames(), ", "))
		}
		if seen[i] {
			return nil, fmt.Errorf("class %q has two rules", r.Name)
		}
		seen[i], c.bypass[i] = true, r.Bypass
	}
	slices.SortFunc(c.types, func(a, b etherRule) int { return int(a.number) - int(b.number) })
	for i := 1; i < len(c.types); i++ {
		if c.types[i].number == c.types[i-1].number {
			return nil, fmt.Errorf("EtherType %#04x has two rules", c.types[i].number)
		}
	}
	return c, nil
}

// SetNeighbors changes what becomes of arp and ndp, for the frames that come from then on.
func (c *Class) SetNeighbors(n Neighbors) { c.neighbors.Store(uint32(n)) }

// Counts returns what came of the classes that were seen, and of those that have a
// rule for their EtherType.
func (c *Class) Counts() []ClassCount {
	var list []ClassCount
	add := func(name string, n *classCounter) {
		if b, d := n.bypassed.Load(), n.discarded.Load(); b != 0 || d != 0 {
			list = append(list, ClassCount{name, b, d})
		}
	}
	for i := range c.counts {
		add(classNames[i], &c.counts[i])
	}
	for _, t := range c.rules.Load().types {
		add(fmt.Sprintf("ethertype 0x%04x", t.number), t.count)
	}
	return list
}

// DeliverNetworkPacket implements stack.NetworkDispatcher.
func (c *Class) DeliverNetworkPacket(proto tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	eth := pkt.LinkHeader().Slice()
	if len(eth) != ethernetLen {
		drop(c.drops, pkt, wire.DropBadFrame)
		return
	}
	rules, b := c.rules.Load(), datagram(pkt)
	k := decided(classify(eth, b, rules.bypass[classDHCP]), b, c.protects)
	bypass, count := rules.bypass[k], &c.counts[k]
	if k >= classLLDP {
		if r := rules.etherRule(etherType(eth)); r != nil {
			k, bypass, count = classEtherType, r.bypass, r.count
		}
	}
	neighbors := Answer
	if k == classARP || k == classNDP {
		neighbors = Neighbors(c.neighbors.Load())
	}
	switch {
	case k == classNone, neighbors == Answer && (k == classARP || k == classNDP):
		c.under.DeliverNetworkPacket(proto, pkt)
	case bypass:
		count.bypassed.Add(1)
		noteClass(pkt, k, "bypass")
		c.other.Send(pkt, c.drops)
		if neighbors == CrossAndLearn && (k == classARP && tellsAddress(pkt) || k == classNDP && isAdvertisement(pkt)) {
			c.under.DeliverNetworkPacket(proto, pkt)
		}
	default:
		count.discarded.Add(1)
		noteClass(pkt, k, "discard")
		drop(c.drops, pkt, wire.DropClassDiscard)
	}
}

func (c *classRules) etherRule(n uint16) *etherRule {
	i, ok := slices.BinarySearchFunc(c.types, n, func(r etherRule, n uint16) int { return int(r.number) - int(n) })
	if !ok {
		return nil
	}
	return &c.types[i]
}

// noteClass notes in the packet's trail, if it has one, what the rules say.
func noteClass(pkt *stack.PacketBuffer, k class, verdict string) {
	if t := TrailOf(pkt); t != nil {
		t.Add(trace.Step{Station: trace.Hook, Verdict: verdict, Name: classNames[k], Left: t.Left})
	}
}
