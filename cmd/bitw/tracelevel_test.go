package main

import (
	"context"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"bitw/appliance"
	"bitw/netstack/link"
)

func TestR46_TraceLevelVerb(t *testing.T) {
	if got, want := traceLevelText([]appliance.TraceLevel{{Node: "spiint", Level: "TR_ERRORS", Tells: "what"}, {Node: "ip", Level: "TR_FULL_TRACE"}}),
		"spiint  TR_ERRORS      what\nip      TR_FULL_TRACE  \n"; got != want {
		t.Errorf("%q", got)
	}
	for args, says := range map[string]string{
		"trace-level spiint":            "a node and a level, or neither",
		"trace-level spiint high":       "no level",
		"trace-level -o xml":            "text, json",
		"trace-level -c x --socket y":   "only one of them",
		"trace-level a TR_EVENTS extra": "a node and a level, or neither",
	} {
		newWorld(t).call(t, 2, "", says, strings.Fields(args)...)
	}
}

// A liveBox is a running appliance between two links, eth9, with the far ends of these.
type liveBox struct {
	kern, wire *link.PipeEnd
}

var liveMAC = net.HardwareAddr{2, 0, 0, 0, 0, 9}

func newLiveBox(t *testing.T, w *world, cfg appliance.Config) *liveBox {
	t.Helper()
	kern, left := link.Pipe(link.PipeOptions{})
	right, wire := link.Pipe(link.PipeOptions{})
	cfg.Control = filepath.Join(w.sockets, "eth9.sock")
	a, err := appliance.New(cfg, appliance.WithLinks(left, right, appliance.Host{
		MAC: liveMAC, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")},
	}))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- a.Run(context.Background()) }()
	t.Cleanup(func() { _ = a.Close() })
	select {
	case <-a.Ready():
	case err := <-ended:
		t.Fatal(err)
	}
	return &liveBox{kern, wire}
}

func TestR46_TraceLevelOfRunning(t *testing.T) {
	w := newWorld(t)
	newLiveBox(t, w, appliance.Config{})
	w.call(t, 0, "spiint is at TR_EVENTS now\n", "", "trace-level", "spiint", "TR_EVENTS")
	w.call(t, 0, "which policy decides each packet", "", "trace-level", "--interface", "eth9")
	w.call(t, 0, `"level": "TR_EVENTS"`, "", "trace-level", "-o", "json")
	w.call(t, 1, "", `no node is called "nobody"`, "trace-level", "nobody", "TR_EVENTS")
}
