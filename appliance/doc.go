// Package appliance puts bitw together: it cuts an interface or takes two links,
// builds the bump between them, and keeps it running. It is the only place that
// knows all parts.
//
//	   host kernel                                             the wire
//	       │ ▲                                                   ▲ │
//	htap ──┴─┴── link.Endpoint "kern"         link.Endpoint "dev" ──┴─┴── ltap
//	             hook.Capture                 hook.Capture
//	             hook.Class                   hook.Class
//	             hook.ProxyARP                hook.Neighbor
//	             NIC 1 ── ipsec.Engine (SPD, SAD) ── NIC 2
//
// A program embeds it like this: New checks a Config and touches nothing; Run
// starts it, serves until its context ends, and stops it; Status tells what it
// did. Without WithLinks it cuts the interface that the Config names, which needs
// root; with WithLinks it needs nothing, and any number of them may live in one
// process.
//
// An appliance that cuts an interface has Readers goroutines that wait for frames. See there
// what that means for a program that has few processors.
//
// FromGraph is New for a graph in the language of the x-kernel. SetKey, InvalidateKey and
// ClearKey change keys while it runs.
//
// Subscribe tells what happens to it, which the log tells too, and Trace what becomes of
// packets; neither makes a packet wait for its reader.
//
// The start order ends with making the taps Active, the stop order begins with
// leaving it, so that no frame which was accepted is lost.
package appliance
