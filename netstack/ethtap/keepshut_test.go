//go:build linux

package ethtap

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// keepShut raises the guard.
func keepShut(t testing.TB, o Options) {
	t.Helper()
	if kind, err := KeepShut(o); err != nil {
		missing(t, "no guard: %v", err)
	} else if kind == GuardNone {
		t.Fatal("KeepShut returned no guard")
	}
}

func wantKeptShut(t testing.TB, h *host, want ...string) {
	t.Helper()
	if names, err := KeptShut(h.path); err != nil || !slices.Equal(names, want) {
		t.Errorf("KeptShut: %q, %v; expected %q", names, err, want)
	}
}

// TestR07_KeptShutBeforeTheCut keeps an interface shut under a sender before anything is
// cut, as at boot: when it is there, when it comes late, when a start fails, and up to the
// cut; and gives it back.
func TestR07_KeptShutBeforeTheCut(t *testing.T) {
	hooks(t, func(t *testing.T, h Hook) {
		l := newLab(t)
		o := l.a.options(Options{Hook: h})
		for _, late := range []bool{false, true} {
			x := tattle(t, l.a, l.b)
			if late {
				l.disconnect(t)
			}
			keepShut(t, o)
			w := l.b.listen(t)
			if left, err := Left(o); !left || err != nil {
				t.Fatalf("late %v: Left: %v, %v", late, left, err)
			}
			wantKeptShut(t, l.a, "eth0")
			if late {
				l.connect(t)
			}
			x.busy(t)

			wrong := o
			wrong.PinDir = filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(wrong.PinDir, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(wrong); err == nil {
				t.Fatal("Open with a file for PinDir went well")
			}
			x.busy(t)

			d := l.a.open(t, Options{Hook: h})
			if !d.TookOver() || d.Kernel().State() != Active || d.Wire().State() != Active {
				t.Errorf("late %v: took over %v, states %v and %v; expected Active", late, d.TookOver(), d.Kernel().State(), d.Wire().State())
			}
			if _, err := KeepShut(o); !errors.Is(err, ErrBusy) {
				t.Errorf("KeepShut of an interface that is cut: %v, expected ErrBusy", err)
			}
			if _, index := l.a.guard(t); index != l.a.index {
				t.Errorf("the guard of the cut is for index %d, expected %d", index, l.a.index)
			}
			wantKeptShut(t, l.a)
			x.busy(t)
			if n := w.secrets.Load(); n != 0 {
				t.Errorf("late %v: %d frames leaked", late, n)
			}
			x.end()
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			passes(t, l)
			wantClean(t, l.a)
		}

		// An operator's word, with the interface there and gone.
		keepShut(t, o)
		if err := Recover(o); err != nil {
			t.Fatal(err)
		}
		passes(t, l)
		wantClean(t, l.a)
		l.disconnect(t)
		keepShut(t, o)
		if err := Recover(o); err != nil {
			t.Fatal(err)
		}
		l.connect(t)
		passes(t, l)

		// What fails open carries on, and leaves no guard.
		keepShut(t, o)
		o.OnFailure = FailOpen
		d := l.a.open(t, o)
		if d.Kernel().State() != Active || d.Wire().State() != Active {
			t.Errorf("states %v and %v; expected Active", d.Kernel().State(), d.Wire().State())
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		passes(t, l)
		wantClean(t, l.a)
	})
}

// TestR07_R13_KeptShutBeforeTheCut is the same between two NICs.
func TestR07_R13_KeptShutBeforeTheCut(t *testing.T) {
	hooks(t, func(t *testing.T, h Hook) {
		r := newRow(t)
		o := r.options(Options{Hook: h})
		keepShut(t, o)
		w := r.b.listen(t)
		senders := []*tattler{tattle(t, r.box, r.b), tattle(t, r.a, r.b)}
		busy := func() {
			for _, x := range senders {
				x.busy(t)
			}
		}
		busy()
		d := r.open(t, Options{Hook: h, Severed: true})
		busy()
		if n := w.secrets.Load(); n != 0 {
			t.Errorf("%d frames leaked", n)
		}
		for _, x := range senders {
			x.end()
		}
		r.box.in(t, func() error {
			for _, side := range []int{inside, outside} {
				if _, index := findGuard(sideNames[side]); index != r.link(t, side).Attrs().Index {
					t.Errorf("the guard of %s is for index %d", sideNames[side], index)
				}
			}
			return nil
		})
		if err := d.Release(); err != nil {
			t.Fatal(err)
		}
		if err := Recover(o); err != nil {
			t.Fatal(err)
		}
		passes(t, &r.lab)
		if _, err := KeepShut(o); !errors.Is(err, ErrOccupied) {
			t.Errorf("KeepShut of two that pass their frames to each other: %v, expected ErrOccupied", err)
		}
		if err := Remove(o); err != nil {
			t.Fatal(err)
		}
		// Of the outside alone, whose name is all that an operator has to know, both are
		// given back.
		keepShut(t, o)
		wantKeptShut(t, r.box, "eth0")
		if err := Recover(r.box.options(Options{})); err != nil {
			t.Fatal(err)
		}
		wantKeptShut(t, r.box)
		if tr := r.traces(t); len(tr) > 0 {
			t.Errorf("left behind: %v", tr)
		}
	})
}
