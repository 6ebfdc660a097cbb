package appliance

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"

	"bitw/config"
	"bitw/config/graphcomp"
	"bitw/netstack/wire"
	"bitw/sa/transform"
	"bitw/sa/transform/legacy"
)

// ancestor is the graph of bitw's ancestor, verbatim.
func ancestor(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("../config/graphcomp/testdata/graph.comp")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// keysOfTheTime protect between the two hosts, one transform within the other.
func keysOfTheTime() map[string]string {
	return map[string]string{
		"km/sauser":   "192.0.2.1/192.0.2.2 0x1001/0x1002\n192.0.2.2/192.0.2.1 0x2001/0x2002\n",
		"km/alg":      "0x1001/192.0.2.2 04\n0x1002/192.0.2.2 02\n0x2001/192.0.2.1 04\n0x2002/192.0.2.1 07\n",
		"km/crypt":    "0x1001/192.0.2.2 0123456789abcdef\n0x2001/192.0.2.1 fedcba9876543210\n",
		"km/md5":      "kmparams 8 16 16\n0x1002/192.0.2.2 000102030405060708090a0b0c0d0e0f\n0x2002/192.0.2.1 f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff\n",
		"km/tcrypt":   "0x1001/192.0.2.2 0123456789abcdef\n0x2001/192.0.2.1 fedcba9876543210\n",
		"km/crypt3":   "0x1001/192.0.2.2 0123456789abcdef0011223344556677\n0x2001/192.0.2.1 fedcba98765432100011223344556677\n",
		"km/crypt3in": "0x1001/192.0.2.2 0123456789abcdef0011223344556677\n0x2001/192.0.2.1 fedcba98765432100011223344556677\n",
	}
}

// graphFolder writes a graph and what lies beside it, and returns its path.
func graphFolder(t testing.TB, graph string, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	all := maps.Clone(files)
	if all == nil {
		all = make(map[string]string)
	}
	all["graph.comp"] = graph
	for name, text := range all {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "graph.comp")
}

// host4 is the host with one address in memory.
func host4(address string) Option {
	return WithLinks(nil, nil, Host{MAC: []byte{2, 0, 0, 0, 0, 1}, Addresses: []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr(address), 24)}})
}

// graphPair composes both appliances by the same files.
func graphPair(t testing.TB, path string) *memoryPair {
	t.Helper()
	cfgA, knownA, err := LoadGraph(path, host4("192.0.2.1"))
	if err != nil {
		t.Fatal(err)
	}
	cfgB, knownB, err := LoadGraph(path, host4("192.0.2.2"))
	if err != nil {
		t.Fatal(err)
	}
	return newMemoryPair(t, cfgA, cfgB, knownA, knownB)
}

// arrives sends one octet by UDP, and waits until it arrives.
func (p *memoryPair) arrives(t testing.TB) bool {
	t.Helper()
	arrived, _, done := p.datagram(t)
	defer done()
	select {
	case ok := <-arrived:
		return ok
	case <-time.After(20 * time.Second):
		return false
	}
}

// dropped sends one octet by UDP, and waits until something is dropped by that. What is not
// expected is that the octet arrives.
func (p *memoryPair) dropped(t testing.TB) bool {
	t.Helper()
	arrived, before, done := p.datagram(t)
	defer done()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if dropsOf(p.boxA)+dropsOf(p.boxB) != before {
			select {
			case <-arrived:
				return false
			case <-time.After(20 * time.Millisecond):
				return true
			}
		}
	}
	return false
}

// datagram sends one octet by UDP, and tells of its arrival, and what had been dropped
// before.
func (p *memoryPair) datagram(t testing.TB) (arrived chan bool, drops string, done func()) {
	t.Helper()
	addr, proto := p.b.full(false, 9000)
	l, err := gonet.DialUDP(p.b.stack, &addr, nil, proto)
	if err != nil {
		t.Fatal(err)
	}
	c, err := gonet.DialUDP(p.a.stack, nil, &addr, proto)
	if err != nil {
		t.Fatal(err)
	}
	drops = dropsOf(p.boxA) + dropsOf(p.boxB)
	if _, err := c.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	arrived = make(chan bool, 1)
	go func() {
		_, _, err := l.ReadFrom(make([]byte, 10))
		arrived <- err == nil
	}()
	return arrived, drops, func() {
		_ = c.Close()
		_ = l.Close()
	}
}

