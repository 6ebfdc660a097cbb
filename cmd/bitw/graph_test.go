package main

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bitw/appliance"
)

const listing = "../../config/graphcomp/testdata/graph.comp"

func TestR45_GraphIsShown(t *testing.T) {
	newWorld(t).call(t, 0, "└─ crypt3in\n", "", "graph", listing)
	newWorld(t).call(t, 0, `"rfc1825" -> "crypt3in" [taillabel="8"]`, "", "graph", listing, "--format", "dot")
	newWorld(t).call(t, 0, "</svg>\n", "", "graph", listing, "--format", "svg")
	w := newWorld(t)
	w.call(t, 0, "", "", "graph", listing, "--format", "json")
	var g struct {
		Nodes []struct {
			Name, Does, Trace string
			Lower             []string
		}
	}
	if err := json.Unmarshal([]byte(w.out.String()), &g); err != nil || len(g.Nodes) != 31 || g.Nodes[8].Name != "rfc1825" || len(g.Nodes[8].Lower) != 9 {
		t.Errorf("json: %v, %+v", err, g.Nodes)
	}
}

func TestR45_GraphTellsErrorsWithTheirPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "graph.comp")
	if err := os.WriteFile(path, []byte("@;\nname=ethkern;\nname=ethdew;\n@;\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"graph", path}, {"up", "--graph", path}} {
		w := newWorld(t)
		w.call(t, 1, "", "bitw: 1 error in "+path, args...)
		if want := path + ":3:6: unknown node \"ethdew\"\n    name=ethdew;\n         ^\n    did you mean \"ethdev\"?\n"; !strings.Contains(w.err.String(), want) {
			t.Errorf("stderr: %s", w.err.String())
		}
	}
	newWorld(t).call(t, 1, "", "the graph cannot be read: no such file", "graph", path+"x")
	newWorld(t).call(t, 2, "", "--format is text, dot, svg, json", "graph", listing, "--format", "png")
	newWorld(t).call(t, 2, "", "give only one of them", "up", "-c", "x", "--graph", path)
	newWorld(t).call(t, 2, "", "--interface goes with --graph", "up", "-c", "x", "--interface", "eth0")
	newWorld(t).call(t, 1, "", "the graph names no interface", "up", "--graph", listing)
}

