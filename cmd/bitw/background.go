package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"
)

// readyFD is where a process in the background finds what tells the one that started it
// that the interface is cut.
const readyFD = 3

// upInBackground has another process do what this one was called for, and returns when that
// has cut the interface. If it ends before, its exit status is this one's.
func (p *program) upInBackground(args []string) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("background: %w", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("background: %w", err)
	}
	defer r.Close()
	cmd := exec.Command(exe, append(inForeground(args), fmt.Sprintf("--tell-ready=%d", readyFD))...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = p.out, p.err, []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("background: %w", err)
	}
	if said, err := io.ReadAll(r); err == nil && len(said) > 0 {
		return cmd.Process.Release()
	}
	var exit *exec.ExitError
	switch err := cmd.Wait(); {
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return exitError(exit.ExitCode())
	case err != nil:
		return fmt.Errorf("background: %w", err)
	}
	return errors.New("background: it ended before the interface was cut")
}

// inForeground is a command line without --background.
func inForeground(args []string) []string {
	return slices.DeleteFunc(slices.Clone(args), func(a string) bool { return a == "--background" || a == "--background=true" })
}

// tellReady tells whoever waits behind a descriptor; 0 is nobody.
func tellReady(fd int) error {
	if fd == 0 {
		return nil
	}
	f := os.NewFile(uintptr(fd), "ready")
	_, err := f.WriteString("ready\n")
	return errors.Join(err, f.Close())
}
