package transform

import (
	"bytes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"bitw/netstack/wire"

	"golang.org/x/crypto/chacha20poly1305"
)

// RFC 3686 §6, test vectors 1 to 9: the plaintexts are not padded as ESP is, so one
// more block is put behind each, encrypted here; the payload is then the plaintext.
func TestR37_CTRVectors(t *testing.T) {
	short := "53696e676c6520626c6f636b206d7367"
	middle := "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	long := middle + "20212223"
	for n, c := range []struct{ key, nonce, iv, plaintext, ciphertext string }{
		{"ae6852f8121067cc4bf7a5765577f39e", "00000030", "0000000000000000", short, "e4095d4fb7a7b3792d6175a3261311b8"},
		{"7e24067817fae0d743d6ce1f32539163", "006cb6db", "c0543b59da48d90b", middle,
			"5104a106168a72d9790d41ee8edad388eb2e1efc46da57c8fce630df9141be28"},
		{"7691be035e5020a8ac6e618529f9a0dc", "00e0017b", "27777f3f4a1786f0", long,
			"c1cf48a89f2ffdd9cf4652e9efdb72d74540a42bde6d7836d59a5ceaaef3105325b2072f"},
		{"16af5b145fc9f579c175f93e3bfb0eed863d06ccfdb78515", "00000048", "36733c147d6d93cb", short, "4b55384fe259c9c84e7935a003cbe928"},
		{"7c5cb2401b3dc33c19e7340819e0f69c678c3db8e6f6a91a", "0096b03b", "020c6eadc2cb500d", middle,
			"453243fc609b23327edfaafa7131cd9f8490701c5ad4a79cfc1fe0ff42f4fb00"},
		{"02bf391ee8ecb159b959617b0965279bf59b60a786d3e0fe", "0007bdfd", "5cbd60278dcc0912", long,
			"96893fc55e5c722f540b7dd1ddf7e758d288bc95c69165884536c811662f2188abee0935"},
		{"776beff2851db06f4c8a0542c8696f6c6a81af1eec96b4d37fc1d689e6c1c104", "00000060", "db5672c97aa8f0b2", short, "145ad01dbf824ec7560863dc71e3e0c0"},
		{"f6d66d6bd52d59bb0796365879eff886c66dd51a5b6a99744b50590c87a23884", "00faac24", "c1585ef15a43d875", middle,
			"f05e231b3894612c49ee000b804eb2a9b8306b508f839d6a5530831d9344af1c"},
		{"ff7a617ce69148e4f1726e2f43581de2aa62d9f805532edff1eed687fb54153d", "001cc5b7", "51a51d70a1c11148", long,
			"eb6c52821d0bbbf7ce7594462aca4faab407df866569fd07f48cc0b583d6071f1ec0e6b8"},
	} {
		key, nonce, iv := unhex(t, c.key), unhex(t, c.nonce), unhex(t, c.iv)
		plaintext := append(unhex(t, c.plaintext), 1, 2, 2, 17)
		// With the standard library, to encrypt the tail; and to check the vector.
		stream := cipher.NewCTR(referenceBlock(t, key), bytes.Join([][]byte{nonce, iv, {0, 0, 0, 1}}, nil))
		body := bytes.Clone(plaintext)
		stream.XORKeyStream(body, body)
		if want := unhex(t, c.ciphertext); !bytes.Equal(body[:len(want)], want) {
			t.Fatalf("vector %d: the standard library encrypts to %x", n+1, body)
		}
		for _, i := range integrities() {
			auth := pattern(i.keyLen, 9)
			x, err := mustLookup(t, ProtoESP, fmt.Sprintf("aes%dctr-%s", len(key)*8, i.name)).New(append(bytes.Clone(key), nonce...), auth, Options{})
			if err != nil {
				t.Fatal(err)
			}
			s := Sequence{SPI: 0x4321, Number: uint64(n)}
			packet := append(append(header(s), iv...), body...)
			packet = append(packet, referenceMAC(t, i.name, auth, packet)[:i.icvLen]...)
			openVector(t, x, packet, plaintext, s)
		}
	}
}

