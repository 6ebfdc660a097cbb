package appliance

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"

	"bitw/config"
	"bitw/netstack/link"
	"bitw/netstack/wire"
	"bitw/sa"
)

// another is a configuration that differs from cfg in what can change at run time: the IPv4
// SAs roll over, the order of the policies is turned round, a policy and an SA come in.
func another(t testing.TB, cfg config.Config) config.Config {
	next := cfg
	next.SAs = slices.Clone(cfg.SAs)
	for i := range 2 {
		next.SAs[i].SPI += 0x100
		next.SAs[i].EncryptionKey = key(t, 20)
	}
	more := next.SAs[0]
	more.Name, more.SPI, more.EncryptionKey = "more", 0x4001, key(t, 20)
	next.SAs = append(next.SAs, more)
	next.Policies = slices.Clone(cfg.Policies)
	slices.Reverse(next.Policies)
	next.Policies = append(next.Policies, config.Policy{Name: "rest", Action: config.Bypass})
	next.Classes = []config.Class{{Name: "lldp", Action: config.Bypass}}
	next.Routes = []config.Route{{Destination: netip.MustParsePrefix("198.51.100.0/24"), Via: netip.MustParseAddr("192.0.2.2")}}
	next.MTU = 1400
	next.Watchdog = 3 * time.Second
	next.ICMPErrors = config.ICMPVerify
	return next
}

// image is what status tells of all that a configuration decides.
func image(a *Appliance) string {
	s := a.Status()
	type rule struct{ Name, Action, Selector, Out, In string }
	var v struct {
		Rules  []rule
		SAs    []SAStatus
		Routes []RouteStatus
		MTU    int
		Class  map[string]ClassStatus
	}
	for _, p := range s.Policies {
		v.Rules = append(v.Rules, rule{p.Name, p.Action, p.Selector, strings.Join(p.OutSAs, " "), strings.Join(p.InSAs, " ")})
	}
	v.SAs, v.Routes, v.MTU, v.Class = s.SAs, s.Routes, s.MTU, s.Classes
	for i := range v.SAs {
		v.SAs[i].Rate = nil // of the last seconds
	}
	text, _ := json.Marshal(v)
	return string(text)
}

// TestR50_ApplyUnderTraffic goes to and fro between two configurations on both sides, while
// TCP flows of both families are under way and others look at the status: the streams go
// on, nothing is in the clear, and what did not change counts on.
func TestR50_ApplyUnderTraffic(t *testing.T) {
	first := protectAll(t)
	second := another(t, first)
	p := newMemoryPair(t, first, mirror(first))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var moved [2]atomic.Int64
	for i, six := range []bool{false, true} {
		addr, proto := p.b.full(six, 9000)
		l, err := gonet.ListenTCP(p.b.stack, addr, proto)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		wg.Go(func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = io.Copy(c, c)
		})
		c, err := gonet.DialContextTCP(t.Context(), p.a.stack, addr, proto)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer c.Close()
			out, in := make([]byte, 8<<10), make([]byte, 8<<10)
			for n := byte(0); ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				out[0] = n
				_ = c.SetDeadline(time.Now().Add(time.Minute))
				if _, err := c.Write(out); err != nil {
					t.Error(err)
					return
				}
				if _, err := io.ReadFull(c, in); err != nil || in[0] != n {
					t.Errorf("echo %d: %v", n, err)
					return
				}
				moved[i].Add(1)
			}
		})
	}
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				_ = p.boxA.Status()
			}
		}
	})
	before := p.boxA.Status()
	now := first
	for i := range 20 {
		next := first
		if i%2 == 0 {
			next = second
		}
		// Whoever receives by an SA rolls it over before who sends by it.
		half := now
		half.SAs = slices.Clone(now.SAs)
		half.SAs[1] = next.SAs[1]
		for _, step := range []struct {
			*Appliance
			config.Config
			least int
		}{{p.boxA, half, 1}, {p.boxB, mirror(next), 8}, {p.boxA, next, 8}} {
			changes, err := step.Apply(step.Config, false)
			if err != nil || len(changes) < step.least {
				t.Fatalf("apply %d: %d changes, %v", i, len(changes), err)
			}
			if changes, err := step.Apply(step.Config, true); err != nil || len(changes) != 0 {
				t.Fatalf("apply %d does not hold: %v, %v", i, changes, err)
			}
		}
		now = next
		for i := range moved {
			was := moved[i].Load()
			soon(t, "the streams go on", func() bool { return moved[i].Load() > was || t.Failed() })
		}
	}
	close(stop)
	wg.Wait()
	after := p.boxA.Status()
	if seen := p.wire.protocols(); len(seen) != 1 || seen[wire.ProtoESP] == 0 {
		t.Errorf("IP protocols on the wire: %v; expected ESP alone", seen)
	}
	count := func(s *Status, name string) (packets, seq uint64) {
		for _, x := range s.SAs {
			if x.Name == name && !x.Retiring {
				return x.Packets, x.Sequence
			}
		}
		return 0, 0
	}
	was, _ := count(before, "ab6")
	// The last segments of the connections may be under way yet.
	same := func() bool {
		after = p.boxA.Status()
		var sum uint64
		for _, x := range after.SAs {
			if x.Name == "ab" {
				sum += x.Packets
			}
		}
		i := slices.IndexFunc(after.Policies, func(p PolicyStatus) bool { return p.Name == "v4" })
		now, seq := count(after, "ab6")
		return after.Policies[i].Out.Packets == sum && now > was && seq == now
	}
	for end := time.Now().Add(30 * time.Second); !same(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("rule v4 and its SAs do not count the same, or the number of ab6, which never changed and had %d packets, is not that of its packets: %+v, %+v", was, after.Policies, after.SAs)
		}
	}
	for reason := range after.Drops {
		switch reason {
		case "unknown_spi", "no_policy", "class_discard", "key_invalid", "clear_not_protected":
			t.Errorf("%d packets dropped: %s", after.Drops[reason], reason)
		}
	}
}

