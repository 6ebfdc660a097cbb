package xfrmpeer

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bitw/integration/netlab"
)

//go:embed init.sh
var initScript []byte

// Card is a network card of the guest.
type Card struct {
	// TAP is the device in the guest's namespace that is the card's other end.
	// It must be there (see netlab.Namespace.TAP). A frame on it is complete
	// and no longer than the MTU of 1500.
	TAP string
	// MAC is the card's address; nil is one derived from the TAP's name and the
	// namespace's.
	MAC net.HardwareAddr
}

// Options are the properties of a guest.
type Options struct {
	// NetNS is where the TAP devices are.
	NetNS *netlab.Namespace
	// Cards are the guest's eth0, eth1, ...
	Cards []Card
	// Memory in MiB; 0 is 192.
	Memory int
}

// Peer is a running guest.
type Peer struct {
	process *netlab.Process
	dir     string // host's folder of the guest: share, console, kernel's own files
	serial  *os.File
	console *os.File

	ready chan struct{} // closed when the guest has said that it is
	gone  chan struct{} // closed when the serial line has ended

	mu      sync.Mutex
	next    int
	waiting map[int]chan int // by script's number: where its status goes

	stop sync.Once
}

// Need is what a machine needs to have for a guest; it does not need to have
// been Setup.
func Need() netlab.Need {
	return netlab.Need{Name: "a User-Mode Linux peer", Check: func() error {
		if Ready() {
			return nil
		}
		return checkHost()
	}}
}

// Start boots a guest for the test, after Setup when that has not been done, and
// stops it at the test's end. The test is skipped when the machine cannot have
// one (see netlab.Require).
func Start(t testing.TB, o Options) *Peer {
	t.Helper()
	netlab.Require(t, netlab.Root(), netlab.TUN(), Need())
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	if err := Setup(ctx, testLog{t}); err != nil {
		t.Fatalf("xfrmpeer: %v", err)
	}
	p, err := Boot(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("console of the peer:\n%s", tail(p.Console()))
		}
		if err := os.RemoveAll(p.dir); err != nil {
			t.Error(err)
		}
	})
	return p
}

// OnWire is Start with one card, which is on the wire; its port has that name.
// The guest's eth0 is up and has no address but IPv6's own.
func OnWire(t testing.TB, wire *netlab.Wire, name string) *Peer {
	t.Helper()
	if err := wire.AttachTAP(name); err != nil {
		t.Fatal(err)
	}
	return Start(t, Options{NetNS: &wire.Namespace, Cards: []Card{{TAP: name}}})
}

type testLog struct{ t testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// Boot starts a guest and returns once it takes commands. The caller stops it;
// the folder of its files (Share is in it) stays.
func Boot(ctx context.Context, o Options) (*Peer, error) {
	p, err := boot(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("xfrmpeer: starting the guest: %w", err)
	}
	return p, nil
}

func boot(ctx context.Context, o Options) (*Peer, error) {
	f, err := cacheFiles()
	if err != nil {
		return nil, err
	}
	if !f.ready() {
		return nil, errors.New("it has not been set up")
	}
	if err := f.writeInit(); err != nil {
		return nil, err
	}
	p := &Peer{
		ready:   make(chan struct{}),
		gone:    make(chan struct{}),
		waiting: make(map[int]chan int),
	}
	removeStale()
	if p.dir, err = os.MkdirTemp(memoryDir(), fmt.Sprintf("%s%d-", dirPrefix, os.Getpid())); err != nil {
		return nil, err
	}
	err = p.start(o, f)
	if err == nil {
		err = p.awaitReady(ctx)
		if err != nil {
			_ = p.Stop() // the reason is known already
		}
	}
	if err != nil {
		_ = os.RemoveAll(p.dir)
		return nil, err
	}
	return p, nil
}

// dirPrefix and the process id begin the names of guests' folders.
const dirPrefix = "bitw-peer-"

// removeStale removes the folders that killed processes have left.
func removeStale() {
	left, _ := filepath.Glob(filepath.Join(memoryDir(), dirPrefix+"*-*"))
	for _, dir := range left {
		word, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), dirPrefix), "-")
		pid, err := strconv.Atoi(word)
		// Signal 0 only asks whether there is such a process.
		if err == nil && syscall.Kill(pid, 0) == syscall.ESRCH {
			_ = os.RemoveAll(dir) // another process may be at the same
		}
	}
}

// memoryDir is a folder for files that are best kept in memory: the guest's
// memory is a file, and each write to its share waits for the host's disk.
func memoryDir() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return os.TempDir()
}

// writeInit puts this version's init into the root, which other processes may
// be booting from.
func (f files) writeInit() error {
	path := filepath.Join(f.root, "sbin/bitw-init")
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, initScript) {
		return nil
	}
	file, err := os.CreateTemp(filepath.Dir(path), "bitw-init-")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // fails once it has been renamed
	_, err = file.Write(initScript)
	err = errors.Join(err, file.Chmod(0o755), file.Close())
	if err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

