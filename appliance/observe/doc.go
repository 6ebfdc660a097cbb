// Package observe watches the traffic of a live interface through two Passive taps
// and tells, flow by flow, what a configuration would do with it: which rule decides,
// by which SAs it would be protected, how many octets that adds, and whether the
// largest packets would still fit the path.
//
// The traffic is not disturbed: frames pass by themselves and copies are looked at.
// Copies that come faster than they are looked at are lost and counted, never waited
// for. Nothing is protected, no sequence number is used, and the package answers
// nobody.
//
// The host behind the interface is the protected side, as in RFC 4301 §4.4.1: what it
// sends is looked up as outbound (§5.1), what arrives as inbound (§5.2). Fragments count
// for the flow of their first, as they would be reassembled before the look-up (§7).
// What arrives as ESP, in UDP or not (RFC 3948), is judged by its SPI alone.
package observe
