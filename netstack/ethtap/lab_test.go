//go:build linux

package ethtap

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what must happen; nothing is measured.
const patience = 30 * time.Second

// missing skips a test, or fails it where everything is required.
func missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("BITW_REQUIRE") == "all" {
		t.Fatalf("required but missing: "+format, args...)
	}
	t.Skipf(format, args...)
}

// until waits for a condition.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// host is one of the two hosts of a lab.
type host struct {
	path  string // of its namespace
	ns    *os.File
	nl    *netlink.Handle
	addr4 netip.Addr
	addr6 netip.Addr
	mac   net.HardwareAddr
	index int // of eth0
}

// lab is two namespaces, a and b, whose eth0 are the ends of one veth.
type lab struct {
	a, b *host
}

var labs atomic.Uint32 // makes the names of namespaces unique in this process

func newLab(t testing.TB) *lab {
	t.Helper()
	if err := checkCapabilities(); err != nil {
		missing(t, "%v", err)
	}
	if err := checkTUN(); err != nil {
		missing(t, "%v", err)
	}
	n := labs.Add(1)
	l := &lab{a: newHost(t, n, "a", 1), b: newHost(t, n, "b", 2)}
	l.connect(t)
	return l
}

// sweep removes what a test that was killed has left of a namespace that is gone, whose
// number the new one has got.
func (h *host) sweep(t testing.TB) {
	t.Helper()
	ns, ino, err := openNamespace(h.path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	for _, dir := range []string{DefaultPinDir, runDir} {
		old, err := filepath.Glob(filepath.Join(dir, fmt.Sprintf("%d-*", ino)))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range old {
			if err := os.RemoveAll(path); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// connect makes the veth and sets up both ends, the receiving b first.
func (l *lab) connect(t testing.TB) {
	t.Helper()
	l.connectAs(t, 0)
}

// connectAs is connect with an index for a's end; 0 leaves that to the kernel.
func (l *lab) connectAs(t testing.TB, index int) {
	t.Helper()
	la := netlink.NewLinkAttrs()
	la.Name, la.Index = "eth0", index
	if err := l.a.nl.LinkAdd(&netlink.Veth{LinkAttrs: la, PeerName: "eth0", PeerNamespace: netlink.NsFd(l.b.ns.Fd())}); err != nil {
		missing(t, "make a veth: %v", err)
	}
	l.b.setUp(t)
	l.a.setUp(t)
	l.linked(t)
	l.a.knows(t, l.b)
	l.b.knows(t, l.a)
}

// linked waits until both hosts have a link.
func (l *lab) linked(t testing.TB) {
	t.Helper()
	for _, h := range []*host{l.a, l.b} {
		h.linked(t, h.index)
	}
}

// linked waits until the kernel has noticed that an interface has a link, which it does some
// time after both ends are up. Before that it drops what the host sends.
func (h *host) linked(t testing.TB, index int) {
	t.Helper()
	until(t, "a link", func() bool {
		l, err := h.nl.LinkByIndex(index)
		return err == nil && l.Attrs().OperState == netlink.OperUp
	})
}

// disconnect deletes the veth.
func (l *lab) disconnect(t testing.TB) {
	t.Helper()
	eth, err := l.a.nl.LinkByIndex(l.a.index)
	if err == nil {
		err = l.a.nl.LinkDel(eth)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func newHost(t testing.TB, n uint32, name string, num byte) *host {
	t.Helper()
	h := &host{
		addr4: netip.AddrFrom4([4]byte{10, 77, 0, num}),
		addr6: netip.AddrFrom16([16]byte{0xfd, 0x77, 15: num}),
	}
	nsName := fmt.Sprintf("bitw-ethtap-%d-%d%s", os.Getpid(), n, name)
	h.path = "/run/netns/" + nsName
	own, _, err := openNamespace("")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	// On a thread that ends, since NewNamed leaves it in the new namespace.
	if err := inNamespace(own, func() error {
		ns, err := netns.NewNamed(nsName)
		if err == nil {
			ns.Close()
		}
		return err
	}); err != nil {
		missing(t, "make a network namespace: %v", err)
	}
	t.Cleanup(func() { netns.DeleteNamed(nsName) })
	if h.ns, _, err = openNamespace(h.path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.ns.Close() })
	h.in(t, func() error {
		h.nl, err = netlink.NewHandle()
		return err
	})
	t.Cleanup(h.nl.Close)
	h.sweep(t)
	return h
}

// in runs fn inside the host's namespace.
func (h *host) in(t testing.TB, fn func() error) {
	t.Helper()
	if err := inNamespace(h.ns, fn); err != nil {
		t.Fatal(err)
	}
}

func (h *host) setUp(t testing.TB) {
	t.Helper()
	h.in(t, func() error {
		os.WriteFile("/proc/sys/net/ipv6/conf/all/accept_dad", []byte("0"), 0)
		os.WriteFile("/proc/sys/net/ipv6/conf/eth0/accept_dad", []byte("0"), 0)
		eth, err := h.nl.LinkByName("eth0")
		if err != nil {
			return err
		}
		h.index, h.mac = eth.Attrs().Index, eth.Attrs().HardwareAddr
		for _, p := range []netip.Prefix{netip.PrefixFrom(h.addr4, 24), netip.PrefixFrom(h.addr6, 64)} {
			ipnet := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
			if err := h.nl.AddrAdd(eth, &netlink.Addr{IPNet: ipnet, Flags: unix.IFA_F_NODAD}); err != nil {
				return fmt.Errorf("add %v: %w", p, err)
			}
		}
		lo, err := h.nl.LinkByName("lo")
		if err != nil {
			return err
		}
		return errors.Join(h.nl.LinkSetUp(lo), h.nl.LinkSetUp(eth))
	})
}

// knows gives h the neighbour entry of p for good, so that tests which stop one
// direction do not stop ARP.
func (h *host) knows(t testing.TB, p *host) {
	t.Helper()
	for _, a := range []netip.Addr{p.addr4, p.addr6} {
		if err := h.nl.NeighSet(&netlink.Neigh{LinkIndex: h.index, IP: a.AsSlice(), HardwareAddr: p.mac, State: netlink.NUD_PERMANENT}); err != nil {
			t.Fatal(err)
		}
	}
}

// udp opens a UDP socket at the host's IPv4 or IPv6 address.
func (h *host) udp(t testing.TB, addr netip.Addr) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	h.in(t, func() (err error) {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
		return err
	})
	t.Cleanup(func() { c.Close() })
	raw, err := c.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func addrOf(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

func send(t testing.TB, from, to *net.UDPConn, payload string) {
	t.Helper()
	if _, err := from.WriteToUDPAddrPort([]byte(payload), addrOf(to)); err != nil {
		t.Fatal(err)
	}
}

// next reads the next datagram's payload.
func next(t testing.TB, c *net.UDPConn) string {
	t.Helper()
	s, err := nextWithin(c, patience)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// nextWithin passes over what a probe sent once more and comes late.
func nextWithin(c *net.UDPConn, d time.Duration) (string, error) {
	for end := time.Now().Add(d); ; {
		if s, err := read(c, end); err != nil || !strings.HasPrefix(s, probeMark) {
			return s, err
		}
	}
}

func read(c *net.UDPConn, end time.Time) (string, error) {
	c.SetReadDeadline(end)
	b := make([]byte, 65536)
	n, err := c.Read(b)
	return string(b[:n]), err
}

// probeMark begins what a probe sends.
const probeMark = "probe "

// probe sends until a datagram with the payload arrives.
func probe(t testing.TB, from, to *net.UDPConn, payload string) {
	t.Helper()
	payload = probeMark + payload
	for end := time.Now().Add(patience); time.Now().Before(end); {
		send(t, from, to, payload)
		for {
			got, err := read(to, time.Now().Add(50*time.Millisecond))
			if err != nil {
				break
			}
			if got == payload {
				return
			}
		}
	}
	t.Fatalf("%q does not arrive", payload)
}

// etherTest is the EtherType for local experiments, IEEE 802 §9.2.4.
const etherTest = 0x88b5

// rawSocket is a packet socket on eth0 for frames of etherTest.
type rawSocket struct {
	fd int
	h  *host
}

func (h *host) raw(t testing.TB) *rawSocket {
	t.Helper()
	s := &rawSocket{h: h}
	h.in(t, func() (err error) {
		const proto = etherTest>>8 | etherTest&0xff<<8 // network order
		if s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto); err != nil {
			return err
		}
		unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
		unix.SetsockoptInt(s.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
		return unix.Bind(s.fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: h.index})
	})
	t.Cleanup(func() { unix.Close(s.fd) })
	return s
}

// frame builds an Ethernet frame of etherTest that carries a number.
func frame(src, dst net.HardwareAddr, num, size int) []byte {
	f := make([]byte, 14, size)
	copy(f, dst)
	copy(f[6:], src)
	binary.BigEndian.PutUint16(f[12:], etherTest)
	f = binary.BigEndian.AppendUint32(f, uint32(num))
	for i := len(f); i < size; i++ {
		f = append(f, byte(num+i))
	}
	return f
}

// trySend is send where the frame may be dropped, which the kernel tells.
func (s *rawSocket) trySend(f []byte) error {
	_, err := unix.Write(s.fd, f)
	return err
}

func (s *rawSocket) send(t testing.TB, f []byte) {
	t.Helper()
	if _, err := unix.Write(s.fd, f); err != nil {
		t.Fatalf("send a raw frame: %v", err)
	}
}

func (s *rawSocket) next(t testing.TB) []byte {
	t.Helper()
	fds := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}
	for end := time.Now().Add(patience); ; {
		n, err := unix.Poll(fds, 100)
		if err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
		if n > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("no raw frame arrives")
		}
	}
	b := make([]byte, MaxFrame)
	n, err := unix.Read(s.fd, b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// await reads until n frames have come that match.
func (s *rawSocket) await(t testing.TB, n int, match func([]byte) bool) {
	t.Helper()
	for n > 0 {
		if match(s.next(t)) {
			n--
		}
	}
}

// isTest tells a frame of etherTest.
func isTest(f []byte) bool { return binary.BigEndian.Uint16(f[12:]) == etherTest }

// want reads the next frame and compares it.
func (s *rawSocket) want(t testing.TB, f []byte) {
	t.Helper()
	if got := s.next(t); !bytes.Equal(got, f) {
		t.Fatalf("frame %x (%d octets), expected %x (%d octets)", head(got), len(got), head(f), len(f))
	}
}

func head(b []byte) []byte { return b[:min(len(b), 24)] }

// open opens the device on the host's eth0 and closes it at the end.
func (h *host) open(t testing.TB, o Options) *Device {
	t.Helper()
	d, err := Open(h.options(o))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return d
}

func (h *host) options(o Options) Options {
	o.Interface, o.NetNS = "eth0", h.path
	return o
}

func set(t testing.TB, d *Device, kernel, wire State) {
	t.Helper()
	if err := d.SetStates(kernel, wire); err != nil {
		t.Fatal(err)
	}
}

// readTest reads from a tap until a frame of etherTest comes, without header.
func readTest(t testing.TB, r *Tap) []byte {
	t.Helper()
	return readMatch(t, r, isTest)
}

// readMatch reads from a tap until a frame matches. What the kernels say by
// themselves (MLD, router solicitations) passes by.
func readMatch(t testing.TB, r *Tap, match func([]byte) bool) []byte {
	t.Helper()
	type result struct {
		f   []byte
		err error
	}
	done := make(chan result, 1)
	go func() {
		b := make([]byte, MaxFrame)
		for {
			n, err := r.Read(b)
			if err != nil {
				done <- result{nil, err}
				return
			}
			if match(b[HeaderLen:n]) {
				done <- result{b[HeaderLen:n], nil}
				return
			}
		}
	}()
	select {
	case x := <-done:
		if x.err != nil {
			t.Fatalf("read from %s: %v", r.Name(), x.err)
		}
		return x.f
	case <-time.After(patience):
		t.Fatalf("read from %s: nothing comes", r.Name())
	}
	return nil
}

// pump copies from one tap to the other until a read fails.
type pump struct {
	wg      sync.WaitGroup
	longest atomic.Int64 // octets of the longest read
	bad     atomic.Pointer[error]
}

func (p *pump) copy(from, to *Tap) {
	for i := range from.Queues() {
		p.wg.Add(1)
		go func() {
			defer p.wg.Done()
			b := make([]byte, MaxFrame)
			for {
				n, err := from.Queues()[i].Read(b)
				if err != nil {
					if !errors.Is(err, ErrClosed) {
						p.bad.Store(&err)
					}
					return
				}
				if int64(n) > p.longest.Load() {
					p.longest.Store(int64(n))
				}
				if _, err := to.Queues()[i].Write(b[:n]); err != nil && !errors.Is(err, ErrClosed) && !dropped(err) {
					p.bad.Store(&err)
				}
			}
		}()
	}
}

// dropped tells that the kernel dropped a frame further on, as it may any: for want of room on
// the way, or because the interface has gone.
func dropped(err error) bool {
	for _, e := range []error{unix.ENOBUFS, unix.EAGAIN, unix.ENETDOWN, unix.ENXIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// startPump is the plain copy loop, both ways.
func startPump(t testing.TB, d *Device) *pump {
	p := new(pump)
	p.copy(d.Kernel(), d.Wire())
	p.copy(d.Wire(), d.Kernel())
	t.Cleanup(func() {
		d.Close()
		p.wg.Wait()
		if err := p.bad.Load(); err != nil {
			t.Errorf("pump: %v", *err)
		}
	})
	return p
}

// traces lists what a cut leaves on the host's side of the machine.
func (h *host) traces(t testing.TB) []string {
	t.Helper()
	var found []string
	ls, err := h.nl.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range ls {
		if n := l.Attrs().Name; n != "lo" && n != "eth0" {
			found = append(found, "link "+n)
		}
		qs, err := h.nl.QdiscList(l)
		if err != nil {
			t.Fatal(err)
		}
		for _, q := range qs {
			if q.Type() == "clsact" && q.Attrs().LinkIndex == l.Attrs().Index {
				found = append(found, "clsact on "+l.Attrs().Name)
			}
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(h.ns.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	k := key{st.Ino, h.index}.String()
	for _, p := range []string{filepath.Join(DefaultPinDir, k), filepath.Join(runDir, k+".lock")} {
		if _, err := os.Stat(p); err == nil {
			found = append(found, p)
		}
	}
	h.in(t, func() error {
		if kind, _ := findGuard("eth0"); kind != GuardNone {
			found = append(found, "guard")
		}
		return nil
	})
	return append(found, tcxOn(t, h)...)
}

func wantClean(t testing.TB, h *host) {
	t.Helper()
	if tr := h.traces(t); len(tr) > 0 {
		t.Errorf("left behind: %s", strings.Join(tr, ", "))
	}
}
