package config

import (
	"bytes"
	"fmt"
)

// A keyField is one key of an SA: its name in the configuration, and where it goes.
type keyField struct {
	name string
	want int
	to   *Secret
}

// keyFields are the keys of sa in the order of a key file's columns.
func keyFields(sa *SA, a Algorithm) []keyField {
	return []keyField{
		{"encryption_key", a.EncryptionKeyLen, &sa.EncryptionKey},
		{"integrity_key", a.IntegrityKeyLen, &sa.IntegrityKey},
	}
}

// saKeys reads the keys of an SA, from itself or from a key file. Lengths are
// checked if the algorithm is known.
func (d *decoder) saKeys(f *fields, sa *SA, what string, a Algorithm, known bool) {
	inline := false
	for _, k := range keyFields(sa, a) {
		n := f.by[k.name]
		if n == nil {
			continue
		}
		inline = true
		if n.kind == mapping || n.kind == list || n.kind == null || n.text == "" {
			d.fail(n.place, "", "expected hexadecimal digits, found %s", foundKey(n))
			continue
		}
		if d.firstKey == (place{}) {
			d.firstKey = n.place
		}
		b, err := decodeHex(n.text)
		if err != nil {
			d.fail(n.place, "", "%s of %s: %v", k.name, what, err)
			continue
		}
		if known {
			if msg, hint := keyLength(k, len(b), sa.Algorithm, a); msg != "" {
				d.fail(n.place, hint, "%s", msg)
				continue
			}
		}
		if len(b) > 1 && bytes.Count(b, b[:1]) == len(b) {
			d.warn(n.place, "make one with: openssl rand -hex "+fmt.Sprint(len(b)), "%s is one octet over and over", k.name)
		}
		*k.to = NewSecret(b)
		clear(b)
	}
	file := f.by["key_file"]
	switch {
	case file != nil && inline:
		d.fail(file.place, "remove the keys here, or key_file", "%s has both keys and a key_file", what)
	case file != nil:
		d.fromKeyFile(file, sa, a, known)
	case known:
		for _, k := range keyFields(sa, a) {
			if k.want > 0 && f.by[k.name] == nil && !f.meant[k.name] && !f.meant["key_file"] {
				d.fail(f.place, fmt.Sprintf("add %s: with %d octets in hexadecimal, or key_file:", k.name, k.want), "%s without %s, and %s needs one", what, k.name, sa.Algorithm)
			}
		}
	case !inline && !f.meant["encryption_key"] && !f.meant["integrity_key"] && !f.meant["key_file"]:
		d.fail(f.place, "add encryption_key:, integrity_key: or key_file:", "%s without a key", what)
	}
}

// foundKey describes a node that should hold a key without showing it.
func foundKey(n *node) string {
	if n.kind == scalar {
		return "an empty value"
	}
	return string(n.kind)
}

// keyLength says what is wrong with a key of n octets, or "".
func keyLength(k keyField, n int, algorithm string, a Algorithm) (msg, hint string) {
	switch {
	case k.want == 0:
		return fmt.Sprintf("%s takes no %s", algorithm, k.name), "remove it"
	case n == k.want:
		return "", ""
	}
	if k.name == "encryption_key" && a.IntegrityKeyLen == 0 && n < k.want && k.want-n <= 4 {
		hint = fmt.Sprintf("the key is followed by %d octets of salt", k.want-n)
	}
	return fmt.Sprintf("%s has %d octets, %s wants %d", k.name, n, algorithm, k.want), hint
}