func TestR45_TheListingStartsAndProtects(t *testing.T) {
	for _, c := range []struct {
		name, alg string
		want      []uint8
	}{
		{"md5 over crypt", "", []uint8{wire.ProtoAH}},
		{"crypt", "04", []uint8{wire.ProtoESP}},
		{"crypt3", "05", []uint8{wire.ProtoESP}},
		{"tcrypt", "06", []uint8{wire.ProtoESP}},
		{"crypt3in", "08", []uint8{wire.ProtoESP}},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := keysOfTheTime()
			if c.alg != "" {
				files["km/sauser"] = "192.0.2.1/192.0.2.2 0x1001\n192.0.2.2/192.0.2.1 0x2001\n"
				files["km/alg"] = fmt.Sprintf("0x1001/192.0.2.2 %s\n0x2001/192.0.2.1 %[1]s\n", c.alg)
			}
			p := graphPair(t, graphFolder(t, ancestor(t), files))
			p.transfer(t, false, 200<<10)
			if !p.arrives(t) {
				t.Error("a datagram is lost")
			}
			seen := p.wire.protocols()
			if got := slices.Sorted(maps.Keys(seen)); !slices.Equal(got, c.want) {
				t.Errorf("IP protocols on the wire: %v", seen)
			}
			s := p.boxA.Status()
			if s.InsecureSAs == 0 {
				t.Error("status does not tell of insecure SAs")
			}
		})
	}
}

func TestR45_TheListingWithoutKeysDropsAll(t *testing.T) {
	p := graphPair(t, graphFolder(t, ancestor(t), nil))
	if !p.dropped(t) || p.boxA.Status().Drops["no_policy"] == 0 {
		t.Errorf("drops: %s", dropsOf(p.boxA))
	}
}

func TestR45_WithoutIPsecNodesItForwardsInTheClear(t *testing.T) {
	path := graphFolder(t, `@;
name=ethkern; name=ethdev;
name=eth/1 protocols=ethdev; name=arp/1 protocols=eth/1;
name=eth/0 protocols=ethkern; name=arp/0 protocols=eth/0;
name=vnet protocols=eth/0,arp/0,eth/1,arp/1;
name=ip protocols=vnet;
name=ipf_tcp protocols=ip;
name=ipf_icmp protocols=ip;
@;
`, nil)
	p := graphPair(t, path)
	p.transfer(t, false, 200<<10)
	p.transfer(t, true, 200<<10)
	if seen := p.wire.protocols(); len(seen) != 1 || seen[6] == 0 {
		t.Errorf("IP protocols on the wire: %v", seen)
	}
	if !p.dropped(t) {
		t.Error("UDP is forwarded, and there is no ipf_udp")
	}
}

