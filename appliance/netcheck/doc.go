// Package netcheck looks at a machine before or while an appliance runs there: whether
// the kernel has what bitw needs, what else is on the interface, and what fits the path to
// each peer. Each line is good, warning or bad, and what is not good says what to do.
//
// It changes nothing. To peers it sends a bounded number of ICMP echo requests with DF
// (RFC 1191, RFC 8899 §1), if asked to.
package netcheck
