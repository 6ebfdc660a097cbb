package appliance

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"

	"bitw/config"
	"bitw/netstack/ethtap"
	"bitw/netstack/hook"
)

// Under neighbors: proxy the host finds all stations at an Ethernet address that is not
// theirs, and that must be put right before frames go past bitw:
//
//  1. From then on ARP and neighbour discovery cross, as under relay, so that nobody
//     learns anything wrong any more.
//  2. What is known wrong is corrected. Frames that are addressed by it still come to the
//     engine, which finds the next hop itself.
//  3. Only then the taps are drained and the flow is direct.
//
// When bitw is in service again it answers again; that a station knows the others' true
// addresses does no harm.

const (
	// correctTime bounds the wait until nobody knows anything wrong.
	correctTime = 100 * time.Millisecond
	// correctLooks in a row, a millisecond apart, have to find nothing wrong: an answer may
	// be on its way to the kernel yet.
	correctLooks = 4
	// aheadTime is in which the hosts show what next hops they use, and aheadLimit bounds the
	// wait for these.
	aheadTime  = 100 * time.Millisecond
	aheadLimit = time.Second
)

// checkNeighbors refuses what nobody could put right.
func checkNeighbors(cfg *Config) error {
	if cfg.OnFailure == config.Open && cfg.Neighbors == config.Proxy {
		return errors.New("neighbors: proxy with on_failure: open: after a crash nobody corrects what the host was told; it must be relay")
	}
	return nil
}

// setCrossing says whether ARP and neighbour discovery cross, for all hooks.
func (b *bump) setCrossing(on bool) {
	b.crossing.Store(on)
	for side, c := range b.classes {
		c.SetNeighbors(crossing(on)[side])
	}
	b.neighbor.SetCrossed(on)
	if b.nics.left != nil {
		b.nics.left.SetCross(on)
	}
}

// answers says whether bitw answers in the neighbours' place while it is in service.
func (b *bump) answers() bool {
	return !b.relay.Load() && b.device != nil && b.neighbor != nil
}

// beforeDirect does all that comes before the drain.
func (b *bump) beforeDirect(ctx context.Context) error {
	if !b.answers() {
		return nil
	}
	b.setCrossing(true)
	ctx, cancel := context.WithTimeout(ctx, correctTime)
	defer cancel()
	b.awaitTurns(ctx)
	if b.twoNIC() {
		b.announce(b.trueAddress)
		pause(ctx, correctLooks*time.Millisecond)
		return nil
	}
	for calm := 0; calm < correctLooks && ctx.Err() == nil; pause(ctx, time.Millisecond) {
		found, err := b.device.CorrectNeighbors(b.trueAddress)
		if err != nil {
			return err
		}
		if calm++; found > 0 {
			calm = 0
		}
	}
	return nil
}

// afterDirect looks once more when the flow is direct, and what the kernel asked for while
// nothing passed is asked for at once.
func (b *bump) afterDirect() error {
	if b.device == nil || b.twoNIC() {
		return nil
	}
	var err error
	if b.answers() {
		_, err = b.device.CorrectNeighbors(b.trueAddress)
	}
	b.askAnew()
	if errors.Is(err, ethtap.ErrClosed) {
		return nil
	}
	return err
}

// askAnew has the host's kernel ask at once for what it asked for while nothing passed.
func (b *bump) askAnew() {
	if b.device == nil || b.twoNIC() {
		return // of two NICs the kernel has no part in the traffic
	}
	if err := b.device.AskNeighborsAnew(); err != nil && !errors.Is(err, ethtap.ErrClosed) {
		b.log.WithError(err).Warn("what the kernel asked for while nothing passed it asks for again in its own time")
	}
}

// inService has bitw answer again.
func (b *bump) inService() {
	b.askAnew()
	if !b.answers() || !b.crossing.Load() {
		return
	}
	b.setCrossing(false)
	if b.twoNIC() {
		b.announceBox()
	}
}

