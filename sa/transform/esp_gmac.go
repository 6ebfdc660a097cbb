package transform

import (
	"crypto/subtle"
	"encoding/binary"
	"fmt"

	"bitw/sa/transform/internal/primitive"
)

const (
	gmacSaltLen = 4
	gmacIVLen   = 8
	gmacTagLen  = 16
)

// gmacFamily is AES-GMAC in ESP, ENCR_NULL_AUTH_AES_GMAC (RFC 4543 §3), with keys of
// 128, 192 and 256 bits. The payload stays readable.
func gmacFamily() Family {
	var f Family
	for _, bits := range []int{128, 192, 256} {
		a := gmacAlgorithm(ProtoESP, bits)
		a.Weak = "AES-GMAC gives no confidentiality (RFC 4543)"
		a.New = func(encryptionKey, integrityKey []byte, _ Options) (Transform, error) {
			mac, err := newGMAC(&a, encryptionKey, integrityKey)
			if err != nil {
				return nil, err
			}
			return newESP(&a, &gmacSuite{mac: mac}), nil
		}
		f.Algorithms = append(f.Algorithms, a)
	}
	return f
}

// gmacAlgorithm is what AES-GMAC is in ESP and in AH alike.
func gmacAlgorithm(protocol uint8, bits int) Algorithm {
	return Algorithm{
		Name:            fmt.Sprintf("aes%dgmac", bits),
		Protocol:        protocol,
		IntegrityKeyLen: bits/8 + gmacSaltLen,
		IVLen:           gmacIVLen,
		ICVLen:          gmacTagLen,
		BlockLen:        4,
		CounterMode:     true,
	}
}

func newGMAC(a *Algorithm, encryptionKey, integrityKey []byte) (*primitive.MAC, error) {
	if err := CheckKeys(a, encryptionKey, integrityKey, gmacSaltLen); err != nil {
		return nil, err
	}
	n := len(integrityKey) - gmacSaltLen
	mac, err := primitive.NewGMAC(integrityKey[:n], integrityKey[n:])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.Name, err)
	}
	return mac, nil
}

// A gmacSuite leaves the body as it is and authenticates it with header and IV. The
// IV is the sequence number, all 64 bits of it, which an SA never uses twice.
type gmacSuite struct{ mac *primitive.MAC }

func (g *gmacSuite) seal(_ *scratch, buf []byte, hdr, pay, end int, s Sequence) {
	binary.BigEndian.PutUint64(buf[pay-gmacIVLen:], s.Number)
	d := g.mac.Start()
	copy(buf[end:end+gmacTagLen], g.icv(d, buf, hdr, pay, end, s))
	g.mac.Done(d)
}

func (g *gmacSuite) open(_ *scratch, buf []byte, hdr, pay, end int, s Sequence) bool {
	d := g.mac.Start()
	ok := subtle.ConstantTimeCompare(g.icv(d, buf, hdr, pay, end, s), buf[end:end+gmacTagLen]) == 1
	g.mac.Done(d)
	return ok
}

// icv computes the ICV, which stays valid until g.mac.Done(d). Unlike with the other
// MACs, the high half of an extended sequence number stands before the low one
// (RFC 4543 §3.3).
func (g *gmacSuite) icv(d *primitive.Digest, buf []byte, hdr, pay, end int, s Sequence) []byte {
	d.SetIV(buf[pay-gmacIVLen : pay])
	d.Write(buf[hdr : hdr+4])
	if s.ESN {
		d.WriteUint32(s.high())
	}
	d.Write(buf[hdr+4 : end])
	return d.Tag(g.mac)
}
