//go:build linux

package ethtap

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Two kinds of socket send past the qdisc, and with it past the programs at the
// interface's egress: packet sockets with PACKET_QDISC_BYPASS, and AF_XDP sockets.
// Options.ForbidBypass keeps the processes of a cgroup from making them: a program at
// the cgroup's setsockopt refuses PACKET_QDISC_BYPASS and the rings of AF_XDP with EPERM.
//
// What it cannot reach: sockets that were made so before, setsockopt by 32-bit
// programs on a 64-bit kernel (the kernel does not ask), and sockets that were opened
// in a cgroup outside.

// bypassPin is the name of the pinned link in the interface's directory.
const bypassPin = "no_bypass"

const (
	solXDP    = 283 // SOL_XDP
	xdpRXRing = 2   // XDP_RX_RING
	xdpTXRing = 3   // XDP_TX_RING
)

// Offsets in struct bpf_sockopt.
const (
	sockoptValue    = 8
	sockoptValueEnd = 16
	sockoptLevel    = 24
	sockoptName     = 28
	sockoptLen      = 32
)

// bypassBan is the program in its place, and how often it has refused.
type bypassBan struct {
	cgroup string
	l      link.Link
	prog   *ebpf.Program
	denied *ebpf.Map
}

// DefaultCgroup is the root of the cgroup2 hierarchy, which all processes of the
// machine are in, by the mounts that the calling process sees. The error matches
// ErrNoHook where none is mounted.
func DefaultCgroup() (string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("look for the mount of cgroup2: %w", err)
	}
	if dir := cgroupMount(string(b)); dir != "" {
		return dir, nil
	}
	return "", because(ErrNoHook, "no cgroup2 filesystem is mounted; mount one with mount -t cgroup2")
}

// cgroupMount finds the first whole cgroup2 hierarchy in a text as /proc/self/mountinfo.
func cgroupMount(mountinfo string) string {
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if ok && len(fields) > 4 && len(kind) > 0 && kind[0] == "cgroup2" && fields[3] == "/" {
			// The kernel writes spaces and the like in octal.
			return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[4])
		}
	}
	return ""
}

// forbidBypass puts the program in its place, or takes over the one that an earlier
// process left there, as the options say.
func (d *Device) forbidBypass() error {
	path := filepath.Join(d.pins, bypassPin)
	left, err := link.LoadPinnedLink(path, nil)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("load the link pinned at %s: %w", path, permission(err))
	}
	if err != nil {
		left = nil
	}
	b, err := d.banBypass(left)
	if left != nil && (b == nil || b.l != left) {
		left.Close()
		if err == nil {
			err = os.Remove(path) // of another cgroup, or not wanted any more
		}
	}
	if b == nil || err != nil {
		b.close()
		return err
	}
	if d.opts.OnFailure == FailShut && b.l != left {
		if err := b.l.Pin(path); err != nil {
			b.close()
			return fmt.Errorf("pin a link at %s: %w", path, permission(err))
		}
	}
	d.ban = b
	return nil
}

// settleBan lets the ban end with the process under FailOpen, also where it was left by
// one that failed shut.
func (d *Device) settleBan() error {
	if d.opts.OnFailure == FailShut {
		return nil
	}
	return liftBan(d.pins)
}

// liftBan removes the pin of a ban.
func liftBan(pins string) error {
	if err := os.Remove(filepath.Join(pins, bypassPin)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("unpin: %w", permission(err))
	}
	return nil
}

