package xfrmpeer

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Mode is IPsec's (RFC 4301, section 3.2), in iproute2's word.
type Mode string

// The modes.
const (
	Transport Mode = "transport"
	Tunnel    Mode = "tunnel"
	BEET      Mode = "beet"
)

// Algorithm is a transform with its key, in the kernel's name.
type Algorithm struct {
	Name string // such as "rfc4106(gcm(aes))", "cbc(aes)", "hmac(sha256)"
	Key  []byte // with the salt, where the algorithm has one, at its end
	ICV  int    // bits of the ICV; not for Enc
}

// AESGCM is ESP's AES-GCM (RFC 4106); key has 16, 24 or 32 octets and 4 of salt.
func AESGCM(key []byte, icvBits int) *Algorithm {
	return &Algorithm{"rfc4106(gcm(aes))", key, icvBits}
}

// ChaCha20Poly1305 is RFC 7634's; key has 32 octets and 4 of salt.
func ChaCha20Poly1305(key []byte) *Algorithm {
	return &Algorithm{"rfc7539esp(chacha20,poly1305)", key, 128}
}

// AESCCM is ESP's AES-CCM (RFC 4309); key has 16, 24 or 32 octets and 3 of salt.
func AESCCM(key []byte, icvBits int) *Algorithm {
	return &Algorithm{"rfc4309(ccm(aes))", key, icvBits}
}

// AESGMAC is ESP's AES-GMAC (RFC 4543), an AEAD to the kernel though it hides nothing;
// key has 16, 24 or 32 octets and 4 of salt.
func AESGMAC(key []byte) *Algorithm { return &Algorithm{"rfc4543(gcm(aes))", key, 128} }

// AESCTR is RFC 3686's; key has 16, 24 or 32 octets and 4 of nonce.
func AESCTR(key []byte) *Algorithm { return &Algorithm{"rfc3686(ctr(aes))", key, 0} }

// AESCBC is RFC 3602's.
func AESCBC(key []byte) *Algorithm { return &Algorithm{"cbc(aes)", key, 0} }

// DESCBC is RFC 2405's; key has 8 octets.
func DESCBC(key []byte) *Algorithm { return &Algorithm{"cbc(des)", key, 0} }

// TripleDESCBC is RFC 2451's; key has 24 octets.
func TripleDESCBC(key []byte) *Algorithm { return &Algorithm{"cbc(des3_ede)", key, 0} }

// NullCipher is RFC 2410's.
func NullCipher() *Algorithm { return &Algorithm{"ecb(cipher_null)", nil, 0} }

// HMACMD5 is HMAC-MD5-96 (RFC 2403).
func HMACMD5(key []byte) *Algorithm { return &Algorithm{"hmac(md5)", key, 96} }

// HMACSHA1 is HMAC-SHA-1-96 (RFC 2404).
func HMACSHA1(key []byte) *Algorithm { return &Algorithm{"hmac(sha1)", key, 96} }

// HMACSHA256 is HMAC-SHA-256-128 (RFC 4868), as are those of SHA-384 and 512.
func HMACSHA256(key []byte) *Algorithm { return &Algorithm{"hmac(sha256)", key, 128} }

// HMACSHA384 is HMAC-SHA-384-192.
func HMACSHA384(key []byte) *Algorithm { return &Algorithm{"hmac(sha384)", key, 192} }

// HMACSHA512 is HMAC-SHA-512-256.
func HMACSHA512(key []byte) *Algorithm { return &Algorithm{"hmac(sha512)", key, 256} }

// AESXCBC is AES-XCBC-MAC-96 (RFC 3566).
func AESXCBC(key []byte) *Algorithm { return &Algorithm{"xcbc(aes)", key, 96} }

// AESCMAC is AES-CMAC-96 (RFC 4494).
func AESCMAC(key []byte) *Algorithm { return &Algorithm{"cmac(aes)", key, 96} }

