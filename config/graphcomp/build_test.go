package graphcomp

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bitw/config"
)

// files stand for the folder of a graph.
type files map[string]string

func (f files) read(path string) ([]byte, fs.FileMode, error) {
	rel, err := filepath.Rel("/g", path)
	if err != nil {
		return nil, 0, err
	}
	text, ok := f[rel]
	if !ok {
		return nil, 0, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	mode := fs.FileMode(0o600)
	if m, rest, ok := strings.Cut(text, "|mode|"); ok {
		if _, err := fmt.Sscanf(m, "%o", &mode); err != nil {
			return nil, 0, err
		}
		text = rest
	}
	return []byte(text), mode, nil
}

// fakeTransform has suites of the right key lengths.
func fakeTransform(name string, options []string) ([]Suite, error) {
	switch name {
	case "md5":
		return []Suite{{config.AH, strings.Join(append([]string{"md5"}, options...), "+"), 16, []string{"md5"}}}, nil
	case "crypt3", "crypt3in":
		return []Suite{{config.ESP, name + "-112", 16, []string{"3des"}}, {config.ESP, name + "-168", 24, []string{"3des"}}}, nil
	}
	return []Suite{{config.ESP, name + "iv32", 8, []string{"des"}}, {config.ESP, name + "iv64", 8, []string{"des"}}}, nil
}

var ownA, peerB = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")

// a folder with keys for the listing.
func keyed(t testing.TB) files {
	return files{
		"graph.comp": listing(t),
		"km/sauser": `kmparams 8 0-100 100
192.0.2.1/192.0.2.2  0x1001/0x1002   # crypt, then md5 outside of it
c0000202c0000201     0x2001/0x2002
192.0.2.3/192.0.2.4  0x1001          # of two other hosts
192.0.2.1/192.0.2.5  ""
192.0.2.1/192.0.2.6  0x0
192.0.2.1/192.0.2.7  0x1001 invalid
192.0.2.1/192.0.2.8  - empty
`,
		"km/b": "192.0.2.9 0x3001\n192.0.2.1 0x3002\n",
		"km/alg": `0x1001/192.0.2.2 04
0x1002/192.0.2.2 02
0x2001/192.0.2.1 04
0x2002/192.0.2.1 07
0x3001/192.0.2.9 05
0x3002/192.0.2.1 06
`,
		"km/md5": `kmparams 8 16 16
0x1002/192.0.2.2 000102030405060708090a0b0c0d0e0f
0x2002/192.0.2.1 0f0102030405060708090a0b0c0d0e0f invalid
`,
		"km/crypt":  "0x1001/192.0.2.2 0x0123456789abcdef\n",
		"km/crypt3": "0x3001/192.0.2.9 00112233:44556677:8899aabb:ccddeeff\n",
	}
}

func (f files) build(opt BuildOptions) (*Graph, *Plan, error) {
	g, err := Load("/g/graph.comp", f.read)
	if err != nil {
		return nil, nil, err
	}
	k, err := g.Keys(f.read)
	if err != nil {
		return g, nil, err
	}
	if opt.Transform == nil {
		opt.Transform = fakeTransform
	}
	p, err := g.Build(k, opt)
	return g, p, err
}

func TestR44_R45_KeyFilesBecomeSAsAndPolicies(t *testing.T) {
	_, p, err := keyed(t).build(BuildOptions{Interface: "eth0", Addresses: []netip.Addr{ownA}})
	if err != nil {
		t.Fatal(err)
	}
	var sas, policies []string
	for _, s := range p.SAs {
		key := s.EncryptionKey.Len() + s.IntegrityKey.Len()
		sas = append(sas, fmt.Sprintf("%s %s %s %s %s from %v, key %d", s.Name, s.Direction, s.Protocol, s.Mode, s.Algorithm, s.Source, key))
	}
	want := []string{
		"crypt/0x00001001/192.0.2.2 out esp transport cryptiv32 from 192.0.2.1, key 8",
		"md5/0x00001002/192.0.2.2 out ah transport md5+useipsec+leafmode+rfc1828 from 192.0.2.1, key 16",
		"crypt/0x00002001/192.0.2.1 in esp transport cryptiv32 from 192.0.2.2, key 0",
		"md5/0x00002002/192.0.2.1 in ah transport md5+useipsec+leafmode+rfc1828 from 192.0.2.2, key 16",
		"crypt3/0x00003001/192.0.2.9 out esp transport crypt3-112 from 192.0.2.1, key 16",
		"tcrypt/0x00003002/192.0.2.1 in esp transport tcryptiv32 from invalid IP, key 0",
	}
	if a, b := strings.Join(sas, "\n"), strings.Join(want, "\n"); a != b {
		t.Errorf("SAs:\n%s\nexpected:\n%s", a, b)
	}
	for _, x := range p.Policies {
		if *x.Protocol == 6 {
			policies = append(policies, fmt.Sprintf("%s %s %s %v %v", x.Name, x.Direction, x.Action, x.Out, x.In))
		}
	}
	want = []string{
		"ipf_tcp/192.0.2.1/192.0.2.2 both protect [crypt/0x00001001/192.0.2.2 md5/0x00001002/192.0.2.2] [crypt/0x00002001/192.0.2.1 md5/0x00002002/192.0.2.1]",
		"ipf_tcp/192.0.2.1/192.0.2.5/out out bypass [] []",
		"ipf_tcp/192.0.2.1/192.0.2.6/out out discard [] []",
		"ipf_tcp/192.0.2.1/192.0.2.7/out out discard [] []",
		"ipf_tcp/to/192.0.2.9/out out protect [crypt3/0x00003001/192.0.2.9] []",
		"ipf_tcp/to/192.0.2.1/in in protect [] [tcrypt/0x00003002/192.0.2.1]",
	}
	if a, b := strings.Join(policies, "\n"), strings.Join(want, "\n"); a != b {
		t.Errorf("policies of TCP:\n%s\nexpected:\n%s", a, b)
	}
	if len(p.Policies) != 3*len(want) {
		t.Errorf("%d policies for 3 forwarders", len(p.Policies))
	}
	if s := strings.Join(p.Invalid, ","); s != "md5/0x00002002/192.0.2.1" {
		t.Errorf("invalid: %s", s)
	}
	if s := strings.Join(p.Insecure, ","); s != "md5,des,3des" {
		t.Errorf("insecure: %s", s)
	}
	if s := fmt.Sprintf("%v %+v", p.SAs, p); strings.Contains(s, "123456789abcdef") {
		t.Error("a key is printed")
	}
}

func TestR44_WrongKeysHaveFileAndLine(t *testing.T) {
	for _, c := range []struct{ name, file, text, want string }{
		{"short key", "km/md5", "kmparams 8 16 16\n\n0x1002/192.0.2.2 0011223344", "/g/km/md5:3:18: key of 0x00001002/192.0.2.2: a key of km/md5 has 16 octets, found 5"},
		{"long key", "km/crypt", "0x1001/192.0.2.2 00112233445566778899", "/g/km/crypt:1:18: key of 0x00001001/192.0.2.2: a key of km/crypt has 8 octets, found 10"},
		{"short address", "km/md5", "0x1002 00112233445566778899aabbccddeeff", "/g/km/md5:1:1: address: an address of km/md5 has 8 octets, found 4"},
		{"odd digits", "km/crypt", "0x1001/192.0.2.2 001122334455667", "/g/km/crypt:1:18: key of 0x00001001/192.0.2.2: an odd number of hexadecimal digits"},
		{"no hex", "km/crypt", "0x1001/192.0.2.2 secretse", "not hexadecimal"},
		{"other kmparams", "km/crypt", "kmparams 8 8 11", "/g/km/crypt:1:1: kmparams 8 8 11, and the romopt of km/crypt in line 60 of /g/graph.comp says 8 8 10"},
		{"bad kmparams", "km/crypt", "kmparams 8 8", "kmparams takes 3 words, found 2"},
		{"kmparams of another", "km/alg", "kmparams 9 1 100", "/g/km/alg:1:1: an address of km/alg is an SPI and a destination, of 8 or 20 octets, and kmparams says 9"},
		{"full map", "km/md5", "kmparams 8 16 16\n" + many(17), "/g/km/md5:18:18: key of 0x00001010/192.0.2.2: km/md5: the map is full: kmparams allows 16 keys"},
		{"twice", "km/crypt", "0x1001/192.0.2.2 0011223344556677\n00001001c0000202 0011223344556677", "/g/km/crypt:2:1: 0x00001001/192.0.2.2 has a key in line 1 already"},
		{"state", "km/crypt", "0x1001/192.0.2.2 0011223344556677 void", "unknown state of a key"},
		{"words", "km/crypt", "0x1001/192.0.2.2", "expected 2 or 3 words, found 1"},
		{"readable", "km/crypt", "644|mode|", "/g/km/crypt: a file of keys with mode 0644"},
		{"writable", "km/sauser", "666|mode|", "group or others may change this file"},
		{"no slot", "km/sauser", "192.0.2.1/192.0.2.2 0x1009", "/g/km/sauser:1:21: SPI 0x00001009 to 192.0.2.2 has no valid slot"},
		{"slot of a manager", "km/alg", "0x1001/192.0.2.2 01\n0x1002/192.0.2.2 02\n0x2001/192.0.2.1 04\n0x2002/192.0.2.1 07\n0x3001/192.0.2.9 05\n0x3002/192.0.2.1 06", "/g/km/alg:1:18: SPI 0x00001001 to 192.0.2.2 is to use slot 1 of rfc1825, which holds no transform; transforms are in 2 (md5), 3 (md5), 4 (crypt)"},
		{"reserved SPI", "km/sauser", "192.0.2.1/192.0.2.2 0x10", "SPI 0x10 is reserved"},
		{"twice in a list", "km/sauser", "192.0.2.1/192.0.2.2 0x1001/0x1001", "stands twice"},
		{"two sources", "km/sauser", "192.0.2.2/192.0.2.1 0x2001\n192.0.2.3/192.0.2.1 0x2001", "protects what comes from 192.0.2.2 already"},
		{"odd list", "km/sauser", "192.0.2.1/192.0.2.2 001001", "a list of SPIs has a multiple of 4 octets, found 3"},
		{"to itself", "km/sauser", "192.0.2.1/192.0.2.1 0x1001", "from this host to itself"},
		{"writable graph", "graph.comp", "664|mode|" + listing(t), "group or others may change the graph, its mode is 0664; chmod go-w /g/graph.comp"},
		{"no text", "km/crypt", "\x00", "not a text file"},
		{"rom", "rom", "romopt init on_failure open;\nname=sink;", "/g/rom:2:1: a rom has romopts only"},
		{"rom option", "rom", "romopt watchdog timeout 1ms;", `/g/rom:1:25: "1ms" is not a time from 1s to 1h`},
		{"neighbour twice", "rom", "romopt arp/1 static 192.0.2.9 2:0:0:0:0:9;\nromopt arp/1 locked 192.0.2.9 02:00:00:00:00:08;", "is not an Ethernet address"},
		{"prottbl words", "prottbl", "ipf_tcp", "/g/prottbl:1:1: a line has two words"},
		{"prottbl unknown", "prottbl", "ipf_tpc 6", `unknown protocol "ipf_tpc"; did you mean "ipf_tcp"?`},
		{"prottbl fixed", "prottbl", "ip 0x806", "ip has a number that cannot change"},
		{"prottbl esp", "prottbl", "ipf_udp 50", "ipf_udp cannot forward protocol 50"},
		{"prottbl twice", "prottbl", "ipf_udp 6", "both forward protocol 6"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := keyed(t)
			f[c.file] = c.text
			_, _, err := f.build(BuildOptions{Interface: "eth0", Addresses: []netip.Addr{ownA}})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v\nexpected %s", err, c.want)
			}
			var errs config.Errors
			if !errors.As(err, &errs) {
				t.Fatalf("a %T", err)
			}
			for _, e := range errs {
				if strings.Contains(e.Text(), "00112233") || strings.Contains(e.Text(), "secretse") {
					t.Errorf("a key is shown: %s", e.Text())
				}
			}
		})
	}
}

