package pcapng

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// read reads all packets of a file.
func read(file []byte) (packets []Packet, err error) {
	r, err := NewReader(bytes.NewReader(file))
	if err != nil {
		return nil, err
	}
	for {
		p, err := r.Next()
		if err != nil {
			if err == io.EOF {
				err = nil
			}
			return packets, err
		}
		p.Data = bytes.Clone(p.Data)
		packets = append(packets, p)
	}
}

// blocks makes a file of one section in an order, with interfaces of the link types and a
// snap length of 9.
func blocks(o binary.AppendByteOrder, links []LinkType, more ...[]byte) []byte {
	version := o.AppendUint16(o.AppendUint16(nil, majorVersion), 0)
	file := aBlock(o, Section, slices.Concat(words(o, byteOrder), version, words(o, 1<<32-1, 1<<32-1)))
	for _, l := range links {
		file = append(file, aBlock(o, Description, o.AppendUint32(o.AppendUint16(o.AppendUint16(nil, uint16(l)), 0), 9))...)
	}
	return slices.Concat(append([][]byte{file}, more...)...)
}

func aBlock(o binary.AppendByteOrder, blockType uint32, body []byte) []byte {
	n := uint32(minBlock + len(body))
	return o.AppendUint32(append(o.AppendUint32(o.AppendUint32(nil, blockType), n), body...), n)
}

func words(o binary.AppendByteOrder, list ...uint32) (b []byte) {
	for _, w := range list {
		b = o.AppendUint32(b, w)
	}
	return b
}

func compressed(t testing.TB, p []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestR50_ReadsWhatIsWritten(t *testing.T) {
	packets, err := read(whole(t))
	if err != nil || len(packets) != 3 {
		t.Fatalf("%d packets, %v", len(packets), err)
	}
	for i, p := range packets {
		if !bytes.Equal(p.Data, bytes.Repeat([]byte{byte(i)}, 61+i)) || p.Length != 1000 || p.Link != LinkEthernet {
			t.Errorf("packet %d: %+v", i, p)
		}
	}
}

// Files as others write them: of both byte orders, with several link layers, of all kinds of
// packet blocks, compressed.
func TestR50_ReadsFilesOfOthers(t *testing.T) {
	for name, o := range map[string]binary.AppendByteOrder{"little": binary.LittleEndian, "big": binary.BigEndian} {
		links := []LinkType{LinkRaw, LinkEthernet}
		file := blocks(o, links,
			aBlock(o, EnhancedPacket, append(words(o, 1, 0, 0, 5, 77), "abcde\x00\x00\x00"...)),
			aBlock(o, 0x0bad, words(o, 1, 2, 3)),
			aBlock(o, oldPacket, append(o.AppendUint16(o.AppendUint16(nil, 1), 0), append(words(o, 0, 0, 4, 4), "wxyz"...)...)),
			aBlock(o, simplePacket, append(words(o, 12), "123456789\x00\x00\x00"...)),
			blocks(o, []LinkType{LinkSLL}, aBlock(o, EnhancedPacket, append(words(o, 0, 0, 0, 4, 4), "last"...))))
		want := []Packet{{[]byte("abcde"), 77, LinkEthernet}, {[]byte("wxyz"), 4, LinkEthernet}, {[]byte("123456789"), 12, LinkRaw}, {[]byte("last"), 4, LinkSLL}}
		if got, err := read(file); err != nil || !slices.EqualFunc(got, want, same) {
			t.Errorf("%s endian: %+v, %v", name, got, err)
		}
		if got, err := read(compressed(t, file)); err != nil || !slices.EqualFunc(got, want, same) {
			t.Errorf("%s endian, compressed: %+v, %v", name, got, err)
		}
		for _, magic := range []uint32{pcapMicro, pcapNano} {
			old := slices.Concat(words(o, magic), o.AppendUint16(o.AppendUint16(nil, 2), 4), words(o, 0, 0, 65535, uint32(LinkSLL2)),
				words(o, 0, 0, 5, 77), []byte("abcde"), words(o, 0, 0, 2, 2), []byte("xy"))
			want := []Packet{{[]byte("abcde"), 77, LinkSLL2}, {[]byte("xy"), 2, LinkSLL2}}
			if got, err := read(old); err != nil || !slices.EqualFunc(got, want, same) {
				t.Errorf("pcap, %s endian: %+v, %v", name, got, err)
			}
			if _, err := read(old[:len(old)-1]); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("pcap, %s endian, cut off: %v", name, err)
			}
		}
	}
}

