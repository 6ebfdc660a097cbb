package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bitw/appliance/bench"
	"bitw/integration/netlab"
)

func TestBench(t *testing.T) {
	var got bench.Options
	ok := func(_ context.Context, o bench.Options) (bench.Result, error) {
		got = o
		return bench.Result{}, nil
	}
	w := newWorld(t)
	w.bench = ok
	w.call(t, 0, "", "", "bench")
	if got.Suite != bench.DefaultSuite || got.Wire != bench.WireOff || got.Quick || got.Memory || got.JSON || got.Out == nil || got.Err == nil {
		t.Errorf("options by default: %+v", got)
	}
	w = newWorld(t)
	w.bench = ok
	w.call(t, 0, "", "", "bench", "--quick", "--memory", "--wire", "on", "--suite", "chacha20poly1305", "-o", "json")
	if got.Suite != "chacha20poly1305" || got.Wire != bench.WireOn || !got.Quick || !got.Memory || !got.JSON {
		t.Errorf("options: %+v", got)
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{errors.New("no veth"), "bitw: no veth\n"},
		{context.Canceled, "bitw: bench interrupted"},
	} {
		w = newWorld(t)
		w.bench = func(context.Context, bench.Options) (bench.Result, error) { return bench.Result{}, c.err }
		w.call(t, 1, "", c.want, "bench")
	}
}

// The program measures as it is called: as root between kernels, and without root in
// memory, saying why not more.
func TestLiveBench(t *testing.T) {
	netlab.Require(t, netlab.Root(), netlab.TUN(), netlab.Namespaces())
	dir, err := os.MkdirTemp("", "bitw-live-") // readable by others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "program")
	copyFile(t, "/proc/self/exe", program)
	if err := os.Chmod(program, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, uid := range map[string]uint32{"root": 0, "another user": 65534} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), program, "bench", "--quick", "-o", "json")
			cmd.Env = append(os.Environ(), "BITW_TEST_AS_PROGRAM=1")
			cmd.Dir = dir
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
			var errs bytes.Buffer
			cmd.Stderr = &errs
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v\n%s", err, errs.String())
			}
			var r bench.Result
			if err := json.Unmarshal(out, &r); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			ratios := make(map[string]int)
			for _, m := range r.Measures {
				if m.Ratio != nil {
					kind, _, _ := strings.Cut(m.Name, "/")
					ratios[kind]++
				}
			}
			if ratios["engine"] != 3 || r.Kernel.Measured != (uid == 0) {
				t.Errorf("ratios %v, kernel %+v", ratios, r.Kernel)
			}
			switch {
			case uid == 0 && (ratios["kernel"] < 8 || r.Kernel.Why != ""): // of UDP there may be none
				t.Errorf("ratios %v, kernel %+v", ratios, r.Kernel)
			case uid != 0 && !strings.Contains(r.Kernel.Why, "need root"):
				t.Errorf("kernel %+v", r.Kernel)
			}
			if !strings.Contains(errs.String(), "in memory") {
				t.Errorf("progress: %q", errs.String())
			}
		})
	}
}
