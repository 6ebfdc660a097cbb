package integration

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bitw/integration/netlab"
)

// A person sits at a host and types into a shell, as root, in a checkout of the source.
// What the host keeps in /etc, /run, /var/lib and the checkout is its own, and gone with
// the test; sudo does nothing but run what it is given.
type person struct {
	t      testing.TB
	host   *netlab.Host
	holder *netlab.Process
}

// own gives the host its own files, by overlays and file systems in memory that nobody
// outside of it sees, and stays.
const own = `set -e
mount -t tmpfs tmpfs "$1"
for d in /etc "$2"; do
	mkdir -p "$1$d/upper" "$1$d/work"
	mount -t overlay overlay -o "lowerdir=$d,upperdir=$1$d/upper,workdir=$1$d/work" "$d"
done
for d in /run /var/lib /usr/local/sbin; do mount -t tmpfs tmpfs "$d"; done
printf '#!/bin/sh\nexec "$@"\n' > /usr/local/sbin/sudo
chmod 755 /usr/local/sbin/sudo
echo ready
exec sleep infinity`

const bpffs = "/sys/fs/bpf"

// overlays is the need of what own does.
func overlays() netlab.Need {
	return netlab.Need{Name: "overlay file systems", Check: func() error {
		text, err := os.ReadFile("/proc/filesystems")
		if err == nil && !bytes.Contains(text, []byte("\toverlay\n")) {
			if exec.Command("modprobe", "overlay").Run() != nil {
				err = fmt.Errorf("the kernel has none (CONFIG_OVERLAY_FS)")
			}
		}
		return err
	}}
}

// source is the folder of the checkout.
func source(t testing.TB) string {
	t.Helper()
	dir, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func newPerson(t testing.TB, host *netlab.Host) *person {
	t.Helper()
	// bitw mounts this one itself, but not among mounts that others may not see.
	var st unix.Statfs_t
	if err := unix.Statfs(bpffs, &st); err == nil && st.Type != unix.BPF_FS_MAGIC {
		if err := unix.Mount("bpf", bpffs, "bpf", 0, "mode=700"); err != nil {
			t.Fatalf("mount a bpf filesystem at %s: %v", bpffs, err)
		}
	}
	out := new(netlab.Output)
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "bash", "-c", own, "bash", t.TempDir(), source(t))
	cmd.Stdout, cmd.Stderr = out, out
	holder, err := host.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the host's own files", func() bool {
		select {
		case <-holder.Done():
			t.Fatalf("the files of %s: %v\n%s", host.Name(), holder.Wait(), out)
		default:
		}
		return strings.Contains(out.String(), "ready")
	})
	return &person{t: t, host: host, holder: holder}
}

// shell is a command as it would be typed.
func (p *person) shell(ctx context.Context, command string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", "--mount", "--target", fmt.Sprint(p.holder.Pid()), "bash", "-c", `cd "$0" && eval "$1"`, source(p.t), command)
	cmd.Env = append(os.Environ(), "PATH=/usr/local/sbin:"+os.Getenv("PATH"))
	return cmd
}

// types runs a command to its end. It returns all that was to be seen.
func (p *person) types(command string) (seen string, status int) {
	p.t.Helper()
	return p.typesFor(10*patience, command)
}

func (p *person) typesFor(limit time.Duration, command string) (seen string, status int) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := p.shell(ctx, command)
	out := new(netlab.Output)
	cmd.Stdout, cmd.Stderr = out, out
	proc, err := p.host.Start(cmd)
	if err != nil {
		p.t.Fatal(err)
	}
	status = exitCode(proc.Wait())
	p.t.Logf("%s# %s\n%s[exit status %d]", p.host.Name(), command, out, status)
	return out.String(), status
}

// must is types for what has to go well.
func (p *person) must(command string) string {
	p.t.Helper()
	seen, status := p.types(command)
	if status != 0 {
		p.t.Fatalf("%s# %s\nended with %d:\n%s", p.host.Name(), command, status, seen)
	}
	return seen
}

// terminal runs a command that goes on, until it has written a sentence.
func (p *person) terminal(command, until string) (*netlab.Process, *netlab.Output) {
	p.t.Helper()
	out := new(netlab.Output)
	cmd := p.shell(context.Background(), command)
	cmd.Cancel = nil
	cmd.Stdout, cmd.Stderr = out, out
	proc, err := p.host.Start(cmd)
	if err != nil {
		p.t.Fatal(err)
	}
	for end := time.Now().Add(patience); !strings.Contains(out.String(), until); time.Sleep(10 * time.Millisecond) {
		select {
		case <-proc.Done():
			p.t.Fatalf("%s# %s\nended: %v\n%s", p.host.Name(), command, proc.Wait(), out)
		default:
		}
		if time.Now().After(end) {
			p.t.Fatalf("%s# %s\ndoes not say %q:\n%s", p.host.Name(), command, until, out)
		}
	}
	p.t.Logf("%s# %s\n%s[goes on]", p.host.Name(), command, out)
	return proc, out
}

// writes writes a file of the host, which others may not read.
func (p *person) writes(path, text string) {
	p.t.Helper()
	cmd := p.shell(deadline(p.t, patience), "cat > "+path+" && chmod 600 "+path)
	cmd.Stdin = strings.NewReader(text)
	proc, err := p.host.Start(cmd)
	if err == nil {
		err = proc.Wait()
	}
	if err != nil {
		p.t.Fatal(err)
	}
}
