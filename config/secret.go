package config

import "bitw/sa"

// A Secret is a key. It prints as (hidden) with every verb of fmt, in JSON, in YAML
// and in logs; only Bytes shows it.
type Secret = sa.Secret

// NewSecret returns a Secret with a copy of b.
func NewSecret(b []byte) Secret { return sa.NewSecret(b) }

// hidden is what stands in the place of a key.
const hidden = "(hidden)"
