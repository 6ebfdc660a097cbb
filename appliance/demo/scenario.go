package demo

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"bitw/appliance"
	"bitw/config"
)

// a and b are the two hosts as indices.
const (
	a = 0
	b = 1
)

// hostName is how a host is called in everything that is printed.
func hostName(i int) string { return [2]string{"a", "b"}[i] }

// A family is one IP version with what protects it.
type family struct {
	name      string
	hosts     [2]netip.Prefix // documentation addresses (RFC 5737, RFC 3849)
	mode      config.Mode
	algorithm string
	encLen    int // octets of the encryption key, with the salt
	authLen   int // octets of the integrity key
}

// families are what the hosts talk, with an algorithm each that Wireshark can
// decrypt.
func families() [2]family {
	return [2]family{
		{
			name:      "IPv4",
			hosts:     [2]netip.Prefix{netip.MustParsePrefix("198.51.100.1/24"), netip.MustParsePrefix("198.51.100.2/24")},
			mode:      config.Transport,
			algorithm: "aes128gcm16", encLen: 20,
		},
		{
			name:      "IPv6",
			hosts:     [2]netip.Prefix{netip.MustParsePrefix("2001:db8:1::1/64"), netip.MustParsePrefix("2001:db8:1::2/64")},
			mode:      config.Tunnel,
			algorithm: "aes256-sha256", encLen: 32, authLen: 32,
		},
	}
}

// addresses are a host's own.
func addresses(host int) []netip.Prefix {
	var list []netip.Prefix
	for _, f := range families() {
		list = append(list, f.hosts[host])
	}
	return list
}

// mac is the Ethernet address of a host, from the locally administered ones.
func mac(host int) net.HardwareAddr {
	return net.HardwareAddr{0x02, 0x00, 0x5e, 0x10, 0x00, byte(host + 1)}
}

// An association is one direction of a family, with its keys, which both
// appliances hold.
type association struct {
	family
	name      string
	from, to  int
	spi       uint32
	enc, auth []byte
}

// newAssociations draws the keys of all directions.
func newAssociations() ([]association, error) {
	var list []association
	spis := make(map[uint32]bool)
	for _, f := range families() {
		for _, from := range []int{a, b} {
			s := association{
				family: f, from: from, to: 1 - from,
				name: fmt.Sprintf("%s-to-%s-%s", hostName(from), hostName(1-from), f.name),
				enc:  make([]byte, f.encLen), auth: make([]byte, f.authLen),
			}
			var spi [4]byte
			for _, random := range [][]byte{s.enc, s.auth, spi[:]} {
				if _, err := rand.Read(random); err != nil {
					return nil, fmt.Errorf("demo: random keys: %w", err)
				}
			}
			// SPIs up to 255 are reserved (RFC 4303 section 2.1).
			s.spi = binary.BigEndian.Uint32(spi[:]) | 0x1000
			for spis[s.spi] {
				s.spi++
			}
			spis[s.spi] = true
			list = append(list, s)
		}
	}
	return list, nil
}

// configOf is the configuration of one host's appliance: everything between the
// two hosts is protected, and everything else is discarded, as no rule names it.
func configOf(host int, iface string, associations []association) appliance.Config {
	cfg := config.Default()
	cfg.Interface, cfg.Control, cfg.StateDir = iface, "", ""
	for _, s := range associations {
		c := config.SA{
			Name: s.name, Direction: config.In, Protocol: config.ESP, Mode: s.mode, SPI: s.spi,
			Source: s.hosts[s.from].Addr(), Destination: s.hosts[s.to].Addr(),
			Algorithm:     s.algorithm,
			EncryptionKey: config.NewSecret(s.enc), IntegrityKey: config.NewSecret(s.auth),
			ReplayWindow: 1024,
		}
		if s.from == host {
			c.Direction = config.Out
		}
		cfg.SAs = append(cfg.SAs, c)
	}
	for _, f := range families() {
		p := config.Policy{
			Name: f.name, Direction: config.Both, Action: config.Protect,
			Local: only(f.hosts[host].Addr()), Remote: only(f.hosts[1-host].Addr()),
		}
		for _, s := range associations {
			if s.family.name != f.name {
				continue
			}
			if s.from == host {
				p.Out = append(p.Out, s.name)
			} else {
				p.In = append(p.In, s.name)
			}
		}
		cfg.Policies = append(cfg.Policies, p)
	}
	return cfg
}

func only(addr netip.Addr) []config.AddressRange {
	return []config.AddressRange{{First: addr, Last: addr}}
}