// TestR50_ApplyRefuses has twenty wrong configurations change nothing.
func TestR50_ApplyRefuses(t *testing.T) {
	good := protectAll(t)
	good.Interface, good.OnFailure, good.Neighbors = "eth0", config.Shut, config.Proxy
	box, _ := loneBox(t, good)
	<-box.Ready()
	before := image(box)
	for name, c := range map[string]struct {
		change  func(*config.Config)
		says    string
		restart bool
	}{
		"interface":          {func(c *config.Config) { c.Interface = "eth1" }, "interface", true},
		"inside":             {func(c *config.Config) { c.Inside = "eth1" }, "inside", true},
		"on_failure":         {func(c *config.Config) { c.OnFailure = config.Open }, "on_failure", true},
		"control":            {func(c *config.Config) { c.Control = "/run/else.sock" }, "control", true},
		"state_dir":          {func(c *config.Config) { c.StateDir = "/var/else" }, "state_dir", true},
		"forbid_bypass":      {func(c *config.Config) { c.ForbidBypass = true }, "forbid_bypass", true},
		"mirror_link":        {func(c *config.Config) { c.MirrorLink = true }, "mirror_link", true},
		"unknown SA":         {func(c *config.Config) { c.Policies[0].Out = []string{"nobody"} }, `no SA named "nobody"`, false},
		"removed SA":         {func(c *config.Config) { c.SAs = c.SAs[1:] }, `no SA named "ab"`, false},
		"key length":         {func(c *config.Config) { c.SAs[0].EncryptionKey = config.NewSecret([]byte("short")) }, "5 octets", false},
		"unknown algorithm":  {func(c *config.Config) { c.SAs[0].Algorithm = "rot13" }, "rot13", false},
		"insecure algorithm": {func(c *config.Config) { c.SAs[0].Algorithm = "des-md5" }, "insecure", false},
		"reserved SPI":       {func(c *config.Config) { c.SAs[0].SPI = 5 }, "reserved", false},
		"one name twice":     {func(c *config.Config) { c.SAs[1].Name = "ab" }, "two SAs are named", false},
		"one key for two":    {func(c *config.Config) { c.SAs[1].EncryptionKey = c.SAs[0].EncryptionKey }, "key", false},
		"key the other way": {func(c *config.Config) {
			c.SAs[0].EncryptionKey, c.SAs[1].EncryptionKey = c.SAs[1].EncryptionKey, key(t, 20)
		}, "nonces would repeat", false},
		"policy without name": {func(c *config.Config) { c.Policies[0].Name = "" }, "no name", false},
		"policy twice":        {func(c *config.Config) { c.Policies[1].Name = "v4" }, `both named "v4"`, false},
		"unknown action":      {func(c *config.Config) { c.Policies[0].Action = "encrypt" }, `action is "encrypt"`, false},
		"protect without SAs": {func(c *config.Config) { c.Policies[0].Out = nil }, "names no SA", false},
		"unknown class":       {func(c *config.Config) { c.Classes = []config.Class{{Name: "llpd"}} }, `unknown class "llpd"`, false},
		"inverted ports": {func(c *config.Config) {
			tcp := uint8(6)
			c.Policies[0].Protocol = &tcp
			c.Policies[0].LocalPorts = []config.PortRange{{First: 9, Last: 1}}
		}, "port", false},
		"lifetime of no sense": {func(c *config.Config) { c.SAs[0].Lifetime.Time = -1 }, "lifetime", false},
	} {
		cfg := good
		cfg.SAs, cfg.Policies = slices.Clone(good.SAs), slices.Clone(good.Policies)
		c.change(&cfg)
		for _, dry := range []bool{true, false} {
			_, err := box.Apply(cfg, dry)
			if err == nil || !strings.Contains(err.Error(), c.says) || errors.Is(err, ErrNeedsRestart) != c.restart {
				t.Errorf("%s: error %v, expected one that says %q, restart %t", name, err, c.says, c.restart)
			}
		}
		if now := image(box); now != before {
			t.Errorf("%s changed\n%s\nto\n%s", name, before, now)
		}
	}
	if changes, err := box.Apply(good, false); err != nil || len(changes) != 0 {
		t.Errorf("the configuration in force: %v, %v", changes, err)
	}
	next := another(t, good)
	if changes, err := box.Apply(next, true); err != nil || len(changes) == 0 || image(box) != before {
		t.Errorf("a dry run: %v, %v", changes, err)
	}
	if _, err := box.Apply(next, false); err != nil || image(box) == before {
		t.Errorf("it was not applied: %v", err)
	}
}

