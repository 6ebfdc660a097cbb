package appliance

import (
	"testing"
	"time"

	"bitw/config"
	"bitw/netstack/ipsec"
	"bitw/sa"
)

// What a configuration says of BEET mode and of selectors reaches the databases.
func TestR32R35_ConfigurationReachesTheDatabases(t *testing.T) {
	const text = `interface: eth0
state_dir: ""
security_associations:
  - {name: to-b, direction: out, protocol: esp, mode: beet, spi: 0x1001, source: 192.0.2.1, destination: 192.0.2.2,
     inner_source: 2001:db8::1, inner_destination: 2001:db8::2, algorithm: aes128-sha256,
     encryption_key: 00112233445566778899aabbccddeeff, integrity_key: 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f}
  - {name: from-b, direction: in, protocol: esp, mode: beet, spi: 0x2001, source: 192.0.2.2, destination: 192.0.2.1,
     inner_source: 2001:db8::2, inner_destination: 2001:db8::1, algorithm: aes128-sha256,
     encryption_key: ffeeddccbbaa99887766554433221100, integrity_key: 100102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f}
policies:
  - {name: binding, protocol: mh, mh_type: [1, 5-6], action: discard}
  - {name: fragments, protocol: udp, local_ports: opaque, action: bypass}
  - {name: ports, local: 2001:db8::1, remote: 2001:db8::2, protocol: tcp, populate: [local, remote, local_ports, remote_ports], action: protect, out: to-b, in: from-b}
  - {name: types, local: 2001:db8::1, remote: 2001:db8::2, populate: [protocol, icmp, mh_type], action: protect, out: to-b, in: from-b}
`
	cfg, _, err := config.Parse("bitw.yaml", []byte(text), ConfigOptions())
	if err != nil {
		t.Fatal(err.(config.Errors).Text())
	}
	db, err := NewDatabases(*cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	list := db.SPD.Policies()
	for i, want := range []struct {
		selector string
		populate sa.Populate
	}{
		{"local any remote any mh mh-type 1,5-6", 0},
		{"local any remote any udp opaque", 0},
		{"local 2001:db8::1 remote 2001:db8::2 tcp", sa.PopulateLocal | sa.PopulateRemote | sa.PopulateLocalPorts | sa.PopulateRemotePorts},
		{"local 2001:db8::1 remote 2001:db8::2", sa.PopulateProto | sa.PopulateICMP | sa.PopulateMH},
	} {
		if p := list[i]; p.Selector.String() != want.selector || p.Populate != want.populate {
			t.Errorf("policy %s: %v, populate %v", p.Name, &p.Selector, p.Populate)
		}
	}
	for _, s := range db.SAD.All() {
		if s.Mode != sa.BEET || !s.InnerSrc.Is6() || !s.InnerDst.Is6() || s.InnerSrc == s.InnerDst {
			t.Errorf("SA %s: %v, %v to %v", s.Name, s.Mode, s.InnerSrc, s.InnerDst)
		}
	}
	for _, key := range config.PopulateKeys() {
		if populateFlag(key).String() != key {
			t.Errorf("%s populates %v", key, populateFlag(key))
		}
	}
}

// Limits and lifetimes of a configuration reach the engine and the SAs.
func TestR27R41_LimitsReachTheDatabases(t *testing.T) {
	const text = `interface: eth0
acquire: {packets: 7, bytes: 1MiB, memory: 2MiB, time: 3s}
security_associations:
  - {name: to-b, direction: out, protocol: ah, mode: transport, spi: 0x1001, source: 192.0.2.1, destination: 192.0.2.2, algorithm: sha256,
     integrity_key: 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f, lifetime: {packets: 10, bytes: 20, time: 30s}, soft_lifetime: {packets: 9, bytes: 19, time: 29s}}
policies:
  - {name: clear, direction: out, remote: 192.0.2.3, action: bypass, fragments: discard}
  - {name: x, direction: out, local: 192.0.2.1, remote: 192.0.2.2, action: protect, out: to-b}
`
	cfg, _, err := config.Parse("bitw.yaml", []byte(text), ConfigOptions())
	if err != nil {
		t.Fatal(err.(config.Errors).Text())
	}
	db, err := NewDatabases(*cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	list := db.SPD.Policies()
	if !list[0].DiscardFragments || list[1].DiscardFragments {
		t.Error("fragments: discard is not with its policy")
	}
	s := list[1].Out[0].Outbound()
	if s.Hard != (sa.Lifetime{Packets: 10, Bytes: 20, Time: 30 * time.Second}) || s.Soft != (sa.Lifetime{Packets: 9, Bytes: 19, Time: 29 * time.Second}) {
		t.Errorf("lifetimes: hard %+v, soft %+v", s.Hard, s.Soft)
	}
	if got, want := holdLimits(&cfg.Limits.Acquire), (ipsec.HoldLimits{Packets: 7, Octets: 1 << 20, Memory: 2 << 20, Time: 3 * time.Second}); got != want {
		t.Errorf("limits: %+v, expected %+v", got, want)
	}
}
