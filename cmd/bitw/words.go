package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// count is a number with its noun.
func count(n uint64, noun string) string {
	switch {
	case n == 1:
	case strings.HasSuffix(noun, "cy"):
		noun = strings.TrimSuffix(noun, "y") + "ies"
	default:
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// bytesText is a number of octets for people, exact below 1,024.
func bytesText(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n), ""
	for _, unit = range []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"} {
		v /= 1024
		// 1023.995 would be printed as 1024.00.
		if v < 1023.995 {
			break
		}
	}
	return fmt.Sprintf("%.2f %s", v, unit)
}

// parseSize reads a number of octets above 0, with or without a unit.
func parseSize(s string) (int64, error) {
	digits, factor := s, int64(1)
	for _, u := range []struct {
		name   string
		factor int64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}} {
		if rest, ok := strings.CutSuffix(s, u.name); ok {
			digits, factor = rest, u.factor
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
	if err != nil || n <= 0 || n > math.MaxInt64/factor {
		return 0, usagef("%q is not a number of octets such as 500000 or 16MiB", s)
	}
	return n * factor, nil
}

// age says how long ago t was, "never" for the zero time.
func age(t, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	seconds := uint64(max(0, now.Sub(t)) / time.Second)
	if seconds == 0 {
		return "now"
	}
	var words []string
	for _, u := range []struct {
		length uint64
		noun   string
	}{{86400, "day"}, {3600, "hour"}, {60, "minute"}, {1, "second"}} {
		if n := seconds / u.length; n > 0 {
			words = append(words, count(n, u.noun))
			seconds %= u.length
		} else if len(words) > 0 {
			break // "1 day, 5 seconds" is more exact than anybody wants
		}
		if len(words) == 2 {
			break
		}
	}
	return strings.Join(words, ", ") + " ago"
}

// sentence joins what was found with what would do.
func sentence(message, hint string) string {
	if hint == "" {
		return message
	}
	return message + "; " + hint
}

// shellWord is a word as a shell takes it.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_./:@%+=,-", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// dropWords says in plain words what a drop reason means and, where it is not a
// matter of course, what it may come from.
func dropWords(reason string) string {
	switch reason {
	case "no_policy":
		return "no policy matches; add one if this traffic is wanted"
	case "policy_discard":
		return "a policy says discard"
	case "clear_not_protected":
		return "arrived in the clear, but a policy wants it protected; does the other side protect it?"
	case "selector_mismatch":
		return "decrypted, but not what its SA is for; do both sides have the same policies?"
	case "no_sa":
		return "a policy says protect, and no SA is there to do it"
	case "acquire_timeout":
		return "waited for an SA that its key manager did not make in time; is the other end there?"
	case "class_discard":
		return "non-IP, broadcast or multicast; the configuration's classes let it through by name"
	case "unknown_spi":
		return "ESP or AH of no SA here; do SPI and destination agree with the other side?"
	case "replay":
		return "sequence number seen before: sent again by the network or by somebody"
	case "replay_old":
		return "sequence number older than the replay window; did the other side start anew with the same key?"
	case "icv":
		return "integrity check failed: altered on its way, or the other side has another key"
	case "bad_padding":
		return "ESP padding is not as the standard has it"
	case "bad_length":
		return "too short or too long for its algorithm; do both sides use the same?"
	case "bad_next_header":
		return "carries what the SA's mode does not allow; do both sides use the same mode?"
	case "dummy":
		return "dummy packet of the other side, meant to be dropped"
	case "wrong_transform":
		return "ESP and AH not in the order that the policy lists"
	case "encap_mismatch":
		return "ESP in UDP for an SA without encap, or the other way round; do both sides have the same ports?"
	case "martian":
		return "an SA brought a source address that no station has"
	case "source_route":
		return "an SA brought a packet that says itself where to go from here"
	case "nat_keepalive":
		return "NAT keepalive of the other side, meant to be dropped"
	case "ecn":
		return "congestion was marked, and the packet inside cannot tell"
	case "seq_exhausted":
		return "all sequence numbers of the SA are used up; give it a new key and SPI"
	case "seq_unreserved":
		return "no sequence numbers could be reserved; is state_dir writable, and its disk not full?"
	case "lifetime_expired":
		return "the SA's lifetime is over; give it a new key and SPI"
	case "key_invalid":
		return "the SA has no usable key"
	case "malformed":
		return "the packet contradicts itself"
	case "too_big":
		return "does not fit the path and must not be fragmented; its sender was told"
	case "ttl_exceeded":
		return "its time to live is over"
	case "frag_overlap":
		return "fragments overlap, as in attacks"
	case "frag_duplicate":
		return "the same fragment once more"
	case "frag_timeout":
		return "other fragments of the packet did not arrive in time"
	case "frag_memory":
		return "too many fragments wait for the rest of their packets"
	case "frag_policy":
		return "a fragment without the ports that the policies ask for, or the policy discards fragments"
	case "extension_header":
		return "IPv6 extension headers that cannot be followed"
	case "own_address_spoof":
		return "came from the wire with this host's own address as source"
	case "icmp_policy":
		return "ICMP error about nothing that was let pass"
	case "no_route":
		return "no route to the destination"
	case "unresolved":
		return "the neighbour does not answer; is the other side up?"
	case "queue_full":
		return "came faster than it could be passed on"
	case "link_write":
		return "the interface refused the frame"
	case "link_down":
		return "the interface is not up"
	case "bad_frame":
		return "not an Ethernet frame"
	case "bad_offload":
		return "what the kernel said of segments and checksums contradicts the frame"
	case "foreign_mac":
		return "for another station on the network"
	case "endpoint_gone":
		return "came while bitw was stopping"
	case "tap_full":
		return "came faster than bitw read it; is the machine too slow for its traffic?"
	case "tap_closed":
		return "came while the states of the taps let nothing pass, see bitw tap"
	case "tap_oversize":
		return "a superframe of more than 64 KiB (BIG TCP); leave gso_max_size at its default"
	}
	return ""
}
