package hook

import (
	"testing"

	"bitw/netstack/trace"
)

// noter notes what an observer is told.
type noter struct {
	snaplen  int
	verdicts []string
	loose    int
}

func (n *noter) Snaplen() int          { return n.snaplen }
func (n *noter) Packet(t *trace.Trail) { n.verdicts = append(n.verdicts, t.Verdict()) }
func (n *noter) Loose(*trace.Frame)    { n.loose++ }

func TestR50_Watch(t *testing.T) {
	b := newBump(t, ClassRule{"lldp", true})
	lldp := ethernet("\x01\x80\xc2\x00\x00\x0e", macPeer, 0x88cc, make([]byte, 46))
	first, second := &noter{}, &noter{snaplen: 64}
	b.send(b.dev, lldp)
	b.watch.Add(first)
	b.send(b.dev, lldp)
	b.watch.Add(second)
	b.send(b.kern, ethernet("\x01\x80\xc2\x00\x00\x03", macHost, 0x888e, make([]byte, 46)))
	b.watch.Remove(first)
	b.send(b.dev, lldp)
	b.watch.Remove(second)
	b.send(b.dev, lldp)
	if len(first.verdicts) != 2 || first.verdicts[0] != "bypass as lldp" || first.verdicts[1] != "dropped: class_discard; discard as eapol" {
		t.Errorf("first %q", first.verdicts)
	}
	if len(second.verdicts) != 2 || second.loose != 0 {
		t.Errorf("second %q, %d", second.verdicts, second.loose)
	}
	if b.watch.active.Load() != nil {
		t.Error("it still watches")
	}
}

type silent struct{}

func (silent) Snaplen() int         { return 100 }
func (silent) Packet(*trace.Trail)  {}
func (silent) Loose(f *trace.Frame) {}
