// Package explain answers the question of every IPsec user: what would become of this
// packet, by which policy, by which security associations, with how much overhead, and if
// it does not pass, why not and what to do?
//
// A packet is given in words (Parse, Grammar), or as a frame that was recorded (Record).
// Explain sends it through the packet path itself, on copies of all that it meets
// (ipsec.Engine.Rehearse), so that what is said is what would happen, and nothing happens.
// The package only tells: it decides nothing, and knows no sockets and no files.
package explain