// State is a security association of one direction ("ip xfrm state").
type State struct {
	Src, Dst netip.Addr // the outer addresses
	Proto    string     // "esp" or "ah"
	SPI      uint32
	ReqID    uint32 // ties it to a policy's template; 0 is none
	Mode     Mode

	AEAD *Algorithm // either this
	Enc  *Algorithm // or, for ESP, this
	Auth *Algorithm // with this; AH has this alone

	// CrossFamily tells that a tunnel has packets of the other IP version in it.
	CrossFamily bool
	// ReplayWindow in packets; 0 is 64. More than 32 and ESN use the kernel's
	// newer form of the window.
	ReplayWindow int
	ESN          bool
	// PadTo8 leaves AH over IPv4 as Linux has it when not told otherwise; see
	// the package's comment.
	PadTo8 bool
	// InnerSrc and InnerDst are the addresses that BEET mode puts in the place of Src and
	// Dst.
	InnerSrc, InnerDst netip.Addr
	// Encap is UDP encapsulation (RFC 3948); the ports are 0 when there is none.
	EncapSrcPort, EncapDstPort uint16
	// Extra are further words for "ip xfrm state add".
	Extra string
}

// Command is the shell command that adds the state, or what is wrong with it.
func (s State) Command() (string, error) {
	if !s.Src.IsValid() || !s.Dst.IsValid() || s.Src.Is4() != s.Dst.Is4() {
		return "", fmt.Errorf("xfrmpeer: the state's addresses are %v and %v, not two of one IP version", s.Src, s.Dst)
	}
	if s.Proto != "esp" && s.Proto != "ah" {
		return "", fmt.Errorf("xfrmpeer: a state's protocol is esp or ah, not %q", s.Proto)
	}
	if s.Mode != Transport && s.Mode != Tunnel && s.Mode != BEET {
		return "", fmt.Errorf("xfrmpeer: a state's mode is transport, tunnel or beet, not %q", s.Mode)
	}
	b := new(strings.Builder)
	fmt.Fprintf(b, "ip xfrm state add src %v dst %v proto %s spi %#x mode %s", s.Src, s.Dst, s.Proto, s.SPI, s.Mode)
	if s.ReqID != 0 {
		fmt.Fprintf(b, " reqid %d", s.ReqID)
	}
	window := s.ReplayWindow
	if window == 0 {
		window = 64
	}
	fmt.Fprintf(b, " replay-window %d", window)
	var flags []string
	if s.ESN {
		flags = append(flags, "esn")
	}
	if s.CrossFamily {
		flags = append(flags, "af-unspec")
	}
	if s.Proto == "ah" && s.Src.Is4() && s.Auth != nil && s.Auth.ICV > 96 && !s.PadTo8 {
		flags = append(flags, "align4")
	}
	for _, flag := range flags {
		fmt.Fprintf(b, " flag %s", flag)
	}
	if err := s.algorithms(b); err != nil {
		return "", err
	}
	if s.EncapSrcPort != 0 || s.EncapDstPort != 0 {
		fmt.Fprintf(b, " encap espinudp %d %d 0.0.0.0", s.EncapSrcPort, s.EncapDstPort)
	}
	if s.InnerSrc.IsValid() {
		fmt.Fprintf(b, " sel src %v dst %v", s.InnerSrc, s.InnerDst)
	}
	if s.Extra != "" {
		fmt.Fprintf(b, " %s", s.Extra)
	}
	return b.String(), nil
}

func (s State) algorithms(b *strings.Builder) error {
	switch {
	case s.AEAD != nil && s.Enc == nil && s.Auth == nil && s.Proto == "esp":
		fmt.Fprintf(b, " aead '%s' %s %d", s.AEAD.Name, keyWord(s.AEAD.Key), s.AEAD.ICV)
	case s.AEAD == nil && s.Enc != nil && s.Proto == "esp", s.AEAD == nil && s.Enc == nil && s.Auth != nil && s.Proto == "ah":
		if s.Enc != nil {
			fmt.Fprintf(b, " enc '%s' %s", s.Enc.Name, keyWord(s.Enc.Key))
		}
		if s.Auth != nil {
			fmt.Fprintf(b, " auth-trunc '%s' %s %d", s.Auth.Name, keyWord(s.Auth.Key), s.Auth.ICV)
		}
	default:
		return errors.New("xfrmpeer: a state has AEAD alone, Enc with or without Auth (esp), or Auth alone (ah)")
	}
	return nil
}

// keyWord is a key in iproute2's form; the empty one is an empty word.
func keyWord(key []byte) string {
	if len(key) == 0 {
		return "''"
	}
	return "0x" + hex.EncodeToString(key)
}

// Policy is what happens to packets of one direction ("ip xfrm policy").
type Policy struct {
	Dir string // "in", "out" or "fwd"
	// Src and Dst are the packets' own addresses: in tunnel mode the inner ones.
	Src, Dst netip.Prefix
	Selector string // further words for the selector, such as "proto tcp dport 80"
	Priority int    // the lowest number wins; 0 is 1000

	// Block drops what matches, Bypass lets it through, else the templates are
	// what is done to it, from the inside out.
	Block, Bypass bool
	Templates     []Template
}

