package transform

import (
	"bytes"
	"testing"

	"bitw/netstack/wire"
)

// openVector opens a whole ESP packet given as on the wire, SPI first, and compares
// it with the plaintext of the vector, which ends with padding, pad length and next
// header. It then seals the payload again and opens that.
func openVector(t *testing.T, x Transform, packet, plaintext []byte, s Sequence) {
	t.Helper()
	p := &Packet{Buf: bytes.Clone(packet), End: len(packet)}
	if r := x.Open(p, s); r != wire.DropNone {
		t.Fatalf("Open: %v", r)
	}
	n := len(plaintext) - 2 - int(plaintext[len(plaintext)-2])
	if got := p.Buf[p.Pay:p.End]; !bytes.Equal(got, plaintext[:n]) {
		t.Errorf("payload is %x, want %x", got, plaintext[:n])
	}
	if p.NextHeader != plaintext[len(plaintext)-1] {
		t.Errorf("next header is %d, want %d", p.NextHeader, plaintext[len(plaintext)-1])
	}
	q := sealed(t, x, Options{}, plaintext[:n], p.NextHeader, s)
	if r := x.Open(q, s); r != wire.DropNone || !bytes.Equal(q.Buf[q.Pay:q.End], plaintext[:n]) {
		t.Errorf("sealed again: %v", r)
	}
}

// header returns SPI and sequence number in network byte order.
func header(s Sequence) []byte {
	return []byte{
		byte(s.SPI >> 24), byte(s.SPI >> 16), byte(s.SPI >> 8), byte(s.SPI),
		byte(s.Number >> 24), byte(s.Number >> 16), byte(s.Number >> 8), byte(s.Number),
	}
}

