package ipsec

import (
	"bytes"
	"testing"

	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/keyer"
	"bitw/sa/transform"
)

// sausers puts an SA from a to b, without keys, into the hands of a sauser at each end.
func sausers(t *testing.T) (p *pair, a, b *keyer.SAUser) {
	t.Helper()
	p = &pair{newStation(t, macA, macB, addrA4), newStation(t, macB, macA, addrB4)}
	start := func(s *station, dir sa.Direction) *keyer.SAUser {
		u, err := keyer.NewSAUser(keyer.SAUserConfig{
			Specs: []keyer.Spec{{
				Name: "ab", Direction: dir, SPI: 0x1001, Dst: addrB4, Proto: transform.ProtoESP, Algorithm: "aes128gcm16",
			}},
			Algorithms: transform.Lookup, Store: sa.NewMemoryStore(), Clock: func() int64 { return s.now },
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := u.Start(&keyer.Commands{SAD: s.sad}); err != nil {
			t.Fatal(err)
		}
		policy := &sa.Policy{Name: "p", Action: sa.Protect, Selector: sa.Selector{Proto: sa.AnyProto}}
		list := []*sa.Lineage{u.Lineage("ab")}
		if dir == sa.Outbound {
			policy.Directions, policy.Out = sa.OnlyOutbound, list
		} else {
			policy.Directions, policy.In = sa.OnlyInbound, list
		}
		s.policies(policy)
		return u
	}
	return p, start(p.a, sa.Outbound), start(p.b, sa.Inbound)
}

// A key set at run time, or taken away, counts from the next packet on.
func TestR44_KeyChangesFromTheNextPacketOn(t *testing.T) {
	p, a, b := sausers(t)
	one, other := testKey(20, 1, 1), testKey(20, 2, 1)
	none := sa.Secret{}
	d := udpTo(addrA4, addrB4, 1, 2, 100)
	var left, right map[string]uint64
	for _, c := range []struct {
		what           string
		do             func() error
		leaves         bool
		comes          bool
		dropA          wire.DropReason // at a, from the left
		dropB          wire.DropReason // at b, from the right
		stateA, stateB keyer.KeyState
	}{
		{"empty", func() error { return nil }, false, false, wire.DropKeyInvalid, 0, keyer.Empty, keyer.Empty},
		{"a's is set", func() error { return a.SetKey("ab", one, none) }, true, false, 0, wire.DropKeyInvalid, keyer.Valid, keyer.Empty},
		{"b's is set", func() error { return b.SetKey("ab", one, none) }, true, true, 0, 0, keyer.Valid, keyer.Valid},
		{"a's is invalid", func() error { return a.InvalidateKey("ab") }, false, false, wire.DropKeyInvalid, 0, keyer.Invalid, keyer.Valid},
		{"a's is valid again", func() error { return a.SetKey("ab", one, none) }, true, true, 0, 0, keyer.Valid, keyer.Valid},
		{"b's is invalid", func() error { return b.InvalidateKey("ab") }, true, false, 0, wire.DropKeyInvalid, keyer.Valid, keyer.Invalid},
		{"b's is another", func() error { return b.SetKey("ab", other, none) }, true, false, 0, wire.DropICV, keyer.Valid, keyer.Valid},
		{"a's is that other", func() error { return a.SetKey("ab", other, none) }, true, true, 0, 0, keyer.Valid, keyer.Valid},
		{"a's is cleared", func() error { return a.ClearKey("ab") }, false, false, wire.DropKeyInvalid, 0, keyer.Empty, keyer.Valid},
	} {
		if err := c.do(); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		left, right = p.a.drops(hook.Left), p.b.drops(hook.Right)
		got, wired := p.cross(d, nil)
		if (len(wired) == 1) != c.leaves || (len(got) == 1) != c.comes {
			t.Errorf("%s: %d left, %d came", c.what, len(wired), len(got))
		}
		if len(got) == 1 && !bytes.Equal(got[0], d) {
			t.Errorf("%s: another datagram came", c.what)
		}
		for _, x := range []struct {
			before, after map[string]uint64
			reason        wire.DropReason
		}{{left, p.a.drops(hook.Left), c.dropA}, {right, p.b.drops(hook.Right), c.dropB}} {
			for name, n := range x.after {
				if n != x.before[name] && name != x.reason.String() {
					t.Errorf("%s: dropped as %s, expected %v", c.what, name, x.reason)
				}
			}
			if x.reason != wire.DropNone && x.after[x.reason.String()] != x.before[x.reason.String()]+1 {
				t.Errorf("%s: drops %v, expected one more %v than %v", c.what, x.after, x.reason, x.before)
			}
		}
		for _, x := range []struct {
			u    *keyer.SAUser
			want keyer.KeyState
		}{{a, c.stateA}, {b, c.stateB}} {
			if got, err := x.u.State("ab"); got != x.want || err != nil {
				t.Errorf("%s: state %v, %v; expected %v", c.what, got, err, x.want)
			}
		}
	}
}
