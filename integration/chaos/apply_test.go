package chaos

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bitw/integration/netlab"
)

// applies is how often a configuration is put in force while everything goes on.
const applies = 200

// rolled is what two hosts are told: which of two keys and SPIs the SAs of each direction
// have, and whether there is more.
type rolled struct {
	ab, ba int
	more   bool
}

// rolling makes the configurations of a host for all states of two SAs with two keys each.
func rolling() func(host int, r rolled) string {
	var keys [5][20]byte
	for i := range keys {
		_, _ = rand.Read(keys[i][:])
	}
	return func(host int, r rolled) string {
		var b strings.Builder
		dirs, local, remote, names := [2]string{"out", "in"}, a4, b4, [2]string{"ab", "ba"}
		if host == 1 {
			dirs, local, remote, names = [2]string{"in", "out"}, b4, a4, [2]string{"ba", "ab"}
		}
		b.WriteString("security_associations:\n")
		association := func(name, dir string, spi int, key []byte, ends ...any) {
			fmt.Fprintf(&b, "  - {name: %s, direction: %s, protocol: esp, mode: transport, spi: 0x%x, source: %v, destination: %v, algorithm: aes128gcm16, encryption_key: 0x%x, replay_window: 4096}\n",
				name, dir, spi, ends[0], ends[1], key)
		}
		association("ab", dirs[0], 0x1001+r.ab<<8, keys[r.ab][:], a4, b4)
		association("ba", dirs[1], 0x2001+r.ba<<8, keys[2+r.ba][:], b4, a4)
		if r.more {
			association("more", dirs[0], 0x3001, keys[4][:], a4, b4)
		}
		peer := fmt.Sprintf("  - {name: peer, local: %v, remote: %v, action: protect, out: [%s], in: [%s]}\n", local, remote, names[0], names[1])
		probes := fmt.Sprintf("  - {name: probes, local: %v, remote: %v, protocol: udp, local_ports: [%d], action: protect, out: [%s], in: [%s]}\n", local, remote, probePort, names[0], names[1])
		b.WriteString("policies:\n")
		if r.more {
			ports := "remote_ports"
			if host == 1 {
				ports = "local_ports"
			}
			fmt.Fprintf(&b, "  - {name: more, direction: %[1]s, local: %[2]v, remote: %[3]v, protocol: udp, %[4]s: [9999], action: protect, %[1]s: [more]}\n", dirs[0], local, remote, ports)
			b.WriteString(probes + peer)
		} else {
			b.WriteString(peer + probes)
		}
		b.WriteString("  - {name: rest, action: bypass}\n")
		if r.more {
			b.WriteString("classes: {lldp: bypass}\nroutes: [{destination: 198.51.100.0/24, via: 192.0.2.9}]\nwatchdog: 4s\n")
		}
		return b.String()
	}
}

