package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"bitw/appliance"
	"bitw/appliance/demo"
	"bitw/config"
)

// A fakeAppliance is active at once and ends with its context, or as it is told.
type fakeAppliance struct {
	ready chan struct{}
	open  bool // how it leaves the interface
	// fail, if not nil, ends Run before it is active.
	fail error
	// slow, if not nil, is waited for after the end of the context.
	slow   chan struct{}
	closed bool
	// applied gets each configuration that is applied; refuse, if not nil, is the answer.
	applied chan appliance.Config
	refuse  error
	// refused gets what is told of configurations that cannot be read.
	refused chan error
}

func (f *fakeAppliance) Refused(err error) { f.refused <- err }

func (f *fakeAppliance) Apply(cfg appliance.Config, _ bool) ([]config.Change, error) {
	f.applied <- cfg
	return nil, f.refuse
}

func (f *fakeAppliance) Ready() <-chan struct{} { return f.ready }

func (f *fakeAppliance) Run(ctx context.Context) error {
	if f.fail != nil {
		return f.fail
	}
	close(f.ready)
	<-ctx.Done()
	if f.slow != nil {
		<-f.slow
	}
	return nil
}

func (f *fakeAppliance) LeftOpen() bool { return f.open }

func (f *fakeAppliance) Close() error { f.closed = true; return nil }

// signals lets a test send signals to the program of w.
func (w *world) signals() chan<- os.Signal {
	c := make(chan os.Signal)
	w.notify = func(to chan<- os.Signal) func() {
		done := make(chan struct{})
		go func() {
			for {
				select {
				case s := <-c:
					to <- s
				case <-done:
					return
				}
			}
		}()
		return func() { close(done) }
	}
	return c
}

// eventually waits until text shows up.
func eventually(t *testing.T, b *safeBuffer, text string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if strings.Contains(b.String(), text) {
			return
		}
	}
	t.Fatalf("%q does not show up in\n%s", text, b.String())
}

func TestUp(t *testing.T) {
	for _, log := range []string{"text", "json"} {
		t.Run(log, func(t *testing.T) {
			w, a := newWorld(t), &fakeAppliance{ready: make(chan struct{}), slow: make(chan struct{})}
			var cfg appliance.Config
			w.newAppliance = func(c appliance.Config, opts ...appliance.Option) (runner, error) {
				cfg = c
				return a, nil
			}
			signals, path := w.signals(), write(t, "my bitw.yaml", good)
			status := make(chan int, 1)
			args := []string{"up", "-c", path, "--hook", "clsact", "--log-level", "debug"}
			if log == "json" {
				args = append(args, "--log-json")
			}
			go func() { status <- w.run(t.Context(), args) }()
			eventually(t, &w.out, "eth0 is cut and protected; see what passes with: bitw status -c '"+path+"'\n")
			signals <- os.Interrupt
			eventually(t, &w.err, "stopping")
			signals <- syscall.SIGTERM
			eventually(t, &w.err, "bitw recover eth0")
			close(a.slow)
			if got := <-status; got != 0 {
				t.Errorf("status %d: %s", got, w.err.String())
			}
			if !strings.Contains(w.out.String(), "\neth0 is shut, nothing passes; ") {
				t.Errorf("stdout does not say what the interface is left in: %s", w.out.String())
			}
			if !a.closed || cfg.Interface != "eth0" || len(cfg.SAs) != 2 {
				t.Errorf("closed %v, interface %q, %d SAs", a.closed, cfg.Interface, len(cfg.SAs))
			}
			if log == "json" {
				for line := range strings.Lines(w.err.String()) {
					if !json.Valid([]byte(line)) {
						t.Errorf("not JSON: %s", line)
					}
				}
			}
		})
	}
}

// Whoever else runs in the process does not wait for readers that wait for frames.
func TestR11_ReadersHaveProcessors(t *testing.T) {
	cpus := runtime.GOMAXPROCS(0)
	for env, want := range map[string]int{"": cpus + appliance.Readers, "1": cpus} {
		t.Setenv("GOMAXPROCS", env) // which counts when a process starts
		w, a := newWorld(t), &fakeAppliance{ready: make(chan struct{})}
		w.newAppliance = func(appliance.Config, ...appliance.Option) (runner, error) { return a, nil }
		ctx, stop := context.WithCancel(t.Context())
		status := make(chan int, 1)
		go func() { status <- w.run(ctx, []string{"up", "-c", write(t, "bitw.yaml", good)}) }()
		eventually(t, &w.out, "is cut and protected")
		if got := runtime.GOMAXPROCS(0); got != want {
			t.Errorf("GOMAXPROCS=%q: %d processors while it runs, expected %d", env, got, want)
		}
		stop()
		<-status
		if got := runtime.GOMAXPROCS(0); got != cpus {
			t.Errorf("GOMAXPROCS=%q: %d processors behind it, expected %d", env, got, cpus)
		}
	}
}

func TestUpFails(t *testing.T) {
	path := write(t, "bitw.yaml", good)
	failure := errors.New("the interface is taken")
	for name, start := range map[string]func(appliance.Config, ...appliance.Option) (runner, error){
		"new": func(appliance.Config, ...appliance.Option) (runner, error) { return nil, failure },
		"run": func(appliance.Config, ...appliance.Option) (runner, error) {
			return &fakeAppliance{ready: make(chan struct{}), fail: failure}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.newAppliance = start
			w.call(t, 1, "", "bitw: the interface is taken\n", "up", "-c", path)
			if w.out.String() != "" {
				t.Errorf("stdout: %q", w.out.String())
			}
		})
	}
}

