package peertest_test

import (
	"crypto/rand"
	"fmt"
	"net/netip"
	"testing"

	"bitw/config"
	"bitw/integration/netlab"
	"bitw/integration/xfrmpeer"
)

// suite is an algorithm as the two ends call it.
type suite struct {
	protocol config.Protocol
	name     string // bitw's
	enc      int    // octets of the encryption key, with the salt
	auth     int    // octets of the integrity key
	// linux puts the algorithm with its keys into a state.
	linux func(s *xfrmpeer.State, enc, auth []byte)
}

func gcm(bits, icv int) suite {
	return suite{config.ESP, fmt.Sprintf("aes%dgcm%d", bits, icv), bits/8 + 4, 0, func(s *xfrmpeer.State, enc, _ []byte) {
		s.AEAD = xfrmpeer.AESGCM(enc, 8*icv)
	}}
}

func chacha() suite {
	return suite{config.ESP, "chacha20poly1305", 36, 0, func(s *xfrmpeer.State, enc, _ []byte) {
		s.AEAD = xfrmpeer.ChaCha20Poly1305(enc)
	}}
}

func ccm(bits, icv int) suite {
	return suite{config.ESP, fmt.Sprintf("aes%dccm%d", bits, icv), bits/8 + 3, 0, func(s *xfrmpeer.State, enc, _ []byte) {
		s.AEAD = xfrmpeer.AESCCM(enc, 8*icv)
	}}
}

func gmac(bits int) suite {
	return suite{config.ESP, fmt.Sprintf("aes%dgmac", bits), 0, bits/8 + 4, func(s *xfrmpeer.State, _, auth []byte) {
		s.AEAD = xfrmpeer.AESGMAC(auth)
	}}
}

// mac is an integrity algorithm as the two ends call it.
type mac struct {
	name   string // bitw's
	octets int    // of the key
	linux  func(key []byte) *xfrmpeer.Algorithm
}

func md5() mac { return mac{"md5", 16, xfrmpeer.HMACMD5} }

// hmac is an HMAC by the octets of its key, which are those of its sum.
func hmac(auth int) mac {
	switch auth {
	case 20:
		return mac{"sha1", auth, xfrmpeer.HMACSHA1}
	case 32:
		return mac{"sha256", auth, xfrmpeer.HMACSHA256}
	case 48:
		return mac{"sha384", auth, xfrmpeer.HMACSHA384}
	}
	return mac{"sha512", 64, xfrmpeer.HMACSHA512}
}

func xcbc() mac { return mac{"aesxcbc", 16, xfrmpeer.AESXCBC} }
func cmac() mac { return mac{"aescmac", 16, xfrmpeer.AESCMAC} }

func cbc(bits, auth int) suite { return cbcWith(bits, hmac(auth)) }

func cbcWith(bits int, m mac) suite {
	return suite{config.ESP, fmt.Sprintf("aes%d-%s", bits, m.name), bits / 8, m.octets, func(s *xfrmpeer.State, enc, auth []byte) {
		s.Enc, s.Auth = xfrmpeer.AESCBC(enc), m.linux(auth)
	}}
}

func des(m mac) suite {
	return suite{config.ESP, "des-" + m.name, 8, m.octets, func(s *xfrmpeer.State, enc, auth []byte) {
		s.Enc, s.Auth = xfrmpeer.DESCBC(enc), m.linux(auth)
	}}
}

func tripleDES(m mac) suite {
	return suite{config.ESP, "3des-" + m.name, 24, m.octets, func(s *xfrmpeer.State, enc, auth []byte) {
		s.Enc, s.Auth = xfrmpeer.TripleDESCBC(enc), m.linux(auth)
	}}
}

func ctr(bits int, m mac) suite {
	return suite{config.ESP, fmt.Sprintf("aes%dctr-%s", bits, m.name), bits/8 + 4, m.octets, func(s *xfrmpeer.State, enc, auth []byte) {
		s.Enc, s.Auth = xfrmpeer.AESCTR(enc), m.linux(auth)
	}}
}

func null(auth int) suite { return nullWith(hmac(auth)) }

func nullWith(m mac) suite {
	return suite{config.ESP, "null-" + m.name, 0, m.octets, func(s *xfrmpeer.State, _, auth []byte) {
		s.Enc, s.Auth = xfrmpeer.NullCipher(), m.linux(auth)
	}}
}

