package service

import (
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bitw/integration/netlab"
)

// TestPackage looks at the package as lintian does: owners and modes, sums, configuration
// files, manual pages, scripts and completions.
func TestPackage(t *testing.T) {
	netlab.Require(t, netlab.Tool("dpkg-deb", "dpkg"), netlab.Tool("bash", "bash"), netlab.Tool("go", "golang"))
	dir, err := packages()
	if err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "bitw_0.1.0_*.deb"))
	if err != nil || len(found) != 1 {
		t.Fatalf("packages %q, %v", found, err)
	}
	output := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).Output()
		if err != nil {
			t.Fatalf("%s %q: %v", name, args, err)
		}
		return string(out)
	}
	root, control := t.TempDir(), t.TempDir()
	output("dpkg-deb", "-x", found[0], root)
	output("dpkg-deb", "-e", found[0], control)

	for line := range strings.Lines(output("dpkg-deb", "-c", found[0])) {
		f := strings.Fields(line)
		switch mode, owner, path := f[0], f[1], f[5]; {
		case owner != "root/root":
			t.Errorf("%s belongs to %s", path, owner)
		case mode[0] == 'd' && mode != "drwxr-xr-x", mode[0] == '-' && mode != "-rw-r--r--" && !(mode == "-rwxr-xr-x" && path == "./usr/sbin/bitw"):
			t.Errorf("%s has mode %s", path, mode)
		case mode[0] != 'd' && mode[0] != '-':
			t.Errorf("%s is %s", path, mode)
		}
	}

	read := func(base, path string) []byte {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(base, path))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	sums := make(map[string]string)
	for line := range strings.Lines(string(read(control, "md5sums"))) {
		sum, path, _ := strings.Cut(strings.TrimSpace(line), "  ")
		sums[path] = sum
	}
	var files []string
	if err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(root, path)
		files = append(files, name)
		b := read(root, name)
		if sum := md5.Sum(b); name != "etc/bitw/example.yaml" && sums[name] != hex.EncodeToString(sum[:]) {
			t.Errorf("%s is not of its sum, %q", name, sums[name])
		}
		if strings.HasSuffix(name, ".gz") {
			z, err := gzip.NewReader(bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(z)
			if err != nil || strings.Contains(name, "/man/") && !bytes.Contains(text, []byte(".TH")) {
				t.Errorf("%s: %v, %.60q", name, err, text)
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"usr/sbin/bitw", "usr/lib/systemd/system/bitw@.service", "usr/lib/systemd/system/bitw-guard@.service", "usr/lib/sysusers.d/bitw.conf", "usr/lib/tmpfiles.d/bitw.conf", "etc/bitw/example.yaml",
		"usr/share/man/man8/bitw.8.gz", "usr/share/man/man8/bitw-up.8.gz", "usr/share/man/man5/bitw.yaml.5.gz",
		"usr/share/bash-completion/completions/bitw", "usr/share/zsh/vendor-completions/_bitw", "usr/share/fish/vendor_completions.d/bitw.fish",
		"usr/share/bitw/schema.json", "usr/share/bitw/grafana.json", "usr/share/doc/bitw/copyright", "usr/share/doc/bitw/changelog.gz",
	} {
		if !slices.Contains(files, name) {
			t.Errorf("there is no %s", name)
		}
	}
	if text := string(read(control, "conffiles")); text != "/etc/bitw/example.yaml\n" {
		t.Errorf("the configuration files are %q", text)
	}
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		if out, err := exec.Command("sh", "-n", filepath.Join(control, script)).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", script, err, out)
		}
	}
	for _, name := range []string{"schema.json", "grafana.json"} {
		if !json.Valid(read(root, "usr/share/bitw/"+name)) {
			t.Errorf("%s is not JSON", name)
		}
	}
	copyright := string(read(root, "usr/share/doc/bitw/copyright"))
	for _, of := range []string{"Apache License", "the Go standard library", "gvisor.dev/gvisor", "github.com/cilium/ebpf", "kernel.org/pub/linux/libs/security/libcap/psx"} {
		if !strings.Contains(copyright, of) {
			t.Errorf("the copyright says nothing of %s", of)
		}
	}
	program := filepath.Join(root, "usr/sbin/bitw")
	example := strings.ReplaceAll(string(read(root, "etc/bitw/example.yaml")), "interface: INTERFACE", "interface: eth0")
	filled := filepath.Join(root, "etc/bitw/eth0.yaml")
	if err := os.WriteFile(filled, []byte(example), 0o600); err != nil {
		t.Fatal(err)
	}
	output(program, "check", "-c", filled)
	// The peer of the example, with the # taken away.
	var whole []string
	for line := range strings.Lines(example) {
		if rest, ok := strings.CutPrefix(line, "#"); ok && (strings.HasPrefix(rest, "security_associations:") || strings.HasPrefix(rest, "  - {name:")) {
			line = rest
		}
		whole = append(whole, line)
	}
	keys := strings.Repeat("00112233", 5)
	for name, text := range map[string]string{"eth0.yaml": strings.Join(whole, ""), "eth0.keys": "to-peer " + keys + "\nfrom-peer ff" + keys[2:] + "\n"} {
		if err := os.WriteFile(filepath.Join(root, "etc/bitw", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out := output(program, "check", "-c", filled); !strings.Contains(out, "peer") {
		t.Errorf("the example with its peer: %s", out)
	}
	completion := filepath.Join(root, "usr/share/bash-completion/completions/bitw")
	if out, err := exec.Command("bash", "-n", completion).CombinedOutput(); err != nil {
		t.Errorf("completion: %v\n%s", err, out)
	}
}
