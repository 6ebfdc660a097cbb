package xfrmpeer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// layout is part of the cache's fingerprint: another number means that what
// an older version of this package has prepared is of no use to this one.
const layout = "2"

// guestPackages is what the guest's root file system is made of, besides what
// these packages depend on. BusyBox stands in for coreutils and util-linux.
func guestPackages() []string {
	return []string{
		"base-files", "base-passwd", "bash", "busybox-static", "kmod",
		"iproute2", "iputils-ping", "iperf3", "socat", "tcpdump",
		"user-mode-linux",
	}
}

// CacheDir returns the folder that holds the guest's kernel and root file
// system: $BITW_PEER_CACHE, else "bitw-peer" in the user's cache folder.
func CacheDir() (string, error) {
	if dir := os.Getenv("BITW_PEER_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no folder for the test peer's files (set BITW_PEER_CACHE): %w", err)
	}
	return filepath.Join(dir, "bitw-peer"), nil
}

// fingerprint names a state of the cache.
func fingerprint() string {
	sum := sha256.Sum256([]byte(layout + "\n" + strings.Join(guestPackages(), "\n")))
	return hex.EncodeToString(sum[:])
}

// files are the parts of a cache folder.
type files struct {
	dir    string // the cache folder
	kernel string // the User-Mode Linux executable
	root   string // the guest's root file system
	stamp  string // holds the fingerprint of what is prepared
}

func cacheFiles() (files, error) {
	dir, err := CacheDir()
	if err != nil {
		return files{}, err
	}
	if strings.ContainsAny(dir, " \t\n\",") {
		return files{}, fmt.Errorf("the test peer's cache folder %q has a space, quote or comma in its name, which a kernel command line cannot carry", dir)
	}
	return files{
		dir:    dir,
		kernel: filepath.Join(dir, "linux"),
		root:   filepath.Join(dir, "root"),
		stamp:  filepath.Join(dir, "stamp"),
	}, nil
}

func (f files) ready() bool {
	stamp, err := os.ReadFile(f.stamp)
	return err == nil && string(stamp) == fingerprint()
}

// Ready reports whether Setup has nothing to do.
func Ready() bool {
	f, err := cacheFiles()
	return err == nil && f.ready()
}

// Setup fetches the guest's packages from the machine's own apt sources and
// unpacks them in CacheDir; nothing is installed on the machine and no root is
// needed. It returns at once when this has been done before, and waits for
// another process that is doing it. What happens is told on log.
//
// It fetches about 60 MB. It needs a Debian or Ubuntu on x86-64 with apt-get,
// dpkg-deb and tar.
func Setup(ctx context.Context, log io.Writer) error {
	if err := checkHost(); err != nil {
		return err
	}
	f, err := cacheFiles()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return err
	}
	unlock, err := lockFile(filepath.Join(f.dir, "lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if f.ready() {
		return nil
	}
	tmp, err := os.MkdirTemp(f.dir, "build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	fmt.Fprintf(log, "test peer: fetching %s and what they need\n", strings.Join(guestPackages(), ", "))
	debs, err := fetch(ctx, filepath.Join(tmp, "apt"))
	if err != nil {
		return err
	}
	fmt.Fprintf(log, "test peer: unpacking %d packages\n", len(debs))
	root := filepath.Join(tmp, "root")
	if err := unpack(ctx, root, debs); err != nil {
		return err
	}
	if err := furnish(root); err != nil {
		return err
	}
	if err := install(f, root); err != nil {
		return err
	}
	fmt.Fprintf(log, "test peer: ready in %s\n", f.dir)
	return nil
}

func checkHost() error {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return fmt.Errorf("the test peer (User-Mode Linux) runs on linux/amd64 only, this is %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	for _, tool := range []string{"apt-get", "dpkg-deb", "tar"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("preparing the test peer needs %s: %w", tool, err)
		}
	}
	return nil
}

// lockFile waits for an exclusive lock that ends with the process or with the
// returned function.
func lockFile(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	return func() { file.Close() }, nil
}

