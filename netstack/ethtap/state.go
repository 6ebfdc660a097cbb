//go:build linux

package ethtap

import "fmt"

// State is what a tap does with the frames that reach it.
type State uint32

const (
	// Closed lets frames pass; reading and writing are errors.
	Closed State = iota
	// Passive lets frames pass and queues a copy of each; writing is refused.
	Passive
	// Active queues each frame and does not let it pass; written frames are sent.
	Active
)

// draining is a state in the map alone. A tap in it queues each frame, as Active does,
// until all that it was handed is dealt with; from then on each frame passes. So no
// frame that passes overtakes one that was queued.
const draining State = 3

// String returns "Closed", "Passive" or "Active".
func (s State) String() string {
	switch s {
	case Closed:
		return "Closed"
	case Passive:
		return "Passive"
	case Active:
		return "Active"
	}
	return fmt.Sprintf("State(%d)", uint32(s))
}

// FailState is what becomes of the flow when the process ends without Close.
type FailState uint32

const (
	// FailShut keeps the cut as it is: with both taps Active nothing passes until a
	// later Open takes over or Recover removes the cut.
	FailShut FailState = iota
	// FailOpen restores the flow as if both taps were Closed.
	FailOpen
)

// String returns "shut" or "open".
func (f FailState) String() string {
	switch f {
	case FailShut:
		return "shut"
	case FailOpen:
		return "open"
	}
	return fmt.Sprintf("FailState(%d)", uint32(f))
}

// Hook is the kernel's facility by which the programs are attached.
type Hook uint32

const (
	// HookAuto takes tcx where the kernel has it and clsact otherwise.
	HookAuto Hook = iota
	// HookTCX is tcx, Linux 6.6 and later.
	HookTCX
	// HookCLSACT is the clsact qdisc with BPF classifiers.
	HookCLSACT
)

// String returns "auto", "tcx" or "clsact".
func (h Hook) String() string {
	switch h {
	case HookAuto:
		return "auto"
	case HookTCX:
		return "tcx"
	case HookCLSACT:
		return "clsact"
	}
	return fmt.Sprintf("Hook(%d)", uint32(h))
}
