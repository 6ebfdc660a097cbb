package appliance

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"bitw/config"
	"bitw/sa"
	"bitw/sa/keyer"
	"bitw/sa/transform"
)

// A stubManager has one lineage, for which it makes an SA of each direction when it
// is started, or not.
type stubManager struct {
	lineage *sa.Lineage
	refuse  error
	cmd     *keyer.Commands
	closed  int
}

func (m *stubManager) Name() string { return "stub" }

func (m *stubManager) Lineage(name string) *sa.Lineage {
	if name == m.lineage.Name {
		return m.lineage
	}
	return nil
}

func (m *stubManager) Start(c *keyer.Commands) error {
	m.cmd = c
	return m.refuse
}

func (m *stubManager) Close() error {
	m.closed++
	return m.cmd.DeleteAll(m.lineage)
}

// withPlugged lets IPv4 go by the lineage "plugged", and IPv6 by the configuration's SAs.
func withPlugged(t testing.TB) config.Config {
	cfg := protectAll(t)
	cfg.SAs = cfg.SAs[2:]
	cfg.Policies[0].Out, cfg.Policies[0].In = []string{"plugged"}, []string{"plugged"}
	return cfg
}

func TestR44_KeyManagersArePluggedIn(t *testing.T) {
	cfg := withPlugged(t)
	managers := [2]*stubManager{{lineage: sa.NewLineage("plugged")}, {lineage: sa.NewLineage("plugged")}}
	acquire := make(chan sa.Event, 10)
	managers[0].lineage.Notify = func(ev sa.Event) { acquire <- ev }
	p := newMemoryPair(t, cfg, mirror(cfg), WithKeyManager(managers[0]), WithKeyManager(managers[1]))
	ends := [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
	alg, err := transform.Lookup(transform.ProtoESP, "aes128gcm16")
	if err != nil {
		t.Fatal(err)
	}
	secrets := [2]config.Secret{key(t, 20), key(t, 20)}
	add := func(at, from int) *sa.SA {
		t.Helper()
		c := sa.SAConfig{
			Name: "plugged", Lineage: managers[at].lineage, Mode: sa.Transport, Algorithm: alg, EncryptionKey: secrets[from],
			Key: sa.Key{SPI: uint32(0x1000 + from), Dst: ends[1-from], Proto: transform.ProtoESP},
		}
		if at != from {
			c.Direction = sa.Inbound
		}
		s, err := managers[at].cmd.Add(c)
		if err != nil {
			t.Error(err)
		}
		return s
	}
	go func() {
		ev := <-acquire
		if ev.Kind != sa.Acquire || ev.Policy.Name != "v4" || ev.Flow.Remote != ends[1] {
			t.Errorf("event %+v", ev)
		}
		// B's first: by A's the packet that waits goes out.
		for _, at := range []int{1, 0} {
			add(at, 1-at)
			if out := add(at, at); out != nil {
				if _, err := managers[at].cmd.Switch(out); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	p.transfer(t, false, 1<<20) // waits for the SAs
	p.transfer(t, true, 1<<20)  // by the configuration's
	if n := len(p.boxA.Status().SAs); n != 4 {
		t.Errorf("%d SAs in the status, expected 4", n)
	}
	inbound := managers[0].cmd.SAD.Lookup(0x1001, ends[0], transform.ProtoESP)
	if err := managers[0].cmd.Retire(inbound, time.Hour); err != nil {
		t.Error(err)
	}
	retiring := 0
	for _, x := range p.boxA.Status().SAs {
		if x.Retiring {
			retiring++
		}
	}
	if retiring != 1 {
		t.Errorf("%d SAs are retiring in the status, expected 1", retiring)
	}
	for _, box := range []*Appliance{p.boxA, p.boxB} {
		if err := box.Close(); err != nil {
			t.Error(err)
		}
	}
	for i, m := range managers {
		if m.closed != 1 || m.lineage.Outbound() != nil || m.cmd.SAD.Len() != 0 {
			t.Errorf("manager %d was closed %d times; %d SAs are left", i, m.closed, m.cmd.SAD.Len())
		}
	}
}

func TestR44_PluggedNamesAreChecked(t *testing.T) {
	cfg := withPlugged(t)
	links := WithLinks(nil, nil, Host{MAC: []byte{2, 0, 0, 0, 0, 1}})
	_, err := New(cfg, links)
	if err == nil || !strings.Contains(err.Error(), `there is no SA named "plugged"`) {
		t.Errorf("without the manager: %v", err)
	}
	plugged := &stubManager{lineage: sa.NewLineage("plugged")}
	if _, err := New(cfg, links, WithKeyManager(plugged)); err != nil {
		t.Error(err)
	}
	_, err = New(cfg, links, WithKeyManager(plugged), WithKeyManager(&stubManager{lineage: sa.NewLineage("ab6")}))
	if err == nil || !strings.Contains(err.Error(), `the key managers sauser and stub both have an SA named "ab6"`) {
		t.Errorf("a name of two managers: %v", err)
	}
	if plugged.closed != 0 {
		t.Error("a manager was closed that never started")
	}
}

// A manager that does not start takes the others with it.
func TestR44_AManagerThatFailsStopsTheStart(t *testing.T) {
	first := &stubManager{lineage: sa.NewLineage("first")}
	cause := errors.New("no socket")
	own, err := keyer.NewSAUser(keyer.SAUserConfig{Algorithms: transform.Lookup})
	if err != nil {
		t.Fatal(err)
	}
	k := &keyers{SAUser: own, others: []keyer.Manager{first, &stubManager{lineage: sa.NewLineage("second"), refuse: cause}}}
	if err := k.Start(&keyer.Commands{SAD: sa.NewSAD()}); !errors.Is(err, cause) || first.closed != 1 {
		t.Errorf("got %v, the first was closed %d times", err, first.closed)
	}
}
