package service

import (
	"strings"
	"testing"

	"bitw/integration/netlab"
)

// enabled installs the package, makes the example with lines of text added the configuration of
// eth0, and enables the service, as it was before a reboot.
func enabled(add string) string {
	return `dpkg -i /run/packages/bitw_0.1.0_*.deb >/dev/null
systemd-tmpfiles --create bitw.conf
sed s/INTERFACE$/eth0/ /etc/bitw/example.yaml > /run/good.yaml
printf '` + add + `' | cat /run/good.yaml - > /etc/bitw/eth0.yaml
chmod 600 /etc/bitw/eth0.yaml; chown bitw /etc/bitw/eth0.yaml
SYSTEMD_OFFLINE=1 systemctl enable bitw@eth0 2>/dev/null
cp -P /etc/systemd/system/multi-user.target.wants/bitw* /etc/systemd/system/idle.target.wants/
`
}

// guarded waits until the guard has been at work.
func guarded(m *machine) {
	m.t.Helper()
	eventually(m.t, "the guard was at work", func() bool {
		_, err := m.try("systemctl", "is-active", "bitw-guard@eth0")
		return err == nil
	})
}

// replaced makes eth0 anew.
func replaced(t testing.TB, pair *netlab.Pair) {
	t.Helper()
	if err := pair.A.Netlink().LinkDel(link(t, pair.A)); err != nil {
		t.Fatal(err)
	}
	if err := pair.A.Plug(pair.Wire, "eth0", netlab.CardOptions{Addrs: netlab.DefaultA()}); err != nil {
		t.Fatal(err)
	}
}

// TestR07_BootWithAWrongConfiguration boots a machine whose bitw cannot start: nothing
// passes, the operator is told so and can open the interface while the service is tried on
// and on, and once the configuration is right the service takes the interface over.
func TestR07_BootWithAWrongConfiguration(t *testing.T) {
	netlab.Require(t, needs()...)
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	m := newMachine(t, pair.A, enabled(`wrong: [\n`))
	const shut = "eth0 is shut, nothing passes; bitw up takes it over, bitw recover eth0 gives it back without protection"
	tried := func() {
		t.Helper()
		n := m.property("NRestarts")
		eventually(t, "bitw is tried again", func() bool { return m.property("NRestarts") != n })
	}

	guarded(m)
	silent(t, pair.A, "after the boot")
	tried()
	silent(t, pair.A, "after a failed start")
	if log := m.sh("cat /run/log"); !strings.Contains(log, "eth0.yaml:") || strings.Count(log, shut) < 2 {
		t.Errorf("the log does not say what is wrong, and that eth0 is shut:\n%s", log)
	}
	m.fails("bitw status eth0", shut)
	m.fails("dpkg -r bitw", "bitw recover eth0")
	replaced(t, pair)
	silent(t, pair.A, "with the interface made anew")

	m.run("bitw", "recover", "eth0")
	tried()
	pings(t, pair.A, 5) // until the neighbours are known
	if n := pings(t, pair.A, 5); n > 0 {
		t.Errorf("given back, %d of 5 pings were lost", n)
	}
	m.fails("bitw status eth0", "start one with")

	m.run("systemctl", "restart", "bitw-guard@eth0")
	silent(t, pair.A, "shut by hand")
	m.sh("cat /run/good.yaml > /etc/bitw/eth0.yaml")
	m.confined(m.active("0"))
	pings(t, pair.A, 5)
	if n := pings(t, pair.A, 5); n > 0 {
		t.Errorf("with a right configuration, %d of 5 pings were lost", n)
	}
	m.fails("bitw guard eth0", "already taken")
	if n := pings(t, pair.A, 5); n > 0 {
		t.Errorf("after a guard that was refused %d of 5 pings were lost", n)
	}
}

// TestR07_BootOpen: an operator who wants the interface open has it open, however wrong the
// rest is.
func TestR07_BootOpen(t *testing.T) {
	netlab.Require(t, needs()...)
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	m := newMachine(t, pair.A, strings.ReplaceAll(enabled(`wrong: [\n`), "s/INTERFACE$/eth0/", "'s/INTERFACE$/eth0/;s/^on_failure: shut/on_failure: open/'"))
	guarded(m)
	pings(t, pair.A, 5)
	if n := pings(t, pair.A, 5); n > 0 {
		t.Errorf("%d of 5 pings were lost", n)
	}
	if log := m.sh("cat /run/log"); !strings.Contains(log, "/etc/bitw/eth0.yaml says on_failure: open, eth0 stays as it is") {
		t.Errorf("the log:\n%s", log)
	}
	m.sh("systemctl disable --now bitw@eth0 2>/dev/null; test ! -e /etc/systemd/system/multi-user.target.wants/bitw-guard@eth0.service; dpkg -P bitw")
}
