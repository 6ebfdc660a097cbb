package graphcomp

import (
	"fmt"
	"strings"

	"bitw/config"
)

// A Suite is what a transform node does with keys of one length.
type Suite struct {
	Protocol config.Protocol
	// Algorithm is its name in the configuration.
	Algorithm string
	// KeyLen is in octets. AH takes it as integrity key, ESP as encryption key.
	KeyLen int
	// Insecure are the names that allow_insecure must have for it.
	Insecure []string
}

// optIV32 and optIV64 choose among suites with IVs of 32 and 64 bits.
const (
	optIV32 = "iv32"
	optIV64 = "iv64"
)

// suites asks for the suites of a transform node, those of its IV where it says one.
func (b *builder) suites(n *Node) ([]Suite, error) {
	if b.opt.Transform == nil {
		return nil, fmt.Errorf("there is no transform %s here", n.Protocol)
	}
	var options []string
	iv := ""
	for _, o := range n.Options {
		if o.Name == optIV32 || o.Name == optIV64 {
			iv = o.Name
		} else {
			options = append(options, o.Name)
		}
	}
	list, err := b.opt.Transform(n.Protocol, options)
	if err != nil || iv == "" {
		return list, err
	}
	var chosen []Suite
	for _, s := range list {
		if strings.HasSuffix(s.Algorithm, iv) {
			chosen = append(chosen, s)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("%s has no form with %s", n.Protocol, iv)
	}
	return chosen, nil
}

// suiteFor is the first for keys of n octets; for the empty key, n being 0, the first of all.
func suiteFor(list []Suite, n int) (Suite, bool) {
	for _, s := range list {
		if s.KeyLen == n || n == 0 {
			return s, true
		}
	}
	return Suite{}, false
}
