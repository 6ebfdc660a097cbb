package netlab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Process is a program that runs in a namespace.
type Process struct {
	Cmd *exec.Cmd

	done chan struct{}
	err  error // of Cmd.Wait; read after done

	mu    sync.Mutex
	ended bool // the process id is, or will be, somebody else's
}

// Start starts the command in the namespace. The process leads a process group
// of its own; what is left of the group is killed when the process ends, and all
// of it at the end of the lab's test. It gets SIGKILL when the test's process
// dies (SysProcAttr.Pdeathsig, when set, is respected). Waiting for it is the
// Process's, not the command's.
func (n *Namespace) Start(cmd *exec.Cmd) (*Process, error) {
	return n.StartPrepared(cmd, func() error { return nil })
}

// StartPrepared is Start with a function that runs before, on the thread that
// the process is made from and that is used for nothing else: what it changes of
// the thread, the process inherits.
func (n *Namespace) StartPrepared(cmd *exec.Cmd, prepare func() error) (*Process, error) {
	p := &Process{Cmd: cmd, done: make(chan struct{})}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = new(syscall.SysProcAttr)
	}
	cmd.SysProcAttr.Setpgid = true
	if cmd.SysProcAttr.Pdeathsig == 0 {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	if cmd.Cancel != nil { // from exec.CommandContext: what it started, too
		cmd.Cancel = func() error { return p.send(-p.Pid(), syscall.SIGKILL) }
		cmd.WaitDelay = time.Minute
	}
	started := make(chan error, 1)
	go onOwnThread(func() {
		// The parent-death signal comes when the starting *thread* ends, so
		// the thread stays for as long as the process does.
		if err := netns.Set(n.ns); err != nil {
			started <- err
			return
		}
		if err := prepare(); err != nil {
			started <- err
			return
		}
		err := cmd.Start()
		started <- err
		if err == nil {
			p.reap()
		}
	})
	if err := <-started; err != nil {
		return nil, fmt.Errorf("netlab: starting %s in %s: %w", cmd.Path, n.name, err)
	}
	n.lab.t.Cleanup(func() { p.Kill() })
	return p, nil
}

// Run runs a program in the namespace to its end and returns what it wrote to
// its standard output; the error of a failed one has its standard error.
func (n *Namespace) Run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	p, err := n.Start(cmd)
	if err != nil {
		return "", err
	}
	if err := p.Wait(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", ctx.Err(), err)
		}
		return stdout.String(), fmt.Errorf("%v in %s: %w: %s", cmd.Args, n.name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}

// Pid is the process's id, and its process group's.
func (p *Process) Pid() int { return p.Cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end; the error is that of exec.Cmd's Wait. It may be
// called more than once.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// reap waits for the process's end and kills what it leaves behind of its group.
// That is done before the process is reaped: only so long is its id sure not to
// be another's.
func (p *Process) reap() {
	for {
		err := unix.Waitid(unix.P_PID, p.Pid(), nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	p.mu.Lock()
	_ = syscall.Kill(-p.Pid(), syscall.SIGKILL)
	p.ended = true
	p.mu.Unlock()
	p.err = p.Cmd.Wait()
	close(p.done)
}

// send sends a signal to pid as long as that is this process or its group.
func (p *Process) send(pid int, sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return os.ErrProcessDone
	}
	return syscall.Kill(pid, sig)
}

// Signal sends a signal to the process alone; os.ErrProcessDone is the error
// after its end.
func (p *Process) Signal(sig syscall.Signal) error { return p.send(p.Pid(), sig) }

// Kill ends the process and what else is in its process group, at once, and
// waits for the end.
func (p *Process) Kill() {
	_ = p.send(-p.Pid(), syscall.SIGKILL) // after its end there is nothing to do
	<-p.done
}
