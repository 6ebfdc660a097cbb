package keyer

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"bitw/sa"
)

func TestR44_SAsComeAndGoWhileItRuns(t *testing.T) {
	store := sa.NewMemoryStore()
	u, db := started(t, store, spec("out", sa.Outbound, 0x1001, 'o'))
	if err := u.Add(spec("in", sa.Inbound, 0x1002, 'i')); err != nil {
		t.Fatal(err)
	}
	if inbound(db, 0x1002) == nil {
		t.Fatal("what was added is not in the SAD")
	}
	if state, err := u.State("in"); err != nil || state != Valid {
		t.Errorf("its key is %v, %v", state, err)
	}
	empty := spec("empty", sa.Outbound, 0x1003, 'e')
	empty.EncryptionKey = sa.Secret{}
	if err := u.Add(empty); err != nil {
		t.Fatal(err)
	}
	if state, _ := u.State("empty"); state != Empty {
		t.Errorf("an empty key is %v", state)
	}
	if u.Lineage("empty").Outbound() == nil {
		t.Error("an outbound SA that was added is not current")
	}
	if enc, integ, err := u.KeyLengths("in"); enc != 20 || integ != 0 || err != nil {
		t.Errorf("key lengths %d, %d, %v", enc, integ, err)
	}

	before := u.Names()
	for _, c := range []struct {
		spec Spec
		want string
	}{
		{spec("out", sa.Outbound, 0x1009, 'x'), "two SAs are named"},
		{spec("other", sa.Outbound, 0x1001, 'x'), sa.ErrDuplicateSA.Error()},
		{spec("other", sa.Outbound, 0x1009, 'o'), "same counter-mode key"},
		{func() Spec { s := spec("other", sa.Inbound, 0x1009, 'x'); s.Algorithm = "none"; return s }(), "unknown algorithm"},
		{func() Spec { s := spec("other", sa.Inbound, 0x1009, 'x'); s.EncryptionKey = key(3, 'x'); return s }(), "keys have 3"},
	} {
		if err := u.Add(c.spec); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, expected %s", err, c.want)
		}
	}
	if !slices.Equal(u.Names(), before) || db.Len() != 3 {
		t.Errorf("refused SAs are there: %v, %d in the SAD", u.Names(), db.Len())
	}

	lineage := u.Lineage("out")
	for _, name := range before {
		if err := u.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	if db.Len() != 0 || lineage.Outbound() != nil || u.Lineage("out") != nil {
		t.Error("what was removed is still there")
	}
	if err := u.Remove("out"); err == nil {
		t.Error("removed twice")
	}
	// The numbers of the key were handed back.
	if err := u.Add(spec("again", sa.Outbound, 0x1001, 'o')); err != nil {
		t.Error(err)
	}
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	if u.Add(spec("late", sa.Inbound, 0x1007, 'l')) == nil {
		t.Error("added after Close")
	}
	if _, err := u.State("again"); errors.Is(err, nil) {
		t.Error("a closed manager tells states")
	}
}
