package integration

import (
	"fmt"
	"strings"
	"testing"

	"bitw/appliance"
	"bitw/integration/netlab"
)

// offload finds one in a status.
func offload(t testing.TB, s *appliance.Status, name string) appliance.OffloadStatus {
	t.Helper()
	for _, o := range s.Offloads {
		if o.Name == name {
			return o
		}
	}
	t.Fatalf("status tells nothing of the offload %s: %v", name, s.Offloads)
	return appliance.OffloadStatus{}
}

// TestOffloadsOff: ESP in UDP passes both ways with each offload turned off, those that can
// be while bitw runs, and status says what is off.
func TestOffloadsOff(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	p := &plan{flows: []*flow{
		newFlow("f4", "transport", "aes128gcm16", 0x1001, a4, b4), newFlow("f6", "tunnel", "aes128gcm16", 0x1002, a6, b6),
	}}
	yaml := func(isA bool, offloads string) string {
		p.settings = offloads
		return strings.ReplaceAll(p.yaml(isA), "algorithm: aes128gcm16", "algorithm: aes128gcm16, encap: yes")
	}
	a, b := newBox(t, pair.A, yaml(true, "")), newBox(t, pair.B, yaml(false, ""))
	pass := func(what string) {
		t.Helper()
		ctx := deadline(t, 5*patience)
		for _, x := range []struct {
			from, to *netlab.Host
			four     bool
		}{{pair.A, pair.B, true}, {pair.B, pair.A, false}} {
			at := a6
			if x.four {
				at = b4
			}
			if _, err := netlab.TCPBulk(ctx, x.from, x.to, at, 4<<20); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		pings(t, pair.A, b4, netlab.PingOptions{Count: 20})
	}
	says := func(box *box, name string, on bool) {
		t.Helper()
		if o := offload(t, box.status(), name); o.On != on || (o.Why == "configuration") == on {
			t.Errorf("%s: status says %v", name, o)
		}
	}
	a.up()
	b.up()
	pass("all on")
	s := a.status()
	for _, o := range s.Offloads {
		if !o.On || o.Why != "" {
			t.Errorf("offload %v, expected it to be on", o)
		}
	}
	if l := s.Links["right"]; l.UDPSuperframesOut == 0 || l.UDPDatagramsOut < 2*l.UDPSuperframesOut {
		t.Errorf("no UDP superframes were sent: %+v", l)
	}
	if l := b.status().Links["right"]; l.UDPSuperframesIn == 0 {
		t.Errorf("none were received: %+v", l)
	}
	for _, name := range []string{"batches", "superframes", "coalescing", "udp_superframes"} {
		for _, on := range []bool{false, true} {
			for i, x := range []*box{a, b} {
				x.configure(yaml(i == 0, fmt.Sprintf("offloads: {%s: %t}\n", name, on)))
				if stdout, stderr, err := x.run("apply", x.file); err != nil {
					t.Fatalf("apply: %v\n%s%s", err, stdout, stderr)
				}
				says(x, name, on)
			}
			before := a.status().Links["right"].UDPSuperframesOut
			pass(fmt.Sprintf("%s %t", name, on))
			if after := a.status().Links["right"].UDPSuperframesOut; name == "udp_superframes" && (after == before) == on {
				t.Errorf("%s %t: %d UDP superframes were sent", name, on, after-before)
			}
		}
	}
	// The ring is for the whole life of a process.
	a.configure(yaml(true, "offloads: {ring: false}\n"))
	if stdout, stderr, err := a.run("apply", a.file); err == nil || !strings.Contains(stderr, "offloads: ring") {
		t.Errorf("apply of a ring: %v\n%s%s", err, stdout, stderr)
	}
	for _, off := range []string{"offloads: {ring: false}\n", "offloads: false\n"} {
		a.down()
		b.down()
		a.configure(yaml(true, off))
		b.configure(yaml(false, off))
		a.up()
		b.up()
		says(a, "ring", false)
		says(b, "coalescing", off != "offloads: false\n")
		pass(off)
	}
	a.down()
	b.down()
}
