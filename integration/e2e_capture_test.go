package integration

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"bitw/integration/netlab"
	"bitw/integration/tshark"
)

// A capturing is a bitw capture that goes on.
type capturing struct {
	t    *testing.T
	proc *netlab.Process
	err  *netlab.Output
}

// capture starts bitw capture and waits until it goes on.
func (b *box) capture(t *testing.T, stdout io.Writer, args ...string) *capturing {
	t.Helper()
	c := &capturing{t: t, err: new(netlab.Output)}
	cmd := exec.Command(bitwPath(t), append([]string{"capture", "-c", b.file}, args...)...)
	cmd.Stdout, cmd.Stderr = stdout, c.err
	proc, err := b.host.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	c.proc = proc
	t.Cleanup(proc.Kill)
	eventually(t, "bitw capture goes on", func() bool {
		select {
		case <-proc.Done():
			t.Fatalf("bitw capture ended: %v\n%s", proc.Wait(), c.err)
		default:
		}
		return strings.Contains(c.err.String(), "Ctrl-C ends it")
	})
	return c
}

// end ends it as Ctrl-C does, and returns what it said.
func (c *capturing) end() string {
	c.t.Helper()
	if err := c.proc.Signal(syscall.SIGINT); err != nil {
		c.t.Fatal(err)
	}
	if err := c.proc.Wait(); err != nil {
		c.t.Errorf("bitw capture ended by SIGINT: %v\n%s", err, c.err)
	}
	return c.err.String()
}

// said are the frames inside and outside that it has told of.
func said(t *testing.T, text string) (inside, outside int) {
	t.Helper()
	m := regexp.MustCompile(`(?m)^(\d+) frames? inside, (\d+) frames? outside$`).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("it does not say how much was captured:\n%s", text)
	}
	inside, _ = strconv.Atoi(m[1])
	outside, _ = strconv.Atoi(m[2])
	return inside, outside
}

// frames are all of a capture, and those only in whose comment is a text.
func frames(t *testing.T, o tshark.Options, comment string) (all, with []tshark.Packet) {
	t.Helper()
	o.Fields = []string{"frame.interface_name", "frame.comment", "frame.protocols", "frame.cap_len", "ip.proto"}
	all, err := tshark.Read(deadline(t, patience), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if strings.Contains(p.First("frame.comment"), comment) {
			with = append(with, p)
		}
	}
	return all, with
}

// commented checks that a capture has so many frames by side, and what the policies protect
// the comments that say so.
func commented(t *testing.T, all []tshark.Packet, inside, outside int) {
	t.Helper()
	count := make(map[string]int)
	for _, p := range all {
		side, comment, protocols := p.First("frame.interface_name"), p.First("frame.comment"), p.First("frame.protocols")
		count[side]++
		esp := strings.Contains(protocols, ":esp")
		if esp && (side != "outside" || !strings.Contains(comment, "SA v")) {
			t.Errorf("ESP %s: comment %q", side, comment)
		}
		if (esp || side == "inside" && strings.Contains(protocols, ":tcp")) && !strings.Contains(comment, "protect by rule v") {
			t.Errorf("%s %s: comment %q", protocols, side, comment)
		}
	}
	if count["inside"] != inside || count["outside"] != outside || inside == 0 || outside == 0 || len(count) > 2 {
		t.Errorf("frames by side %v, it says %d and %d", count, inside, outside)
	}
}

