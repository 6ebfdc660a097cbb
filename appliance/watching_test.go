package appliance

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bitw/config"
)

// TestR50_EventsSayWho: what is changed by the control socket has who did it in its event, and
// what the program itself changes has nobody.
func TestR50_EventsSayWho(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	text := "control: " + path + `
state_dir: ` + t.TempDir() + `
security_associations:
  - {name: ab, direction: out, protocol: esp, mode: transport, spi: 0x1001, source: 192.0.2.1, destination: 192.0.2.2, algorithm: null-sha256, integrity_key: ` + strings.Repeat("0a", 32) + `}
policies:
  - {name: b, direction: out, local: 192.0.2.1, remote: 192.0.2.2, action: protect, out: [ab]}
`
	opt := ConfigOptions()
	opt.NoInterface = true
	cfg, _, err := config.Parse("/x.yaml", []byte(text), opt)
	if err != nil {
		t.Fatal(err)
	}
	box, _ := loneBox(t, *cfg)
	<-box.Ready()
	events := box.Subscribe(0)
	defer events.Close()
	me := fmt.Sprintf("user %d, process %d", os.Getuid(), os.Getpid())
	const nine = `{"mac": "02:00:00:00:00:09"}`
	apply := func(text string) string {
		b, err := json.Marshal(ApplyRequest{File: "/x.yaml", Text: text})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, x := range []struct {
		method, url, body string
		kind              EventKind
	}{
		{"POST", "/v1/keys", `{"name": "ab", "change": "set", "value": "` + strings.Repeat("0b", 32) + `"}`, KeyChanged},
		{"POST", "/v1/keys", `{"name": "ab", "change": "invalidate"}`, KeyChanged},
		{"POST", "/v1/keys", `{"name": "ab", "change": "clear"}`, KeyChanged},
		{"PUT", "/v1/neighbors/192.0.2.9", nine, NeighborChanged},
		{"DELETE", "/v1/neighbors/192.0.2.9", "", NeighborChanged},
		{"DELETE", "/v1/neighbors", "", NeighborChanged},
		{"POST", "/v1/trace-levels", `{"node": "spiint", "level": "TR_ERRORS"}`, TraceLevelSet},
		{"POST", "/v1/apply", apply("wrong: true\n"), ConfigurationRefused},
		{"POST", "/v1/apply", apply(strings.Replace(text, path, "/nowhere", 1)), ConfigurationRefused},
		{"POST", "/v1/apply", apply(strings.Replace(text, "policies:", "mtu: 1400\npolicies:", 1)), ConfigurationApplied},
	} {
		if code, text := ask(t, path, x.method, x.url, x.body); code/100 != 2 {
			t.Fatalf("%s %s: %d %s", x.method, x.url, code, text)
		}
		if ev := awaitEvent(t, events, ofKind(x.kind)); ev.By != me {
			t.Errorf("%s %s %s: %v, expected by %q", x.method, x.url, x.body, ev.String(), me)
		}
	}
	if err := box.AddNeighbor(Neighbor{netip.MustParseAddr("192.0.2.9"), MAC{2, 0, 0, 0, 0, 9}}); err != nil {
		t.Fatal(err)
	}
	if ev := awaitEvent(t, events, ofKind(NeighborChanged)); ev.By != "" || ev.Address != "192.0.2.9" || ev.MAC != "02:00:00:00:00:09" {
		t.Errorf("by the program itself: %v", ev.String())
	}
}

// TestR50_StatusTellsWatchers: a status tells who captures, traces and gets keys, of what and
// to where, since when, and how much that was.
func TestR50_StatusTellsWatchers(t *testing.T) {
	cfg := protectAll(t)
	other := mirror(cfg)
	cfg.Control = filepath.Join(t.TempDir(), "s")
	p := newMemoryPair(t, cfg, other)
	if list := p.boxA.Status().Watchers; list == nil || len(list) != 0 {
		t.Errorf("watchers %v, expected an empty list", list)
	}
	open := func(url, body string) *streamClient {
		conn, err := net.Dial("unix", cfg.Control)
		if err != nil {
			t.Fatal(err)
		}
		return startStream(t, conn, url, body)
	}
	before := time.Now()
	streams := []*streamClient{open("/v1/capture", `{"filter": "udp", "file": "/tmp/x.pcapng"}`), open("/v1/trace", `{"filter": "udp"}`), open("/v1/keys/wireshark", "")}
	waitFor(t, "all to watch", func() bool { return len(p.boxA.Status().Watchers) == len(streams) })
	me := fmt.Sprintf("user %d, process %d", os.Getuid(), os.Getpid())
	want := map[string]string{
		WatcherCapture: me + " udp /tmp/x.pcapng", WatcherTrace: me + " udp ", WatcherKeys: me + "  ",
	}
	waitFor(t, "the counters", func() bool {
		p.datagrams(t, 2)
		n := 0
		for _, x := range p.boxA.Status().Watchers {
			if x.Kind == WatcherKeys || x.Packets+x.Missed >= 10 {
				n++
			}
		}
		return n == len(want)
	})
	for _, x := range p.boxA.Status().Watchers {
		if got := strings.Join([]string{x.By, x.Filter, x.File}, " "); got != want[x.Kind] || x.Since.Before(before.Add(-time.Minute)) || x.Since.After(time.Now().Add(time.Minute)) {
			t.Errorf("%+v, expected %q", x, want[x.Kind])
		}
		delete(want, x.Kind)
	}
	if len(want) > 0 {
		t.Errorf("missing are %v", want)
	}
	for _, s := range streams {
		_ = s.CloseWrite()
	}
	waitFor(t, "their end", func() bool { return len(p.boxA.Status().Watchers) == 0 })
	if code, text := ask(t, cfg.Control, "POST", "/v1/capture", `{"file": "`+strings.Repeat("x", 5000)+`"}`); code != 400 {
		t.Errorf("a file of 5000 octets: %d %s", code, text)
	}
}
