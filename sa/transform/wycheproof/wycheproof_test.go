// Package wycheproof runs Project Wycheproof's vectors against the transforms and the
// primitives beneath them. Whole ESP packets are made of the vectors that have the
// form of one; all vectors go to the primitive.
package wycheproof

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"hash"
	"io/fs"
	"strconv"
	"testing"

	"bitw/netstack/wire"
	"bitw/sa/transform"
	"bitw/sa/transform/internal/primitive"

	vectors "github.com/c2sp/wycheproof"
	"golang.org/x/crypto/chacha20poly1305"
)

// octets are hexadecimal in the files.
type octets []byte

func (o *octets) UnmarshalText(text []byte) (err error) {
	*o, err = hex.DecodeString(string(text))
	return err
}

// A vector has the fields of all the kinds of tests used here; lengths are in bits.
type vector struct {
	ID                         int `json:"tcId"`
	Comment                    string
	Key, IV, AAD, Msg, CT, Tag octets
	Result                     string
	keySize, ivSize, tagSize   int
}

func load(t *testing.T, file string) []vector {
	t.Helper()
	b, err := fs.ReadFile(vectors.TestVectors, file)
	if err != nil {
		t.Fatal(err)
	}
	var content struct {
		TestGroups []struct {
			KeySize, IVSize, TagSize int
			Tests                    []vector
		}
	}
	if err := json.Unmarshal(b, &content); err != nil {
		t.Fatal(err)
	}
	var all []vector
	for _, g := range content.TestGroups {
		for _, v := range g.Tests {
			v.keySize, v.ivSize, v.tagSize = g.KeySize, g.IVSize, g.TagSize
			all = append(all, v)
		}
	}
	return all
}