// TestR50_ApplyUnderLoad puts 200 configurations in force on both sides, by the verb and by
// SIGHUP, with keys rolled, policies in another order, SAs, policies and routes that come and go: no probe is
// lost, nothing is in the clear, no number is used twice, and rules that stay count on.
func TestR50_ApplyUnderLoad(t *testing.T) {
	text := rolling()
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	var now rolled
	b := boxes(t, pair, "shut", [2]string{text(0, now), text(1, now)})
	var head [2]string
	for i := range b {
		whole, err := os.ReadFile(b[i].file)
		if err != nil {
			t.Fatal(err)
		}
		head[i], _, _ = strings.Cut(string(whole), "security_associations:")
	}
	seen := watch(pair)
	all := pair.Wire.Capture(netlab.CaptureOptions{SnapLen: 256})
	tr := start(t, pair)
	first := [2]boxStatus{b[0].status(), b[1].status()}
	s := tr.begin()
	done := 0
	change := func(host int, r rolled) {
		t.Helper()
		if err := os.WriteFile(b[host].file, []byte(head[host]+text(host, r)), 0o600); err != nil {
			t.Fatal(err)
		}
		done++
		if done%10 != 0 {
			b[host].apply(0, "is in force, with")
			return
		}
		b[host].signal(syscall.SIGHUP)
		eventually(t, "SIGHUP", func() bool {
			out, err := b[host].host.Run(deadline(t, patience), program(t), "apply", b[host].file, "--dry-run")
			return err == nil && strings.Contains(out, "says what is in force already")
		})
	}
	was := first
	for round := 0; done < applies; round++ {
		next := rolled{1 - now.ab, 1 - now.ba, !now.more}
		// Whoever receives by an SA has its new key before who sends by it.
		change(0, rolled{now.ab, next.ba, now.more})
		change(1, next)
		change(0, next)
		now = next
		if round%16 != 0 {
			continue
		}
		for i := range b {
			if err := os.WriteFile(b[i].file+".bad", []byte(head[i]+strings.Replace(text(i, now), "action: bypass", "action: clear", 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			b[i].applyFile(b[i].file+".bad", 1, "")
			var is boxStatus
			eventually(t, fmt.Sprintf("rule peer counts on after %d configurations", done), func() bool {
				is = b[i].status()
				return is.packets("peer") > was[i].packets("peer")
			})
			if is.packets("probes") < was[i].packets("probes") {
				t.Errorf("after %d, rule probes counts %d packets, and had %d", done, is.packets("probes"), was[i].packets("probes"))
			}
			was[i] = is
		}
	}
	tr.flows("after all configurations")
	atMost(t, "configurations", s.end(fmt.Sprintf("ESP, shut: %d configurations applied", done)), 0)
	tr.finish()
	tr.ordered()
	nothingClear(t, seen)
	if _, err := all.Stop(); err != nil {
		t.Fatal(err)
	}
	numbersOnce(t, all.Frames())
	for i := range b {
		last := b[i].status()
		for reason, n := range last.Drops {
			switch reason {
			case "icv", "replay", "replay_old", "unknown_spi", "no_sa", "key_invalid", "no_policy", "selector_mismatch", "clear_not_protected", "seq_unreserved":
				t.Errorf("%s: %d datagrams dropped: %s", b[i].host.Name(), n-first[i].Drops[reason], reason)
			}
		}
	}
}

// TestR50_ApplyGoesOn changes parameters and names of SAs whose keys stay: they go on with
// their numbers, and no probe is lost while the traffic is held for that.
func TestR50_ApplyGoesOn(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	b := boxes(t, pair, "shut", protect())
	seen := watch(pair)
	all := pair.Wire.Capture(netlab.CaptureOptions{SnapLen: 256})
	tr := start(t, pair)
	s := tr.begin()
	for i := range 10 {
		for _, x := range b {
			if i%2 == 0 {
				x.edit("replay_window: 4096}\n  - {name: ba", "replay_window: 2048, lifetime: {bytes: 900GiB}}\n  - {name: ba")
				x.rename("ab", "there")
			} else {
				x.rename("there", "ab")
				x.edit("replay_window: 2048, lifetime: {bytes: 900GiB}}", "replay_window: 4096}")
			}
			x.apply(0, "is in force, with")
		}
	}
	tr.flows("after all configurations")
	atMost(t, "configurations", s.end("ESP, shut: 20 configurations by which SAs go on with other names"), 0)
	tr.finish()
	nothingClear(t, seen)
	if _, err := all.Stop(); err != nil {
		t.Fatal(err)
	}
	numbersOnce(t, all.Frames())
}

// rename gives an SA another name.
func (b *box) rename(from, to string) {
	b.t.Helper()
	for _, x := range []string{"{name: %s,", "[%s]"} {
		b.edit(fmt.Sprintf(x, from), fmt.Sprintf(x, to))
	}
}

// apply puts the box's file in force.
func (b *box) apply(status int, says string) {
	b.t.Helper()
	b.applyFile(b.file, status, says)
}

func (b *box) applyFile(path string, status int, says string) {
	b.t.Helper()
	out, err := b.host.Run(deadline(b.t, patience), program(b.t), "apply", path, "--socket", filepath.Join(filepath.Dir(b.file), "c.sock"))
	if (err != nil) != (status != 0) || !strings.Contains(out, says) {
		b.t.Fatalf("bitw apply on %s: %v\n%s", b.host.Name(), err, out)
	}
}
