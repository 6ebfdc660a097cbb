package transform

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// A Family is a set of algorithms that share one construction. Each has a file of
// its own.
type Family struct {
	Algorithms []Algorithm
	// Aliases maps other spellings that swanctl knows to the one used here. They
	// replace one part of a name, the parts being joined by "-".
	Aliases map[string]string
}

// Families are those of this package, today's. It is the one place to add a family to;
// those of package legacy are apart.
func Families() []Family {
	return []Family{
		gcmFamily(),
		ccmFamily(),
		chachaFamily(),
		iivFamily(),
		cbcFamily(),
		ctrFamily(),
		gmacFamily(),
		nullFamily(),
		desFamily(),
		ahFamily(),
	}
}

// A Registry is the algorithms that a program knows. It does not change, and may be
// used by many goroutines.
type Registry struct {
	families []Family
	aliases  map[string]string // of all families
	suites   map[suite]*Algorithm
}

// A suite is what an algorithm is found by.
type suite struct {
	protocol uint8
	name     string
}

// NewRegistry returns the registry of the families, earlier ones going first.
func NewRegistry(families ...Family) *Registry {
	r := &Registry{families: slices.Clone(families), aliases: make(map[string]string), suites: make(map[suite]*Algorithm)}
	for _, f := range r.families {
		maps.Copy(r.aliases, f.Aliases)
		for i := range f.Algorithms {
			a := &f.Algorithms[i]
			if s := (suite{a.Protocol, a.Name}); r.suites[s] == nil {
				r.suites[s] = a
			}
		}
	}
	return r
}

// Algorithms returns the algorithms of Families.
func Algorithms() []Algorithm { return NewRegistry(Families()...).Algorithms() }

// Lookup is that of the Registry of Families.
func Lookup(protocol uint8, name string) (Algorithm, error) {
	return NewRegistry(Families()...).Lookup(protocol, name)
}

// Algorithms returns all algorithms, ESP before AH within a package's families, the
// names of each protocol being unique. The slice is the caller's.
func (r *Registry) Algorithms() []Algorithm {
	var all []Algorithm
	for _, f := range r.families {
		all = append(all, f.Algorithms...)
	}
	return all
}

// Insecure returns all that an Algorithm's Insecure may name, sorted.
func (r *Registry) Insecure() []string {
	var names []string
	for _, a := range r.Algorithms() {
		names = append(names, a.Insecure...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Lookup finds the algorithm of ProtoESP or ProtoAH with the given name. Besides the
// names in Algorithms it knows swanctl's other spellings, such as "aes128gcm128" and
// "aes-sha2_256". The error is an *UnknownAlgorithmError.
func (r *Registry) Lookup(protocol uint8, name string) (Algorithm, error) {
	parts := strings.Split(name, "-")
	for i, part := range parts {
		if to, ok := r.aliases[part]; ok {
			parts[i] = to
		}
	}
	canonical := strings.Join(parts, "-")
	if a := r.suites[suite{protocol, canonical}]; a != nil {
		return *a, nil
	}
	var candidates []Algorithm
	for _, a := range r.Algorithms() {
		if a.Protocol == protocol {
			candidates = append(candidates, a)
		}
	}
	return Algorithm{}, &UnknownAlgorithmError{
		Protocol: protocol,
		Name:     name,
		Nearest:  nearest(canonical, candidates),
	}
}

// nearest returns the names of up to three candidates that name may have meant,
// best first. What is not discouraged goes before what is.
func nearest(name string, candidates []Algorithm) []string {
	type scored struct {
		Algorithm
		distance int
	}
	var list []scored
	name = strings.ToLower(name)
	parts := strings.Split(name, "-")
	for _, a := range candidates {
		d := editDistance(name, a.Name)
		// Half of a suite ("aes256" without integrity), or one too many ("aes256-sha256"
		// for AH), is near however long the rest is.
		if d > 1 && (slices.Contains(strings.Split(a.Name, "-"), name) || slices.Contains(parts, a.Name)) {
			d = 1
		}
		if d <= max(2, len(name)/2) {
			list = append(list, scored{a, d})
		}
	}
	slices.SortStableFunc(list, func(a, b scored) int {
		return cmp.Or(
			cmp.Compare(a.distance, b.distance),
			cmp.Compare(len(a.Weak), len(b.Weak)),
		)
	})
	var names []string
	for _, s := range list[:min(3, len(list))] {
		names = append(names, s.Name)
	}
	return names
}

// editDistance is Levenshtein's: the number of octets to insert, delete or replace.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
