package appliance

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"

	"bitw/config"
	"bitw/netstack/trace"
)

// capturedFrame is one of a capture that was read back.
type capturedFrame struct {
	inside  bool
	data    []byte
	comment string
}

func readCapture(t *testing.T, file []byte) (frames []capturedFrame, lost uint64) {
	t.Helper()
	r, err := pcapgo.NewNgReader(bytes.NewReader(file), pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	for {
		data, ci, o, err := r.ReadPacketDataWithOptions()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, capturedFrame{ci.InterfaceIndex == 0, data, strings.Join(o.Comments, "|")})
	}
	for i := range r.NInterfaces() {
		intf, err := r.Interface(i)
		if err != nil || intf.Name != []string{"inside", "outside"}[i] {
			t.Fatalf("interface %d is %q, %v", i, intf.Name, err)
		}
		lost += intf.Statistics.PacketsDropped
	}
	return frames, lost
}

// Several captures at once, each with its own filter; what became of a packet is beside it
// on both sides.
func TestR50_Capture(t *testing.T) {
	cfg := protectAll(t)
	p := newMemoryPair(t, cfg, mirror(cfg))
	filters := []string{"", "esp", "tcp dport 8080", "udp", "sa ab6", "not drop rule v4 out"}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	files := make([]bytes.Buffer, len(filters))
	ended := make(chan error, len(filters))
	for i, filter := range filters {
		go func() {
			_, err := p.boxA.Capture(ctx, &files[i], CaptureRequest{Filter: filter, Snaplen: 100})
			ended <- err
		}()
	}
	waitFor(t, "captures", func() bool { return p.boxA.watchers.count(WatcherCapture) == len(filters) })
	p.transfer(t, false, 100_000)
	p.transfer(t, true, 100_000)
	cancel()
	for range filters {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	for i, filter := range filters {
		frames, lost := readCapture(t, files[i].Bytes())
		var inside, outside, esp int
		for _, f := range frames {
			isESP := len(f.data) > 40 && (f.data[12] == 8 && f.data[23] == 50 || f.data[12] == 0x86 && f.data[20] == 50)
			switch {
			case f.inside && isESP:
				t.Errorf("%q: ESP inside: %x", filter, f.data)
			case f.inside:
				inside++
			case isESP:
				esp++
				if !strings.Contains(f.comment, "protect by rule v") || !strings.Contains(f.comment, "SA ") {
					t.Errorf("%q: the comment of ESP is %q", filter, f.comment)
				}
				fallthrough
			default:
				outside++
			}
			if len(f.data) > 100 {
				t.Errorf("%d octets of a frame", len(f.data))
			}
			if filter == "sa ab6" && !strings.Contains(f.comment, "SA ab6 0x00001006 aes256-sha256") {
				t.Errorf("%q: comment %q", filter, f.comment)
			}
		}
		t.Logf("%q: %d inside, %d outside, of these %d ESP, %d lost", filter, inside, outside, esp, lost)
		if none := filter == "udp"; (inside == 0 || esp == 0) != none || len(frames) > 0 == none {
			t.Errorf("%q: %d inside, %d outside, %d ESP", filter, inside, outside, esp)
		}
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestR50_CaptureRefused(t *testing.T) {
	box, errc := loneBox(t, config.Config{})
	var e *trace.FilterError
	if _, err := box.Capture(t.Context(), io.Discard, CaptureRequest{Filter: "tcp prot 443"}); !errors.As(err, &e) || e.Column != 5 {
		t.Errorf("bad filter: %v", err)
	}
	if _, err := box.Capture(t.Context(), io.Discard, CaptureRequest{Snaplen: -1}); err == nil {
		t.Error("bad snaplen")
	}
	<-box.Ready()
	full := errors.New("the disk is full")
	if _, err := box.Capture(t.Context(), failing{full}, CaptureRequest{}); !errors.Is(err, full) {
		t.Errorf("a writer that fails: %v", err)
	}
	// It ends with the appliance.
	ended := make(chan error, 1)
	go func() {
		_, err := box.Capture(context.Background(), io.Discard, CaptureRequest{})
		ended <- err
	}()
	waitFor(t, "the capture", func() bool { return box.watchers.count(WatcherCapture) == 1 })
	_ = box.Close()
	if err := errors.Join(<-ended, <-errc); err != nil {
		t.Error(err)
	}
	if _, err := box.Capture(t.Context(), io.Discard, CaptureRequest{}); err == nil || !strings.Contains(err.Error(), "stopped") {
		t.Errorf("of a stopped appliance: %v", err)
	}
}

type failing struct{ error }

func (f failing) Write([]byte) (int, error) { return 0, f.error }

// By the socket, as a whole file, and with the keys apart, which also come of later SAs.
func TestR50_CaptureByTheSocket(t *testing.T) {
	cfg := protectAll(t)
	other := mirror(cfg)
	cfg.Control = filepath.Join(t.TempDir(), "s")
	p := newMemoryPair(t, cfg, other)
	open := func(url, body string) *streamClient {
		conn, err := net.Dial("unix", cfg.Control)
		if err != nil {
			t.Fatal(err)
		}
		return startStream(t, conn, url, body)
	}
	capture, keys := open("/v1/capture", `{"filter": "tcp"}`), open("/v1/keys/wireshark", "")
	if got := capture.resp.Header.Get("Content-Type"); capture.resp.StatusCode != 200 || got != "application/x-pcapng" {
		t.Fatalf("answered %d %s", capture.resp.StatusCode, got)
	}
	if head, err := capture.body.Peek(4); err != nil || string(head) != "\n\r\r\n" {
		t.Fatalf("it begins with %q, %v", head, err)
	}
	p.transfer(t, false, 50_000)
	var lines []string
	for range 4 {
		lines = append(lines, keys.line(t))
	}
	fresh := key(t, 20)
	if err := p.boxA.SetKey("ab", hex.EncodeToString(fresh.Bytes())); err != nil {
		t.Fatal(err)
	}
	lines = append(lines, keys.line(t))
	for i, k := range []config.Secret{cfg.SAs[0].EncryptionKey, cfg.SAs[2].EncryptionKey, cfg.SAs[1].EncryptionKey, cfg.SAs[3].EncryptionKey, fresh} {
		if want := `"0x` + hex.EncodeToString(k.Bytes()) + `"`; !strings.Contains(lines[i], want) {
			t.Errorf("line %d is %s, expected one with %s", i, lines[i], want)
		}
	}
	for _, s := range []*streamClient{capture, keys} {
		_ = s.CloseWrite()
	}
	file, err := io.ReadAll(capture.body)
	if err != nil {
		t.Fatal(err)
	}
	if frames, lost := readCapture(t, file); len(frames) == 0 || lost != 0 {
		t.Errorf("%d frames, %d lost", len(frames), lost)
	}
	if rest, err := io.ReadAll(keys.body); len(rest) > 0 || err != nil {
		t.Errorf("more keys: %q, %v", rest, err)
	}
	for _, k := range cfg.SAs {
		if b := k.EncryptionKey.Bytes(); bytes.Contains(file, b) || bytes.Contains(file, []byte(hex.EncodeToString(b))) {
			t.Errorf("the capture has the key of %s", k.Name)
		}
	}
	waitFor(t, "the end", func() bool { return p.boxA.watchers.count(WatcherCapture) == 0 })
	if _, err := os.Stat(cfg.Control); err != nil {
		t.Error(err)
	}
}

// Reading takes less than capturing, and that less than seeing keys.
func TestR50_CaptureRights(t *testing.T) {
	need := make(map[string]access)
	for _, r := range new(Appliance).routes(nil) {
		need[r.pattern] = r.needs
	}
	if need["POST /v1/capture"] != mayChange || need["POST /v1/keys/wireshark"] != mayOwn {
		t.Errorf("rights: %v", need)
	}
	path := controlled(t, config.Config{})
	for body, says := range map[string]string{
		`{"filter": "tcp prot 443"}`: "column 5", `{"filter": 1}`: "filter", `{"snaplen": -1}`: "snaplen", `{"colour": "red"}`: "colour", ``: "nothing",
	} {
		if status, text := ask(t, path, http.MethodPost, "/v1/capture", body); status != 400 || !strings.Contains(text, says) {
			t.Errorf("%s: answered %d %s, expected 400 with %q", body, status, text, says)
		}
	}
}

// count is how many of a kind there are.
func (w *watchers) count(kind string) int {
	n := 0
	for _, x := range w.all() {
		if x.Kind == kind {
			n++
		}
	}
	return n
}
