package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bitw/appliance"
	"bitw/netstack/link"
	"bitw/sa"
)

// applicable is a configuration with a key file beside it, of an appliance between links.
func applicable(t *testing.T, dir, policies string) string {
	t.Helper()
	text := "interface: eth0\ncontrol: " + filepath.Join(dir, "c.sock") + `
state_dir: ""
security_associations:
  - {name: out, direction: out, protocol: esp, mode: transport, spi: 0x1001, source: 192.0.2.1, destination: 192.0.2.2, algorithm: aes128-sha256, key_file: my.keys}
  - {name: in, direction: in, protocol: esp, mode: transport, spi: 0x2001, source: 192.0.2.2, destination: 192.0.2.1, algorithm: aes128-sha256, key_file: my.keys}
policies:
  - {name: peer, local: 192.0.2.1, remote: 192.0.2.2, action: protect, out: [out], in: [in]}
` + policies
	path := filepath.Join(dir, "bitw.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	keys := "out 000102030405060708090a0b0c0d0e0f " + strings.Repeat("a1", 32) + "\nin 100102030405060708090a0b0c0d0e0f " + strings.Repeat("b1", 32) + "\n"
	if err := os.WriteFile(filepath.Join(dir, "my.keys"), []byte(keys), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// serveFile has a real appliance between links run by a file.
func serveFile(t *testing.T, w *world, path string) *appliance.Appliance {
	t.Helper()
	cfg, _, err := w.load(path)
	if err != nil {
		t.Fatal(err)
	}
	_, left := link.Pipe(link.PipeOptions{})
	right, _ := link.Pipe(link.PipeOptions{})
	a, err := appliance.New(*cfg, appliance.WithSequenceStore(sa.NewMemoryStore()),
		appliance.WithLinks(left, right, appliance.Host{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}}))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- a.Run(context.Background()) }()
	select {
	case <-a.Ready():
	case err := <-ended:
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	return a
}

func TestR50_ApplyVerb(t *testing.T) {
	dir, err := os.MkdirTemp("", "bitw-") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := applicable(t, dir, "")
	a := serveFile(t, newWorld(t), path)
	names := func() (list string) {
		for _, p := range a.Status().Policies {
			list += p.Name + " "
		}
		return list
	}
	newWorld(t).call(t, 0, path+" says what is in force already\n", "", "apply", path)
	applicable(t, dir, "  - {name: ssh, protocol: tcp, local_ports: [22], action: bypass}\n")
	newWorld(t).call(t, 0, path+" would make 1 change:\n  policy \"ssh\" added\n", "", "apply", path, "--dry-run")
	if names() != "peer " {
		t.Errorf("a dry run left the policies %s", names())
	}
	newWorld(t).call(t, 0, path+" is in force, with 1 change:\n  policy \"ssh\" added\n", "", "apply", path)
	if names() != "peer ssh " {
		t.Errorf("the policies are %s", names())
	}
	w := newWorld(t)
	applicable(t, dir, "")
	w.call(t, 0, "", "", "apply", path, "-o", "json")
	var res appliance.ApplyResult
	if err := json.Unmarshal([]byte(w.out.String()), &res); err != nil || len(res.Changes) != 1 || res.Changes[0].Kind != "removed" {
		t.Errorf("%+v, %v", res, err)
	}

	applicable(t, dir, "  - {name: ssh, action: bypas}\n")
	newWorld(t).call(t, 1, "", path+":9:25: ", "apply", path)
	applicable(t, dir, "mtu: 1400\non_failure: open\nneighbors: relay\n")
	newWorld(t).call(t, 1, "", "bitw: on_failure: this cannot change at run time: nothing was changed; bitw up --takeover does it without loss\n", "apply", path)
	if a.Status().MTU != 1500 || names() != "peer " {
		t.Error("a refused configuration changed something")
	}
	if err := os.Chmod(filepath.Join(dir, "my.keys"), 0o644); err != nil {
		t.Fatal(err)
	}
	newWorld(t).call(t, 1, "", "mode 0644", "apply", path)

	newWorld(t).call(t, 2, "", "apply needs FILE", "apply")
	newWorld(t).call(t, 2, "", `not "yaml"`, "apply", path, "-o", "yaml")
	other := t.TempDir()
	newWorld(t).call(t, 1, "", "none runs behind", "apply", applicable(t, other, ""))
}

// The server takes nothing that it has to read itself.
func TestR50_ApplyReadsNoFileForOthers(t *testing.T) {
	dir, err := os.MkdirTemp("", "bitw-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := applicable(t, dir, "")
	w := newWorld(t)
	serveFile(t, w, path)
	c, err := w.client(filepath.Join(dir, "c.sock"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c2 := range []struct{ file, want string }{
		{path, "does not exist"}, // the key file does exist, and was not sent
		{"bitw.yaml", "expected the absolute path"},
	} {
		if _, err := c.Apply(t.Context(), &appliance.ApplyRequest{File: c2.file, Text: string(text)}); err == nil || !strings.Contains(err.Error(), c2.want) {
			t.Errorf("%s: %v", c2.file, err)
		}
	}
}

// SIGHUP has bitw up read its file anew; a wrong one is told in the log.
func TestR50_Hangup(t *testing.T) {
	w, a := newWorld(t), &fakeAppliance{ready: make(chan struct{}), applied: make(chan appliance.Config, 4), refused: make(chan error, 4)}
	w.newAppliance = func(appliance.Config, ...appliance.Option) (runner, error) { return a, nil }
	var (
		mu   sync.Mutex
		told []string
	)
	w.tellManager = func(s string) error {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, s)
		return nil
	}
	hangups := make(chan chan<- os.Signal, 1)
	w.hangup = func(c chan<- os.Signal) func() {
		hangups <- c
		return func() {}
	}
	signals, path := w.signals(), write(t, "bitw.yaml", good)
	status := make(chan int, 1)
	go func() { status <- w.run(t.Context(), []string{"up", "-c", path}) }()
	hangup := <-hangups
	eventually(t, &w.out, "is cut and protected")
	if err := os.WriteFile(path, []byte(good+"  - {name: more, action: bypass}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	hangup <- syscall.SIGHUP
	select {
	case cfg := <-a.applied:
		if cfg.Policies[len(cfg.Policies)-1].Name != "more" {
			t.Errorf("policies %v", cfg.Policies)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("nothing is applied")
	}
	if err := os.WriteFile(path, []byte(good+"  - {name: more, action: bypas}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	hangup <- syscall.SIGHUP
	eventually(t, &w.err, "bypas")
	select {
	case <-a.refused:
	case <-time.After(20 * time.Second):
		t.Fatal("it is not told that the configuration is refused")
	}
	if err := os.WriteFile(path, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	a.refuse = errors.New("this cannot change")
	hangup <- syscall.SIGHUP
	select {
	case <-a.applied:
	case <-time.After(20 * time.Second):
		t.Fatal("the last one is not tried")
	}
	signals <- os.Interrupt
	if got := <-status; got != 0 {
		t.Errorf("status %d: %s", got, w.err.String())
	}
	mu.Lock()
	defer mu.Unlock()
	all := strings.Join(told, "\n")
	if strings.Count(all, "RELOADING=1\nMONOTONIC_USEC=") != 3 || strings.Count(all, "READY=1") < 3 {
		t.Errorf("the service manager was told\n%s", all)
	}
}
