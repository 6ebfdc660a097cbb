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
	peerSilence = 30 * time.Second
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
	if s.Guard == "inet" {
		c.say(Warning, "", "Linux 6.16 or later shuts it for all frames", "if %s is created anew, ARP passes until it is cut again, IP does not", s.Interface)
	}
	if s.BypassRefused > 0 {
		c.say(Warning, "", "find the program: it sends past the host's stack (PACKET_QDISC_BYPASS or AF_XDP), and would have gone past bitw", "%d sockets that would send past the cut were refused in %s", s.BypassRefused, s.BypassForbidden)
	}
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
		c.say(c.going("clear_not_protected", Critical), about, "the other end does not protect this traffic: see that IPsec runs there and that its policy says so", "%d packets that must be protected came in the clear%s", n, c.example("clear_not_protected", p.Name))
	}
	if n := p.In.Drops["selector_mismatch"]; n != 0 {
		c.say(c.going("selector_mismatch", Warning), about, "compare the policies and SPIs of both ends", "%d packets came by another SA than the policy's%s", n, c.example("selector_mismatch", p.Name))
	}
	if p.Out.Packets == 0 || len(p.Down) > 0 {
		return
	}
	switch sent := c.s.Time.Sub(p.Out.LastUse); {
	case p.In.Packets == 0:
		c.say(Warning, about, "look for drops here and at the other end", "%d packets went out and none came back", p.Out.Packets)
	case sent < peerSilence && c.s.Time.Sub(p.In.LastUse) > peerSilence:
		c.say(Warning, about, "is the other end up, and does it still have the same keys? Look for drops there, and for icv and unknown_spi here",
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
		c.say(Critical, about, "set the key", "its key is %s, so it drops everything", x.Key)
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
		c.say(severity, about, "the keys or algorithms of the two ends differ, or somebody changes packets", "%d packets failed authentication", n)
	}
	if n := x.Drops["replay"] + x.Drops["replay_old"]; n != 0 {
		c.say(c.either("replay", "replay_old"), about, "if the other end was restarted with the same key, its sequence numbers must go on where they were; if packets overtake one another, raise replay_window", "%d packets were replays or too late", n)
	}
	if n := x.Drops["seq_exhausted"] + x.Drops["seq_unreserved"]; n != 0 {
		c.say(Critical, about, "give it a new key, or see that state_dir can be written", "%d packets had no sequence number left (%s)", n, strings.Join(reasons(x.Drops, "seq_"), ", "))
	}
	if n := x.Drops["encap_mismatch"]; n != 0 {
		c.say(c.going("encap_mismatch", Warning), about, "set encap: alike at both ends", "%d packets came with UDP encapsulation where it wants none, or without where it wants it", n)
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
		c.say(Warning, about, remedy+", or use esn: true", "it has %d sequence numbers left", *n)
	}
}

// drops are those that no SA or policy accounts for.
func (c *checkup) drops() {
	s := c.s
	if s.Held != 0 {
		c.say(Warning, "", "does the other end answer?", "%d datagrams wait for SAs that a key manager was asked for", s.Held)
	}
	for _, x := range []struct{ reason, problem, remedy string }{
		{"acquire_timeout", "%d packets waited in vain for an SA", "does the other end answer its key manager?"},
		{"no_policy", "%d packets matched no policy and were discarded", c.rule()},
		{"unknown_spi", "%d packets came with an SPI that no SA has", "compare spi and destination with the other end's outbound SA"},
		{"unresolved", "%d packets went to a next hop that does not answer ARP or neighbour discovery", "is the other end up, and the route right? See bitw neigh and bitw route"},
		{"no_route", "%d packets had no route", "see the routes of " + s.Interface + ", or add one under routes"},
		{"queue_full", "%d packets found a queue full", "is the machine too slow for its traffic, or a neighbour silent? See bitw neigh"},
		{"frag_memory", "%d fragments found the fragment memory full", "raise fragment_memory, or find who sends so many fragments"},
		{"link_write", "%d frames were refused by a link", "see the state and the MTU of " + s.Interface},
		{"own_address_spoof", "%d packets came from the wire with an address of this host", "another station has this host's address, or somebody forges it"},
	} {
		if n := s.Drops[x.reason]; n != 0 {
			c.say(c.going(x.reason, Warning), "", x.remedy, x.problem+"%s", n, c.example(x.reason, ""))
		}
	}
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
