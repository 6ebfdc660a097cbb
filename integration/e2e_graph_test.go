package integration

import (
	"crypto/rand"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bitw/integration/netlab"
)

// The transforms of the ancestor's graph: their slots, and the octets of their keys.
var graphSlots = map[string]struct{ slot, key int }{
	"md5": {2, 16}, "crypt": {4, 8}, "crypt3": {5, 16}, "tcrypt": {6, 8}, "crypt3in": {8, 16},
}

// graphKeys are the files beside a graph by which two hosts protect all between them, by
// these transforms from the innermost to the outermost.
func graphKeys(transforms ...string) map[string]string {
	files := map[string]string{
		"rom": "romopt ethdev interface eth0;\nromopt init control c.sock;\nromopt init state_dir state;\n",
	}
	for way, ends := range [][2]string{{"192.0.2.1", "192.0.2.2"}, {"192.0.2.2", "192.0.2.1"}} {
		var spis []string
		for i, name := range transforms {
			spi := fmt.Sprintf("0x%d00%d", way+1, i+1)
			spis = append(spis, spi)
			octets := make([]byte, graphSlots[name].key)
			_, _ = rand.Read(octets)
			files["km/"+name] += fmt.Sprintf("%s/%s %x\n", spi, ends[1], octets)
			files["km/alg"] += fmt.Sprintf("%s/%s %02x\n", spi, ends[1], graphSlots[name].slot)
		}
		files["km/sauser"] += fmt.Sprintf("%s/%s %s\n", ends[0], ends[1], strings.Join(spis, "/"))
	}
	return files
}

