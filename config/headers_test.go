package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRFC4301_5_1_2_HeaderKeys(t *testing.T) {
	const all = "copy_df: set\n    copy_ecn: no\n    copy_dscp: yes\n    dscp: {46: 34, 0-2: 1}\n    ttl: 7\n    flow_label: 0xabcde\n    fragment: before"
	c, w := mustParse(t, encapFile("out", "tunnel", "192.0.2.2", all), nil)
	want := Headers{CopyDF: CopySet, CopyECN: CopyNo, CopyDSCP: CopyYes, DSCP: map[uint8]uint8{46: 34, 0: 1, 1: 1, 2: 1}, TTL: 7, FlowLabel: 0xabcde, Fragment: Before}
	if d := cmp.Diff(want, c.SAs[0].Headers); d != "" {
		t.Error(d)
	}
	for _, x := range w {
		if !strings.Contains(x.Error(), "used by no policy") && !strings.Contains(x.Error(), "no policies") {
			t.Errorf("warning: %v", x)
		}
	}
	c, _ = mustParse(t, encapFile("out", "tunnel", "192.0.2.2", "dscp: 10\n    flow_label: copy"), nil)
	if h := c.SAs[0].Headers; len(h.DSCP) != 64 || h.DSCP[63] != 10 || !h.CopyFlowLabel {
		t.Errorf("%+v", h)
	}
	// What is printed is read alike.
	var again Config
	for _, keys := range []string{all, "dscp: 10", "flow_label: copy"} {
		c, _ = mustParse(t, encapFile("out", "tunnel", "192.0.2.2", keys), nil)
		var text writer
		text.headers(&c.SAs[0].Headers)
		d, _ := mustParse(t, encapFile("out", "tunnel", "192.0.2.2", strings.TrimSpace(text.String())), nil)
		again = *d
		if diff := cmp.Diff(c.SAs[0].Headers, again.SAs[0].Headers); diff != "" {
			t.Error(diff)
		}
	}
	for keys, complaint := range map[string]string{
		"copy_df: maybe": "expected one of yes, no, set", "copy_ecn: out": "expected yes or no", "ttl: 0": "1 to 255", "flow_label: 0x100000": "0 to 1048575",
		"dscp: 64": "0 to 63", "dscp: {64: 1}": "a DSCP", "dscp: {1: 64}": "0 to 63", "dscp: {1-3: 1, 2: 2}": "already", "fragment: never": "after or before",
	} {
		_, _, err := Parse("x", []byte(encapFile("out", "tunnel", "192.0.2.2", keys)), testOptions(nil))
		if err == nil || !strings.Contains(err.Error(), complaint) {
			t.Errorf("%s: %v", keys, err)
		}
	}
	for _, key := range []string{"copy_df: yes", "ttl: 3"} {
		if _, _, err := Parse("x", []byte(encapFile("out", "transport", "192.0.2.2", key)), testOptions(nil)); err == nil {
			t.Errorf("%s in transport mode passes", key)
		}
	}
}

func TestHeadersDiff(t *testing.T) {
	a, b := SA{}, SA{Headers: Headers{TTL: 3, Fragment: Before, CopyFlowLabel: true, DSCP: map[uint8]uint8{1: 2}}}
	if got := strings.Join(differing(headerItems(&a.Headers, &b.Headers)), " "); got != "dscp ttl flow_label fragment" {
		t.Error(got)
	}
}

func TestR43_ICMPErrorsAndMSSClamp(t *testing.T) {
	file := func(rule, policy string) string {
		return "interface: eth0\n" + rule + `
security_associations:
  - {name: o, direction: out, protocol: ah, mode: transport, spi: 0x1001, source: 192.0.2.1, destination: 192.0.2.2, algorithm: sha256, integrity_key: "` + strings.Repeat("01", 31) + `02"}
  - {name: i, direction: in, protocol: ah, mode: transport, spi: 0x1002, source: 192.0.2.2, destination: 192.0.2.1, algorithm: sha256, integrity_key: "` + strings.Repeat("01", 31) + `03"}
policies:
  - name: x
    local: 192.0.2.1
    remote: 192.0.2.2
` + policy
	}
	protect := func(keys string) string { return "    action: protect\n    out: o\n    in: i\n    " + keys + "\n" }
	for word, want := range map[string]int{"no": 0, "pmtu": ClampToPMTU, "1360": 1360} {
		c, _ := mustParse(t, file("icmp_errors: verify", protect("mss_clamp: "+word)), nil)
		if c.Policies[0].MSSClamp != want || c.ICMPErrors != ICMPVerify {
			t.Errorf("%s: %d, %s", word, c.Policies[0].MSSClamp, c.ICMPErrors)
		}
	}
	for _, bad := range []string{
		file("icmp_errors: maybe", protect("")), file("", protect("mss_clamp: 10")), file("", protect("mss_clamp: [1]")), file("", protect("mss_clamp: yes")),
		file("", "    action: bypass\n    mss_clamp: pmtu\n"),
	} {
		if _, _, err := Parse("x", []byte(bad), testOptions(nil)); err == nil {
			t.Errorf("passes:\n%s", bad)
		}
	}
}
