package transform

import (
	"fmt"
	"slices"
)

// A PlugIn is what stands in a slot of a Table: one transform under a name, with the
// algorithms that it comes in, such as those for keys of different lengths.
type PlugIn struct {
	Name string
	// Algorithms are of one protocol; the first that fits is taken.
	Algorithms []Algorithm
}

// Protocol is ProtoESP or ProtoAH.
func (p PlugIn) Protocol() uint8 { return p.Algorithms[0].Protocol }

// Algorithm returns the first algorithm for keys of these lengths in octets. The error
// matches ErrKeyLength.
func (p PlugIn) Algorithm(encryptionKeyLen, integrityKeyLen int) (Algorithm, error) {
	for _, a := range p.Algorithms {
		if a.EncryptionKeyLen == encryptionKeyLen && a.IntegrityKeyLen == integrityKeyLen {
			return a, nil
		}
	}
	a := p.Algorithms[0]
	if encryptionKeyLen != a.EncryptionKeyLen {
		return Algorithm{}, &KeyLengthError{p.Name, "encryption", a.EncryptionKeyLen, encryptionKeyLen, 0}
	}
	return Algorithm{}, &KeyLengthError{p.Name, "integrity", a.IntegrityKeyLen, integrityKeyLen, 0}
}

// A Table is an ordered list of transforms, each in a slot with a number: the list that
// an ancestor of bitw wrote beneath its node rfc1825. One plug-in may stand in several
// slots. A Table does not change, and may be used by many goroutines.
type Table struct{ slots []PlugIn }

// NewTable returns the table with the first plug-in in slot 0, the next in slot 1 and so
// on. A plug-in without name or algorithms, or with those of two protocols, is an error.
func NewTable(plugIns ...PlugIn) (*Table, error) {
	for i, p := range plugIns {
		switch {
		case p.Name == "":
			return nil, fmt.Errorf("slot %d: the transform has no name", i)
		case len(p.Algorithms) == 0:
			return nil, fmt.Errorf("slot %d: transform %q has no algorithms", i, p.Name)
		}
		for _, a := range p.Algorithms {
			if a.Protocol != p.Protocol() || a.New == nil {
				return nil, fmt.Errorf("slot %d: transform %q: algorithm %q is for protocol %d, want one for %d that can be made",
					i, p.Name, a.Name, a.Protocol, p.Protocol())
			}
		}
	}
	return &Table{slices.Clone(plugIns)}, nil
}

// Len is the number of slots.
func (t *Table) Len() int { return len(t.slots) }

// Slot returns what stands in a slot; ok is false if there is no such slot.
func (t *Table) Slot(number int) (p PlugIn, ok bool) {
	if number < 0 || number >= len(t.slots) {
		return PlugIn{}, false
	}
	return t.slots[number], true
}

// Numbers returns the slots that the plug-in of that name stands in, in order.
func (t *Table) Numbers(name string) []int {
	var list []int
	for i, p := range t.slots {
		if p.Name == name {
			list = append(list, i)
		}
	}
	return list
}
