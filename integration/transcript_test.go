package integration

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"bitw/integration/netlab"
)

// A section of README.md: its commands, which are the lines of blocks that are indented by
// four spaces, and its configurations.
type section struct {
	title    string
	commands []string
	yaml     []string
}

// readme cuts README.md into sections.
func readme(t testing.TB) []section {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(source(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var (
		all    = []section{{}}
		fence  string // the language of the block that is open
		inside bool
		yaml   strings.Builder
	)
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		s := &all[len(all)-1]
		switch {
		case strings.HasPrefix(line, "```"):
			if inside = !inside; inside {
				fence = strings.TrimPrefix(line, "```")
			} else if fence == "yaml" {
				s.yaml = append(s.yaml, yaml.String())
				yaml.Reset()
			}
		case inside:
			yaml.WriteString(line + "\n")
		case strings.HasPrefix(line, "#"):
			all = append(all, section{title: strings.TrimLeft(line, "# ")})
		case strings.HasPrefix(line, "    ") && strings.TrimSpace(line) != "":
			s.commands = append(s.commands, strings.TrimPrefix(line, "    "))
		}
	}
	return all
}

// elsewhere are commands of README.md that this transcript leaves out, by what they begin
// with, and why.
var elsewhere = map[string]string{
	"go test":                             "that is what runs here",
	"benchstat ":                          "compares what somebody has measured",
	"sudo bitw bench":                     "TestBench measures, for half a minute",
	"sudo bitw up --graph":                "TestR45 composes real hosts by a graph",
	"sudo bitw tap ":                      "with what comes after it, below",
	"sudo bitw observe ":                  "before the interface is cut, below",
	"sudo bitw up ":                       "in a terminal of its own, below",
	"sudo bitw keys invalidate ":          "with what comes after it, below",
	"(umask 077; openssl rand -hex 20 > ": "with the other end, below",
	"sudo bitw keys set ":                 "with the other end, below",
	"sudo bitw explain --pcap ":           "with a recorded packet, below",
	"sudo systemctl ":                     "needs a machine with systemd",
	"systemctl ":                          "needs a machine with systemd",
	"journalctl ":                         "needs a machine with systemd",
	"sudo bitw init eth0":                 "TestR50_Init writes a first configuration where there is none",
	"sudo apt":                            "would change this machine",
	"sudo dpkg":                           "would change this machine",
	"sudo timeout 120 bitw up ":           "as bitw up, and two minutes",
	"go run ":                             "builds what is not bitw",
	"wireshark ":                          "is for eyes",
	"sudo bitw capture -w - | ":           "so is this, and TestR50_Capture pipes to tshark",
	"tshark ":                             "TestR49 and the demo's test read captures with it",
	"go run ./cmd/bitw demo":              "first of all, below",
}

// shapes is what has to be seen of commands of README.md, by what they begin with; a status
// that may differ stands in statuses.
var shapes = []struct {
	command, seen string
}{
	{"sudo bitw check -c /etc/bitw/eth0.yaml", `(?s)^/etc/bitw/eth0.yaml is good\n.*[23] policies, the first match decides.*2 security associations`},
	{"ping -c 3 192.0.2.2", `3 packets transmitted, 3 received, 0% packet loss`},
	{"sudo bitw status", `(?s)^interface: eth0\n  state: active.*\npolicy: host-.\n  action: protect.*security association: a-to-b\n  kind: esp transport.*  last authenticated: .*failures: 0 authentication, 0 replay.*\nhealth`},
	{"sudo bitw neigh flush", `neighbours? (is|are) forgotten`},
	{"curl ", `"interface": ?"eth0"`},
	{"sudo bitw netcheck -c", `(?s)^privileges:\n  good .*kernel:\n.*interface:\n.*offload:\n.*company:\n.*path:\n.*clock:\n`},
	{"sudo bitw apply /etc/bitw/eth0.yaml --dry-run", `(?s)would make 1 change:.*policy "extra" added`},
	{"sudo bitw apply /etc/bitw/eth0.yaml  ", `(?s)is in force, with 1 change:.*policy "extra" added`},
	{"sudo bitw explain 'tcp ", `(?s)PROTECT.*policy +1 host-b`},
	{"sudo bitw explain 'esp ", `(?s)^esp 192.0.2.2 > 192.0.2.1.*spi`},
	{"bitw explain ", `PROTECT`},
	{"bitw keys list", `(?m)^a-to-b +.*valid`},
	{"bitw trace-level", `spiint`},
	{"bitw graph ", `ethdev`},
}

// statuses are exit statuses beside 0 that a command may have here: netcheck warns of what
// this machine lacks.
var statuses = map[string]int{"sudo bitw netcheck ": 1}

// endless are commands that go on until they are interrupted.
var endless = regexp.MustCompile(`bitw (trace|monitor|capture|status --watch)\b`)

// begins finds the longest key that a command begins with.
func begins[V any](m map[string]V, command string) (v V, ok bool) {
	best := -1
	for k, x := range m {
		if strings.HasPrefix(command, k) && len(k) > best {
			v, ok, best = x, true, len(k)
		}
	}
	return v, ok
}

// A tour is the two hosts of README.md, and who sits at them.
type tour struct {
	pair   *netlab.Pair
	a, b   *person
	c      *netlab.Host // on the same wire, with no address and nothing of bitw
	yaml   [2]string    // of README.md
	keys   string
	ups    [2]*netlab.Process
	upsOut [2]*netlab.Output
}

func newTour(t *testing.T) *tour {
	t.Helper()
	netlab.Require(t, netlab.Root(), netlab.TUN(), netlab.Namespaces(), overlays(), netlab.Tool("nft", "nftables"),
		netlab.Tool("ping", "iputils-ping"), netlab.Tool("curl", "curl"), netlab.Tool("openssl", "openssl"), netlab.Tool("nsenter", "util-linux"))
	lab := netlab.New(t)
	w := &tour{pair: lab.Pair(netlab.PairOptions{A: netlab.DefaultA()[:1], B: netlab.DefaultB()[:1]}), c: lab.Host("c")}
	if err := w.c.Plug(w.pair.Wire, "eth0", netlab.CardOptions{}); err != nil {
		t.Fatal(err)
	}
	w.a, w.b = newPerson(t, w.pair.A), newPerson(t, w.pair.B)
	t.Cleanup(func() { // pins and programs outlive a failed test otherwise
		for i, p := range w.people() {
			if w.ups[i] != nil {
				p.types("bitw down; bitw recover eth0")
			}
		}
	})
	return w
}

func (w *tour) people() [2]*person { return [2]*person{w.a, w.b} }

// install follows "Two hosts" up to the configurations.
func (w *tour) install(t testing.TB, s *section) {
	t.Helper()
	if len(s.yaml) != 2 {
		t.Fatalf("%q has %d configurations, expected those of two hosts", s.title, len(s.yaml))
	}
	w.yaml = [2]string{s.yaml[0], s.yaml[1]}
	for _, c := range s.commands {
		if _, skip := begins(elsewhere, c); skip || strings.Contains(c, "bitw check") {
			continue
		}
		w.a.must(c)
	}
	w.keys = w.a.must("cat /etc/bitw/eth0.keys")
	// The other host gets program and keys from this one.
	program := w.a.shell(deadline(t, patience), "cat /usr/local/sbin/bitw")
	var octets bytes.Buffer
	program.Stdout = &octets
	proc, err := w.pair.A.Start(program)
	if err != nil {
		t.Fatal(err)
	}
	if err := proc.Wait(); err != nil {
		t.Fatal(err)
	}
	w.b.writes("bitw", octets.String())
	w.b.writes("eth0.keys", w.keys)
	for _, c := range s.commands {
		switch {
		case strings.Contains(c, "go build"):
			_, c, _ = strings.Cut(c, "&& ")
			c = "chmod 755 bitw && " + c
		case strings.Contains(c, "openssl rand"), strings.Contains(c, "bitw check"):
			continue
		}
		if _, skip := begins(elsewhere, c); !skip {
			w.b.must(c)
		}
	}
	w.configure(w.yaml[0], w.yaml[1])
}

func (w *tour) configure(a, b string) {
	w.a.writes("/etc/bitw/eth0.yaml", a)
	w.b.writes("/etc/bitw/eth0.yaml", b)
}

// up types bitw up in a terminal.
func (w *tour) up(i int) {
	p := w.people()[i]
	w.ups[i], w.upsOut[i] = p.terminal("sudo bitw up -c /etc/bitw/eth0.yaml", "eth0 is cut and protected; see what passes with: bitw status")
}

// again ends bitw where it runs, has it forget what was sent with keys that nobody has any
// more, and starts it with the configurations of README.md.
func (w *tour) again(t testing.TB) {
	t.Helper()
	for i, p := range w.people() {
		if w.ups[i] != nil {
			p.types("bitw down")
			_ = w.ups[i].Wait()
			w.ups[i] = nil
		}
	}
	w.fresh()
	w.configure(w.yaml[0], w.yaml[1])
	for i := range w.people() {
		w.up(i)
	}
}

// fresh makes new keys at both ends.
func (w *tour) fresh() {
	w.keys = w.a.must(`{ echo "a-to-b $(openssl rand -hex 20)"; echo "b-to-a $(openssl rand -hex 20)"; }`)
	for _, p := range w.people() {
		p.writes("/etc/bitw/eth0.keys", w.keys)
	}
}

// answered expects pings from host A to be answered, if need be when they are sent once
// more, or none of them.
func (w *tour) answered(t testing.TB, command string, want bool) {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		seen, _ := w.a.types(command)
		if got := !strings.Contains(seen, " 0 received"); got == want {
			return
		} else if got || time.Now().After(end) {
			t.Errorf("%s: answered %v, expected %v:\n%s", command, got, want, seen)
			return
		}
	}
}

