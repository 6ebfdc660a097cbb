package transform

import (
	"fmt"

	"bitw/sa/transform/internal/primitive"
)

// nullFamily is NULL encryption (RFC 2410) with every integrity algorithm. NULL without integrity is
// not among them, and a key of its length is demanded, so it cannot be made.
func nullFamily() Family {
	f := Family{Aliases: integrityAliases()}
	for _, i := range integrities() {
		a := Algorithm{
			Name:            "null-" + i.name,
			Protocol:        ProtoESP,
			IntegrityKeyLen: i.keyLen,
			ICVLen:          i.icvLen,
			BlockLen:        4,
			Weak:            "NULL encryption gives no confidentiality (RFC 2410)",
		}
		if i.weak != "" {
			a.Weak += "; " + i.weak
		}
		a.New = func(encryptionKey, integrityKey []byte, _ Options) (Transform, error) {
			if err := CheckKeys(&a, encryptionKey, integrityKey, 0); err != nil {
				return nil, err
			}
			mac, err := i.mac(integrityKey)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", a.Name, err)
			}
			return newESP(&a, &nullSuite{mac: mac}), nil
		}
		f.Algorithms = append(f.Algorithms, a)
	}
	return f
}

// A nullSuite leaves the body as it is and authenticates it.
type nullSuite struct{ mac *primitive.MAC }

func (n *nullSuite) seal(_ *scratch, buf []byte, hdr, _, end int, s Sequence) {
	signESP(n.mac, buf, hdr, end, s)
}

func (n *nullSuite) open(_ *scratch, buf []byte, hdr, _, end int, s Sequence) bool {
	return verifyESP(n.mac, buf, hdr, end, s)
}
