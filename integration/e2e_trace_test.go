package integration

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"bitw/appliance"
	"bitw/integration/netlab"
	"bitw/netstack/wire"
)

// A verb is one of bitw that goes on.
type verb struct {
	t        testing.TB
	proc     *netlab.Process
	out, err netlab.Output
}

// begin starts a verb in the host's namespace.
func (b *box) begin(args ...string) *verb {
	b.t.Helper()
	v := &verb{t: b.t}
	cmd := exec.CommandContext(deadline(b.t, 5*patience), bitwPath(b.t), args...)
	cmd.Stdout, cmd.Stderr = &v.out, &v.err
	var err error
	if v.proc, err = b.host.Start(cmd); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(v.proc.Kill)
	return v
}

// while does something again and again until the verb ends by itself, and returns what it
// wrote.
func (v *verb) while(do func()) string {
	v.t.Helper()
	for {
		select {
		case <-v.proc.Done():
			if err := v.proc.Wait(); err != nil {
				v.t.Fatalf("%v: %s", err, v.err.String())
			}
			return v.out.String()
		default:
			do()
		}
	}
}

// stations are the names in a tree.
func stations(tree string) (list []string) {
	for _, m := range regexp.MustCompile(`(?m)^  [├└]─ (\w+)`).FindAllStringSubmatch(tree, -1) {
		list = append(list, m[1])
	}
	return list
}

// TestR50_TraceAcrossKernels asks two boxes what becomes of packets between real kernels:
// of those that are protected, of those whose key is wrong, and of those without a policy.
func TestR50_TraceAcrossKernels(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	four := newFlow("four", "transport", "aes128gcm16", 0x1001, a4, b4)
	a := newBox(t, pair.A, (&plan{flows: []*flow{four, newFlow("six", "tunnel", "aes256gcm16", 0x1006, a6, b6)}}).yaml(true))
	b := newBox(t, pair.B, (&plan{flows: []*flow{four, newFlow("six", "tunnel", "aes256gcm16", 0x1006, a6, b6)}}).yaml(false))
	a.up()
	b.up()
	pings(t, pair.A, b4, netlab.PingOptions{})
	ping := func(to string) func() {
		return func() { _, _ = pair.A.Run(deadline(t, patience), "ping", "-c", "1", "-W", "0.1", to) }
	}

	out := a.begin("trace", "icmp 192.0.2.1 > 192.0.2.2 len 84 out", "-c", a.file, "--tree", "-n", "1")
	tree := out.while(ping("192.0.2.2"))
	if got := stations(tree); !slices.Equal(got, []string{"link", "rule", "sa", "transform", "forward", "neighbor", "out"}) {
		t.Errorf("the way out by %v:\n%s", got, tree)
	}
	for _, words := range []string{" out icmp 192.0.2.1 > 192.0.2.2 type 8 len 84", "rule      four: protect", "sa        four-ab 0x00001001 aes128gcm16 to 192.0.2.2", "192.0.2.2 known, ", "to the wire"} {
		if !strings.Contains(tree, words) {
			t.Errorf("the tree lacks %q:\n%s", words, tree)
		}
	}
	in := b.begin("trace", "in esp sa four-ab and icmp or in sa four-ab type 8", "-c", b.file, "--tree", "-n", "1")
	tree = in.while(ping("192.0.2.2"))
	if got := stations(tree); !slices.Equal(got, []string{"link", "sa", "transform", "rule", "forward", "out"}) {
		t.Errorf("the way in by %v:\n%s", got, tree)
	}
	if !strings.Contains(tree, " in esp 192.0.2.1 > 192.0.2.2 spi 0x00001001 ") || !strings.Contains(tree, "[icmp 192.0.2.1 > 192.0.2.2 type 8 len 84") {
		t.Errorf("the tree of the way in:\n%s", tree)
	}

	dropped := func(on *box, filter, reason, to string) {
		t.Helper()
		v := on.begin("trace", filter, "-c", on.file, "-o", "json", "-n", "1")
		var x appliance.TraceLine
		if err := json.NewDecoder(strings.NewReader(v.while(ping(to)))).Decode(&x); err != nil {
			t.Fatal(err)
		}
		last := x.Stations[len(x.Stations)-1]
		if x.Dropped != reason || last.Station != "drop" || last.Reason != reason || !strings.HasPrefix(x.Verdict, "dropped: "+reason) {
			t.Errorf("%s: %+v", filter, x.TracedPacket)
		}
	}
	dropped(b, "in spi 0x1006", "icv", b6.String())
	dropped(a, "host 192.0.2.77", "no_policy", "192.0.2.77")
	dropped(a, "drop no_policy", "no_policy", "192.0.2.77")

	// What does not fit is not told, and the time ends it.
	none := a.begin("trace", "tcp or icmp type 77", "-c", a.file, "--for", "300ms")
	if text := none.while(ping("192.0.2.2")); text != "" || !strings.Contains(none.err.String(), "0 packets") {
		t.Errorf("of nothing: %q, %s", text, none.err.String())
	}
}