func many(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "0x%x/192.0.2.2 000102030405060708090a0b0c0d0e%02x\n", 0x1000+i, i)
	}
	return b.String()
}

func TestR45_RomOptSetsThePartsOptions(t *testing.T) {
	f := keyed(t)
	f["rom"] = `romopt ethdev interface eth7;
romopt vnet address 192.0.2.1; romopt vnet mtu 1400;
romopt watchdog timeout 9s;
romopt arp/1 static 192.0.2.9 02:00:00:00:00:09;   # of the wire
romopt arp/1 locked 192.0.2.8 02:00:00:00:00:08;
romopt ip gateway 192.0.2.254; romopt ip route 198.51.100.0/24;
romopt init on_failure open; romopt init control c.sock; romopt init state_dir /s; romopt init log_level debug;
romopt crypt iv64;
`
	f["prottbl"] = "# changed\nipf_tcp 132\narp 0x0806\n"
	g, p, err := f.build(BuildOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := &p.Config
	if c.Interface != "eth7" || c.MTU != 1400 || c.Watchdog != 9*time.Second || c.OnFailure != config.Open ||
		c.Control != "/g/c.sock" || c.StateDir != "/s" || c.LogLevel != "debug" || c.Neighbors != config.Relay {
		t.Errorf("settings: %+v", c)
	}
	if len(c.StaticNeighbors) != 2 || c.StaticNeighbors[1].MAC.String() != "02:00:00:00:00:08" {
		t.Errorf("neighbours: %v", c.StaticNeighbors)
	}
	if len(c.Routes) != 2 || c.Routes[0].Destination.String() != "0.0.0.0/0" || c.Routes[0].Via.String() != "192.0.2.254" || c.Routes[1].Via.IsValid() {
		t.Errorf("routes: %v", c.Routes)
	}
	if c.SAs[0].Algorithm != "cryptiv64" {
		t.Errorf("crypt does %s", c.SAs[0].Algorithm)
	}
	for _, x := range c.Policies {
		if strings.HasPrefix(x.Name, "ipf_tcp/") && *x.Protocol != 132 {
			t.Errorf("%s is for protocol %d", x.Name, *x.Protocol)
		}
	}
	if name, err := g.Interface(); err != nil || name != "eth7" {
		t.Errorf("interface %q, %v", name, err)
	}
	if g := mustParse(t, plain); g != nil {
		if _, err := g.Interface(); !errors.Is(err, ErrNoInterface) {
			t.Errorf("without an interface: %v", err)
		}
	}
}

func TestR44_AKeyIsEmptyValidOrInvalid(t *testing.T) {
	m, err := newKeyMap("km/md5", Params{8, 2, 4, 2})
	if err != nil {
		t.Fatal(err)
	}
	at := []byte{0, 0, 0x10, 1, 192, 0, 2, 2}
	state := func(want State, value string) {
		t.Helper()
		if k := m.Resolve(at); k.State != want || string(k.Value.Bytes()) != value {
			t.Fatalf("%v %q, expected %v %q", k.State, k.Value.Bytes(), want, value)
		}
	}
	state(Empty, "")
	if err := m.Invalidate(at); !errors.Is(err, ErrNoKey) {
		t.Fatal(err)
	}
	for _, c := range []struct {
		address []byte
		value   string
	}{{at, "1"}, {at, "12345"}, {at[:7], "12"}} {
		if m.Set(c.address, []byte(c.value)) == nil {
			t.Errorf("key %q of %d octets is taken", c.value, len(c.address))
		}
	}
	state(Empty, "")
	if err := m.Set(at, []byte("123")); err != nil {
		t.Fatal(err)
	}
	state(Valid, "123")
	before := m.clone()
	if err := m.Invalidate(at); err != nil {
		t.Fatal(err)
	}
	state(Invalid, "123")
	if before.Resolve(at).State != Valid {
		t.Error("a clone changes with the map")
	}
	if err := m.Set(at, []byte("45")); err != nil {
		t.Fatal(err)
	}
	state(Valid, "45")
	if err := m.Set([]byte("12345678"), []byte("12")); err != nil {
		t.Fatal(err)
	}
	if err := m.Set([]byte("12345679"), []byte("12")); !errors.Is(err, ErrMapFull) {
		t.Fatalf("a third of two keys: %v", err)
	}
	if err := m.Clear(at); err != nil {
		t.Fatal(err)
	}
	state(Empty, "")
}

func TestOctets(t *testing.T) {
	for text, want := range map[string]string{
		`""`: "", "00ff": "00ff", "0x0011223344": "0011223344", "0x1/192.0.2.1": "00000001c0000201", "aa:bb_cc": "aabbcc",
		"2001:db8::1": "20010db8000000000000000000000001", "c0000201/0x2": "c000020100000002", "0": "error", "xx": "error", "": "error", "0x": "error", "0xzz": "error",
	} {
		b, err := Octets(text)
		got := fmt.Sprintf("%x", b)
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%q: %s, expected %s", text, got, want)
		}
	}
}

