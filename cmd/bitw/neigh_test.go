package main

import (
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
)

func TestR24_NeighVerbs(t *testing.T) {
	for _, x := range []struct {
		args    []string
		request string // what the appliance is asked
		status  int
		out     string
		err     string
	}{
		{[]string{"add", "192.0.2.9", "02:00:00:00:00:09"}, `PUT /v1/neighbors/192.0.2.9 {"mac":"02:00:00:00:00:09"}`, 0, "192.0.2.9 is at 02:00:00:00:00:09\n", ""},
		{[]string{"del", "2001:db8::9"}, "DELETE /v1/neighbors/2001:db8::9 ", 0, "2001:db8::9 is forgotten\n", ""},
		{[]string{"del", "192.0.2.8"}, "DELETE /v1/neighbors/192.0.2.8 ", 1, "", "no such neighbour"},
		{[]string{"flush"}, "DELETE /v1/neighbors ", 0, "3 neighbours are forgotten\n", ""},
		{[]string{"add", "192.0.2.9"}, "", 2, "", "needs MAC"},
		{[]string{"add", "nine", "02:00:00:00:00:09"}, "", 2, "", `found "nine"`},
		{[]string{"add", "192.0.2.9", "02:00"}, "", 2, "", `found "02:00"`},
		{[]string{"del", "fe80::1%eth0"}, "", 2, "", "expected an address"},
		{[]string{"flush", "all"}, "", 2, "", `takes no argument "all"`},
	} {
		w := newWorld(t)
		l, err := net.Listen("unix", filepath.Join(w.sockets, "eth0.sock"))
		if err != nil {
			t.Fatal(err)
		}
		asked := ""
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			asked = r.Method + " " + r.URL.Path + " " + string(body)
			switch {
			case r.URL.Path == "/v1/neighbors/192.0.2.8":
				w.WriteHeader(http.StatusNotFound)
				_, _ = io.WriteString(w, `{"code": "no_neighbor", "error": "no such neighbour: 192.0.2.8"}`)
			default:
				_, _ = io.WriteString(w, `{"flushed": 3}`)
			}
		})}
		go func() { _ = server.Serve(l) }()
		w.call(t, x.status, x.out, x.err, append([]string{"neigh"}, x.args...)...)
		_ = server.Close()
		if asked != x.request {
			t.Errorf("%v asked %q, expected %q", x.args, asked, x.request)
		}
	}
}
