package integration

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bitw/integration/netlab"
)

// A question is what somebody asks whose packets do not arrive, and what the answer has to
// name: the cause, and what to do next.
type question struct {
	who     int // 0 at host A, 1 at host B
	command string
	status  int // -1: any
	names   []string
}

// lacks says whether an answer does not name all.
func (q *question) lacks(seen string) bool {
	return slices.ContainsFunc(q.names, func(name string) bool { return !strings.Contains(seen, name) })
}

// A turn is a way to go wrong. After it and again, all is well.
type turn struct {
	name string
	// wrong makes it so.
	wrong func(t *testing.T, w *tour)
	// asks are at most two.
	asks []question
	// mend does what the answers say, and expects that it helps.
	mend func(t *testing.T, w *tour, answers []string)
}

const (
	statusAsked = "sudo bitw status"
	lost        = "ping -c 2 -W 1 192.0.2.2"
)

// restarted begins both hosts anew, the second with a configuration of its own.
func (w *tour) restarted(t *testing.T, b string) {
	t.Helper()
	w.again(t)
	w.b.must("sudo bitw down")
	_ = w.ups[1].Wait()
	w.b.writes("/etc/bitw/eth0.yaml", b)
	w.up(1)
}

// applied writes configurations and puts them in force.
func (w *tour) applied(a, b string) {
	w.configure(a, b)
	for _, p := range w.people() {
		p.must("sudo bitw apply /etc/bitw/eth0.yaml")
	}
}

// suggested is the policy that an answer writes down, with a name.
func suggested(t *testing.T, answer string) string {
	t.Helper()
	rule := regexp.MustCompile(`\{name: NAME, [^}]*\}`).FindString(answer)
	if rule == "" {
		t.Fatalf("no policy is suggested in\n%s", answer)
	}
	return "  - " + strings.Replace(rule, "NAME", "suggested", 1) + "\n"
}

// TestR50_WrongTurns takes the wrong turns of whoever sets bitw up for the first time. Each
// leads to an answer within two commands.
func TestR50_WrongTurns(t *testing.T) {
	w := newTour(t)
	for _, s := range readme(t) {
		if s.title == "Two hosts" {
			w.install(t, &s)
		}
	}
	if t.Failed() || w.keys == "" {
		t.Fatal("README.md does not lead to two hosts")
	}
	for _, x := range turns {
		t.Run(x.name, func(t *testing.T) {
			w.a.t, w.b.t = t, t
			if len(x.asks) > 2 {
				t.Fatalf("%d questions", len(x.asks))
			}
			x.wrong(t, w)
			var answers []string
			for _, q := range x.asks {
				p := w.people()[q.who]
				seen, status := p.types(q.command)
				// What has just been sent may not have been counted yet.
				for end := time.Now().Add(patience); q.lacks(seen) && time.Now().Before(end); {
					seen, status = p.types(q.command)
				}
				if q.status >= 0 && status != q.status {
					t.Errorf("%s# %s: exit status %d, expected %d", p.host.Name(), q.command, status, q.status)
				}
				for _, name := range q.names {
					if !strings.Contains(seen, name) {
						t.Errorf("%s# %s\ndoes not name %q:\n%s", p.host.Name(), q.command, name, seen)
					}
				}
				answers = append(answers, seen)
			}
			if x.mend != nil {
				x.mend(t, w, answers)
			}
		})
	}
	w.a.t, w.b.t = t, t
}

// nobody runs a command as a user without rights.
func nobody(command string) string {
	return "setpriv --reuid 65534 --regid 65534 --clear-groups " + command
}

