package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"bitw/appliance"
	"bitw/config"
	"bitw/netstack/link"
)

// lldp is a frame that no policy decides, as it comes from a host.
func lldp() []byte {
	f := make([]byte, link.HeaderLen+46)
	eth := f[link.HeaderLen-14:]
	copy(eth, "\x01\x80\xc2\x00\x00\x0e")
	copy(eth[6:], liveMAC)
	eth[12], eth[13] = 0x88, 0xcc
	return f
}

func TestR50_TraceText(t *testing.T) {
	p := newWorld(t)
	x := &appliance.TracedPacket{
		Time: now, Direction: "in", Packet: "esp 192.0.2.2 > 192.0.2.1 spi 0x00002001 len 128", Inner: "udp 192.0.2.2:53 > 192.0.2.1:99 len 80", Missed: 2,
		Dropped: "selector_mismatch", MoreStations: 0,
		Stations: []appliance.TraceStation{
			{Station: "link", Text: "a frame of 142 octets from the wire", Octets: 142},
			{Station: "sa", Name: "from-b", SPI: "0x00002001", Verdict: "found", Text: "from-b 0x00002001 aes128gcm16"},
			{Station: "transform", Verdict: "opened", Name: "from-b", From: 128, Octets: 80, Text: "opened by from-b, 128 → 80 octets"},
			{Station: "rule", Name: "to-c", Verdict: "protect", Text: "to-c: protect"},
			{Station: "neighbor", Address: "192.0.2.9", Verdict: "known", Text: "192.0.2.9 known, 02:00:00:00:00:09"},
			{Station: "out", Frames: 2, Octets: 3000, Text: "2 frames of together 3000 octets to the wire"},
			{Station: "drop", Reason: "selector_mismatch", Text: "selector_mismatch, of SA from-b 0x00002001"},
		},
	}
	head := "… 2 packets missed\n05:06:07.000000 in esp 192.0.2.2 > 192.0.2.1 spi 0x00002001 len 128 [udp 192.0.2.2:53 > 192.0.2.1:99 len 80]"
	if got, want := p.packetText(x, false), head+": link 142 → sa from-b 0x00002001 → transform opened 80 → rule to-c protect → neighbor 192.0.2.9 known → out 2 frames 3000 → drop selector_mismatch\n"; got != want {
		t.Errorf("a line\n%swant\n%s", got, want)
	}
	x.Stations, x.MoreStations = x.Stations[5:], 3
	if got, want := p.packetText(x, true), head+`
  ├─ out       2 frames of together 3000 octets to the wire
  ├─ drop      selector_mismatch, of SA from-b 0x00002001
  └─ 3 more stations
`; got != want {
		t.Errorf("a tree\n%swant\n%s", got, want)
	}
	for args, says := range map[string]string{
		"trace":                       "needs a filter",
		"trace tpc":                   "column 1: \"tpc\" is not known",
		"trace all eth0 eth1":         "takes one interface",
		"trace all --count -1":        "--count is 1 or more",
		"trace all --for -1s":         "--for is a time",
		"trace all -o xml":            "text, json",
		"trace all eth0 -c x":         "only one of them",
		"monitor --last -1":           "--last is 0 or more",
		"monitor --since -1s":         "--since is a time",
		"monitor -o xml":              "text, json",
		"monitor eth0 --socket /x/y ": "only one of them",
	} {
		newWorld(t).call(t, 2, "", says, strings.Fields(args)...)
	}
}

// A running bitw is traced and watched by the verbs.
func TestR50_TraceAndMonitorOfRunning(t *testing.T) {
	w := newWorld(t)
	box := newLiveBox(t, w, appliance.Config{Policies: []config.Policy{{Name: "web", Action: config.Bypass}}})
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			_, _ = box.kern.WriteFrames([][]byte{lldp()})
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	}()
	w.call(t, 0, "out ethertype 0x88cc: link 60 → hook lldp discard → drop class_discard\n", "2 packets", "trace", "out drop", "--count", "2")
	if n := strings.Count(w.out.String(), "\n"); n != 2 {
		t.Errorf("%d lines", n)
	}
	w.call(t, 0, "  └─ drop      class_discard", "", "trace", "all", "eth9", "--tree", "-n", "1")
	// A name that nobody has is told at once.
	w.call(t, 0, "", "there is no policy \"wep\" now, did you mean \"web\"?\nthere is no security association \"nobody\" now\n0 packets", "trace", "rule wep or rule web sa nobody", "--for", "20ms")
	// Nothing fits, and the time ends it.
	w.call(t, 0, "", "\n0 packets", "trace", "tcp or in", "--for", "20ms")

	w.out = safeBuffer{}
	w.call(t, 0, `"end":{"packets":3,"missed":`, "", "trace", "all", "-n", "3", "-o", "json")
	lines := strings.Split(strings.TrimSpace(w.out.String()), "\n")
	var x appliance.TraceLine
	if err := json.Unmarshal([]byte(lines[0]), &x); err != nil || len(lines) != 4 || x.Dropped != "class_discard" || x.Stations[1].Name != "lldp" {
		t.Errorf("%d lines, %v: %+v", len(lines), err, x)
	}

	w.call(t, 0, "info    trace-stopped: a trace of 2 packets was stopped (filter=\"out drop\" by=", "", "monitor", "--once")
	w.out = safeBuffer{}
	w.call(t, 0, "trace-started: a trace was started (filter=", "", "monitor", "--once", "--since", "10h", "eth9")
	if !strings.Contains(w.out.String(), `(filter="out drop" by="user `) {
		t.Errorf("who has traced is missing in\n%s", w.out.String())
	}
	w.out = safeBuffer{}
	signals, status := w.signals(), make(chan int, 1)
	go func() { status <- w.run(t.Context(), []string{"monitor", "-o", "json", "--last", "1"}) }()
	eventually(t, &w.out, `"event":"trace-stopped"`)
	other := newWorld(t)
	other.program.sockets = w.sockets
	other.call(t, 0, "", "", "trace-level", "spiint", "TR_EVENTS")
	eventually(t, &w.out, `"event":"trace-level","level":"info","text":"the trace level of spiint was set to TR_EVENTS by hand"`)
	signals <- os.Interrupt
	if got := <-status; got != 0 {
		t.Errorf("status %d: %s", got, w.err.String())
	}
}
