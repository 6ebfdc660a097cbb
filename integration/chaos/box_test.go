package chaos

import (
	"crypto/rand"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bitw/integration/netlab"
)

// bypass lets everything pass as it is.
const bypass = "policies:\n  - {name: all, action: bypass}\n"

// protect is the configuration of the two hosts by which all between them is under ESP
// in transport mode, with keys of its own, and all else passes by.
func protect() [2]string { return protectBetween(a4, b4) }

// protectBetween is protect for other addresses.
func protectBetween(a, b netip.Addr) [2]string {
	var keys [2][20]byte
	for i := range keys {
		_, _ = rand.Read(keys[i][:])
	}
	var yaml [2]string
	for host, d := range [][2]string{{"out", "in"}, {"in", "out"}} {
		local, remote := a, b
		if host == 1 {
			local, remote = b, a
		}
		yaml[host] = fmt.Sprintf(`security_associations:
  - {name: ab, direction: %s, protocol: esp, mode: transport, spi: 0x1001, source: %v, destination: %v, algorithm: aes128gcm16, encryption_key: 0x%x, replay_window: 4096}
  - {name: ba, direction: %s, protocol: esp, mode: transport, spi: 0x2001, source: %v, destination: %v, algorithm: aes128gcm16, encryption_key: 0x%x, replay_window: 4096}
policies:
  - {name: peer, local: %v, remote: %v, action: protect, out: [%s], in: [%s]}
  - {name: rest, action: bypass}
`, d[0], a, b, keys[0], d[1], b, a, keys[1], local, remote,
			[]string{"ab", "ba"}[host], []string{"ba", "ab"}[host])
	}
	return yaml
}

// box is bitw on a host's eth0.
type box struct {
	t    testing.TB
	host *netlab.Host
	file string
	proc *netlab.Process
}

// boxes puts bitw on both hosts of a pair.
func boxes(t testing.TB, pair *netlab.Pair, onFailure string, yaml [2]string, args ...string) (b [2]*box) {
	t.Helper()
	for i, h := range []*netlab.Host{pair.A, pair.B} {
		b[i] = boxOn(t, h, onFailure, yaml[i], args...)
	}
	return b
}

// boxOn puts bitw on one host.
func boxOn(t testing.TB, h *netlab.Host, onFailure, yaml string, args ...string) *box {
	t.Helper()
	dir := t.TempDir()
	b := &box{t: t, host: h, file: filepath.Join(dir, "bitw.yaml")}
	text := fmt.Sprintf("interface: eth0\non_failure: %s\ncontrol: %s\nstate_dir: %s\n%s",
		onFailure, filepath.Join(dir, "c.sock"), filepath.Join(dir, "state"), yaml)
	if err := os.WriteFile(b.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b.up(args...)
	t.Cleanup(b.giveBack)
	return b
}

// up starts bitw and waits until the interface is cut. A takeover from one whose readers have
// no processor for a while comes to nothing, and is tried again.
func (b *box) up(args ...string) {
	b.t.Helper()
	for end := time.Now().Add(patience); !b.comesUp(args, end); {
	}
}

func (b *box) comesUp(args []string, end time.Time) bool {
	b.t.Helper()
	out := new(netlab.Output)
	cmd := exec.Command(program(b.t), append([]string{"up", "-c", b.file}, args...)...)
	cmd.Stdout, cmd.Stderr = out, out
	proc, err := b.host.Start(cmd)
	if err != nil {
		b.t.Fatal(err)
	}
	b.proc = proc
	b.t.Cleanup(func() {
		if b.t.Failed() {
			b.t.Logf("bitw up on %s wrote:\n%s", b.host.Name(), out)
		}
	})
	for ; !strings.Contains(out.String(), "is cut and protected"); time.Sleep(time.Millisecond) {
		select {
		case <-proc.Done():
			if strings.Contains(out.String(), "the readers of eth0 do not come back") && time.Now().Before(end) {
				return false
			}
			b.t.Fatalf("bitw up on %s ended: %v\n%s", b.host.Name(), proc.Wait(), out)
		default:
		}
		if time.Now().After(end) {
			b.t.Fatalf("bitw up on %s does not get ready:\n%s", b.host.Name(), out)
		}
	}
	return true
}

// term ends bitw cleanly.
func (b *box) term() {
	b.t.Helper()
	b.signal(syscall.SIGTERM)
	if err := b.proc.Wait(); err != nil {
		b.t.Fatalf("bitw up on %s, told to end: %v", b.host.Name(), err)
	}
}

func (b *box) signal(s syscall.Signal) {
	b.t.Helper()
	if err := b.proc.Signal(s); err != nil {
		b.t.Fatal(err)
	}
}

// giveBack ends bitw and takes away what is left of the cut.
func (b *box) giveBack() {
	b.proc.Kill()
	if out, err := b.host.Run(deadline(b.t, patience), program(b.t), "recover", "eth0"); err != nil {
		b.t.Errorf("bitw recover on %s: %v\n%s", b.host.Name(), err, out)
	}
}

// watch looks for anything of the two hosts' on the wire that should be under ESP.
func watch(pair *netlab.Pair) *netlab.Capture {
	return pair.Wire.Capture(netlab.CaptureOptions{
		Watch: []netlab.Match{
			netlab.Containing([]byte(netlab.Marker)),
			netlab.InConversation(netlab.Flow{Proto: 6, Src: a4, Dst: b4}),
			netlab.InConversation(netlab.Flow{Proto: 17, Src: a4, Dst: b4}),
			netlab.InConversation(netlab.Flow{Proto: 6, Src: a6, Dst: b6}),
			netlab.InConversation(netlab.Flow{Proto: 17, Src: a6, Dst: b6}),
		},
		MaxBytes: 1, SnapLen: 128,
	})
}

// nothingClear ends the capture and checks that it has found nothing but ESP.
func nothingClear(t testing.TB, c *netlab.Capture) {
	t.Helper()
	counts, err := c.Stop()
	if err != nil {
		t.Fatal(err)
	}
	for i, what := range []string{"with what the hosts said", "of the TCP connection", "of the probes", "of the TCP connection by IPv6", "of the probes by IPv6"} {
		if w := c.Watched(i); w.Frames > 0 {
			t.Errorf("%d frames on the wire %s are in the clear; the first: %x", w.Frames, what, w.First[0].Data)
		}
	}
	if counts.Lost > 0 || counts.Of(netlab.ESP) == 0 {
		t.Errorf("on the wire: %v; expected ESP, and no frame that the capture lost", counts)
	}
}
