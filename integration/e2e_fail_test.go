package integration

import (
	"syscall"
	"testing"
	"time"

	"bitw/integration/netlab"
)

// protected is the plan of the tests about an end: GCM, whose sequence numbers must
// never come again.
func protected() *plan {
	return &plan{flows: []*flow{
		newFlow("v4", "transport", "aes128gcm16", 0x1004, a4, b4),
		newFlow("v6", "tunnel", "aes256gcm16", 0x1006, a6, b6),
	}}
}

// TestR07_R40_KilledNothingLeavesInTheClear kills bitw under traffic, again and
// again, and starts it anew with the same keys.
func TestR07_R40_KilledNothingLeavesInTheClear(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	a, b := boxes(t, pair, protected())
	c := watchClear(pair, 128)
	s4, s6 := startStream(t, pair.A, pair.B, b4), startStream(t, pair.B, pair.A, a6)
	var sequence uint64
	for range 3 {
		if err := a.proc.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = a.proc.Wait()
		s4.stands(700 * time.Millisecond)
		s6.stands(100 * time.Millisecond)
		silent(t, pair.A, b4)
		silent(t, pair.B, a6)

		a.up()
		s4.moves("after bitw came back")
		s6.moves("after bitw came back")
		now := a.status()
		if !now.TookOver {
			t.Error("the status does not say that the interface was taken over")
		}
		for _, sa := range now.SAs {
			if sa.Name != "v4-ab" {
				continue
			}
			if sa.Sequence <= sequence {
				t.Errorf("sequence number %d after %d", sa.Sequence, sequence)
			}
			sequence = sa.Sequence
		}
	}
	bulk := make(chan error, 1)
	ctx := deadline(t, 5*patience)
	go func() {
		_, err := netlab.TCPBulk(ctx, pair.A, pair.B, b4, 100<<20)
		bulk <- err
	}()
	for range 2 { // in the midst of superframes
		time.Sleep(100 * time.Millisecond)
		if err := a.proc.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = a.proc.Wait()
		time.Sleep(50 * time.Millisecond)
		a.up()
	}
	if err := <-bulk; err != nil {
		t.Error(err)
	}
	for _, x := range []*box{a, b} {
		if d := x.status().Drops; d["replay"]+d["replay_old"]+d["icv"]+d["clear_not_protected"]+d["seq_unreserved"] > 0 {
			t.Errorf("%s: drops %v; expected no replay", x.host.Name(), d)
		}
	}
	pings(t, pair.A, b6, netlab.PingOptions{Count: 20, Interval: time.Millisecond})
	t.Logf("on the wire: %v", allESP(t, c))
}

// TestR07_StoppedStaysShut ends bitw in the clean ways, after which the interface is
// shut until bitw is back or the operator says otherwise.
func TestR07_StoppedStaysShut(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	before := links(t, pair.A)
	a, b := boxes(t, pair, protected())
	c := watchClear(pair, 0)
	s := startStream(t, pair.A, pair.B, b4)
	for _, end := range []func(){
		func() { _ = a.proc.Signal(syscall.SIGTERM) },
		func() { _ = a.proc.Signal(syscall.SIGINT) },
		a.down,
	} {
		end()
		if err := a.proc.Wait(); err != nil {
			t.Fatalf("bitw ended with %v\n%s", err, a.out)
		}
		s.stands(400 * time.Millisecond)
		silent(t, pair.A, b6)
		a.up()
		s.moves("after bitw came back")
	}
	if d := b.status().Drops; d["replay"]+d["replay_old"] > 0 {
		t.Errorf("drops at the other end: %v; expected no replay", d)
	}
	if _, stderr, err := a.run("recover", "eth0"); exitCode(err) != 1 {
		t.Errorf("bitw recover of an interface in use: exit status %d, %q; expected 1", exitCode(err), stderr)
	}
	s.moves("after recover was refused")
	t.Logf("on the wire: %v", allESP(t, c))

	_ = a.proc.Signal(syscall.SIGTERM)
	_ = a.proc.Wait()
	b.giveBack()
	silent(t, pair.A, b4)
	a.giveBack()
	s.moves("in the clear, by the operator's word")
	pings(t, pair.A, b6, netlab.PingOptions{Count: 3})
	if after := links(t, pair.A); after != before {
		t.Errorf("devices, addresses and routes changed:\n%s\nwere\n%s", after, before)
	}
}
