package transform

import (
	"cmp"
	"slices"
	"strings"
)

// A family is a set of algorithms that share one construction. Each has a file of
// its own; families is the list of them.
type family struct {
	algorithms []Algorithm
	// aliases maps other spellings that swanctl knows to the one used here. They
	// replace one part of a name, the parts being joined by "-".
	aliases map[string]string
}

// families is the one place to add a family.
func families() []family {
	return []family{
		gcmFamily(),
		ccmFamily(),
		chachaFamily(),
		iivFamily(),
		cbcFamily(),
		ctrFamily(),
		gmacFamily(),
		nullFamily(),
		ahFamily(),
	}
}

// Algorithms returns all algorithms, ESP before AH, the names of each protocol being
// unique. The slice is the caller's.
func Algorithms() []Algorithm {
	var all []Algorithm
	for _, f := range families() {
		all = append(all, f.algorithms...)
	}
	return all
}

// Lookup finds the algorithm of ProtoESP or ProtoAH with the given name. Besides the
// names in Algorithms it knows swanctl's other spellings, such as "aes128gcm128" and
// "aes-sha2_256". The error is an *UnknownAlgorithmError.
func Lookup(protocol uint8, name string) (Algorithm, error) {
	aliases := make(map[string]string)
	var candidates []Algorithm
	for _, f := range families() {
		for from, to := range f.aliases {
			aliases[from] = to
		}
		for _, a := range f.algorithms {
			if a.Protocol == protocol {
				candidates = append(candidates, a)
			}
		}
	}
	parts := strings.Split(name, "-")
	for i, part := range parts {
		if to, ok := aliases[part]; ok {
			parts[i] = to
		}
	}
	canonical := strings.Join(parts, "-")
	for _, a := range candidates {
		if a.Name == canonical {
			return a, nil
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
