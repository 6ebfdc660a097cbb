package main

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"

	"bitw/appliance/observe"
	"bitw/integration/netlab"
)

func TestObserveUsage(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"observe", "observe needs IFACE"},
		{"observe eth0 eth1", `observe takes no argument "eth1"`},
		{"observe eth0 --for soon", "--for is a time such as 10s or 5m"},
		{"observe eth0 --for -1s", "--for is a time"},
		{"observe eth0 --flows 0", "--flows is 1 or more"},
		{"observe eth0 -o xml", `not "xml"`},
	} {
		w := newWorld(t)
		w.call(t, 2, "", c.want, strings.Fields(c.args)...)
	}
	w := newWorld(t)
	w.call(t, 1, "", "does not exist", "observe", "eth0", "-c", filepath.Join(t.TempDir(), "none.yaml"))
	w = newWorld(t)
	w.call(t, 2, "", "there is no folder", "observe", "eth0", "-w", filepath.Join(t.TempDir(), "no", "x.pcapng"))
}

func TestObserveText(t *testing.T) {
	eight := uint8(8)
	r := &observe.Report{
		Interface: "eth0", MTU: 1500, Since: now, Until: now.Add(time.Minute), Judged: true, Forgotten: 1, Unreadable: 2,
		Missed: observe.Missed{Inside: 3}, Other: map[string]observe.Other{"mdns": {Frames: 1, Bytes: 90, Action: "discard"}},
		Flows: []observe.Flow{
			{
				Local: "2001:db8::1", Remote: "2001:db8::2", Protocol: 6, LocalPort: 4000, RemotePort: 80,
				Out: observe.Half{Packets: 2, Bytes: 3000, Verdict: &observe.Verdict{
					Action: "protect", Policy: "b", SAs: []string{"in", "out"}, Overhead: 88, Fit: observe.TooBig, MaxInner: 1420, TooBig: 2,
				}},
				In: observe.Half{Packets: 1, Bytes: 60, Verdict: &observe.Verdict{Action: "protect", Policy: "b", Reason: "clear_not_protected"}},
			},
			{
				Local: "192.0.2.1", Remote: "192.0.2.2", Protocol: 1, ICMPType: &eight,
				Out: observe.Half{Packets: 1, Bytes: 84, Verdict: &observe.Verdict{Action: "bypass", Policy: "ping"}},
				In:  observe.Half{Packets: 1, Bytes: 84, Verdict: &observe.Verdict{Action: "discard", Reason: "no_policy"}},
			},
		},
	}
	text := observeText(r, 9)
	for _, want := range []string{
		"eth0, MTU 1500, watched for 1m0s, 2 flows",
		"[2001:db8::1]:4000  [2001:db8::2]:80  tcp", "protected by b with in + out, +88 B, TOO BIG, at most 1420 fit\n",
		"out: let through by ping; in: discarded, no policy matches\n",
		"mdns: 1 frame (90 B), would be discarded\n", "2 packets too big once protected", "at most 1420 bytes",
		"1 flow left out", "3 frames passed unseen", "2 frames could not be read",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if text := observeText(r, 1); !strings.Contains(text, "and 1 flow more\n") {
		t.Errorf("the cut table does not say so:\n%s", text)
	}
	if got := cutText("äbc\nd\ne\n", 2, 2); got != "äb\nd\n" {
		t.Errorf("cut to %q", got)
	}
}

// Live traffic is watched undisturbed, judged and recorded, and nothing is left of it.
func TestR03_ObserveVerb(t *testing.T) {
	netlab.Require(t, netlab.Root(), netlab.TUN(), netlab.Namespaces())
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	addrA, addrB := netlab.DefaultA()[0].Addr(), netlab.DefaultB()[0].Addr()
	a := newLiveHost(t, pair.A, addrA, addrB, 0x1001, 0x2001)
	before := a.state(t)
	file := filepath.Join(a.dir, "x.pcapng")
	cmd, out, errs := a.command(0, "observe", "eth0", "-c", a.config, "-w", file, "-o", "json")
	p, err := a.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	await(t, p, errs, "watching eth0")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	r, err := netlab.Ping(ctx, a.Host, addrB, netlab.PingOptions{Count: 3, Size: 1472, DontFragment: true, Timeout: patience})
	if err != nil || r.Received != 3 {
		t.Fatalf("%v, %v", r, err)
	}
	const octets = 4 << 20
	if d, err := netlab.TCPBulk(ctx, a.Host, pair.B, addrB, octets); err != nil || d.Size != octets {
		t.Fatalf("%v, %v", d, err)
	}
	a.call(t, 0, 1, "already taken", "observe", "eth0", "--for", "1s")
	a.call(t, 0, 1, "already taken", "up", "-c", a.config)
	if err := p.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	if after := a.state(t); !slices.Equal(before, after) {
		t.Errorf("interfaces before %q, after %q", before, after)
	}
	var rep observe.Report
	if err := json.Unmarshal([]byte(out.String()), &rep); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	flow := func(proto uint8) *observe.Flow {
		t.Helper()
		for i := range rep.Flows {
			if f := &rep.Flows[i]; f.Protocol == proto && f.Local == addrA.String() && f.Remote == addrB.String() {
				return f
			}
		}
		t.Fatalf("no flow of protocol %d in %s", proto, out.String())
		return nil
	}
	ping := flow(1)
	if v := ping.Out.Verdict; ping.Out.Packets != 3 || ping.In.Packets != 3 || ping.Out.Bytes != 4500 || v == nil ||
		v.Action != "protect" || v.Policy != "peer" || !slices.Equal(v.SAs, []string{"out"}) || v.Fit != observe.TooBig || v.TooBig != 3 || v.MaxInner != 1466 {
		t.Errorf("the pings: %+v, verdict %+v", ping, v)
	}
	tcp := flow(6)
	// What the kernel hands over as a superframe is cut to fit; on a busy machine it also
	// sends single segments, of which it would be told that they are too big.
	if v := tcp.Out.Verdict; tcp.Out.Bytes < octets && rep.Missed == (observe.Missed{}) || v == nil || v.Action != "protect" ||
		v.Fit != observe.Cut && (v.Fit != observe.TooBig || v.MaxInner != 1466) || v.Overhead == 0 {
		t.Errorf("the transfer: %+v, verdict %+v", tcp, v)
	}
	if tcp.In.Packets == 0 || tcp.In.Verdict == nil || tcp.In.Verdict.Reason != "clear_not_protected" {
		t.Errorf("the transfer's other direction: %+v", tcp.In)
	}
	if rep.Other["arp"].Action != "answered" || rep.Unreadable != 0 {
		t.Errorf("other: %+v, unreadable %d", rep.Other, rep.Unreadable)
	}
	t.Logf("TCP out %+v, missed %+v", tcp.Out, rep.Missed)
	checkRecord(t, file)

	// A bitw that holds the interface, and one that has left it shut.
	up, _ := a.up(t)
	a.call(t, 0, 1, "already taken", "observe", "eth0")
	up.Kill()
	a.call(t, 0, 1, "bitw recover eth0", "observe", "eth0")
	silent(t, a.Host, addrB, "asked to observe a shut interface")
	a.call(t, 0, 0, "nothing of bitw is left", "recover", "eth0")

	// For a time, without a configuration, as text; and killed: the flow goes on.
	text := a.call(t, 0, 0, "eth0, MTU 1500, watched for", "observe", "eth0", "--for", "300ms")
	if strings.Contains(text, "WOULD BE") {
		t.Errorf("judged by nothing:\n%s", text)
	}
	cmd, _, errs = a.command(0, "observe", "eth0")
	if p, err = a.Start(cmd); err != nil {
		t.Fatal(err)
	}
	await(t, p, errs, "watching eth0")
	p.Kill()
	if n := pings(t, a.Host, addrB, 3, patience); n != 3 {
		t.Errorf("%d of 3 pings were answered after a kill", n)
	}
	if after := a.state(t); !slices.Equal(before, after) {
		t.Errorf("interfaces before %q, after a kill %q", before, after)
	}
}

// await waits for words that a process says.
func await(t *testing.T, p *netlab.Process, said *safeBuffer, words string) {
	t.Helper()
	limit := time.After(time.Minute)
	for !strings.Contains(said.String(), words) {
		select {
		case <-p.Done():
			t.Fatalf("it ended: %v: %s", p.Wait(), said.String())
		case <-limit:
			t.Fatalf("it does not get there: %s", said.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// checkRecord reads what was recorded, with tshark too where that is there.
func checkRecord(t *testing.T, file string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	ng, err := pcapgo.NewNgReader(f, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	var frames [2]int
	for {
		_, ci, err := ng.ReadPacketData()
		if err != nil {
			break
		}
		frames[ci.InterfaceIndex]++
	}
	for i, name := range []string{"inside", "outside"} {
		intf, err := ng.Interface(i)
		if err != nil || intf.Name != name || frames[i] < 3 {
			t.Errorf("interface %d is %q with %d frames: %v", i, intf.Name, frames[i], err)
		}
	}
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		return
	}
	text, err := exec.Command(tshark, "-r", file, "-Y", "icmp.type==8", "-T", "fields", "-e", "frame.interface_name", "-e", "frame.comment").CombinedOutput()
	if err != nil || strings.Count(string(text), "inside\tprotect peer\n") != 3 {
		t.Errorf("tshark reads: %v\n%s", err, text)
	}
}
