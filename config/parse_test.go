package config

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite testdata/errors.txt with what is found")

// TestErrors compares all that is reported about each file of testdata/errors.txt,
// character by character. A section is a name, a file, optional key files behind
// "--- file NAME", and behind "--- report" what has to be reported.
func TestErrors(t *testing.T) {
	const path = "testdata/errors.txt"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	sections := strings.Split(string(data), "=== ")
	out.WriteString(sections[0])
	for _, section := range sections[1:] {
		name, rest, _ := strings.Cut(section, "\n")
		input, want, ok := strings.Cut(rest, "--- report\n")
		if !ok {
			t.Fatalf("section %s without --- report", name)
		}
		parts := strings.Split(strings.NewReplacer("{TAB}", "\t", "{CR}", "\r", "{NUL}", "\x00", "{FF}", "\xff").Replace(input), "--- file ")
		files := make(map[string]string)
		for _, p := range parts[1:] {
			n, text, _ := strings.Cut(p, "\n")
			files[n] = text
		}
		report := "\n"
		t.Run(name, func(t *testing.T) {
			_, warnings, err := Parse("bitw.yaml", []byte(parts[0]), testOptions(files))
			if err != nil {
				report = err.(Errors).Text() + "\n"
			}
			if len(warnings) > 0 {
				report = strings.TrimLeft(strings.TrimSuffix(report, "\n")+warnings.Text()+"\n", "\n")
			}
			if !*update {
				if d := cmp.Diff(want, report); d != "" {
					t.Errorf("report differs (-want +got):\n%s", d)
				}
			}
		})
		out.WriteString("=== " + name + "\n" + input + "--- report\n" + report)
	}
	if *update {
		if err := os.WriteFile(path, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestExample proves that the example of the package comment is Example, parses
// without a warning and holds every key.
func TestExample(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for l := range strings.Lines(string(doc)) {
		if l == "//\n" && b.Len() > 0 {
			break
		}
		if rest, ok := strings.CutPrefix(l, "//\t"); ok {
			b.WriteString(rest)
		}
	}
	if d := cmp.Diff(Example(), b.String()); d != "" {
		t.Errorf("Example and the package comment differ:\n%s", d)
	}
	c, w := mustParse(t, Example(), map[string]string{"keys/b.key": exampleKeys})
	if len(w) > 0 {
		t.Errorf("warnings:\n%s", w.Text())
	}
	tcp, icmp, mh := uint8(6), uint8(1), uint8(135)
	a := netip.MustParseAddr
	want := &Config{
		Interface: "eth0", OnFailure: Shut, Control: "/run/bitw/eth0.sock", ControlGroup: "adm", ControlAdminGroup: "root",
		Metrics: netip.MustParseAddrPort("127.0.0.1:9469"), StateDir: "/var/lib/bitw", LogLevel: "info", ICMPErrors: ICMPAccept, Watchdog: 5 * time.Second, Confine: ConfineFull, MTU: 1500,
		Limits: Limits{8 << 20, 30 * time.Second, AcquireLimits{64, 256 << 10, 8 << 20, 10 * time.Second}},
		Classes: []Class{
			{Name: "dhcp", Action: Bypass}, {Name: "lldp", Action: Bypass}, {Name: "ethertype 0x8899", EtherType: 0x8899, Action: Discard}},
		Neighbors:       Proxy,
		StaticNeighbors: []Neighbor{{Address: a("192.0.2.9"), MAC: []byte{2, 0, 0, 0, 0, 9}}},
		Routes:          []Route{{Destination: netip.MustParsePrefix("198.51.100.0/24"), Via: a("192.0.2.254")}},
		SAs: []SA{
			{Name: "to-b", Direction: Out, Protocol: ESP, Mode: Transport, SPI: 0x1001, Source: a("192.0.2.1"), Destination: a("192.0.2.2"),
				Algorithm: "aes128gcm16", KeyFile: "keys/b.key", ReplayWindow: 64,
				EncryptionKey: NewSecret([]byte("\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff\xa0\xa1\xa2\xa3")),
				Lifetime:      Lifetime{4000000000, 64 << 30, 8 * time.Hour}, SoftLifetime: Lifetime{3900000000, 60 << 30, 7 * time.Hour}},
			{Name: "from-b", Direction: In, Protocol: ESP, Mode: Transport, SPI: 0x2001, Source: a("192.0.2.2"), Destination: a("192.0.2.1"),
				Algorithm: "aes128gcm16", KeyFile: "keys/b.key", ReplayWindow: 128,
				EncryptionKey: NewSecret([]byte("\xff\xee\xdd\xcc\xbb\xaa\x99\x88\x77\x66\x55\x44\x33\x22\x11\x00\xb0\xb1\xb2\xb3"))},
		},
		Policies: []Policy{
			{Name: "to-b", Direction: Both, Local: []AddressRange{{a("192.0.2.1"), a("192.0.2.1")}}, Remote: []AddressRange{{a("192.0.2.2"), a("192.0.2.2")}},
				Action: Protect, Out: []string{"to-b"}, In: []string{"from-b"}},
			{Name: "web", Direction: Both, Local: []AddressRange{{a("192.0.2.1"), a("192.0.2.1")}},
				Remote:   []AddressRange{{a("10.0.0.0"), a("10.255.255.255")}, {a("198.51.100.7"), a("198.51.100.9")}},
				Protocol: &tcp, LocalPorts: []PortRange{{1024, 65535}}, RemotePorts: []PortRange{{80, 80}, {443, 443}}, Action: Bypass},
			{Name: "ping", Direction: Both, Protocol: &icmp, ICMP: &ICMPRange{8, 8, 0, 0}, Action: Bypass},
			{Name: "mobility", Direction: Both, Protocol: &mh, MHTypes: []TypeRange{{1, 4}}, Action: Discard},
		},
	}
	ignore := cmp.FilterPath(func(p cmp.Path) bool { s := p.Last().String(); return s == ".Pos" || s == ".marks" }, cmp.Ignore())
	if d := cmp.Diff(want, c, ignore, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
		t.Errorf("the example means something else (-want +got):\n%s", d)
	}
	if p := c.SAs[1].Pos; p != (Position{"bitw.yaml", 45, 5}) {
		t.Errorf("expected from-b at bitw.yaml:45:5, found %v", p)
	}
	if e := c.ErrorAt("interface", "no interface eth0", "", nil).Error(); e != "bitw.yaml:1:12: no interface eth0" {
		t.Errorf("ErrorAt: %s", e)
	}
	if e := (&Config{}).ErrorAt("interface", "m", "h", nil).Error(); e != "m; h" {
		t.Errorf("ErrorAt of no file: %s", e)
	}
}

// TestKeyForms reads one key in each way that it may be written.
func TestKeyForms(t *testing.T) {
	want := NewSecret([]byte("\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff\xa0\xa1\xa2\xa3"))
	for _, form := range []string{
		"0x00112233445566778899aabbccddeeffa0a1a2a3",
		"00112233445566778899aabbccddeeffa0a1a2a3",
		`"00112233445566778899AABBCCDDEEFFA0A1A2A3"`,
		"00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff:a0:a1:a2:a3",
		"0x00112233_44556677_8899aabb_ccddeeff_a0a1a2a3",
		"00112233 44556677 8899aabb\n      ccddeeff a0a1a2a3",
		"|\n      00112233445566778899aabbccddeeff\n      a0a1a2a3",
	} {
		c, _ := mustParse(t, strings.Replace(pair, "0x00112233445566778899aabbccddeeffa0a1a2a3", form, 1), nil)
		if !c.SAs[0].EncryptionKey.Equal(want) {
			t.Errorf("%s: read as %x", form, c.SAs[0].EncryptionKey.Bytes())
		}
	}
	// A key of digits alone is a number to YAML, and a float to some.
	c, _ := mustParse(t, strings.Replace(pair, "0x00112233445566778899aabbccddeeffa0a1a2a3", "1234567890123456789012345678901234567e15", 1), nil)
	if b := c.SAs[0].EncryptionKey.Bytes(); b[0] != 0x12 || b[19] != 0x15 {
		t.Errorf("a key that looks like a number: %x", b)
	}
}

// TestDefaults is about what a short file leaves out.
func TestDefaults(t *testing.T) {
	c, _ := mustParse(t, "\uFEFFinterface: wan\r\npolicies:\r\n  - {name: all, action: bypass} # ü\r\n", nil)
	if c.OnFailure != Shut || c.Control != "/run/bitw/wan.sock" || c.StateDir != "/var/lib/bitw" || c.LogLevel != "info" {
		t.Errorf("defaults: %+v", c)
	}
	if p, ok := c.Policy("all"); !ok || p.Direction != Both || p.Local != nil || p.Protocol != nil {
		t.Errorf("defaults of a policy: %+v", p)
	}
	if _, ok := c.SA("none"); ok {
		t.Error("found an SA that is not there")
	}
	opt := testOptions(nil)
	opt.NoInterface = true
	if _, _, err := Parse("x", []byte("policies: []\n"), opt); err != nil {
		t.Error(err)
	}
	if _, w, err := Parse("x", []byte("policies: []\n"), opt); err != nil || len(w) != 1 {
		t.Errorf("expected one warning about no policies, found %v %v", w, err)
	}
}

// TestNoAlgorithms is a caller that cannot check key lengths.
func TestNoAlgorithms(t *testing.T) {
	if _, _, err := Parse("x", []byte(pair), Options{}); err != nil {
		t.Error(err)
	}
	without := strings.Replace(pair, "    encryption_key: 0x00112233445566778899aabbccddeeffa0a1a2a3\n", "", 1)
	if _, _, err := Parse("x", []byte(without), Options{}); err == nil || !strings.Contains(err.Error(), `x:3:5: security association "to-b" without a key`) {
		t.Errorf("an SA without keys: %v", err)
	}
	file := strings.Replace(pair, "encryption_key: 0x00112233445566778899aabbccddeeffa0a1a2a3", "key_file: a.key", 1)
	if _, _, err := Parse("x", []byte(file), Options{}); err == nil || !strings.Contains(err.Error(), `x:11:15: key files are not read here`) {
		t.Errorf("key_file without ReadFile: %v", err)
	}
}

// TestManyErrors bounds the report.
func TestManyErrors(t *testing.T) {
	text := "interface: eth0\npolicies:\n" + strings.Repeat("  - {zzzzzz: x, yyyyyy: y}\n", 3000)
	_, _, err := Parse("x", []byte(text), Options{})
	errs := err.(Errors)
	if len(errs) != maxErrors+1 || errs[maxErrors].Msg != fmt.Sprintf("%d more errors", 4*3000-maxErrors) {
		t.Errorf("%d errors, the last %v", len(errs), errs[len(errs)-1])
	}
	if got := reflect.TypeOf(errs.Unwrap()[0]).String(); got != "*config.Error" {
		t.Errorf("unwrapped to %s", got)
	}
}

// FuzzParse: no bytes make Parse panic, and what it accepts it accepts again in its
// redacted form but for the keys.
func FuzzParse(f *testing.F) {
	f.Add([]byte(Example()))
	f.Add([]byte(pair))
	if data, err := os.ReadFile("testdata/errors.txt"); err == nil {
		for _, section := range strings.Split(string(data), "=== ")[1:] {
			_, rest, _ := strings.Cut(section, "\n")
			input, _, _ := strings.Cut(rest, "--- ")
			f.Add([]byte(input))
		}
	}
	for _, s := range []string{"[", "- ", "{a: ", "a: ", "? ", "!a ", "&a ", "\"", "|\n", "%", "#\r\n", "- [", "a: {"} {
		f.Add([]byte(strings.Repeat(s, 2000)))
	}
	opt := testOptions(map[string]string{"keys/b.key": exampleKeys})
	f.Fuzz(func(t *testing.T, data []byte) {
		c, _, err := Parse("bitw.yaml", data, opt)
		if err != nil {
			for _, e := range err.(Errors) {
				if e.File != "bitw.yaml" && e.File != "keys/b.key" || e.Msg == "" || e.Line > 0 && e.Column < 1 {
					t.Errorf("error without a place: %#v", e)
				}
				_ = e.Text()
			}
			return
		}
		text := strings.ReplaceAll(c.Redacted(), hidden, "00")
		again, _, err := Parse("bitw.yaml", []byte(text), Options{Classes: opt.Classes, NoInterface: true, ReadFile: opt.ReadFile})
		if err != nil {
			t.Fatalf("the redacted form is refused: %v\n%s", err, text)
		}
		for _, change := range Diff(c, again) {
			for _, field := range change.Fields {
				if field != "encryption_key" && field != "integrity_key" {
					t.Errorf("redacted form: %v\n%s", change, text)
				}
			}
		}
	})
}

func FuzzKeyFile(f *testing.F) {
	f.Add(exampleKeys)
	f.Add("0x00112233445566778899aabbccddeeffa0a1a2a3\n")
	f.Add("to-b 00 11\nto-b 22\n")
	text := strings.Replace(pair, "encryption_key: 0x00112233445566778899aabbccddeeffa0a1a2a3", "key_file: a.key", 1)
	f.Fuzz(func(t *testing.T, keys string) {
		c, _, err := Parse("bitw.yaml", []byte(text), testOptions(map[string]string{"a.key": keys}))
		if err == nil && c.SAs[0].EncryptionKey.Len() != 20 {
			t.Errorf("accepted a key of %d octets", c.SAs[0].EncryptionKey.Len())
		}
	})
}

// TestHostileInput parses what costs the YAML parser most for its size: it has to
// come back with an error that has a place.
func TestHostileInput(t *testing.T) {
	for _, x := range [][2]string{
		{"a: |\n", "x:1001:2: more than 1000 keys in one mapping"},
		{"- a: b\n", "x:1:1: expected a configuration, found a list"},
		{"- a:\n", "x:1001:4: more than 1000 keys and list items without a value"},
		{"-\n", "x:1001:1: more than 1000 keys and list items without a value"},
		{"a:\n- ", "x:1002:4: more than 1000 keys and list items without a value"},
		{"- {a: }\n", "x:1001:5: more than 1000 keys and list items without a value"},
		{"[", "x:1:17: lists nested deeper than 16"},
		{"- ", "x:1:33: lists nested deeper than 16"},
		{"{a: ", "x:1:65: lists nested deeper than 16"},
		{"a: ", "x:1:5: a second colon after a key"},
	} {
		_, _, err := Parse("x", []byte(strings.Repeat(x[0], 10000)), Options{})
		if err == nil || !strings.HasPrefix(err.Error(), x[1]) {
			t.Errorf("%q again and again: expected %s, found %.200v", x[0], x[1], err)
		}
	}
	if _, _, err := Parse("x", make([]byte, maxSize+1), Options{}); err == nil || err.Error() != "x: the file has 16777217 octets, more than 16777216" {
		t.Errorf("a file too large: %v", err)
	}
}
