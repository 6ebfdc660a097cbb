package explain

import (
	"fmt"
	"strings"

	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
)

// summary says in a sentence what becomes of the packet.
func (e *explanation) summary() {
	r := e.r
	rule := "no policy matches"
	if r.Rule != nil {
		rule = fmt.Sprintf("policy %s says %s", r.Rule.Name, r.Rule.Action)
	}
	if e.side == hook.Right {
		r.Summary = e.inbound(rule)
		return
	}
	to := "to the wire"
	switch r.Outcome {
	case Sent, WaitsForNeighbor:
		what := "it leaves " + to + " as it is"
		if r.Verdict == Protect {
			what = fmt.Sprintf("it leaves %s protected by %s", to, names(r.SAs))
		}
		if n := len(r.Frames); n > 1 {
			what += fmt.Sprintf(", as %d fragments", n)
		}
		if r.Outcome == WaitsForNeighbor {
			what += ", once the Ethernet address of its next hop is found"
		}
		r.Summary = rule + ": " + what
	case WaitsForSA:
		r.Summary = fmt.Sprintf("%s: it waits, and a key manager is asked for %s", rule, names(missing(r.SAs)))
	case WaitsForFragments:
		r.Summary = "a fragment waits for the others of its datagram, and then policy decides about the whole; ask about that without frag"
	case Dropped:
		r.Summary = fmt.Sprintf("%s: it is dropped, and counted as %s", rule, r.Reason)
		if !e.x.Asked {
			r.Summary = fmt.Sprintf("no policy is asked: it is dropped, and counted as %s", r.Reason)
		}
		if r.Answer != nil {
			r.Summary += "; the host is told by " + r.Answer.words()
		}
	default:
		r.Summary = "it ends at bitw itself"
	}
}

func (e *explanation) inbound(rule string) string {
	r, x := e.r, e.x
	switch r.Outcome {
	case Sent, WaitsForNeighbor:
		what := rule + ": the host gets it as it is"
		if len(x.Removed) > 0 {
			what = fmt.Sprintf("it comes by %s, and %s: the host gets what is inside", names(r.SAs), rule)
		}
		if n := len(r.Frames); n > 1 {
			what += fmt.Sprintf(", as %d fragments", n)
		}
		return what + e.toldSender()
	case Authenticated:
		return fmt.Sprintf("SA %s takes it: its sequence number is new; if the ICV is right, what is inside must fit a policy that names this SA inbound (%s); ask with carrying (...)",
			names(r.SAs), e.users())
	case WaitsForFragments:
		return "a fragment waits for the others of its datagram, and then SA or policy decide about the whole; ask about that without frag"
	case Dropped:
		switch {
		case e.unknownSPI():
			return "no SA has this SPI, destination and protocol: it is dropped, and counted as " + r.Reason
		case r.Reason == wire.DropTooBig.String() && r.Rule != nil:
			what := rule
			if len(x.Removed) > 0 {
				what = fmt.Sprintf("it comes by %s, and %s", names(r.SAs), rule)
			}
			return fmt.Sprintf("%s: it is too long for the inside interface, dropped, and counted as %s%s", what, r.Reason, e.toldSender())
		case len(x.Removed) > 0 && x.Asked:
			return fmt.Sprintf("it comes by %s, but %s for what is inside: it is dropped, and counted as %s", names(r.SAs), rule, r.Reason)
		case r.Reason == wire.DropClearNotProtected.String():
			return fmt.Sprintf("%s, but it comes in the clear: it is dropped, and counted as %s", rule, r.Reason)
		case x.Tried != nil && !x.Asked:
			return fmt.Sprintf("SA %s does not take it: %s; it is dropped, and counted as %s", names(r.SAs), r.SAs[len(r.SAs)-1].State, r.Reason)
		case x.Asked:
			return fmt.Sprintf("%s: it is dropped, and counted as %s", rule, r.Reason)
		}
		return "no policy is asked: it is dropped, and counted as " + r.Reason
	}
	if x.LearnedPMTU {
		return "it tells the path MTU of an SA, which bitw takes to heart; the host does not get it"
	}
	return "it ends at bitw itself"
}

// toldSender says what the remote sender of a packet is told.
func (e *explanation) toldSender() string {
	switch a := e.r.Answer; {
	case a == nil:
		return ""
	case a.Refused:
		return "; its sender is not told, since no policy lets the error out: " + a.words()
	default:
		return "; its sender is told by " + a.words()
	}
}

// words is the answer with the MTU that it tells.
func (a *Answer) words() string {
	if a.MTU == 0 {
		return a.Text
	}
	return fmt.Sprintf("%s, MTU %d", a.Text, a.MTU)
}

