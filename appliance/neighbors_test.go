package appliance

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"bitw/config"
)

// neighborsOf are the neighbours of a status, as address, MAC and state.
func neighborsOf(a *Appliance) map[string]string {
	m := make(map[string]string)
	for _, n := range a.Status().Neighbors {
		m[n.Address] = n.MAC + " " + n.State
	}
	return m
}

func TestR24_NeighborsAtRunTime(t *testing.T) {
	addr := netip.MustParseAddr
	configured := config.Neighbor{Address: addr("192.0.2.7"), MAC: net.HardwareAddr{2, 0, 0, 0, 0, 7}}
	box, errc := loneBox(t, config.Config{StaticNeighbors: []config.Neighbor{configured}})
	nine := Neighbor{addr("192.0.2.9"), MAC{2, 0, 0, 0, 0, 9}}
	idle, err := New(config.Config{Interface: "eth0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := idle.AddNeighbor(nine); err == nil {
		t.Error("a neighbour of an appliance that does not run yet")
	}
	select {
	case <-box.Ready():
	case err := <-errc:
		t.Fatal(err)
	}
	want := func(what string, list map[string]string) {
		t.Helper()
		got := neighborsOf(box)
		for a, n := range list {
			if got[a] != n {
				t.Errorf("%s: %s is %q, expected %q", what, a, got[a], n)
			}
		}
		if len(got) != len(list) {
			t.Errorf("%s: %v, expected %v", what, got, list)
		}
	}
	const seven = "02:00:00:00:00:07 static"
	want("at first", map[string]string{"192.0.2.7": seven})
	six := Neighbor{addr("2001:db8::9"), MAC{2, 0, 0, 0, 0, 6}}
	for _, n := range []Neighbor{nine, six} {
		if err := box.AddNeighbor(n); err != nil {
			t.Fatal(err)
		}
	}
	want("added", map[string]string{"192.0.2.7": seven, "192.0.2.9": "02:00:00:00:00:09 static", "2001:db8::9": "02:00:00:00:00:06 static"})
	nine.MAC[5] = 10
	if err := box.AddNeighbor(nine); err != nil {
		t.Fatal(err)
	}
	if n, err := box.FlushNeighbors(); n != 0 || err != nil {
		t.Errorf("flushed %d, %v", n, err)
	}
	want("replaced, and static ones are not flushed", map[string]string{"192.0.2.7": seven, "192.0.2.9": "02:00:00:00:00:0a static", "2001:db8::9": "02:00:00:00:00:06 static"})
	for _, a := range []string{"192.0.2.7", "2001:db8::9"} {
		if err := box.DeleteNeighbor(addr(a)); err != nil {
			t.Error(err)
		}
	}
	if err := box.DeleteNeighbor(addr("192.0.2.7")); !errors.Is(err, ErrNoNeighbor) {
		t.Errorf("deleted twice: %v", err)
	}
	want("deleted", map[string]string{"192.0.2.9": "02:00:00:00:00:0a static"})
	// What is done when the host's Ethernet address changes.
	b := box.bump.Load()
	b.mu.Lock()
	b.forgetNeighbors()
	b.mu.Unlock()
	want("after all were asked for anew", map[string]string{"192.0.2.9": "02:00:00:00:00:0a static"})
	for _, n := range []Neighbor{
		{}, {addr("224.0.0.1"), nine.MAC}, {addr("0.0.0.0"), nine.MAC}, {addr("127.0.0.1"), nine.MAC}, {addr("::1"), nine.MAC}, {addr("255.255.255.255"), nine.MAC}, {addr("fe80::1%eth0"), nine.MAC}, {addr("::ffff:192.0.2.1"), nine.MAC},
		{addr("192.0.2.8"), MAC{1, 0, 0, 0, 0, 0}}, {addr("192.0.2.8"), MAC{0, 0, 0, 0, 0, 0}}, {addr("192.0.2.8"), MAC{2}},
	} {
		if err := box.AddNeighbor(n); err == nil {
			t.Errorf("%+v was added", n)
		}
	}
	_ = box.Close()
	if err := box.AddNeighbor(nine); err == nil {
		t.Error("a neighbour of an appliance that has ended")
	}
}

func TestR24_NeighborsByTheSocket(t *testing.T) {
	path := controlled(t, config.Config{})
	for _, x := range []struct {
		method, url, body string
		status            int
		says              string
	}{
		{"PUT", "/v1/neighbors/192.0.2.9", `{"mac": "02:00:00:00:00:09"}`, 200, "{}"},
		{"PUT", "/v1/neighbors/2001:db8::9", `{"mac": "02:00:00:00:00:09"}`, 200, "{}"},
		{"PUT", "/v1/neighbors/192.0.2.9", `{"mac": "02:00"}`, 400, "Ethernet address"},
		{"PUT", "/v1/neighbors/192.0.2.9", `{}`, 400, "Ethernet address"},
		{"PUT", "/v1/neighbors/nine", `{"mac": "02:00:00:00:00:09"}`, 400, "nine"},
		{"PUT", "/v1/neighbors/192.0.2.9", `{"mac": "02:00:00:00:00:09"` + strings.Repeat(" ", 2000) + `}`, 413, CodeTooLarge},
		{"PUT", "/v1/neighbors", "", 405, CodeMethod},
		{"DELETE", "/v1/neighbors/192.0.2.9", "", 200, "{}"},
		{"DELETE", "/v1/neighbors/192.0.2.9", "", 404, CodeNoNeighbor},
		{"DELETE", "/v1/neighbors", "", 200, `{"flushed":0}`},
	} {
		if status, text := ask(t, path, x.method, x.url, x.body); status != x.status || !strings.Contains(text, x.says) {
			t.Errorf("%s %s %.40s: %d %s, expected %d with %q", x.method, x.url, x.body, status, text, x.status, x.says)
		}
	}
}