func TestUpBadConfig(t *testing.T) {
	path := write(t, "bitw.yaml", strings.Replace(good, "interface: eth0", "interfaces: eth0", 1))
	w := newWorld(t)
	w.call(t, 1, "", path+":1:1: ", "up", "-c", path)
}

func TestDown(t *testing.T) {
	w := newWorld(t)
	c := w.serve(t, "eth0", &appliance.Status{Interface: "eth0"})
	w.call(t, 0, "bitw on eth0 is down", "", "down")
	select {
	case <-c.downs:
	default:
		t.Error("down was not asked for")
	}
	if _, err := os.Stat(c.path); err == nil {
		t.Error("down did not wait for the end")
	}
}

// What becomes of the interface is told as it is.
func TestEndTells(t *testing.T) {
	for open, want := range map[bool]string{
		false: "\neth0 is shut, nothing passes; bitw up takes it over, bitw recover eth0 gives it back",
		true:  "\neth0 carries its traffic without protection now\n",
	} {
		w := newWorld(t)
		w.newAppliance = func(appliance.Config, ...appliance.Option) (runner, error) {
			return &fakeAppliance{ready: make(chan struct{}), open: open}, nil
		}
		signals := w.signals()
		go func() { signals <- os.Interrupt }()
		w.call(t, 0, want, "", "up", "-c", write(t, "bitw.yaml", good))
	}
	for onFailure, want := range map[string]string{
		"open": "bitw on eth0 is down; eth0 carries its traffic without protection now\n",
		"shut": "bitw on eth0 is down; unless it was started with --open-on-stop, eth0 is shut",
	} {
		w := newWorld(t)
		w.serve(t, "eth0", &appliance.Status{Interface: "eth0", OnFailure: onFailure})
		w.call(t, 0, want, "", "down")
	}
	w := newWorld(t)
	c := w.serve(t, "eth0", "no status")
	w.call(t, 0, "bitw behind "+c.path+" is down\n", "", "down")
}

func TestDownFails(t *testing.T) {
	w := newWorld(t)
	w.call(t, 1, "", "none runs here", "down")
	w = newWorld(t)
	w.serve(t, "eth0", &appliance.Status{}).stay = true
	w.call(t, 1, "", "bitw: control socket", "down", "--timeout", "100ms")
	w = newWorld(t)
	w.die(t, "eth0")
	w.call(t, 1, "", "nobody answers", "down")
}

func TestRecover(t *testing.T) {
	w := newWorld(t)
	var got string
	w.recover = func(iface string) (bool, error) { got = iface; return false, nil }
	w.call(t, 0, "eth0: nothing of bitw is left", "", "recover", "eth0")
	if got != "eth0" {
		t.Errorf("recover was called with %q", got)
	}
	w = newWorld(t)
	w.recover = func(string) (bool, error) { return true, nil }
	w.call(t, 0, "eth0: it and the inside interface pass their frames to each other", "", "recover", "eth0")
	w.giveUp = func(iface string) error { got = "given up " + iface; return nil }
	w.call(t, 0, "nothing of bitw is left", "", "recover", "eth0", "--release")
	if got != "given up eth0" {
		t.Errorf("recover --release did: %q", got)
	}
	w.recover = func(string) (bool, error) { return false, errors.New("interface already taken") }
	w.call(t, 1, "", "bitw: interface already taken\n", "recover", "eth0")
}

func TestDemo(t *testing.T) {
	t.Chdir(t.TempDir())
	var got demo.Options
	ok := func(_ context.Context, o demo.Options) (demo.Result, error) {
		got = o
		return demo.Result{OK: true}, nil
	}
	w := newWorld(t)
	w.demo = ok
	w.call(t, 0, "", "", "demo")
	if got.Memory || got.JSON || got.File != demo.DefaultFile || got.Size != demo.DefaultSize || got.Out == nil || got.Err == nil {
		t.Errorf("options by default: %+v", got)
	}
	w = newWorld(t)
	w.demo = ok
	w.call(t, 0, "", "", "demo", "--memory", "-o", "json", "-w", "x.pcapng", "--size", "1KiB")
	if !got.Memory || !got.JSON || got.File != "x.pcapng" || got.Size != 1024 {
		t.Errorf("options: %+v", got)
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, "bitw: the demo failed"},
		{errors.New("no veth"), "bitw: no veth\n"},
		{context.Canceled, "bitw: demo interrupted"},
	} {
		w = newWorld(t)
		w.demo = func(context.Context, demo.Options) (demo.Result, error) { return demo.Result{}, c.err }
		w.call(t, 1, "", c.want, "demo")
	}
}

// A signal ends the demo by its context.
func TestDemoInterrupted(t *testing.T) {
	w := newWorld(t)
	signals := w.signals()
	w.demo = func(ctx context.Context, _ demo.Options) (demo.Result, error) {
		<-ctx.Done()
		return demo.Result{}, ctx.Err()
	}
	go func() { signals <- os.Interrupt }()
	w.call(t, 1, "", "interrupted", "demo", "-w", t.TempDir()+"/demo.pcapng")
}