func same(a, b Packet) bool {
	return bytes.Equal(a.Data, b.Data) && a.Length == b.Length && a.Link == b.Link
}

func TestR50_ReaderRefusesNonsense(t *testing.T) {
	o := binary.LittleEndian
	ether := []LinkType{LinkEthernet}
	packet := func(head ...uint32) []byte { return aBlock(o, EnhancedPacket, append(words(o, head...), "abcd"...)) }
	version := blocks(o, ether)
	version[12] = 2
	for want, file := range map[string][]byte{
		"less than 4 octets":              {},
		"found neither":                   []byte("GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"),
		"pcap of version 2.3":             slices.Concat(words(o, pcapMicro), []byte{2, 0, 3, 0}, make([]byte, 16)),
		"a packet of 262145 octets":       slices.Concat(words(o, pcapMicro), []byte{2, 0, 4, 0}, make([]byte, 16), words(o, 0, 0, MaxPacket+1, MaxPacket+1)),
		"of byte order":                   slices.Concat(words(o, Section, 28), make([]byte, 20)),
		"a version that is not 1":         version,
		"of interface 1, where 1 are":     blocks(o, ether, packet(1, 0, 0, 4, 4)),
		"that has room for 4":             blocks(o, ether, packet(0, 0, 0, 5, 5)),
		"of which 4 were captured":        blocks(o, ether, packet(0, 0, 0, 4, 3)),
		"whose head is cut short":         blocks(o, ether, aBlock(o, EnhancedPacket, words(o, 0, 0, 0))),
		"an interface is cut short":       blocks(o, nil, aBlock(o, Description, words(o, 1))),
		"ends with a length of 99":        blocks(o, ether, words(o, 5, 12, 99)),
		"a block of 13 octets":            blocks(o, ether, words(o, 5, 13, 13)),
		"unexpected EOF":                  blocks(o, ether, words(o, 5, 16, 0)),
		"gzip":                            {0x1f, 0x8b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"a packet of interface 0, where ": blocks(o, nil, aBlock(o, simplePacket, words(o, 0))),
	} {
		if _, err := read(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, expected %q", err, want)
		}
	}
}

// FuzzReader compares with another reader what both take.
func FuzzReader(f *testing.F) {
	f.Add(whole(f))
	o := binary.BigEndian
	f.Add(blocks(o, []LinkType{LinkRaw}, aBlock(o, oldPacket, append(words(o, 0, 0, 0, 4, 4), "wxyz"...)), aBlock(o, simplePacket, append(words(o, 4), "abcd"...))))
	f.Add(slices.Concat(words(o, pcapNano), []byte{0, 2, 0, 4}, words(o, 0, 0, 0, 1), words(o, 1, 2, 4, 9), []byte("abcd")))
	f.Fuzz(func(t *testing.T, file []byte) {
		got, err := read(file)
		if err != nil || len(file) < 4 {
			return
		}
		var next func() ([]byte, gopacket.CaptureInfo, error)
		link := func(gopacket.CaptureInfo) layers.LinkType { return 0 }
		if binary.BigEndian.Uint32(file) == Section {
			r, err := pcapgo.NewNgReader(bytes.NewReader(file), pcapgo.NgReaderOptions{WantMixedLinkType: true})
			if err != nil {
				return
			}
			next = r.ReadPacketData
			link = func(ci gopacket.CaptureInfo) layers.LinkType { return ci.AncillaryData[0].(layers.LinkType) }
		} else {
			r, err := pcapgo.NewReader(bytes.NewReader(file))
			if err != nil {
				return
			}
			r.SetSnaplen(MaxPacket)
			next = r.ReadPacketData
			link = func(gopacket.CaptureInfo) layers.LinkType { return r.LinkType() & 0xffff }
		}
		for i, p := range got {
			data, ci, err := next()
			if err != nil {
				return
			}
			if !same(p, Packet{data, ci.Length, LinkType(link(ci))}) {
				t.Fatalf("packet %d is %+v, another reader finds %x of %d, link type %d", i, p, data, ci.Length, link(ci))
			}
		}
	})
}
