package hook

import (
	"fmt"
	"slices"
)

// Policy is what ClassOf returns for unicast IP, which policies decide.
const Policy = "policy"

// ClassOf names the class of a frame, given from its Ethernet header on and without
// virtio-net header, and says what a Class with these rules does with it: whether it
// lets it cross. For Policy, and for arp and ndp that the hooks and the stack answer,
// handled is true instead. protects is that of ClassOptions.
func ClassOf(frame []byte, rules []ClassRule, neighbors Neighbors, protects func([]byte) bool) (name string, bypass, handled bool) {
	if len(frame) < ethernetLen {
		return classNames[classOther], false, false
	}
	bypasses := func(name string) bool { return slices.Contains(rules, ClassRule{Name: name, Bypass: true}) }
	eth := frame[:ethernetLen]
	k := decided(classify(eth, frame[ethernetLen:], bypasses(classNames[classDHCP])), frame[ethernetLen:], protects)
	if k >= classLLDP {
		ether := fmt.Sprintf("ethertype 0x%04x", etherType(eth))
		if i := slices.IndexFunc(rules, func(r ClassRule) bool { return r.Name == ether }); i >= 0 {
			return ether, rules[i].Bypass, false
		}
	}
	if k == classNone {
		return Policy, false, true
	}
	if k == classARP || k == classNDP {
		discards := slices.Contains(rules, ClassRule{Name: classNames[k]})
		return classNames[k], neighbors != Answer && !discards, neighbors == Answer
	}
	return classNames[k], bypasses(classNames[k]), false
}
