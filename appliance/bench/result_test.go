package bench

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
)

// run measures with the tiny plan, and reads the result back from its JSON.
func measured(t *testing.T, o Options) Result {
	t.Helper()
	var out, errs bytes.Buffer
	if o.JSON, o.Out = true, &out; o.Err == nil {
		o.Err = io.Discard
	}
	o.Err = io.MultiWriter(&errs, o.Err)
	r, err := start(t.Context(), o, tiny())
	if err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	var back Result
	d := json.NewDecoder(&out)
	d.DisallowUnknownFields()
	if err := d.Decode(&back); err != nil {
		t.Fatal(err)
	}
	if len(back.Measures) != len(r.Measures) || back.Suite != r.Suite || back.Machine != r.Machine || back.Kernel != r.Kernel {
		t.Errorf("the JSON has %+v, the result is %+v", back, r)
	}
	if !strings.Contains(errs.String(), "round 2 of 2 in memory") {
		t.Errorf("progress: %q", errs.String())
	}
	for _, m := range back.Measures {
		if m.Unit == "" || len(m.Rounds) != 2 || m.Low > m.Median || m.Median > m.High || m.Low < 0 {
			t.Errorf("%+v", m)
		}
		if m.Low == 0 && m.Unit != unitAllocs && !strings.Contains(m.Name, "udp") { // which may find no rate in a moment
			t.Errorf("%s was 0", m.Name)
		}
		if m.Ratio != nil && (m.Ratio.Low > m.Ratio.Median || m.Ratio.Median > m.Ratio.High) {
			t.Errorf("%s: ratio %+v", m.Name, *m.Ratio)
		}
	}
	return back
}

// ratios are the measures that are compared to another, by name.
func ratios(r Result) map[string]string {
	to := make(map[string]string)
	for _, m := range r.Measures {
		if m.Ratio != nil {
			to[m.Name] = m.Ratio.To
		}
	}
	return to
}

func names(r Result) []string {
	var list []string
	for _, m := range r.Measures {
		list = append(list, m.Name)
	}
	return list
}

func TestMemory(t *testing.T) {
	for _, c := range []struct {
		suite, bare string
		measures    int
	}{
		{"", BareAEAD, 8},
		{"chacha20poly1305", BareAEAD, 11},
		{"aes256gcm16", BareAEAD, 11},
		{"aes256-sha512", BareTransform, 11},
		{"aes128ccm8", BareTransform, 11},
		{"null-sha256", BareTransform, 11},
	} {
		t.Run(c.suite, func(t *testing.T) {
			r := measured(t, Options{Suite: c.suite, Memory: true})
			suite := c.suite
			if suite == "" {
				suite = DefaultSuite
			}
			if r.Suite != suite || r.Bare != c.bare || r.Segment != 1400 || r.Machine.CPUs < 1 || r.Machine.CPU == "" || r.Seconds <= 0 {
				t.Errorf("%+v", r)
			}
			if r.Kernel.Measured || r.Kernel.Why == "" {
				t.Errorf("kernel: %+v", r.Kernel)
			}
			want := map[string]string{
				"engine/outbound": "aead/" + suite + "/seal",
				"engine/inbound":  "aead/" + suite + "/open",
				"engine/both":     "aead/" + suite + "/both",
			}
			if suite != DefaultSuite {
				for _, what := range []string{"/seal", "/open", "/both"} {
					want["aead/"+suite+what] = "aead/" + DefaultSuite + what
				}
			}
			got := ratios(r)
			if len(got) != len(want) || len(r.Measures) != c.measures {
				t.Errorf("measures %v, ratios %v, expected %v", names(r), got, want)
			}
			for name, to := range want {
				if got[name] != to {
					t.Errorf("%s is compared to %q, expected %q", name, got[name], to)
				}
			}
		})
	}
}

// Without root what is in memory is measured, and why the rest is not is told.
func TestTableWithoutKernel(t *testing.T) {
	r, err := start(t.Context(), Options{Memory: true, Suite: "aes128-sha256"}, tiny())
	if err != nil {
		t.Fatal(err)
	}
	r.Kernel.Why = "network namespaces need root, and the effective user id is 1000"
	table := r.Table()
	for _, want := range []string{
		"aes128-sha256, ", "aead/aes128gcm16/seal", "engine/outbound", "ns/packet", " to aead/aes128-sha256/seal\n",
		"Nothing was measured between kernels: network namespaces need root", "bitw's own transform of it stands for",
	} {
		if !strings.Contains(table, want) {
			t.Errorf("the table lacks %q:\n%s", want, table)
		}
	}
	for line := range strings.Lines(table) {
		if len([]rune(line)) > 121 && !strings.HasPrefix(line, "Noisy") {
			t.Errorf("a line of %d characters: %s", len(line), line)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{Suite: "aes128gcm17"}, {Suite: "sha256"}, {Wire: "ggso"}} {
		if _, err := Run(t.Context(), o); err == nil {
			t.Errorf("%+v was measured", o)
		}
	}
}

func TestMiddle(t *testing.T) {
	for _, c := range []struct {
		in                []float64
		median, low, high float64
	}{
		{[]float64{3}, 3, 3, 3},
		{[]float64{4, 1}, 2.5, 1, 4},
		{[]float64{9, 1, 2}, 2, 1, 9},
		{[]float64{4, 1, 3, 2}, 2.5, 1, 4},
	} {
		if m, l, h := middle(c.in); m != c.median || l != c.low || h != c.high {
			t.Errorf("%v: %v %v %v", c.in, m, l, h)
		}
	}
	thousand := make([]int, 1000)
	for i := range thousand {
		thousand[i] = i + 1
	}
	for p, want := range map[int]int{0: 1, 50: 500, 99: 990, 100: 1000} {
		if got := percentile(thousand, p); got != want {
			t.Errorf("percentile %d of 1 to 1000 is %d", p, got)
		}
	}
	if got := percentile([]int{7}, 99); got != 7 {
		t.Errorf("percentile 99 of one is %d", got)
	}
}

// A ratio is of rounds that belong together, and there is none to a measure of 0.
func TestRatio(t *testing.T) {
	var n notebook
	for _, v := range []struct{ plain, other float64 }{{10, 5}, {100, 80}, {1, 0.1}} {
		n.add("plain", "x", v.plain)
		n.compare("other", "plain", "x", v.other)
		n.add("zero", "x", 0)
		n.compare("none", "zero", "x", 1)
	}
	list := n.measures()
	if len(list) != 4 || list[1].Ratio == nil || *list[1].Ratio != (Ratio{"plain", 0.5, 0.1, 0.8}) {
		t.Errorf("%+v", list)
	}
	if list[0].Ratio != nil || list[3].Ratio != nil || list[2].Spread != 0 || list[0].Spread != 9.9 {
		t.Errorf("%+v", list)
	}
}