// graphBox is bitw composed by a graph, with these files beside it.
func graphBox(t testing.TB, host *netlab.Host, graph string, files map[string]string) *box {
	t.Helper()
	b := newBox(t, host, "")
	b.graph = filepath.Join(b.dir, "graph.comp")
	all := maps.Clone(files)
	all["graph.comp"] = graph
	for name, text := range all {
		path := filepath.Join(b.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// ancestor is the graph of bitw's ancestor, verbatim.
func ancestor(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("../config/graphcomp/testdata/graph.comp")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// threeProtocols moves TCP, UDP and ICMP both ways.
func threeProtocols(t *testing.T, pair *netlab.Pair) {
	t.Helper()
	ctx := deadline(t, 5*patience)
	if _, err := netlab.HTTPTransfer(ctx, pair.A, pair.B, a4, 1<<20); err != nil {
		t.Error(err)
	}
	if _, err := netlab.HTTPTransfer(ctx, pair.B, pair.A, b4, 1<<20); err != nil {
		t.Error(err)
	}
	pings(t, pair.A, b4, netlab.PingOptions{Count: 20, Interval: time.Millisecond})
	pings(t, pair.B, a4, netlab.PingOptions{Count: 5, Size: 4000})
	r, err := netlab.UDPEcho(ctx, pair.A, pair.B, netlab.UDPOptions{Addr: b4, Sizes: []int{1, 2, 7, 8, 9, 100, 1000, 1300, 4000}})
	if err != nil || len(r.Lost) > 0 {
		t.Errorf("UDP: %+v, %v", r, err)
	}
}

// TestR45_TheAncestorsGraphForwardsBetweenKernels starts the graph of bitw's ancestor on two
// hosts with real kernels, by each of its transforms, and kills it.
func TestR45_TheAncestorsGraphForwardsBetweenKernels(t *testing.T) {
	netlab.Require(t)
	for _, transforms := range [][]string{{"crypt", "md5"}, {"crypt3", "md5"}, {"tcrypt"}, {"crypt3in"}} {
		t.Run(strings.Join(transforms, "-"), func(t *testing.T) {
			pair := netlab.New(t).Pair(netlab.PairOptions{})
			files := graphKeys(transforms...)
			a, b := graphBox(t, pair.A, ancestor(t), files), graphBox(t, pair.B, ancestor(t), files)
			a.up()
			b.up()
			defer b.giveBack()
			defer a.giveBack()
			c := pair.Wire.Capture(netlab.CaptureOptions{Watch: []netlab.Match{netlab.Containing([]byte(netlab.Marker)), netlab.OfClass(netlab.Other)}})
			threeProtocols(t, pair)
			if !strings.Contains(a.out.String(), "insecure algorithm") || !strings.Contains(a.out.String(), "self-test passed") {
				t.Errorf("the log tells neither of insecure algorithms nor of prottest:\n%s", a.out)
			}
			if a.status().InsecureSAs != 2*len(transforms) {
				t.Errorf("status: %d insecure SAs", a.status().InsecureSAs)
			}

			if err := a.proc.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			_ = a.proc.Wait()
			silent(t, pair.A, b4)
			a.up()
			pings(t, pair.A, b4, netlab.PingOptions{Count: 5})
			counts, err := c.Stop()
			if err != nil {
				t.Fatal(err)
			}
			protected := netlab.ESP
			if transforms[len(transforms)-1] == "md5" {
				protected = netlab.AH
			}
			if only := counts.Of(protected, netlab.ARP, netlab.ND); c.Watched(0).Frames+c.Watched(1).Frames > 0 || only != counts.Frames || counts.Of(protected) == 0 {
				t.Errorf("on the wire: %v; %d frames hold what the hosts said, %d are something else", counts, c.Watched(0).Frames, c.Watched(1).Frames)
			}
		})
	}
}

func TestR45_ThePlainForwarderRunsBetweenKernels(t *testing.T) {
	netlab.Require(t)
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	files := map[string]string{"rom": graphKeys()["rom"]}
	const plain = `@;
name=watchdog; name=ethkern; name=ethdev;
name=eth/1 protocols=ethdev; name=arp/1 protocols=eth/1;
name=eth/0 protocols=ethkern; name=arp/0 protocols=eth/0;
name=vnet protocols=eth/0,arp/0,eth/1,arp/1;
name=ip protocols=vnet;
name=ipf_udp protocols=ip; name=ipf_tcp protocols=ip; name=ipf_icmp protocols=ip;
@;
name=init;
`
	a, b := graphBox(t, pair.A, plain, files), graphBox(t, pair.B, plain, files)
	a.up()
	b.up()
	defer b.giveBack()
	defer a.giveBack()
	threeProtocols(t, pair)
	pings(t, pair.A, b6, netlab.PingOptions{Count: 3})
}

func TestR44_KeysChangeByTheVerb(t *testing.T) {
	netlab.Require(t)
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	files := graphKeys("crypt", "md5")
	a, b := graphBox(t, pair.A, ancestor(t), files), graphBox(t, pair.B, ancestor(t), files)
	a.up()
	b.up()
	defer b.giveBack()
	defer a.giveBack()
	works := func(after string) {
		t.Helper()
		t.Log(after)
		pings(t, pair.A, b4, netlab.PingOptions{Count: 3})
	}
	keys := func(x *box, args ...string) string {
		t.Helper()
		stdout, stderr, err := x.run(append(append([]string{"keys"}, args...), x.which()...)...)
		if err != nil {
			t.Fatalf("bitw keys %v: %v\n%s", args, err, stderr)
		}
		return stdout
	}
	works("the start")
	const md5 = "km/md5/0x1002/192.0.2.2"
	if list := keys(a, "list"); !strings.Contains(list, "km/md5/0x00001002/192.0.2.2    valid") || strings.Contains(list, strings.Fields(files["km/md5"])[1]) {
		t.Errorf("keys:\n%s", list)
	}
	keys(a, "invalidate", md5)
	silent(t, pair.A, b4)
	eventually(t, "drops for key_invalid", func() bool { return a.status().Drops["key_invalid"] > 0 })
	keys(a, "clear", md5)
	silent(t, pair.A, b4)
	file := filepath.Join(a.dir, "next")
	if err := os.WriteFile(file, []byte("a0a1a2a3a4a5a6a7a8a9aaabacadaeaf\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	keys(a, "set", md5, "--file", file)
	silent(t, pair.A, b4)
	keys(b, "set", md5, "--file", file)
	works("both have the next key")

	// A key of another length changes nothing, and is not shown.
	if err := os.WriteFile(file, []byte("deadbeef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, stderr, err := a.run(append([]string{"keys", "set", md5, "--file", file}, a.which()...)...)
	if exitCode(err) != 1 || !strings.Contains(stderr, "a key of km/md5 has 16 octets, found 4") || strings.Contains(stderr, "deadbeef") {
		t.Errorf("a short key: %v\n%s", err, stderr)
	}
	works("a short key was refused")
}

// TestR45_AWrongGraphTouchesNothing has every kind of error before anything is cut.
func TestR45_AWrongGraphTouchesNothing(t *testing.T) {
	netlab.Require(t)
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	before := links(t, pair.A)
	for name, c := range map[string]struct{ old, new, want string }{
		"unknown node":   {"name=sink;", "name=sunk;", `unknown node "sunk"`},
		"cycle":          {"name=vnet\tprotocols=eth/0", "name=vnet\tprotocols=ip", "a cycle"},
		"undefined":      {"eth/0,arp/0,eth/1,arp/1", "eth/0,arp/9,eth/1,arp/1", "which the graph does not define"},
		"duplicate":      {"name=arp/0\t", "name=arp/1\t", "arp/1 is there already"},
		"unknown option": {"leafmode;", "leefmode;", `does not know the option "leefmode"`},
		"wrong keys":     {"kmparams 8 16 16", "kmparams 8 15 16", "md5 takes keys of 16 octets"},
	} {
		t.Run(name, func(t *testing.T) {
			x := graphBox(t, pair.A, strings.Replace(ancestor(t), c.old, c.new, 1), map[string]string{"rom": graphKeys()["rom"]})
			cmd := exec.CommandContext(deadline(t, patience), bitwPath(t), "up", "--graph", x.graph)
			out := new(netlab.Output)
			cmd.Stdout, cmd.Stderr = out, out
			proc, err := pair.A.Start(cmd)
			if err != nil {
				t.Fatal(err)
			}
			if err := proc.Wait(); exitCode(err) != 1 || !strings.Contains(out.String(), c.want) || !strings.Contains(out.String(), "graph.comp:") {
				t.Errorf("%v\n%s", err, out)
			}
			if after := links(t, pair.A); after != before {
				t.Errorf("changed:\n%s\nfrom:\n%s", after, before)
			}
		})
	}
	pings(t, pair.A, b4, netlab.PingOptions{Count: 3})
}
