package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bitw/appliance"
	"bitw/netstack/wire"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// busy is a status in which everything has happened.
func busy() *appliance.Status {
	return &appliance.Status{
		Interface: "eth0", Time: now, State: "active", Since: now.Add(-26 * time.Hour), OnFailure: "shut", Cut: "tcx", TookOver: true,
		AllowInsecure: []string{"des", "md5"}, InsecureSAs: 1,
		Watchers: []appliance.Watcher{
			{Kind: "capture", By: "user 0, process 812", Since: now.Add(-5 * time.Minute), Filter: "host 192.0.2.2", File: "/tmp/eth 0.pcapng", Packets: 12345, Missed: 6},
			{Kind: "keys", By: "user 0, process 812", Since: now.Add(-5 * time.Minute)},
			{Kind: "trace", Since: now.Add(-time.Second), Packets: 1},
		},
		MTU: 1500, MTUFrom: "interface", Addresses: []string{"192.0.2.1/24", "2001:db8::1/64"},
		Policies: []appliance.PolicyStatus{{
			Name: "b", Action: "protect", Direction: "both", Selector: "192.0.2.1 <-> 192.0.2.2",
			Out:    appliance.Traffic{Packets: 1234567, Bytes: 1 << 30, LastUse: now.Add(-3 * time.Second), Rate: &appliance.Rate{Packets: 1234, Bits: 12.3e6, Over: 7}},
			In:     appliance.Traffic{Packets: 1, Bytes: 1023, LastUse: now.Add(-61 * time.Second), Drops: map[string]uint64{"clear_not_protected": 2, "selector_mismatch": 0}},
			OutSAs: []string{"esp-to-b", "ah-to-b"}, InSAs: []string{"from-b"}, Down: []string{"from-b"},
		}, {
			Name: "web", Action: "bypass", Direction: "out", Selector: "192.0.2.1 -> 198.51.100.0/24 tcp port 80",
		}},
		SAs: []appliance.SAStatus{{
			Name: "esp-to-b", Direction: "out", Protocol: "esp", SPI: "0x00001001", Source: "192.0.2.1", Destination: "192.0.2.2",
			Mode: "transport", Algorithm: "aes128gcm16", Key: "valid", ESN: true, Sequence: 1234567, PathMTU: 1400, PathMTUFrom: "icmp", PathMTUUntil: now.Add(9 * time.Minute), Expired: "soft",
			Lifetime: &appliance.Lifetime{Created: now.Add(-time.Hour), Expires: now.Add(7 * time.Hour), PacketsLeft: new(uint64(99))},
			Traffic:  appliance.Traffic{Packets: 1234567, Bytes: 1<<30 + 5<<20, LastUse: now, Rate: &appliance.Rate{Packets: 0.5, Bits: 400, Over: 7}},
		}, {
			Name: "from-b", Direction: "in", Protocol: "esp", SPI: "0x00002001", Destination: "192.0.2.1",
			Mode: "tunnel", Algorithm: "des-md5", Key: "empty", Expired: "hard", Weak: "as good as none", Insecure: true,
			Traffic: appliance.Traffic{Drops: map[string]uint64{"icv": 7, "replay": 9}},
		}, {
			Name: "ah-to-b", Direction: "out", Protocol: "ah", SPI: "0x00001002", Destination: "192.0.2.2", Mode: "transport", Algorithm: "sha256", Key: "valid",
		}},
		Classes: map[string]appliance.ClassStatus{
			"dhcp": {Action: "bypass", Bypassed: 4}, "lldp": {Action: "discard", Discarded: 11}, "stp": {Action: "discard"},
		},
		Links: map[string]appliance.LinkStatus{
			"left": {FramesIn: 1, BytesIn: 60, FramesOut: 2, BytesOut: 2048}, "right": {FramesIn: 3, BytesIn: 1 << 20, FramesOut: 0},
		},
		Neighbors: []appliance.NeighborStatus{
			{Address: "192.0.2.2", MAC: "02:00:00:00:00:02", State: "reachable"},
			{Address: "2001:db8::2", MAC: "02:00:00:00:00:02", State: "static"},
		},
		Drops:       map[string]uint64{"icv": 7, "replay": 9, "clear_not_protected": 2, "class_discard": 11, "no_route": 0, "of_the_future": 1},
		DropsBySide: map[string]map[string]uint64{"left": {"class_discard": 10}, "right": {"icv": 7, "class_discard": 1}},
		DropsLast:   map[string]time.Time{"icv": now.Add(-2 * time.Second), "replay": now.Add(-time.Hour), "clear_not_protected": now, "class_discard": now.Add(-time.Minute)},
		RecentDrops: []appliance.DroppedFlow{
			{Reason: "clear_not_protected", From: "right", Last: now, Source: "192.0.2.2:80", Destination: "192.0.2.1:5555", Protocol: "tcp", Policy: "b"},
			{Reason: "icv", From: "right", Last: now.Add(-2 * time.Second), Source: "192.0.2.2", Destination: "192.0.2.1", Protocol: "esp", SPI: "0x00002001", SA: "from-b"},
		},
		Routes: []appliance.RouteStatus{{Destination: "192.0.2.0/24"}, {Destination: "0.0.0.0/0", Via: "192.0.2.254"}},
		Health: []appliance.Finding{
			{Severity: appliance.Critical, About: "SA from-b", Problem: "7 packets failed authentication", Remedy: "compare the keys of both ends"},
			{Severity: appliance.Notice, About: "SA esp-to-b", Problem: "the path takes only 1400 octets", Remedy: "nothing"},
		},
	}
}

