package config

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// encapFile is a configuration with an SA of that direction and mode, and more keys.
func encapFile(direction, mode, destination, keys string) string {
	source := "192.0.2.1"
	if strings.Contains(destination, ":") {
		source = "2001:db8::1"
	}
	return `interface: eth0
security_associations:
  - name: x
    direction: ` + direction + `
    protocol: esp
    mode: ` + mode + `
    spi: 0x1001
    source: "` + source + `"
    destination: "` + destination + `"
    algorithm: null-sha256
    integrity_key: 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
    ` + keys + `
policies: []
`
}

func TestR42_EncapKeys(t *testing.T) {
	defaults := Encap{LocalPort: 4500, RemotePort: 4500, Keepalive: 20 * time.Second, Float: true}
	with := func(f func(*Encap)) *Encap {
		e := defaults
		f(&e)
		return &e
	}
	tests := []struct {
		direction, mode, destination, keys string
		want                               *Encap
	}{
		{"out", "tunnel", "192.0.2.2", "encap: no", nil},
		{"out", "tunnel", "192.0.2.2", "encap: false", nil},
		{"out", "tunnel", "192.0.2.2", "encap: yes", &defaults},
		{"in", "tunnel", "192.0.2.2", "encap: true", &defaults},
		{"out", "tunnel", "192.0.2.2", "encap: {}", &defaults},
		{"out", "transport", "2001:db8::2", "encap: {checksum: no}", with(func(e *Encap) { e.Checksum = ChecksumZero })},
		{"out", "transport", "192.0.2.2", "encap: {checksum: auto}", &defaults},
		{"out", "transport", "192.0.2.2", "encap: {local_port: 1, remote_port: 65535, checksum: true, keepalive: 0s}",
			with(func(e *Encap) { e.LocalPort, e.RemotePort, e.Checksum, e.Keepalive = 1, 65535, ChecksumFilled, 0 })},
		{"in", "transport", "192.0.2.2", "encap: {float: no, original_remote: 10.0.0.5, original_local: 10.9.0.1}",
			with(func(e *Encap) {
				e.Float = false
				e.OriginalRemote, e.OriginalLocal = netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("10.9.0.1")
			})},
	}
	for _, tt := range tests {
		c, _ := mustParse(t, encapFile(tt.direction, tt.mode, tt.destination, tt.keys), nil)
		if d := cmp.Diff(tt.want, c.SAs[0].Encap, cmpopts.EquateComparable(netip.Addr{})); d != "" {
			t.Errorf("%s: -want +got\n%s", tt.keys, d)
		}
		// What is written out reads the same, but for the keys.
		again := strings.Replace(c.Redacted(), hidden, strings.Repeat("01", 31)+"02", 1)
		c2, _, err := Parse("bitw.yaml", []byte(again+"policies: []\n"), testOptions(nil))
		if err != nil {
			t.Errorf("%s: written as\n%s%v", tt.keys, again, err)
		} else if d := cmp.Diff(tt.want, c2.SAs[0].Encap, cmpopts.EquateComparable(netip.Addr{})); d != "" {
			t.Errorf("%s, written and read: -want +got\n%s", tt.keys, d)
		}
	}
}

func TestR42_EncapErrors(t *testing.T) {
	tests := []struct{ direction, mode, destination, keys, want string }{
		{"out", "tunnel", "192.0.2.2", "encap: maybe", `expected true or false, found "maybe"`},
		{"out", "tunnel", "192.0.2.2", "encap: {local_port: 0}", "expected a number from 1 to 65535"},
		{"out", "tunnel", "192.0.2.2", "encap: {remote_port: 65536}", "expected a number from 1 to 65535"},
		{"out", "tunnel", "192.0.2.2", "encap: {port: 4500}", "unknown key"},
		{"out", "tunnel", "192.0.2.2", "encap: {checksum: maybe}", "expected true or false"},
		{"out", "tunnel", "192.0.2.2", "encap: [1]", "expected an encap"},
		{"out", "tunnel", "192.0.2.2", "encap: {keepalive: 10ms}", "expected 1s or more"},
		{"in", "tunnel", "192.0.2.2", "encap: {original_remote: 10.0.0.1}", "is for transport mode"},
		{"in", "transport", "192.0.2.2", "encap: {original_local: 2001:db8::9}", "is IPv6, destination"},
		{"out", "tunnel", "192.0.2.2", "tfc_padding: all", "expected a number of octets from 0 to 65535 or mtu"},
		{"out", "tunnel", "192.0.2.2", "tfc_padding: 65536", "expected a number of octets from 0 to 65535 or mtu"},
		{"out", "tunnel", "192.0.2.2", "dummy: 1001", "expected a number from 0 to 1000"},
	}
	for _, tt := range tests {
		_, _, err := Parse("bitw.yaml", []byte(encapFile(tt.direction, tt.mode, tt.destination, tt.keys)), testOptions(nil))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; expected %q", tt.keys, err, tt.want)
		}
	}
	ah := strings.NewReplacer("protocol: esp", "protocol: ah", "null-sha256", "sha256").Replace(encapFile("out", "tunnel", "192.0.2.2", "encap: yes"))
	if _, _, err := Parse("bitw.yaml", []byte(ah), testOptions(nil)); err == nil || !strings.Contains(err.Error(), "encap is for ESP") {
		t.Errorf("encap of AH: %v", err)
	}
	for _, tt := range []struct{ direction, keys, want string }{
		{"in", "encap: {keepalive: 5s}", "keepalive has no effect"}, {"in", "encap: {checksum: true}", "checksum has no effect"},
		{"out", "encap: {float: no}", "float has no effect"}, {"in", "tfc_padding: mtu", "tfc_padding has no effect"},
		{"in", "dummy: 1", "dummy has no effect"},
	} {
		_, warnings := mustParse(t, encapFile(tt.direction, "tunnel", "192.0.2.2", tt.keys), nil)
		found := false
		for _, w := range warnings {
			found = found || strings.Contains(w.Error(), tt.want)
		}
		if !found {
			t.Errorf("%s for %s: warnings %v", tt.keys, tt.direction, warnings)
		}
	}
}

func TestRFC4303_2_7_TFCKeys(t *testing.T) {
	for keys, want := range map[string][2]int{
		"tfc_padding: mtu": {PadToMTU, 0}, "tfc_padding: 1200": {1200, 0}, "dummy: 50": {0, 50}, "esn: no": {},
	} {
		c, _ := mustParse(t, encapFile("out", "tunnel", "192.0.2.2", keys), nil)
		if got := [2]int{c.SAs[0].TFCPadding, c.SAs[0].Dummies}; got != want {
			t.Errorf("%s: %v, expected %v", keys, got, want)
		}
		if keys != "esn: no" && !strings.Contains(c.Redacted(), keys) {
			t.Errorf("%s is not in\n%s", keys, c.Redacted())
		}
	}
}