// TestR50_ApplyNeedsARunningAppliance also has an SA go on with other parameters.
func TestR50_ApplyNeedsARunningAppliance(t *testing.T) {
	cfg := protectAll(t)
	box, errc := loneBox(t, cfg)
	<-box.Ready()
	next := cfg
	next.SAs = slices.Clone(cfg.SAs)
	next.SAs[0].Lifetime.Packets = 1000
	next.SAs[3].ReplayWindow = 1024
	changes, err := box.Apply(next, false)
	if err != nil || len(changes) != 2 || changes[0].String() != `security association "ab" changed: lifetime` {
		t.Errorf("%v, %v", changes, err)
	}
	if n := len(box.Status().SAs); n != 4 {
		t.Errorf("%d SAs", n)
	}
	_ = box.Close()
	<-errc
	if _, err := box.Apply(cfg, false); err == nil || !strings.Contains(err.Error(), "nothing was changed") {
		t.Errorf("applied to a stopped appliance: %v", err)
	}
}

// TestR32_R50_WhatWaitsIsDecidedAnew: a datagram that may pass in the clear waits for the
// Ethernet address of its next hop, and no longer may when that is found.
func TestR32_R50_WhatWaitsIsDecidedAnew(t *testing.T) {
	protect := protectAll(t)
	protect.SAs, protect.Policies = protect.SAs[:2], protect.Policies[:1]
	bypass := config.Config{Policies: []config.Policy{{Name: "all", Action: config.Bypass}}}
	discard := config.Config{Policies: []config.Policy{{Name: "all", Action: config.Discard}}}
	for _, x := range []struct {
		name string
		next config.Config
		want map[uint8]int // datagrams on the wire, by protocol
	}{
		{"protect", protect, map[uint8]int{wire.ProtoESP: 3}},
		{"discard", discard, map[uint8]int{}},
		{"bypass", bypass, map[uint8]int{wire.ProtoUDP: 3}},
	} {
		t.Run(x.name, func(t *testing.T) {
			log := &wireLog{}
			mac, peer := net.HardwareAddr{2, 0, 0, 0, 0, 10}, net.HardwareAddr{2, 0, 0, 0, 0, 11}
			host, inner := link.Pipe(link.PipeOptions{})
			outer, far := link.Pipe(link.PipeOptions{Wiretap: func(_ *link.PipeEnd, frame []byte) { log.see(frame) }})
			h := newMemoryHost(t, host, mac, "192.0.2.1", "2001:db8::1")
			box, err := New(bypass, WithSequenceStore(sa.NewMemoryStore()), WithLinks(inner, outer, Host{
				MAC: mac, Addresses: []netip.Prefix{netip.PrefixFrom(h.v4, 24)},
			}))
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- box.Run(context.Background()) }()
			<-box.Ready()
			defer func() {
				_ = box.Close()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}()
			local, proto := h.full(false, 0)
			c, err := gonet.DialUDP(h.stack, &local, &tcpip.FullAddress{NIC: 1, Addr: addressOf(netip.MustParseAddr("192.0.2.2")), Port: 9}, proto)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for range 3 {
				if _, err := c.Write([]byte("clear")); err != nil {
					t.Fatal(err)
				}
			}
			waitFor(t, "the datagrams wait", func() bool { return box.bump.Load().resolver.Waiting() == 3 })
			if _, err := box.Apply(x.next, false); err != nil {
				t.Fatal(err)
			}
			answer := append(make([]byte, wire.VirtioNetLen), mac...)
			answer = append(append(answer, peer...), 8, 6, 0, 1, 8, 0, 6, 4, 0, 2)
			answer = append(append(append(answer, peer...), 192, 0, 2, 2), mac...)
			answer = append(answer, 192, 0, 2, 1)
			if n, err := far.WriteFrames([][]byte{answer}); n != 1 || err != nil {
				t.Fatal(err)
			}
			waitFor(t, "nothing waits", func() bool { return box.bump.Load().resolver.Waiting() == 0 })
			if got := log.protocols(); !maps.Equal(got, x.want) {
				t.Errorf("on the wire, by protocol: %v; expected %v; drops %s", got, x.want, dropsOf(box))
			}
		})
	}
}