func (p *Peer) start(o Options, f files) (err error) {
	if strings.ContainsAny(p.dir, " \t\n\",") {
		return fmt.Errorf("a kernel's command line cannot carry the folder %q", p.dir)
	}
	if err := os.MkdirAll(filepath.Join(p.Share(), ".run"), 0o755); err != nil {
		return err
	}
	memory := o.Memory
	if memory == 0 {
		memory = 192
	}
	args := []string{
		"mem=" + strconv.Itoa(memory) + "M", "quiet", "panic=1",
		"root=/dev/root", "rootfstype=hostfs", "rootflags=" + f.root, "ro", "init=/sbin/bitw-init",
		"BITW_SHARE=" + p.Share(),
		"con=null", "con0=null,fd:1", "ssl=null", "ssl0=fd:3",
		"uml_dir=" + p.dir + "/", "umid=uml",
		// Becomes a variable of init's environment; see narrowRegisters.
		"GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX,-AVX2,-AVX512F,-AVX512VL,-AVX512BW",
	}
	for i, card := range o.Cards {
		mac := card.MAC
		if mac == nil {
			sum := sha256.Sum256([]byte(o.NetNS.NetNSPath() + " " + card.TAP))
			mac = append(net.HardwareAddr{0x02}, sum[:5]...) // locally administered, one station
		}
		// The older of two drivers: frames of the newer one ("vector") have
		// unfinished checksums and several segments.
		args = append(args, fmt.Sprintf("eth%d=tuntap,%s,%v", i, card.TAP, mac))
	}
	guest, err := p.openLines()
	if err != nil {
		return err
	}
	defer guest.Close()
	cmd := exec.Command(f.kernel, args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+memoryDir())
	cmd.Stdout, cmd.Stderr = p.console, p.console
	cmd.ExtraFiles = []*os.File{guest}
	// The kernel has processes for the guest's and for input and output. As the
	// first of a process namespace it takes all of them with it, however it ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if p.process, err = o.NetNS.StartPrepared(cmd, narrowRegisters); err != nil {
		p.serial.Close()
		p.console.Close()
		return err
	}
	go p.hear()
	return nil
}

// openLines opens the console's file and the serial line, of which it returns
// the guest's end.
func (p *Peer) openLines() (guest *os.File, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	guest = os.NewFile(uintptr(fds[1]), "guest's end of the serial line")
	// In non-blocking mode before NewFile, which then has Close end a Read.
	if err = syscall.SetNonblock(fds[0], true); err == nil {
		p.console, err = os.Create(filepath.Join(p.dir, "console"))
	}
	p.serial = os.NewFile(uintptr(fds[0]), "serial line")
	if err != nil {
		p.serial.Close()
		guest.Close()
		return nil, err
	}
	return guest, nil
}

// hear reads what the guest says on the serial line until that ends.
func (p *Peer) hear() {
	defer close(p.gone)
	lines := bufio.NewScanner(p.serial)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		switch {
		case len(words) == 1 && words[0] == "ready":
			close(p.ready)
		case len(words) == 3 && words[0] == "done":
			number, err1 := strconv.Atoi(words[1])
			status, err2 := strconv.Atoi(words[2])
			if err1 == nil && err2 == nil {
				p.deliver(number, status)
			}
		}
	}
}

func (p *Peer) deliver(number, status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c, ok := p.waiting[number]; ok {
		c <- status // has room for the one
		delete(p.waiting, number)
	}
}

// awaitReady waits for the guest's first word. Two busy processors boot it in a
// few seconds.
func (p *Peer) awaitReady(ctx context.Context) error {
	patience := time.NewTimer(5 * time.Minute)
	defer patience.Stop()
	var why string
	select {
	case <-p.ready:
		return nil
	case <-p.process.Done():
		why = "the guest's kernel has ended"
	case <-ctx.Done():
		why = ctx.Err().Error()
	case <-patience.C:
		why = "it is not ready after five minutes"
	}
	return fmt.Errorf("%s; the end of its console:\n%s", why, tail(p.Console()))
}

// Share is the host's folder that the guest sees as /share; both can write to
// it. A file that the host changes after the guest has read it may stay as it was
// in the guest's eyes: use a new name.
func (p *Peer) Share() string { return filepath.Join(p.dir, "share") }

// Console is what the guest's kernel has said so far.
func (p *Peer) Console() []byte {
	text, err := os.ReadFile(filepath.Join(p.dir, "console"))
	if err != nil {
		return []byte(err.Error())
	}
	return text
}

// Stop powers the guest off, and ends it when it does not do that within a minute. The error is that it did not. More calls do nothing.
func (p *Peer) Stop() (err error) {
	p.stop.Do(func() {
		_, _ = io.WriteString(p.serial, "off\n") // a guest that has gone is off
		for _, step := range []struct {
			wait time.Duration
			then func()
		}{
			{time.Minute, func() { _ = p.process.Signal(syscall.SIGTERM) }},
			{5 * time.Second, p.process.Kill},
		} {
			select {
			case <-p.process.Done():
			case <-time.After(step.wait):
				err = fmt.Errorf("xfrmpeer: the guest did not power off; the end of its console:\n%s", tail(p.Console()))
				step.then()
			}
		}
		<-p.process.Done() // what is left of its process group is gone with it
		p.serial.Close()
		<-p.gone
		p.console.Close()
	})
	return err
}
