package peertest_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"bitw/integration/netlab"
)

const (
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
)

// inject puts IP packets on the wire, in frames from the host's eth0 to another
// station. The host's own IP has no part in it.
func inject(from *netlab.Host, to net.HardwareAddr, packets ...[]byte) error {
	link, err := from.Netlink().LinkByName("eth0")
	if err != nil {
		return err
	}
	return from.Do(func() (err error) {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("packet socket: %w", err)
		}
		defer func() { err = errors.Join(err, unix.Close(fd)) }()
		for _, p := range packets {
			frame := append([]byte(nil), to...)
			frame = append(frame, link.Attrs().HardwareAddr...)
			kind := uint16(etherIPv4)
			if p[0]>>4 == 6 {
				kind = etherIPv6
			}
			frame = append(binary.BigEndian.AppendUint16(frame, kind), p...)
			if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index}); err != nil {
				return fmt.Errorf("sending a frame of %d octets: %w", len(frame), err)
			}
		}
		return nil
	})
}

// fragment says whether a frame is a fragment of an IP packet, or for IPv6 has a
// fragment header first.
func fragment(f *netlab.Frame) bool {
	if len(f.Data) < 14+20 {
		return false
	}
	ip := f.Data[14:]
	switch binary.BigEndian.Uint16(f.Data[12:]) {
	case etherIPv4:
		return binary.BigEndian.Uint16(ip[6:])&0x3fff != 0
	case etherIPv6:
		return ip[6] == 44
	}
	return false
}
