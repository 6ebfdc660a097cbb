package legacy

import (
	"iter"

	"bitw/sa/transform"
)

// Families are those of this package, for transform.NewRegistry. It is the one place to
// add a family to.
func Families() []transform.Family {
	var list []transform.Family
	for _, p := range plugIns() {
		list = append(list, p.family())
	}
	return list
}

// A plugIn is a family under the name that the ancestor's graph gives it.
type plugIn struct {
	name    string
	family  func() transform.Family
	options []string
}

func plugIns() []plugIn {
	return []plugIn{
		{"md5", md5Family, []string{optUseIPsec, optLeafMode, optRFC1828}},
		{"crypt", cryptFamily, []string{optUseIPsec}},
		{"crypt3", crypt3Family, nil},
		{"crypt3in", crypt3inFamily, nil},
		{"tcrypt", tcryptFamily, []string{optUseIPsec}},
	}
}

// ivLens yields name and length in octets of the two IVs of RFC 1829.
func ivLens(prefix string) iter.Seq2[string, int] {
	return func(yield func(string, int) bool) {
		_ = yield(prefix+"32", 4) && yield(prefix+"64", 8)
	}
}
