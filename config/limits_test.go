package config

import (
	"strings"
	"testing"
	"time"
)

// The SAs of limitsFile; %s is for keys of the outbound one.
const limitsSAs = `security_associations:
  - {name: o, direction: out, protocol: esp, mode: transport, spi: 0x1001, source: 192.0.2.1, destination: 192.0.2.2, algorithm: null-sha256, integrity_key: "KEY02"OUT}
  - {name: i, direction: in, protocol: esp, mode: transport, spi: 0x1002, source: 192.0.2.2, destination: 192.0.2.1, algorithm: null-sha256, integrity_key: "KEY03"IN}
policies:
  - {name: x, local: 192.0.2.1, remote: 192.0.2.2, action: protect, out: o, in: iPOLICY}
`

// limitsFile has keys at the top, of the outbound SA, of the inbound one and of the policy.
func limitsFile(top, out, in, policy string) string {
	return "interface: eth0\n" + top + strings.NewReplacer("KEY", strings.Repeat("01", 31), "OUT", out, "IN", in, "POLICY", policy).Replace(limitsSAs)
}

func TestR27_R41_LimitKeys(t *testing.T) {
	c, w := mustParse(t, limitsFile("fragment_memory: 16MiB\nfragment_timeout: 60s\nacquire: {packets: 7, bytes: 1MiB, memory: 2MiB, time: 3s}\n",
		", lifetime: {packets: 10, bytes: 20, time: 30s}, soft_lifetime: {packets: 9, bytes: 19, time: 29s}", "", ", fragments: discard"), nil)
	if len(w) != 0 {
		t.Error(w.Text())
	}
	want := Limits{16 << 20, time.Minute, AcquireLimits{7, 1 << 20, 2 << 20, 3 * time.Second}}
	if c.Limits != want {
		t.Errorf("%+v", c.Limits)
	}
	if s := c.SAs[0]; s.Lifetime != (Lifetime{10, 20, 30 * time.Second}) || s.SoftLifetime != (Lifetime{9, 19, 29 * time.Second}) {
		t.Errorf("%+v, soft %+v", s.Lifetime, s.SoftLifetime)
	}
	if !c.Policies[0].DiscardFragments {
		t.Error("fragments: discard is lost")
	}
	again, _ := mustParse(t, strings.NewReplacer(`integrity_key: "(hidden)"`, `integrity_key: "`+strings.Repeat("05", 32)+`"`,
		"integrity_key: (hidden)", `integrity_key: "`+strings.Repeat("05", 32)+`"`).Replace(c.Redacted()), nil)
	for _, change := range Diff(c, again) {
		if change.Subject == SettingEdit || change.Subject == PolicyEdit || len(change.Fields) != 1 {
			t.Errorf("Redacted says another thing: %v", change)
		}
	}
	plain, _ := mustParse(t, limitsFile("", "", "", ", fragments: reassemble"), nil)
	if plain.Policies[0].DiscardFragments || plain.Limits != (Limits{}) {
		t.Errorf("defaults: %+v", plain)
	}
	var named []string
	for _, change := range Diff(plain, c) {
		named = append(named, change.String())
	}
	got := strings.Join(named, "; ")
	for _, key := range []string{"fragment_memory", "fragment_timeout", "acquire", "lifetime, soft_lifetime", "fragments"} {
		if !strings.Contains(got, key) {
			t.Errorf("Diff does not name %s: %s", key, got)
		}
	}
}

func TestLimitErrors(t *testing.T) {
	for _, bad := range []string{
		limitsFile("fragment_memory: 1KiB\n", "", "", ""), limitsFile("fragment_memory: 2000000GiB\n", "", "", ""),
		limitsFile("fragment_timeout: 10ms\n", "", "", ""), limitsFile("fragment_timeout: 1h\n", "", "", ""),
		limitsFile("acquire: {packets: 0}\n", "", "", ""), limitsFile("acquire: {time: 0s}\n", "", "", ""), limitsFile("acquire: 3\n", "", "", ""),
		limitsFile("acquire: {octets: 3}\n", "", "", ""),
		limitsFile("", ", lifetime: {packets: 10}, soft_lifetime: {packets: 11}", "", ""),
		limitsFile("", ", lifetime: {bytes: 10}, soft_lifetime: {bytes: 11}", "", ""),
		limitsFile("", ", lifetime: {time: 10s}, soft_lifetime: {time: 11s}", "", ""),
		limitsFile("", "", "", ", fragments: keep"), limitsFile("", "", "", ", reject: true"),
	} {
		if _, _, err := Parse("x", []byte(bad), testOptions(nil)); err == nil {
			t.Errorf("passes:\n%s", bad)
		}
	}
}

func TestRFC4301_5_1_1_RejectKey(t *testing.T) {
	for word, want := range map[string]bool{"true": true, "false": false} {
		file := "interface: eth0\npolicies: [{name: x, action: discard, reject: " + word + "}]\n"
		c, _ := mustParse(t, file, nil)
		again, _ := mustParse(t, c.Redacted(), nil)
		if c.Policies[0].Reject != want || again.Policies[0].Reject != want {
			t.Errorf("reject: %s is %t, and %t again", word, c.Policies[0].Reject, again.Policies[0].Reject)
		}
	}
}

func TestR42_EncapOfBothDirections(t *testing.T) {
	for _, tt := range []struct{ out, in, want string }{
		{"", "", ""},
		{", encap: yes", ", encap: yes", ""},
		{", encap: yes", "", "only one has encap"},
		{"", ", encap: yes", "only one has encap"},
		{", encap: {local_port: 4501}", ", encap: {local_port: 4501}", ""},
		{", encap: {local_port: 4501}", ", encap: yes", "would not let both pass"},
		{", encap: {remote_port: 4501}", ", encap: yes", "would not let both pass"},
	} {
		_, w := mustParse(t, limitsFile("", tt.out, tt.in, ""), nil)
		if text := w.Text(); tt.want == "" && len(w) != 0 || !strings.Contains(text, tt.want) {
			t.Errorf("out%s, in%s: %q, expected %q", tt.out, tt.in, text, tt.want)
		}
	}
}
