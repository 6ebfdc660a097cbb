package bench

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/crypto/chacha20poly1305"

	"bitw/appliance"
	"bitw/config"
	"bitw/netstack/wire"
	"bitw/sa/transform"
)

// A suite is an ESP algorithm with keys for both directions.
type suite struct {
	transform.Algorithm
	enc, auth [2][]byte // by the host that sends
}

func newSuite(name string) (*suite, error) {
	alg, err := transform.Lookup(transform.ProtoESP, name)
	if err != nil {
		return nil, err
	}
	s := &suite{Algorithm: alg}
	for i := range s.enc {
		s.enc[i], s.auth[i] = make([]byte, alg.EncryptionKeyLen), make([]byte, alg.IntegrityKeyLen)
		for _, k := range [][]byte{s.enc[i], s.auth[i]} {
			if _, err := rand.Read(k); err != nil {
				return nil, fmt.Errorf("bench: random keys: %w", err)
			}
		}
	}
	return s, nil
}

// config is the configuration of a host's appliance: everything between the two hosts
// is protected by ESP in transport mode, or bypassed.
func (s *suite) config(host int, iface string, action config.Action) appliance.Config {
	cfg := config.Default()
	cfg.Interface, cfg.Control, cfg.StateDir, cfg.AllowInsecure = iface, "", "", s.Insecure
	only := func(a netip.Addr) []config.AddressRange { return []config.AddressRange{{First: a, Last: a}} }
	p := config.Policy{
		Name: "all", Direction: config.Both, Action: action,
		Local: only(address(host).Addr()), Remote: only(address(1 - host).Addr()),
	}
	if action == config.Protect {
		for from, name := range []string{"ab", "ba"} {
			x := config.SA{
				Name: name, Direction: config.In, Protocol: config.ESP, Mode: config.Transport, SPI: 0x1001 + uint32(from),
				Source: address(from).Addr(), Destination: address(1 - from).Addr(),
				Algorithm: s.Name, EncryptionKey: config.NewSecret(s.enc[from]), IntegrityKey: config.NewSecret(s.auth[from]),
				ReplayWindow: 1024,
			}
			if from == host {
				x.Direction = config.Out
				p.Out = []string{name}
			} else {
				p.In = []string{name}
			}
			cfg.SAs = append(cfg.SAs, x)
		}
	}
	cfg.Policies = []config.Policy{p}
	return cfg
}

// Sources of a bare algorithm.
const (
	// BareAEAD is the implementation that Go and golang.org/x/crypto have.
	BareAEAD = "crypto/cipher"
	// BareTransform is bitw's own transform, where there is no AEAD of Go's: cipher and
	// integrity, and the ESP header and trailer.
	BareTransform = "transform"
)

// A bare algorithm seals and opens packet after packet in place and does nothing else.
type bare struct {
	source  string
	packets [][]byte // the octets that ESP protects, with room for what sealing adds
	seal    func(b []byte, n uint64)
	open    func(b []byte, n uint64) bool
	n       uint64 // packets sealed so far
}

// protected is what ESP protects of a segment in transport mode, without padding and
// the two octets of its trailer.
const protected = tcpHeader + Segment

func newBare(s *suite) (*bare, error) {
	aead, err := bareAEAD(s)
	if err != nil {
		return nil, err
	}
	x := new(bare)
	var room int
	if aead != nil {
		room = x.useAEAD(aead)
	} else if room, err = x.useTransform(s); err != nil {
		return nil, err
	}
	memory := make([]byte, superframes*segmentsEach*room)
	for len(memory) > 0 {
		x.packets = append(x.packets, memory[:room:room])
		memory = memory[room:]
	}
	return x, nil
}

// bareAEAD returns the AEAD of Go's that a suite is, or nil.
func bareAEAD(s *suite) (cipher.AEAD, error) {
	switch s.Name {
	case "aes128gcm16", "aes192gcm16", "aes256gcm16":
		block, err := aes.NewCipher(s.enc[0][:len(s.enc[0])-4]) // the salt follows the key
		if err != nil {
			return nil, err
		}
		return cipher.NewGCM(block)
	case "chacha20poly1305":
		return chacha20poly1305.New(s.enc[0][:chacha20poly1305.KeySize])
	}
	return nil, nil
}

func (x *bare) useAEAD(aead cipher.AEAD) (room int) {
	const plain = (protected + 2 + 3) &^ 3 // padded to 4 octets (RFC 4303 §2.4)
	nonce, aad := make([]byte, aead.NonceSize()), make([]byte, 8)
	at := func(n uint64) {
		binary.BigEndian.PutUint64(nonce[len(nonce)-8:], n)
		binary.BigEndian.PutUint64(aad, n)
	}
	x.source = BareAEAD
	x.seal = func(b []byte, n uint64) {
		at(n)
		aead.Seal(b[:0], nonce, b[:plain], aad)
	}
	x.open = func(b []byte, n uint64) bool {
		at(n)
		_, err := aead.Open(b[:0], nonce, b, aad)
		return err == nil
	}
	return plain + aead.Overhead()
}

func (x *bare) useTransform(s *suite) (room int, err error) {
	t, err := s.New(s.enc[0], s.auth[0], transform.Options{})
	if err != nil {
		return 0, err
	}
	end := t.HeaderLen() + protected
	room = end + t.TrailerLen(protected)
	p := new(transform.Packet)
	x.source = BareTransform
	x.seal = func(b []byte, n uint64) {
		*p = transform.Packet{Buf: b, Pay: t.HeaderLen(), End: end, NextHeader: wire.ProtoTCP}
		t.Seal(p, transform.Sequence{SPI: 0x1001, Number: n})
	}
	x.open = func(b []byte, n uint64) bool {
		*p = transform.Packet{Buf: b, End: room}
		return t.Open(p, transform.Sequence{SPI: 0x1001, Number: n}) == wire.DropNone
	}
	return room, nil
}

// pass seals all packets and opens them again.
func (x *bare) pass() (seal, open time.Duration, err error) {
	first := x.n + 1
	start := time.Now()
	for _, b := range x.packets {
		x.n++
		x.seal(b, x.n)
	}
	sealed := time.Now()
	good := true
	for i, b := range x.packets {
		good = x.open(b, first+uint64(i)) && good
	}
	opened := time.Now()
	if !good {
		return 0, 0, errors.New("bench: what the bare algorithm has sealed cannot be opened")
	}
	return sealed.Sub(start), opened.Sub(sealed), nil
}