func newTransform(t *testing.T, name string, encryptionKey, integrityKey []byte) transform.Transform {
	t.Helper()
	a, err := transform.Lookup(transform.ProtoESP, name)
	if err != nil {
		t.Fatal(err)
	}
	x, err := a.New(encryptionKey, integrityKey, transform.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// open gives the reason with which a packet that starts with its ESP header is opened.
func open(x transform.Transform, packet []byte, s transform.Sequence) (*transform.Packet, wire.DropReason) {
	p := &transform.Packet{Buf: bytes.Clone(packet), End: len(packet)}
	return p, x.Open(p, s)
}

// aead runs the vectors of one AEAD with each tag length, and as ESP packets where the
// additional data is an SPI and a sequence number, and the ciphertext is aligned.
//
// The nonce is nonceLen octets, of which the last 8 are the IV.
func aead(t *testing.T, file string, nonceLen int, tagLens []int, primitiveOf func(key []byte, tagLen int) (cipher.AEAD, error), name func(v vector, tagLen int) string) {
	var whole, packets int
	for _, v := range load(t, file) {
		if v.ivSize != nonceLen*8 || v.tagSize != 128 {
			continue // RFC 4106 §4, RFC 4309 §4 and RFC 7634 §2 know no other
		}
		salt := v.IV[:nonceLen-8]
		valid := v.Result == "valid"
		for _, tagLen := range tagLens {
			a, err := primitiveOf(v.Key, tagLen)
			if err != nil {
				t.Fatal(err)
			}
			whole++
			sealed := append(bytes.Clone(v.CT), v.Tag[:tagLen]...)
			// A tag whose fault lies in what is cut off is a right one.
			right := bytes.Equal(a.Seal(nil, v.IV, v.Msg, v.AAD), sealed)
			if valid && !right || !valid && tagLen == 16 && right {
				t.Errorf("%s %d (%s), tag of %d octets: sealed as the vector: %t", file, v.ID, v.Comment, tagLen, right)
			}
			opened, err := a.Open(nil, v.IV, sealed, v.AAD)
			if valid && (err != nil || !bytes.Equal(opened, v.Msg)) || tagLen == 16 && !valid && err == nil {
				t.Errorf("%s %d (%s), tag of %d octets: opened to %x, %v", file, v.ID, v.Comment, tagLen, opened, err)
			}
			if !valid && (err == nil) != right {
				t.Errorf("%s %d (%s), tag of %d octets: opens %t, would be sealed so %t", file, v.ID, v.Comment, tagLen, err == nil, right)
			}

			n := len(v.AAD)
			if n != 8 && n != 12 || len(v.CT) == 0 || len(v.CT)%4 != 0 {
				continue
			}
			packets++
			s := transform.Sequence{SPI: binary.BigEndian.Uint32(v.AAD), Number: uint64(binary.BigEndian.Uint32(v.AAD[n-4:])), ESN: n == 12}
			if s.ESN {
				s.Number |= uint64(binary.BigEndian.Uint32(v.AAD[4:])) << 32
			}
			packet := append(bytes.Clone(v.AAD[:4]), v.AAD[n-4:]...)
			packet = append(append(packet, v.IV[len(salt):]...), sealed...)
			x := newTransform(t, name(v, tagLen), append(bytes.Clone(v.Key), salt...), nil)
			// The plaintext is seldom padded as ESP is; that shows after the ICV only.
			if _, r := open(x, packet, s); (r == wire.DropICV) == right {
				t.Errorf("%s %d (%s) as ESP with a tag of %d octets: %v", file, v.ID, v.Comment, tagLen, r)
			}
		}
	}
	t.Logf("%s: %d vectors, %d of them as ESP packets", file, whole, packets)
	if whole == 0 || packets == 0 {
		t.Errorf("%s: no vectors of the form wanted", file)
	}
}

func TestR37_WycheproofGCM(t *testing.T) {
	aead(t, "aes_gcm_test.json", 12, []int{8, 12, 16}, primitive.NewGCM, func(v vector, tagLen int) string {
		return "aes" + strconv.Itoa(v.keySize) + "gcm" + strconv.Itoa(tagLen)
	})
}

func TestR37_WycheproofChaCha(t *testing.T) {
	aead(t, "chacha20_poly1305_test.json", 12, []int{16},
		func(key []byte, _ int) (cipher.AEAD, error) { return chacha20poly1305.New(key) },
		func(vector, int) string { return "chacha20poly1305" })
}

// All of the vectors that have ESP's nonce are valid; the others are made of them. The
// tag depends on its length, so that it cannot be cut.
func TestR37_WycheproofCCM(t *testing.T) {
	const file = "aes_ccm_test.json"
	aead(t, file, primitive.CCMNonceLen, []int{16}, primitive.NewCCM, func(v vector, tagLen int) string {
		return "aes" + strconv.Itoa(v.keySize) + "ccm" + strconv.Itoa(tagLen)
	})
	for _, v := range load(t, file) {
		if v.ivSize != primitive.CCMNonceLen*8 {
			continue
		}
		a, err := primitive.NewCCM(v.Key, 16)
		if err != nil {
			t.Fatal(err)
		}
		sealed := append(bytes.Clone(v.CT), v.Tag...)
		for _, b := range [][]byte{sealed, v.IV, v.AAD} {
			for bit := range len(b) * 8 {
				b[bit/8] ^= 1 << (bit % 8)
				if _, err := a.Open(nil, v.IV, sealed, v.AAD); err == nil {
					t.Errorf("%s %d (%s): opens with bit %d changed", file, v.ID, v.Comment, bit)
				}
				b[bit/8] ^= 1 << (bit % 8)
			}
		}
	}
}

func TestR37_WycheproofGMAC(t *testing.T) {
	const file = "aes_gmac_test.json"
	whole := 0
	for _, v := range load(t, file) {
		if v.ivSize != 96 || v.tagSize != 128 {
			continue // RFC 4543 §3.2 knows no other
		}
		m, err := primitive.NewGMAC(v.Key, v.IV[:4])
		if err != nil {
			t.Fatal(err)
		}
		d := m.Start()
		d.SetIV(v.IV[4:])
		d.Write(v.Msg)
		right := bytes.Equal(d.Tag(m), v.Tag)
		m.Done(d)
		whole++
		if right != (v.Result == "valid") {
			t.Errorf("%s %d (%s): %t, want %s", file, v.ID, v.Comment, right, v.Result)
		}
	}
	t.Logf("%s: %d vectors", file, whole)
	if whole == 0 {
		t.Errorf("%s: no vectors of the form wanted", file)
	}
}

// mac runs the vectors of one MAC, and as ESP packets with NULL encryption where the
// key and the message have the form of them. What fits when the tag is cut is judged by
// the MAC itself, which the whole tags prove.
func mac(t *testing.T, file, name string, keyLen, icv int, newMAC func(key []byte, tagLen int) (*primitive.MAC, error)) {
	tagOf := func(v vector, tagLen int) []byte {
		m, err := newMAC(v.Key, tagLen)
		if err != nil {
			return nil
		}
		d := m.Start()
		defer m.Done(d)
		d.Write(v.Msg)
		return bytes.Clone(d.Tag(m))
	}
	var whole, packets int
	for _, v := range load(t, file) {
		found := tagOf(v, v.tagSize/8)
		right := found != nil && bytes.Equal(found, v.Tag) // nil: a key that is refused
		whole++
		if right != (v.Result == "valid") {
			t.Errorf("%s %d (%s): %t, want %s", file, v.ID, v.Comment, right, v.Result)
		}

		if len(v.Key) != keyLen || len(v.Msg) < 12 || len(v.Msg)%4 != 0 || len(v.Tag) < icv {
			continue
		}
		// The message as an ESP packet with NULL encryption, and once more with its end
		// as the high half of an extended sequence number, which is not sent.
		tag := v.Tag[:icv]
		right = bytes.Equal(tagOf(v, icv), tag)
		s := transform.Sequence{SPI: binary.BigEndian.Uint32(v.Msg), Number: uint64(binary.BigEndian.Uint32(v.Msg[4:]))}
		x := newTransform(t, "null-"+name, nil, v.Key)
		packets++
		if _, r := open(x, append(bytes.Clone(v.Msg), tag...), s); (r == wire.DropICV) == right {
			t.Errorf("%s %d (%s) as ESP: %v", file, v.ID, v.Comment, r)
		}
		if end := len(v.Msg) - 4; end >= 12 {
			s.ESN = true
			s.Number |= uint64(binary.BigEndian.Uint32(v.Msg[end:])) << 32
			if _, r := open(x, append(bytes.Clone(v.Msg[:end]), tag...), s); (r == wire.DropICV) == right {
				t.Errorf("%s %d (%s) as ESP with ESN: %v", file, v.ID, v.Comment, r)
			}
		}
	}
	t.Logf("%s: %d vectors, %d of them as ESP packets", file, whole, packets)
	if whole == 0 || packets == 0 {
		t.Errorf("%s: no vectors of the form wanted", file)
	}
}

func TestR37_WycheproofHMAC(t *testing.T) {
	for _, c := range []struct {
		name        string
		newHash     func() hash.Hash
		keyLen, icv int
	}{
		{"sha1", sha1.New, 20, 12},
		{"sha256", sha256.New, 32, 16},
		{"sha384", sha512.New384, 48, 24},
		{"sha512", sha512.New, 64, 32},
	} {
		mac(t, "hmac_"+c.name+"_test.json", c.name, c.keyLen, c.icv, func(key []byte, tagLen int) (*primitive.MAC, error) {
			return primitive.NewHMAC(c.newHash, key, tagLen), nil
		})
	}
}

func TestR37_WycheproofCMAC(t *testing.T) {
	mac(t, "aes_cmac_test.json", "aescmac", 16, 12, primitive.NewCMAC)
}

// The padding of the vectors is PKCS #5. One more block, encrypted here, turns each
// ciphertext into an ESP body whose payload is the padded message.
func TestR37_WycheproofCBC(t *testing.T) {
	const file = "aes_cbc_pkcs5_test.json"
	var packets int
	for _, v := range load(t, file) {
		if len(v.CT) == 0 || len(v.CT)%aes.BlockSize != 0 {
			continue
		}
		block, err := aes.NewCipher(v.Key)
		if err != nil {
			t.Fatal(err)
		}
		cbc, err := primitive.NewCBC(v.Key, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if v.Result == "valid" {
			pad := aes.BlockSize - len(v.Msg)%aes.BlockSize
			data := append(bytes.Clone(v.Msg), bytes.Repeat([]byte{byte(pad)}, pad)...)
			cbc.Encrypt(v.IV, data)
			if !bytes.Equal(data, v.CT) {
				t.Errorf("%s %d (%s): encrypted to %x, want %x", file, v.ID, v.Comment, data, v.CT)
			}
		}
		tail := []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 14, 17}
		for i := range tail {
			tail[i] ^= v.CT[len(v.CT)-aes.BlockSize+i]
		}
		block.Encrypt(tail, tail)
		s := transform.Sequence{SPI: 0x1000, Number: uint64(v.ID)}
		packet := binary.BigEndian.AppendUint32(nil, s.SPI)
		packet = binary.BigEndian.AppendUint32(packet, uint32(s.Number))
		packet = append(append(append(packet, v.IV...), v.CT...), tail...)
		key := make([]byte, 32)
		h := hmac.New(sha256.New, key)
		h.Write(packet)
		packet = append(packet, h.Sum(nil)[:16]...)
		x := newTransform(t, "aes"+strconv.Itoa(v.keySize)+"-sha256", v.Key, key)
		p, r := open(x, packet, s)
		if r != wire.DropNone || p.NextHeader != 17 {
			t.Errorf("%s %d (%s) as ESP: %v", file, v.ID, v.Comment, r)
			continue
		}
		packets++
		padded := p.Buf[p.Pay:p.End]
		pad := int(padded[len(padded)-1])
		right := pad >= 1 && pad <= aes.BlockSize && bytes.HasSuffix(padded, bytes.Repeat([]byte{byte(pad)}, pad)) &&
			bytes.Equal(padded[:len(padded)-pad], v.Msg)
		if right != (v.Result == "valid") {
			t.Errorf("%s %d (%s) as ESP: payload %x, message %x is %s", file, v.ID, v.Comment, padded, v.Msg, v.Result)
		}
	}
	t.Logf("%s: %d vectors as ESP packets", file, packets)
	if packets == 0 {
		t.Errorf("%s: no vectors of the form wanted", file)
	}
}
