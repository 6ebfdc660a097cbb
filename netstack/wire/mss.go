package wire

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// TCP option kinds (RFC 9293 §3.2).
const (
	tcpOptionEnd = 0
	tcpOptionNop = 1
	tcpOptionMSS = 2
	tcpMSSLen    = 4
)

// IsSYN reports whether the datagram opens a TCP connection, in either direction, and
// has its whole TCP header. in is Parse's result for b.
func IsSYN(b []byte, in *Info) bool {
	return in.Proto == ProtoTCP && in.L4HeaderLen != 0 && b[in.HeaderLen+header.TCPFlagsOffset]&uint8(header.TCPFlagSyn) != 0
}

// ClampMSS lowers the maximum segment size that a TCP SYN or SYN/ACK announces to mss
// octets, and moves the checksum by the difference (RFC 1624 §3), so that a wrong one
// stays wrong. It returns false, with b as it was, if there is nothing to lower: other
// datagrams, and those without the option, which stand for 536 or 1,220 (RFC 9293
// §3.7.1). The checksum must not have been left to a device. in is Parse's result for b.
func ClampMSS(b []byte, in *Info, mss int) bool {
	if !IsSYN(b, in) {
		return false
	}
	tcp := b[in.HeaderLen : in.HeaderLen+in.L4HeaderLen]
	for at := tcpMinLen; at < len(tcp) && tcp[at] != tcpOptionEnd; {
		if tcp[at] == tcpOptionNop {
			at++
			continue
		}
		if at+1 >= len(tcp) || tcp[at+1] < 2 || at+int(tcp[at+1]) > len(tcp) {
			return false
		}
		if tcp[at] == tcpOptionMSS && tcp[at+1] == tcpMSSLen {
			value := tcp[at+2 : at+tcpMSSLen]
			if int(binary.BigEndian.Uint16(value)) <= mss {
				return false
			}
			was := binary.BigEndian.Uint16(value)
			now := uint16(mss)
			binary.BigEndian.PutUint16(value, now)
			if at%2 != 0 { // the two octets count in two words
				was, now = was<<8|was>>8, now<<8|now>>8
			}
			sum := binary.BigEndian.Uint16(tcp[tcpChecksumAt:])
			binary.BigEndian.PutUint16(tcp[tcpChecksumAt:], ^checksum.Combine(checksum.Combine(^sum, ^was), now))
			return true
		}
		at += int(tcp[at+1])
	}
	return false
}
