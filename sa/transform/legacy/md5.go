package legacy

import (
	"crypto/md5"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"hash"
	"slices"

	"bitw/netstack/wire"
	"bitw/sa/transform"
	"bitw/sa/transform/internal/invariant"
	"bitw/sa/transform/internal/primitive"
)

const (
	ahFixedLen = 8 // next header, length, reserved and SPI (RFC 1826 §3.1)
	md5KeyLen  = 16
	md5Words   = md5.Size / 4
)

// md5Family is AH with keyed MD5 (RFC 1828).
func md5Family() transform.Family {
	a := transform.Algorithm{
		Name:            "kpdkmd5",
		Protocol:        transform.ProtoAH,
		IntegrityKeyLen: md5KeyLen,
		ICVLen:          md5.Size,
		BlockLen:        4,
		NoSequence:      true,
		Weak:            "MD5 is broken (RFC 6151), RFC 1828 is historic, and no replays of packets are noticed",
		Insecure:        []string{"kpdkmd5"},
	}
	a.New = func(encryptionKey, integrityKey []byte, opt transform.Options) (transform.Transform, error) {
		if err := transform.CheckKeys(&a, encryptionKey, integrityKey, 0); err != nil {
			return nil, err
		}
		key := slices.Clone(integrityKey)
		filled := fill(key)
		mac := primitive.NewMAC(md5.Size, func() hash.Hash { return &keyedMD5{md5.New(), filled, key} })
		return &ah{mac: mac, ipv6: opt.IPv6}, nil
	}
	return transform.Family{Algorithms: []transform.Algorithm{a}}
}

// fill pads the key to MD5's block as MD5 itself would (RFC 1828 §3, RFC 1321 §3.1): one
// bit, zeros, and the key's length in bits.
func fill(key []byte) []byte {
	b := append(slices.Clone(key), 0x80)
	for len(b)%md5.BlockSize != md5.BlockSize-8 {
		b = append(b, 0)
	}
	return binary.LittleEndian.AppendUint64(b, uint64(8*len(key)))
}

// keyedMD5 sums the filled key, what is written, and the key.
type keyedMD5 struct {
	hash.Hash
	filled, key []byte
}

func (k *keyedMD5) Reset() {
	k.Hash.Reset()
	k.Hash.Write(k.filled)
}

// Sum ends the computation, unlike that of other hashes.
func (k *keyedMD5) Sum(b []byte) []byte {
	k.Hash.Write(k.key)
	return k.Hash.Sum(b)
}

// An ah is AH in the form of RFC 1826.
type ah struct {
	mac  *primitive.MAC
	ipv6 bool
}

func (*ah) Protocol() uint8           { return transform.ProtoAH }
func (*ah) HeaderLen() int            { return ahFixedLen + md5.Size }
func (*ah) TrailerLen(int) int        { return 0 }
func (t *ah) MaxPayload(room int) int { return max(room-t.HeaderLen(), -1) }

// Format keeps keys out of logs, whatever the verb.
func (*ah) Format(f fmt.State, _ rune) { fmt.Fprint(f, "ah kpdkmd5, keys (hidden)") }

func (t *ah) Seal(p *transform.Packet, s transform.Sequence) wire.DropReason {
	if p.Hdr < 0 || p.Pay-p.Hdr != t.HeaderLen() || p.Pay > p.End || p.End > len(p.Buf) {
		return wire.DropBadLength
	}
	h := p.Buf[p.Hdr:p.Pay]
	clear(h)
	h[0], h[1] = p.NextHeader, md5Words
	binary.BigEndian.PutUint32(h[4:], s.SPI)
	d := t.mac.Start()
	defer t.mac.Done(d)
	icv, ok := t.icv(d, p)
	if !ok {
		return wire.DropBadLength
	}
	copy(h[ahFixedLen:], icv)
	return wire.DropNone
}

func (t *ah) Open(p *transform.Packet, s transform.Sequence) wire.DropReason {
	if p.Hdr < 0 || p.End > len(p.Buf) || p.End-p.Hdr < t.HeaderLen() || p.Buf[p.Hdr+1] != md5Words {
		return wire.DropBadLength
	}
	h := p.Buf[p.Hdr : p.Hdr+t.HeaderLen()]
	if binary.BigEndian.Uint32(h[4:]) != s.SPI {
		return wire.DropICV // the caller asks about another packet
	}
	d := t.mac.Start()
	defer t.mac.Done(d)
	icv, ok := t.icv(d, p)
	switch {
	case !ok:
		return wire.DropBadLength
	case subtle.ConstantTimeCompare(icv, h[ahFixedLen:]) != 1:
		return wire.DropICV
	}
	p.NextHeader = h[0]
	p.Pay = p.Hdr + t.HeaderLen()
	return wire.DropNone
}

// icv computes the authentication data of p, whatever stands in its place; it stays
// valid until t.mac.Done(d). It is false if the IP header is not one that AH can follow.
func (t *ah) icv(d *primitive.Digest, p *transform.Packet) ([]byte, bool) {
	if p.Net < 0 || p.Net > p.Hdr {
		return nil, false
	}
	ip := p.Buf[p.Net:p.Hdr]
	if t.ipv6 && !invariant.HashIPv6(d, ip, invariant.RFC1826) || !t.ipv6 && !invariant.HashIPv4(d, ip, invariant.RFC1826) {
		return nil, false
	}
	at := p.Hdr + ahFixedLen
	d.Write(p.Buf[p.Hdr:at])
	d.WriteZeros(md5.Size)
	d.Write(p.Buf[at+md5.Size : p.End])
	return d.Tag(t.mac), true
}