// banBypass makes the ban, with the link of a former one if that is of the same cgroup.
// It is nil if the options want none.
func (d *Device) banBypass(left link.Link) (*bypassBan, error) {
	dir := d.opts.ForbidBypass
	if dir == "" {
		return nil, nil
	}
	var st unix.Stat_t
	var fs unix.Statfs_t
	if err := errors.Join(unix.Stat(dir, &st), unix.Statfs(dir, &fs)); err != nil {
		return nil, fmt.Errorf("the cgroup %s: %w", dir, err)
	}
	if fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return nil, because(ErrOccupied, "%s is not a directory of a cgroup2 filesystem", dir)
	}
	b := &bypassBan{cgroup: dir}
	var err error
	if b.denied, err = ebpf.NewMap(&ebpf.MapSpec{Name: "bitw_denied", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1}); err != nil {
		return nil, fmt.Errorf("make a map: %w", permission(err))
	}
	b.prog, err = ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "bitw_no_bypass", Type: ebpf.CGroupSockopt, AttachType: ebpf.AttachCGroupSetsockopt,
		License: "Apache-2.0", Instructions: bypassProgram(b.denied.FD()),
	})
	if err != nil {
		b.close()
		return nil, noSockopt(err)
	}
	if left != nil {
		if info, err := left.Info(); err == nil && info.Cgroup() != nil && info.Cgroup().CgroupId == st.Ino && left.Update(b.prog) == nil {
			b.l = left
			return b, nil
		}
	}
	b.l, err = link.AttachCgroup(link.CgroupOptions{Path: dir, Attach: ebpf.AttachCGroupSetsockopt, Program: b.prog})
	if err != nil {
		b.close()
		return nil, noSockopt(err)
	}
	return b, nil
}

func noSockopt(err error) error {
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, unix.EINVAL) {
		return because(ErrNoHook, "kernel %s has no programs at a cgroup's setsockopt (CONFIG_CGROUP_BPF, Linux 5.7): %v", kernelRelease(), err)
	}
	return fmt.Errorf("forbid what goes round the cut: %w", permission(err))
}

// close lets go of the program, which stays if it is pinned.
func (b *bypassBan) close() {
	if b == nil {
		return
	}
	if b.l != nil {
		b.l.Close()
	}
	if b.prog != nil {
		b.prog.Close()
	}
	if b.denied != nil {
		b.denied.Close()
	}
}

// Bypass tells in which cgroup sockets that send past the cut are refused, "" for
// none, and how many this device has refused.
func (d *Device) Bypass() (cgroup string, denied uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.ban == nil {
		return "", 0
	}
	if err := d.ban.denied.Lookup(uint32(0), &denied); err != nil {
		return d.ban.cgroup, 0
	}
	return d.ban.cgroup, denied
}

// bypassProgram returns 0 for what is refused, and counts it, and 1 for all else.
func bypassProgram(denied int) asm.Instructions {
	const page = 4096
	return asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R2, asm.R6, sockoptLevel, asm.Word),
		asm.LoadMem(asm.R3, asm.R6, sockoptName, asm.Word),
		asm.JEq.Imm(asm.R2, unix.SOL_PACKET, "packet"),
		asm.JNE.Imm(asm.R2, solXDP, "allow"),
		asm.JEq.Imm(asm.R3, xdpTXRing, "deny"),
		asm.JEq.Imm(asm.R3, xdpRXRing, "deny"),
		asm.Ja.Label("allow"),

		// Turning it off is allowed.
		asm.JNE.Imm(asm.R3, unix.PACKET_QDISC_BYPASS, "allow").WithSymbol("packet"),
		asm.LoadMem(asm.R4, asm.R6, sockoptValue, asm.DWord),
		asm.LoadMem(asm.R5, asm.R6, sockoptValueEnd, asm.DWord),
		asm.Mov.Reg(asm.R2, asm.R4),
		asm.Add.Imm(asm.R2, 4),
		asm.JGT.Reg(asm.R2, asm.R5, "deny"),
		asm.LoadMem(asm.R2, asm.R4, 0, asm.Word),
		asm.JEq.Imm(asm.R2, 0, "allow"),

		asm.LoadMapValue(asm.R7, denied, 0).WithSymbol("deny"),
		asm.Mov.Imm(asm.R1, 1),
		asm.AddAtomic.Mem(asm.R7, asm.R1, asm.DWord, 0),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),

		// The kernel shows a page of a value at most and fails for a longer one, unless
		// told by a length of 0 to take it as the caller gave it.
		asm.LoadMem(asm.R2, asm.R6, sockoptLen, asm.Word).WithSymbol("allow"),
		asm.JLE.Imm(asm.R2, page, "done"),
		asm.Mov.Imm(asm.R3, 0),
		asm.StoreMem(asm.R6, sockoptLen, asm.R3, asm.Word),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("done"),
		asm.Return(),
	}
}
