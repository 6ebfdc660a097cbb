package appliance

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"bitw/config"
	"bitw/config/graphcomp"
	"bitw/netstack/hook"
	"bitw/netstack/trace"
	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
)

// rows is the listing at work, with the options of one host.
type rows struct {
	graph *graphcomp.Graph
	cfg   config.Config
	pair  *memoryPair
	bump  *bump // of host a
}

func newRows(t *testing.T) *rows {
	t.Helper()
	files := keysOfTheTime()
	files["km/sauser"] += "192.0.2.1/192.0.2.6 0x0\n"
	files["km/b"] = "192.0.2.9 0x3001\n"
	files["km/alg"] += "0x3001/192.0.2.9 06\n"
	files["rom"] = `romopt watchdog timeout 7s;
romopt arp/1 static 192.0.2.9 02:00:00:00:00:09; romopt arp/1 locked 192.0.2.8 02:00:00:00:00:08;
romopt ip route 198.51.100.0/24 192.0.2.2;
romopt vnet mtu 1400;
`
	files["prottbl"] = "ipf_udp 17\n"
	path := graphFolder(t, ancestor(t), files)
	cfg, known, err := LoadGraph(path, host4("192.0.2.1"))
	if err != nil {
		t.Fatal(err)
	}
	cfgB, knownB, err := LoadGraph(path, host4("192.0.2.2"))
	if err != nil {
		t.Fatal(err)
	}
	r := &rows{cfg: cfg, pair: newMemoryPair(t, cfg, cfgB, known, knownB)}
	r.bump = r.pair.boxA.bump.Load()
	r.graph = r.pair.boxA.opt.graph.Graph
	r.pair.transfer(t, false, 10<<10)
	if !r.pair.arrives(t) {
		t.Fatal("a datagram is lost")
	}
	return r
}

// keysOf is how many keys a manager holds.
func (r *rows) keysOf(manager string) int {
	return len(r.pair.boxA.opt.graph.keys.Map(manager).Keys())
}

// sealed makes an algorithm do a round trip with a key of n octets.
func sealed(name, option string, n int) func(*testing.T, *rows) {
	return func(t *testing.T, r *rows) {
		var options []string
		if option != "" {
			options = strings.Fields(option)
		}
		list, err := suites(name, options)
		if err != nil {
			t.Fatal(err)
		}
		if list[0].KeyLen != n {
			t.Errorf("keys of %d octets", list[0].KeyLen)
		}
		a, err := algorithms().Lookup(list[0].Protocol.Number(), list[0].Algorithm)
		if err != nil {
			t.Fatal(err)
		}
		x, err := throwaway(&a)
		if err != nil {
			t.Fatal(err)
		}
		if err := roundTrip(x, 100); err != nil {
			t.Error(err)
		}
	}
}

// holds expects a key manager to hold n keys.
func holds(manager string, n int) func(*testing.T, *rows) {
	return func(t *testing.T, r *rows) {
		if got := r.keysOf(manager); got != n {
			t.Errorf("%d keys, expected %d", got, n)
		}
	}
}

// forwards expects a forwarder's policy to have carried packets both ways.
func forwards(name string) func(*testing.T, *rows) {
	return func(t *testing.T, r *rows) {
		for _, p := range r.pair.boxA.Status().Policies {
			if p.Name == name+"/192.0.2.1/192.0.2.2" {
				if name != "ipf_icmp" && p.Out.Packets == 0 {
					t.Errorf("it forwarded nothing: %+v", p)
				}
				return
			}
		}
		t.Error("it has no policy")
	}
}

