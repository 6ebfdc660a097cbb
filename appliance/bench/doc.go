// Package bench measures what protection costs on this machine, and tells it as ratios,
// which depend less on the machine than any figure does:
//
//	aead      seal and open of one algorithm, on the octets that ESP protects in a
//	          TCP segment, in a loop and nothing else
//	engine    superframes through an appliance whose links are in memory, to ESP and
//	          back to superframes: a ratio to the bare algorithm
//	kernel    two hosts of network namespaces over a veth, without bitw, with bitw and a
//	          policy that bypasses, and with one that protects: ratios to without
//
// Every measure is taken in several rounds, in each of which all measures have their
// turn, so that what else the machine does disturbs all alike. What is told is the
// median, the lowest and the highest. In memory, a round is its shortest pass of many.
//
// Nothing of the machine is changed, and what was made is gone at the end, also after an
// error or when the context ends.
package bench
