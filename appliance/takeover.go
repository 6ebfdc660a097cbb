package appliance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"bitw/netstack/ethtap"
	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
)

// ErrHandedOver is what Run returns when another process has taken the interface over
// (see WithTakeover). What was protected still is.
var ErrHandedOver = errors.New("appliance: another process has taken the interface over")

// How long the old process waits. Nothing stands still for the first.
const (
	takeoverPrepare = 30 * time.Second // for hello, and for ready
	takeoverHold    = time.Second      // for its readers
	takeoverTaken   = 10 * time.Second // for taken
)

// serveTakeover answers POST /v1/takeover.
func (a *Appliance) serveTakeover(w http.ResponseWriter, _ *http.Request) error {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return conn.Close()
	}
	c := &handoverConn{u}
	c.within(takeoverPrepare)
	if _, err := u.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: bitw-takeover\r\n\r\n")); err != nil {
		return conn.Close()
	}
	pid, err := a.handOver(c)
	log := a.log.WithField("process", pid)
	if err == nil {
		a.handed <- c // leave closes it
		return nil
	}
	log.WithError(err).Warn("a takeover came to nothing")
	c.within(time.Second)
	_ = c.send(msgRefuse, refuseMessage{clip(err.Error())})
	return conn.Close()
}

// clip makes a reason fit a short message, whatever it is escaped to.
func clip(s string) string { return s[:min(len(s), maxShort/8)] }

// handOver is the old process's part up to taken. Its error means that the other has
// nothing; if the SAs are closed already, the appliance ends by it.
func (a *Appliance) handOver(c *handoverConn) (pid int, err error) {
	pid, uid, err := c.peer()
	if err != nil {
		return pid, fmt.Errorf("who asks: %w", err)
	}
	// Before anything else, so that the other end reads why not.
	var hello helloMessage
	fds, err := c.receive(msgHello, maxShort, &hello)
	closeAll(fds)
	if err != nil {
		return pid, err
	}
	if uid != 0 && uid != os.Geteuid() {
		return pid, fmt.Errorf("the process that asks is of user %d, which may not", uid)
	}
	if !a.takingOver.TryLock() {
		return pid, errors.New("another process is taking over already, or a configuration is being applied")
	}
	defer a.takingOver.Unlock()
	b := a.bump.Load()
	select {
	case <-a.ready:
	default:
		b = nil
	}
	if b == nil || b.device == nil {
		return pid, fmt.Errorf("it is %s and cuts %s", *a.state.Load(), b.cutWords())
	}
	if err := b.offer(c, hello); err != nil {
		return pid, err
	}
	if _, err := c.receive(msgReady, maxShort, new(struct{})); err != nil {
		return pid, err
	}
	closed, err := b.giveUp(c)
	if err == nil {
		c.within(takeoverTaken)
		_, err = c.receive(msgTaken, maxShort, new(struct{}))
		if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
			a.log.WithField("process", pid).Warn("the process that takes over does not say that it has; it is left to it")
			err = nil
		}
	}
	if err != nil && closed {
		b.device.Resume()
		a.fail(fmt.Errorf("process %d was taking over and failed: %w", pid, err))
	}
	return pid, err
}

// offer answers hello.
func (b *bump) offer(c *handoverConn, hello helloMessage) error {
	switch name := b.device.Info().Name; {
	case hello.Version != TakeoverVersion:
		return fmt.Errorf("the takeover is of version %d, this process's of version %d; end it with bitw down instead, and start the new one", hello.Version, TakeoverVersion)
	case hello.Interface != b.cfg.Interface && hello.Interface != name:
		return fmt.Errorf("it cuts %s, not %s", name, hello.Interface)
	}
	states, err := json.Marshal(sa.MakeExport(b.sad.All(), b.resume))
	if err != nil {
		return err
	}
	h, err := b.device.Handover()
	if err != nil {
		return err
	}
	defer h.Close()
	return c.send(msgOffer, offerMessage{TakeoverVersion, h.Info, states, b.clock()}, h.FDs...)
}

// giveUp holds the readers, closes the SAs and says go. closed says that there is no
// way back.
func (b *bump) giveUp(c *handoverConn) (closed bool, err error) {
	b.taps.mu.Lock()
	defer b.taps.mu.Unlock()
	if b.taps.ended {
		return false, errors.New("it is stopping")
	}
	ctx, cancel := context.WithTimeout(context.Background(), takeoverHold)
	defer cancel()
	if err := b.hold(ctx); err != nil {
		return false, err
	}
	c.within(takeoverHold)
	if !c.alive() {
		b.device.Resume()
		return false, errors.New("the process that was taking over is gone")
	}
	list := b.sad.All()
	b.taps.ended = true
	if err := b.keys.Close(); err != nil {
		// Numbers are lost then, none is used twice.
		b.log.WithError(err).Warn("closing the SAs for a takeover")
	}
	states, err := json.Marshal(sa.MakeExport(list, b.resume, b.store, b.keys.memory))
	if err != nil {
		return true, err
	}
	m := goMessage{SAs: states, Moved: b.taps.moved, Neighbors: string(b.live.Load().Neighbors), Policies: make(map[string][2]counterState), Hops: make(map[string]net.HardwareAddr)}
	for _, p := range b.engine.SPD().Policies() {
		m.Policies[p.Name] = [2]counterState{stateOf(&p.Counters[0]), stateOf(&p.Counters[1])}
	}
	for _, side := range []hook.Side{hook.Left, hook.Right} {
		var sum wire.DropCounters
		sum.AddSnapshot(b.drops[side].Snapshot())
		sum.AddSnapshot(b.engine.Drops(side).Snapshot())
		m.Drops[side] = sum.Snapshot()
	}
	for next, mac := range b.resolver.Known() {
		m.Hops[next.String()] = net.HardwareAddr(mac)
	}
	if b.twoNIC() {
		m.Hosts, m.Stations = b.nics.heard()
	}
	return true, c.send(msgGo, m)
}

// hold holds the readers at a moment when nothing is under way, if such a one comes
// while ctx lasts, with what waits for a neighbour, a fragment or an SA else.
func (b *bump) hold(ctx context.Context) error {
	soon, cancel := context.WithTimeout(ctx, takeoverHold/2)
	defer cancel()
	for {
		if err := b.device.Hold(ctx); err != nil {
			return err
		}
		waiting := b.engine.Incomplete() + b.resolver.Waiting() + b.nics.waiting()
		if waiting == 0 {
			break
		}
		if soon.Err() != nil {
			b.log.WithField("datagrams", waiting).Warn("a takeover loses what has waited too long")
			break
		}
		b.device.Resume()
		time.Sleep(2 * time.Millisecond)
	}
	for i, s := range b.taps.states() {
		if s != ethtap.Closed {
			continue
		}
		if err := b.taps.gates[i].settle(ctx); err != nil {
			b.device.Resume()
			return fmt.Errorf("the readers of a closed tap did not come back: %w", err)
		}
	}
	return nil
}

// leave ends an appliance whose interface another process has.
func (a *Appliance) leave(b *bump, c *handoverConn) error {
	pid, _, _ := c.peer()
	a.setState("stopping")
	b.handed = true
	b.nics.mirror.leave()
	err := b.stop(false)
	// It waits for this before it changes what becomes of the cut when it fails.
	_ = c.conn.Close()
	a.setState("stopped")
	a.tell(Event{Kind: HandedOver, Level: "info", Text: fmt.Sprintf("handed over to process %d", pid)})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrHandedOver, err)
	}
	return ErrHandedOver
}
