package keyer

import (
	"net/netip"

	"bitw/sa"
	"bitw/sa/transform"
)

// A Manager is a key manager.
type Manager interface {
	// Name is what status and configuration call it.
	Name() string
	// Lineage returns the lineage that policies refer to by that name, or nil when
	// the manager has none of that name. It may be called before Start, and returns the
	// same lineage each time. The manager sets the lineage's Notify.
	Lineage(name string) *sa.Lineage
	// Start lets the manager put its SAs into the SAD, make the outbound ones current
	// and go on to do so until Close. It is called once. After an error the SAD is as
	// it was.
	Start(*Commands) error
	// Close takes the manager's SAs out of the SAD and ends them. From then on the
	// lineages have no SA.
	Close() error
}

// An AlgorithmLookup finds a suite by protocol (transform.ProtoESP or
// transform.ProtoAH) and name.
type AlgorithmLookup func(protocol uint8, name string) (transform.Algorithm, error)

// A Spec describes one SA.
type Spec struct {
	// Name is that of the SA and of its lineage.
	Name      string
	Direction sa.Direction
	Mode      sa.Mode
	// SPI is in host order.
	SPI uint32
	// Src and Dst are those of the header in front of ESP or AH; Src may be left out in
	// transport mode.
	Src, Dst netip.Addr
	// InnerSrc and InnerDst are the fixed inner addresses of BEET mode.
	InnerSrc, InnerDst netip.Addr
	// Proto is transform.ProtoESP or transform.ProtoAH.
	Proto uint8
	// Algorithm is a name that the AlgorithmLookup knows. The sink ignores it, the keys
	// and what follows.
	Algorithm                   string
	EncryptionKey, IntegrityKey sa.Secret
	ESN                         bool
	ReplayWindow                int // packets; 0 is sa.DefaultReplayWindow, sa.ReplayOff none
	Soft, Hard                  sa.Lifetime
	// Encap, TFCPadding and Dummies are as in sa.SAConfig.
	Encap               *sa.Encap
	TFCPadding, Dummies int
	Headers             sa.Headers
}

// Key returns the name of the SA in the SAD.
func (s *Spec) Key() sa.Key { return sa.Key{SPI: s.SPI, Dst: s.Dst.Unmap(), Proto: s.Proto} }

func (s *Spec) config() sa.SAConfig {
	return sa.SAConfig{
		Name: s.Name, Key: s.Key(), Direction: s.Direction, Mode: s.Mode, Src: s.Src,
		InnerSrc: s.InnerSrc, InnerDst: s.InnerDst,
		EncryptionKey: s.EncryptionKey, IntegrityKey: s.IntegrityKey,
		ESN: s.ESN, ReplayWindow: s.ReplayWindow, Soft: s.Soft, Hard: s.Hard,
		Encap: s.Encap, TFCPadding: s.TFCPadding, Dummies: s.Dummies, Headers: s.Headers,
	}
}
