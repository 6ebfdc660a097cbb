package appliance

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"bitw/config"
)

// controlled starts an appliance with a control socket that everybody can get at.
func controlled(t testing.TB, cfg config.Config) (path string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "bitw-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cfg.Control = filepath.Join(dir, "s")
	box, errc := loneBox(t, cfg)
	select {
	case <-box.Ready():
	case err := <-errc:
		t.Fatal(err)
	}
	return cfg.Control
}

func TestR50_ControlErrors(t *testing.T) {
	path := controlled(t, protectAll(t))
	for _, x := range []struct {
		method, url, body string
		status            int
		code, says        string
	}{
		{"GET", "/v1/nothing", "", 404, CodeNotFound, "/v1/nothing"},
		{"GET", "/v2/status", "", 404, CodeNotFound, "/v2/status"},
		{"GET", "/", "", 404, CodeNotFound, ""},
		{"POST", "/v1/status", "", 405, CodeMethod, "wants GET"},
		{"GET", "/v1/down", "", 405, CodeMethod, "wants POST"},
		{"GET", "/v1/status", "x", 413, CodeTooLarge, "at most 0"},
		{"POST", "/v1/down", `{"now": true}`, 413, CodeTooLarge, "at most 0"},
		{"POST", "/v1/tap", "", 400, CodeBadRequest, "nothing"},
		{"POST", "/v1/tap", "closed", 400, CodeBadRequest, "JSON"},
		{"POST", "/v1/tap", `{"kernel": 1}`, 400, CodeBadRequest, "kernel"},
		{"POST", "/v1/tap", `{"colour": "red"}`, 400, CodeBadRequest, "colour"},
		{"POST", "/v1/tap", `{} {}`, 400, CodeBadRequest, "one JSON object"},
		{"POST", "/v1/tap", `[]`, 400, CodeBadRequest, "array"},
		{"POST", "/v1/tap", strings.Repeat(" ", 1<<13), 413, CodeTooLarge, "4096"},
		{"POST", "/v1/tap", `{"kernel": "closed"}`, 409, CodeNoTaps, "links"},
	} {
		status, text := ask(t, path, x.method, x.url, x.body)
		var e ControlError
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			t.Errorf("%s %s %.20q: answered %q: %v", x.method, x.url, x.body, text, err)
		}
		if status != x.status || e.Code != x.code || !strings.Contains(e.Message, x.says) {
			t.Errorf("%s %s %.20q: %d %+v, expected %d %s with %q", x.method, x.url, x.body, status, e, x.status, x.code, x.says)
		}
	}
	if status, _ := ask(t, path, "GET", "/v1/status", ""); status != 200 {
		t.Errorf("status then: %d", status)
	}
}

// A body without a length is bounded as well.
func TestR50_ControlBodyOfUnknownLength(t *testing.T) {
	path := controlled(t, protectAll(t))
	head := "POST /v1/tap HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
	answer := talk(t, path, head+"2000\r\n"+strings.Repeat(" ", 0x2000)+"\r\n0\r\n\r\n")
	if !strings.HasPrefix(answer, "HTTP/1.1 413") {
		t.Errorf("answered %.60q", answer)
	}
}

// talk sends octets, closes that direction and returns the answer.
func talk(t testing.TB, path, sent string) string {
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(conn, sent) // it may have been refused by then
	_ = conn.(*net.UnixConn).CloseWrite()
	answer, _ := io.ReadAll(conn)
	return string(answer)
}

// Whatever octets come, the answer is none or one of HTTP, never a success for a change
// that was not asked for, and the socket goes on answering.
func FuzzControl(f *testing.F) {
	for _, s := range garbage {
		f.Add([]byte(s))
	}
	cfg := config.Config{}
	path := controlled(f, cfg)
	f.Fuzz(func(t *testing.T, sent []byte) {
		if len(sent) > 1<<16 || strings.Contains(strings.ToLower(string(sent)), "/v1/") {
			return // some of these may be asked
		}
		if answer := talk(t, path, string(sent)); answer != "" && (!strings.HasPrefix(answer, "HTTP/1.") || strings.HasPrefix(answer, "HTTP/1.1 2")) {
			t.Errorf("%q answered %q", sent, answer)
		}
	})
}

// garbage is no request.
var garbage = []string{
	"", "\x00", "\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET / HTTP/1.1\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: b\r\nContent-Length: -1\r\n\r\n",
	"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
	"GET http://[::1 HTTP/1.1\r\n\r\n", "GET /%zz HTTP/1.1\r\nHost: b\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
	"GET /" + strings.Repeat("x", 1<<15) + " HTTP/1.1\r\nHost: b\r\n\r\n",
	strings.Repeat("\xff", 1<<15),
}

