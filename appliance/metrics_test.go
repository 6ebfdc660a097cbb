package appliance

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"bitw/config"
	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
)

// usedBox is an appliance that has seen something of everything.
func usedBox(t testing.TB, cfg config.Config) *Appliance {
	t.Helper()
	box, errc := loneBox(t, cfg)
	select {
	case <-box.Ready():
	case err := <-errc:
		t.Fatal(err)
	}
	b := box.bump.Load()
	for _, x := range b.sad.All() {
		x.Used(10, 1000, time.Now().UnixNano())
		x.Drops.Add(wire.DropICV)
	}
	for _, p := range b.engine.SPD().Policies() {
		p.Counters[sa.Outbound].Add(7, 700, time.Now().UnixNano())
		p.Counters[sa.Inbound].Drops.Add(wire.DropClearNotProtected)
	}
	for r := wire.DropNone + 1; r < wire.NumDropReasons; r++ {
		b.drops[hook.Right].Add(r)
	}
	if err := box.AddNeighbor(Neighbor{netip.MustParseAddr("192.0.2.77"), MAC{2, 0, 0, 0, 0, 7}}); err != nil {
		t.Fatal(err)
	}
	return box
}

func TestR50_MetricsLint(t *testing.T) {
	box := usedBox(t, protectAll(t))
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(box.Metrics())
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	series := 0
	for _, f := range families {
		series += len(f.GetMetric())
	}
	t.Logf("%d metrics, %d series", len(families), series)
	// Another appliance in the same process is another registry's.
	if err := prometheus.NewRegistry().Register(usedBox(t, protectAll(t)).Metrics()); err != nil {
		t.Error(err)
	}
}

// openMetricsLine is a sample (OpenMetrics 1.0, "ABNF").
var openMetricsLine = regexp.MustCompile(`^([a-z_]+)(\{([a-z_]+="([^"\\\n]|\\["\\n])*"(,[a-z_]+="([^"\\\n]|\\["\\n])*")*)?\})? -?[0-9.e+]+$`)

func TestR50_MetricsFormats(t *testing.T) {
	// An address that no other process has, so that none takes the port meanwhile.
	pid := os.Getpid()
	free, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+pid>>16&0x7f, pid>>8&0xff, pid&0xff))
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(free.Addr().String())
	_ = free.Close()
	cfg := protectAll(t)
	cfg.Metrics = at
	box := usedBox(t, cfg)
	get := func(accept string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://%v/metrics", at), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", accept)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %v", resp.Status, err)
		}
		if kind := resp.Header.Get("Content-Type"); !strings.HasPrefix(kind, strings.Split(accept, ";")[0]) {
			t.Errorf("asked for %s, found %s", accept, kind)
		}
		return string(text)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(get("text/plain")))
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range meters {
		optional := strings.HasPrefix(x.name, "bitw_sa_expiry") || strings.HasPrefix(x.name, "bitw_sa_path") || strings.HasPrefix(x.name, "bitw_sa_peer")
		if families[x.name] == nil && !optional && x.name != "bitw_class_frames_total" {
			t.Errorf("no %s", x.name)
		}
	}
	open := get("application/openmetrics-text; version=1.0.0")
	if !strings.HasSuffix(open, "\n# EOF\n") {
		t.Errorf("OpenMetrics ends with %q", open[max(0, len(open)-40):])
	}
	counters := make(map[string]bool)
	for line := range strings.Lines(strings.TrimSuffix(open, "# EOF\n")) {
		line = strings.TrimSuffix(line, "\n")
		if name, ok := strings.CutSuffix(line, " counter"); ok && strings.HasPrefix(line, "# TYPE ") {
			counters[strings.TrimPrefix(name, "# TYPE ")] = true
		}
		if strings.HasPrefix(line, "# HELP ") || strings.HasPrefix(line, "# TYPE ") {
			continue
		}
		m := openMetricsLine.FindStringSubmatch(line)
		if m == nil {
			t.Errorf("not a sample of OpenMetrics: %q", line)
		} else if base, total := strings.CutSuffix(m[1], "_total"); total != counters[base] {
			t.Errorf("%s: counters end with _total, and nothing else does", m[1])
		}
	}
	if _, errc := loneBox(t, cfg); true {
		if err := <-errc; err == nil || !strings.Contains(err.Error(), "metrics cannot be served") {
			t.Errorf("a second one at the same address: %v", err)
		}
	}
	_ = box.Close()
	if conn, err := net.Dial("tcp", at.String()); err == nil {
		_ = conn.Close()
		t.Error("metrics are served after the end")
	}
}

func TestR50_MetricsByTheSocket(t *testing.T) {
	path := controlled(t, protectAll(t))
	if status, text := ask(t, path, "GET", "/metrics", ""); status != 200 || !strings.Contains(text, "\nbitw_sas_configured 4\n") {
		t.Errorf("%d %s", status, text)
	}
}

// What an SA has counted stays when another one takes its place, or none does.
func TestR50_MetricsSurviveRollover(t *testing.T) {
	box := usedBox(t, protectAll(t))
	b := box.bump.Load()
	old := b.sad.All()[0]
	line := lineOf(old)
	before := *b.ledger.totals(b.sad)[line]
	if before.packets != 10 || before.bytes != 1000 || before.drops[wire.DropICV] != 1 {
		t.Fatalf("%+v", before)
	}
	b.sad.Remove(old)
	old.Used(5, 500, time.Now().UnixNano()) // a worker still had it
	for range 3 {
		if c := b.ledger.totals(b.sad)[line]; c.packets != 15 || c.bytes != 1500 || c.drops[wire.DropICV] != 1 {
			t.Errorf("after it was removed: %d packets, %d octets", c.packets, c.bytes)
		}
	}
	if err := b.sad.Add(old); err != nil {
		t.Fatal(err)
	}
}

func TestR50_DashboardQueriesWhatExists(t *testing.T) {
	var d struct {
		Panels []struct {
			Title   string `json:"title"`
			Targets []struct {
				Expr string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	if err := json.Unmarshal(Dashboard(), &d); err != nil {
		t.Fatal(err)
	}
	labels := make(map[string][]string)
	for _, m := range meters {
		labels[m.name] = append(m.labels, "instance")
	}
	name, label := regexp.MustCompile(`bitw_[a-z_]+`), regexp.MustCompile(`(bitw_[a-z_]+)\{([^}]*)\}`)
	queries := 0
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			queries++
			found := name.FindAllString(target.Expr, -1)
			if len(found) == 0 {
				t.Errorf("%s: %s asks for nothing", p.Title, target.Expr)
			}
			for _, m := range found {
				if labels[m] == nil {
					t.Errorf("%s: there is no metric %s", p.Title, m)
				}
			}
			for _, m := range label.FindAllStringSubmatch(target.Expr, -1) {
				for _, l := range regexp.MustCompile(`([a-z_]+)[=!]~?"`).FindAllStringSubmatch(m[2], -1) {
					if !strings.Contains(" "+strings.Join(labels[m[1]], " ")+" ", " "+l[1]+" ") {
						t.Errorf("%s: %s has no label %s", p.Title, m[1], l[1])
					}
				}
			}
		}
	}
	if queries < 10 {
		t.Errorf("only %d queries", queries)
	}
}

func BenchmarkMetrics(b *testing.B) {
	box := usedBox(b, protectAll(b))
	registry := prometheus.NewRegistry()
	registry.MustRegister(box.Metrics())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := registry.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}
