package appliance

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"syscall"
	"time"

	"bitw/appliance/hostnet"
	"bitw/config"
	"bitw/netstack/ethtap"
	"bitw/sa"
)

// How long the new process waits.
const (
	takeoverAnswer = 5 * time.Second  // for an offer
	takeoverGo     = 10 * time.Second // for go
	takeoverLeft   = 5 * time.Second  // until the old process has left
)

// successor is the new process's part of a takeover.
type successor struct {
	c      *handoverConn
	offer  offerMessage
	fds    []int // of the offer, until used
	resume *sa.Resume
	last   goMessage
	oldPID int
}

// succeed asks the process behind a control socket for its interface. It returns nil
// if there is none.
func succeed(ctx context.Context, path, iface string) (_ *successor, err error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	s := &successor{c: &handoverConn{conn.(*net.UnixConn)}, resume: sa.NewResume(sa.Export{})}
	defer func() {
		if err != nil {
			s.close()
			err = fmt.Errorf("taking over from process %d behind %s: %w", s.oldPID, path, err)
		}
	}()
	s.oldPID, _, _ = s.c.peer()
	s.c.within(takeoverAnswer)
	if err := s.ask(); err != nil {
		return nil, err
	}
	if err := s.c.send(msgHello, helloMessage{TakeoverVersion, iface}); err != nil {
		return nil, err
	}
	if s.fds, err = s.c.receive(msgOffer, maxLong, &s.offer); err != nil {
		return nil, err
	}
	if s.offer.Version != TakeoverVersion {
		return nil, fmt.Errorf("its takeover is of version %d, expected %d", s.offer.Version, TakeoverVersion)
	}
	return s, s.learn(s.offer.SAs)
}

// ask makes the connection one for a takeover.
func (s *successor) ask() error {
	const request = "POST /v1/takeover HTTP/1.1\r\nHost: bitw\r\nConnection: Upgrade\r\nUpgrade: bitw-takeover\r\nContent-Length: 0\r\n\r\n"
	if _, err := io.WriteString(s.c.conn, request); err != nil {
		return err
	}
	// Nothing follows the answer until hello, so nothing is left in the buffer.
	answer, err := http.ReadResponse(bufio.NewReader(s.c.conn), nil)
	if err != nil {
		return err
	}
	switch answer.StatusCode {
	case http.StatusSwitchingProtocols:
		return nil
	case http.StatusNotFound:
		return errors.New("it is of a version that cannot be taken over; end it with bitw down, and start without --takeover")
	}
	return fmt.Errorf("it answers %s", answer.Status)
}

// learn takes states of SAs.
func (s *successor) learn(text json.RawMessage) error {
	e, err := sa.ParseExport(text)
	if err != nil {
		return err
	}
	s.resume.Set(e)
	return nil
}

// adopt makes a device of what was offered.
func (s *successor) adopt(o ethtap.Options) (*ethtap.Device, error) {
	h := &ethtap.Handover{Info: s.offer.Device, FDs: s.fds}
	s.fds = nil
	d, err := ethtap.Adopt(o, h)
	if err != nil {
		return nil, fmt.Errorf("taking over from process %d: %w", s.oldPID, err)
	}
	return d, nil
}

// ready says so and waits for go. Until then nothing is this process's, from then on
// everything.
func (s *successor) ready() error {
	s.c.within(takeoverGo)
	err := s.c.send(msgReady, struct{}{})
	if err == nil {
		_, err = s.c.receive(msgGo, maxLong, &s.last)
	}
	if err != nil {
		return fmt.Errorf("taking over from process %d: %w", s.oldPID, err)
	}
	return s.learn(s.last.SAs)
}

// taken tells the old process that it can go, and waits until it has.
func (s *successor) taken() error {
	s.c.within(takeoverLeft)
	if err := s.c.send(msgTaken, struct{}{}); err != nil {
		return fmt.Errorf("process %d went before it was told to: %w", s.oldPID, err)
	}
	if _, err := io.Copy(io.Discard, s.c.conn); err != nil {
		return fmt.Errorf("process %d does not leave the interface: %w", s.oldPID, err)
	}
	return nil
}

// close ends the connection. Before go the old process then goes on as before.
func (s *successor) close() {
	closeAll(s.fds)
	s.fds = nil
	_ = s.c.conn.Close()
}

// count takes over counters.
func (b *bump) count(s *successor) {
	for _, p := range b.engine.SPD().Policies() {
		if c, ok := s.last.Policies[p.Name]; ok {
			for i := range c {
				c[i].addTo(&p.Counters[i])
			}
		}
	}
	for side := range s.last.Drops {
		b.drops[side].AddSnapshot(s.last.Drops[side])
	}
}

// neighbors are those of a message.
func neighbors(m map[string]net.HardwareAddr) (list []hostnet.Neighbor) {
	for text, mac := range m {
		if a, err := netip.ParseAddr(text); err == nil && len(mac) == 6 {
			list = append(list, hostnet.Neighbor{Address: a, MAC: mac})
		}
	}
	return list
}

// takeOver begins with the device, in the states that the old process left.
func (b *bump) takeOver(s *successor) error {
	b.taps.moved = s.last.Moved
	// The readers are held until Begin, which shows the states that are meant.
	left := b.device.StatesLeft()
	for i, state := range left {
		b.taps.gates[i].live.Store(state == ethtap.Active)
	}
	if b.answers() && flowWord(left) != flowActive {
		b.setCrossing(true)
	}
	return b.device.Begin()
}

// settle is what remains to be done when this process has the interface.
func (b *bump) settle(s *successor) {
	log := b.log.WithField("process", s.oldPID)
	if err := s.taken(); err != nil {
		log.WithError(err).Warn("taken over, but not in good order")
	}
	s.close()
	if err := b.device.Settle(); err != nil {
		b.fail(fmt.Errorf("taken over from process %d: %w", s.oldPID, err))
		return
	}
	log.Info("taken over")
}

// predecessor looks for a process to take over from.
func (a *Appliance) predecessor(ctx context.Context) (*successor, error) {
	if !a.opt.takeover || a.opt.host != nil {
		return nil, nil
	}
	path := a.cfg.Control
	if path == "" {
		path = config.DefaultControl(a.cfg.Interface)
	}
	s, err := succeed(ctx, path, a.cfg.Interface)
	if s == nil && err == nil {
		a.log.WithField("control", path).Info("nobody to take over from, starting")
	}
	if s != nil && s.offer.Clock != 0 && a.opt.steady != nil {
		a.opt.steady.follow(s.offer.Clock)
	}
	return s, err
}
