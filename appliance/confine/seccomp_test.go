//go:build linux && (amd64 || arm64)

package confine

import (
	"encoding/binary"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// verdict runs the filter. Its machine reads in network order, the kernel's in that of the
// host; the values are the same.
func verdict(t *testing.T, vm *bpf.VM, arch, nr uint32, args ...uint32) uint32 {
	t.Helper()
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data[offNumber:], nr)
	binary.BigEndian.PutUint32(data[offArch:], arch)
	for i, a := range args {
		binary.BigEndian.PutUint32(data[offArgs+8*i:], a)
	}
	v, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(v)
}

func TestFilter(t *testing.T) {
	const own = 4711
	p := filter(own)
	vm, err := bpf.NewVM(p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bpf.Assemble(p); err != nil || len(p) > 4096 {
		t.Errorf("a filter of %d instructions: %v", len(p), err)
	}
	const thread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD | unix.CLONE_SYSVSEM
	for _, c := range []struct {
		name string
		nr   uintptr
		args []uint32
		want bpf.RetConstant
	}{
		{"read", unix.SYS_READ, nil, allow},
		{"futex", unix.SYS_FUTEX, nil, allow},
		{"a netlink socket", unix.SYS_SOCKET, []uint32{unix.AF_NETLINK}, allow},
		{"a packet socket", unix.SYS_SOCKET, []uint32{unix.AF_PACKET}, allow},
		{"a socket to the hypervisor", unix.SYS_SOCKET, []uint32{unix.AF_VSOCK}, refuse},
		{"a socket to the kernel's ciphers", unix.SYS_SOCKET, []uint32{unix.AF_ALG}, refuse},
		{"memory", unix.SYS_MMAP, []uint32{0, 4096, unix.PROT_READ | unix.PROT_WRITE}, allow},
		{"memory for code", unix.SYS_MMAP, []uint32{0, 4096, unix.PROT_READ | unix.PROT_EXEC}, refuse},
		{"memory made code", unix.SYS_MPROTECT, []uint32{0, 4096, unix.PROT_EXEC}, refuse},
		{"a thread", unix.SYS_CLONE, []uint32{thread}, allow},
		{"a process", unix.SYS_CLONE, []uint32{uint32(unix.SIGCHLD)}, kill},
		{"a thread in a new network namespace", unix.SYS_CLONE, []uint32{thread | unix.CLONE_NEWNET}, kill},
		{"a thread or a process", unix.SYS_CLONE3, nil, absent},
		{"a link of a program", unix.SYS_BPF, []uint32{unix.BPF_LINK_CREATE}, allow},
		{"a program of another", unix.SYS_BPF, []uint32{unix.BPF_PROG_GET_FD_BY_ID}, refuse},
		{"its own thread's signal", unix.SYS_TGKILL, []uint32{own}, allow},
		{"another's signal", unix.SYS_KILL, []uint32{1}, refuse},
		{"a tap that stays", unix.SYS_IOCTL, []uint32{3, unix.TUNSETPERSIST}, allow},
		{"input to a terminal", unix.SYS_IOCTL, []uint32{0, unix.TIOCSTI}, refuse},
		{"dumpable again", unix.SYS_PRCTL, []uint32{unix.PR_SET_DUMPABLE, 1}, refuse},
		{"a limit to read", unix.SYS_PRLIMIT64, []uint32{0, unix.RLIMIT_NOFILE, 0}, allow},
		{"a limit to set", unix.SYS_PRLIMIT64, []uint32{0, unix.RLIMIT_CORE, 1}, refuse},
		{"execve", unix.SYS_EXECVE, nil, kill},
		{"ptrace", unix.SYS_PTRACE, nil, kill},
		{"setns", unix.SYS_SETNS, nil, kill},
		{"setuid", unix.SYS_SETUID, nil, kill},
		{"io_uring_setup", unix.SYS_IO_URING_SETUP, nil, refuse},
		{"keyctl", unix.SYS_KEYCTL, nil, refuse},
		{"a call that nobody knows yet", 0xffff, nil, refuse},
	} {
		if v := verdict(t, vm, archToken, uint32(c.nr), c.args...); v != c.want.Val {
			t.Errorf("%s: %#x, expected %#x", c.name, v, c.want.Val)
		}
	}
	if v := verdict(t, vm, unix.AUDIT_ARCH_I386, 3); v != kill.Val {
		t.Errorf("a call of another machine's: %#x", v)
	}
	if v := verdict(t, vm, archToken, x32|unix.SYS_READ); v != kill.Val {
		t.Errorf("a call of the ABI x32: %#x", v)
	}
}

// No call stands in the table twice: the second place would say nothing.
func TestTable(t *testing.T) {
	seen := make(map[uintptr]bool)
	one := func(nr uintptr) {
		if seen[nr] {
			t.Errorf("call %d is in the table twice", nr)
		}
		seen[nr] = true
	}
	for _, list := range [][]uintptr{calls, archCalls, fatal} {
		for _, nr := range list {
			one(nr)
		}
	}
	for _, c := range looked(1) {
		one(c.nr)
	}
}