// TestR50_TraceSlowReader has a trace whose reader stands still while 50 MB pass: nothing
// waits for it, and what it misses is counted.
func TestR50_TraceSlowReader(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	a, _ := boxes(t, pair, &plan{flows: []*flow{newFlow("f", "transport", "aes128gcm16", 0x1001, a4, b4)}})
	v := a.begin("trace", "all", "-c", a.file, "-o", "json")
	eventually(t, "the trace begins", func() bool {
		pings(t, pair.A, b4, netlab.PingOptions{})
		return strings.Contains(v.out.String(), "\n")
	})
	if err := v.proc.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if _, err := netlab.HTTPTransfer(deadline(t, 5*patience), pair.A, pair.B, a4, 50<<20); err != nil {
		t.Error(err)
	}
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGCONT} {
		if err := v.proc.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.proc.Wait(); err != nil {
		t.Fatalf("%v: %s", err, v.err.String())
	}
	lines := strings.Split(strings.TrimSpace(v.out.String()), "\n")
	var last appliance.TraceLine
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.End == nil {
		t.Fatalf("the last line is %q, %v", lines[len(lines)-1], err)
	}
	if last.End.Missed == 0 || last.End.Packets != uint64(len(lines)-1) {
		t.Errorf("%d lines, and the end says %+v", len(lines), last.End)
	}
	pings(t, pair.A, b4, netlab.PingOptions{})
}