// Template is what a Policy asks for of a packet.
type Template struct {
	Proto    string // "esp" or "ah"
	Mode     Mode
	Src, Dst netip.Addr // the outer addresses in tunnel mode; else they may be left out
	ReqID    uint32
	Optional bool // inbound: a packet without it is fine, too
}

// Commands are the shell commands that add the policy and, for IPv6 in transport
// mode, those that exempt neighbour discovery from it.
func (p Policy) Commands() ([]string, error) {
	if p.Dir != "in" && p.Dir != "out" && p.Dir != "fwd" {
		return nil, fmt.Errorf("xfrmpeer: a policy's direction is in, out or fwd, not %q", p.Dir)
	}
	if !p.Src.IsValid() || !p.Dst.IsValid() || p.Src.Addr().Is4() != p.Dst.Addr().Is4() {
		return nil, fmt.Errorf("xfrmpeer: the policy's prefixes are %v and %v, not two of one IP version", p.Src, p.Dst)
	}
	if p.Priority == 0 {
		p.Priority = 1000
	}
	prefix := fmt.Sprintf("ip xfrm policy add src %v dst %v", p.Src, p.Dst)
	b := new(strings.Builder)
	fmt.Fprintf(b, "%s %s dir %s priority %d", prefix, p.Selector, p.Dir, p.Priority)
	transport := false
	switch {
	case p.Block && !p.Bypass && len(p.Templates) == 0:
		b.WriteString(" action block")
	case p.Bypass && !p.Block && len(p.Templates) == 0:
		b.WriteString(" action allow")
	case !p.Block && !p.Bypass && len(p.Templates) > 0:
		for _, t := range p.Templates {
			b.WriteString(" tmpl")
			if t.Src.IsValid() || t.Dst.IsValid() {
				fmt.Fprintf(b, " src %v dst %v", t.Src, t.Dst)
			}
			fmt.Fprintf(b, " proto %s mode %s", t.Proto, t.Mode)
			if t.ReqID != 0 {
				fmt.Fprintf(b, " reqid %d", t.ReqID)
			}
			if t.Optional {
				b.WriteString(" level use")
			}
			transport = transport || t.Mode == Transport
		}
	default:
		return nil, errors.New("xfrmpeer: a policy has exactly one of Block, Bypass and Templates")
	}
	commands := []string{b.String()}
	if transport && p.Src.Addr().Is6() {
		for _, kind := range []int{135, 136} { // neighbour solicitation and advertisement
			commands = append(commands, fmt.Sprintf("%s proto 58 type %d dir %s priority %d action allow",
				prefix, kind, p.Dir, p.Priority-1))
		}
	}
	return commands, nil
}

// AddState adds security associations in the guest.
func (p *Peer) AddState(ctx context.Context, states ...State) error {
	var commands []string
	for _, s := range states {
		command, err := s.Command()
		if err != nil {
			return err
		}
		commands = append(commands, command)
	}
	_, err := p.Sh(ctx, "set -e\n"+strings.Join(commands, "\n"))
	return err
}

// AddPolicy adds policies in the guest.
func (p *Peer) AddPolicy(ctx context.Context, policies ...Policy) error {
	var commands []string
	for _, policy := range policies {
		more, err := policy.Commands()
		if err != nil {
			return err
		}
		commands = append(commands, more...)
	}
	_, err := p.Sh(ctx, "set -e\n"+strings.Join(commands, "\n"))
	return err
}

// FlushXFRM removes every state and policy of the guest.
func (p *Peer) FlushXFRM(ctx context.Context) error {
	_, err := p.Sh(ctx, "ip xfrm policy flush && ip xfrm state flush")
	return err
}

// XFRMStat is the guest's /proc/net/xfrm_stat: by name, what its IPsec has
// refused, without the zeros.
func (p *Peer) XFRMStat(ctx context.Context) (map[string]int, error) {
	out, err := p.Sh(ctx, "cat /proc/net/xfrm_stat")
	if err != nil {
		return nil, err
	}
	stat := make(map[string]int)
	for line := range strings.Lines(out) {
		var name string
		var n int
		if _, err := fmt.Sscan(line, &name, &n); err == nil && n != 0 {
			stat[name] = n
		}
	}
	return stat, nil
}
