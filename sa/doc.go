// Package sa holds what RFC 4301 calls the databases: security policies (SPD,
// §4.4.1) and security associations (SAD, §4.4.2), with their selectors, sequence
// numbers, replay windows (RFC 4303 §3.4.3, RFC 6479), lifetimes and counters.
//
// It decides and counts. It never sees a packet, only a Flow of addresses and
// ports and the numbers of a header; it knows no link, no socket and no clock but
// the one handed in. What the packet path calls (SPD.Lookup, SAD.Lookup and the
// methods of SA that say so) takes no lock that another SA could hold, and
// allocates nothing.
package sa
