package integration

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bitw/integration/netlab"
)

// TestR07_RefusalsChangeNothing starts bitw where it must not start.
func TestR07_RefusalsChangeNothing(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	good := protected().yaml(true)
	running := newBox(t, pair.B, protected().yaml(false))
	running.up()

	badKey := strings.Replace(good, "encryption_key: 0x", "encryption_key: 0x00", 1)
	for _, test := range []struct {
		name   string
		host   *netlab.Host
		yaml   string
		mode   os.FileMode
		nobody bool
		want   []string // parts of the sentence
	}{
		{"a missing interface", pair.A, strings.Replace(good, "eth0", "eth7", 1), 0o600, false, []string{"bitw.yaml:1:", "eth7"}},
		{"not root", pair.A, good, 0o600, true, []string{"CAP_"}},
		{"an interface that is taken", pair.B, protected().yaml(false), 0o600, false, []string{"eth0", "taken"}},
		{"a key of wrong length", pair.A, badKey, 0o600, false, []string{"bitw.yaml:3:", "20", "21"}},
		{"a file that others can read", pair.A, good, 0o644, false, []string{"bitw.yaml", "0644"}},
		{"an unknown key", pair.A, good + "polices: []\n", 0o600, false, []string{"polices", "policies"}},
		{"no such file", pair.A, "", 0, false, []string{"bitw.yaml", "does not exist"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBox(t, test.host, test.yaml)
			if err := os.Chmod(b.file, test.mode); err != nil {
				t.Fatal(err)
			}
			if test.mode == 0 {
				_ = os.Remove(b.file)
			}
			cmd := exec.Command(bitwPath(t), "up", "-c", b.file)
			if test.nobody {
				// The folders of a test are closed to others.
				dir, err := os.MkdirTemp("", "bitw-nobody-")
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = os.RemoveAll(dir) })
				const nobody = 65534
				file := filepath.Join(dir, "bitw.yaml")
				text := strings.ReplaceAll(string(must(os.ReadFile(b.file))), b.dir, dir)
				for _, err := range []error{os.WriteFile(file, []byte(text), 0o600), os.Chown(file, nobody, nobody), os.Chown(dir, nobody, nobody)} {
					if err != nil {
						t.Fatal(err)
					}
				}
				cmd = exec.Command(bitwPath(t), "up", "-c", file)
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
			}
			before := links(t, test.host)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			proc, err := test.host.Start(cmd)
			if err != nil {
				t.Fatal(err)
			}
			code := exitCode(proc.Wait())
			t.Logf("exit status %d: %s", code, strings.TrimSpace(stderr.String()))
			if code != 1 || stdout.Len() > 0 {
				t.Errorf("exit status %d, stdout %q; expected 1 and nothing", code, stdout.String())
			}
			for _, w := range test.want {
				if !strings.Contains(stderr.String(), w) {
					t.Errorf("%q is not in what it says:\n%s", w, stderr.String())
				}
			}
			// One finding: where and what, the line with a caret, what would do, the sum.
			if n := strings.Count(strings.TrimSpace(stderr.String()), "\n"); n > 4 {
				t.Errorf("%d lines, expected one finding:\n%s", n+1, stderr.String())
			}
			if key := shownKey(test.yaml); key != "" && strings.Contains(stderr.String(), key) {
				t.Errorf("a key is shown:\n%s", stderr.String())
			}
			if after := links(t, test.host); after != before {
				t.Errorf("devices, addresses and routes changed:\n%s\nwere\n%s", after, before)
			}
		})
	}
	if s := running.status(); s.State != "active" {
		t.Errorf("the appliance that held the interface is %s", s.State)
	}
}

// shownKey is the beginning of the first key in a configuration.
func shownKey(yaml string) string {
	_, rest, found := strings.Cut(yaml, "encryption_key: 0x")
	if !found {
		return ""
	}
	return rest[:16]
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
