package appliance

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"bitw/config/graphcomp"
	"bitw/netstack/wire"
	"bitw/sa/transform"
	"bitw/sa/transform/legacy"
)

// table is the slots of a graph, without the key managers among them.
func table(g *graphcomp.Graph) (*transform.Table, error) {
	var plugIns []transform.PlugIn
	if n := g.Node("rfc1825"); n != nil {
		for _, slot := range n.Lower {
			if slot.Protocol == "km" {
				continue
			}
			var options []string
			for _, o := range slot.Options {
				if o.Name != "iv32" && o.Name != "iv64" {
					options = append(options, o.Name)
				}
			}
			p, err := legacy.NewPlugIn(slot.Protocol, options...)
			if err != nil {
				return nil, err
			}
			plugIns = append(plugIns, p)
		}
	}
	return transform.NewTable(plugIns...)
}

// selfTest is the graph's prottest: each algorithm of each slot, with a key of the moment,
// gives back what it was given, hides it if it is ESP, and refuses a changed packet
// if it is AH.
func selfTest(g *graphcomp.Graph) (tested int, err error) {
	slots, err := table(g)
	if err != nil {
		return 0, err
	}
	for number := range slots.Len() {
		p, _ := slots.Slot(number)
		for i := range p.Algorithms {
			a := &p.Algorithms[i]
			x, err := throwaway(a)
			if err != nil {
				return tested, fmt.Errorf("self-test of %s in slot %d: %w", p.Name, number, err)
			}
			for _, n := range []int{0, 1, 6, 7, 8, 9, 63, 64, 1000} {
				if err := roundTrip(x, n); err != nil {
					return tested, fmt.Errorf("self-test of %s (%s) in slot %d with %d octets: %w", p.Name, a.Name, number, n, err)
				}
			}
			tested++
		}
	}
	return tested, nil
}

// throwaway makes a transform with a random key. One in 2^52 keys of DES is weak and
// refused.
func throwaway(a *transform.Algorithm) (x transform.Transform, err error) {
	for range 3 {
		enc, integ := make([]byte, a.EncryptionKeyLen), make([]byte, a.IntegrityKeyLen)
		for _, k := range [][]byte{enc, integ} {
			if _, err := rand.Read(k); err != nil {
				return nil, err
			}
		}
		if x, err = a.New(enc, integ, transform.Options{}); err == nil {
			return x, nil
		}
	}
	return nil, err
}

// roundTrip seals a datagram with n octets of payload and opens it again.
func roundTrip(x transform.Transform, n int) error {
	const ipLen = 20
	payload := make([]byte, n)
	for i := range payload {
		payload[i] = byte(i)
	}
	head := ipLen + x.HeaderLen()
	buf := make([]byte, head+n+x.TrailerLen(n))
	copy(buf[head:], payload)
	total := head + n + x.TrailerLen(n)
	buf[0], buf[8], buf[9] = 0x45, 64, x.Protocol()
	binary.BigEndian.PutUint16(buf[2:], uint16(total))
	copy(buf[12:], []byte{192, 0, 2, 1, 192, 0, 2, 2})
	p := transform.Packet{Buf: buf, Hdr: ipLen, Pay: head, End: head + n, NextHeader: wire.ProtoUDP}
	s := transform.Sequence{SPI: 0x1001, Number: 1}
	if r := x.Seal(&p, s); r != wire.DropNone {
		return fmt.Errorf("sealing: %v", r)
	}
	if p.End != total {
		return fmt.Errorf("%d octets sealed, expected %d", p.End, total)
	}
	if x.Protocol() == wire.ProtoESP && n >= 8 && bytes.Contains(buf[ipLen:p.End], payload) {
		return errors.New("the payload is not hidden")
	}
	if x.Protocol() == wire.ProtoAH {
		changed := transform.Packet{Buf: bytes.Clone(buf), Hdr: ipLen, Pay: ipLen, End: p.End}
		changed.Buf[p.End-1] ^= 1
		if r := x.Open(&changed, s); r != wire.DropICV {
			return fmt.Errorf("a changed packet: %v", r)
		}
	}
	q := transform.Packet{Buf: buf, Hdr: ipLen, Pay: ipLen, End: p.End}
	if r := x.Open(&q, s); r != wire.DropNone {
		return fmt.Errorf("opening: %v", r)
	}
	if q.NextHeader != wire.ProtoUDP || !bytes.Equal(buf[q.Pay:q.End], payload) {
		return errors.New("what is opened is not what was sealed")
	}
	return nil
}

// protTest is the self-test of an appliance whose graph has prottest.
func (a *Appliance) protTest() error {
	if a.opt.graph == nil || a.opt.graph.Node("prottest") == nil {
		return nil
	}
	n, err := selfTest(a.opt.graph.Graph)
	if err == nil {
		a.log.WithField("algorithms", n).Info("self-test passed")
	}
	return err
}