func TestR44_KeysChangeWhileItRuns(t *testing.T) {
	p := graphPair(t, graphFolder(t, ancestor(t), keysOfTheTime()))
	both := func(f func(*Appliance) error) {
		t.Helper()
		for _, box := range []*Appliance{p.boxA, p.boxB} {
			if err := f(box); err != nil {
				t.Fatal(err)
			}
		}
	}
	expect := func(want bool, after string) {
		t.Helper()
		ok := p.dropped
		if want {
			ok = p.arrives
		}
		if !ok(t) {
			t.Fatalf("after %s a datagram is to arrive: %v; A %s, B %s", after, want, dropsOf(p.boxA), dropsOf(p.boxB))
		}
	}
	drops := func(reason string) uint64 { return p.boxA.Status().Drops[reason] + p.boxB.Status().Drops[reason] }
	const md5, crypt = "km/md5/0x1002/192.0.2.2", "km/crypt/0x1001/192.0.2.2"
	expect(true, "the start")
	if err := p.boxA.InvalidateKey(md5); err != nil {
		t.Fatal(err)
	}
	expect(false, "invalidating")
	if drops("key_invalid") != 1 {
		t.Errorf("drops: %s", dropsOf(p.boxA))
	}
	if err := p.boxA.SetKey(md5, "000102030405060708090a0b0c0d0e0f"); err != nil {
		t.Fatal(err)
	}
	expect(true, "setting the same key")
	if err := p.boxA.SetKey(md5, "aa0102030405060708090a0b0c0d0e0f"); err != nil {
		t.Fatal(err)
	}
	expect(false, "setting another at one end")
	if drops("icv") != 1 {
		t.Errorf("drops: %s", dropsOf(p.boxB))
	}
	if err := p.boxB.SetKey(md5, "aa0102030405060708090a0b0c0d0e0f"); err != nil {
		t.Fatal(err)
	}
	expect(true, "setting it at the other")
	both(func(a *Appliance) error { return a.ClearKey(crypt) })
	expect(false, "clearing")
	both(func(a *Appliance) error { return a.SetKey(crypt, "1122334455667788") })
	expect(true, "setting after clearing")

	// The managers that say what is protected and how are changed in the same way.
	const pair = "km/sauser/192.0.2.1/192.0.2.2"
	both(func(a *Appliance) error { return a.InvalidateKey(pair) })
	expect(false, "invalidating the pair")
	both(func(a *Appliance) error { return a.SetKey(pair, `""`) })
	expect(true, "setting bypass")
	both(func(a *Appliance) error { return a.SetKey(pair, "0x0") })
	expect(false, "setting the sink")
	both(func(a *Appliance) error { return a.SetKey("km/alg/0x1003/192.0.2.2", "05") })
	both(func(a *Appliance) error {
		return a.SetKey("km/crypt3/0x1003/192.0.2.2", "00112233445566778899aabbccddeeff")
	})
	both(func(a *Appliance) error { return a.SetKey(pair, "0x1003") })
	expect(true, "setting a new SA")
	if st := p.boxA.Status(); !slices.ContainsFunc(st.SAs, func(s SAStatus) bool { return s.Name == "crypt3/0x00001003/192.0.2.2" && s.Packets == 1 }) {
		t.Errorf("SAs: %+v", st.SAs)
	}
	both(func(a *Appliance) error { return a.ClearKey(pair) })
	expect(false, "clearing the pair")
}

func TestR44_WhatCannotBeSetChangesNothing(t *testing.T) {
	p := graphPair(t, graphFolder(t, ancestor(t), keysOfTheTime()))
	before, err := p.boxA.Keys(true)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, value, want string }{
		{"km/md5/0x1002/192.0.2.2", "0011", "a key of km/md5 has 16 octets, found 2"},
		{"km/md5/0x1002/192.0.2.2", "secret", "not hexadecimal"},
		{"km/nobody/0x1002/192.0.2.2", "0011", "no key manager has a key"},
		{"km/sauser/192.0.2.1/192.0.2.2", "0x1009", "has no valid slot of rfc1825 in km/alg"},
		{"km/alg/0x1001/192.0.2.2", "00", "is to use slot 0 of rfc1825, which holds no transform"},
		{"km/crypt/0x1001/192.0.2.2", "0101010101010101", "the key cannot be changed: key of SPI 0x00001001 to 192.0.2.2: desiv32: "},
	} {
		err := p.boxA.SetKey(c.name, c.value)
		if !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %s: %v, expected %s", c.name, c.value, err, c.want)
		}
	}
	after, err := p.boxA.Keys(true)
	if err != nil || !slices.Equal(before, after) {
		t.Errorf("keys changed: %v, %v", after, err)
	}
	if !p.arrives(t) {
		t.Error("a datagram is lost")
	}
	hidden, err := p.boxA.Keys(false)
	if err != nil || strings.Contains(fmt.Sprint(hidden), "0123456789abcdef") || !strings.Contains(fmt.Sprint(after), "0123456789abcdef") {
		t.Errorf("values: %v, %v", hidden, err)
	}
}