// TestR50_CaptureOpensDecrypted has another program look at what bitw captured: both sides
// are there, ESP outside decrypts to what is inside, and each frame says what became of it.
func TestR50_CaptureOpensDecrypted(t *testing.T) {
	netlab.Require(t, tshark.Need())
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	v4, v6 := newFlow("v4", "transport", "aes128gcm16", 0x1004, a4, b4), newFlow("v6", "tunnel", "aes256-sha256", 0x1006, a6, b6)
	a, b := boxes(t, pair, &plan{flows: []*flow{v4, v6}})
	defer b.giveBack()
	defer a.giveBack()
	file, keys := filepath.Join(a.dir, "x.pcapng"), filepath.Join(a.dir, "x.esp_sa")
	if err := os.WriteFile(file, []byte("of everybody"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := a.capture(t, nil, "-w", file, "--with-keys")
	pings(t, pair.A, b4, netlab.PingOptions{Count: 20, Interval: 5 * time.Millisecond})
	pings(t, pair.A, b6, netlab.PingOptions{Count: 20, Interval: 5 * time.Millisecond, Size: 4000})
	// Somebody on the wire who is no peer.
	wire := toHost(t, pair, pair.A)
	wire.send(clearUDP(t, mac(t, pair.A), mac(t, pair.B), b4, a4, 7))
	before := a.status()
	eventually(t, "the drop", func() bool {
		return before.Drops["clear_not_protected"] > 0 || a.drops(before)["clear_not_protected"] > 0
	})
	// A frame is captured once its way has ended, which those before it have when another one
	// has passed.
	pings(t, pair.A, b6, netlab.PingOptions{})
	text := c.end()
	for _, want := range []string{"WARNING: the keys", keys, "wireshark -C bitw"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "MISSING") {
		t.Errorf("frames are missing:\n%s", text)
	}
	for _, path := range []string{file, keys} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	o := tshark.Options{File: file, KeyFile: keys}
	v, err := tshark.Verify(deadline(t, patience), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d ESP packets, %d decrypted, %d good and %d bad ICVs, inside %v", v.ESP, v.Decrypted, v.GoodICV, v.BadICV, v.Inner)
	if v.ESP < 80 || v.Decrypted != v.ESP || v.GoodICV != v.ESP || v.BadICV != 0 || v.Inner["icmp:data"] != 40 {
		t.Errorf("%+v", v)
	}
	all, dropped := frames(t, o, "dropped: clear_not_protected")
	inside, outside := said(t, text)
	if len(all) != inside+outside {
		t.Errorf("%d frames in the file, it says %d and %d", len(all), inside, outside)
	}
	if len(dropped) != 1 || dropped[0].First("frame.interface_name") != "outside" {
		t.Errorf("of the dropped packet: %v", dropped)
	}
	commented(t, all, inside, outside)
	// TCP, whose segments are cut and joined on the way.
	c = a.capture(t, nil, "-w", file)
	if _, err := netlab.HTTPTransfer(deadline(t, 5*patience), pair.A, pair.B, a4, 200<<10); err != nil {
		t.Error(err)
	}
	if _, err := netlab.HTTPTransfer(deadline(t, 5*patience), pair.B, pair.A, b6, 200<<10); err != nil {
		t.Error(err)
	}
	inside, outside = said(t, c.end())
	all, _ = frames(t, tshark.Options{File: file}, "")
	commented(t, all, inside, outside)
	if _, joined := frames(t, tshark.Options{File: file}, "; joined of "); len(joined) == 0 {
		t.Error("no frame was joined of several packets")
	}
	// The filter of the form of bitw explain, on the same traffic.
	c = a.capture(t, nil, "-w", file, "--snaplen", "96", "out", "icmp", v4.a.String(), ">", v4.b.String())
	pings(t, pair.A, b4, netlab.PingOptions{Count: 5, Interval: 5 * time.Millisecond, Size: 1000})
	pings(t, pair.A, b6, netlab.PingOptions{Count: 5, Interval: 5 * time.Millisecond})
	if in, out := said(t, c.end()); in != 5 || out != 5 {
		t.Errorf("filtered, %d frames inside and %d outside, expected 5 and 5", in, out)
	}
	all, _ = frames(t, tshark.Options{File: file}, "")
	for _, p := range all {
		if p.First("frame.cap_len") != "96" {
			t.Errorf("%s octets of a frame were kept", p.First("frame.cap_len"))
		}
	}
}

// TestR50_CaptureAcrossKeys has tshark look into what was recorded while the key of an SPI was
// changed: the first table is for what came before, the second for what came after. Both
// keys in one table are of no use, since tshark takes the first.
func TestR50_CaptureAcrossKeys(t *testing.T) {
	netlab.Require(t, tshark.Need())
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	f := newFlow("v4", "transport", "aes128-sha256", 0x1004, a4, b4)
	a, b := boxes(t, pair, &plan{flows: []*flow{f}})
	defer b.giveBack()
	defer a.giveBack()
	file, first, second := filepath.Join(a.dir, "x.pcapng"), filepath.Join(a.dir, "x.esp_sa"), filepath.Join(a.dir, "x-2.esp_sa")
	c := a.capture(t, nil, "-w", file, "--with-keys")
	pings(t, pair.A, b4, netlab.PingOptions{Count: 20, Interval: 5 * time.Millisecond})
	next := filepath.Join(a.dir, "next.key")
	g := newFlow("v4", "transport", "aes128-sha256", 0x1004, a4, b4)
	if err := os.WriteFile(next, []byte(hex.EncodeToString(key(g.enc, false))+" "+hex.EncodeToString(key(g.integ, false))+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, x := range []*box{b, a} {
		if _, stderr, err := x.run("keys", "set", "v4-ab", "--file", next, "-c", x.file); err != nil {
			t.Fatalf("%v\n%s", err, stderr)
		}
	}
	pings(t, pair.A, b4, netlab.PingOptions{Count: 30, Interval: 5 * time.Millisecond})
	pings(t, pair.A, b4, netlab.PingOptions{}) // may not be captured; those before it are
	text := c.end()
	for _, want := range []string{"Keys were changed meanwhile", first + "  until ", second + "  from "} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q:\n%s", want, text)
		}
	}
	rows, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	more, err := os.ReadFile(second)
	if err != nil {
		t.Fatal(err)
	}
	both := filepath.Join(a.dir, "both.esp_sa")
	if err := os.WriteFile(both, append(rows, more...), 0o600); err != nil {
		t.Fatal(err)
	}
	// The way back keeps its key.
	for keys, good := range map[string]int{first: 20 + 50, second: 30 + 50, both: 20 + 50} {
		v, err := tshark.Verify(deadline(t, patience), tshark.Options{File: file, KeyFile: keys})
		if err != nil {
			t.Fatal(err)
		}
		// Of what a wrong key makes of a packet tshark may find no ICV to check.
		if more := v.ESP - 100; more < 0 || more > 2 || v.GoodICV < good || v.GoodICV > good+more {
			t.Errorf("%s: %+v; expected %d good ICVs of 100, and of 2 more", keys, v, good)
		}
	}
}

// TestR50_CaptureShowsNoKey looks for keys in all that bitw capture writes when nobody
// asked for them.
func TestR50_CaptureShowsNoKey(t *testing.T) {
	netlab.Require(t)
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	f := newFlow("v4", "transport", "aes128-sha256", 0x1004, a4, b4)
	a, b := boxes(t, pair, &plan{flows: []*flow{f}})
	defer b.giveBack()
	defer a.giveBack()
	dir := t.TempDir()
	var stdout netlab.Output
	c := a.capture(t, &stdout, "-w", filepath.Join(dir, "x.pcapng"), "--count", "30")
	piped := a.capture(t, &stdout, "-w", "-")
	pings(t, pair.A, b4, netlab.PingOptions{Count: 20, Interval: 5 * time.Millisecond})
	if err := c.proc.Wait(); err != nil { // by the count
		t.Errorf("bitw capture --count: %v\n%s", err, c.err)
	}
	text := c.err.String()
	if in, out := said(t, text); in+out != 30 {
		t.Errorf("%d and %d frames, expected 30", in, out)
	}
	text += piped.end()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != "x.pcapng" {
		t.Fatalf("it wrote %v, %v", entries, err)
	}
	recorded, err := os.ReadFile(filepath.Join(dir, "x.pcapng"))
	if err != nil {
		t.Fatal(err)
	}
	all := bytes.Join([][]byte{recorded, []byte(stdout.String()), []byte(text), []byte(a.out.String())}, nil)
	if len(stdout.String()) < 1000 || !strings.HasPrefix(stdout.String(), "\n\r\r\n") {
		t.Errorf("standard output is no pcapng: %.20q", stdout.String())
	}
	for _, both := range [][]byte{f.enc, f.integ} {
		for _, back := range []bool{false, true} {
			k := key(both, back)
			for i := 0; i+8 <= len(k); i += 8 {
				part := k[i : i+8]
				for _, form := range []string{string(part), hex.EncodeToString(part), strings.ToUpper(hex.EncodeToString(part))} {
					if bytes.Contains(all, []byte(form)) {
						t.Errorf("octets %d to %d of a key are in what it writes", i, i+8)
					}
				}
			}
		}
	}
}

// TestR50_CaptureRingAndPipe moves more than a ring takes, and reads a pipe as it comes.
func TestR50_CaptureRingAndPipe(t *testing.T) {
	netlab.Require(t, tshark.Need())
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	a, b := boxes(t, pair, &plan{flows: []*flow{newFlow("v4", "transport", "aes128gcm16", 0x1004, a4, b4)}})
	defer b.giveBack()
	defer a.giveBack()
	dir := t.TempDir()
	const most = 256 << 10
	ring := a.capture(t, nil, "-w", filepath.Join(dir, "ring.pcapng"), "--files", "3", "--file-size", "256KiB")

	// tshark ends by itself after the first frames, and bitw by that.
	live := exec.Command("sh", "-c", fmt.Sprintf("%s capture -c %s -w - icmp host 192.0.2.2 | tshark -n -l -i - -c 8 -T fields -e frame.interface_name -e frame.comment", bitwPath(t), a.file))
	var shown, liveErr netlab.Output
	live.Stdout, live.Stderr = &shown, &liveErr
	proc, err := a.host.Start(live)
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Kill()
	eventually(t, "tshark reads", func() bool {
		return strings.Contains(liveErr.String(), "Ctrl-C ends it") && strings.Contains(liveErr.String(), "Capturing on")
	})
	if _, err := netlab.HTTPTransfer(deadline(t, 5*patience), pair.A, pair.B, a4, 4<<20); err != nil {
		t.Error(err)
	}
	for end := time.Now().Add(60 * time.Second); ; {
		pings(t, pair.A, b4, netlab.PingOptions{Count: 10, Interval: 10 * time.Millisecond})
		if strings.Count(shown.String(), "\n") >= 8 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("tshark shows nothing of the pipe: %s\n%s", shown.String(), liveErr.String())
		}
	}
	for line := range strings.Lines(shown.String()) {
		if !strings.Contains(line, "protect by rule v4") || !strings.HasPrefix(line, "inside") && !strings.HasPrefix(line, "outside") {
			t.Errorf("tshark shows %q", line)
		}
	}

	text := ring.end()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(names) != 3 {
		t.Errorf("files %v, %v", names, err)
	}
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > most+70_000 || info.Mode().Perm() != 0o600 || !strings.Contains(text, name) { // a superframe more at most
			t.Errorf("%s has %d octets, mode %v; it said\n%s", name, info.Size(), info.Mode(), text)
		}
		all, with := frames(t, tshark.Options{File: name}, "protect by rule v4")
		if len(all) == 0 || len(with) == 0 {
			t.Errorf("%s: %d frames, %d with that comment", name, len(all), len(with))
		}
	}
}

// TestR50_CaptureSlowReader captures to a pipe that nobody reads: what crosses bitw does
// not notice, and what is missing is counted.
func TestR50_CaptureSlowReader(t *testing.T) {
	netlab.Require(t, tshark.Need())
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	a, b := boxes(t, pair, &plan{flows: []*flow{newFlow("v4", "transport", "aes128gcm16", 0x1004, a4, b4)}})
	defer b.giveBack()
	defer a.giveBack()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := a.capture(t, w, "-w", "-")
	_ = w.Close()
	if _, err := netlab.HTTPTransfer(deadline(t, 5*patience), pair.A, pair.B, a4, 30<<20); err != nil {
		t.Error(err)
	}
	pings(t, pair.A, b4, netlab.PingOptions{Count: 100, Interval: time.Millisecond})
	// Now it is read, to the end.
	file := filepath.Join(t.TempDir(), "x.pcapng")
	read := make(chan error, 1)
	go func() {
		f, err := os.Create(file)
		if err == nil {
			_, err = io.Copy(f, r)
			_ = f.Close()
		}
		read <- err
	}()
	text := c.end()
	if err := <-read; err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text, "MISSING: ") {
		t.Errorf("it does not say that frames are missing:\n%s", text)
	}
	t.Logf("it says:\n%s", text)
	inside, outside := said(t, text)
	if all, _ := frames(t, tshark.Options{File: file}, ""); len(all) != inside+outside || len(all) == 0 {
		t.Errorf("%d frames in the file, it says %d and %d", len(all), inside, outside)
	}
}
