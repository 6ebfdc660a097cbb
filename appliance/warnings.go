package appliance

import (
	"fmt"
	"strings"

	"bitw/netstack/hook"
)

// warnings says in plain words what an operator should look at, each with what
// to do.
func warnings(s *Status) []string {
	var list []string
	say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	switch {
	case len(s.Stalled) > 0:
		warnStalled(s, say)
	case s.State == flowClear:
		say("the taps were set by hand, and all passes in the clear: bitw tap %s active protects it again", s.Interface)
	case s.State == flowSevered:
		say("only one of the taps is active, so nothing passes: bitw tap %s active lets it flow again", s.Interface)
	}
	for i := range s.SAs {
		warnSA(&s.SAs[i], say)
	}
	for i := range s.Policies {
		p := &s.Policies[i]
		if p.Action != "protect" {
			continue
		}
		if n := p.In.Drops["clear_not_protected"]; n != 0 {
			say("policy %s: %d packets that must be protected came in the clear: does the other end protect this traffic?", p.Name, n)
		}
		if n := p.In.Drops["selector_mismatch"]; n != 0 {
			say("policy %s: %d packets came by another SA than the policy's: compare the policies and SPIs of both ends", p.Name, n)
		}
		if p.Out.Packets > 0 && p.In.Packets == 0 {
			say("policy %s: %d packets went out and none came back: look for drops here and at the other end", p.Name, p.Out.Packets)
		}
	}
	if s.Held != 0 {
		say("%d datagrams wait for SAs that a key manager was asked for: does the other end answer?", s.Held)
	}
	if n := s.Drops["acquire_timeout"]; n != 0 {
		say("%d packets waited in vain for an SA: does the other end answer its key manager?", n)
	}
	if n := s.Drops["no_policy"]; n != 0 {
		say("%d packets matched no policy and were discarded: add a policy with action bypass or protect if they should pass", n)
	}
	if n := s.Drops["unknown_spi"]; n != 0 {
		say("%d packets came with an SPI that no SA has: compare spi and destination with the other end's outbound SA", n)
	}
	if n := s.Drops["unresolved"]; n != 0 {
		say("%d packets went to a next hop that does not answer ARP or neighbour discovery: is the other end up, and the route right?", n)
	}
	if n := s.Drops["no_route"]; n != 0 {
		say("%d packets had no route: see the routes of %s, or add one under routes", n, s.Interface)
	}
	return list
}

// warnStalled is about the sides that the watchdog has found without progress.
func warnStalled(s *Status, say func(string, ...any)) {
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
		say("frames from the %s make no progress, so %s: if that does not end by itself, restart bitw", from, became)
	}
}

func warnSA(x *SAStatus, say func(string, ...any)) {
	switch {
	case x.Insecure:
		say("SA %s: %s is INSECURE: %s: agree on another with the other end", x.Name, x.Algorithm, x.Weak)
	case x.Weak != "":
		say("SA %s: %s is discouraged: %s", x.Name, x.Algorithm, x.Weak)
	}
	if x.Key != "" && x.Key != "valid" {
		say("SA %s: its key is %s, so it drops everything: set the key", x.Name, x.Key)
	}
	switch {
	case x.Retiring: // its successor is at work
	case x.Expired == "hard":
		say("SA %s: its lifetime is over, so it drops everything: give it a new key", x.Name)
	case x.Expired == "soft":
		say("SA %s: its soft lifetime is over: give it a new key soon", x.Name)
	}
	if n := x.Drops["icv"]; n != 0 {
		say("SA %s: %d packets failed authentication: the keys or algorithms of the two ends differ, or somebody changes packets", x.Name, n)
	}
	if n := x.Drops["replay"] + x.Drops["replay_old"]; n != 0 {
		say("SA %s: %d packets were replays or too late: if the other end was restarted with the same key, its sequence numbers must go on where they were", x.Name, n)
	}
	if n := x.Drops["seq_exhausted"] + x.Drops["seq_unreserved"]; n != 0 {
		say("SA %s: %d packets had no sequence number left (%s): give it a new key, or see that state_dir can be written", x.Name, n, strings.Join(reasons(x.Drops, "seq_"), ", "))
	}
	if x.PathMTU != 0 {
		say("SA %s: the path takes only %d octets, told by a router on the way", x.Name, x.PathMTU)
	}
}

// reasons lists the drop reasons that begin with a prefix.
func reasons(drops map[string]uint64, prefix string) []string {
	var list []string
	for r := range drops {
		if strings.HasPrefix(r, prefix) {
			list = append(list, r)
		}
	}
	return list
}
