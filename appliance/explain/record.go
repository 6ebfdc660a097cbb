package explain

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"bitw/netstack/wire"
)

// maxRecorded is how many packets of a capture are looked through, and maxFrame how long
// one may be in octets.
const (
	maxRecorded = 10_000_000
	maxFrame    = 1 << 18
)

// Record reads the number-th frame (from 1) of a capture in the format pcap or pcapng.
// What has another link layer gets an Ethernet header of zeros. note says what is missing
// of it, empty if nothing is.
func Record(r io.Reader, number int) (frame []byte, note string, err error) {
	in := bufio.NewReader(r)
	magic, err := in.Peek(4)
	if err != nil {
		return nil, "", errors.New("the capture is empty, expected pcap or pcapng")
	}
	var source interface {
		ReadPacketData() ([]byte, gopacket.CaptureInfo, error)
	}
	var linkType func(gopacket.CaptureInfo) layers.LinkType
	if bytes.Equal(magic, []byte{0x0a, 0x0d, 0x0d, 0x0a}) {
		ng, err := pcapgo.NewNgReader(in, pcapgo.NgReaderOptions{WantMixedLinkType: true})
		if err != nil {
			return nil, "", fmt.Errorf("not a pcapng file that can be read: %w", err)
		}
		source = ng
		linkType = func(ci gopacket.CaptureInfo) layers.LinkType {
			i, err := ng.Interface(ci.InterfaceIndex)
			if err != nil {
				return ng.LinkType()
			}
			return i.LinkType
		}
	} else {
		old, err := pcapgo.NewReader(in)
		if err != nil {
			return nil, "", fmt.Errorf("expected pcap or pcapng, found neither: %w", err)
		}
		old.SetSnaplen(maxFrame)
		source = old
		linkType = func(gopacket.CaptureInfo) layers.LinkType { return old.LinkType() }
	}
	for i := 1; i <= maxRecorded; i++ {
		data, ci, err := source.ReadPacketData()
		if errors.Is(err, io.EOF) {
			return nil, "", fmt.Errorf("the capture has %d packets, expected number %d", i-1, number)
		}
		if err != nil {
			return nil, "", fmt.Errorf("packet %d of the capture: %w", i, err)
		}
		if i < number {
			continue
		}
		if frame, err = ethernet(data, linkType(ci)); err != nil {
			return nil, "", fmt.Errorf("packet %d of the capture: %w", i, err)
		}
		if missing := ci.Length - ci.CaptureLength; missing > 0 && ci.Length <= maxFrame {
			frame = append(frame, make([]byte, missing)...)
			note = fmt.Sprintf("only %d of %d octets were captured; the others are taken for zeros", ci.CaptureLength, ci.Length)
		}
		return frame, note, nil
	}
	return nil, "", fmt.Errorf("number is %d, expected at most %d", number, maxRecorded)
}

// ethernet returns the frame of a packet, in memory of its own.
func ethernet(data []byte, link layers.LinkType) ([]byte, error) {
	if link == layers.LinkTypeEthernet {
		return bytes.Clone(data), nil
	}
	kindAt, head := -1, 0
	switch link {
	case layers.LinkTypeRaw, layers.LinkTypeIPv4, layers.LinkTypeIPv6, 12, 14:
	case layers.LinkTypeNull, layers.LinkTypeLoop:
		head = 4
	case layers.LinkTypeLinuxSLL:
		head, kindAt = 16, 14
	case layers.LinkTypeLinuxSLL2:
		head, kindAt = 20, 0
	default:
		return nil, fmt.Errorf("its link layer is %v, expected Ethernet, raw IP or Linux cooked", link)
	}
	if len(data) <= head {
		return nil, fmt.Errorf("it has %d octets, expected more than the %d of its link layer", len(data), head)
	}
	frame := make([]byte, wire.EthernetLen, wire.EthernetLen+len(data)-head)
	switch {
	case kindAt >= 0:
		copy(frame[12:], data[kindAt:kindAt+2])
	case data[head]>>4 == 6:
		frame[12], frame[13] = 0x86, 0xdd
	default:
		frame[12], frame[13] = 0x08, 0x00
	}
	return append(frame, data[head:]...), nil
}