func ah(auth int) suite { return ahWith(hmac(auth)) }

func ahWith(m mac) suite {
	return suite{config.AH, m.name, 0, m.octets, func(s *xfrmpeer.State, _, auth []byte) { s.Auth = m.linux(auth) }}
}

// hides says whether the packets' contents cannot be read on the wire.
func (s suite) hides() bool { return s.enc > 0 }

// kase is what is protected how between the host and one address of the guest.
type kase struct {
	suites []suite // from the inside out; more than one is a bundle in transport mode
	// headers are the appliance's outer headers.
	headers config.Headers
	mode    config.Mode
	// outer and inner are the IP versions on the wire and inside; the same in
	// transport mode.
	outer, inner int
	esn          bool
	encap        bool  // ESP in UDP
	tfc          int   // octets to which the appliance pads, or config.PadToMTU
	bulk         int64 // octets of TCP in each direction
	// first is the sequence number that the host begins with; 0 stands for 1.
	first uint64

	n int // the case's number, from which its addresses and SPIs are derived
}

func (k kase) String() string {
	name := ""
	for i := len(k.suites) - 1; i >= 0; i-- {
		s := k.suites[i]
		name += string(s.protocol) + " " + s.name
		if i > 0 {
			name += " over "
		}
	}
	if k.esn {
		name += " esn"
	}
	if k.encap {
		name += " in udp"
	}
	if k.tfc != 0 {
		name += fmt.Sprintf(" tfc %d", k.tfc)
	}
	if k.headers.Fragment != "" {
		name += " fragment " + string(k.headers.Fragment)
	}
	if k.mode == config.Transport {
		return fmt.Sprintf("%s transport v%d", name, k.outer)
	}
	return fmt.Sprintf("%s %s %din%d", name, k.mode, k.inner, k.outer)
}

// The ports of ESP in UDP.
const (
	encapHostPort  = 4501
	encapGuestPort = config.DefaultEncapPort
)

// listener is the guest's command that has its kernel take ESP out of UDP. An IKE
// daemon would hold the socket open and set the option UDP_ENCAP (100) to
// UDP_ENCAP_ESPINUDP (2).
func (k kase) listener() string {
	if !k.encap {
		return ""
	}
	bind := fmt.Sprintf("UDP4-RECV:%d,bind=%v", encapGuestPort, k.peerAddr(4))
	if k.outer == 6 {
		bind = fmt.Sprintf("UDP6-RECV:%d,bind=[%v]", encapGuestPort, k.peerAddr(6))
	}
	return fmt.Sprintf("socat -u %s,setsockopt-listen=17:100:i2 /dev/null </dev/null >/dev/null 2>&1 &\n", bind)
}

func hostAddr(version int) netip.Addr { return netlab.DefaultA()[version/6].Addr() }

// peerAddr is the case's address at the other end.
func (k kase) peerAddr(version int) netip.Addr {
	if version == 4 {
		return netip.AddrFrom4([4]byte{192, 0, 2, byte(11 + k.n)})
	}
	a := netip.MustParseAddr("2001:db8::").As16()
	a[15] = byte(11 + k.n)
	return netip.AddrFrom16(a)
}

// outermost is the class of the case's frames on the wire.
func (k kase) outermost() netlab.Class {
	if k.suites[len(k.suites)-1].protocol == config.AH {
		return netlab.AH
	}
	if k.encap {
		return netlab.ESPInUDP
	}
	return netlab.ESP
}

func (k kase) hides() bool {
	for _, s := range k.suites {
		if s.hides() {
			return true
		}
	}
	return false
}

// ends is a case made ready for both ends.
type ends struct {
	kase
	sas      []config.SA // out and in for each suite, from the inside out
	policy   config.Policy
	states   []xfrmpeer.State // of the SAs, in their order
	policies []xfrmpeer.Policy
}

