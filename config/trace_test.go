package config

import (
	"strings"
	"testing"

	"bitw/netstack/trace"
)

func TestR46_TraceOfConfiguration(t *testing.T) {
	text := "interface: eth0\ntrace:\n  spiint: TR_FUNCTIONAL_TRACE\n  eth/0: TR_DETAILED\npolicies: [{name: a, action: bypass}]\n"
	c, w := mustParse(t, text, nil)
	if len(w) > 0 || len(c.Trace) != 2 || c.Trace[0].Node != "spiint" || c.Trace[0].Level != trace.FunctionalTrace || c.Trace[1].Pos.Line != 4 {
		t.Errorf("%+v, %v", c.Trace, w)
	}
	if r := c.Redacted(); !strings.Contains(r, "trace: {spiint: TR_FUNCTIONAL_TRACE, eth/0: TR_DETAILED}\n") {
		t.Errorf("redacted:\n%s", r)
	}
	other := *c
	other.Trace = nil
	if d := Diff(c, &other); len(d) != 1 || d[0].Name != "trace" {
		t.Errorf("difference %v", d)
	}
	for trace, says := range map[string]string{
		"trace: {spint: TR_EVENTS}":                     `did you mean "spiint"?`,
		"trace: {spiint: TR_EVENT}":                     `did you mean "TR_EVENTS"?`,
		"trace: {spiint: debug}":                        "known are TR_FULL_TRACE",
		"trace: TR_EVENTS":                              "expected a mapping of nodes",
		"trace:\n  ip: TR_EVENTS\n  ip: TR_SOFT_ERRORS": "ip",
		"trace: {ip: [TR_EVENTS]}":                      "a trace level",
	} {
		_, _, err := Parse("c.yaml", []byte("interface: eth0\n"+trace+"\n"), Options{})
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error %v, want one that says %q", trace, err, says)
		}
	}
}
