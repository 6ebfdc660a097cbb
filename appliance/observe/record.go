package observe

import (
	"bufio"
	"io"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"bitw/netstack/ethtap"
	"bitw/sa"
)

// A recorder writes frames as pcapng, with the interfaces "inside" for what the host
// sent and "outside" for what arrived. Superframes and unfinished checksums are
// written as they are.
type recorder struct {
	ng  *pcapgo.NgWriter
	buf *bufio.Writer
}

func newRecorder(w io.Writer) (*recorder, error) {
	intf := func(name string) pcapgo.NgInterface {
		return pcapgo.NgInterface{Name: name, LinkType: layers.LinkTypeEthernet, SnapLength: ethtap.MaxFrame}
	}
	buf := bufio.NewWriterSize(w, 1<<16)
	ng, err := pcapgo.NewNgWriterInterface(buf, intf("inside"), pcapgo.NgWriterOptions{
		SectionInfo: pcapgo.NgSectionInfo{Application: "bitw"},
	})
	if err != nil {
		return nil, err
	}
	if _, err := ng.AddInterface(intf("outside")); err != nil {
		return nil, err
	}
	r := &recorder{ng, buf}
	return r, r.flush()
}

func (r *recorder) flush() error {
	if err := r.ng.Flush(); err != nil {
		return err
	}
	return r.buf.Flush()
}

// write records a frame without its virtio-net header, with what would become of it
// as comment.
func (r *recorder) write(dir sa.Direction, frame []byte, comment string, now time.Time) error {
	o := pcapgo.NgPacketOptions{Flags: &pcapgo.NgEpbFlags{Direction: pcapgo.NgEpbFlagDirectionInbound}}
	if dir == sa.Outbound {
		o.Flags.Direction = pcapgo.NgEpbFlagDirectionOutbound
	}
	if comment != "" {
		o.Comments = []string{comment}
	}
	return r.ng.WritePacketWithOptions(gopacket.CaptureInfo{
		Timestamp: now, CaptureLength: len(frame), Length: len(frame), InterfaceIndex: int(dir),
	}, frame, o)
}