func TestR45_CheckOfAGraph(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "graph.comp")
	if err := os.MkdirAll(filepath.Join(dir, "km"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"graph.comp": read(t, listing), "rom": "romopt vnet address 192.0.2.1;\n", "km/crypt": "0x1001/192.0.2.2 0123456789abcdef\n",
		"km/b": "192.0.2.2 0x1001\n192.0.2.1 0x1001\n", "km/alg": "0x1001/192.0.2.2 04\n0x1001/192.0.2.1 06\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	newWorld(t).call(t, 0, "crypt/0x00001001/192.0.2.2   out  esp transport  spi 0x00001001  192.0.2.1 -> 192.0.2.2  desiv32\n", "", "check", "--graph", path, "--interface", "eth0")
	newWorld(t).call(t, 0, "tcrypt/0x00001001/192.0.2.1  in   esp transport  spi 0x00001001  any -> 192.0.2.1        desctsiv32\n", "", "check", "--graph", path, "--interface", "eth0")
	newWorld(t).call(t, 0, `"ok": true`, "", "check", "--graph", path, "--interface", "eth0", "-o", "json")
	if err := os.WriteFile(filepath.Join(dir, "km/crypt"), []byte("kmparams 8 8 10\n0x1001/192.0.2.2 01234567\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	w.call(t, 1, "", dir+"/km/crypt:2:18: key of 0x00001001/192.0.2.2: a key of km/crypt has 8 octets, found 4", "check", "--graph", path, "--interface", "eth0")
	if strings.Contains(w.err.String(), "01234567") {
		t.Error("the key is shown")
	}
}

// serveKeys listens as an appliance that is asked for keys only.
func (w *world) serveKeys(t *testing.T, iface string, list []appliance.KeyStatus, got *appliance.KeyRequest, refuse string) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(w.sockets, iface+".sock"))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/keys", func(w http.ResponseWriter, _ *http.Request) {
		out := append([]appliance.KeyStatus{}, list...)
		for i := range out {
			out[i].Value = ""
		}
		_ = json.NewEncoder(w).Encode(appliance.KeyList{Keys: out})
	})
	mux.HandleFunc("POST /v1/keys/values", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(appliance.KeyList{Keys: list})
	})
	mux.HandleFunc("POST /v1/keys", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewDecoder(r.Body).Decode(got)
		if refuse != "" {
			w.WriteHeader(http.StatusConflict)
			_ = json.NewEncoder(w).Encode(appliance.ControlError{Code: appliance.CodeKey, Message: refuse})
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	server := &http.Server{Handler: mux}
	served := make(chan struct{})
	go func() { _ = server.Serve(l); close(served) }()
	t.Cleanup(func() { _ = server.Close(); <-served })
}

func TestR44_KeysAreListedAndChanged(t *testing.T) {
	list := []appliance.KeyStatus{
		{Name: "km/md5/0x00001001/192.0.2.2", State: "valid", Octets: 16, Value: "00112233445566778899aabbccddeeff"},
		{Name: "to-b", State: "empty"},
	}
	call := func(status int, out, errText, stdin, refuse string, args ...string) (*world, appliance.KeyRequest) {
		t.Helper()
		w := newWorld(t)
		w.in = strings.NewReader(stdin)
		var got appliance.KeyRequest
		w.serveKeys(t, "eth0", list, &got, refuse)
		w.call(t, status, out, errText, append([]string{"keys"}, args...)...)
		return w, got
	}
	w, _ := call(0, "km/md5/0x00001001/192.0.2.2  valid  16 octets\nto-b                         empty  0 octets\n", "", "", "", "list")
	if strings.Contains(w.out.String(), "00112233") {
		t.Error("a key is shown unasked")
	}
	call(0, "16 octets  00112233445566778899aabbccddeeff\n", "", "", "", "list", "eth0", "--show-values")
	call(0, "0 octets   (not kept)\n", "", "", "", "list", "--show-values")
	call(0, `"state": "valid"`, "", "", "", "list", "-o", "json")
	for _, c := range []struct {
		stdin string
		args  []string
		out   string
		want  appliance.KeyRequest
	}{
		{" 0011 2233\n", []string{"set", "to-b"}, "to-b is valid now\n", appliance.KeyRequest{Name: "to-b", Change: "set", Value: "0011 2233"}},
		{"", []string{"invalidate", "to-b", "--interface", "eth0"}, "to-b is invalid now\n", appliance.KeyRequest{Name: "to-b", Change: "invalidate"}},
		{"", []string{"clear", "to-b"}, "to-b is empty now\n", appliance.KeyRequest{Name: "to-b", Change: "clear"}},
	} {
		if _, got := call(0, c.out, "", c.stdin, "", c.args...); got != c.want {
			t.Errorf("%v asked for %+v", c.args, got)
		}
	}
	call(1, "", "bitw: key: to-b has another length", "00", "key: to-b has another length", "set", "to-b")
	call(1, "", `key: no SA is called "to-bb"; did you mean "to-b"?`, "00", `key: no SA is called "to-bb"`, "set", "to-bb")
	call(1, "", `key: no SA is called "other"; see bitw keys list`, "", `key: no SA is called "other"`, "clear", "other")
	call(1, "", "no key came", "\n", "", "set", "to-b")
	call(1, "", "a key is one line", "00\n11\n", "", "set", "to-b")
	call(2, "", "set needs NAME", "", "", "set")
	call(2, "", "give only one of them", "", "", "clear", "to-b", "--socket", "x", "-c", "y")
	call(2, "", `followed by one of clear, invalidate, list, set, not "shew"`, "", "", "shew")
	call(2, "", "followed by one of clear, invalidate, list, set", "", "")
}
