package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"bitw/appliance"
	"bitw/config"
	"bitw/netstack/link"
	"bitw/netstack/wire"
)

// traces are the forms in which a secret could be told, of any 6 octets of it in a row.
func traces(secret []byte) (list []string) {
	const part = 6 // 48 bits do not come by chance
	for i := 0; i+part <= len(secret); i++ {
		list = append(list, hex.EncodeToString(secret[i:i+part]), string(secret[i:i+part]), fmt.Sprint(secret[i : i+part])[1:])
	}
	// Base64 of an octet string depends on where it begins in a group of three.
	for i := range 3 {
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			text := enc.EncodeToString(secret[i : i+(len(secret)-i)/3*3])
			for j := 0; j+8 <= len(text); j += 4 {
				list = append(list, text[j:j+8])
			}
		}
	}
	return list
}

// inMemory runs what a configuration says between links in memory, of which host is the
// protected one's, and answers on its control socket.
func inMemory(t *testing.T, path string, log *logrus.Logger) (box *appliance.Appliance, cfg *config.Config, host *link.PipeEnd) {
	t.Helper()
	cfg, _, err := config.Load(path, appliance.ConfigOptions())
	if err != nil {
		t.Fatal(err)
	}
	host, left := link.Pipe(link.PipeOptions{})
	right, wire := link.Pipe(link.PipeOptions{})
	box, err = appliance.New(*cfg, appliance.WithLogger(log), appliance.WithClock(func() int64 { return now.UnixNano() }),
		appliance.WithLinks(left, right, appliance.Host{
			MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")},
		}))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- box.Run(context.Background()) }()
	t.Cleanup(func() { _ = box.Close(); _ = host.Close(); _ = wire.Close() })
	select {
	case <-box.Ready():
	case err := <-ended:
		t.Fatal(err)
	}
	return box, cfg, host
}

// datagram is a frame with a UDP datagram of 192.0.2.1 for another address.
func datagram(to netip.Addr) []byte {
	const size = 20 + 8 + 4
	ip := make([]byte, size)
	header.IPv4(ip).Encode(&header.IPv4Fields{
		TotalLength: size, TTL: 64, Protocol: uint8(header.UDPProtocolNumber),
		SrcAddr: tcpip.AddrFrom4([4]byte{192, 0, 2, 1}), DstAddr: tcpip.AddrFrom4(to.As4()),
	})
	header.IPv4(ip).SetChecksum(^header.IPv4(ip).CalculateChecksum())
	header.UDP(ip[20:]).Encode(&header.UDPFields{SrcPort: 1, DstPort: 2, Length: size - 20})
	frame := make([]byte, wire.VirtioNetLen+14)
	copy(frame[wire.VirtioNetLen:], []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0})
	return append(frame, ip...)
}

