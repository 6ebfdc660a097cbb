package ipsec

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
)

// synTo is a SYN that announces mss, the option shifted by nops.
func synTo(src, dst netip.Addr, flags header.TCPFlags, mss uint16, nops int, partial bool) []byte {
	options := append(bytes.Repeat([]byte{1}, nops), 2, 4, byte(mss>>8), byte(mss))
	for len(options)%4 != 0 {
		options = append(options, 1)
	}
	b := append(make([]byte, 20), options...)
	h := header.TCP(b)
	h.Encode(&header.TCPFields{SrcPort: 4000, DstPort: 80, SeqNum: 9, DataOffset: uint8(len(b)), Flags: flags, WindowSize: 512})
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, tcpip.AddrFromSlice(src.AsSlice()), tcpip.AddrFromSlice(dst.AsSlice()), uint16(len(b)))
	if partial {
		h.SetChecksum(sum)
	} else {
		h.SetChecksum(^checksum.Checksum(b, sum))
	}
	return ip(src, dst, wire.ProtoTCP, true, b)
}

// The clamp holds for SYN and SYN/ACK, out and in, and a segment of that size with its
// headers is exactly what fits.
func TestR29_MSSClamp(t *testing.T) {
	for _, f := range forms {
		t.Run(modeName(f.mode, f.six, f.crossed), func(t *testing.T) {
			for _, clamp := range []int{0, 1000, sa.ClampToPMTU} {
				for nops := range 4 {
					p := newPair(t, "aes256-sha256", transform.ProtoESP, f.mode, f.six, f.crossed)
					a, b := addrA4, addrB4
					if f.six {
						a, b = addrA6, addrB6
					}
					// Only a clamps: what it sends by the first crossing, what it gets by the second.
					pol := p.a.protect("to-b", a, b, "ab", "ba")
					pol.MSSClamp = clamp
					p.a.policies(pol)
					partial := func(v wire.VirtioNet) {
						v.SetFlags(wire.VirtioNetNeedsCsum)
						v.SetCsumStart(uint16(ethernetLen + ipHeaderLen(a)))
						v.SetCsumOffset(16)
					}
					there, _ := p.cross(synTo(a, b, header.TCPFlagSyn, 1460, nops, true), partial)
					p.b.fromHost(synTo(b, a, header.TCPFlagSyn|header.TCPFlagAck, 1440, nops, false), nil)
					p.a.fromWire(p.b.right.take(t, macB, macA)...)
					back := p.a.left.take(t, macB, macA)
					if len(there) != 1 || len(back) != 1 {
						t.Fatalf("%d there, %d back, drops %v %v", len(there), len(back), p.a.drops(hook.Right), p.b.drops(hook.Right))
					}
					var got [2]int
					for i, d := range [][]byte{there[0], back[0]} {
						in := parse(t, d)
						if !wire.VerifyL4(d, &in) {
							t.Errorf("clamp %d, %d nops: wrong checksum", clamp, nops)
						}
						got[i] = int(binary.BigEndian.Uint16(d[in.HeaderLen+20+nops+2:]))
					}
					switch clamp {
					case 0:
						if got != [2]int{1460, 1440} {
							t.Errorf("changed to %v", got)
						}
						continue
					case sa.ClampToPMTU:
						if got[0] != got[1] {
							t.Errorf("%v", got)
						}
					default:
						if got != [2]int{clamp, clamp} {
							t.Errorf("%v", got)
						}
						continue
					}
					// 12 octets of options are in the segments of tcpTo.
					for more, fits := range []bool{true, false} {
						_, wired := p.cross(tcpTo(a, b, got[0]-12+more, false), nil)
						if fits != (len(wired) == 1) {
							t.Errorf("MSS %d: a segment of %d more fits: %v", got[0], more, !fits)
						}
					}
				}
			}
		})
	}
}