// Whole ESP packets of draft-mcgrew-gcm-test-01 §4, in its order, but for the two
// whose tail is not ESP padding; their IVs are not sequence numbers, so they can only be opened. Each packet is
// opened with ICVs of 16, 12 and 8 octets, which are the first octets of the tag
// (RFC 4106 §6).
func TestR37_GCMVectors(t *testing.T) {
	for _, c := range []struct {
		algorithm             string
		key, nonce            string
		s                     Sequence
		plaintext, ciphertext string
		tag                   string
	}{
		{"aes128gcm", "4c80cdefbb5d10da906ac73c3613a634", "2e443b684956ed7e3b244cfe",
			Sequence{0x00004321, 0x87654321_00000000, true},
			"45000048699a000080114db7c0a80102c0a801010a9bf15638d301000001000000000000045f736970045f756470037369700963796265726369747902646b000021000101020201",
			"fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34cfa2436f14a3f3cf65925bf1f4a13c5d15b21e1884f5ff6247aeabb786b93bce61bc17d768fd9732",
			"459018148f6cbe722fd04796562dfdb4"},
		{"aes128gcm", "feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
			Sequence{0x0000a5f8, 0x0000000a, false},
			"4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d001000001000000000000037369700963796265726369747902646b00000100010001",
			"deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d114d2a5c3de81827c10e9a4f51330d0eec416642cfbb85a5b47e48a4ec3b9ba95d918bd1",
			"83b70d3aa8bc6ee4c309e9d85a41ad4a"},
		{"aes256gcm", "abbccddef00112233445566778899aababbccddef00112233445566778899aab", "112233440102030405060708",
			Sequence{0x4a2cbfe3, 0x00000002, false},
			"4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee0000000007002400020bf0000020405b40101040201020201",
			"ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763748a637985771d347f0545659f14e99def842d8e",
			"b335f4eecfdbf831824b4c4915956c96"},
		{"aes128gcm", "00000000000000000000000000000000", "000000000000000000000000",
			Sequence{0x00000000, 0x00000001, false},
			"4500003c99c500008001cb7a40679318010101010800075c020044006162636465666768696a6b6c6d6e6f707172737475767761626364656667686901020201",
			"4688daf2f973a392732909c331d56d60f694abaa414b5e7ff5fdcdfff5e9a284456476492719ffb64de7d9dca1e1d894bc3bd57873ed4d181d19d4d5c8c18af3",
			"f821d496eeb096e98ad2b69e4799c71d"},
		{"aes128gcm", "3de09874b388e6491988d0c3607eae1f", "57690e434e280000a2fca1a3",
			Sequence{0x42f67e3f, 0x10101010_10101010, true},
			"4500003c99c300008001cb7c40679318010101010800085c020043006162636465666768696a6b6c6d6e6f707172737475767761626364656667686901020201",
			"fba2caa4853cf9f0f22cb10d86dd83b0fec75691cf1a04b00d1138ec9c35791765acbd8701ad79845bf9fe3fba487bc91755e6662b4c8d0d1f5e22739530320a",
			"e0d731cc978ecafaeae88f00e80d6e48"},
		{"aes128gcm", "3de09874b388e6491988d0c3607eae1f", "57690e434e280000a2fca1a3",
			Sequence{0x42f67e3f, 0x10101010_10101010, true},
			"4500001c42a200008001441f406793b6e00000020a00f5ff01020201",
			"fba2ca845e5df9f0f22c3e6e86dd831e1fc65792cd1af9130e1379ed",
			"369f071f35e034be95f112e4e7d05d35"},
		{"aes192gcm", "feffe9928665731c6d6a8f9467308308feffe9928665731c", "cafebabefacedbaddecaf888",
			Sequence{0x0000a5f8, 0x0000000a, false},
			"45000028a4ad4000400678800a01038f0a010612802306b8cb712602dd6bb03e501016d075680001",
			"a5b1f8066029aea40e598b8122de02420938b3ab33f828e687b8858b5bfbdbd0315b27452144cc77",
			"95457b9652037f5318027b5b4cd7a636"},
		{"aes256gcm", "abbccddef00112233445566778899aababbccddef00112233445566778899aab", "73616c74616e640169766563",
			Sequence{0x17405e67, 0x156f3126_dd0db99b, true},
			"45080028732c00004006e9f90a0106120a01038f06b88023dd6bafbecb71260250101f646d540001",
			"f2d69ecdbd5a0d5b8d5ef38bad4da58d1f278fde98ef67549d524a3018d9a57ff4d3a31ce673119e",
			"451626c2415771e3b7eebca614c89b35"},
		{"aes256gcm", "abbccddef00112233445566778899aababbccddef00112233445566778899aab", "73616c74616e640169766563",
			Sequence{0x17405e67, 0x156f3126_dd0db99b, true},
			"636973636f0172756c657301746865016e6574776501646566696e6501746865746563686e6f6c6f67696573017468617477696c6c01646566696e65746f6d6f72726f7701020201",
			"d4b7ed86a1777f2ea13d6973d324c69e7b43f826fb56831226508bebd2dceb18d0a6df10e5487df074113e14c641024e3e6773d91a62ee429b043a10e3efe6b012a49363412364f8",
			"c0cac587f249e56b11e24f30e44ccc76"},
		{"aes128gcm", "7d773d00c144c525ac619d18c84a3f47", "d966426743457e9182443bc6",
			Sequence{0x335467ae, 0xffffffff, false}, "01020201", "437f866b", "cb3f699fe9b0822bac961c4504bef270"},
		{"aes128gcm", "abbccddef00112233445566778899aab", "decaf888cafedebaceface74",
			Sequence{0x00000100, 0x00000000_00000001, true},
			"746f016265016f72016e6f7401746f0162650001", "29c9fc69a197d038ccdd14e2ddfcaa0543332164", "412503524303ed3c6c5f283843af8c3e"},
		{"aes256gcm", "6c6567616c697a656d6172696a75616e61616e64646f69746265666f72656961", "7475726e333021696765746d",
			Sequence{0x796b6963, 0xffffffff_ffffffff, true},
			"45000030da3a00008001df3bc0a80005c0a800010800c6cd020007006162636465666768696a6b6c6d6e6f707172737401020201",
			"f97ab2aa356d8edce17644ac8c78e25dd24dedbb29ebf1b64a274b39b49c3a864cd3d78ca4ae68a32b42458fb57dbe821dcc63b9",
			"d0937ba2945f669368661a329fb4c053"},
	} {
		nonce := unhex(t, c.nonce)
		key := append(unhex(t, c.key), nonce[:4]...)
		for icv, suffix := range map[int]string{16: "16", 12: "12", 8: "8"} {
			x, err := mustLookup(t, ProtoESP, c.algorithm+suffix).New(key, nil, Options{})
			if err != nil {
				t.Fatal(err)
			}
			packet := append(header(c.s), nonce[4:]...)
			packet = append(packet, unhex(t, c.ciphertext)...)
			packet = append(packet, unhex(t, c.tag)[:icv]...)
			openVector(t, x, packet, unhex(t, c.plaintext), c.s)
		}
	}
}