func TestStatusText(t *testing.T) {
	for name, s := range map[string]*appliance.Status{
		"busy.txt": busy(),
		"idle.txt": {Interface: "eth1", State: "starting", Since: now, OnFailure: "open", Cut: "clsact", MTU: 1500, MTUFrom: "interface", MTUConfigured: 9000},
	} {
		w := newWorld(t)
		w.serve(t, s.Interface, s)
		w.call(t, 0, "", "", "status")
		golden(t, name, w.out.String(), "")
	}
}

func TestStatusJSON(t *testing.T) {
	w := newWorld(t)
	w.serve(t, "eth0", busy())
	w.call(t, 0, "", "", "status", "-o", "json")
	var got appliance.Status
	if err := json.Unmarshal([]byte(w.out.String()), &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(busy(), &got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestStatusAddress(t *testing.T) {
	named := func(iface string) *appliance.Status { return &appliance.Status{Interface: iface} }
	for _, c := range []struct {
		name    string
		running []string
		dead    []string
		args    string
		status  int
		out     string
		err     string
	}{
		{"the only one", []string{"eth0"}, nil, "", 0, "interface: eth0", ""},
		{"none", nil, nil, "", 1, "", "none runs here"},
		{"several", []string{"eth0", "eth1"}, nil, "", 2, "", "name one of them: eth0, eth1"},
		{"the only one that lives", []string{"eth1"}, []string{"eth0", "eth2"}, "", 0, "interface: eth1", ""},
		{"none that lives", nil, []string{"eth0", "eth1"}, "", 2, "", "name one of them: eth0, eth1"},
		{"by name", []string{"eth0", "eth1"}, nil, "eth1", 0, "interface: eth1", ""},
		{"by another name", []string{"eth0"}, nil, "eth1", 1, "", "none runs behind SOCKETS/eth1.sock"},
		{"by socket", []string{"eth0", "eth1"}, nil, "--socket SOCKETS/eth1.sock", 0, "interface: eth1", ""},
		{"by configuration", []string{"eth0", "eth1"}, nil, "-c CONFIG", 0, "interface: eth1", ""},
		{"killed", nil, []string{"eth0"}, "eth0", 1, "", "ended without being told to; eth0 carries its traffic without protection now"},
		{"a file", nil, nil, "--socket CONFIG", 1, "", "is not a socket"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			for _, iface := range c.running {
				w.serve(t, iface, named(iface))
			}
			for _, iface := range c.dead {
				w.die(t, iface)
			}
			cfg := write(t, "bitw.yaml", good+"control: "+filepath.Join(w.sockets, "eth1.sock")+"\n")
			here := strings.NewReplacer("SOCKETS", w.sockets, "CONFIG", cfg)
			args := append([]string{"status"}, strings.Fields(here.Replace(c.args))...)
			w.call(t, c.status, c.out, here.Replace(c.err), args...)
		})
	}
}

// A bitw that ends is told of as if it had been asked only then.
func TestStatusWatchToTheEnd(t *testing.T) {
	w := newWorld(t)
	c := w.serve(t, "eth0", &appliance.Status{Interface: "eth0"})
	w.isShut = func(string) (bool, error) { return true, nil }
	status := make(chan int, 1)
	go func() { status <- w.run(t.Context(), []string{"status", "--watch", "--every", "100ms"}) }()
	eventually(t, &w.out, "eth0")
	c.server.Close()
	if got := <-status; got != 1 || !strings.Contains(w.err.String(), "and eth0 is shut, nothing passes; bitw up takes it over") {
		t.Errorf("status %d: %s", got, w.err.String())
	}
}

// One that is killed, or cuts a trace off, is told of too.
func TestR50_TraceCutOff(t *testing.T) {
	w := newWorld(t)
	l, err := net.Listen("unix", filepath.Join(w.sockets, "eth0.sock"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, `{"event":"state","text":"state active"}`)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})}
	defer server.Close()
	go func() { _ = server.Serve(l) }()
	w.call(t, 1, "state active", "bitw: bitw has ended without being told to, or has cut this off; bitw status tells which\n", "monitor")
}