// users names the policies whose inbound packets come by the SA that was tried.
func (e *explanation) users() string {
	var list []string
	for _, p := range e.env.Engine.SPD().Policies() {
		for _, l := range p.In {
			if l == e.x.Tried.Lineage {
				list = append(list, p.Name)
			}
		}
	}
	if len(list) == 0 {
		return "there is none"
	}
	return strings.Join(list, ", ")
}

func names(list []SA) string {
	words := make([]string, len(list))
	for i := range list {
		words[i] = list[i].Name
	}
	return strings.Join(words, ", then ")
}

func missing(list []SA) (out []SA) {
	for _, s := range list {
		if !s.Present {
			out = append(out, s)
		}
	}
	return out
}

// advice says what to do about what is wrong.
func (e *explanation) advice() {
	r := e.r
	warn := func(format string, args ...any) { r.Warnings = append(r.Warnings, fmt.Sprintf(format, args...)) }
	if r.Reason != "" {
		if text := e.remedy(); text != "" {
			warn("%s", text)
		}
	}
	if b := r.Budget; b != nil && b.Sealed > b.Limit && len(r.Frames) > 1 {
		warn("the protected packet has %d octets and the path takes %d, so it is sent in %d fragments; packets of at most %d need none: set mss_clamp, or the MTU of the host", b.Sealed, b.Limit, len(r.Frames), b.MaxInner)
	}
	for _, l := range e.outboundLineages() {
		if s := l.Outbound(); s != nil && s.Algorithm.Weak != "" {
			warn("SA %s: %s is discouraged: %s", s.Name, s.Algorithm.Name, s.Algorithm.Weak)
		}
	}
}

func (e *explanation) outboundLineages() []*sa.Lineage {
	if e.side == hook.Left && e.x.Policy != nil {
		return e.x.Policy.Out
	}
	return nil
}

const maxListed = 5

// inboundSAs lists those for which the packet may be meant.
func (e *explanation) inboundSAs() string {
	var near, others []string
	for _, s := range e.env.SAD.All() {
		switch {
		case s.Direction != sa.Inbound:
		case s.Key.Dst == e.in.Dst:
			near = append(near, fmt.Sprintf("%s (%v)", s.Name, s.Key))
		default:
			others = append(others, fmt.Sprintf("%s (%v)", s.Name, s.Key))
		}
	}
	list := append(near, others...)
	switch {
	case len(list) == 0:
		return "none"
	case len(list) > maxListed:
		return strings.Join(list[:maxListed], ", ") + fmt.Sprintf(" and %d more", len(list)-maxListed)
	}
	return strings.Join(list, ", ")
}

// remedy says what to do about a drop.
func (e *explanation) remedy() string {
	r := e.r
	switch e.x.Drops[0] {
	case wire.DropNoPolicy:
		return "add a policy with action bypass or protect if this is to pass"
	case wire.DropClearNotProtected:
		return "the other end must protect it by " + names(r.SAs) + ", or the policy must say bypass"
	case wire.DropSelectorMismatch:
		if e.side == hook.Left {
			return "a transport mode SA ends where the packet does, and BEET mode at its inner addresses: compare source and destination of the SA with the packet, or use tunnel mode"
		}
		return "compare the policies of both ends: the other one sends this by another SA than this end expects"
	case wire.DropNoSA:
		return "an SA that the policy names is not there: see bitw status"
	case wire.DropKeyInvalid:
		return "set the key of the SA"
	case wire.DropLifetimeExpired, wire.DropSeqExhausted:
		return "give the SA a new key and SPI"
	case wire.DropUnknownSPI:
		return "compare spi and destination with the other end's outbound SA; inbound SAs here: " + e.inboundSAs()
	case wire.DropReplay, wire.DropReplayOld:
		return "if the other end was restarted with the same key, its sequence numbers must go on where they were"
	case wire.DropNoRoute:
		return "see the routes of the interface, or add one under routes"
	case wire.DropTooBig:
		if r.Answer == nil {
			return ""
		}
		return fmt.Sprintf("packets of at most %d octets fit; a host that does not heed the ICMP error needs mss_clamp or a lower MTU", r.Answer.MTU)
	case wire.DropOwnAddressSpoof:
		return "the wire brings a source address that is this host's own: if the host sends it, ask with out; if not, somebody has the same address"
	case wire.DropICMPPolicy:
		if e.side == hook.Left {
			return "an ICMP error that quotes what came protected does not leave in the clear: a policy must protect it"
		}
		return "an ICMP error in the clear passes where a policy bypasses it or the packet that it is about, and tells a path MTU where that is ESP or AH sent not long ago; icmp_errors in the configuration may want more"
	case wire.DropEncapMismatch:
		return "both ends must agree on encap and its ports"
	}
	return ""
}
