package appliance

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"bitw/netstack/hook"
)

const (
	// recently is how young something must be to be going on.
	recently = time.Minute
	// peerSilence is for how long nothing authentic may come from a peer that is sent to.
	peerSilence = 10 * time.Second
	// nearEnd is which part of a lifetime is worth a word: a twentieth.
	nearEnd = 20
)

// A checkup looks through a status.
type checkup struct {
	s    *Status
	list []Finding
}

func (c *checkup) say(severity, about, remedy, problem string, args ...any) {
	c.list = append(c.list, Finding{severity, about, fmt.Sprintf(problem, args...), remedy})
}

// health says in plain words what an operator should look at, each with what to do,
// after what is known already, the critical first.
func health(s *Status) []Finding {
	c := &checkup{s: s, list: s.Health}
	c.taps()
	c.offloads()
	for i := range s.Policies {
		c.policy(&s.Policies[i])
	}
	for i := range s.SAs {
		c.sa(&s.SAs[i])
	}
	c.drops()
	slices.SortStableFunc(c.list, func(a, b Finding) int { return cmp.Compare(grave(a), grave(b)) })
	return c.list
}

func grave(f Finding) int {
	return slices.Index([]string{Critical, Warning, Notice}, f.Severity)
}

// taps is about whether frames move at all.
func (c *checkup) taps() {
	s := c.s
	switch {
	case len(s.Stalled) > 0:
		became := "what is taken from there goes nowhere"
		switch s.State {
		case flowClear:
			became = "all passes in the clear"
		case flowSevered:
			became = "nothing passes"
		}
		for _, side := range s.Stalled {
			from := "host"
			if side == hook.Right.String() {
				from = "wire"
			}
			c.say(Critical, "", "if that does not end by itself, restart bitw", "frames from the %s make no progress, so %s", from, became)
		}
	case s.State == flowClear:
		c.say(Critical, "", "bitw tap "+s.Interface+" active protects it again", "the taps were set by hand, and all passes in the clear")
	case s.State == flowSevered:
		c.say(Critical, "", "bitw tap "+s.Interface+" active lets it flow again", "only one of the taps is active, so nothing passes")
	}
	if n := s.Links["left"].PassedOpen + s.Links["right"].PassedOpen; n != 0 {
		severity := Warning
		if s.Time.Sub(s.PassedOpenLast) < recently {
			severity = Critical
		}
		c.say(severity, "", "give the machine more time for bitw, or say on_failure: shut",
			"bitw was held up for so long that %s opened, and %s passed without protection; the last time %v ago", s.Interface, some(n, "frame"), max(s.Time.Sub(s.PassedOpenLast), 0).Round(time.Second))
	}
	if s.ClockSet != 0 {
		c.say(Notice, "", "nothing: ages and lifetimes are right", "the machine's clock was set by %v since bitw began, and times here are by the clock before",
			time.Duration(s.ClockSet*float64(time.Second)).Round(time.Second))
	}
	if s.Guard == "inet" {
		c.say(Warning, "", "Linux 6.16 or later shuts it for all frames", "if %s is created anew, ARP passes until it is cut again, IP does not", s.Interface)
	}
	if s.BypassRefused > 0 {
		c.say(Warning, "", "find the program: it sends past the host's stack (PACKET_QDISC_BYPASS or AF_XDP), and would have gone past bitw", "%s refused in %s that would have sent past the cut", some(s.BypassRefused, "socket"), s.BypassForbidden)
	}
}

