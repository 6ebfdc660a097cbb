//go:build linux

package ethtap

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// senderEnv makes the test binary a process that does with sockets in a namespace what
// it is told line by line, and answers each line with "ok" or the error.
const senderEnv = "BITW_ETHTAP_SENDER"

func rawSender(netns string) {
	runtime.LockOSThread()
	ns, err := os.Open(netns)
	if err == nil {
		err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
	}
	fmt.Println(answer(err))
	fd, xdp := -1, -1
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		word, arg, _ := strings.Cut(in.Text(), " ")
		switch word {
		case "open":
			unix.Close(fd)
			index, _ := strconv.Atoi(arg)
			if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err == nil {
				err = unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: index})
			}
		case "bypass":
			on, _ := strconv.Atoi(arg)
			err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, on)
		case "loss": // another option of packet sockets
			err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_LOSS, 0)
		case "long": // a value of more than a page
			err = unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, "\x00\x00\x01\x00"+strings.Repeat("\x00", 8192))
		case "send":
			f, _ := hex.DecodeString(arg)
			_, err = unix.Write(fd, f)
		case "xdp":
			if xdp < 0 {
				xdp, err = unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
			}
			opt, _ := strconv.Atoi(arg)
			if err == nil {
				err = unix.SetsockoptInt(xdp, solXDP, opt, 64)
			}
		}
		fmt.Println(answer(err))
		err = nil
	}
}

func answer(err error) string {
	if err == nil {
		return "ok"
	}
	return err.Error()
}

// teller is such a process.
type teller struct {
	t  testing.TB
	in io.WriteCloser
	r  *bufio.Reader
}

// startSender starts one in a cgroup, and kills it at the end.
func startSender(t testing.TB, h *host, cgroup string) *teller {
	t.Helper()
	dir, err := os.Open(cgroup)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), senderEnv+"="+h.path)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	x := &teller{t: t}
	if x.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	x.r = bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		missing(t, "start a process in the cgroup %s: %v", cgroup, err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	x.expect("ok")
	return x
}

func (x *teller) expect(want string) {
	x.t.Helper()
	got, err := x.r.ReadString('\n')
	if got = strings.TrimSpace(got); err != nil || got != want {
		x.t.Fatalf("the rawSender says %q (%v), expected %q", got, err, want)
	}
}

func (x *teller) tell(want, format string, args ...any) {
	x.t.Helper()
	fmt.Fprintf(x.in, format+"\n", args...)
	x.expect(want)
}

// newCgroup makes a cgroup for a test.
func newCgroup(t testing.TB) string {
	t.Helper()
	root, err := DefaultCgroup()
	if err != nil {
		missing(t, "%v", err)
	}
	dir := filepath.Join(root, fmt.Sprintf("bitw-ethtap-%d-%d", os.Getpid(), labs.Add(1)))
	if err := os.Mkdir(dir, 0o755); err != nil {
		missing(t, "make a cgroup: %v", err)
	}
	t.Cleanup(func() {
		// The kernel needs a moment after the last process's end.
		until(t, "the end of the cgroup", func() bool { return os.Remove(dir) == nil })
	})
	return dir
}