func TestR50_ControlGarbage(t *testing.T) {
	path := controlled(t, config.Config{})
	for _, s := range garbage {
		if answer := talk(t, path, s); answer != "" && !strings.HasPrefix(answer, "HTTP/1.1 4") && !strings.HasPrefix(answer, "HTTP/1.1 5") {
			t.Errorf("%.40q answered %.80q", s, answer)
		}
	}
	if status, _ := ask(t, path, "GET", "/v1/status", ""); status != 200 {
		t.Errorf("status then: %d", status)
	}
}

// asOther calls f on a thread that has another user and groups, as a connection's kernel
// end sees it, and throws the thread away.
func asOther(t *testing.T, uid, gid int, groups []uint32, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlock
		list := append([]uint32{uint32(gid)}, groups...)
		// Package unix would change all threads.
		_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(list)), uintptr(unsafe.Pointer(&list[0])), 0)
		if errno == 0 {
			_, _, errno = unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid))
		}
		if errno == 0 {
			_, _, errno = unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid))
		}
		if errno != 0 {
			done <- errno
			return
		}
		f()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestR50_ControlAccess(t *testing.T) {
	if os.Geteuid() != 0 {
		skip(t, "root, to be other users")
	}
	const uid, monitor, admin, other = 60123, 60201, 60202, 60203
	none := []uint32(nil)
	for _, x := range []struct {
		name        string
		read, admin string
		mode        os.FileMode
		gid         int
		groups      []uint32
		status, tap int // what GET /v1/status and POST /v1/tap answer, 0 if the socket cannot be opened
	}{
		{"no groups", "", "", 0o600, other, none, 0, 0},
		{"reader", "60201", "", 0o660, monitor, none, 200, 403},
		{"reader by a supplementary group", "60201", "", 0o660, other, []uint32{1, 2, monitor}, 200, 403},
		{"reader by the last of many groups", "60201", "", 0o660, other, append(many(100), monitor), 200, 403},
		{"stranger with a reading group", "60201", "", 0o660, other, none, 0, 0},
		{"admin", "", "60202", 0o660, admin, none, 200, 409},
		{"stranger with an admin group", "", "60202", 0o660, monitor, none, 0, 0},
		{"reader of two", "60201", "60202", 0o666, monitor, none, 200, 403},
		{"admin of two", "60201", "60202", 0o666, other, []uint32{admin}, 200, 409},
		{"in both", "60201", "60202", 0o666, monitor, []uint32{admin}, 200, 409},
		{"stranger of two", "60201", "60202", 0o666, other, none, 403, 403},
		{"the same group for both", "60201", "60201", 0o660, monitor, none, 200, 409},
	} {
		t.Run(x.name, func(t *testing.T) {
			path := controlled(t, config.Config{ControlGroup: x.read, ControlAdminGroup: x.admin})
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != x.mode {
				t.Errorf("the socket: %v, %v; expected mode %o", info.Mode(), err, x.mode)
			}
			request := func(line, body string) int {
				var conn net.Conn
				asOther(t, uid, x.gid, x.groups, func() {
					// The thread itself must connect: DialUnix does, which does not wait.
					if c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"}); err == nil {
						conn = c
					}
				})
				if conn == nil {
					return 0
				}
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
				fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: b\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", line, len(body), body)
				answer, err := io.ReadAll(conn)
				if err != nil {
					t.Error(err)
				}
				var status int
				_, _ = fmt.Sscanf(string(answer), "HTTP/1.1 %d", &status)
				return status
			}
			if got := request("GET /v1/status", ""); got != x.status {
				t.Errorf("status answered %d, expected %d", got, x.status)
			}
			if got := request("POST /v1/tap", `{"kernel": "closed"}`); got != x.tap {
				t.Errorf("tap answered %d, expected %d", got, x.tap)
			}
			if got := request("POST /v1/takeover", ""); got != 403 && got != 0 {
				t.Errorf("takeover answered %d, expected 403", got)
			}
			if status, _ := ask(t, path, http.MethodGet, "/v1/status", ""); status != 200 {
				t.Errorf("root got %d", status)
			}
		})
	}
}

func many(n int) (list []uint32) {
	for i := range n {
		list = append(list, uint32(61000+i))
	}
	return list
}

func TestR50_ControlGroupUnknown(t *testing.T) {
	cfg := config.Config{ControlGroup: "no-such-group-here", Control: filepath.Join(t.TempDir(), "s")}
	_, errc := loneBox(t, cfg)
	if err := <-errc; err == nil || !strings.Contains(err.Error(), "no-such-group-here") {
		t.Errorf("error %v", err)
	}
}

// skip skips a test for what is missing, or fails it where nothing may be.
func skip(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("BITW_REQUIRE") == "all" {
		t.Fatalf("this test needs %s; BITW_REQUIRE=all makes that a failure", what)
	}
	t.Skipf("this test needs %s", what)
}