// draft-mcgrew-gcm-test-01 §4: the whole packet with AES-GMAC, whose IV is 0.
func TestR37_GMACVector(t *testing.T) {
	key := unhex(t, "4c80cdefbb5d10da906ac73c3613a634 22433c64")
	plaintext := unhex(t, `45000030da3a00008001df3bc0a80005c0a800010800c6cd020007006162636465666768
		696a6b6c6d6e6f7071727374 01020201`)
	s := Sequence{SPI: 0x4321, Number: 7}
	packet := append(header(s), make([]byte, 8)...)
	packet = append(append(packet, plaintext...), unhex(t, "f2a9a836e155106aa8dcd618e4099aaa")...)
	x, err := mustLookup(t, ProtoESP, "aes128gmac").New(nil, key, Options{})
	if err != nil {
		t.Fatal(err)
	}
	openVector(t, x, packet, plaintext, s)
}

// What Seal writes with AES-GMAC, taken apart with the standard library alone: RFC 4543
// §3.3 has the high half of the sequence number before the low one, and the IV.
func TestR37_GMACLayout(t *testing.T) {
	for _, bits := range []int{128, 192, 256} {
		for _, s := range []Sequence{{SPI: 0x11223344, Number: 0x55667788}, {SPI: 0x11223344, Number: 0xaabbccdd_55667788, ESN: true}} {
			a := mustLookup(t, ProtoESP, fmt.Sprintf("aes%dgmac", bits))
			p := sealed(t, mustNew(t, a, Options{}), Options{}, []byte("layou"), 58, s)
			iv := binary.BigEndian.AppendUint64(nil, s.Number)
			body := append(bytes.Clone(iv), "layou\x01\x01\x3a"...)
			aad := append(header(s), body...)
			if s.ESN {
				aad = append(unhex(t, "11223344 aabbccdd 55667788"), body...)
			}
			want := append(append(header(s), body...), referenceGMAC(t, pattern(a.IntegrityKeyLen, 2), iv, aad)...)
			if got := p.Buf[p.Hdr:p.End]; !bytes.Equal(got, want) {
				t.Errorf("%s, %+v:\n%x, want\n%x", a.Name, s, got, want)
			}
		}
	}
}

// RFC 8750 §4: an implicit IV is the sequence number, of which without ESN the high
// half is 0. The packet is the one with an explicit IV, without the IV.
func TestR37_ImplicitIV(t *testing.T) {
	for _, a := range Algorithms() {
		name, implicit := strings.CutSuffix(a.Name, "iiv")
		if !implicit {
			continue
		}
		explicit := mustNew(t, mustLookup(t, ProtoESP, name), Options{})
		x := mustNew(t, a, Options{})
		for _, s := range sequences {
			want := sealed(t, explicit, Options{}, []byte("layou"), 58, s)
			p := sealed(t, x, Options{}, []byte("layou"), 58, s)
			without := append(bytes.Clone(want.Buf[want.Hdr:want.Hdr+8]), want.Buf[want.Pay:want.End]...)
			if got := p.Buf[p.Hdr:p.End]; !bytes.Equal(got, without) {
				t.Errorf("%s, %+v:\n%x, want\n%x", a.Name, s, got, without)
			}
		}
		// What the high half is does not matter to either end if it is not in use.
		s := Sequence{SPI: 1, Number: 5}
		p := sealed(t, x, Options{}, []byte("high half"), 58, Sequence{SPI: 1, Number: 7<<32 | 5})
		if r := x.Open(p, s); r != wire.DropNone {
			t.Errorf("%s: the high half counts without ESN: %v", a.Name, r)
		}
	}
	// And once by the standard library's neighbour alone.
	a := mustLookup(t, ProtoESP, "chacha20poly1305iiv")
	s := Sequence{SPI: 0x11223344, Number: 0xaabbccdd_55667788, ESN: true}
	p := sealed(t, mustNew(t, a, Options{}), Options{}, []byte("layou"), 58, s)
	key := pattern(a.EncryptionKeyLen, 1)
	aead, err := chacha20poly1305.New(key[:32])
	if err != nil {
		t.Fatal(err)
	}
	nonce := append(bytes.Clone(key[32:]), unhex(t, "aabbccdd 55667788")...)
	want := append(header(s), aead.Seal(nil, nonce, []byte("layou\x01\x01\x3a"), unhex(t, "11223344 aabbccdd 55667788"))...)
	if got := p.Buf[p.Hdr:p.End]; !bytes.Equal(got, want) {
		t.Errorf("%s:\n%x, want\n%x", a.Name, got, want)
	}
}
