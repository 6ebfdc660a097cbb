// Package netns makes hosts of network namespaces with the kernel's own TCP/IP, joined
// by a veth, for programs that show or measure something between two of them. It
// exists on Linux only, and needs root.
//
// Namespaces have no names: each ends with its last descriptor and socket, and so with
// the process, whatever ends that.
package netns
