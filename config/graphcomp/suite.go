package graphcomp

import "bitw/config"

// A suite is what a transform node does with a key of a certain length.
type suite struct {
	protocol  config.Protocol
	algorithm string // the name in the registry of transforms
	keyLen    int    // octets
}

// suites are those of a transform node; the one of the shortest key comes first.
func (n *Node) suites() []suite {
	has := func(option string) bool {
		_, ok := n.Option(option)
		return ok
	}
	iv := "iv64"
	if has("iv32") {
		iv = "iv32"
	}
	switch n.Protocol {
	case "md5":
		if !has("rfc1828") {
			return []suite{{config.AH, "md5", 16}}
		}
		return []suite{{config.AH, "kpdkmd5", 16}}
	case "crypt":
		return []suite{{config.ESP, "des" + iv, 8}}
	case "tcrypt":
		return []suite{{config.ESP, "descts" + iv, 8}}
	case "crypt3":
		return []suite{{config.ESP, "3des112iv64", 16}, {config.ESP, "3des168iv64", 24}}
	case "crypt3in":
		return []suite{{config.ESP, "3desin112iv64", 16}, {config.ESP, "3desin168iv64", 24}}
	}
	return nil
}

// suite is the one for a key of n octets; for the empty key that of the shortest.
func (n *Node) suite(keyLen int) (suite, bool) {
	for _, s := range n.suites() {
		if s.keyLen == keyLen || keyLen == 0 {
			return s, true
		}
	}
	return suite{}, false
}
