package peertest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"bitw/config"
	"bitw/integration/netlab"
	"bitw/netstack/wire"
)

const (
	little = 200_000
	much   = 10_000_000
)

func transport(v int, bulk int64, s ...suite) kase {
	return kase{suites: s, mode: config.Transport, outer: v, inner: v, bulk: bulk}
}

func tunnel(inner, outer int, bulk int64, s suite) kase {
	return kase{suites: []suite{s}, mode: config.Tunnel, outer: outer, inner: inner, bulk: bulk}
}

func beet(inner, outer int, bulk int64, s suite) kase {
	return kase{suites: []suite{s}, mode: config.BEET, outer: outer, inner: inner, bulk: bulk}
}

func withESN(k kase) kase { k.esn = true; return k }

// TestR35_ModesWithLinux has the appliance and a Linux kernel talk in transport
// and tunnel mode, in both IP versions, each in the other.
func TestR35_ModesWithLinux(t *testing.T) {
	g, c, a := gcm(128, 16), cbc(128, 32), ah(32)
	runMatrix(t, []kase{
		transport(4, much, g), transport(6, little, g),
		tunnel(4, 4, much, g), tunnel(6, 6, little, g), tunnel(4, 6, little, g), tunnel(6, 4, little, g),
		transport(4, much, c), transport(6, little, c),
		tunnel(4, 4, little, c), tunnel(6, 6, much, c), tunnel(4, 6, little, c), tunnel(6, 4, little, c),
		transport(4, much, a), transport(6, little, a),
		tunnel(4, 4, little, a), tunnel(6, 6, little, a), tunnel(4, 6, little, a), tunnel(6, 4, little, a),
		transport(4, little, g, a), transport(6, little, c, a),
	})
}

// TestR26_FragmentBeforeTheTunnelWithLinux has what does not fit cut before it is
// enclosed, and Linux put together what comes out (RFC 4301 §8.2.1).
func TestR26_FragmentBeforeTheTunnelWithLinux(t *testing.T) {
	list := []kase{tunnel(4, 4, little, gcm(128, 16)), tunnel(6, 4, little, gcm(128, 16)), tunnel(4, 6, little, cbc(128, 32))}
	for i := range list {
		list[i].headers = config.Headers{Fragment: config.Before, CopyDF: config.CopySet, CopyDSCP: config.CopyNo, DSCP: map[uint8]uint8{0: 46}, TTL: 9}
	}
	runMatrix(t, list)
}

// TestR35_BEETWithLinux has them talk in BEET mode, where the inner addresses are never
// sent, each IP version in the other, and in itself.
func TestR35_BEETWithLinux(t *testing.T) {
	g, c := gcm(128, 16), cbc(128, 32)
	runMatrix(t, []kase{
		beet(4, 6, much, g), beet(6, 4, little, g), beet(4, 4, little, c), withESN(beet(6, 6, little, c)), beet(6, 4, little, null(32)),
	})
}

// TestR37_AlgorithmsWithLinux has them talk with every other kind of algorithm
// of everyday use.
func TestR37_AlgorithmsWithLinux(t *testing.T) {
	runMatrix(t, []kase{
		transport(4, little, gcm(128, 8)), tunnel(6, 6, little, gcm(256, 12)),
		transport(6, little, gcm(192, 16)), tunnel(4, 4, little, gcm(256, 16)),
		transport(4, little, chacha()), tunnel(6, 4, little, chacha()),
		transport(4, little, null(32)), tunnel(6, 6, little, null(32)),
		transport(4, little, cbc(256, 32)), transport(6, little, cbc(256, 32)),
		tunnel(4, 4, little, cbc(256, 32)), tunnel(6, 6, little, cbc(256, 32)),
		transport(4, little, cbc(128, 20)), transport(6, little, cbc(192, 48)), tunnel(4, 4, little, cbc(256, 64)),
		transport(4, little, ah(20)), transport(6, little, ah(48)), tunnel(4, 4, little, ah(64)),
		withESN(transport(4, little, gcm(128, 16))), withESN(tunnel(6, 6, little, cbc(128, 32))),
		withESN(transport(4, little, ah(32))), withESN(tunnel(4, 6, little, chacha())),
	})
}

