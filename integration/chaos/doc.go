// Package chaos has no code of its own, only tests: it ends, kills, stops and
// starts the program bitw on the interfaces of two hosts with real kernels, and
// bounces those interfaces, while a TCP connection and numbered datagrams, one a
// millisecond in both directions, go on. It counts what each event cost, and looks at
// the wire for anything in the clear.
//
// Nothing asserts a time. Where a bound is a time ("at most 50 ms"), it is asserted in
// datagrams of one a millisecond. Once nothing has come for long there are fewer: a queue
// that overflows because somebody does not get a processor is no fault of bitw. At the end
// a table tells what every event has cost.
package chaos
