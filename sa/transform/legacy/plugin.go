package legacy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"bitw/sa/transform"
)

// Options of a plug-in, as the package comment reads them.
const (
	optUseIPsec = "useipsec"
	optLeafMode = "leafmode"
	optRFC1828  = "rfc1828"
)

// ErrUnknownPlugIn and ErrUnknownOption are matched by the errors of NewPlugIn.
var (
	ErrUnknownPlugIn = errors.New("unknown transform")
	ErrUnknownOption = errors.New("unknown option")
)

// PlugInNames returns the names that NewPlugIn knows.
func PlugInNames() []string {
	var names []string
	for _, p := range plugIns() {
		names = append(names, p.name)
	}
	return names
}

// NewPlugIn returns the transform of that name for a transform.Table: md5, crypt,
// crypt3, crypt3in or tcrypt, with the options that a graph sets for it.
func NewPlugIn(name string, options ...string) (transform.PlugIn, error) {
	i := slices.IndexFunc(plugIns(), func(p plugIn) bool { return p.name == name })
	if i < 0 {
		return transform.PlugIn{}, fmt.Errorf("%w %q, known are %s", ErrUnknownPlugIn, name, strings.Join(PlugInNames(), ", "))
	}
	p := plugIns()[i]
	for _, o := range options {
		if !slices.Contains(p.options, o) {
			known := "it has none"
			if len(p.options) > 0 {
				known = "known are " + strings.Join(p.options, ", ")
			}
			return transform.PlugIn{}, fmt.Errorf("transform %q: %w %q, %s", name, ErrUnknownOption, o, known)
		}
	}
	if name == "md5" && !slices.Contains(options, optRFC1828) {
		a, err := transform.Lookup(transform.ProtoAH, "md5")
		return transform.PlugIn{Name: name, Algorithms: []transform.Algorithm{a}}, err
	}
	return transform.PlugIn{Name: name, Algorithms: p.family().Algorithms}, nil
}