// setNeighbors changes neighbors: while frames move. Nobody is told anything wrong, and what
// the host addresses by what it was told before still comes to the engine, which finds the
// next hop itself:
//
// From proxy to relay ARP and neighbour discovery cross first, then the kernel's table is put
// right, and then the engine heeds the stations that the host names. From relay to proxy the
// engine learns the neighbours that the kernel knows, looks next hops up, and then answers.
//
// Between two NICs the stations of both sides are told instead, where there is a kernel to
// put right, and the engine finds out the next hops that are in use, where there is one that
// knows them.
func (b *bump) setNeighbors(relay bool) error {
	if b.taps != nil {
		b.taps.mu.Lock()
		defer b.taps.mu.Unlock()
	}
	if b.relay.Load() == relay {
		return nil
	}
	if relay {
		err := b.beforeDirect(context.Background())
		b.relay.Store(true)
		b.setCrossing(true)
		b.engine.SetHostResolves(true)
		return err
	}
	var errs []error
	if b.twoNIC() {
		b.lookAhead()
	}
	for _, n := range b.kernelKnows() {
		errs = append(errs, b.resolver.Learn(n.Address, tcpip.LinkAddress(n.MAC)))
	}
	b.engine.SetHostResolves(false)
	b.relay.Store(false)
	if b.flow() == flowActive {
		b.setCrossing(false)
		if b.twoNIC() {
			b.announceBox()
		}
	}
	return errors.Join(errs...)
}

// lookAhead waits until the engine knows the next hops of what crosses now.
func (b *bump) lookAhead() {
	b.engine.SetLookAhead(true)
	defer b.engine.SetLookAhead(false)
	ctx, cancel := context.WithTimeout(context.Background(), aheadLimit)
	defer cancel()
	for pause(ctx, aheadTime); b.resolver.Wanted() > 0 && ctx.Err() == nil; {
		pause(ctx, time.Millisecond)
	}
}

// trueAddress is the Ethernet address of a station as far as it is known.
func (b *bump) trueAddress(a netip.Addr) (net.HardwareAddr, bool) {
	find := b.resolver.Lookup
	if b.twoNIC() && b.cfg.IsProtected(a) {
		find = b.nics.hosts.Lookup
	}
	mac, ok := find(a)
	return net.HardwareAddr(mac), ok
}

// announceTicks, of a second each, after something was announced it is once more: Linux heeds
// no ARP for a second after other news (locktime), and an answer that was under way undoes the
// first (RFC 5227 §2.3, RFC 4861 §7.2.6).
const announceTicks = 2

// announceAgain counts down to the second time.
func (b *bump) announceAgain() {
	switch n := b.again.Load(); n {
	case 0:
		return
	case 1:
		if !b.taps.mu.TryLock() {
			return // what is announced changes just now
		}
		defer b.taps.mu.Unlock()
	default:
		b.again.CompareAndSwap(n, n-1)
		return
	}
	switch {
	case b.flow() != flowActive || b.absent.Load():
	case b.crossing.Load():
		b.announce(b.trueAddress)
	default:
		b.announceBox()
	}
	b.again.Store(0)
}

// announce tells the stations of each side where those of the other are that the box
// knows.
func (b *bump) announce(where func(netip.Addr) (net.HardwareAddr, bool)) {
	for a := range b.resolver.Known() {
		if mac, ok := where(a); ok && !b.cfg.IsProtected(a) {
			hook.Announce(b.kern, a, tcpip.LinkAddress(mac))
		}
	}
	for _, h := range b.nics.hosts.List() {
		if mac, ok := where(h.Address); ok && h.MAC != "" && b.cfg.IsProtected(h.Address) {
			hook.Announce(b.dev, h.Address, tcpip.LinkAddress(mac))
		}
	}
	b.again.Store(announceTicks)
}

// awaitTurns waits until no reader works on a frame that it had before.
func (b *bump) awaitTurns(ctx context.Context) {
	before := b.dev.Turns(b.kern.Turns(nil))
	for ctx.Err() == nil {
		now, busy := b.dev.Turns(b.kern.Turns(nil)), false
		for i, t := range before {
			busy = busy || t%2 == 1 && now[i] == t
		}
		if !busy {
			return
		}
		pause(ctx, 100*time.Microsecond)
	}
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
