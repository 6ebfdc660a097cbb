// Package config is what a user writes: one strict YAML file for one appliance,
// read with a position for everything that is wrong with it, and checked in itself.
// It knows nothing of the machine, of packets or of cryptography: whether an
// interface exists is the appliance's to find out, and what an algorithm wants comes
// in through Options.
//
// # The file
//
// Every key is here; one that has no default is required where it applies.
//
//	interface: eth0                   # the interface that bitw cuts
//	on_failure: shut                  # shut (default): nothing passes without bitw | open: everything does, in the clear
//	control: /run/bitw/eth0.sock      # default: /run/bitw/INTERFACE.sock
//	control_group: adm                # members may ask there and change nothing; default: none
//	control_admin_group: root         # members may do all there but take over; default: none
//	metrics: 127.0.0.1:9469           # serve metrics there to whoever asks; default: on the control socket only
//	state_dir: /var/lib/bitw          # default; sequence numbers are reserved ahead here
//	icmp_errors: accept               # those in the clear from the wire: accept (default) as policies say | verify | discard
//	log_level: info                   # error | warn | info (default) | debug | trace
//	trace: {}                         # default; what parts tell the log of each packet, such as {spiint: TR_FUNCTIONAL_TRACE}: see bitw trace-level
//	watchdog: 5s                      # default; a side without progress for so long puts the taps into their fail state | off
//	confine: full                     # default; once the interface is cut bitw gives up capabilities and system calls | capabilities: not the calls | off
//	forbid_bypass: false              # true: no process, or none of the cgroup bypass_cgroup: DIR, may make a socket that sends past the cut
//	fragment_memory: 8MiB             # default; for datagrams of which fragments are missing, on each side
//	fragment_timeout: 30s             # default; how long one may stay incomplete
//	acquire: {packets: 64, bytes: 256KiB, memory: 8MiB, time: 10s}   # default; what waits while a key manager makes an SA: for one, and memory for all
//	mtu: 1500                         # octets of the largest IP packet on the wire; default: the interface's
//	offloads: true                    # default; or false, or a mapping with ring, batches, superframes, coalescing, udp_superframes: true | false
//	allow_insecure: []                # default; or such as [des, md5]: see "Old algorithms" below
//	classes:                          # frames that no policy decides: bypass | discard; those not named are discarded
//	  dhcp: bypass
//	  lldp: bypass
//	  ethertype 0x8899: discard
//	neighbors: proxy                  # proxy (default): bitw answers for all neighbours | relay (default under open): the host finds them itself
//	static_neighbors:                 # on the wire side; they never age, and traffic never changes them
//	  - {address: 192.0.2.9, mac: "02:00:00:00:00:09"}
//	routes:                           # overrides of what the host's interface says; without via: on the link
//	  - {destination: 198.51.100.0/24, via: 192.0.2.254}
//	security_associations:
//	  - name: to-b
//	    direction: out                # out | in
//	    protocol: esp                 # esp | ah
//	    mode: transport               # transport | tunnel | beet, which also has inner_source: and inner_destination:
//	    spi: 0x1001                   # 256 to 0xffffffff
//	    source: 192.0.2.1
//	    destination: 192.0.2.2
//	    algorithm: aes128gcm16        # swanctl's names
//	    key_file: keys/b.key          # mode 0600; relative to this file; or encryption_key: and integrity_key: here
//	    esn: false                    # 64-bit sequence numbers; default false
//	    lifetime: {packets: 4000000000, bytes: 64GiB, time: 8h}   # default: none; the SA ends
//	    soft_lifetime: {packets: 3900000000, bytes: 60GiB, time: 7h}   # default: none; it is told that the end is near
//	    encap: no                     # yes: ESP in UDP, see below; default no
//	    tfc_padding: 0                # out: pad what is protected to so many octets, mtu: to what the path takes; default 0
//	    dummy: 0                      # out: dummy packets a second, 0 to 1000; default 0
//	  - name: from-b
//	    direction: in
//	    protocol: esp
//	    mode: transport
//	    spi: 0x2001
//	    source: 192.0.2.2
//	    destination: 192.0.2.1
//	    algorithm: aes128gcm16
//	    key_file: keys/b.key
//	    replay_window: 128            # packets, 32 to 65536, rounded up to a multiple of 64; default 64
//	policies:                         # the first match decides; no match is discard
//	  - name: to-b
//	    direction: both               # both (default) | out | in
//	    local: 192.0.2.1              # address, prefix or first-last; one or a list; absent: any
//	    remote: [192.0.2.2]
//	    action: protect               # protect | bypass | discard
//	    out: [to-b]                   # applied in this order
//	    in: [from-b]                  # the same order, taken off from its end
//	  - name: web
//	    local: 192.0.2.1
//	    remote: [10.0.0.0/8, 198.51.100.7-198.51.100.9]
//	    protocol: tcp                 # name or number; absent: any
//	    local_ports: [1024-65535]     # one or a list; absent: any; opaque: fragments without ports
//	    remote_ports: [80, 443]
//	    action: bypass
//	    fragments: reassemble         # reassemble (default) | discard what comes in fragments
//	  - name: ping
//	    protocol: icmp
//	    icmp: {type: 8, code: 0}      # numbers or ranges; absent: any; opaque: as for ports
//	    action: bypass
//	  - name: mobility
//	    protocol: mh                  # mobility header (RFC 6275)
//	    mh_type: [1-4]                # one or a list; absent: any; opaque: as for ports
//	    action: discard
//	    reject: false                 # true: the host is told by ICMP what is discarded of it; default false
//
// Addresses are IPv4 or IPv6 without zone. Numbers are decimal or begin with 0x. A
// name has 1 to 64 letters, digits and _ . : / -. Paths are relative to the folder of
// the file. Anchors, aliases, tags and merge keys of YAML are refused.
//
// Policies and SAs are those of RFC 4301 §4.4.1 and §4.4.2. Local is the side of the
// host behind bitw and remote the wire's, in both directions. An SA in transport mode
// keeps the IP header of a packet, so that a policy that uses it may name no
// addresses but the two ends of the SA. With mode: beet (draft-nikander-esp-beet-mode-09)
// those are inner_source: and inner_destination:, which the hosts see in the place of
// source and destination.
//
// A packet whose ports are not there, such as a fragment that is not the first,
// matches no policy that asks for ports, but those that leave them out or say opaque
// (RFC 4301 §4.4.1.1). The same goes for icmp and mh_type. Since fragments are put together
// before policies are asked, that concerns few packets: what is cut within its TCP or UDP
// header. Where memory for fragments is full, whoever takes most of it loses his oldest.
//
// An ICMP error of the host that quotes what had to come protected goes back protected by
// the same policy, also where another one bypasses ICMP; it is dropped where that cannot be.
//
// A policy with populate: and the names of selectors, such as [remote, remote_ports],
// asks a key manager for SAs of its own for each value of these that traffic brings
// (RFC 4301 §4.4.1.2). It never uses the SAs that out and in name; where these have
// keys from the configuration nobody makes others, and its packets are dropped.
//
// Under neighbors: proxy bitw answers the host's ARP and neighbour discovery with the
// host's own Ethernet address, and finds every next hop itself by routes and
// static_neighbors. Under relay both cross, the classes arp and ndp are bypass unless
// said otherwise, and a frame goes to the station that the host chose; routes and
// static_neighbors then hold for packets that get a tunnel's header.
//
// # Between two interfaces
//
// Instead of interface: stand inside: and outside:, and bitw is a box between the
// hosts on the one and the wire on the other. The box's own kernel has no part in either.
//
//	inside: eth1                      # towards the protected hosts
//	outside: eth0                     # towards the wire
//	protected: [192.0.2.10]           # addresses and prefixes of the hosts on the inside; required
//	mirror_link: false                # true: when one side loses its link, the other is set down; default false
//	routes:                           # all that there are, for what leaves on the outside
//	  - {destination: 192.0.2.0/24}   # on the link
//	  - {destination: 0.0.0.0/0, via: 192.0.2.254}
//
// The control socket is named after outside:, whose MTU mtu: is about. Each interface has
// its own MTU: what is too long for the other side is fragmented, or its sender told by an
// ICMP error, which goes to a remote one by the policy that covers it. An SA's end on this side that is no protected address is bitw's own on the
// outside. With more than one protected address of a family, what is protected for
// these goes in tunnel mode (RFC 4301 §3.3).
//
// # NAT, padding, dummies
//
// With encap, ESP goes in UDP (RFC 3948). "encap: yes" stands for the defaults of
//
//	encap:
//	  local_port: 4500                # of this host, for both directions
//	  remote_port: 4500               # of the peer
//	  checksum: auto                  # out: fill the UDP checksum: auto (default) over IPv6, and where UDP superframes are sent | true | false
//	  keepalive: 20s                  # out: one octet to the peer after so long a silence; 0s: never
//	  float: yes                      # in: the peer's address and port follow its packets
//	  original_remote: 10.0.0.5       # in, transport mode: the address that the peer's host has behind its NAT
//	  original_local: 10.9.0.1        # in, transport mode: the address that the peer's host knows this host by
//
// An SA has encap at both ends or at neither; what comes otherwise is dropped. IKE and
// everything else on the port is for the host, if a policy bypasses it; NAT keepalives
// end here. Float moves the peer of the SA that stands at the same place of a policy's
// out as the SA that the packet came by has in in, and only by a packet that is
// authentic, fits the policy and has a higher number than all before. In transport mode
// the host and the policies know a peer that has moved, or is behind a NAT, by the SA's
// source and destination. Its TCP and UDP checksums are moved from the original
// addresses, or without those made anew where they are wrong.
//
// TFC padding hides how long packets are (RFC 4303 §2.7): in tunnel mode of all, in
// transport mode of UDP and of IP in IP, which tell their own length. Dummy packets (RFC
// 4303 §2.6) have the length of padded ones, without padding any length; at the other
// end they are dropped and counted.
//
// # Outer headers
//
// The outer header of a tunnel follows the tables of RFC 4301 §5.1.2. These keys of an SA
// in tunnel mode, and the first four in BEET mode, say otherwise:
//
//	copy_df: yes                      # yes (default) | no: clear | set; an IPv6 packet inside counts as DF
//	copy_ecn: yes                     # yes (default): RFC 6040 | no: 0 outside, and what arrives outside is ignored
//	copy_dscp: out                    # out (default) | in | yes: both ways | no
//	dscp: {46: 34, 0-7: 0}            # out: outer DSCP of inner ones, the others as copy_dscp says; or one number for all
//	ttl: 64                           # out: 1 to 255; default 64
//	flow_label: 0                     # out: copy, for hosts only, or a number; default 0
//	fragment: after                   # out: after (default) | before: what does not fit is cut before it is enclosed
//
// mss_clamp: pmtu in a policy that protects lowers the largest segment that TCP announces
// in a SYN, of either side, to what fits once it is protected; a number sets it; default
// no. icmp_errors: verify lets only errors pass that are about what the host sends in the
// clear; about ESP and AH of ours, path MTUs are learned, if SPI and sequence number are
// plausible, under accept and verify.
//
// Packets with DF, and all of IPv6, are never cut: whoever sent them is told what would
// fit. With copy_df: set, the others are cut before.
//
// # Keys
//
// A key is hexadecimal with or without 0x; spaces, colons and underscores may group
// the digits. An AEAD's key is followed by its salt (RFC 4106 §8.1). A file that holds
// keys must not be readable by group or others. A key file has a line for each SA,
//
//	# name   encryption key                              integrity key
//	to-b     0x00112233445566778899aabbccddeeff:a0a1a2a3
//	from-b   0xffeeddccbbaa99887766554433221100:b0b1b2b3
//
// without the keys that the algorithm has not; where only one SA names the file, it
// may be a single line without the name. Keys never appear in errors or other
// output.
//
// # Old algorithms
//
// DES, triple DES and MD5, and the transforms of 1995 (package sa/transform/legacy), are
// refused unless allow_insecure names each part of the algorithm's name: [des, md5] for
// des-md5, [3des] for 3des-sha1, and for those of 1995, which have one part, the whole,
// such as [desiv64, kpdkmd5]. What is allowed and used is warned of when the file is read,
// when bitw starts, and in its status. The forms of 1995 have no sequence numbers: no
// esn, no encap, and replays are not noticed.
//
// # Errors
//
// Load and Parse report everything that they find, as Errors in the order of the
// file: each with file, line and column, what was found and what would do.
package config
