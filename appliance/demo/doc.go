// Package demo shows the whole product at work between two hosts that it makes
// for itself, and proves what it shows.
//
//	host a ── appliance A ════ the wire ════ appliance B ── host b
//	          inside │ outside    ▲    outside │ inside
//	                              │
//	                     evidence: a capture of its own
//
// As root on Linux the hosts are two network namespaces with the kernel's own
// TCP/IP, each appliance cuts its host's eth0, and the wire is a veth. Everywhere
// else the hosts are two gVisor stacks and the wire is a link in memory.
//
// IPv4 goes by ESP in transport mode with AES-GCM, IPv6 in tunnel mode with AES-CBC
// and HMAC-SHA-256, all under fresh random keys. The hosts ping each other, send UDP
// and transfer files by HTTP, all of which carry a known line of clear text. The
// evidence on the wire comes from a reader of frames that shares no code with the
// appliance.
//
// Nothing of the machine is changed, and what was made is gone at the end, also
// after an error or when the context ends: the namespaces have no names, so that
// they go with the process whatever ends it.
package demo