// TestR50_Monitor has all kinds of things happen to a box, and its monitor tell them.
func TestR50_Monitor(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	p := &plan{flows: []*flow{newFlow("f", "transport", "aes128gcm16", 0x1001, a4, b4), newFlow("g", "transport", "aes128-sha256", 0x1006, a6, b6)}}
	a, _ := boxes(t, pair, p)
	m := a.begin("monitor", "-c", a.file, "-o", "json", "--last", "100")
	events := func() (list []appliance.Event) {
		for line := range strings.Lines(m.out.String()) {
			var ev appliance.Event
			if err := json.Unmarshal([]byte(line), &ev); err == nil { // the last may not be whole
				list = append(list, ev)
			}
		}
		return list
	}
	told := func(what string, fits func(*appliance.Event) bool) {
		t.Helper()
		eventually(t, what, func() bool { return slices.ContainsFunc(events(), func(ev appliance.Event) bool { return fits(&ev) }) })
	}
	verb := func(want int, args ...string) {
		t.Helper()
		if out, stderr, err := a.run(args...); exitCode(err) != want {
			t.Errorf("bitw %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr)
		}
	}
	told("the SAs of the start", func(ev *appliance.Event) bool {
		return ev.Kind == appliance.SAAdded && ev.SA == "f-ab" && ev.SPI == "0x00001001" && ev.Direction == "out"
	})

	// An authentic message about a packet of ours lowers the path MTU.
	c := pair.Wire.Capture(netlab.CaptureOptions{SnapLen: 2000})
	pings(t, pair.A, b4, netlab.PingOptions{})
	if _, err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	frames := c.Find(netlab.InFlow(netlab.Flow{Proto: wire.ProtoESP, Src: a4, Dst: b4}))
	if len(frames) == 0 {
		t.Fatal("no ESP on the wire")
	}
	var info wire.Info
	datagram := frames[len(frames)-1].Data[wire.EthernetLen:]
	if r := wire.Parse(datagram, &info); r != wire.DropNone {
		t.Fatal(r)
	}
	big, ok := wire.AppendTooBig(nil, datagram, &info, 1300)
	if !ok {
		t.Fatal("no ICMP error")
	}
	toHost(t, pair, pair.A).send(slices.Concat(mac(t, pair.A), mac(t, pair.B), []byte{8, 0}, big))
	told("the path MTU", func(ev *appliance.Event) bool {
		return ev.Kind == appliance.PathMTULearned && ev.SA == "f-ab" && ev.PathMTU == 1300
	})

	keyFile := filepath.Join(t.TempDir(), "k")
	if err := os.WriteFile(keyFile, []byte("00112233445566778899aabbccddeeff "+strings.Repeat("5a", 32)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	verb(0, "keys", "set", "g-ab", "--file", keyFile, "-c", a.file)
	told("the SA with another key", func(ev *appliance.Event) bool { return ev.Kind == appliance.SAReplaced && ev.SA == "g-ab" })
	told("the key", func(ev *appliance.Event) bool { return ev.Kind == appliance.KeyChanged && ev.Key == "g-ab" })

	if _, err := pair.A.Run(deadline(t, patience), "ip", "link", "set", "eth0", "mtu", "1450"); err != nil {
		t.Fatal(err)
	}
	told("the interface's MTU", func(ev *appliance.Event) bool {
		return ev.Kind == appliance.InterfaceChanged && slices.Contains(ev.Changes, "mtu") && ev.MTU == 1450 && ev.Name == "eth0"
	})

	for _, x := range []struct{ args, flow string }{{"closed --clear", "clear"}, {"active", "active"}} {
		verb(0, append([]string{"tap", "eth0", "--socket", filepath.Join(a.dir, "c.sock")}, strings.Fields(x.args)...)...)
		told("the taps", func(ev *appliance.Event) bool {
			return ev.Kind == appliance.TapsSet && ev.Flow == x.flow && strings.HasPrefix(ev.By, "user 0, process ")
		})
		told("the state", func(ev *appliance.Event) bool { return ev.Kind == appliance.StateChanged && ev.State == x.flow })
	}

	p.last = "  - {name: more, action: bypass, remote: 192.0.2.99}\n"
	a.configure(p.yaml(true))
	verb(0, "apply", a.file)
	told("what is applied", func(ev *appliance.Event) bool {
		return ev.Kind == appliance.ConfigurationApplied && strings.Contains(strings.Join(ev.Changes, ";"), "more")
	})
	p.settings = "on_failure: open\n"
	a.configure(p.yaml(true))
	verb(1, "apply", a.file)
	told("what is refused", func(ev *appliance.Event) bool {
		return ev.Kind == appliance.ConfigurationRefused && strings.Contains(ev.Error, "on_failure")
	})
	p.settings = "on_failure: ajar\n"
	a.configure(p.yaml(true))
	if err := a.proc.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	told("what cannot be read", func(ev *appliance.Event) bool {
		return ev.Kind == appliance.ConfigurationRefused && strings.Contains(ev.Error, "ajar")
	})
	p.settings, p.last = "", ""
	a.configure(p.yaml(true))

	// The log has the same under the same names.
	for _, words := range []string{"event=path-mtu", "event=taps", "event=configuration-refused", "path_mtu=1300"} {
		eventually(t, "the log has "+words, func() bool { return strings.Contains(a.out.String(), words) })
	}
	text, _, err := a.run("monitor", "-c", a.file, "--once")
	if err != nil || !strings.Contains(text, "path-mtu: a path MTU was learned (sa=f-ab direction=out spi=0x00001001 ") {
		t.Errorf("what has happened: %v\n%s", err, text)
	}
	a.down()
	if err := m.proc.Wait(); err != nil {
		t.Errorf("the monitor of what has ended: %v, %s", err, m.err.String())
	}
	told("the end", func(ev *appliance.Event) bool { return ev.State == "stopping" })
	for i, ev := range events() {
		if ev.Number != uint64(i)+events()[0].Number || ev.Missed != 0 {
			t.Fatalf("event %d is %+v", i, ev)
		}
	}
}
