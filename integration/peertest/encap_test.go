package peertest_test

import (
	"testing"

	"bitw/config"
	"bitw/integration/netlab"
)

func inUDP(k kase) kase { k.encap = true; return k }

// laterFragment matches a fragment of UDP without the header that would tell the
// ports; there are such if the case is ESP in UDP.
func (k kase) laterFragment(f *netlab.Frame) bool {
	return k.encap && f.Flow.Proto == 17 && f.Flow.SrcPort == 0 && fragment(f)
}

// TestR42_RFC4303_2_7_ESPInUDPAndPaddingWithLinux has the appliance and a Linux kernel
// talk by ESP in UDP, with two different ports, and with padding that hides lengths.
func TestR42_RFC4303_2_7_ESPInUDPAndPaddingWithLinux(t *testing.T) {
	g, c := gcm(128, 16), cbc(128, 32)
	padded := func(k kase, to int) kase { k.tfc = to; return k }
	runMatrix(t, []kase{
		inUDP(transport(4, little, g)), withESN(inUDP(transport(6, little, c))),
		padded(inUDP(tunnel(4, 4, little, g)), config.PadToMTU), inUDP(tunnel(6, 6, little, g)),
		inUDP(tunnel(4, 6, little, c)), inUDP(tunnel(6, 4, little, c)),
		padded(transport(4, little, c), 900),
	})
}
