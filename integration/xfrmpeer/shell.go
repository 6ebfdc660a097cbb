package xfrmpeer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Result is what a script in the guest has come to.
type Result struct {
	Stdout, Stderr []byte
	// Status is its exit status; 128 and the number of the signal that ended it.
	Status int
}

// StatusError is the error of Sh for a script with another status than zero.
type StatusError struct {
	Result
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("xfrmpeer: the script ended with status %d: %s", e.Status, tail(append(e.Stdout, e.Stderr...)))
}

// ErrGone is the error of every call for a guest that has stopped.
var ErrGone = errors.New("xfrmpeer: the guest has stopped")

// Sh runs a script with bash in the guest and returns its standard output. A
// status other than zero is a *StatusError. When the context ends first, the
// script and everything in its session is killed.
//
// Scripts may run at the same time. What one leaves running in the background
// with its output redirected lives on. Starting a process is slow in the
// guest, some 10 ms, so put what belongs together into one script.
func (p *Peer) Sh(ctx context.Context, script string) (string, error) {
	r, err := p.Exec(ctx, script)
	if err == nil && r.Status != 0 {
		err = &StatusError{r}
	}
	return string(r.Stdout), err
}

// Exec is Sh for callers that want to see the status and all output; the error
// then is only that the script could not be run to its end.
func (p *Peer) Exec(ctx context.Context, script string) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, fmt.Errorf("xfrmpeer: %w", err)
	}
	status := make(chan int, 1)
	p.mu.Lock()
	p.next++
	number := p.next
	p.waiting[number] = status
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.waiting, number)
		p.mu.Unlock()
	}()
	at := filepath.Join(p.Share(), ".run", strconv.Itoa(number))
	if err := os.WriteFile(at+".sh", []byte(script), 0o600); err != nil {
		return Result{}, fmt.Errorf("xfrmpeer: %w", err)
	}
	if err := p.say("run", number); err != nil {
		return Result{}, err
	}
	var r Result
	var err error
	select {
	case r.Status = <-status:
	case <-p.gone:
		return Result{}, fmt.Errorf("%w; the end of its console:\n%s", ErrGone, tail(p.Console()))
	case <-ctx.Done():
		err = fmt.Errorf("xfrmpeer: the script has not ended: %w", ctx.Err())
		r.Status = p.abort(number, status)
	}
	r.Stdout, r.Stderr = read(at+".out"), read(at+".err")
	if err != nil {
		err = fmt.Errorf("%w: %s", err, tail(append(r.Stdout, r.Stderr...)))
	}
	for _, suffix := range []string{".sh", ".out", ".err"} {
		_ = os.Remove(at + suffix) // the whole folder goes in the end
	}
	return r, err
}

// abort kills a script and waits, not for long, for its end.
func (p *Peer) abort(number int, status <-chan int) int {
	for range 5 {
		// Again, should the script have been about to start.
		if p.say("kill", number) != nil {
			break
		}
		select {
		case s := <-status:
			return s
		case <-p.gone:
			return -1
		case <-time.After(time.Second):
		}
	}
	return -1
}

func (p *Peer) say(word string, number int) error {
	if _, err := io.WriteString(p.serial, fmt.Sprintf("%s %d\n", word, number)); err != nil {
		return fmt.Errorf("%w (%w)", ErrGone, err)
	}
	return nil
}

// read returns a file's content; an absent one is a script's that said nothing.
func read(path string) []byte {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return content
}