// TestR45_EveryNodeHasItsCounterpart has a row for each row of the table in the package
// comment of graphcomp.
func TestR45_EveryNodeHasItsCounterpart(t *testing.T) {
	r := newRows(t)
	expect := func(ok func(r *rows) bool) func(*testing.T, *rows) {
		return func(t *testing.T, r *rows) {
			if !ok(r) {
				t.Error("its counterpart does not do what the graph says")
			}
		}
	}
	list := []struct {
		node  string
		check func(*testing.T, *rows)
	}{
		{"watchdog", expect(func(r *rows) bool { return r.cfg.Watchdog == 7*time.Second && newWatchdog(r.pair.boxA, r.bump) != nil })},
		{"ethkern", expect(func(r *rows) bool { return r.bump.kern != nil && r.bump.stack.NICInfo()[1].Name == "kern" })},
		{"ethdev", expect(func(r *rows) bool { return r.bump.dev != nil && r.bump.stack.NICInfo()[2].Name == "dev" })},
		{"eth/0", expect(func(r *rows) bool { return r.bump.stack.HasNIC(1) && r.bump.classes[hook.Left] != nil })},
		{"eth/1", expect(func(r *rows) bool { return r.bump.stack.HasNIC(2) && r.bump.classes[hook.Right] != nil })},
		{"arp/0", expect(func(r *rows) bool { return r.cfg.Neighbors == config.Proxy && r.bump.proxy != nil })},
		{"arp/1", expect(func(r *rows) bool {
			n := r.cfg.StaticNeighbors
			return r.bump.neighbor != nil && len(n) == 2 && n[0].Address.String() == "192.0.2.9" && n[1].MAC.String() == "02:00:00:00:00:08"
		})},
		{"vnet", expect(func(r *rows) bool {
			return r.cfg.MTU == 1400 && r.bump.own(netip.MustParseAddr("192.0.2.1")) && !r.bump.own(netip.MustParseAddr("192.0.2.2"))
		})},
		{"rfc1825", func(t *testing.T, r *rows) {
			slots, err := table(r.graph)
			if err != nil || slots.Len() != 7 || !slices.Equal(slots.Numbers("md5"), []int{0, 1, 5}) {
				t.Errorf("slots: %v, md5 in %v", err, slots.Numbers("md5"))
			}
			// Slots 2 and 7 of the list hold the same plug-in.
			for _, name := range []string{"md5/0x00001002/192.0.2.2", "md5/0x00002002/192.0.2.1"} {
				if s, ok := r.cfg.SA(name); !ok || s.Algorithm != "kpdkmd5" {
					t.Errorf("SA %s: %+v", name, s)
				}
			}
		}},
		{"ip", expect(func(r *rows) bool { return len(r.cfg.Routes) == 1 && r.bump.engine != nil })},
		{"km/sauser", holds("km/sauser", 3)},
		{"km/b", func(t *testing.T, r *rows) {
			holds("km/b", 1)(t, r)
			if p, ok := r.cfg.Policy("ipf_tcp/to/192.0.2.9/out"); !ok || !slices.Equal(p.Out, []string{"tcrypt/0x00003001/192.0.2.9"}) {
				t.Errorf("policy %+v", p)
			}
		}},
		{"km/md5", holds("km/md5", 2)},
		{"km/alg", holds("km/alg", 5)},
		{"km/crypt", holds("km/crypt", 2)},
		{"km/tcrypt", holds("km/tcrypt", 2)},
		{"km/crypt3", holds("km/crypt3", 2)},
		{"km/crypt3in", holds("km/crypt3in", 2)},
		{"sink", expect(func(r *rows) bool {
			p, ok := r.cfg.Policy("ipf_udp/192.0.2.1/192.0.2.6/out")
			return ok && p.Action == config.Discard
		})},
		{"md5", sealed("md5", "useipsec leafmode rfc1828", 16)},
		{"tcrypt", sealed("tcrypt", "useipsec", 8)},
		{"crypt", sealed("crypt", "useipsec", 8)},
		{"crypt3", sealed("crypt3", "", 16)},
		{"crypt3in", sealed("crypt3in", "", 16)},
		{"spiint", expect(func(r *rows) bool {
			p := r.bump.engine.SPD().Policies()
			return len(p) == len(r.cfg.Policies) && slices.ContainsFunc(p, func(p *sa.Policy) bool { return p.Action == sa.Protect && p.Counters[sa.Outbound].Packets.Load() > 0 })
		})},
		{"saidmgr", expect(func(r *rows) bool { return r.bump.sad.Len() == 5 && len(r.cfg.SAs) == 5 })},
		{"ipf_udp", forwards("ipf_udp")},
		{"ipf_tcp", forwards("ipf_tcp")},
		{"ipf_icmp", forwards("ipf_icmp")},
		{"prottest", func(t *testing.T, r *rows) {
			if n, err := selfTest(r.graph); err != nil || n != 3+2+2+2+2 {
				t.Errorf("self-test of %d algorithms: %v", n, err)
			}
		}},
		{"init", expect(func(r *rows) bool {
			return r.pair.boxA.Status().State == "active" && r.graph.Node("init").Trace == trace.FullTrace
		})},
		{"prottbl", expect(func(r *rows) bool {
			return r.graph.Numbers["ipf_udp"] == 17 && r.graph.Numbers["ip"] == 0x0800 && r.graph.Numbers["md5"] == transform.ProtoAH
		})},
		{"romopt", expect(func(r *rows) bool {
			return r.graph.Node("km/md5").Has("kmparams") && r.graph.Node("md5").Has("rfc1828")
		})},
	}
	seen := make(map[string]bool)
	for _, c := range list {
		seen[c.node] = true
		t.Run(strings.ReplaceAll(c.node, "/", "_"), func(t *testing.T) {
			if n := r.graph.Node(c.node); n == nil && c.node != "prottbl" && c.node != "romopt" {
				t.Fatal("the graph does not have it")
			} else if n != nil && n.Does() == "" {
				t.Error("nobody does its work")
			}
			c.check(t, r)
		})
	}
	for _, n := range r.graph.Nodes {
		if !seen[n.Name] {
			t.Errorf("%s has no row", n.Name)
		}
	}
}

// A nullTransform changes nothing, and lets everything pass.
type nullTransform struct{ transform.Transform }

func (nullTransform) Protocol() uint8    { return transform.ProtoESP }
func (nullTransform) HeaderLen() int     { return 8 }
func (nullTransform) TrailerLen(int) int { return 0 }
func (nullTransform) Seal(*transform.Packet, transform.Sequence) wire.DropReason {
	return wire.DropNone
}

func TestR45_TheSelfTestNoticesWhatIsNotHidden(t *testing.T) {
	if err := roundTrip(nullTransform{}, 64); err == nil || !strings.Contains(err.Error(), "not hidden") {
		t.Errorf("got %v", err)
	}
}