var turns = []turn{
	{
		name: "a wrong key",
		wrong: func(t *testing.T, w *tour) {
			w.again(t)
			w.b.must("sudo bitw down")
			_ = w.ups[1].Wait()
			w.b.writes("/etc/bitw/eth0.keys", w.b.must(`{ echo "a-to-b $(openssl rand -hex 20)"; echo "b-to-a $(openssl rand -hex 20)"; }`))
			w.up(1)
			w.answered(t, lost, false)
		},
		asks: []question{
			{0, statusAsked, 0, []string{"policy host-b: 2 packets went out and none came back", "is bitw up at the other end, with the same keys? See bitw status there"}},
			{1, statusAsked, 0, []string{"critical: SA a-to-b: 2 packets from 192.0.2.1 failed authentication", "keys or algorithms of the two ends differ: give both the same"}},
		},
		mend: func(t *testing.T, w *tour, _ []string) {
			w.again(t)
			w.answered(t, lost, true)
		},
	},
	{
		name: "an SPI that differs",
		wrong: func(t *testing.T, w *tour) {
			w.restarted(t, strings.Replace(w.yaml[1], "spi: 0x1001", "spi: 0x1011", 1))
			w.answered(t, lost, false)
		},
		asks: []question{
			{0, statusAsked, 0, []string{"2 packets went out and none came back", "See bitw status there"}},
			{1, statusAsked, 0, []string{"2 packets came with an SPI that no SA here has", "esp 192.0.2.1 > 192.0.2.2 spi 0x00001001",
				"SAs here for packets from 192.0.2.1 are a-to-b with spi 0x00001011 for 192.0.2.2: make spi and destination the same at both ends"}},
		},
		mend: func(t *testing.T, w *tour, _ []string) {
			w.applied(w.yaml[0], w.yaml[1])
			w.answered(t, lost, true)
		},
	},
	{
		name: "a rule is missing",
		wrong: func(t *testing.T, w *tour) {
			w.again(t)
			w.b.must("ip addr add 192.0.2.3/24 dev eth0")
			w.answered(t, "ping -c 2 -W 1 192.0.2.3", false)
		},
		asks: []question{
			{0, statusAsked, 0, []string{"2 packets matched no policy, which is discard", "icmp 192.0.2.1 > 192.0.2.3", "if that should pass, add a policy such as {name: NAME, local: 192.0.2.1, remote: 192.0.2.3, protocol: icmp, action: bypass}"}},
			{0, "sudo bitw explain 'icmp 192.0.2.1 > 192.0.2.3'", 0, []string{"DISCARD: no policy matches", "not 1 host-b (protect): remote 192.0.2.3, expected 192.0.2.2", "add a policy"}},
		},
		mend: func(t *testing.T, w *tour, answers []string) {
			w.applied(w.yaml[0]+suggested(t, answers[0]), w.yaml[1])
			w.answered(t, "ping -c 2 -W 1 192.0.2.3", false)
			var seen string
			eventually(t, "host B suggests a policy", func() bool {
				seen, _ = w.b.types(statusAsked)
				return strings.Contains(seen, "{name: NAME")
			})
			w.applied(w.yaml[0]+suggested(t, answers[0]), w.yaml[1]+suggested(t, seen))
			w.answered(t, "ping -c 2 -W 1 192.0.2.3", true)
			w.b.must("ip addr del 192.0.2.3/24 dev eth0")
		},
	},
	{
		name: "policies that are not each other's mirror",
		wrong: func(t *testing.T, w *tour) {
			w.restarted(t, strings.Replace(w.yaml[1], "    remote: 192.0.2.1\n", "    remote: 192.0.2.1\n    protocol: tcp\n", 1))
			w.answered(t, lost, false)
		},
		asks: []question{
			{1, statusAsked, 0, []string{"2 packets came by SA a-to-b, and the policy of that SA is not for what was in them", "compare addresses, protocol and ports of both policies"}},
			{1, "sudo bitw policy", 0, []string{"host-a  protect  both  local 192.0.2.2 remote 192.0.2.1 tcp"}},
		},
		mend: func(t *testing.T, w *tour, _ []string) {
			w.applied(w.yaml[0], w.yaml[1])
			w.answered(t, lost, true)
		},
	},
	{
		name: "modes that differ",
		wrong: func(t *testing.T, w *tour) {
			w.restarted(t, strings.ReplaceAll(w.yaml[1], "mode: transport", "mode: tunnel"))
			w.answered(t, lost, false)
		},
		asks: []question{{1, statusAsked, 0, []string{"SA a-to-b: 2 packets hold what its mode does not allow", "set mode: alike at both ends"}}},
	},
	{
		name: "ESP in UDP at one end alone",
		wrong: func(t *testing.T, w *tour) {
			w.restarted(t, strings.ReplaceAll(w.yaml[1], "algorithm: aes128gcm16", "algorithm: aes128gcm16\n    encap: yes"))
			w.answered(t, lost, false)
			w.b.types("ping -c 1 -W 1 192.0.2.1")
		},
		asks: []question{
			{0, statusAsked, 0, []string{"udp 192.0.2.2:4500 > 192.0.2.1:4500", "the other end sends ESP in UDP: set encap: alike at both ends"}},
			{1, statusAsked, 0, []string{"SA a-to-b: 2 packets came with UDP encapsulation where it wants none, or without where it wants it", "set encap: alike at both ends"}},
		},
	},
	{
		name: "a hole that swallows large packets",
		wrong: func(t *testing.T, w *tour) {
			w.again(t)
			w.hole("add table bridge hole; add chain bridge hole f { type filter hook forward priority 0; }; add rule bridge hole f meta length > 1400 drop")
			w.answered(t, lost, true)
			w.answered(t, "ping -c 1 -W 1 -s 1400 -M do 192.0.2.2", false)
		},
		asks: []question{
			{0, "sudo bitw netcheck -c /etc/bitw/eth0.yaml", 1, []string{"peer 192.0.2.2: the path takes about 1400 octets, less than the 1500 of the interface",
				"set mtu: 1400 in the configuration, here and there, and bitw apply it"}},
		},
		mend: func(t *testing.T, w *tour, _ []string) {
			w.applied("mtu: 1400\n"+w.yaml[0], "mtu: 1400\n"+w.yaml[1])
			if _, err := netlab.HTTPTransfer(deadline(t, patience), w.pair.A, w.pair.B, a4, 1<<20); err != nil {
				t.Error(err)
			}
			spoken(t, w.pair.A, w.pair.B)
			w.hole("delete table bridge hole")
		},
	},
	{
		name: "the peer is not there",
		wrong: func(t *testing.T, w *tour) {
			w.again(t)
			w.wire("ip link set port-b nomaster")
			w.answered(t, "ping -c 4 -W 1 192.0.2.2", false)
		},
		asks: []question{
			{0, statusAsked, 0, []string{"went to a next hop that does not answer ARP or neighbour discovery: 192.0.2.2", "is the other end up, and the route right? See bitw neigh and bitw route"}},
		},
		mend: func(t *testing.T, w *tour, _ []string) {
			w.wire("ip link set port-b master br0")
			w.answered(t, "ping -c 5 -W 2 192.0.2.2", true)
		},
	},
	{
		name: "bitw does not run at the peer",
		wrong: func(t *testing.T, w *tour) {
			w.again(t)
			w.b.must("sudo bitw down; sudo bitw recover eth0")
			_ = w.ups[1].Wait()
			w.ups[1] = nil
			w.answered(t, lost, false)
			w.b.types("ping -c 1 -W 1 192.0.2.1")
		},
		asks: []question{
			{0, statusAsked, 0, []string{"critical: policy host-b: 1 packet that must be protected came in the clear", "icmp 192.0.2.2 > 192.0.2.1", "the other end does not protect this traffic: see that IPsec runs there"}},
			{1, statusAsked, 1, []string{"none runs here", "start one with: bitw up -c FILE"}},
		},
		mend: func(t *testing.T, w *tour, _ []string) {
			w.up(1)
			w.answered(t, lost, true)
		},
	},
	{
		name: "another station has the peer's address",
		wrong: func(t *testing.T, w *tour) {
			w.again(t)
			w.third("ip addr add 192.0.2.2/24 dev eth0")
			w.a.must("sudo bitw neigh flush")
			w.a.types(lost)
		},
		asks: []question{
			{0, statusAsked, 0, []string{"both say that they have 192.0.2.2", "give one of the two another address; until then bitw neigh add 192.0.2.2 MAC holds the right one"}},
		},
		mend: func(t *testing.T, w *tour, _ []string) {
			w.a.must(fmt.Sprintf("sudo bitw neigh add 192.0.2.2 %02x:%02x:%02x:%02x:%02x:%02x", anys(mac(t, w.pair.B))...))
			w.answered(t, lost, true)
			w.third("ip addr flush dev eth0")
		},
	},
	{
		name: "another station has this host's address",
		wrong: func(t *testing.T, w *tour) {
			w.again(t)
			w.third("ip addr add 192.0.2.1/24 dev eth0; ping -c 1 -W 1 192.0.2.2 || true")
		},
		asks: []question{
			{0, statusAsked, 0, []string{"says that it has 192.0.2.1, which is this host's", "give one of them another"}},
		},
		mend: func(t *testing.T, w *tour, _ []string) { w.third("ip addr flush dev eth0") },
	},
	{
		name:  "a clock that nobody keeps",
		wrong: func(t *testing.T, w *tour) { w.again(t) },
		// Of this machine's clock nothing may be changed: it is told what it is.
		asks: []question{{0, "sudo bitw netcheck eth0", -1, []string{"clock:\n"}}},
		mend: func(t *testing.T, _ *tour, answers []string) {
			var kept unix.Timex
			state, err := unix.Adjtimex(&kept)
			_, seen, _ := strings.Cut(answers[0], "clock:\n")
			if warned := strings.Contains(seen, "the clock is not kept by anybody") && strings.Contains(seen, "run an NTP client"); err == nil && warned != (state == unix.TIME_ERROR || kept.Status&unix.STA_UNSYNC != 0) {
				t.Errorf("the kernel says %d of the clock (status %#x), and bitw\n%s", state, kept.Status, seen)
			}
		},
	},
	{
		name: "the name of the interface is misspelt",
		wrong: func(t *testing.T, w *tour) {
			w.a.writes("wrong.yaml", strings.Replace(w.yaml[0], "interface: eth0", "interface: eht0", 1))
		},
		asks: []question{
			{0, "sudo bitw up -c wrong.yaml", 1, []string{`wrong.yaml:1:12: no such interface: "eht0"; name one of eth0`}},
			{0, "sudo bitw status eht0", 1, []string{"none runs behind /run/bitw/eht0.sock; it runs here on eth0: bitw status eth0"}},
		},
	},
	{
		name:  "a second bitw on the interface",
		wrong: func(t *testing.T, w *tour) { w.a.writes("second.yaml", w.yaml[0]) },
		asks: []question{
			{0, "sudo bitw up -c second.yaml", 1, []string{"interface eth0 is already taken by the bitw of process", "bitw status eth0 asks it", "bitw up --takeover takes its place", "bitw down eth0 ends it"}},
			{0, "sudo bitw recover eth0", 1, []string{"bitw down eth0 ends it first"}},
		},
	},
	{
		name: "a folder for the state that cannot be written",
		wrong: func(t *testing.T, w *tour) {
			w.a.must("sudo bitw down")
			_ = w.ups[0].Wait()
			w.ups[0] = nil
			w.a.must("mount -o remount,ro /var/lib")
		},
		asks: []question{
			{0, "sudo bitw up -c /etc/bitw/eth0.yaml", 1, []string{"state_dir", "/var/lib/bitw", "read-only", "name another folder as state_dir"}},
		},
		mend: func(t *testing.T, w *tour, _ []string) {
			w.a.must("mount -o remount,rw /var/lib")
			w.again(t)
			w.answered(t, lost, true)
		},
	},
	{
		name: "without root",
		wrong: func(t *testing.T, w *tour) {
			w.a.must("install -d -o 65534 -g 65534 -m 700 /run/nobody && install -o 65534 -g 65534 -m 600 /etc/bitw/eth0.* /run/nobody")
		},
		asks: []question{
			{0, nobody("bitw up -c /run/nobody/eth0.yaml"), 1, []string{"needs root", "run it as root"}},
			{0, nobody("bitw status"), 1, []string{"/run/bitw/eth0.sock is not for this user (uid 65534); ask as root, or see control_group"}},
		},
	},
	{
		name: "a key of the configuration is misspelt",
		wrong: func(t *testing.T, w *tour) {
			w.a.writes("wrong.yaml", strings.Replace(w.yaml[0], "key_file: eth0.keys", "key_flie: eth0.keys", 1))
			w.a.must("cp /etc/bitw/eth0.keys eth0.keys")
		},
		asks: []question{
			{0, "bitw check -c wrong.yaml", 1, []string{`wrong.yaml:13:5: unknown key "key_flie" in a security association`, `did you mean "key_file"?`, "in wrong.yaml"}},
		},
	},
	{
		name: "a configuration with keys that others can read",
		wrong: func(t *testing.T, w *tour) {
			w.a.writes("open.yaml", w.yaml[0])
			w.a.must("chmod 644 eth0.keys")
		},
		asks: []question{
			{0, "bitw check -c open.yaml", 1, []string{"open.yaml:13:15: key file eth0.keys has mode 0644, which lets group or others use it", "chmod 600 eth0.keys"}},
		},
		mend: func(t *testing.T, w *tour, _ []string) { w.a.must("chmod 600 eth0.keys; bitw check -c open.yaml") },
	},
	{
		name:  "a file that cannot be read",
		wrong: func(t *testing.T, w *tour) {},
		asks: []question{
			{0, nobody("bitw check -c /etc/bitw/eth0.yaml"), 1, []string{"/etc/bitw/eth0.yaml: the configuration cannot be read: permission denied", "run as the user who owns it, or as root"}},
			{0, "bitw check -c /etc/bitw/eht0.yaml", 1, []string{"/etc/bitw/eht0.yaml: the configuration does not exist"}},
		},
	},
}

// hole puts rules of nftables on the wire between the hosts.
func (w *tour) hole(rules string) {
	w.wire("nft '" + rules + "'")
}

// wire runs a command in the namespace between the hosts, and third at the third host.
func (w *tour) wire(command string) { w.at(&w.pair.Wire.Namespace, command) }

func (w *tour) third(command string) { w.at(&w.c.Namespace, command) }

func (w *tour) at(n *netlab.Namespace, command string) {
	w.a.t.Helper()
	if _, err := n.Run(deadline(w.a.t, patience), "bash", "-c", command); err != nil {
		w.a.t.Fatal(err)
	}
}

func anys(octets []byte) (list []any) {
	for _, o := range octets {
		list = append(list, o)
	}
	return list
}