func TestR44_KeysOfAConfigurationChangeToo(t *testing.T) {
	cfg := protectAll(t)
	p := newMemoryPair(t, cfg, mirror(cfg))
	if err := p.boxA.InvalidateKey("ab"); err != nil {
		t.Fatal(err)
	}
	if !p.dropped(t) {
		t.Error("a datagram arrives by an invalid key")
	}
	for _, box := range []*Appliance{p.boxA, p.boxB} {
		if err := box.SetKey("ab", strings.Repeat("0123456789", 4)); err != nil {
			t.Fatal(err)
		}
	}
	if !p.arrives(t) {
		t.Errorf("a datagram is lost: %s %s", dropsOf(p.boxA), dropsOf(p.boxB))
	}
	if err := p.boxA.ClearKey("ab"); err != nil {
		t.Fatal(err)
	}
	list, err := p.boxA.Keys(true)
	if want := "[{ab empty 20 } {ba valid 20 } {ab6 valid 64 } {ba6 valid 64 }]"; err != nil || fmt.Sprint(list) != want {
		t.Errorf("keys %v, %v", list, err)
	}
	for _, c := range []struct{ name, value string }{{"ab", "00"}, {"ab", "00 11"}, {"ab6", "00"}, {"nobody", "00"}, {"ab", "xx"}} {
		if err := p.boxA.SetKey(c.name, c.value); !errors.Is(err, ErrKey) {
			t.Errorf("%s %q: %v", c.name, c.value, err)
		}
	}
}

func TestR38_R45_AGraphAllowsWhatItNames(t *testing.T) {
	cfg, _, err := LoadGraph(graphFolder(t, ancestor(t), nil), host4("192.0.2.1"))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"kpdkmd5", "desiv32", "desiv64", "3des112iv64", "3des168iv64", "desctsiv32", "desctsiv64", "3desin112iv64", "3desin168iv64"}; !slices.Equal(cfg.AllowInsecure, want) {
		t.Errorf("allowed: %v", cfg.AllowInsecure)
	}
	for _, name := range cfg.AllowInsecure {
		_, espErr := algorithms().Lookup(transform.ProtoESP, name)
		_, ahErr := algorithms().Lookup(transform.ProtoAH, name)
		if espErr != nil && ahErr != nil {
			t.Errorf("%s: %v, %v", name, espErr, ahErr)
		}
	}
	_, err = FromGraph(graphFolder(t, ancestor(t), nil))
	if !errors.Is(err, graphcomp.ErrNoInterface) {
		t.Errorf("without an interface: %v", err)
	}
	var errs config.Errors
	_, err = FromGraph(graphFolder(t, "@;name=x;@;", nil), host4("192.0.2.1"))
	if !errors.As(err, &errs) {
		t.Errorf("of a wrong graph: %v", err)
	}
}

func TestR45_AGraphOfIPv6(t *testing.T) {
	graph := strings.NewReplacer("kmparams 8 0-100 100", "kmparams 32 0-100 100", "kmparams 8 16 16", "kmparams 20 16 16",
		"km/crypt\t\tkmparams 8 8 10", "km/crypt\t\tkmparams 20 8 10").Replace(ancestor(t))
	files := make(map[string]string)
	for name, text := range keysOfTheTime() {
		if !strings.HasPrefix(name, "km/crypt3") && name != "km/tcrypt" {
			files[name] = strings.NewReplacer("192.0.2.", "2001:db8::", "kmparams 8 16 16\n", "").Replace(text)
		}
	}
	files["km/alg"] = "kmparams 20 1 100\n" + files["km/alg"]
	path := graphFolder(t, graph, files)
	host := func(a string) Option {
		return WithLinks(nil, nil, Host{MAC: []byte{2, 0, 0, 0, 0, 1}, Addresses: []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr(a), 64)}})
	}
	cfgA, knownA, err := LoadGraph(path, host("2001:db8::1"))
	if err != nil {
		t.Fatal(err)
	}
	cfgB, knownB, err := LoadGraph(path, host("2001:db8::2"))
	if err != nil {
		t.Fatal(err)
	}
	p := newMemoryPair(t, cfgA, cfgB, knownA, knownB)
	p.transfer(t, true, 100<<10)
	if seen := p.wire.protocols(); len(seen) != 1 || seen[wire.ProtoAH] == 0 {
		t.Errorf("IP protocols on the wire: %v", seen)
	}
	if _, ok := cfgA.Policy("ipf_icmpv6/2001:db8::1/2001:db8::2"); !ok {
		t.Error("there is no policy for ICMPv6")
	}
}