// see runs a command of README.md and compares the shape of what is seen.
func see(t testing.TB, p *person, command string) {
	t.Helper()
	if endless.MatchString(command) {
		seen, status := p.typesFor(time.Minute, "timeout --signal INT 3 "+command)
		if status != 0 && status != 124 && status != 130 || strings.Contains(seen, "--help' for how it is called") {
			t.Errorf("%s# %s\nended with %d:\n%s", p.host.Name(), command, status, seen)
		}
		return
	}
	seen, status := p.types(command)
	if also, ok := begins(statuses, command); status != 0 && !(ok && status == also) {
		t.Errorf("%s# %s\nended with %d:\n%s", p.host.Name(), command, status, seen)
	}
	for _, x := range shapes {
		if strings.HasPrefix(command, x.command) && !regexp.MustCompile(x.seen).MatchString(seen) {
			t.Errorf("%s# %s\nis not of the shape %s:\n%s", p.host.Name(), command, x.seen, seen)
		}
	}
}

// TestR50_Readme follows README.md from zero to protected traffic, by its own commands.
func TestR50_Readme(t *testing.T) {
	w := newTour(t)
	sections := readme(t)
	find := func(title string) *section {
		for i := range sections {
			if sections[i].title == title {
				return &sections[i]
			}
		}
		t.Fatalf("README.md has no section %q", title)
		return nil
	}
	if seen := w.a.must("go run ./cmd/bitw demo"); !strings.Contains(seen, "ESP") {
		t.Errorf("the demo says:\n%s", seen)
	}
	hosts := find("Two hosts")
	w.install(t, hosts)
	w.a.writes("eth0.yaml", w.yaml[0])

	observe := ""
	for _, s := range sections {
		for _, c := range s.commands {
			if strings.HasPrefix(c, "sudo bitw observe ") {
				observe = strings.NewReplacer("--for 1m", "--for 2s").Replace(c)
			}
		}
	}
	if observe == "" {
		t.Error("README.md does not observe")
	} else {
		w.a.must("(sleep 1; ping -c 2 -W 1 192.0.2.2 > /dev/null) & " + observe)
	}
	for i, p := range w.people() {
		for _, c := range hosts.commands {
			if strings.Contains(c, "bitw check") {
				see(t, p, c)
			}
		}
		w.up(i)
	}
	c := watchClear(w.pair, 256)
	ran := 0
	for _, s := range sections {
		if s.title == "Two hosts" || s.title == "Composed by a graph" {
			continue
		}
		for _, command := range s.commands {
			if _, skip := begins(elsewhere, command); skip || !strings.Contains(command, "bitw") && !strings.HasPrefix(command, "ping ") {
				continue
			}
			if strings.Contains(command, "--dry-run") { // of a change
				w.a.writes("/etc/bitw/eth0.yaml", w.yaml[0]+"  - {name: extra, remote: 192.0.2.99, action: bypass}\n")
			}
			ran++
			see(t, w.a, command)
		}
		if s.title == "Does it work?" {
			see(t, w.b, "sudo bitw status")
			allESP(t, c)
		}
	}
	if ran < 12 {
		t.Errorf("only %d commands of README.md were found", ran)
	}

	w.a.must("cp demo.pcapng trouble.pcapng")
	for _, s := range sections {
		for _, command := range s.commands {
			switch {
			case strings.HasPrefix(command, "sudo bitw explain --pcap "):
				see(t, w.a, command)
			case strings.HasPrefix(command, "sudo bitw up -c") && strings.Contains(command, "--takeover"):
				before := w.ups[0]
				w.ups[0], w.upsOut[0] = w.a.terminal(command, "eth0 is cut and protected")
				if err := before.Wait(); err != nil {
					t.Errorf("the bitw before ended: %v", err)
				}
				w.answered(t, "ping -c 1 -W 2 192.0.2.2", true)
			case strings.HasPrefix(command, "sudo bitw tap "):
				see(t, w.a, command)
				w.answered(t, "ping -c 1 -W 1 192.0.2.2", false) // in the clear, which the other end refuses
				seen, status := w.a.types("sudo bitw status --check")
				if status != 2 || !strings.Contains(seen, "CRITICAL") || !strings.Contains(seen, "bitw tap eth0 active") {
					t.Errorf("status --check of taps that are closed: %d\n%s", status, seen)
				}
				w.a.must("sudo bitw tap eth0 active")
				w.answered(t, "ping -c 1 -W 2 192.0.2.2", true)
			case strings.HasPrefix(command, "(umask 077; openssl rand -hex 20 > "):
				w.a.must(command)
			case strings.HasPrefix(command, "sudo bitw keys set "):
				see(t, w.a, command)
				w.answered(t, "ping -c 1 -W 1 192.0.2.2", false)
				w.b.writes("a-to-b.key", w.a.must("cat a-to-b.key"))
				w.b.must("sudo bitw keys set a-to-b < a-to-b.key")
				w.answered(t, "ping -c 1 -W 2 192.0.2.2", true)
			case strings.HasPrefix(command, "sudo bitw keys invalidate "):
				see(t, w.a, command)
				w.answered(t, "ping -c 1 -W 1 192.0.2.2", false)
				if seen, _ := w.a.types("sudo bitw status"); !strings.Contains(seen, "critical: SA a-to-b: its key is invalid, so it drops everything") {
					t.Errorf("the status of an SA without a key:\n%s", seen)
				}
			}
		}
	}
	for i, p := range w.people() {
		p.must("sudo bitw down")
		if err := w.ups[i].Wait(); err != nil {
			t.Errorf("bitw up ended: %v\n%s", err, w.upsOut[i])
		}
		w.ups[i] = nil
	}
	w.answered(t, "ping -c 1 -W 1 192.0.2.2", false)
	for _, p := range w.people() {
		p.must("sudo bitw recover eth0")
	}
	w.answered(t, "ping -c 1 -W 2 192.0.2.2", true)
}
