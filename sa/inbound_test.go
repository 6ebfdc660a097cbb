package sa

import (
	"testing"

	"bitw/netstack/wire"
)

// RFC 4301 §5.2 step 4, and bundles as ordered lists.
func TestR33R34_CheckInbound(t *testing.T) {
	esp, ah, other := NewLineage("esp"), NewLineage("ah"), NewLineage("other")
	byESP, byAH, byOther, byNone := &SA{Lineage: esp}, &SA{Lineage: ah}, &SA{Lineage: other}, &SA{}
	espOnly := &Policy{Action: Protect, In: []*Lineage{esp}}
	ahOnly := &Policy{Action: Protect, In: []*Lineage{ah}}
	ahOverESP := &Policy{Action: Protect, In: []*Lineage{esp, ah}} // ESP applied first, AH outermost
	espOverAH := &Policy{Action: Protect, In: []*Lineage{ah, esp}}
	for _, c := range []struct {
		name    string
		policy  *Policy
		removed []*SA // outermost first
		want    wire.DropReason
	}{
		{"no policy, clear", nil, nil, wire.DropNoPolicy},
		{"no policy, decrypted", nil, []*SA{byESP}, wire.DropSelectorMismatch},
		{"discard, clear", &Policy{}, nil, wire.DropPolicyDiscard},
		{"discard, decrypted", &Policy{}, []*SA{byESP}, wire.DropPolicyDiscard},
		{"bypass, clear", &Policy{Action: Bypass}, nil, wire.DropNone},
		{"bypass, decrypted", &Policy{Action: Bypass}, []*SA{byESP}, wire.DropSelectorMismatch},
		{"protect, clear", espOnly, nil, wire.DropClearNotProtected},
		{"ESP alone", espOnly, []*SA{byESP}, wire.DropNone},
		{"AH alone", ahOnly, []*SA{byAH}, wire.DropNone},
		{"another SA", espOnly, []*SA{byOther}, wire.DropSelectorMismatch},
		{"an SA of no lineage", espOnly, []*SA{byNone}, wire.DropSelectorMismatch},
		{"one SA too many", espOnly, []*SA{byAH, byESP}, wire.DropSelectorMismatch},
		{"one SA twice", espOnly, []*SA{byESP, byESP}, wire.DropWrongTransform},
		{"AH over ESP", ahOverESP, []*SA{byAH, byESP}, wire.DropNone},
		{"AH over ESP, wrong order", ahOverESP, []*SA{byESP, byAH}, wire.DropWrongTransform},
		{"AH over ESP, AH missing", ahOverESP, []*SA{byESP}, wire.DropWrongTransform},
		{"AH over ESP, ESP missing", ahOverESP, []*SA{byAH}, wire.DropWrongTransform},
		{"ESP over AH", espOverAH, []*SA{byESP, byAH}, wire.DropNone},
		{"ESP over AH, wrong order", espOverAH, []*SA{byAH, byESP}, wire.DropWrongTransform},
		{"ESP over AH, one foreign", espOverAH, []*SA{byESP, byOther}, wire.DropSelectorMismatch},
	} {
		if got := c.policy.CheckInbound(c.removed); got != c.want {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
}
