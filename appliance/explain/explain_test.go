package explain_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bitw/appliance"
	"bitw/appliance/explain"
	"bitw/config"
)

var update = flag.Bool("update", false, "write testdata anew")

// offline answers by a configuration of testdata.
func offline(t testing.TB, name string) *appliance.Offline {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	// A file with keys must be its owner's alone, and a checkout does not keep that.
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, _, err := config.Load(path, appliance.ConfigOptions())
	if err != nil {
		t.Fatal(err)
	}
	o, err := appliance.NewOffline(*cfg, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	})
	return o
}

// Each question with the verdict, the outcome, the reason and the policy of its answer; the whole
// answer is in testdata.
func TestR50_Answers(t *testing.T) {
	for _, c := range []struct{ file, config, packet, verdict, outcome, reason, rule string }{
		{"fits", "host.yaml", "udp 10.0.0.5:1234 > 192.0.2.9:53 len 400 dscp ef", explain.Protect, explain.Sent, "", "b"},
		{"largest", "host.yaml", "tcp 10.0.0.5:1234 > 192.0.2.9:443 len 1446 df", explain.Protect, explain.Sent, "", "b"},
		{"too-big", "host.yaml", "tcp 10.0.0.5:1234 > 192.0.2.9:443 len 1500 df", explain.Protect, explain.Dropped, "too_big", "b"},
		{"fragments", "host.yaml", "udp 10.0.0.5:1234 > 192.0.2.9:443 len 1490", explain.Protect, explain.Sent, "", "b"},
		{"bypass", "host.yaml", "tcp 10.0.0.5:1234 > 192.0.2.9:80 syn", explain.Bypass, explain.Sent, "", "web"},
		{"almost", "host.yaml", "tcp 10.0.0.5:23 > 198.51.100.7:80", explain.Discard, explain.Dropped, "no_policy", ""},
		{"telnet", "host.yaml", "tcp 10.0.0.5:1234 > 198.51.100.7:23", explain.Discard, explain.Dropped, "policy_discard", "no-telnet"},
		{"bundle", "host.yaml", "tcp 10.0.0.5:1234 > 192.0.2.20:443 len 1000 df ttl 9", explain.Protect, explain.Sent, "", "c"},
		{"nat", "host.yaml", "udp 10.0.0.5:1234 > 10.9.1.1:53 tos 0x03", explain.Protect, explain.Sent, "", "behind-nat"},
		{"six", "host.yaml", "tcp [2001:db8::1]:1234 > [2001:db8:2::5]:443 len 1400", explain.Protect, explain.Sent, "", "v6"},
		{"six-too-big", "host.yaml", "tcp [2001:db8::1]:1234 > [2001:db8:2::5]:443 len 1500", explain.Protect, explain.Dropped, "too_big", "v6"},
		{"six-no-route", "host.yaml", "icmpv6 2001:db8::1 > 2001:db9::5 type 128", explain.Discard, explain.Dropped, "no_policy", ""},
		{"ping", "host.yaml", "icmp 192.0.2.77 > 10.0.0.5 type 8 in", explain.Bypass, explain.Sent, "", "ping"},
		{"clear", "host.yaml", "tcp 192.0.2.9:443 > 10.0.0.5:99 in", explain.Discard, explain.Dropped, "clear_not_protected", "b"},
		{"esp", "host.yaml", "esp 192.0.2.9 > 10.0.0.5 spi 0x1000 seq 7", explain.Protect, explain.Authenticated, "", ""},
		{"esp-inside", "host.yaml", "esp 192.0.2.9 > 10.0.0.5 spi 0x1000 seq 7 carrying (udp 192.0.2.9:53 > 10.0.0.5:1024 len 1000)", explain.Protect, explain.Sent, "", "b"},
		{"esp-other", "host.yaml", "esp 192.0.2.9 > 10.0.0.5 spi 0x1000 seq 7 carrying (tcp 192.0.2.9:80 > 10.0.0.5:1024)", explain.Discard, explain.Dropped, "selector_mismatch", "web"},
		{"esp-unknown", "host.yaml", "esp 192.0.2.9 > 10.0.0.5 spi 0x1234 seq 7", explain.Discard, explain.Dropped, "unknown_spi", ""},
		{"esp-udp", "host.yaml", "esp 192.0.2.9:4500 > 10.0.0.5:4500 spi 0x1000 seq 7 in", explain.Discard, explain.Dropped, "clear_not_protected", "b"},
		{"error", "host.yaml", "icmp 203.0.113.1 > 10.0.0.5 type 3 code 4 mtu 1400 about (tcp 10.0.0.5:22 > 203.0.113.9:4000) in", explain.Bypass, explain.Sent, "", "ssh"},
		{"error-clear", "host.yaml", "icmp 203.0.113.1 > 10.0.0.5 about (udp 10.0.0.5:22 > 192.0.2.9:4000) in", explain.Discard, explain.Dropped, "icmp_policy", "b"},
		{"fragment", "host.yaml", "udp 10.0.0.5:1234 > 192.0.2.9:53 len 1500 frag", explain.Undecided, explain.WaitsForFragments, "", ""},
		{"arp", "host.yaml", "arp", explain.Undecided, explain.Taken, "", ""},
		{"lldp", "host.yaml", "lldp", explain.Bypass, explain.Sent, "", ""},
		{"ethertype", "host.yaml", "ethertype 0x8899 in", explain.Bypass, explain.Sent, "", ""},
		{"vlan", "host.yaml", "vlan", explain.Discard, explain.Dropped, "class_discard", ""},
		{"broadcast", "host.yaml", "broadcast", explain.Discard, explain.Dropped, "class_discard", ""},
		{"multicast", "host.yaml", "udp 10.0.0.5:5353 > 224.0.0.251:5353", explain.Discard, explain.Dropped, "class_discard", ""},
		{"dhcp", "host.yaml", "udp 10.0.0.5:68 > 10.0.0.1:67", explain.Bypass, explain.Sent, "", ""},
		{"box", "box.yaml", "tcp 10.1.0.7:1234 > 10.2.0.9:443 len 1400 df", explain.Protect, explain.Sent, "", "other-lan"},
		{"box-in", "box.yaml", "esp 198.51.100.7 > 10.1.0.253 spi 0x2001 seq 1 carrying (udp 10.2.0.9:53 > 10.1.0.7:1024)", explain.Protect, explain.Sent, "", "other-lan"},
		{"box-in-too-big", "box.yaml", "esp 198.51.100.7 > 10.1.0.253 spi 0x2001 seq 1 carrying (tcp 10.2.0.9:443 > 10.1.0.7:1024 len 4000 df)", explain.Discard, explain.Dropped, "too_big", "other-lan"},
		{"box-in-cut", "box.yaml", "esp 198.51.100.7 > 10.1.0.253 spi 0x2001 seq 1 carrying (udp 10.2.0.9:53 > 10.1.0.7:1024 len 4000)", explain.Protect, explain.Sent, "", "other-lan"},
		{"box-stray", "box.yaml", "udp 10.2.0.9:53 > 10.1.0.200:1024 in", explain.Discard, explain.Dropped, "no_policy", ""},
		{"relay", "relay.yaml", "tcp 10.0.0.5:1234 > 198.51.100.7:443 len 1500 df", explain.Bypass, explain.Sent, "", "all"},
		{"relay-arp", "relay.yaml", "arp", explain.Bypass, explain.Sent, "", ""},
		{"relay-protect", "relay.yaml", "udp 10.0.0.5:1 > 192.0.2.9:53", explain.Protect, explain.Sent, "", "b"},
	} {
		t.Run(c.file, func(t *testing.T) {
			r, err := offline(t, c.config).Explain(appliance.Question{Packet: c.packet})
			if err != nil {
				t.Fatal(err)
			}
			rule := ""
			if r.Rule != nil {
				rule = r.Rule.Name
			}
			if r.Verdict != c.verdict || r.Outcome != c.outcome || r.Reason != c.reason || rule != c.rule {
				t.Errorf("%s, %s, %q by %q; expected %s, %s, %q by %q", r.Verdict, r.Outcome, r.Reason, rule, c.verdict, c.outcome, c.reason, c.rule)
			}
			golden(t, c.file+".txt", r.Text())
			text, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			var again explain.Result
			if err := json.Unmarshal(text, &again); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(r.Text(), again.Text()); diff != "" {
				t.Errorf("the JSON tells something else:\n%s", diff)
			}
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("%s (-want +got), -update writes it anew:\n%s", path, diff)
	}
}

func TestQuestions(t *testing.T) {
	o := offline(t, "host.yaml")
	for want, q := range map[string]appliance.Question{
		"one of them":            {},
		"expected out or in":     {Packet: "arp", Direction: "up"},
		"column 5":               {Packet: "tcp x"},
		"expected a packet in w": {Packet: "arp", Frame: []byte{1}},
	} {
		if _, err := o.Explain(q); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", q, err)
		}
	}
}