// What the configuration says, and the interface does not have, is told.
func TestStatusOfLargeMTU(t *testing.T) {
	w := newWorld(t)
	newLiveBox(t, w, appliance.Config{MTU: 9000})
	w.call(t, 0, "mtu: 1500, by the interface; the configuration says 9000, which is more than it has\n", "", "status")
}

// Where this user may not know what was left, both are told.
func TestStatusOfKilled(t *testing.T) {
	w := newWorld(t)
	w.die(t, "eth0")
	w.isShut = func(string) (bool, error) { return false, os.ErrPermission }
	w.call(t, 1, "", "the interface may be shut: bitw up -c FILE takes it over, bitw recover eth0 gives it back", "status")
	w = newWorld(t)
	w.die(t, "eth0")
	w.isShut = func(string) (bool, error) { return true, nil }
	w.call(t, 1, "", "eth0 is shut, nothing passes; bitw up takes it over", "status")
}

func TestStatusOfSomethingElse(t *testing.T) {
	w := newWorld(t)
	w.serve(t, "eth0", "<html>")
	w.call(t, 1, "", "not the answer", "status")
}

// There are words for every drop reason that exists.
func TestDropWords(t *testing.T) {
	for r := wire.DropNone + 1; r < wire.NumDropReasons; r++ {
		if dropWords(r.String()) == "" {
			t.Errorf("no words for %s", r)
		}
	}
}

func TestWords(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.00 KiB", 1 << 20: "1.00 MiB", 1<<20 - 1: "1.00 MiB", 1536: "1.50 KiB", 1<<64 - 1: "16.00 EiB",
	} {
		if got := bytesText(n); got != want {
			t.Errorf("bytesText(%d) = %s, expected %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		-time.Second: "now", 999 * time.Millisecond: "now", time.Second: "1 second ago", 90 * time.Second: "1 minute, 30 seconds ago",
		time.Hour + 5*time.Second: "1 hour ago", 49*time.Hour + time.Minute: "2 days, 1 hour ago",
	} {
		if got := age(now.Add(-d), now); got != want {
			t.Errorf("age(%v) = %s, expected %s", d, got, want)
		}
	}
	if got := age(time.Time{}, now); got != "never" {
		t.Errorf("age of the zero time is %s", got)
	}
	for in, want := range map[string]int64{"1": 1, "500000": 500000, "16MiB": 16 << 20, "1 KiB": 1024, "2GiB": 2 << 30} {
		if got, err := parseSize(in); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v, expected %d", in, got, err, want)
		}
	}
	for in, want := range map[string]string{"bitw.yaml": "bitw.yaml", "": "''", "a b": "'a b'", "it's": `'it'\''s'`} {
		if got := shellWord(in); got != want {
			t.Errorf("shellWord(%q) = %s, expected %s", in, got, want)
		}
	}
}