// A key of another length may be one of another algorithm, which makes another SA of the
// same name.
func TestR44_AKeyOfAnotherLengthTakesAnotherAlgorithm(t *testing.T) {
	graph := strings.Replace(ancestor(t), "km/crypt3\tkmparams 8 16 10", "km/crypt3\tkmparams 8 16-24 10", 1)
	files := keysOfTheTime()
	files["km/sauser"] = "192.0.2.1/192.0.2.2 0x1001\n"
	files["km/alg"] = "0x1001/192.0.2.2 05\n"
	p := graphPair(t, graphFolder(t, graph, files))
	algorithm := func() string { return p.boxA.Status().SAs[0].Algorithm }
	if !p.arrives(t) || algorithm() != "3des112iv64" {
		t.Fatalf("%s: %s", algorithm(), dropsOf(p.boxB))
	}
	for _, x := range []struct{ key, want string }{
		{strings.Repeat("0123456789abcdef", 1) + "00112233445566771133557799bbddff", "3des168iv64"},
		{"0123456789abcdef0011223344556677", "3des112iv64"},
	} {
		for _, box := range []*Appliance{p.boxA, p.boxB} {
			if err := box.SetKey("km/crypt3/0x1001/192.0.2.2", x.key); err != nil {
				t.Fatal(err)
			}
		}
		if !p.arrives(t) || algorithm() != x.want {
			t.Errorf("%s, expected %s: %s %s", algorithm(), x.want, dropsOf(p.boxA), dropsOf(p.boxB))
		}
	}
	if err := p.boxA.SetKey("km/crypt3/0x1001/192.0.2.2", strings.Repeat("01", 20)); !errors.Is(err, ErrKey) {
		t.Errorf("a key of 20 octets: %v", err)
	}
}

// Every transform of package legacy can stand in a graph.
func TestR45_EveryPlugInIsANode(t *testing.T) {
	for _, name := range legacy.PlugInNames() {
		if _, err := graphcomp.Parse("g", []byte(strings.Replace(ancestor(t), "name=sink;", "name=sink;name=km/x;name="+name+"/x protocols=km/x;", 1))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if list, err := suites(name, nil); err != nil || len(list) == 0 {
			t.Errorf("%s: %v, %v", name, list, err)
		}
	}
}

// Keys, SAs and policies come and go under traffic.
func TestR44_KeysChangeUnderTraffic(t *testing.T) {
	p := graphPair(t, graphFolder(t, ancestor(t), keysOfTheTime()))
	ended := make(chan struct{})
	var changing sync.WaitGroup
	changing.Add(1)
	go func() {
		defer changing.Done()
		for i := 0; ; i++ {
			select {
			case <-ended:
				return
			default:
			}
			for n, box := range []*Appliance{p.boxA, p.boxB} {
				// A third host's SA and policies come, and go again.
				third := fmt.Sprintf("192.0.2.%d", 10+i%40)
				alg, pair := "km/alg/0x1009/"+third, fmt.Sprintf("km/sauser/192.0.2.%d/%s", n+1, third)
				err := errors.Join(box.SetKey(alg, "05"), box.SetKey(pair, "0x1009"), box.SetKey("km/crypt3/0x1009/"+third, "0123456789abcdef0011223344556677"),
					box.InvalidateKey("km/crypt3/0x1009/"+third), box.ClearKey(pair), box.ClearKey(alg), box.ClearKey("km/crypt3/0x1009/"+third))
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := box.Keys(i%3 == 0); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	p.transfer(t, false, 1<<20)
	close(ended)
	changing.Wait()
}
