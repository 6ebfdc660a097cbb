package appliance

import (
	"encoding/binary"
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
)

// ends are both ends of a connection.
func ends(t testing.TB) (a, b *handoverConn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ca, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	cb, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = ca.Close(), cb.Close() })
	return &handoverConn{ca.(*net.UnixConn)}, &handoverConn{cb.(*net.UnixConn)}
}

// raw is a message as it is on the wire.
func raw(m message, size uint32, text string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{byte(m)}, size), text...)
}

func TestR48_TakeoverMessages(t *testing.T) {
	a, b := ends(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := a.send(msgHello, helloMessage{7, "eth0"}, int(w.Fd())); err != nil {
		t.Fatal(err)
	}
	w.Close()
	var hello helloMessage
	fds, err := b.receive(msgHello, maxShort, &hello)
	if err != nil || len(fds) != 1 || hello != (helloMessage{7, "eth0"}) {
		t.Fatalf("%v %v %v", hello, fds, err)
	}
	f := os.NewFile(uintptr(fds[0]), "w")
	_, _ = f.WriteString("x")
	f.Close()
	if text, err := io.ReadAll(r); string(text) != "x" || err != nil {
		t.Errorf("through the descriptor that was handed over came %q, %v", text, err)
	}
	if pid, uid, err := b.peer(); pid != os.Getpid() || uid != os.Getuid() || err != nil {
		t.Errorf("the peer is %d of user %d, %v", pid, uid, err)
	}
	if !b.alive() {
		t.Error("the other end is not there")
	}
	if err := a.send(msgRefuse, refuseMessage{"no"}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.receive(msgGo, maxLong, new(goMessage)); !errors.Is(err, errRefused) || !strings.Contains(err.Error(), "no") {
		t.Errorf("a refusal: %v", err)
	}
	a.conn.Close()
	if b.alive() {
		t.Error("the other end is still there")
	}
}

func TestR48_TakeoverGarbage(t *testing.T) {
	for name, c := range map[string]struct {
		sent []byte
		open bool // the other end stays there
		says string
	}{
		"nothing":            {nil, false, "EOF"},
		"silence":            {nil, true, "timeout"},
		"half a head":        {[]byte{1, 0}, false, "EOF"},
		"half a head, slow":  {[]byte{1, 0}, true, "timeout"},
		"another":            {raw(msgGo, 2, "{}"), true, "go came"},
		"unknown":            {raw(99, 2, "{}"), true, "message(99) came"},
		"too long":           {raw(msgHello, maxShort+1, ""), true, "want at most"},
		"huge":               {raw(msgHello, 1<<32-1, ""), true, "want at most"},
		"long refusal":       {raw(msgRefuse, maxShort+1, ""), true, "want at most"},
		"short":              {raw(msgHello, 10, "{}"), false, "EOF"},
		"short, slow":        {raw(msgHello, 10, "{}"), true, "timeout"},
		"no JSON":            {raw(msgHello, 3, "abc"), true, "invalid character"},
		"other JSON":         {raw(msgHello, 2, "[]"), true, "cannot unmarshal"},
		"no JSON in refusal": {raw(msgRefuse, 1, "x"), true, "invalid character"},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := ends(t)
			limit := time.Minute
			if c.says == "timeout" {
				limit = 300 * time.Millisecond
			}
			b.within(limit)
			if _, err := a.conn.Write(c.sent); err != nil {
				t.Fatal(err)
			}
			if !c.open {
				a.conn.Close()
			}
			if _, err := b.receive(msgHello, maxShort, new(helloMessage)); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, expected one that says %q", err, c.says)
			}
		})
	}
}

// An appliance that cuts no interface has none to give, whoever asks and however; it
// goes on.
func TestR48_TakeoverOfLinksIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.sock")
	cfg := protectAll(t)
	cfg.Control = path
	box, _ := loneBox(t, cfg)
	<-box.Ready()
	if s, err := succeed(t.Context(), path, "eth0"); s != nil || !errors.Is(err, errRefused) || !strings.Contains(err.Error(), "links") {
		t.Errorf("%v, %v", s, err)
	}
	if code, text := ask(t, path, "GET", "/v1/status", ""); code != http.StatusOK {
		t.Error(text)
	}
	if s, err := succeed(t.Context(), path+"x", "eth0"); s != nil || err != nil {
		t.Errorf("of nobody: %v, %v", s, err)
	}
}

func FuzzTakeoverMessage(f *testing.F) {
	text, _ := json.Marshal(goMessage{SAs: json.RawMessage("{}"), Hops: map[string]net.HardwareAddr{"192.0.2.1": {1, 2, 3, 4, 5, 6}}})
	f.Add(raw(msgGo, uint32(len(text)), string(text)))
	f.Add(raw(msgRefuse, 15, `{"reason":"no"}`))
	f.Add([]byte{4, 0, 0})
	f.Fuzz(func(t *testing.T, sent []byte) {
		if len(sent) > 1<<15 {
			return
		}
		a, b := ends(t)
		if _, err := a.conn.Write(sent); err != nil {
			t.Fatal(err)
		}
		a.conn.Close()
		fds, _ := b.receive(msgGo, maxLong, new(goMessage))
		if len(fds) > 0 {
			t.Fatal("descriptors out of nothing")
		}
	})
}
