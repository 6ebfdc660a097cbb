package scapy_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"
	"time"

	"bitw/integration/netlab"
	"bitw/integration/scapy"
)

// packet is an IPv4 packet with UDP in it, without a UDP checksum (RFC 768).
func packet() []byte {
	p := make([]byte, 28, 64)
	p = append(p, "twenty-one octets...."...)
	p[0], p[8], p[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:], []byte{192, 0, 2, 1, 192, 0, 2, 2})
	binary.BigEndian.PutUint16(p[20:], 1000)
	binary.BigEndian.PutUint16(p[22:], 2000)
	binary.BigEndian.PutUint16(p[24:], uint16(len(p)-20))
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum+sum>>16))
	return p
}

func key(n int) []byte {
	k := make([]byte, n)
	for i := range k {
		k[i] = byte(i + 1)
	}
	return k
}

func TestSealIsGCM(t *testing.T) {
	netlab.Require(t, scapy.Need())
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	sa := scapy.SA{Proto: "esp", SPI: 0x1000, Crypt: "AES-GCM", CryptKey: key(20)}
	iv := []byte{8, 7, 6, 5, 4, 3, 2, 1}
	sealed, err := scapy.Seal(ctx, sa, scapy.Item{Packet: packet(), Seq: 7, IV: iv}, scapy.Item{Packet: packet(), Seq: 8})
	if err != nil {
		t.Fatal(err)
	}
	if len(sealed) != 2 || bytes.Equal(sealed[0], sealed[1]) {
		t.Fatalf("sealed % x", sealed)
	}
	// RFC 4106: nonce of salt and IV, additional data of SPI and sequence number.
	esp := sealed[0][20:]
	if sealed[0][9] != 50 || !bytes.Equal(esp[:16], append([]byte{0, 0, 0x10, 0, 0, 0, 0, 7}, iv...)) {
		t.Fatalf("not ESP: % x", sealed[0])
	}
	block, err := aes.NewCipher(key(20)[:16])
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	clear, err := gcm.Open(nil, append(key(20)[16:], iv...), esp[16:], esp[:8])
	if err != nil || !bytes.HasPrefix(clear, packet()[20:]) || clear[len(clear)-1] != 17 {
		t.Errorf("opened % x, %v", clear, err)
	}
}

func TestSealAndOpen(t *testing.T) {
	netlab.Require(t, scapy.Need())
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	a, b := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	for name, sa := range map[string]scapy.SA{
		"GCM":        {Proto: "esp", SPI: 0x1000, Crypt: "AES-GCM", CryptKey: key(36)},
		"ChaCha20":   {Proto: "esp", SPI: 0x1000, Crypt: "CHACHA20-POLY1305", CryptKey: key(36)},
		"CBC":        {Proto: "esp", SPI: 0x1000, Crypt: "AES-CBC", CryptKey: key(16), Auth: "SHA2-256-128", AuthKey: key(32)},
		"tunnel":     {Proto: "esp", SPI: 0x1000, Crypt: "NULL", Auth: "SHA2-512-256", AuthKey: key(64), TunnelSrc: a, TunnelDst: b},
		"AH":         {Proto: "ah", SPI: 0x1000, Auth: "SHA2-256-128", AuthKey: key(32)},
		"ESP in UDP": {Proto: "esp", SPI: 0x1000, Crypt: "AES-GCM", CryptKey: key(20), EncapSrcPort: 4500, EncapDstPort: 4500},
	} {
		t.Run(name, func(t *testing.T) {
			sealed, err := scapy.Seal(ctx, sa, scapy.Item{Packet: packet(), Seq: 1})
			if err != nil {
				t.Fatal(err)
			}
			spoilt := bytes.Clone(sealed[0])
			spoilt[len(spoilt)-1] ^= 1
			opened, err := scapy.Open(ctx, sa, sealed[0], spoilt)
			if err != nil {
				t.Fatal(err)
			}
			if opened[0].Err != nil || !bytes.Equal(opened[0].Packet, packet()) {
				t.Errorf("opened % x, %v", opened[0].Packet, opened[0].Err)
			}
			if !errors.Is(opened[1].Err, scapy.ErrIntegrity) {
				t.Errorf("a spoilt packet: % x, %v", opened[1].Packet, opened[1].Err)
			}
		})
	}
}

func TestRefusesWhatScapyLacks(t *testing.T) {
	for _, sa := range []scapy.SA{
		{Proto: "esp", Crypt: "AES-GCM", CryptKey: key(20), ICVSize: 8},
		{Proto: "esp", Crypt: "AES-CBC", CryptKey: key(16), Auth: "SHA2-256-128", AuthKey: key(32), ESN: true},
	} {
		if _, err := scapy.Seal(context.Background(), sa, scapy.Item{Packet: packet(), Seq: 1}); err == nil {
			t.Errorf("%+v is taken", sa)
		}
	}
}
