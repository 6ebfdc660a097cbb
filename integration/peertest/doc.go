// Package peertest has tests in which the appliance speaks ESP and AH with
// implementations that are not ours: the Linux kernel's, as a guest on the wire
// (package xfrmpeer), and scapy's, by captured and injected packets.
//
//	host a            the appliance       wire                  guest
//	eth0 ──────────── cut on a's eth0 ── bridge ── tap ── eth0 with ip xfrm
//
// Each case has an address of the guest's for itself, so that one appliance and
// one guest serve all of them. The tests print what they found as a table.
package peertest
