//go:build linux

package hostnet

import (
	"fmt"
	"slices"
	"testing"
)

// TestNeighbors: what the kernel has found itself and sends by is told, and no more.
func TestNeighbors(t *testing.T) {
	s := newSpace(t)
	s.ip("addr add 192.0.2.1/24 dev eth0", "addr add 2001:db8::1/64 dev eth0",
		"neigh add 192.0.2.10 lladdr 02:00:00:00:00:10 dev eth0 nud reachable",
		"neigh add 192.0.2.11 lladdr 02:00:00:00:00:11 dev eth0 nud stale",
		"neigh add 192.0.2.12 lladdr 02:00:00:00:00:12 dev eth0 nud permanent",
		"neigh add 192.0.2.13 lladdr 02:00:00:00:00:13 dev eth0 nud noarp",
		"neigh add 192.0.2.14 dev eth0 nud failed",
		"neigh add 192.0.2.15 lladdr 02:00:00:00:00:15 dev far nud reachable",
		"neigh add proxy 192.0.2.16 dev eth0",
		"neigh add 192.0.2.17 lladdr 03:00:00:00:00:17 dev eth0 nud reachable", // a group
		"neigh add 2001:db8::10 lladdr 02:00:00:00:00:20 router dev eth0 nud delay",
		"neigh add fe80::11 lladdr 02:00:00:00:00:21 dev eth0 nud stale")
	list, err := Neighbors(s.path, s.read().Index)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range list {
		got = append(got, fmt.Sprint(n.Address, " ", n.MAC))
	}
	slices.Sort(got)
	want := []string{
		"192.0.2.10 02:00:00:00:00:10", "192.0.2.11 02:00:00:00:00:11",
		"2001:db8::10 02:00:00:00:00:20", "fe80::11 02:00:00:00:00:21",
	}
	if !slices.Equal(got, want) {
		t.Errorf("neighbours %q; expected %q", got, want)
	}
}