func TestNamesOfKeys(t *testing.T) {
	f := keyed(t)
	g, _, err := f.build(BuildOptions{Addresses: []netip.Addr{ownA}})
	if err != nil {
		t.Fatal(err)
	}
	k, err := g.Keys(f.read)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range k.Maps() {
		for _, x := range m.Keys() {
			name := m.Manager + "/" + m.AddressText(x.Address)
			found, address, err := k.Find(name)
			if err != nil || found != m || string(address) != string(x.Address) {
				t.Errorf("%s is not found: %v", name, err)
			}
			b, err := m.ValueOctets(m.ValueText(x.Value))
			if err != nil || string(b) != string(x.Value.Bytes()) {
				t.Errorf("the value of %s is not read as written: %v", name, err)
			}
		}
	}
	for _, name := range []string{"km/md5", "km/md5/192.0.2.1", "km/nobody/0x1/192.0.2.1", "x"} {
		if _, _, err := k.Find(name); err == nil {
			t.Errorf("%s is found", name)
		}
	}
}

func FuzzKeys(f *testing.F) {
	for _, name := range []string{"km/sauser", "km/alg", "km/md5", "km/crypt"} {
		f.Add(keyed(f)[name])
	}
	text := listing(f)
	f.Fuzz(func(t *testing.T, data string) {
		for _, name := range []string{"km/sauser", "km/b", "km/alg", "km/md5", "rom", "prottbl"} {
			fs := keyed(t)
			fs["graph.comp"], fs[name] = text, data
			_, p, err := fs.build(BuildOptions{Interface: "eth0", Addresses: []netip.Addr{ownA, peerB}})
			var errs config.Errors
			if err != nil && !errors.As(err, &errs) {
				t.Fatalf("a %T: %v", err, err)
			}
			if (p == nil) == (err == nil) {
				t.Fatal("neither a plan nor an error")
			}
		}
	})
}
