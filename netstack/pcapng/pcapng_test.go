package pcapng

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"
)

// at is a time with all nanoseconds.
var at = time.Unix(1_700_000_000, 123_456_789)

// whole writes a file of three frames.
func whole(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, 128)
	if err != nil {
		t.Fatal(err)
	}
	for i, comment := range []string{"", "bypass by rule ssh", "dropped: icv"} {
		f := Frame{
			At: at, Interface: i % Interfaces, Sent: i == 1, Data: bytes.Repeat([]byte{byte(i)}, 61+i), Length: 1000,
			Comment: comment, Lost: uint64(i),
		}
		if err := w.Write(&f); err != nil {
			t.Fatal(err)
		}
	}
	for i := range Interfaces {
		if err := w.Count(i, uint64(10+i), uint64(3+i), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestR50_Writer(t *testing.T) {
	r, err := pcapgo.NewNgReader(bytes.NewReader(whole(t)), pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	for i, comment := range []string{"", "bypass by rule ssh", "dropped: icv"} {
		data, ci, o, err := r.ReadPacketDataWithOptions()
		if err != nil {
			t.Fatal(err)
		}
		if len(data) != 61+i || ci.Length != 1000 || ci.InterfaceIndex != i%2 || !ci.Timestamp.Equal(at) ||
			strings.Join(o.Comments, "|") != comment || (o.Flags.Direction == pcapgo.NgEpbFlagDirectionOutbound) != (i == 1) {
			t.Errorf("frame %d: %d octets, %+v, %+v", i, len(data), ci, o)
		}
		if i > 0 && (o.DropCount == nil || *o.DropCount != uint64(i)) || i == 0 && o.DropCount != nil {
			t.Errorf("frame %d: lost %v", i, o.DropCount)
		}
	}
	if _, _, err := r.ReadPacketData(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	for i, name := range InterfaceNames {
		intf, err := r.Interface(i)
		if err != nil || intf.Name != name || intf.SnapLength != 128 || intf.Statistics.PacketsDropped != uint64(3+i) {
			t.Errorf("interface %d: %+v, %v", i, intf, err)
		}
	}
}

// The blocks of a file are the file, in whatever pieces it comes.
func TestR50_Blocks(t *testing.T) {
	file := whole(t)
	for _, piece := range []int{1, 7, 8, 100, len(file)} {
		var out []byte
		var types []uint32
		var frames, lost [Interfaces]uint64
		s := NewBlocks(func(b Block) error {
			out = append(out, b...)
			types = append(types, b.Type())
			if i, ok := b.Interface(); ok && b.Type() == Statistics {
				frames[i], lost[i] = b.Counts()
			}
			return nil
		})
		for rest := file; len(rest) > 0; {
			n := min(piece, len(rest))
			if m, err := s.Write(rest[:n]); err != nil || m != n {
				t.Fatalf("wrote %d of %d: %v", m, n, err)
			}
			rest = rest[n:]
		}
		if err := s.Close(); err != nil || !bytes.Equal(out, file) {
			t.Errorf("in pieces of %d: %v, %d octets of %d", piece, err, len(out), len(file))
		}
		want := []uint32{Section, Description, Description, EnhancedPacket, EnhancedPacket, EnhancedPacket, Statistics, Statistics}
		if len(types) != len(want) || frames != [Interfaces]uint64{10, 11} || lost != [Interfaces]uint64{3, 4} {
			t.Errorf("types %v, frames %v, lost %v", types, frames, lost)
		}
		for i := range want {
			if types[i] != want[i] {
				t.Errorf("block %d is of type %d, expected %d", i, types[i], want[i])
			}
		}
	}
}

func TestR50_BlocksRefuseNonsense(t *testing.T) {
	file := whole(t)
	broken := func(f func([]byte)) []byte {
		b := bytes.Clone(file)
		f(b)
		return b
	}
	for name, b := range map[string][]byte{
		"no pcapng":     []byte("GET / HTTP/1.1\r\n"),
		"no section":    file[binary.LittleEndian.Uint32(file[4:]):],
		"no length":     broken(func(b []byte) { clear(b[4:8]) }),
		"odd length":    broken(func(b []byte) { b[4]++ }),
		"huge":          broken(func(b []byte) { b[7] = 0x7f }),
		"other lengths": broken(func(b []byte) { b[binary.LittleEndian.Uint32(b[4:])-4]++ }),
	} {
		s := NewBlocks(func(Block) error { return nil })
		if _, err := s.Write(b); err == nil || !strings.HasPrefix(err.Error(), "pcapng: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := NewBlocks(func(Block) error { return nil })
	if _, err := s.Write(file[:len(file)-1]); err != nil || s.Close() != io.ErrUnexpectedEOF {
		t.Errorf("cut off: %v, %v", err, s.Close())
	}
	full := errors.New("the disk is full")
	if _, err := NewBlocks(func(Block) error { return full }).Write(file); err != full {
		t.Errorf("where it is given on: %v", err)
	}
}

func FuzzBlocks(f *testing.F) {
	file := whole(f)
	f.Add(file, 7)
	f.Add(file[:50], 1)
	f.Add([]byte("\n\r\r\n\x0c\x00\x00\x00\x0c\x00\x00\x00\x05\x00\x00\x00\x0c\x00\x00\x00\x0c\x00\x00\x00"), 100)
	f.Fuzz(func(t *testing.T, file []byte, piece int) {
		var out []byte
		s := NewBlocks(func(b Block) error {
			out = append(out, b...)
			b.Interface()
			b.Counts()
			b.IsHead()
			return nil
		})
		piece = max(piece, 1)
		rest := file
		for len(rest) > 0 {
			n := min(piece, len(rest))
			if _, err := s.Write(rest[:n]); err != nil {
				return
			}
			rest = rest[n:]
		}
		if s.Close() == nil && !bytes.Equal(out, file) {
			t.Errorf("%x became %x", file, out)
		}
	})
}
