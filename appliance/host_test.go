package appliance

import (
	"net/netip"
	"testing"
)

// Of the datagrams to all hosts only those of the host's own networks are known.
func TestR19_BroadcastsOfTheHostsNetworks(t *testing.T) {
	host := &hostState{addresses: []netip.Prefix{
		netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("10.0.0.9/30"), netip.MustParsePrefix("10.9.9.9/32"),
		netip.MustParsePrefix("10.8.0.0/31"), netip.MustParsePrefix("2001:db8::1/64"),
	}}
	box := &hostState{addresses: host.addresses, inside: insideNIC{name: "eth1"}}
	for to, want := range map[string]bool{
		"192.0.2.255": true, "10.0.0.11": true, "192.0.2.2": false, "192.0.3.255": false, "10.0.0.9": false, "10.9.9.9": false, "10.8.0.1": false,
	} {
		a := netip.MustParseAddr(to).As4()
		datagram := append(append([]byte{0x45}, make([]byte, 15)...), a[:]...)
		if got := host.isBroadcast(datagram); got != want {
			t.Errorf("%s: %v", to, got)
		}
		if box.isBroadcast(datagram) {
			t.Errorf("%s: a box knows the networks behind it", to)
		}
	}
	for _, b := range [][]byte{nil, {0x45}, append([]byte{0x60}, make([]byte, 39)...)} {
		if host.isBroadcast(b) {
			t.Errorf("%x is IPv4", b)
		}
	}
}
