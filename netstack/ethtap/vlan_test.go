//go:build linux

package ethtap

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// tagged puts a VLAN tag into a frame.
func tagged(f []byte, tci uint16) []byte {
	return slices.Concat(f[:12], binary.BigEndian.AppendUint16([]byte{0x81, 0x00}, tci), f[12:])
}

// allFrames is a raw socket that sees every frame which the host receives, before its own cut
// does, with its VLAN tag, which the kernel takes out and tells beside the frame.
func (h *host) allFrames(t testing.TB) *rawSocket {
	t.Helper()
	s := &rawSocket{h: h}
	h.in(t, func() (err error) {
		all := htons(unix.ETH_P_ALL)
		if s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all)); err != nil {
			return err
		}
		unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
		unix.SetsockoptInt(s.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
		if err := unix.SetsockoptInt(s.fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
			return err
		}
		return unix.Bind(s.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: h.index})
	})
	t.Cleanup(func() { unix.Close(s.fd) })
	return s
}

// wantTagged expects a frame with a tag, times over, among those of other types.
func (s *rawSocket) wantTagged(t testing.TB, f []byte, tci uint16, times int) {
	t.Helper()
	for times > 0 {
		fds := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}
		until(t, "a tagged frame", func() bool {
			n, _ := unix.Poll(fds, 100)
			return n > 0
		})
		b, oob := make([]byte, MaxFrame), make([]byte, 256)
		n, m, _, _, err := unix.Recvmsg(s.fd, b, oob, 0)
		if err != nil {
			t.Fatal(err)
		}
		if n < 14 || binary.BigEndian.Uint16(b[12:]) != etherTest {
			continue
		}
		times--
		if !bytes.Equal(b[:n], f) {
			t.Errorf("%x arrives, expected %x", head(b[:n]), head(f))
		}
		msgs, err := unix.ParseSocketControlMessage(oob[:m])
		if err != nil || len(msgs) != 1 || len(msgs[0].Data) < 20 {
			t.Fatalf("%d control messages (%v), expected the auxiliary data", len(msgs), err)
		}
		// struct tpacket_auxdata
		status, got := ne.Uint32(msgs[0].Data), ne.Uint16(msgs[0].Data[16:])
		if status&unix.TP_STATUS_VLAN_VALID == 0 || got != tci {
			t.Errorf("the frame has status %#x and tag %d, expected tag %d", status, got, tci)
		}
	}
}

// tagsCross sends frames with VLAN tags both ways. a sees each atA times: a host whose
// own interface is cut sees it before the cut, too.
func tagsCross(t *testing.T, a, b *host, atA int) {
	t.Helper()
	ra, rb, sa, sb := a.raw(t), b.raw(t), a.allFrames(t), b.allFrames(t)
	for i := range 20 {
		tci := uint16(i*100+1) | uint16(i%8)<<13
		f := frame(a.mac, b.mac, i, 60+i*70)
		ra.send(t, tagged(f, tci))
		sb.wantTagged(t, f, tci, 1)
		f = frame(b.mac, a.mac, 1000+i, 60+i*70)
		rb.send(t, tagged(f, tci))
		sa.wantTagged(t, f, tci, atA)
	}
}

// TestR09_VLANTagsCross: a copy loop passes them as they are, from the packet ring too,
// where the kernel has taken them out of the frame.
func TestR09_VLANTagsCross(t *testing.T) {
	for name, o := range map[string]Options{"batches": {}, "taps": {NoRing: true, NoBatches: true}} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			d := l.a.open(t, o)
			set(t, d, Active, Active)
			startPump(t, d)
			tagsCross(t, l.a, l.b, 2)
		})
	}
}

func TestR13_VLANTagsCross(t *testing.T) {
	r := newRow(t)
	d := r.open(t, Options{})
	tagsCross(t, r.a, r.b, 1)
	set(t, d, Active, Active)
	startPump(t, d)
	tagsCross(t, r.a, r.b, 1)
}
