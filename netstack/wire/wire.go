// Package wire holds the packet formats that gVisor's header package lacks, and
// the stateless operations on them: ESP (RFC 4303), AH (RFC 4302), the
// virtio-net header, one parse of an IPv4 or IPv6 datagram, checksums, the
// cutting of superframes and of fragments, and the ICMP errors that a box in
// the wire must send.
//
// It also holds the one list of drop reasons, because every part counts by it.
//
// It keeps no state, knows no SA, no policy, no link and no clock, and nothing
// in it panics on bytes from outside: a view over bytes is made by a function
// that checks the length first, after which no accessor can fail.
package wire