// some is a number with its noun, whose plural has an s.
func some(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func (c *checkup) policy(p *PolicyStatus) {
	if p.Action != "protect" {
		return
	}
	about := "policy " + p.Name
	if len(p.Down) > 0 {
		c.say(Critical, about, "see the findings about them, or give them keys", "it protects by %s, which cannot be used now, so nothing passes", strings.Join(p.Down, " and "))
	}
	if n := p.In.Drops["clear_not_protected"]; n != 0 {
		remedy := "the other end does not protect this traffic: see that IPsec runs there and that its policy says so"
		if f := c.last("clear_not_protected", p.Name); f != nil && f.Protocol == "udp" && isPort(f.Source, natPort) && isPort(f.Destination, natPort) {
			remedy = "the other end sends ESP in UDP: set encap: alike at both ends"
		}
		c.say(c.going("clear_not_protected", Critical), about, remedy, "%s that must be protected came in the clear%s", some(n, "packet"), c.example("clear_not_protected", p.Name))
	}
	if n := p.In.Drops["selector_mismatch"]; n != 0 {
		c.say(c.going("selector_mismatch", Warning), about, "compare the policies and SPIs of both ends", "%s came by another SA than the policy's%s", some(n, "packet"), c.example("selector_mismatch", p.Name))
	}
	if p.Out.Packets == 0 || len(p.Down) > 0 {
		return
	}
	switch sent := c.s.Time.Sub(p.Out.LastUse); {
	case p.In.Packets == 0:
		c.say(Warning, about, "is bitw up at the other end, with the same keys? See bitw status there, and bitw drops here", "%s went out and none came back", some(p.Out.Packets, "packet"))
	case sent < peerSilence && c.s.Time.Sub(p.In.LastUse) > peerSilence:
		c.say(Warning, about, "is the other end up, and does it still have the same keys? See bitw status there, and bitw drops here",
			"packets go out, and nothing authentic has come back for %v", c.s.Time.Sub(p.In.LastUse).Round(time.Second))
	}
}

func (c *checkup) sa(x *SAStatus) {
	about := "SA " + x.Name
	switch {
	case x.Insecure:
		c.say(Warning, about, "agree on another with the other end", "%s is INSECURE (%s)", x.Algorithm, x.Weak)
	case x.Weak != "":
		c.say(Warning, about, "agree on another with the other end", "%s is discouraged (%s)", x.Algorithm, x.Weak)
	}
	if x.Key != "" && x.Key != "valid" {
		c.say(Critical, about, "set the key: bitw keys set "+x.Name, "its key is %s, so it drops everything", x.Key)
	}
	switch {
	case x.Retiring: // its successor is at work
	case x.Expired == "hard":
		c.say(Critical, about, "give it a new key, at both ends", "its lifetime is over, so it drops everything")
	case x.Expired == "soft":
		c.say(Warning, about, "give it a new key soon, at both ends", "its soft lifetime is over")
	default:
		c.lifetime(x)
	}
	if n := x.Drops["icv"]; n != 0 {
		severity := c.going("icv", Critical)
		if severity == Critical && x.Packets > 0 {
			severity = Warning // some pass, so the keys agree
		}
		if x.Packets == 0 {
			c.say(severity, about, "the keys or algorithms of the two ends differ: give both the same, under a new spi, and bitw apply FILE at both",
				"%s from %s failed authentication, and none has passed it", some(n, "packet"), cmp.Or(x.Source, "its peer"))
		} else {
			c.say(severity, about, "somebody or something changes packets on their way, or one end has other keys by now", "%s failed authentication", some(n, "packet"))
		}
	}
	if n := x.Drops["replay"] + x.Drops["replay_old"]; n != 0 {
		c.say(c.either("replay", "replay_old"), about, "if the other end was restarted with the same key, its sequence numbers must go on where they were; if packets overtake one another, raise replay_window", "%s came again or too late", some(n, "packet"))
	}
	if n := x.Drops["seq_exhausted"] + x.Drops["seq_unreserved"]; n != 0 {
		c.say(Critical, about, "give it a new key, or see that state_dir can be written", "%s had no sequence number (%s)", some(n, "packet"), strings.Join(reasons(x.Drops, "seq_"), ", "))
	}
	for _, d := range []struct{ reason, problem, remedy string }{
		{"bad_next_header", "hold what its mode does not allow", "set mode: alike at both ends"},
		{"bad_length", "have a length that its algorithm never makes", "set algorithm: alike at both ends"},
		{"bad_padding", "have padding that is not as the standard has it", "the other end's ESP is at fault, or it has another algorithm"},
		{"wrong_transform", "came with ESP and AH in another order than the policy lists", "list the same SAs in the same order at both ends"},
	} {
		if n := x.Drops[d.reason]; n != 0 {
			c.say(c.going(d.reason, Warning), about, d.remedy, "%s %s", some(n, "packet"), d.problem)
		}
	}
	if n := x.Drops["encap_mismatch"]; n != 0 {
		c.say(c.going("encap_mismatch", Warning), about, "set encap: alike at both ends", "%s came with UDP encapsulation where it wants none, or without where it wants it", some(n, "packet"))
	}
	if x.PathMTU != 0 {
		c.say(Notice, about, "nothing, if that is so; else find the link that is too small, see bitw netcheck", "the path takes only %d octets, told by a router on the way", x.PathMTU)
	}
}

// lifetime warns of an end that is near.
func (c *checkup) lifetime(x *SAStatus) {
	l := x.Lifetime
	if l == nil {
		return
	}
	about := "SA " + x.Name
	const remedy = "give it a new key soon, at both ends"
	if left := l.Expires.Sub(c.s.Time); !l.Expires.IsZero() && left < l.Expires.Sub(l.Created)/nearEnd {
		c.say(Warning, about, remedy, "its lifetime is over in %v", max(left, 0).Round(time.Second))
	}
	if n := l.PacketsLeft; n != nil && *n < x.Packets/(nearEnd-1) {
		c.say(Warning, about, remedy, "its lifetime is over after %d more packets", *n)
	}
	if n := l.BytesLeft; n != nil && *n < x.Bytes/(nearEnd-1) {
		c.say(Warning, about, remedy, "its lifetime is over after %d more bytes", *n)
	}
	if n := l.SequenceLeft; n != nil && *n < x.Sequence/(nearEnd-1) {
		c.say(Warning, about, remedy+", or use esn: true", "it has %s left", some(*n, "sequence number"))
	}
}

// drops are those that no SA or policy accounts for.
func (c *checkup) drops() {
	s := c.s
	if s.Held != 0 {
		c.say(Warning, "", "does the other end answer?", "%s held for SAs that a key manager was asked for", some(uint64(s.Held), "datagram"))
	}
	c.conflicts()
	if n := s.Classes["dhcp"].FromHost; n != 0 {
		c.say(c.going("class_discard", Warning), "", "set dhcp: bypass under classes, if the host has its address by DHCP", "%s of DHCP from this host discarded, so no address is got or kept by it", some(n, "frame"))
	}
	c.mismatch()
	for _, x := range []struct{ reason, noun, problem, remedy string }{
		{"acquire_timeout", "packet", "waited in vain for an SA", "does the other end answer its key manager?"},
		{"no_policy", "packet", "matched no policy, which is discard", c.rule()},
		{"unknown_spi", "packet", "came with an SPI that no SA here has", c.spi()},
		{"unresolved", "packet", "went to a next hop that does not answer ARP or neighbour discovery" + c.silentHops(), "is the other end up, and the route right? See bitw neigh and bitw route"},
		{"no_route", "packet", "had no route", "see the routes of " + s.Interface + ", or add one under routes"},
		{"queue_full", "packet", "found a queue full", "is the machine too slow for its traffic, or a neighbour silent? See bitw neigh"},
		{"tap_full", "frame", "came faster than bitw read them", "is the machine too slow for its traffic? See its load, and whether superframes are on"},
		{"tap_oversize", "frame", "were superframes of more than 64 KiB", "leave gso_max_size and gro_max_size of " + s.Interface + " at 65536"},
		{"frag_memory", "fragment", "found the fragment memory full", "raise fragment_memory, or find who sends so many fragments"},
		{"link_write", "frame", "got no further, since a link refused it", "see the state and the MTU of " + s.Interface},
		{"own_address_spoof", "packet", "came from the wire with an address of this host", "another station has this host's address, or somebody forges it"},
	} {
		if n := s.Drops[x.reason]; n != 0 {
			c.say(c.going(x.reason, Warning), "", x.remedy, "%s %s%s", some(n, x.noun), x.problem, c.example(x.reason, ""))
		}
	}
}

// conflicts are about addresses that two stations have.
func (c *checkup) conflicts() {
	for _, x := range c.s.AddressConflicts {
		severity := Warning
		if c.s.Time.Sub(x.Last) >= recently {
			severity = Notice
		}
		ago := max(c.s.Time.Sub(x.Last), 0).Round(time.Second)
		if x.Own {
			c.say(severity, "", "two stations must not have one address: give one of them another, or see whether somebody forges ARP",
				"the station %s says that it has %s, which is this host's; the last time %v ago", strings.Join(x.MACs, " or "), x.Address, ago)
			continue
		}
		c.say(severity, "", fmt.Sprintf("give one of the two another address; until then bitw neigh add %s MAC holds the right one", x.Address),
			"the stations %s both say that they have %s, the last time %v ago", strings.Join(x.MACs, " and "), x.Address, ago)
	}
}

// mismatch is about packets that were opened and then found no policy that takes them
// from their SA.
func (c *checkup) mismatch() {
	n := c.s.Drops["selector_mismatch"]
	for i := range c.s.Policies {
		n -= min(n, c.s.Policies[i].In.Drops["selector_mismatch"])
	}
	if n == 0 {
		return
	}
	by := "an SA"
	if f := c.last("selector_mismatch", ""); f != nil && f.SA != "" {
		by = "SA " + f.SA
	}
	c.say(c.going("selector_mismatch", Warning), "", "the other end's policy takes in more than this end's: compare addresses, protocol and ports of both policies",
		"%s came by %s, and the policy of that SA is not for what was in them%s", some(n, "packet"), by, c.example("selector_mismatch", ""))
}

// spi is what to do about the last packet whose SPI nobody has.
func (c *checkup) spi() string {
	const remedy = "compare spi and destination with the other end's outbound SA"
	f := c.last("unknown_spi", "")
	if f == nil {
		return remedy
	}
	var here []string
	for i := range c.s.SAs {
		if x := &c.s.SAs[i]; x.Direction == "in" && (x.Source == "" || x.Source == f.Source) {
			here = append(here, fmt.Sprintf("%s with spi %s for %s", x.Name, x.SPI, x.Destination))
		}
	}
	if len(here) == 0 {
		return "no SA here is for packets from " + f.Source + ": add one, or end the other end's"
	}
	return fmt.Sprintf("SAs here for packets from %s are %s: make spi and destination the same at both ends", f.Source, strings.Join(here[:min(len(here), 4)], ", "))
}

// silentHops names the next hops that do not answer.
func (c *checkup) silentHops() string {
	var list []string
	for _, n := range c.s.Neighbors {
		if n.State == "unreachable" || n.State == "incomplete" {
			list = append(list, n.Address)
		}
	}
	if len(list) == 0 {
		return ""
	}
	return ": " + strings.Join(list[:min(len(list), 4)], ", ")
}

// going is the severity of drops for a reason: severe if there were some of late, and
// else Notice.
func (c *checkup) going(reason, severe string) string {
	if c.s.Time.Sub(c.s.DropsLast[reason]) < recently {
		return severe
	}
	return Notice
}

func (c *checkup) either(a, b string) string {
	if c.going(a, Warning) == Warning {
		return Warning
	}
	return c.going(b, Warning)
}

// last is the newest example of a reason, of that policy if one is named.
func (c *checkup) last(reason, policy string) *DroppedFlow {
	for i := range c.s.RecentDrops {
		if f := &c.s.RecentDrops[i]; f.Reason == reason && (policy == "" || f.Policy == policy) {
			return f
		}
	}
	return nil
}

func (c *checkup) example(reason, policy string) string {
	f := c.last(reason, policy)
	if f == nil {
		return ""
	}
	return fmt.Sprintf(", the last %v ago was %s", max(c.s.Time.Sub(f.Last), 0).Round(time.Second), f)
}

// rule is what to add for the last flow that no policy matched.
func (c *checkup) rule() string {
	f := c.last("no_policy", "")
	if f == nil {
		return "add a policy with action bypass or protect if they should pass"
	}
	local, remote := f.Source, f.Destination
	if f.From == hook.Right.String() {
		local, remote = remote, local
	}
	return "if that should pass, add a policy such as " + ruleFor(f.Protocol, local, remote)
}

// ruleFor is a policy in the form of the configuration. Of two ports the lower one is
// the service's.
func ruleFor(protocol, local, remote string) string {
	localHost, localPort := splitPort(local)
	remoteHost, remotePort := splitPort(remote)
	rule := fmt.Sprintf("{name: NAME, local: %s, remote: %s, protocol: %s", quoted(localHost), quoted(remoteHost), protocol)
	switch {
	case localPort == 0 && remotePort == 0:
	case localPort < remotePort:
		rule += fmt.Sprintf(", local_ports: %d", localPort)
	default:
		rule += fmt.Sprintf(", remote_ports: %d", remotePort)
	}
	return rule + ", action: bypass}, or one that protects it"
}

// reasons lists the drop reasons that begin with a prefix.
func reasons(drops map[string]uint64, prefix string) []string {
	var list []string
	for r := range drops {
		if strings.HasPrefix(r, prefix) {
			list = append(list, r)
		}
	}
	slices.Sort(list)
	return list
}

// natPort is that of ESP in UDP (RFC 3948 §2.1).
const natPort = 4500

func isPort(address string, port uint16) bool {
	_, p := splitPort(address)
	return p == port
}

// splitPort takes the port off an address, 0 if there is none.
func splitPort(s string) (host string, port uint16) {
	if a, err := netip.ParseAddrPort(s); err == nil {
		return a.Addr().String(), a.Port()
	}
	return s, 0
}

// quoted is an address as YAML takes it within braces.
func quoted(address string) string {
	if strings.Contains(address, ":") {
		return `"` + address + `"`
	}
	return address
}