// fetch downloads the packages with apt-get, which is given a package database
// of its own that is empty: so it neither looks at nor changes what the machine
// has installed, and every dependency comes along.
func fetch(ctx context.Context, apt string) ([]string, error) {
	for _, dir := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(apt, dir), 0o755); err != nil {
			return nil, err
		}
	}
	status := filepath.Join(apt, "status")
	if err := os.WriteFile(status, nil, 0o644); err != nil {
		return nil, err
	}
	args := []string{"-q", "-y"}
	for _, option := range []string{
		"Dir::State::lists=" + filepath.Join(apt, "lists"),
		"Dir::State::status=" + status,
		"Dir::State::extended_states=" + filepath.Join(apt, "extended_states"),
		"Dir::Cache=" + filepath.Join(apt, "cache"),
		"Dir::Cache::pkgcache=", "Dir::Cache::srcpkgcache=",
		"Debug::NoLocking=1", // the machine's lock is not needed, and not ours to take
		"APT::Install-Recommends=0", "Acquire::Languages=none",
	} {
		args = append(args, "-o", option)
	}
	// apt changes to a user that may not write here, unless told to stay.
	if me, err := user.Current(); err == nil {
		args = append(args, "-o", "APT::Sandbox::User="+me.Username)
	}
	// One of the machine's sources may be out of reach and not needed, so a
	// failed update only counts when the download fails too.
	updateErr := run(ctx, "apt-get", append(args, "update")...)
	install := append(append(args, "--download-only", "install"), guestPackages()...)
	if err := run(ctx, "apt-get", install...); err != nil {
		return nil, fmt.Errorf("fetching the test peer's packages: %w", errors.Join(updateErr, err))
	}
	debs, err := filepath.Glob(filepath.Join(apt, "cache/archives/*.deb"))
	if err == nil && len(debs) == 0 {
		err = errors.New("apt-get fetched no package")
	}
	return debs, err
}

// unpack lays the packages' files out under root, in Debian's merged-/usr form.
func unpack(ctx context.Context, root string, debs []string) error {
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.MkdirAll(filepath.Join(root, "usr", dir), 0o755); err != nil {
			return err
		}
		if err := os.Symlink("usr/"+dir, filepath.Join(root, dir)); err != nil {
			return err
		}
	}
	for _, deb := range debs {
		if err := unpackOne(ctx, root, deb); err != nil {
			return fmt.Errorf("unpacking %s: %w", filepath.Base(deb), err)
		}
	}
	return nil
}

func unpackOne(ctx context.Context, root, deb string) error {
	content := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	tar := exec.CommandContext(ctx, "tar", "-x", "-C", root,
		"--keep-directory-symlink", "--no-same-owner",
		"--exclude=./dev/*", "--exclude=./usr/share/doc/*", "--exclude=./usr/share/man/*",
		"--exclude=./usr/share/locale/*", "--exclude=./usr/share/info/*")
	pipe, err := content.StdoutPipe()
	if err != nil {
		return err
	}
	tar.Stdin = pipe
	var complaints bytes.Buffer
	tar.Stderr = &complaints
	if err := content.Start(); err != nil {
		return err
	}
	tarErr := tar.Run()
	// Wait closes the pipe, so a tar that gave up early does not hang dpkg-deb.
	if err := content.Wait(); err != nil && tarErr == nil {
		return fmt.Errorf("dpkg-deb: %w", err)
	}
	if tarErr != nil {
		return fmt.Errorf("tar: %w: %s", tarErr, tail(complaints.Bytes()))
	}
	return nil
}

// furnish does what the packages' installation scripts would have done, as far
// as the guest needs it.
func furnish(root string) error {
	for _, dir := range []string{"proc", "sys", "dev", "run", "tmp", "root", "share", "etc", "usr/lib/modules", "var/lib"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"etc/passwd":   "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/:/bin/false\ntcpdump:x:999:999::/:/bin/false\n",
		"etc/group":    "root:x:0:\nnogroup:x:65534:\ntcpdump:x:999:\n",
		"etc/hosts":    "127.0.0.1 localhost\n::1 localhost\n",
		"etc/hostname": "peer\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := os.Symlink("bash", filepath.Join(root, "usr/bin/sh")); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	modules, err := filepath.Glob(filepath.Join(root, "usr/lib/uml/modules/*"))
	if err != nil {
		return err
	}
	for _, dir := range modules {
		if err := os.Rename(dir, filepath.Join(root, "usr/lib/modules", filepath.Base(dir))); err != nil {
			return err
		}
	}
	if len(modules) == 0 {
		return errors.New("the package user-mode-linux has no kernel modules where they are expected (usr/lib/uml/modules)")
	}
	return nil
}

// install moves a finished root into its place in the cache; the stamp, which
// makes it count, comes last.
func install(f files, root string) error {
	if err := os.Remove(f.stamp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.RemoveAll(f.root); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(root, "usr/bin/linux.uml"), f.kernel); err != nil {
		return fmt.Errorf("the package user-mode-linux has no kernel where it is expected: %w", err)
	}
	if err := os.Rename(root, f.root); err != nil {
		return err
	}
	return os.WriteFile(f.stamp, []byte(fingerprint()), 0o644)
}

// run runs a command to its end; the error carries the end of what it printed.
func run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, tail(out))
	}
	return nil
}

// tail returns the end of a program's output, for an error.
func tail(out []byte) string {
	const most = 2000
	out = bytes.TrimSpace(out)
	if len(out) > most {
		out = out[len(out)-most:]
	}
	return string(out)
}