// TestR50_SecretsAreHidden gives known keys to a bitw, in the configuration and while it runs,
// and looks for them in all that the verbs, the logs, the control socket and the metrics say.
func TestR50_SecretsAreHidden(t *testing.T) {
	secret := func(n int) []byte {
		b := make([]byte, n)
		_, _ = rand.Read(b)
		return b
	}
	keys := map[string][]byte{"gcm": secret(20), "cipher": secret(16), "integrity": secret(32), "file": secret(20), "later": secret(20)}
	w := newWorld(t)
	dir := t.TempDir()
	path, keyFile := filepath.Join(dir, "eth0.yaml"), filepath.Join(dir, "eth0.keys")
	text := fmt.Sprintf(`interface: eth0
control: %s
state_dir: %s
static_neighbors:
  - {address: 192.0.2.2, mac: "02:00:00:00:00:02"}
security_associations:
  - {name: out, direction: out, protocol: esp, mode: transport, spi: 0x1001, source: 192.0.2.1, destination: 192.0.2.2, algorithm: aes128gcm16, encryption_key: 0x%x}
  - {name: in, direction: in, protocol: esp, mode: transport, spi: 0x2001, source: 192.0.2.2, destination: 192.0.2.1, algorithm: aes128-sha256, encryption_key: 0x%x, integrity_key: 0x%x}
  - {name: other, direction: out, protocol: esp, mode: transport, spi: 0x1002, source: 192.0.2.1, destination: 192.0.2.3, algorithm: aes128gcm16, key_file: eth0.keys}
policies:
  - {name: b, local: 192.0.2.1, remote: 192.0.2.2, action: protect, out: [out], in: [in]}
  - {name: c, direction: out, local: 192.0.2.1, remote: 192.0.2.3, action: protect, out: [other]}
`, filepath.Join(w.sockets, "eth0.sock"), filepath.Join(dir, "state"), keys["gcm"], keys["cipher"], keys["integrity"])
	files := map[string]string{path: text, keyFile: fmt.Sprintf("other %x\n", keys["file"])}
	// Configurations that are wrong near a key.
	wrong := map[string][2]string{
		"short.yaml":  {fmt.Sprintf("0x%x", keys["gcm"]), fmt.Sprintf("0x%x", keys["gcm"][:18])},
		"digit.yaml":  {fmt.Sprintf("0x%x", keys["gcm"]), fmt.Sprintf("0x%xg", keys["gcm"][:19])},
		"base64.yaml": {fmt.Sprintf("0x%x", keys["gcm"]), base64.StdEncoding.EncodeToString(keys["gcm"])},
		"brace.yaml":  {fmt.Sprintf("0x%x", keys["integrity"]), fmt.Sprintf("{0x%x: ", keys["integrity"])},
		"typo.yaml":   {"encryption_key: 0x", "encryption_kye: 0x"},
		"twice.yaml":  {"name: in, ", fmt.Sprintf("name: in, encryption_key: 0x%x, ", keys["cipher"])},
		"asfile.yaml": {"key_file: eth0.keys", fmt.Sprintf("key_file: %x", keys["file"])},
		"group.yaml":  {"interface: eth0", "interface: [eth0"},
	}
	for name, c := range wrong {
		files[filepath.Join(dir, name)] = strings.ReplaceAll(text, c[0], c[1])
	}
	for name, content := range files {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var said safeBuffer // all of it
	log := logrus.New()
	log.SetOutput(&said)
	log.SetLevel(logrus.TraceLevel)
	box, cfg, host := inMemory(t, path, log)

	var asked []string
	ask := func(stdin string, args ...string) {
		v := &world{program: new(program)}
		*v.program = *w.program
		v.program.out, v.program.err, v.program.in = &said, &said, strings.NewReader(stdin)
		v.program.run(t.Context(), args)
		asked = append(asked, strings.Join(args, " "))
	}
	socket := filepath.Join(w.sockets, "eth0.sock")
	for _, out := range []string{"text", "json"} {
		for _, verb := range []string{"status", "sa", "policy", "neigh list", "route", "drops", "keys list", "trace-level"} {
			ask("", append(strings.Fields(verb), "--socket", socket, "-o", out)...)
		}
		ask("", "check", "-c", path, "-o", out)
		ask("", "explain", "udp 192.0.2.1:1 > 192.0.2.2:2", "--socket", socket, "-o", out)
		ask("", "explain", "udp 192.0.2.1:1 > 192.0.2.3:2", "-c", path, "--offline", "-o", out)
		for name := range wrong {
			ask("", "check", "-c", filepath.Join(dir, name), "-o", out)
		}
	}
	for name := range wrong {
		ask("", "apply", filepath.Join(dir, name), "--socket", socket)
		ask("", "up", "-c", filepath.Join(dir, name))
	}
	ask("", "apply", path, "--socket", socket, "--dry-run")
	ask("", "status", "--socket", socket, "--watch", "--for", "150ms", "--every", "100ms")
	ask("", "status", "--socket", socket, "--check")
	for _, stdin := range []string{fmt.Sprintf("%x\n", keys["later"]), fmt.Sprintf("%x\n", keys["later"][:19]), fmt.Sprintf("0x%xz", keys["later"]), string(keys["later"])} {
		ask(stdin, "keys", "set", "out", "--socket", socket)
	}
	for _, args := range [][]string{{"out", fmt.Sprintf("%x", keys["later"])}, {fmt.Sprintf("0x%x", keys["later"])}} {
		ask("", append([]string{"keys", "set", "--socket", socket}, args...)...)
	}
	ask("", "keys", "list", "--socket", socket)
	// Packets that keys are at work for, of which every node tells the log too.
	for _, l := range box.TraceLevels() {
		ask("", "trace-level", l.Node, "TR_FULL_TRACE", "--socket", socket)
	}
	for _, how := range [][]string{{"--tree"}, {"-o", "json"}} {
		traced := make(chan struct{})
		go func() {
			defer close(traced)
			ask("", append([]string{"trace", "out", "--count", "2", "--socket", socket}, how...)...)
		}()
		for len(box.Status().Watchers) == 0 {
			time.Sleep(time.Millisecond)
		}
		for _, to := range []string{"192.0.2.2", "192.0.2.3"} {
			if _, err := host.WriteFrames([][]byte{datagram(netip.MustParseAddr(to))}); err != nil {
				t.Fatal(err)
			}
		}
		<-traced
	}
	for _, out := range []string{"text", "json"} {
		ask("", "monitor", "--once", "--socket", socket, "-o", out)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	for _, url := range []string{"http://bitw/metrics", "http://bitw/v1/status", "http://bitw/v1/keys"} {
		r, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(&said, r.Body); err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
	}
	for _, v := range []any{cfg, cfg.SAs, cfg.SAs[0], cfg.SAs[0].EncryptionKey, *box.Status()} {
		fmt.Fprintf(&said, "%v %+v %#v %s\n", v, v, v, v)
	}

	all := said.String()
	for name, key := range keys {
		for _, trace := range traces(key) {
			if i := strings.Index(strings.ToLower(all), strings.ToLower(trace)); i >= 0 && strings.Contains(all, trace) || i >= 0 && len(trace) == 12 {
				t.Fatalf("the key %s is told:\n%.300s", name, all[max(0, i-150):])
			}
		}
	}
	if n := strings.Count(all, "(hidden)"); n < 5 {
		t.Errorf("(hidden) is said %d times, expected it for each secret", n)
	}
	if !strings.Contains(all, "bitw_sa_packets_total") || !strings.Contains(all, "PROTECT") || len(asked) < 40 ||
		!strings.Contains(all, "transform sealed by out") || !strings.Contains(all, `"verdict":"protect by rule b; SA out`) || !strings.Contains(all, `"event":"key-changed"`) || !strings.Contains(all, "key-changed: a key was set by hand (key=out") {
		t.Errorf("not all was asked: %q", asked)
	}
}