func (k kase) ends(t *testing.T) ends {
	t.Helper()
	e := ends{kase: k}
	whole := func(a netip.Addr) []config.AddressRange { return []config.AddressRange{{First: a, Last: a}} }
	single := func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
	e.policy = config.Policy{
		Name: fmt.Sprint("case-", k.n), Action: config.Protect,
		Local: whole(hostAddr(k.inner)), Remote: whole(k.peerAddr(k.inner)),
	}
	// The guest's "in" is the host's out.
	in := xfrmpeer.Policy{Dir: "in", Src: single(hostAddr(k.inner)), Dst: single(k.peerAddr(k.inner))}
	out := xfrmpeer.Policy{Dir: "out", Src: in.Dst, Dst: in.Src}
	for layer, s := range k.suites {
		for _, direction := range []config.Direction{config.Out, config.In} {
			src, dst, policy, spi := hostAddr(k.outer), k.peerAddr(k.outer), &in, 0x1000
			if direction == config.In {
				src, dst, policy, spi = dst, src, &out, 0x2000
			}
			spi += 16*k.n + layer
			enc, auth := noise(t, s.enc), noise(t, s.auth)
			c := config.SA{
				Name: fmt.Sprintf("%s-%d-%d", direction, k.n, layer), Direction: direction,
				Protocol: s.protocol, Mode: k.mode, SPI: uint32(spi), Source: src, Destination: dst,
				Algorithm: s.name, EncryptionKey: config.NewSecret(enc), IntegrityKey: config.NewSecret(auth), ESN: k.esn,
			}
			state := xfrmpeer.State{
				Src: src, Dst: dst, Proto: string(s.protocol), SPI: c.SPI, ReqID: c.SPI,
				Mode: xfrmpeer.Mode(k.mode), CrossFamily: k.inner != k.outer, ESN: k.esn,
			}
			c.Headers = k.headers
			if k.mode == config.BEET {
				c.InnerSource, c.InnerDestination = hostAddr(k.inner), k.peerAddr(k.inner)
				if direction == config.In {
					c.InnerSource, c.InnerDestination = c.InnerDestination, c.InnerSource
				}
				state.InnerSrc, state.InnerDst, state.CrossFamily = c.InnerSource, c.InnerDestination, false
			}
			s.linux(&state, enc, auth)
			if k.encap {
				c.Encap = &config.Encap{LocalPort: encapHostPort, RemotePort: encapGuestPort, Float: true}
				state.EncapSrcPort, state.EncapDstPort = encapHostPort, encapGuestPort
				if direction == config.In {
					state.EncapSrcPort, state.EncapDstPort = encapGuestPort, encapHostPort
				}
			}
			if direction == config.Out {
				c.TFCPadding = k.tfc
			}
			if k.first != 0 && direction == config.Out {
				state.Extra = fmt.Sprintf("replay-seq %#x replay-seq-hi %#x", uint32(k.first-1), (k.first-1)>>32)
			}
			template := xfrmpeer.Template{Proto: state.Proto, Mode: state.Mode, Src: src, Dst: dst, ReqID: state.ReqID}
			policy.Templates = append(policy.Templates, template)
			if direction == config.Out {
				e.policy.Out = append(e.policy.Out, c.Name)
			} else {
				e.policy.In = append(e.policy.In, c.Name)
			}
			e.sas, e.states = append(e.sas, c), append(e.states, state)
		}
	}
	e.policies = []xfrmpeer.Policy{in, out}
	if k.encap {
		// The guest's kernel holds the policies against the UDP datagram too, before it
		// looks for ESP in it. An IKE daemon exempts its socket.
		e.policies = append(e.policies, xfrmpeer.Policy{
			Dir: "in", Src: single(hostAddr(k.outer)), Dst: single(k.peerAddr(k.outer)), Bypass: true, Priority: 998,
			Selector: fmt.Sprintf("proto 17 sport %d dport %d", encapHostPort, encapGuestPort),
		})
	}
	if k.mode != config.Transport && k.inner == 6 {
		e.policies = append(e.policies, clearDiscovery(in)...)
		e.policies = append(e.policies, clearDiscovery(out)...)
	}
	return e
}

// clearDiscovery exempts the neighbour discovery of the link that a tunnel with
// the same addresses inside and outside is laid over.
func clearDiscovery(p xfrmpeer.Policy) []xfrmpeer.Policy {
	p.Templates, p.Bypass, p.Priority = nil, true, 999
	solicitation, advertisement := p, p
	solicitation.Selector, advertisement.Selector = "proto 58 type 135", "proto 58 type 136"
	return []xfrmpeer.Policy{solicitation, advertisement}
}

func noise(t *testing.T, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}
