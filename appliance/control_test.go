package appliance

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bitw/config"
	"bitw/netstack/link"
	"bitw/sa"
)

// loneBox starts an appliance between two links that lead nowhere.
func loneBox(t testing.TB, cfg config.Config) (*Appliance, chan error) {
	t.Helper()
	_, left := link.Pipe(link.PipeOptions{})
	right, _ := link.Pipe(link.PipeOptions{})
	box, err := New(cfg, WithSequenceStore(sa.NewMemoryStore()), WithLinks(left, right, Host{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}}))
	if err != nil {
		t.Fatal(err)
	}
	errc := make(chan error, 1)
	go func() { errc <- box.Run(context.Background()) }()
	t.Cleanup(func() { _ = box.Close() })
	return box, errc
}

func TestR50_ControlSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "bitw.sock")
	cfg := protectAll(t)
	cfg.Control = path
	box, errc := loneBox(t, cfg)
	<-box.Ready()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info, err)
	}
	var s Status
	if code, text := ask(t, path, "GET", "/v1/status", ""); code != http.StatusOK {
		t.Fatal(text)
	} else if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	if s.State != "active" || len(s.SAs) != 4 || len(s.Policies) != 2 || s.SAs[0].Key != "valid" || s.Cut != "links" {
		t.Errorf("status %+v", s)
	}
	// A second appliance may not take the socket.
	other, otherErr := loneBox(t, cfg)
	if err := <-otherErr; err == nil || !strings.Contains(err.Error(), "another process answers") {
		t.Errorf("second appliance on the same socket: %v", err)
	}
	if other.Status().State != "failed" {
		t.Errorf("it is %q", other.Status().State)
	}
	if code, text := ask(t, path, "POST", "/v1/down", ""); code != http.StatusAccepted {
		t.Fatal(text)
	}
	if err := <-errc; err != nil {
		t.Errorf("Run returned %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Error("the socket is still there")
	}
}

// ask sends one request to a control socket and returns the answer.
func ask(t *testing.T, path, method, url, body string) (status int, text string) {
	t.Helper()
	conn := http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://bitw"+url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := conn.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

func TestControlSocketOfTheDead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bitw.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	box, errc := loneBox(t, config.Config{Control: path})
	select {
	case <-box.Ready():
	case err := <-errc:
		t.Fatal(err)
	}
	_ = box.Close()
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, errc = loneBox(t, config.Config{Control: path})
	if err := <-errc; err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("a file in the way: %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "mine" {
		t.Error("the file was touched")
	}
}

func TestNewRefuses(t *testing.T) {
	good := protectAll(t)
	cases := map[string]struct {
		change func(*config.Config)
		says   string
	}{
		"no interface":      {func(c *config.Config) { c.Interface = "" }, "names no interface"},
		"unknown SA":        {func(c *config.Config) { c.Policies[0].Out = []string{"nobody"} }, `no SA named "nobody"`},
		"key length":        {func(c *config.Config) { c.SAs[0].EncryptionKey = config.NewSecret([]byte("short")) }, "5 octets"},
		"unknown algorithm": {func(c *config.Config) { c.SAs[0].Algorithm = "rot13" }, "rot13"},
		"same SPI": {func(c *config.Config) {
			c.SAs[0].Direction = config.In
			c.SAs[1].SPI, c.SAs[1].Destination = c.SAs[0].SPI, c.SAs[0].Destination
			c.SAs[1].Algorithm = "chacha20poly1305"
			c.SAs[1].EncryptionKey = key(t, 36)
		}, "0x00001001"},
		"one key for two": {func(c *config.Config) { c.SAs[1].EncryptionKey = c.SAs[0].EncryptionKey }, "key"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			cfg := good
			cfg.Interface = "eth0"
			cfg.SAs = append([]config.SA(nil), good.SAs...)
			cfg.Policies = append([]config.Policy(nil), good.Policies...)
			c.change(&cfg)
			if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, expected one that says %q", err, c.says)
			}
		})
	}
}

func TestRunsOnce(t *testing.T) {
	box, errc := loneBox(t, config.Config{})
	<-box.Ready()
	if err := box.Run(context.Background()); err == nil {
		t.Error("a second Run succeeded")
	}
	_ = box.Close()
	if err := <-errc; err != nil {
		t.Error(err)
	}
	if s := box.Status().State; s != "stopped" {
		t.Errorf("state %q", s)
	}
}
