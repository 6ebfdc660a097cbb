package appliance

import (
	"strings"
	"testing"
	"time"
)

// well is a status in which nothing is wrong.
func well() *Status {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	used := Traffic{Packets: 100, Bytes: 1000, LastUse: at.Add(-time.Second)}
	return &Status{
		Interface: "eth0", Time: at, State: "active", Carrier: true, Drops: map[string]uint64{}, DropsLast: map[string]time.Time{},
		Policies: []PolicyStatus{{Name: "b", Action: "protect", Out: used, In: used, OutSAs: []string{"out"}, InSAs: []string{"in"}}},
		SAs: []SAStatus{
			{Name: "out", Direction: "out", Key: "valid", Sequence: 100, Lifetime: &Lifetime{SequenceLeft: new(uint64(1<<32 - 101))}, Traffic: used},
			{Name: "in", Direction: "in", Key: "valid", Traffic: used},
		},
	}
}

func TestR50_Health(t *testing.T) {
	if f := health(well()); len(f) != 0 {
		t.Fatalf("findings about nothing: %v", f)
	}
	drop := func(s *Status, reason string, ago time.Duration, flows ...DroppedFlow) {
		s.Drops[reason], s.DropsLast[reason] = 7, s.Time.Add(-ago)
		for i := range flows {
			flows[i].Reason, flows[i].Last = reason, s.Time.Add(-ago)
		}
		s.RecentDrops = append(s.RecentDrops, flows...)
	}
	for name, x := range map[string]struct {
		change   func(*Status)
		severity string
		says     []string
	}{
		"stale peer": {func(s *Status) { s.Policies[0].In.LastUse = s.Time.Add(-5 * time.Minute) }, Warning,
			[]string{"policy b: ", "nothing authentic has come back for 5m0s", "same keys"}},
		"nothing is sent either": {func(s *Status) {
			s.Policies[0].In.LastUse, s.Policies[0].Out.LastUse = s.Time.Add(-5*time.Minute), s.Time.Add(-5*time.Minute)
		}, "", nil},
		"none came back": {func(s *Status) { s.Policies[0].In = Traffic{} }, Warning, []string{"none came back"}},
		"wrong key": {func(s *Status) {
			drop(s, "icv", time.Second)
			s.SAs[1].Traffic = Traffic{Drops: map[string]uint64{"icv": 7}}
		}, Critical, []string{"SA in: 7 packets from its peer failed authentication, and none has passed it", "keys or algorithms", "bitw apply FILE"}},
		"some are changed on the way": {func(s *Status) {
			drop(s, "icv", time.Second)
			s.SAs[1].Drops = map[string]uint64{"icv": 7}
		}, Warning, []string{"failed authentication"}},
		"there was a wrong key": {func(s *Status) {
			drop(s, "icv", time.Hour)
			s.SAs[1].Drops = map[string]uint64{"icv": 7}
		}, Notice, []string{"failed authentication"}},
		"in the clear": {func(s *Status) {
			drop(s, "clear_not_protected", time.Second, DroppedFlow{From: "right", Protocol: "tcp", Source: "192.0.2.2:80", Destination: "192.0.2.1:5", Policy: "b"})
			s.Policies[0].In.Drops = map[string]uint64{"clear_not_protected": 7}
		}, Critical, []string{"in the clear", "tcp 192.0.2.2:80 > 192.0.2.1:5", "other end does not protect"}},
		"no policy for a server": {func(s *Status) {
			drop(s, "no_policy", time.Second, DroppedFlow{From: "left", Protocol: "tcp", Source: "192.0.2.1:40000", Destination: "192.0.2.9:443"})
		}, Warning, []string{"1s ago was tcp", "{name: NAME, local: 192.0.2.1, remote: 192.0.2.9, protocol: tcp, remote_ports: 443, action: bypass}"}},
		"no policy for a service of the host": {func(s *Status) {
			drop(s, "no_policy", time.Second, DroppedFlow{From: "right", Protocol: "tcp", Source: "[2001:db8::9]:40000", Destination: "[2001:db8::1]:22"})
		}, Warning, []string{`local: "2001:db8::1", remote: "2001:db8::9", protocol: tcp, local_ports: 22`}},
		"no policy for a ping": {func(s *Status) {
			drop(s, "no_policy", time.Second, DroppedFlow{From: "left", Protocol: "icmp", Source: "192.0.2.1", Destination: "192.0.2.9", ICMPType: new(uint8(8))})
		}, Warning, []string{"icmp 192.0.2.1 > 192.0.2.9 type 8", "protocol: icmp, action: bypass}"}},
		"no policy, long ago": {func(s *Status) { drop(s, "no_policy", time.Hour) }, Notice, []string{"matched no policy"}},
		"unknown SPI": {func(s *Status) {
			drop(s, "unknown_spi", time.Second, DroppedFlow{From: "right", Protocol: "esp", Source: "192.0.2.2", Destination: "192.0.2.1", SPI: "0x00009999"})
			s.SAs[1].Source, s.SAs[1].SPI, s.SAs[1].Destination = "192.0.2.2", "0x00002001", "192.0.2.1"
		}, Warning, []string{"spi 0x00009999", "SAs here for packets from 192.0.2.2 are in with spi 0x00002001 for 192.0.2.1: make spi and destination the same"}},
		"unknown SPI of a stranger": {func(s *Status) {
			drop(s, "unknown_spi", time.Second, DroppedFlow{From: "right", Protocol: "esp", Source: "192.0.2.7", Destination: "192.0.2.1", SPI: "0x00009999"})
			s.SAs[1].Source = "192.0.2.2"
		}, Warning, []string{"no SA here is for packets from 192.0.2.7"}},
		"unknown SPI, nobody knows whose": {func(s *Status) { drop(s, "unknown_spi", time.Second) }, Warning, []string{"compare spi"}},
		"policies differ": {func(s *Status) {
			drop(s, "selector_mismatch", time.Second, DroppedFlow{From: "right", Protocol: "icmp", Source: "192.0.2.2", Destination: "192.0.2.1", SA: "in"})
		}, Warning, []string{"7 packets came by SA in", "icmp 192.0.2.2 > 192.0.2.1", "compare addresses, protocol and ports of both policies"}},
		"silent next hop": {func(s *Status) {
			drop(s, "unresolved", time.Second)
			s.Neighbors = []NeighborStatus{{Address: "192.0.2.254", State: "unreachable"}, {Address: "192.0.2.3", State: "reachable"}}
		}, Warning, []string{"neighbour discovery: 192.0.2.254: is the other end up"}},
		"modes differ": {func(s *Status) {
			drop(s, "bad_next_header", time.Second)
			s.SAs[1].Drops = map[string]uint64{"bad_next_header": 7}
		}, Warning, []string{"SA in: 7 packets hold what its mode does not allow", "set mode: alike at both ends"}},
		"ESP in UDP where none is wanted": {func(s *Status) {
			drop(s, "clear_not_protected", time.Second, DroppedFlow{From: "right", Protocol: "udp", Source: "192.0.2.2:4500", Destination: "192.0.2.1:4500", Policy: "b"})
			s.Policies[0].In.Drops = map[string]uint64{"clear_not_protected": 7}
		}, Critical, []string{"the other end sends ESP in UDP: set encap: alike"}},
		"DHCP is not let through": {func(s *Status) {
			drop(s, "class_discard", time.Second)
			s.Classes = map[string]ClassStatus{"dhcp": {Action: "discard", Discarded: 9, FromHost: 3}}
		}, Warning, []string{"3 frames of DHCP from this host discarded", "dhcp: bypass under classes"}},
		"DHCP of others": {func(s *Status) {
			drop(s, "class_discard", time.Second)
			s.Classes = map[string]ClassStatus{"dhcp": {Action: "discard", Discarded: 9}}
		}, "", nil},
		"own address twice": {func(s *Status) {
			s.AddressConflicts = []AddressConflict{{"192.0.2.1", true, []string{"02:00:00:00:00:09"}, s.Time.Add(-time.Second)}}
		}, Warning, []string{"02:00:00:00:00:09 says that it has 192.0.2.1, which is this host's"}},
		"peer's address twice": {func(s *Status) {
			s.AddressConflicts = []AddressConflict{{"192.0.2.2", false, []string{"02:00:00:00:00:08", "02:00:00:00:00:09"}, s.Time.Add(-time.Second)}}
		}, Warning, []string{"02:00:00:00:00:08 and 02:00:00:00:00:09 both say that they have 192.0.2.2", "bitw neigh add 192.0.2.2 MAC"}},
		"address was there twice": {func(s *Status) {
			s.AddressConflicts = []AddressConflict{{"192.0.2.1", true, []string{"02:00:00:00:00:09"}, s.Time.Add(-time.Hour)}}
		}, Notice, []string{"which is this host's"}},
		"queue full":    {func(s *Status) { drop(s, "queue_full", time.Second) }, Warning, []string{"queue full", "bitw neigh"}},
		"taps in clear": {func(s *Status) { s.State = "clear" }, Critical, []string{"in the clear", "bitw tap eth0 active"}},
		"severed":       {func(s *Status) { s.State = "severed" }, Critical, []string{"nothing passes"}},
		"stalled":       {func(s *Status) { s.Stalled = []string{"right"} }, Critical, []string{"from the wire make no progress"}},
		"guard":         {func(s *Status) { s.Guard = "inet" }, Warning, []string{"created anew"}},
		"bypass":        {func(s *Status) { s.BypassRefused, s.BypassForbidden = 2, "/sys/fs/cgroup" }, Warning, []string{"2 sockets"}},
		"no key":        {func(s *Status) { s.SAs[0].Key = "empty" }, Critical, []string{"its key is empty", "set the key"}},
		"not up":        {func(s *Status) { s.Policies[0].Down = []string{"out"} }, Critical, []string{"protects by out"}},
		"expired":       {func(s *Status) { s.SAs[0].Expired = "hard" }, Critical, []string{"lifetime is over", "new key"}},
		"nearly expired": {func(s *Status) {
			s.SAs[0].Lifetime = &Lifetime{Created: s.Time.Add(-99 * time.Minute), Expires: s.Time.Add(time.Minute)}
		}, Warning, []string{"over in 1m0s"}},
		"far from expired": {func(s *Status) { s.SAs[0].Lifetime = &Lifetime{Created: s.Time, Expires: s.Time.Add(time.Minute)} }, "", nil},
		"few packets left": {func(s *Status) { s.SAs[0].Lifetime = &Lifetime{PacketsLeft: new(uint64(3))} }, Warning, []string{"after 3 more packets"}},
		"few numbers left": {func(s *Status) {
			s.SAs[0].Sequence, s.SAs[0].Lifetime.SequenceLeft = 1<<32-11, new(uint64(10))
		}, Warning, []string{"10 sequence numbers left", "esn: true"}},
		"insecure": {func(s *Status) { s.SAs[0].Insecure, s.SAs[0].Weak, s.SAs[0].Algorithm = true, "broken", "des-md5" }, Warning, []string{"des-md5 is INSECURE (broken)"}},
		"path MTU": {func(s *Status) { s.SAs[0].PathMTU = 1400 }, Notice, []string{"only 1400 octets"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := well()
			x.change(s)
			list := health(s)
			if x.severity == "" {
				if len(list) != 0 {
					t.Errorf("findings %v, expected none", list)
				}
				return
			}
			if len(list) == 0 {
				t.Fatal("no finding")
			}
			f := list[0]
			if f.Severity != x.severity || f.Remedy == "" {
				t.Errorf("%+v, expected %s with a remedy", f, x.severity)
			}
			for _, say := range x.says {
				if !strings.Contains(f.String(), say) {
					t.Errorf("%q lacks %q", f, say)
				}
			}
		})
	}
}

func TestR50_NotUp(t *testing.T) {
	s := well()
	markDown(s)
	if d := s.Policies[0].Down; d != nil {
		t.Errorf("%v are not up", d)
	}
	s.SAs[0].Key = "invalid"
	s.SAs = s.SAs[:1]
	markDown(s)
	if d := s.Policies[0].Down; len(d) != 2 {
		t.Errorf("%v are not up, expected both", d)
	}
	// Beside the one that is over, its successor is at work.
	s = well()
	s.SAs[0].Lineage, s.SAs[0].Expired = "", "hard"
	s.SAs = append(s.SAs, SAStatus{Name: "out#2", Lineage: "out", Direction: "out", Key: "valid"})
	markDown(s)
	if d := s.Policies[0].Down; d != nil {
		t.Errorf("%v are not up", d)
	}
}
