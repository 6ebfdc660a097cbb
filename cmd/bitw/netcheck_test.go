package main

import (
	"context"
	"strings"
	"testing"

	"bitw/appliance/netcheck"
)

func TestR50_Netcheck(t *testing.T) {
	lines := []netcheck.Line{
		{Area: "privileges", Level: netcheck.Good, Found: "this process has what bitw up needs"},
		{Area: "kernel", Level: netcheck.Good, Found: "Linux 6.18.5 has tcx"},
		{Area: "kernel", Level: netcheck.Bad, Found: "/dev/net/tun: no such file", Remedy: "modprobe tun"},
		{Area: "path", Level: netcheck.Warning, Found: "peer 192.0.2.2: the path takes about 1400 octets", Remedy: "set mtu: 1400"},
	}
	for _, x := range []struct {
		lines  []netcheck.Line
		status int
	}{{lines[:2], 0}, {lines[3:], 1}, {lines, 2}} {
		w := newWorld(t)
		var asked netcheck.Options
		w.netcheck = func(_ context.Context, o netcheck.Options) *netcheck.Report {
			asked = o
			return &netcheck.Report{Interface: o.Interface, Lines: x.lines}
		}
		if got := w.run(t.Context(), []string{"netcheck", "eth7"}); got != x.status || w.err.String() != "" {
			t.Errorf("status %d, expected %d; stderr %q", got, x.status, w.err.String())
		}
		if asked.Interface != "eth7" || asked.Config != nil || !asked.Probe {
			t.Errorf("asked %+v", asked)
		}
		if x.status == 2 {
			golden(t, "netcheck.txt", w.out.String(), "")
			w.out.b.Reset()
			w.run(t.Context(), []string{"netcheck", "-c", write(t, "bitw.yaml", good), "--no-probe", "-o", "json"})
			golden(t, "netcheck.json", w.out.String(), "")
			if asked.Interface != "eth0" || asked.Config == nil || asked.Probe {
				t.Errorf("asked %+v", asked)
			}
		}
	}
	for _, args := range []string{"netcheck", "netcheck eth0 eth1", "netcheck eth0 -c x.yaml", "netcheck eth0 --timeout 0s", "netcheck eth0 -o xml"} {
		newWorld(t).call(t, 2, "", "", strings.Fields(args)...)
	}
}
