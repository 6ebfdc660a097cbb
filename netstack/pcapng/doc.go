// Package pcapng is the form of all captures: pcapng (draft-ietf-opsawg-pcapng) with two
// Ethernet interfaces, 0 "inside" and 1 "outside", where what became of a packet is the
// comment of its frame.
//
// A Writer writes such a file. Blocks takes one apart again, as it comes, for who bounds it or
// spreads it over several files. It knows no packets and no links.
package pcapng
