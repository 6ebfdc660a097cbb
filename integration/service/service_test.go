package service

import (
	"context"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"bitw/integration/netlab"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if packagesMade != "" {
		_ = os.RemoveAll(packagesMade)
	}
	os.Exit(code)
}

var b4 = netip.MustParseAddr("192.0.2.2")

// pings tells how many of so many were lost.
func pings(t testing.TB, from *netlab.Host, count int) (lost int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := netlab.Ping(ctx, from, b4, netlab.PingOptions{Count: count, Interval: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	return r.Lost
}

// silent checks that no ping is answered.
func silent(t testing.TB, from *netlab.Host, when string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	// The kernel may say that it could not send.
	r, err := netlab.Ping(ctx, from, b4, netlab.PingOptions{Count: 3, Timeout: time.Second})
	if err == nil && r.Lost != 3 {
		t.Errorf("%s: %d of 3 pings were answered", when, 3-r.Lost)
	}
}

// during pings while f is at work, and checks that nothing is lost.
func during(t testing.TB, from *netlab.Host, what string, f func()) {
	t.Helper()
	stop, lost := make(chan struct{}), make(chan int)
	go func() {
		sum := 0
		for {
			select {
			case <-stop:
				lost <- sum
				return
			default:
				r, err := netlab.Ping(context.Background(), from, b4, netlab.PingOptions{Count: 20, Interval: 5 * time.Millisecond})
				if err != nil {
					t.Errorf("%s: %v", what, err)
				} else {
					sum += r.Lost
				}
			}
		}
	}()
	f()
	close(stop)
	if n := <-lost; n > 0 {
		t.Errorf("%s: %d pings were lost", what, n)
	}
}

// confined checks user, capabilities and filters of every thread of the service.
func (m *machine) confined(pid string) {
	m.t.Helper()
	uid := strings.TrimSpace(m.run("id", "-u", "bitw"))
	const three = "0000008000003000" // CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF
	const none = "0000000000000000"
	n := 0
	// A thread may end meanwhile.
	for status := range strings.SplitSeq(m.sh("cat /proc/"+pid+"/task/*/status 2>/dev/null || true"), "Name:") {
		if strings.TrimSpace(status) == "" {
			continue
		}
		n++
		for _, want := range []string{"Uid:\t" + uid + "\t" + uid, "CapInh:\t" + none, "CapPrm:\t" + three, "CapEff:\t" + three, "CapBnd:\t" + three, "CapAmb:\t" + none, "NoNewPrivs:\t1", "Seccomp:\t2"} {
			if !strings.Contains(status, want) {
				m.t.Errorf("a thread lacks %q:\n%s", want, status)
			}
		}
	}
	if n < 3 {
		m.t.Errorf("%d threads", n)
	}
}

// TestR07_R47_R48_Service installs the package, and goes through what an operator, a crash
// and an upgrade do with the service. It runs as a user with three capabilities all the
// time, in the sandbox of its unit.
func TestR07_R47_R48_Service(t *testing.T) {
	netlab.Require(t, needs()...)
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	m := newMachine(t, pair.A, "")
	before := m.sh("ip -br link; ip -br addr")

	m.sh("dpkg -i /run/packages/bitw_0.1.0_*.deb")
	if s := m.property("ActiveState"); s != "inactive" {
		t.Errorf("after the installation the service is %s", s)
	}
	if now := m.sh("ip -br link; ip -br addr"); now != before {
		t.Errorf("the installation changed\n%s\nto\n%s", before, now)
	}
	listed := m.run("dpkg", "-L", "bitw")
	for _, path := range []string{"/usr/sbin/bitw", "/usr/share/man/man8/bitw.8.gz", "/usr/share/man/man5/bitw.yaml.5.gz", "/etc/bitw/example.yaml"} {
		if !strings.Contains(listed, path+"\n") {
			t.Errorf("dpkg -L lacks %s", path)
		}
	}
	for _, unit := range []string{"bitw@eth0.service", "bitw-guard@eth0.service"} {
		if out := m.run("systemd-analyze", "verify", unit); strings.Contains(out, "bitw") {
			t.Errorf("systemd-analyze verify: %s", out)
		}
		if out, err := m.try("systemd-analyze", "security", "--no-pager", "--threshold=30", unit); err != nil {
			t.Errorf("systemd-analyze security: %v\n%s", err, out)
		}
	}

	// The packaged example, first as root's file, then as it must be.
	m.sh("sed s/INTERFACE$/eth0/ /etc/bitw/example.yaml > /etc/bitw/eth0.yaml; chmod 600 /etc/bitw/eth0.yaml")
	m.fails("systemctl enable --now bitw@eth0", "failed")
	m.sh("systemctl stop bitw@eth0")
	pings(t, pair.A, 5)
	if n := pings(t, pair.A, 5); n > 0 {
		t.Errorf("the first start fails, and %d of 5 pings were lost", n)
	}
	if log := m.sh("cat /run/log"); !strings.Contains(log, "chown bitw /etc/bitw/eth0.yaml") {
		t.Errorf("the log does not say what to do:\n%s", log)
	}
	m.sh("chown bitw /etc/bitw/eth0.yaml; systemctl enable --now bitw@eth0")
	pid := m.active("0")
	m.confined(pid)
	pings(t, pair.A, 5) // until the neighbours are known
	if n := pings(t, pair.A, 20); n > 0 {
		t.Errorf("%d of 20 pings were lost", n)
	}

	during(t, pair.A, "reload", func() { m.sh("systemctl reload bitw@eth0") })
	pid = m.active(pid)
	if n := pings(t, pair.A, 1500); n > 0 { // in more than seven seconds, of which the watchdog gives it five
		t.Errorf("after a reload %d of 1500 pings were lost", n)
	}
	if now := m.property("MainPID"); now != pid {
		t.Errorf("the process that had taken over did not live: %s, and was %s", now, pid)
	}
	m.confined(pid)
	m.sh("cp -p /etc/bitw/eth0.yaml /run/good; echo 'wrong: true' >> /etc/bitw/eth0.yaml")
	during(t, pair.A, "a reload that fails", func() { m.fails("systemctl reload bitw@eth0", "") })
	if now := m.property("MainPID"); now != pid || m.property("ActiveState") != "active" {
		t.Errorf("after a reload that failed the main process is %s, %s, and was %s", now, m.property("ActiveState"), pid)
	}
	m.sh("cp -p /run/good /etc/bitw/eth0.yaml")

	m.sh("kill -KILL " + pid)
	pid = m.active(pid)
	m.sh("kill -STOP " + pid) // until the watchdog comes
	pid = m.active(pid)
	if n := m.property("NRestarts"); n == "0" {
		t.Error("it was killed and it hung, and was never restarted")
	}
	pings(t, pair.A, 5)
	if n := pings(t, pair.A, 20); n > 0 {
		t.Errorf("after a crash %d of 20 pings were lost", n)
	}

	if err := pair.A.Netlink().LinkDel(link(t, pair.A)); err != nil {
		t.Fatal(err)
	}
	if err := pair.A.Plug(pair.Wire, "eth0", netlab.CardOptions{Addrs: netlab.DefaultA()}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the interface that was created anew is cut", func() bool {
		out, err := m.try("bitw", "status")
		return err == nil && strings.Contains(out, "state: active")
	})
	eventually(t, "a ping is answered by the interface that was created anew", func() bool {
		r, err := netlab.Ping(t.Context(), pair.A, b4, netlab.PingOptions{Timeout: time.Second})
		return err == nil && r.Received == 1
	})
	m.confined(pid)

	during(t, pair.A, "upgrade", func() { m.sh("dpkg -i /run/packages/bitw_0.1.1_*.deb") })
	pid = m.active(pid)
	m.confined(pid)

	// While it is cut, and when it is shut, the package stays, and nothing opens.
	m.fails("dpkg -r bitw", "bitw recover eth0")
	m.sh("systemctl disable --now bitw@eth0")
	m.fails("dpkg -r bitw", "bitw recover eth0")
	silent(t, pair.A, "it is stopped")
	m.sh("bitw recover eth0; dpkg -P bitw")
	if left := m.sh("ls /sys/fs/bpf/bitw; ls -d /usr/sbin/bitw /etc/bitw/example.yaml 2>/dev/null || true"); left != "" {
		t.Errorf("a purge leaves %s", left)
	}
	m.sh("test -d /var/lib/bitw") // the sequence numbers that were used
	pings(t, pair.A, 5)
	if n := pings(t, pair.A, 5); n > 0 {
		t.Errorf("given back, %d of 5 pings were lost", n)
	}
}

func link(t testing.TB, h *netlab.Host) netlink.Link {
	t.Helper()
	l, err := h.Netlink().LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}
