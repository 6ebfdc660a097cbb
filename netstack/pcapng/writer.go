package pcapng

import (
	"bufio"
	"io"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// The interfaces by their number in the file.
const (
	Inside  = 0
	Outside = 1
	// Interfaces is how many there are.
	Interfaces = 2
)

// MaxSnaplen is enough for every superframe, in octets.
const MaxSnaplen = 1 << 17

// InterfaceNames are the names of the interfaces.
var InterfaceNames = [Interfaces]string{Inside: "inside", Outside: "outside"}

// A Frame is one frame of a capture.
type Frame struct {
	At        time.Time
	Interface int
	// Sent says that it was sent by that interface, not received: its flag is outbound.
	Sent bool
	Data []byte // from the Ethernet header on, maybe cut short
	// Length is the octets of the whole.
	Length  int
	Comment string // "" for none
	// Lost is how many frames of the interface before this one are missing.
	Lost uint64
}

// A Writer writes a file. What it writes is buffered until Flush.
type Writer struct {
	ng  *pcapgo.NgWriter
	buf *bufio.Writer
}

// NewWriter begins a file in w with a head that says that at most snaplen octets of each
// frame are kept. The head is written at once.
func NewWriter(w io.Writer, snaplen int) (*Writer, error) {
	intf := func(i int) pcapgo.NgInterface {
		return pcapgo.NgInterface{Name: InterfaceNames[i], LinkType: layers.LinkTypeEthernet, SnapLength: uint32(snaplen)}
	}
	buf := bufio.NewWriterSize(w, 1<<16)
	ng, err := pcapgo.NewNgWriterInterface(buf, intf(Inside), pcapgo.NgWriterOptions{
		SectionInfo: pcapgo.NgSectionInfo{Application: "bitw"},
	})
	if err != nil {
		return nil, err
	}
	if _, err := ng.AddInterface(intf(Outside)); err != nil {
		return nil, err
	}
	f := &Writer{ng, buf}
	return f, f.Flush()
}

// Write adds a frame.
func (w *Writer) Write(f *Frame) error {
	o := pcapgo.NgPacketOptions{Flags: &pcapgo.NgEpbFlags{Direction: pcapgo.NgEpbFlagDirectionInbound}}
	if f.Sent {
		o.Flags.Direction = pcapgo.NgEpbFlagDirectionOutbound
	}
	if f.Comment != "" {
		o.Comments = []string{f.Comment}
	}
	if f.Lost > 0 {
		o.DropCount = &f.Lost
	}
	return w.ng.WritePacketWithOptions(gopacket.CaptureInfo{
		Timestamp: f.At, CaptureLength: len(f.Data), Length: f.Length, InterfaceIndex: f.Interface,
	}, f.Data, o)
}

// Count adds how many frames an interface had, and how many of these are missing.
func (w *Writer) Count(intf int, frames, lost uint64, at time.Time) error {
	return w.ng.WriteInterfaceStats(intf, pcapgo.NgInterfaceStatistics{LastUpdate: at, PacketsReceived: frames, PacketsDropped: lost})
}

// Flush passes on what is buffered.
func (w *Writer) Flush() error {
	if err := w.ng.Flush(); err != nil {
		return err
	}
	return w.buf.Flush()
}