// TestR07_BypassIsForbidden: what goes round the cut is refused to the processes of the
// cgroup, with a process and after its end, until the cut is given back.
func TestR07_BypassIsForbidden(t *testing.T) {
	const refused = "operation not permitted"
	l := newLab(t)
	cgroup := newCgroup(t)
	x := startSender(t, l.a, cgroup)
	rb := l.b.raw(t)
	around := frame(l.a.mac, l.b.mac, 1, 60)
	text := string(around[:14]) + "round the cut"
	ready := func() {
		t.Helper()
		x.tell("ok", "open %d", l.a.index)
	}
	arrives := func() {
		t.Helper()
		x.tell("ok", "send %x", text)
		if f := rb.next(t); !strings.HasPrefix(string(f), text) {
			t.Fatalf("frame %x arrives", f)
		}
	}

	// Why there is a ban: both are possible without.
	d := l.a.open(t, Options{})
	set(t, d, Active, Active)
	ready()
	x.tell("ok", "bypass 1")
	arrives()
	x.tell("ok", "xdp %d", xdpTXRing)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}

	o := l.a.options(Options{ForbidBypass: cgroup})
	d = l.a.open(t, o)
	set(t, d, Active, Active)
	arrives() // a socket that was made so before is out of reach
	banned := func(when string) {
		t.Helper()
		ready()
		x.tell(refused, "bypass 1")
		x.tell("ok", "bypass 0")
		x.tell("ok", "loss")
		x.tell("ok", "long")
		y := startSender(t, l.a, cgroup)
		y.tell(refused, "xdp %d", xdpTXRing)
		y.tell(refused, "xdp %d", xdpRXRing)
		y.in.Close()
	}
	banned("with a device")
	if dir, n := d.Bypass(); dir != cgroup || n != 3 {
		t.Errorf("%d refused in %q, expected 3 in %q", n, dir, cgroup)
	}
	// A packet socket without that is stopped by the cut; the answer of write is an error.
	if _, err := fmt.Fprintf(x.in, "send %x\n", text); err != nil {
		t.Fatal(err)
	}
	x.r.ReadString('\n')
	if err := d.Release(); err != nil {
		t.Fatal(err)
	}
	banned("left shut")
	// The next process takes it over, and dies.
	p := startChild(t, childSpec{Options: o})
	banned("taken over")
	p.kill()
	banned("after SIGKILL")
	if err := Recover(o); err != nil {
		t.Fatal(err)
	}
	wantClean(t, l.a)
	ready()
	x.tell("ok", "bypass 1")
	arrives() // and the frame before did not

	// Under FailOpen the ban ends with the process.
	o.OnFailure = FailOpen
	p = startChild(t, childSpec{Options: o, Activate: true})
	banned("failing open")
	p.kill()
	ready()
	x.tell("ok", "bypass 1")
}

// TestForbidBypassChanges takes a cut over with another ban than it was left with.
func TestForbidBypassChanges(t *testing.T) {
	l := newLab(t)
	one, two := newCgroup(t), newCgroup(t)
	in1, in2 := startSender(t, l.a, one), startSender(t, l.a, two)
	for _, x := range []*teller{in1, in2} {
		x.tell("ok", "open %d", l.a.index)
	}
	look := func(want1, want2 string) {
		t.Helper()
		in1.tell(want1, "bypass 1")
		in2.tell(want2, "bypass 1")
	}
	const refused = "operation not permitted"
	for _, c := range []struct{ cgroup, want1, want2 string }{
		{one, refused, "ok"}, {two, "ok", refused}, {"", "ok", "ok"}, {one, refused, "ok"},
	} {
		d := l.a.open(t, Options{ForbidBypass: c.cgroup})
		look(c.want1, c.want2)
		if err := d.Release(); err != nil {
			t.Fatal(err)
		}
		look(c.want1, c.want2)
	}
	if err := Recover(l.a.options(Options{})); err != nil {
		t.Fatal(err)
	}
	look("ok", "ok")
	for _, dir := range []string{"/proc", filepath.Join(one, "none")} {
		if _, err := Open(l.a.options(Options{ForbidBypass: dir})); err == nil {
			t.Errorf("%s is taken for a cgroup", dir)
		} else if dir == "/proc" && !errors.Is(err, ErrOccupied) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	wantClean(t, l.a)
}

func TestCgroupMount(t *testing.T) {
	for _, c := range []struct{ mountinfo, want string }{
		{"", ""},
		{"35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n", "/sys/fs/cgroup"},
		{"31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup/unified"},
		{"35 24 0:30 /part /mnt rw - cgroup2 cgroup2 rw\n36 24 0:30 / /mnt/c\\040g rw - cgroup2 cgroup2 rw\n", "/mnt/c g"},
		{"35 24 0:30 / /x", ""},
	} {
		if got := cgroupMount(c.mountinfo); got != c.want {
			t.Errorf("%q: %q, expected %q", c.mountinfo, got, c.want)
		}
	}
}

// Every line of mountinfo comes from outside.
func FuzzCgroupMount(f *testing.F) {
	f.Add("35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n")
	f.Add("- - -\n - cgroup2\n")
	f.Fuzz(func(t *testing.T, s string) { cgroupMount(s) })
}
