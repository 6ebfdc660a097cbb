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
	etherIPv4         = 0x0800
	etherIPv6         = 0x86dd
	etherExperimental = 0x88b5 // IEEE 802, for local experiments
)

// packetSocket sends frames from a host's eth0; the host's own IP has no part in it.
type packetSocket struct {
	fd, card int
	mac      net.HardwareAddr
}

func openPacketSocket(host *netlab.Host) (*packetSocket, error) {
	link, err := host.Netlink().LinkByName("eth0")
	if err != nil {
		return nil, err
	}
	s := &packetSocket{card: link.Attrs().Index, mac: link.Attrs().HardwareAddr}
	err = host.Do(func() (err error) {
		s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	return s, nil
}

func (s *packetSocket) close() error { return unix.Close(s.fd) }

func (s *packetSocket) send(to net.HardwareAddr, kind uint16, payload []byte) error {
	frame := append(append([]byte(nil), to...), s.mac...)
	frame = append(binary.BigEndian.AppendUint16(frame, kind), payload...)
	if err := unix.Sendto(s.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: s.card}); err != nil {
		return fmt.Errorf("sending a frame of %d octets: %w", len(frame), err)
	}
	return nil
}

// inject puts IP packets on the wire, from a host to another station.
func inject(from *netlab.Host, to net.HardwareAddr, packets ...[]byte) error {
	s, err := openPacketSocket(from)
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range packets {
		kind := uint16(etherIPv4)
		if p[0]>>4 == 6 {
			kind = etherIPv6
		}
		errs = append(errs, s.send(to, kind, p))
	}
	return errors.Join(append(errs, s.close())...)
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
