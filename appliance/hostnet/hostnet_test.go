package hostnet

import (
	"net"
	"net/netip"
	"testing"
)

func TestEventString(t *testing.T) {
	for _, c := range []struct {
		event Event
		want  string
	}{
		{0, "none"}, {Initial, "initial"}, {Addresses, "addresses"}, {Routes, "routes"}, {MTU, "mtu"}, {MAC, "mac"},
		{LinkUp, "link_up"}, {LinkDown, "link_down"}, {Carrier, "carrier"}, {CarrierLost, "carrier_lost"},
		{Renamed, "renamed"}, {Gone, "gone"}, {Recreated, "recreated"},
		{Addresses | Routes, "addresses,routes"},
	} {
		if got := c.event.String(); got != c.want {
			t.Errorf("%#x: %q, want %q", uint16(c.event), got, c.want)
		}
	}
}

func TestHasAddress(t *testing.T) {
	i := &Interface{Addresses: []netip.Prefix{
		netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("fe80::1/64"),
	}}
	for addr, want := range map[string]bool{
		"192.0.2.1": true, "::ffff:192.0.2.1": true, "fe80::1": true, "fe80::1%eth0": true,
		"192.0.2.2": false, "fe80::2": false, "::": false,
	} {
		if got := i.HasAddress(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v, want %v", addr, got, want)
		}
	}
	if i.HasAddress(netip.Addr{}) {
		t.Error("the zero Addr is nobody's")
	}
}

func TestDifference(t *testing.T) {
	base := func() *Interface {
		return &Interface{
			Name: "eth0", Index: 4, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, MTU: 1500, Up: true, Carrier: true,
			Addresses: []netip.Prefix{netip.MustParsePrefix("2001:db8::1/64")},
			Routes:    []Route{{Destination: netip.MustParsePrefix("2001:db8::/64"), Metric: 256}},
		}
	}
	with := func(change func(*Interface)) *Interface {
		i := base()
		change(i)
		return i
	}
	gone := &Interface{Name: "eth0", Index: 4, Gone: true}
	down := with(func(i *Interface) { i.Up, i.Carrier, i.Routes = false, false, nil })
	dark := with(func(i *Interface) { i.Carrier = false })
	for _, c := range []struct {
		name     string
		old, cur *Interface
		want     Event
	}{
		{"nothing", base(), base(), 0},
		{"address", base(), with(func(i *Interface) { i.Addresses = nil }), Addresses},
		{"tentative", with(func(i *Interface) { i.Tentative = []netip.Addr{i.Addresses[0].Addr()} }), base(), Addresses},
		{"route", base(), with(func(i *Interface) { i.Routes[0].MTU = 1400 }), Routes},
		{"mtu and mac", base(), with(func(i *Interface) { i.MTU, i.MAC = 1400, net.HardwareAddr{2} }), MTU | MAC},
		{"down", base(), down, LinkDown | CarrierLost | Routes},
		{"up", down, base(), LinkUp | Carrier | Routes},
		{"carrier lost", base(), dark, CarrierLost},
		{"carrier", dark, base(), Carrier},
		{"renamed", base(), with(func(i *Interface) { i.Name = "wan" }), Renamed},
		{"gone", base(), gone, Gone},
		{"still gone", gone, gone, 0},
		{"back", gone, base(), Recreated},
		{"replaced", base(), with(func(i *Interface) { i.Index, i.MTU = 5, 9000 }), Recreated},
	} {
		if got := difference(c.old, c.cur); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
