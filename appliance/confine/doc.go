// Package confine takes from the calling process, for good, what it has no use for once
// an interface is cut: capabilities, the means to get any back, and system calls.
//
//  1. no_new_privs: no program that is executed gets more than this one has.
//  2. The capabilities in Keep remain, as far as they are there; all others leave every
//     set, the bounding and the ambient one included.
//  3. The process is not dumpable: no other process of its user may look into it, where
//     the keys are, and it leaves no core.
//  4. A seccomp filter (seccomp(2)) allows the system calls in the table of calls.go,
//     which is what was seen by strace in the tests of a whole life with all that can
//     happen to an interface, and what Go's runtime needs beside.
//
// Each of them holds for every thread. A call that is not in the table fails with EPERM:
// what was asked for does not happen, its error is told where it came up, and traffic
// goes on; killing instead would have a library's new habit take the interface from
// service. Calls that no version of this program or its libraries has a reason for, but
// an intruder has (to execute, trace, load modules, mount, enter namespaces, become
// another user), kill the process: it is not itself any more, and what becomes of the
// interface is what the configuration says of a crash. The kernel's log names both.
//
// It is about a process as a whole, so it is the program's to call it, not the library's.
package confine