// TestR37_RarerAlgorithmsWithLinux has them talk with those that are not for everyday
// use, two of which hide nothing.
func TestR37_RarerAlgorithmsWithLinux(t *testing.T) {
	runMatrix(t, []kase{
		transport(4, little, ccm(128, 16)), withESN(tunnel(6, 6, little, ccm(256, 8))),
		transport(6, little, ctr(128, hmac(32))), withESN(tunnel(4, 4, little, ctr(256, cmac()))),
		transport(4, little, gmac(128)), withESN(tunnel(6, 6, little, gmac(256))),
		transport(6, little, cbcWith(128, xcbc())), transport(4, little, nullWith(cmac())),
		transport(4, little, ahWith(xcbc())), transport(6, little, ahWith(cmac())),
	})
}

// TestR38_OldCiphersWithLinux has them talk with those that are there for old peers, in
// today's forms of ESP and AH. The forms of 1995 Linux no longer has.
func TestR38_OldCiphersWithLinux(t *testing.T) {
	runMatrix(t, []kase{
		transport(4, little, des(md5())), withESN(tunnel(6, 6, little, tripleDES(hmac(20)))),
		transport(6, little, ahWith(md5())), transport(4, little, tripleDES(md5()), ahWith(md5())),
	})
}

// TestR40_ExtendedSequenceNumbersWithLinux has the host's numbers run over the end of
// the 32 bits that are sent, which both ends must count alike (RFC 4303, appendix A).
func TestR40_ExtendedSequenceNumbersWithLinux(t *testing.T) {
	list := []kase{
		withESN(transport(4, little, gcm(128, 16))), withESN(tunnel(6, 6, little, cbc(128, 32))),
		withESN(transport(6, little, ah(32))), withESN(tunnel(4, 4, little, null(32))),
	}
	for i := range list {
		list[i].first = 1<<32 - pings // in the pings back
	}
	b := runMatrix(t, list)
	over := 0
	for _, s := range b.box.Status().SAs {
		if s.Sequence >= 1<<32 {
			over++
		}
	}
	if over != len(list) {
		t.Errorf("%d SAs have come to 1<<32, want %d", over, len(list))
	}
}

// row is what a case has come to.
type row struct {
	name                string
	cells               []string
	fragments, received int // fragments on the wire, from the host and from the guest
}

var columns = []string{"ping >", "ping <", "UDP echo", "TCP >", "TCP <", "wire", "counters", "replay"}

func runMatrix(t *testing.T, list []kase) *bed {
	t.Helper()
	ctx := deadline(t, 20*patience)
	b, all := newBed(ctx, t, list)
	var rows []row
	for _, e := range all {
		t.Run(strings.ReplaceAll(e.String(), " ", "_"), func(t *testing.T) { rows = append(rows, b.run(ctx, t, e)) })
	}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\nto the guest >, from it <\t%s\tfragments > <\n", strings.Join(columns, "\t"))
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%d %d\n", r.name, strings.Join(r.cells, "\t"), r.fragments, r.received)
	}
	_ = w.Flush() // to a strings.Builder
	t.Log(table.String())
	t.Logf("the guest refused, replays included: %v", b.stat(ctx, t))
	t.Logf("the appliance dropped, replays included: %v", b.box.Status().DropsBySide)
	return b
}

// expectedDrops are the appliance's drops that belong to working traffic: path
// MTU discovery begins with one, neither end's multicast listener reports nor router
// solicitations are let through, and a guest that leaves a frame lying (see withoutLoss)
// may be too late to say where it is. A machine may be too busy for all that comes.
var expectedDrops = []string{"too_big", "class_discard", "unresolved", "tap_full"}

