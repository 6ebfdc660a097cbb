package wire

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDropReasonNames(t *testing.T) {
	seen := map[string]DropReason{}
	for r := range NumDropReasons {
		name := r.String()
		if name == "" {
			t.Errorf("reason %d has no name", r)
		}
		if other, ok := seen[name]; ok {
			t.Errorf("reasons %d and %d are both %q", other, r, name)
		}
		seen[name] = r
	}
	if got := NumDropReasons.String(); got != "unknown" {
		t.Errorf("behind the last: %q", got)
	}
}

func TestDropCounters(t *testing.T) {
	var c DropCounters
	c.Add(DropNone)
	c.Add(DropICV)
	c.Add(DropICV)
	c.Add(DropTooBig)
	if n := c.Load(DropICV); n != 2 {
		t.Errorf("DropICV: %d", n)
	}
	if d := cmp.Diff(map[string]uint64{"icv": 2, "too_big": 1}, c.Snapshot()); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}
