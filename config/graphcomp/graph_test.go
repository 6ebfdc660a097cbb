package graphcomp

import (
	"os"
	"strings"
	"testing"

	"bitw/config"
	"bitw/netstack/trace"
)

// listing is the graph of bitw's ancestor, as its page printed it.
func listing(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("testdata/graph.comp")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func mustParse(t testing.TB, text string) *Graph {
	t.Helper()
	g, err := Parse("graph.comp", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestR45_TheListingIsParsedVerbatim(t *testing.T) {
	g, err := Load("testdata/graph.comp", nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(g.Nodes) != 31 || !g.Protects() {
		t.Errorf("%d nodes, protects %v", len(g.Nodes), g.Protects())
	}
	slots := strings.Join(g.Node("rfc1825").lowerNames(), ",")
	if slots != "km/sauser,km/sauser,md5,md5,crypt,crypt3,tcrypt,md5,crypt3in" {
		t.Errorf("slots %s", slots)
	}
	if n := g.Node("ip"); n.Dir != "ip" || len(n.Files) != 9 || n.Files[5] != "ip_control.c" {
		t.Errorf("ip: dir %q, files %q", n.Dir, n.Files)
	}
	for name, want := range map[string]trace.Level{"prottest": trace.MajorEvents, "init": trace.FullTrace, "watchdog": trace.FullTrace, "ip": trace.LevelUnset} {
		if got := g.Node(name).Trace; got != want {
			t.Errorf("trace of %s: %v, expected %v", name, got, want)
		}
	}
	if got := g.Node("md5").options(); got != "useipsec; leafmode; rfc1828" {
		t.Errorf("options of md5: %s", got)
	}
}

// The plain forwarder of the original's earlier picture.
const plain = `@;
name=ethkern;
name=ethdev;
name=eth/1 protocols=ethdev;
name=arp/1 protocols=eth/1;
name=eth/0 protocols=ethkern;
name=arp/0 protocols=eth/0;
name=vnet protocols=eth/0,arp/0,eth/1,arp/1;
name=ip protocols=vnet;
name=ipf_udp protocols=ip;
name=ipf_tcp protocols=ip;
name=ipf_icmp protocols=ip;
@;
`

func TestR45_WithoutIPsecNodesItForwards(t *testing.T) {
	g := mustParse(t, plain)
	if g.Protects() {
		t.Error("it protects")
	}
	p, err := g.Build(new(Keys), BuildOptions{Interface: "eth0"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, x := range p.Policies {
		got = append(got, x.Name+" "+string(x.Action))
	}
	if s := strings.Join(got, ", "); s != "ipf_udp bypass, ipf_tcp bypass, ipf_icmp bypass, ipf_icmpv6 bypass" {
		t.Errorf("policies: %s", s)
	}
	if p.Watchdog != 0 || p.Neighbors != config.Proxy {
		t.Errorf("watchdog %v, neighbours %v", p.Watchdog, p.Neighbors)
	}
}

func TestR45_ErrorsHaveTheirPlace(t *testing.T) {
	full := listing(t)
	change := func(old, new string) string {
		if !strings.Contains(full, old) {
			t.Fatalf("the listing lacks %q", old)
		}
		return strings.Replace(full, old, new, 1)
	}
	for _, c := range []struct{ name, text, want string }{
		{"unknown node", change("name=sink;", "name=sunk;"), `graph.comp:30:6: unknown node "sunk"; did you mean "sink"?`},
		{"undefined lower protocol", change("name=vnet\tprotocols=eth/0,arp/0", "name=vnet\tprotocols=eth/0,arp/7"), `graph.comp:11:27: vnet stands on "arp/7", which the graph does not define`},
		{"cycle", change("name=vnet\tprotocols=eth/0", "name=vnet\tprotocols=ip"), `graph.comp:19:13: a cycle: vnet stands on ip stands on vnet`},
		{"cycle of one", change("name=eth/0\tprotocols=ethkern", "name=eth/0\tprotocols=eth/0"), `graph.comp:9:22: a cycle: eth/0 stands on eth/0`},
		{"duplicate instance", change("name=eth/0\t", "name=eth/1\t"), `graph.comp:9:6: eth/1 is there already, in line 5`},
		{"unknown option", change("romopt md5\t\tleafmode", "romopt md5\t\tleafmod"), `graph.comp:53:13: md5 does not know the option "leafmod"; did you mean "leafmode"?`},
		{"option of another node", change("romopt md5\t\tleafmode", "romopt sink\t\tleafmode"), `sink does not know the option "leafmode"; it takes none`},
		{"romopt of no node", change("romopt crypt\t", "romopt crupt\t"), `unknown node "crupt"; did you mean "crypt"?`},
		{"too few words", change("kmparams 4 0-100 100", "kmparams 4 0-100"), `kmparams takes 3 words, found 2; write romopt km/b kmparams A K M;`},
		{"not a number", change("kmparams 4 0-100 100", "kmparams 4 0-x 100"), `graph.comp:58:25: "x" is not a number from 0 to 65535`},
		{"range", change("kmparams 4 0-100 100", "kmparams 4 9-3 100"), `the range "9-3" ends before it begins`},
		{"option twice", change("romopt md5\t\tleafmode", "romopt md5\t\tuseipsec"), `md5 has the option useipsec already in line 52`},
		{"lower of wrong kind", change("name=md5 \tprotocols=km/md5", "name=md5 \tprotocols=ip"), "a cycle"},
		{"wrong order", change("name=spiint  \tprotocols=ip,saidmgr", "name=spiint  \tprotocols=saidmgr,ip"), `spiint cannot stand on saidmgr here; spiint stands on ip, saidmgr`},
		{"one too many", change("name=eth/0\tprotocols=ethkern", "name=eth/0\tprotocols=ethkern,ethdev"), `eth/0 cannot stand on ethdev here`},
		{"nothing below", change("name=md5 \tprotocols=km/md5;", "name=md5;"), `md5 stands on nothing where it needs km`},
		{"crossed arps", change("eth/0,arp/0,eth/1,arp/1", "eth/0,arp/1,eth/1,arp/0"), `arp/1 stands on eth/1, and vnet has it beside eth/0`},
		{"one side twice", change("name=eth/0\tprotocols=ethkern", "name=eth/0\tprotocols=ethdev"), `both sides of vnet lead to ethdev`},
		{"instance of a single", change("name=sink;", "name=sink/1;"), `there is one sink`},
		{"manager without name", change("name=km/b;", "name=km;"), `a key manager has a name of its own`},
		{"unknown key", change("dir=ip ", "dri=ip "), `unknown key "dri"; did you mean "dir"?`},
		{"unknown level", change("trace=TR_MAJOR_EVENTS", "trace=TR_MAJOR_EVENT"), `unknown trace level "TR_MAJOR_EVENT"; did you mean "TR_MAJOR_EVENTS"?`},
		{"no end", change("name=sink;", "name=sink"), `graph.comp:32:1: name= stands twice in one statement; end the statement before it with ;`},
		{"no end of the last", strings.TrimSuffix(strings.TrimSpace(full), ";"), `this statement has no end; end it with ;`},
		{"no sections", "name=ethkern;", `a graph has three sections, found 1`},
		{"driver with lower", "name=eth/0 protocols=ethkern;@;name=ethkern;@;", `a driver stands on no other node`},
		{"divider four", change("prottbl=./prottbl;", "@;"), `a third @;`},
		{"prottbl twice", change("prottbl=./prottbl;", "prottbl=a;prottbl=b;"), `prottbl= is there already`},
		{"no vnet", "@;name=ethkern;@;", `the graph has no vnet`},
		{"no km/alg", change("km/b,km/alg,", "km/b,"), `saidmgr does not stand on km/alg`},
		{"keys of two", change("name=crypt\tprotocols=km/crypt", "name=crypt\tprotocols=km/md5"), `km/md5 has the keys of md5`},
		{"comma at end", change("protocols=km/crypt;", "protocols=km/crypt,;"), `expected a word behind ","`},
		{"static on the kernel's arp", full + "romopt arp/0 static 192.0.2.9 02:00:00:00:00:09;", `does not know the option static; write romopt arp/1 static`},
		{"two interfaces", full + "romopt ethkern interface eth0;romopt ethdev interface eth1;", `found eth0 and eth1`},
		{"mac of a group", full + "romopt arp/1 static 192.0.2.9 01:00:00:00:00:09;", `is a group's Ethernet address`},
		{"name of the program", change("name=sink;", "name=sink;name=init;"), `init is a part of the program`},
		{"odd character", change("name=sink;", "name=sink\u00e4;"), `graph.comp:30:10: unexpected character`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("graph.comp", []byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v\nexpected %s", err, c.want)
			}
			errs, ok := err.(config.Errors)
			if !ok {
				t.Fatalf("a %T", err)
			}
			for _, e := range errs {
				if e.File != "graph.comp" || e.Line == 0 || e.Column == 0 {
					t.Errorf("no place: %+v", e)
				}
			}
		})
	}
}

func TestPicturesOfTheListing(t *testing.T) {
	g := mustParse(t, listing(t))
	text, dot, svg := g.Text(), g.DOT(), g.SVG()
	j, err := g.JSON()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range g.Nodes {
		for format, s := range map[string]string{"text": text, "dot": dot, "svg": svg, "json": string(j)} {
			if !strings.Contains(s, n.Name) {
				t.Errorf("%s lacks %s", format, n.Name)
			}
		}
		if n.Does() == "" || !strings.Contains(text, n.Does()) {
			t.Errorf("text lacks what does the work of %s", n.Name)
		}
	}
	if !strings.Contains(dot, `"rfc1825" -> "crypt3in" [taillabel="8"]`) {
		t.Error("dot lacks the slot of crypt3in")
	}
	// No two boxes lie on each other, and each node is above those that it stands on.
	layers, boxes := g.layers()
	place(layers)
	for _, list := range layers {
		for i, x := range list[1:] {
			if left := list[i]; left.x+left.width >= x.x {
				t.Errorf("%s covers %s", left.node.Name, x.node.Name)
			}
		}
	}
	for _, n := range g.Nodes {
		for _, l := range n.Lower {
			if boxes[n].layer <= boxes[l].layer {
				t.Errorf("%s is not above %s", n.Name, l.Name)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(listing(f)))
	f.Add([]byte(plain))
	f.Add([]byte("@;name=eth/0 protocols=eth/0;@;romopt eth/0 x;"))
	f.Add([]byte("@;;@;=,;#\nromopt a b = c;prottbl=;"))
	f.Fuzz(func(t *testing.T, data []byte) {
		g, err := Parse("g", data)
		if err != nil {
			if _, ok := err.(config.Errors); !ok {
				t.Fatalf("a %T: %v", err, err)
			}
			return
		}
		_, _ = g.Text(), g.DOT()+g.SVG()
		if _, err := g.JSON(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestR45_ThePackageCommentHasEveryNode(t *testing.T) {
	b, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(b)
	for _, n := range mustParse(t, listing(t)).Nodes {
		if !strings.Contains(doc, "//\t"+n.Name+" ") && n.Protocol != "km" {
			t.Errorf("it lacks %s", n.Name)
		}
	}
	for _, k := range kinds() {
		for _, o := range k.options {
			if !strings.Contains(doc, o.name) {
				t.Errorf("it lacks the option %s of %s", o.name, k.name)
			}
		}
	}
}
