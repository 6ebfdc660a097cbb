package appliance

import (
	"errors"
	"io"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"

	"bitw/config"
	"bitw/netstack/trace"
)

// logLines keeps what is logged.
type logLines struct {
	mu    sync.Mutex
	lines []string
}

func (l *logLines) Levels() []logrus.Level { return logrus.AllLevels }

func (l *logLines) Fire(e *logrus.Entry) error {
	text, err := e.String()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, text)
	return err
}

// count is how many lines have all words.
func (l *logLines) count(words ...string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		has := true
		for _, w := range words {
			has = has && strings.Contains(line, w)
		}
		if has {
			n++
		}
	}
	return n
}

// await waits for a line.
func (l *logLines) await(t *testing.T, words ...string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); l.count(words...) == 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no line with %q in\n%s", words, strings.Join(l.lines, ""))
		}
	}
}

func keepLog() (*logrus.Logger, *logLines) {
	log, lines := logrus.New(), &logLines{}
	log.SetOutput(io.Discard)
	log.SetFormatter(&logrus.TextFormatter{DisableColors: true, DisableTimestamp: true})
	log.AddHook(lines)
	return log, lines
}

func TestR46_TraceLevelsOfPackets(t *testing.T) {
	log, lines := keepLog()
	cfg := protectAll(t)
	cfg.Trace = []config.TraceLevel{{Node: "spiint", Level: trace.FunctionalTrace}}
	p := newMemoryPair(t, cfg, mirror(protectAllWithout(cfg)), WithLogger(log))
	p.datagrams(t, 1)
	lines.await(t, "node=spiint", "level=TR_FUNCTIONAL_TRACE", `msg="v4: protect"`, "udp 192.0.2.1")
	if n := lines.count("node=rfc1825"); n != 0 {
		t.Errorf("%d lines of a node that is not on", n)
	}
	for node, words := range map[string]string{
		"rfc1825": "sealed by ab", "saidmgr": "ba 0x00002001", "ethdev": "to the wire", "ethkern": "from the host",
		"arp/1": "known", "ipf_udp": "udp turned round to the wire",
	} {
		if err := p.boxA.SetTraceLevel(node, "TR_FULL_TRACE"); err != nil {
			t.Fatal(err)
		}
		p.datagrams(t, 1)
		lines.await(t, "node="+node, words)
		if err := p.boxA.SetTraceLevel(node, "TR_ALWAYS"); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.boxA.SetTraceLevel("spiint", "TR_ERRORS"); err != nil {
		t.Fatal(err)
	}
	if p.boxA.trace.ofPackets() || p.boxA.trace.log.watching != nil {
		t.Error("nothing is on, and packets are still looked at")
	}
	// A flood is bounded, and what is missing is counted.
	if err := p.boxA.SetTraceLevel("ethdev", "TR_FULL_TRACE"); err != nil {
		t.Fatal(err)
	}
	before := lines.count("node=ethdev")
	p.datagrams(t, 2000)
	if n := lines.count("node=ethdev") - before; n > 10*traceLinesPerSecond {
		t.Errorf("%d lines", n)
	}
	for _, bad := range [][2]string{{"eth/9", "TR_EVENTS"}, {"spiint", "TR_NOTHING"}} {
		if err := p.boxA.SetTraceLevel(bad[0], bad[1]); !errors.Is(err, ErrTraceLevel) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// datagrams sends so many over UDP from a to b, of which nobody waits for any. Up to half of
// them are not sent: b tells that nobody waits, and each time the next write fails.
func (p *memoryPair) datagrams(t testing.TB, n int) {
	t.Helper()
	p.datagramsTo(t, p.b.v4, n)
}

// datagramsTo sends n UDP datagrams from a to an address.
func (p *memoryPair) datagramsTo(t testing.TB, to netip.Addr, n int) {
	t.Helper()
	c, err := gonet.DialUDP(p.a.stack, nil, &tcpip.FullAddress{NIC: 1, Addr: addressOf(to), Port: 9}, protocolOf(to))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range n {
		if _, err := c.Write(make([]byte, 100)); err != nil && n == 1 {
			t.Fatal(err)
		}
	}
}

// protectAllWithout is the same without trace levels.
func protectAllWithout(c config.Config) config.Config {
	c.Trace = nil
	return c
}

// A graph's trace= sets the levels of its nodes, and its transforms have one each.
func TestR46_TraceLevelsOfGraph(t *testing.T) {
	r := newRows(t)
	levels := make(map[string]string)
	for _, x := range r.pair.boxA.TraceLevels() {
		levels[x.Node] = x.Level
	}
	for node, want := range map[string]string{
		"init": "TR_FULL_TRACE", "watchdog": "TR_FULL_TRACE", "ip": "TR_ERRORS", "crypt": "TR_ERRORS", "km/md5": levels["km"],
	} {
		if levels[node] != want {
			t.Errorf("%s is at %q, want %q", node, levels[node], want)
		}
	}
	a := r.pair.boxA
	if err := a.SetTraceLevel("md5", "TR_DETAILED"); err != nil {
		t.Fatal(err)
	}
	if name, on := a.trace.on(trace.RFC1825, trace.Detailed, "kpdkmd5"); !on || name != "md5" {
		t.Errorf("md5 is on for its algorithm: %q, %v", name, on)
	}
	if _, on := a.trace.on(trace.RFC1825, trace.Detailed, "desiv64"); on {
		t.Error("md5 speaks for DES")
	}
}

func TestR46_TraceLevelsByControl(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	cfg := protectAll(t)
	cfg.Control = path
	box, _ := loneBox(t, cfg)
	<-box.Ready()
	for _, c := range []struct {
		body string
		code int
		says string
	}{
		{`{"node":"ip","level":"TR_EVENTS"}`, http.StatusNoContent, ""},
		{`{"node":"nobody","level":"TR_EVENTS"}`, http.StatusBadRequest, "known are init"},
		{`{"node":"ip","level":"high"}`, http.StatusBadRequest, "TR_FULL_TRACE"},
	} {
		if code, text := ask(t, path, "POST", "/v1/trace-levels", c.body); code != c.code || !strings.Contains(text, c.says) {
			t.Errorf("%s: %d %s", c.body, code, text)
		}
	}
	if code, text := ask(t, path, "GET", "/v1/trace-levels", ""); code != http.StatusOK || !strings.Contains(text, `{"node":"ip","level":"TR_EVENTS"`) {
		t.Errorf("%d %s", code, text)
	}
}

// A configuration that is applied sets the levels that it changes, and no others.
func TestR46_TraceLevelsApplied(t *testing.T) {
	cfg := protectAll(t)
	cfg.Trace = []config.TraceLevel{{Node: "ip", Level: trace.Events}, {Node: "sink", Level: trace.Events}}
	box, _ := loneBox(t, cfg)
	<-box.Ready()
	if err := box.SetTraceLevel("eth/0", "TR_DETAILED"); err != nil {
		t.Fatal(err)
	}
	next := cfg
	next.Trace = []config.TraceLevel{{Node: "sink", Level: trace.Events}, {Node: "spiint", Level: trace.FunctionalTrace}}
	if _, err := box.Apply(next, false); err != nil {
		t.Fatal(err)
	}
	for node, want := range map[string]trace.Level{
		"ip": trace.DefaultLevel, "sink": trace.Events, "spiint": trace.FunctionalTrace, "eth/0": trace.Detailed,
	} {
		if got := box.trace.find(node).node.Level(); got != want {
			t.Errorf("%s is at %v, want %v", node, got, want)
		}
	}
}
