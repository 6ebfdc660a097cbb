package appliance

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bitw/netstack/ethtap"
)

// What cannot be set is refused by the library and over the socket alike.
func TestR01_SetTapsRefused(t *testing.T) {
	cfg := protectAll(t)
	cfg.Control = filepath.Join(t.TempDir(), "s")
	box, errc := loneBox(t, cfg)
	if _, err := box.SetTaps(t.Context(), TapRequest{Kernel: "closed"}); !errors.Is(err, ErrNoTaps) {
		t.Errorf("before the start: %v", err)
	}
	select {
	case <-box.Ready():
	case err := <-errc:
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := box.SetTaps(ctx, TapRequest{Kernel: "closed"}); !errors.Is(err, ErrNoTaps) || !strings.Contains(err.Error(), "links") {
		t.Errorf("without an interface: %v", err)
	}
	if code, text := ask(t, cfg.Control, "POST", "/v1/tap", `{"kernel": "closed"}`); code != http.StatusConflict || !strings.Contains(text, CodeNoTaps) || !strings.Contains(text, "links") {
		t.Errorf("without an interface, by the socket: %d %s", code, text)
	}
}

func TestTapWords(t *testing.T) {
	for _, s := range []ethtap.State{ethtap.Closed, ethtap.Passive, ethtap.Active} {
		if got, err := tapState(stateWord(s)); err != nil || got != s {
			t.Errorf("%v is %q, which is %v, %v", s, stateWord(s), got, err)
		}
	}
	if _, err := tapState("Active"); err == nil {
		t.Error("a word that is none was taken")
	}
	for _, c := range []struct {
		kernel, wire ethtap.State
		flow         string
	}{
		{ethtap.Active, ethtap.Active, "active"},
		{ethtap.Active, ethtap.Passive, "severed"},
		{ethtap.Closed, ethtap.Active, "severed"},
		{ethtap.Passive, ethtap.Closed, "clear"},
		{ethtap.Closed, ethtap.Closed, "clear"},
	} {
		if got := flowWord([2]ethtap.State{c.kernel, c.wire}); got != c.flow {
			t.Errorf("%v and %v are %q, expected %q", c.kernel, c.wire, got, c.flow)
		}
	}
}