// run is one case.
func (b *bed) run(ctx context.Context, t *testing.T, e ends) row {
	r := row{name: e.String()}
	fromHost := func(f *netlab.Frame) bool { return f.Port == "port-a" }
	fromPeer := func(f *netlab.Frame) bool { return f.Port == "peer" }
	ofEither := netlab.Any(fromHost, fromPeer)
	and := func(a, b netlab.Match) netlab.Match { return func(f *netlab.Frame) bool { return a(f) && b(f) } }
	capture := b.wire.Capture(netlab.CaptureOptions{SnapLen: 2000, Watch: []netlab.Match{
		and(ofEither, netlab.Not(netlab.Any(netlab.OfClass(e.outermost(), netlab.ARP, netlab.ND, netlab.MLD), e.laterFragment))),
		netlab.Containing([]byte(netlab.Marker)),
		and(fromHost, fragment),
		and(fromPeer, fragment),
		and(fromHost, netlab.OfClass(netlab.MLD)),
	}})
	drops, stat := b.box.Status().Drops, b.stat(ctx, t)
	note := func(err error) {
		cell := "ok"
		if err != nil {
			cell = "FAILED"
			t.Errorf("%s: %v", columns[len(r.cells)], err)
		}
		r.cells = append(r.cells, cell)
	}
	for _, work := range []func(context.Context, ends) error{b.pingThere, b.pingBack, b.echo, b.tcpThere, b.tcpBack} {
		workCtx, cancel := context.WithTimeout(ctx, 3*patience)
		note(work(workCtx, e))
		cancel()
	}
	counts, err := capture.Stop()
	r.fragments, r.received = capture.Watched(2).Frames, capture.Watched(3).Frames
	note(errors.Join(err, b.judgeWire(e, capture, counts)))
	refused, dropped := since(stat, b.stat(ctx, t)), since(drops, b.box.Status().Drops, expectedDrops...)
	if len(refused) != 0 || len(dropped) != 0 {
		err = fmt.Errorf("the guest refused %v, the appliance dropped %v", refused, dropped)
	}
	note(err)
	note(b.replay(ctx, t, e, capture))
	return r
}

// judgeWire finds anything on the wire that should not be there.
func (b *bed) judgeWire(e ends, capture *netlab.Capture, counts netlab.Counts) error {
	var errs []error
	complain := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if counts.Lost != 0 || counts.Of(e.outermost()) == 0 {
		complain("the capture saw %v", counts)
	}
	if w := capture.Watched(0); w.Frames != 0 {
		complain("%d frames are in the clear, such as %v % x", w.Frames, w.First[0].Flow, w.First[0].Data)
	}
	if w := capture.Watched(1); e.hides() != (w.Frames == 0) {
		complain("%d frames can be read, of a case that hides: %v", w.Frames, e.hides())
	}
	if before := e.headers.Fragment == config.Before; before != (capture.Watched(2).Frames == 0) {
		complain("the appliance sent %d fragments, and cuts before the tunnel: %v", capture.Watched(2).Frames, before)
	}
	if capture.Watched(4).Frames != 0 {
		complain("the host's multicast listener reports came through")
	}
	errs = append(errs, e.judgeHeaders(capture.Find(netlab.OfClass(e.outermost()))))
	return errors.Join(errs...)
}

// replay injects the last whole packet of each direction once more, and looks at
// who refuses it as what.
func (b *bed) replay(ctx context.Context, t *testing.T, e ends, capture *netlab.Capture) error {
	frames := capture.Find(netlab.OfClass(e.outermost()))
	slices.Reverse(frames)
	last := func(port string) *netlab.Frame {
		i := slices.IndexFunc(frames, func(f netlab.Frame) bool {
			return f.Port == port && !fragment(&f) && len(f.Data) == f.Length && f.Length <= 1514
		})
		if i < 0 {
			return nil
		}
		return &frames[i]
	}
	there, back := last("port-a"), last("peer")
	if there == nil || back == nil {
		return errors.New("there is no whole packet of each direction to replay")
	}
	drops, stat := b.box.Status().Drops, b.stat(ctx, t)
	for _, f := range []*netlab.Frame{there, back} {
		datagram := bytes.Clone(f.Data[14:])
		var in wire.Info
		if reason := wire.Parse(datagram, &in); reason != wire.DropNone {
			return fmt.Errorf("what was captured: %v", reason)
		}
		// On a veth nobody finishes what is left to the device.
		wire.RenewL4Checksum(datagram[:in.TotalLen], &in)
		if err := inject(b.third, net.HardwareAddr(f.Data[:6]), datagram); err != nil {
			return err
		}
	}
	var refused map[string]int
	var dropped map[string]uint64
	if !eventually(ctx, func() bool {
		refused, dropped = since(stat, b.stat(ctx, t)), since(drops, b.box.Status().Drops, expectedDrops...)
		return refused["XfrmInStateSeqError"] == 1 && dropped["replay"] == 1
	}) || len(refused) != 1 || len(dropped) != 1 {
		return fmt.Errorf("after one replay each the guest refused %v, the appliance dropped %v", refused, dropped)
	}
	return nil
}
