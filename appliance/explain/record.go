package explain

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"bitw/netstack/pcapng"
	"bitw/netstack/wire"
)

// maxRecorded is how many packets of a capture are looked through.
const maxRecorded = 10_000_000

// Record reads the number-th frame (from 1) of a capture in the format pcap or pcapng.
// What has another link layer gets an Ethernet header of zeros. note says what is missing
// of it, empty if nothing is.
func Record(r io.Reader, number int) (frame []byte, note string, err error) {
	file, err := pcapng.NewReader(r)
	if err != nil {
		return nil, "", fmt.Errorf("the capture cannot be read: %w", err)
	}
	for i := 1; i <= maxRecorded; i++ {
		p, err := file.Next()
		if errors.Is(err, io.EOF) {
			return nil, "", fmt.Errorf("the capture has %d packets, expected number %d", i-1, number)
		}
		if err != nil {
			return nil, "", fmt.Errorf("packet %d of the capture: %w", i, err)
		}
		if i < number {
			continue
		}
		if frame, err = ethernet(&p); err != nil {
			return nil, "", fmt.Errorf("packet %d of the capture: %w", i, err)
		}
		if missing := p.Length - len(p.Data); missing > 0 && p.Length <= pcapng.MaxPacket {
			frame = append(frame, make([]byte, missing)...)
			note = fmt.Sprintf("only %d of %d octets were captured; the others are taken for zeros", len(p.Data), p.Length)
		}
		return frame, note, nil
	}
	return nil, "", fmt.Errorf("number is %d, expected at most %d", number, maxRecorded)
}

// ethernet returns the frame of a packet, in memory of its own.
func ethernet(p *pcapng.Packet) ([]byte, error) {
	data := p.Data
	if p.Link == pcapng.LinkEthernet {
		return bytes.Clone(data), nil
	}
	kindAt, head := -1, 0
	switch p.Link {
	case pcapng.LinkRaw, pcapng.LinkRaw12, pcapng.LinkRaw14, pcapng.LinkIPv4, pcapng.LinkIPv6:
	case pcapng.LinkNull, pcapng.LinkLoop:
		head = 4
	case pcapng.LinkSLL:
		head, kindAt = 16, 14
	case pcapng.LinkSLL2:
		head, kindAt = 20, 0
	default:
		return nil, fmt.Errorf("its link layer is of type %d, expected Ethernet, raw IP or Linux cooked", p.Link)
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