func TestR50_Lists(t *testing.T) {
	for _, verb := range []string{"sa", "policy", "neigh", "route", "drops"} {
		w := newWorld(t)
		w.serve(t, "eth0", busy())
		w.call(t, 0, "", "", verb)
		golden(t, verb+".txt", w.out.String(), "")
		w = newWorld(t)
		w.serve(t, "eth0", busy())
		w.call(t, 0, "", "", verb, "eth0", "-o", "json")
		golden(t, verb+".json", w.out.String(), "")
		w = newWorld(t)
		w.serve(t, "eth1", &appliance.Status{Interface: "eth1"})
		w.call(t, 0, "[]\n", "", verb, "-o", "json")
	}
}

func TestR50_StatusCheck(t *testing.T) {
	finding := func(severity string) appliance.Finding {
		return appliance.Finding{Severity: severity, About: "SA x", Problem: "it hurts", Remedy: "rest"}
	}
	for _, x := range []struct {
		name   string
		s      any
		status int
		says   string
	}{
		{"well", &appliance.Status{Interface: "eth0", State: "active", SAs: []appliance.SAStatus{{Key: "valid"}, {Key: "empty"}}}, 0, "OK: bitw on eth0 is active, 1 of 2 security associations up\n"},
		{"notices", &appliance.Status{Interface: "eth0", State: "active", Health: []appliance.Finding{finding("notice")}}, 0, "OK: "},
		{"warning", &appliance.Status{Interface: "eth0", State: "active", Health: []appliance.Finding{finding("warning"), finding("notice")}}, 1, "WARNING: SA x: it hurts: rest\n"},
		{"critical", &appliance.Status{Interface: "eth0", State: "active", Health: []appliance.Finding{finding("critical"), finding("warning")}}, 2, "CRITICAL: SA x: it hurts: rest (and 1 finding more)\n"},
		{"stopping", &appliance.Status{Interface: "eth0", State: "stopping"}, 2, "CRITICAL: bitw on eth0 is stopping"},
		{"no answer", "<html>", 3, "UNKNOWN: control socket"},
		{"none", nil, 3, "UNKNOWN: none runs here"},
	} {
		t.Run(x.name, func(t *testing.T) {
			w := newWorld(t)
			if x.s != nil {
				w.serve(t, "eth0", x.s)
			}
			if got := w.run(t.Context(), []string{"status", "--check"}); got != x.status || !strings.HasPrefix(w.out.String(), x.says) || strings.Count(w.out.String(), "\n") != 1 || w.err.String() != "" {
				t.Errorf("status %d, stdout %q, stderr %q; expected %d, %q", got, w.out.String(), w.err.String(), x.status, x.says)
			}
		})
	}
}

func TestR50_StatusWatch(t *testing.T) {
	last, s := busy(), busy()
	s.Time = now.Add(2 * time.Second)
	s.Policies[0].Out.Packets += 2000
	s.Policies[0].Out.Bytes += 25_000_000
	s.SAs[0].Packets += 2000
	s.SAs[0].Bytes += 2_500_000_000
	s.SAs[1].Packets = 0 // begun anew
	last.SAs[1].Packets = 7
	s.Drops["icv"] += 4
	golden(t, "watch.txt", watchText(s, nil, 40)+"\n"+watchText(s, last, 0), "")
	w := newWorld(t)
	w.serve(t, "eth0", busy())
	w.call(t, 0, "", "", "status", "--watch", "--for", "100ms")
	signals, status := w.signals(), make(chan int, 1)
	go func() { status <- w.run(t.Context(), []string{"status", "--watch", "--every", "100ms"}) }()
	for end := time.Now().Add(time.Minute); strings.Count(w.out.String(), "POLICY") < 3; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no more tables than\n%s", w.out.String())
		}
	}
	signals <- os.Interrupt
	if got := <-status; got != 0 {
		t.Errorf("status %d: %s", got, w.err.String())
	}
	w = newWorld(t)
	w.call(t, 2, "", "without", "status", "--watch", "--check")
	w = newWorld(t)
	w.call(t, 2, "", "100ms", "status", "--watch", "--every", "1ms")
}