// RFC 7634 Appendix A: a whole ESP packet.
func TestR37_ChaChaVector(t *testing.T) {
	key := unhex(t, `808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f a0a1a2a3`)
	plaintext := unhex(t, `45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec10
		0007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021222324252627
		28292a2b2c2d2e2f3031323334353637 01020204`)
	packet := unhex(t, `0102030400000005 1011121314151617
		24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c6
		14ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3
		cbec163fac469b502773f6fb94e664da9165b82829f641e0
		76aaa8266b7fb0f7b11b369907e1ad43`)
	x, err := mustLookup(t, ProtoESP, "chacha20poly1305").New(key, nil, Options{})
	if err != nil {
		t.Fatal(err)
	}
	openVector(t, x, packet, plaintext, Sequence{SPI: 0x01020304, Number: 5})
}

// RFC 3602 §4 cases 5 to 8: whole ESP packets without integrity. The ICV is added
// here, over the packet as RFC 4303 §3.3.2.1 says.
func TestR37_CBCVectors(t *testing.T) {
	for _, c := range []struct {
		name, key, packet, plaintext string
		s                            Sequence
	}{
		{"case 5", "90d382b410eeba7ad938c46cec1a82bf",
			`0000432100000001 e96e8c08ab465763fd098d45dd3ff893
			f663c25d325c18c6a9453e194e120849a4870b66cc6b9965330013b4898dc856
			a4699e523a55db080b59ec3a8e4b7e52775b07d1db34ed9c538ab50c551b874a
			a269add047ad2d5913ac19b7cfbad4a6`,
			`08000ebda70a00008e9c083db95b070008090a0b0c0d0e0f1011121314151617
			18191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637
			0102030405060708090a0b0c0d0e 0e01`,
			Sequence{SPI: 0x4321, Number: 1}},
		{"case 6", "90d382b410eeba7ad938c46cec1a82bf",
			`0000432100000008 69d08df7d203329db093fc4924e5bd80
			f51995881ec4e0c4488987ce742e8109689bb379d2d750c0d915dca346a89f75`,
			`0800b5e8a80a0500a69c083d0b660e00777777777777777777777777 0102 0201`,
			Sequence{SPI: 0x4321, Number: 8}},
		{"case 7", "0123456789abcdef0123456789abcdef",
			`0000876500000002 f4e765244f6407adf13dc1380f673f37
			773b5241a4c449225e4f3ce5ed611b0c237ca96cf74a93013c1b0ea1a0cf70f8
			e4ecaec78ac53aad7a0f022b859243c647752e94a859352b8a4d4d2decd136e5
			c177f132ad3fbfb2201ac9904c74ee0a109e0ca1e4dfe9d5a100b842f1c22f0d`,
			`45000054090400004001f988c0a87b03c0a87bc808009f76a90a0100b49c083d
			02a2040008090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223
			2425262728292a2b2c2d2e2f3031323334353637 0102030405060708090a 0a04`,
			Sequence{SPI: 0x8765, Number: 2}},
		{"case 8", "0123456789abcdef0123456789abcdef",
			`0000876500000005 85d47224b5f3dd5d2101d4ea8dffab22
			15b92683819596a8047232cc00f7048fe45318e11f8a0f62ede3c3fc61203bb5
			0f980a08c9843fd3a1b06d5c07ff9639b7eb7dfb3512e5de435e7207ed971ef3
			d2726d9b5ef6affc6d17a0decbb13892`,
			`45000044090c00004001f990c0a87b03c0a87bc80800d63caa0a0200c69c083d
			a3de0300ffffffffffffffffffffffffffffffffffffffffffffffffffffffff
			ffffffff 0102030405060708090a 0a04`,
			Sequence{SPI: 0x8765, Number: 5}},
	} {
		t.Log(c.name)
		for _, i := range integrities() {
			auth := pattern(i.keyLen, 9)
			x, err := mustLookup(t, ProtoESP, "aes128-"+i.name).New(unhex(t, c.key), auth, Options{})
			if err != nil {
				t.Fatal(err)
			}
			for _, esn := range []bool{false, true} {
				s := c.s
				packet := unhex(t, c.packet)
				signed := packet
				if s.ESN = esn; esn {
					s.Number |= 0x01020304_00000000
					signed = append(bytes.Clone(packet), 1, 2, 3, 4)
				}
				packet = append(packet, referenceMAC(t, i.name, auth, signed)[:i.icvLen]...)
				openVector(t, x, packet, unhex(t, c.plaintext), s)
			}
		}
	}
}
