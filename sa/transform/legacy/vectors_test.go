package legacy

import (
	"bytes"
	"testing"

	"bitw/netstack/wire"
	"bitw/sa/transform"
)

const (
	vectorK1 = "0123456789abcdef"
	vectorK2 = "23456789abcdef01"
	vectorK3 = "456789abcdef0123"
	// The payload is "bump in the wire, 1995", with its trailer three blocks.
	vectorPayload = "62756d7020696e2074686520776972652c2031393935"
	// "bump in the wire, in 1995", with its trailer three octets more than three blocks.
	vectorLonger = "62756d7020696e2074686520776972652c20696e2031393935"
)

// Whole ESP packets with SPI 0x1001, whose ciphertext OpenSSL 3.0 has made. $BODY is the
// payload, a pad length of 00 and payload type 06:
//
//	echo $BODY | xxd -r -p | openssl enc -provider legacy -provider default -nopad MODE | xxd -p
//
// with the MODE of each row. An IV of 32 bits has its complement behind it there.
func TestR38_ESPVectors(t *testing.T) {
	for _, c := range []struct{ name, key, iv, payload, want string }{
		// -des-cbc -K $K1 -iv 8badf00d74520ff2
		{"desiv32", vectorK1, "8badf00d", vectorPayload, "951be8abeea24365 74061c4af5e12faa 0c5e478ad0e76539"},
		// -des-cbc -K $K1 -iv 8badf00d01020304
		{"desiv64", vectorK1, "8badf00d01020304", vectorPayload, "92b88c985820e222 c4b46e9c9a50db02 f72688de946b3eb9"},
		// -des-ede-cbc -K $K1$K2 -iv 8badf00d01020304
		{"3des112iv64", vectorK1 + vectorK2, "8badf00d01020304", vectorPayload, "b3f84e0d492d6536 830bc4165805f146 0b2ee6a28ef2ceb8"},
		// -des-ede3-cbc -K $K1$K2$K3 -iv 8badf00d01020304
		{"3des168iv64", vectorK1 + vectorK2 + vectorK3, "8badf00d01020304", vectorPayload, "f516704d10197809 2ddd7501143a7e68 06431bc2f988bd22"},
		// -des-cbc -K $K1, then -d -des-cbc -K $K2, then -des-cbc -K $K1, each -iv 8badf00d01020304
		{"3desin112iv64", vectorK1 + vectorK2, "8badf00d01020304", vectorPayload, "b3f84e0d492d6536 6626d6eb2bde7826 961c1595d7adb7d4"},
		// the same, the last with $K3
		{"3desin168iv64", vectorK1 + vectorK2 + vectorK3, "8badf00d01020304", vectorPayload, "f516704d10197809 5ed013da838feb79 351d4be5548e053a"},
		// -des-cbc as above on $BODY0000000000, of whose four blocks the last was put before
		// the third and the end cut to the length of $BODY
		{"desctsiv32", vectorK1, "8badf00d", vectorLonger, "951be8abeea24365 74061c4af5e12faa 49af2213869034f6 146ced"},
		{"desctsiv64", vectorK1, "8badf00d01020304", vectorLonger, "92b88c985820e222 c4b46e9c9a50db02 04d953ab71e32ced 8f1071"},
		{"desctsiv64", vectorK1, "8badf00d01020304", vectorPayload, "92b88c985820e222 c4b46e9c9a50db02 f72688de946b3eb9"},
	} {
		a, err := transform.NewRegistry(Families()...).Lookup(transform.ProtoESP, c.name)
		if err != nil {
			t.Error(err)
			continue
		}
		x, err := a.New(unhex(t, c.key), nil, transform.Options{})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		e := x.(*esp)
		e.chain = fixedIV{e.chain, unhex(t, c.iv)}
		s := transform.Sequence{SPI: 0x1001, Number: 77}
		payload := unhex(t, c.payload)
		p := sealed(t, x, transform.Options{}, payload, 6, s)
		want := unhex(t, "00001001"+c.iv+c.want)
		if got := p.Buf[p.Hdr:p.End]; !bytes.Equal(got, want) {
			t.Errorf("%s: sealed to\n%x, want\n%x", c.name, got, want)
		}
		q := &transform.Packet{Buf: want, End: len(want)}
		if r := x.Open(q, s); r != wire.DropNone || q.NextHeader != 6 || !bytes.Equal(q.Buf[q.Pay:q.End], payload) {
			t.Errorf("%s: opened to %v, next header %d, %x", c.name, r, q.NextHeader, q.Buf[q.Pay:q.End])
		}
	}
}

// AH by OpenSSL 3.0: the key, 80, 39 zeros and the key's 128 bits as a number of 64
// (8000000000000000); then IP header, AH and payload with zeros for what may change; then
// the key again.
//
//	echo $KEY$FILL$IP$AH$ZEROS$PAYLOAD$KEY | xxd -r -p | openssl dgst -md5
func TestRFC1828_3_Vectors(t *testing.T) {
	const key = "000102030405060708090a0b0c0d0e0f"
	for _, c := range []struct{ name, sent, want string }{
		// hashed with 45b80042 12344000 00330000 c0000201 c6336407: TOS, identification and DF
		// count (RFC 1826 §4)
		{"IPv4", "45b80042 12344000 3d33abcd c0000201 c6336407", "620e874c0289ca41f541b3b1c3815638"},
		// hashed with hop limit 0; traffic class and flow label count
		{"IPv6", "6ab12345 002e3340 20010db8000000000000000000000001 20010db8000000000000000000000002", "c582af182635566c2d695287f4334a62"},
	} {
		ip := unhex(t, c.sent)
		a := md5Family().Algorithms[0]
		x, err := a.New(nil, unhex(t, key), transform.Options{IPv6: len(ip) == 40})
		if err != nil {
			t.Fatal(err)
		}
		payload := unhex(t, vectorPayload)
		p := unsealed(x, ip, payload, 6)
		s := transform.Sequence{SPI: 0x1001, Number: 77}
		if r := x.Seal(p, s); r != wire.DropNone {
			t.Errorf("%s: Seal: %v", c.name, r)
			continue
		}
		if got, want := p.Buf[p.Hdr:p.Pay], unhex(t, "0604000000001001"+c.want); !bytes.Equal(got, want) {
			t.Errorf("%s: AH is\n%x, want\n%x", c.name, got, want)
		}
		if !bytes.Equal(p.Buf[p.Net:p.Hdr], ip) {
			t.Errorf("%s: the IP header was changed", c.name)
		}
		for offset, counts := range map[int]bool{1: true, 7: len(ip) == 20, 8: len(ip) == 40, 10: len(ip) == 40, 15: true} {
			q := clone(p)
			q.Buf[q.Net+offset] ^= 1
			want := wire.DropNone
			if counts {
				want = wire.DropICV
			}
			if r := x.Open(q, s); r != want {
				t.Errorf("%s: octet %d of the IP header changed: %v, want %v", c.name, offset, r, want)
			}
		}
	}
}
