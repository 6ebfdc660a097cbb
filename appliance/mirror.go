package appliance

import (
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/vishvananda/netlink"

	"bitw/appliance/hostnet"
	"bitw/config"
)

// mirrorGrace is how long an interface that was set up again may take to find its
// carrier before that counts as lost: copper negotiates for some seconds.
const mirrorGrace = 8 * time.Second

// A linkMirror sets the one of two interfaces down while the other has no carrier, so that
// those who look at their own link alone (bonding, redundant routers) notice.
type linkMirror struct {
	log   logrus.FieldLogger
	sides [2]mirrored
	now   func() time.Time
	// set sets an interface up or down.
	set func(index int, up bool) error

	mu    sync.Mutex
	ended bool
}

// mirrored is one of the two.
type mirrored struct {
	current func() *hostnet.Interface
	down    bool      // set down by us
	since   time.Time // when we set it up again
}

// newMirror returns nil if nothing is to be mirrored; all methods work on that.
func newLinkMirror(cfg *config.Config, log logrus.FieldLogger, inside, outside *nic) *linkMirror {
	if !cfg.MirrorLink {
		return nil
	}
	m := &linkMirror{log: log, now: time.Now}
	m.sides[0].current, m.sides[1].current = inside.watcher.Current, outside.watcher.Current
	return m
}

// begin starts it. Both interfaces are set up first: an earlier process may have ended
// while it held one down. One that this process has taken over from has left it down for
// as long as the other has no carrier. set is how.
func (m *linkMirror) begin(set func(index int, up bool) error, tookOver bool) error {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	m.set = set
	for i := range m.sides {
		s := &m.sides[i]
		cur, other := s.current(), m.sides[1-i].current()
		switch {
		case cur.Up:
		case tookOver && other.Up && !other.Carrier:
			s.down = true
		default:
			s.since = m.now()
			if err := set(cur.Index, true); err != nil {
				m.mu.Unlock()
				return err
			}
		}
	}
	m.mu.Unlock()
	m.look()
	return nil
}

// look acts on what the interfaces are now. It is called when one has changed and once
// a second.
func (m *linkMirror) look() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended || m.set == nil {
		return
	}
	for i := range m.sides {
		here, there := &m.sides[i], &m.sides[1-i]
		if here.down {
			continue // it says nothing of its own
		}
		cur, other := here.current(), there.current()
		switch {
		case cur.Gone || other.Gone:
		case cur.Carrier && there.down:
			there.down, there.since = false, m.now()
			m.change(other, true, cur.Name+" has its link again")
		case !cur.Carrier && !there.down && other.Up && m.now().Sub(here.since) > mirrorGrace:
			there.down = true
			m.change(other, false, cur.Name+" has no link")
		}
	}
}

func (m *linkMirror) change(i *hostnet.Interface, up bool, why string) {
	word := "down"
	if up {
		word = "up"
	}
	log := m.log.WithFields(logrus.Fields{"nic": i.Name, "why": why})
	if err := m.set(i.Index, up); err != nil {
		log.WithError(err).Errorf("cannot set the link %s", word)
		return
	}
	log.Warnf("link set %s", word)
}

// fresh notes that the interface with an index is new, so that nobody has set it down.
func (m *linkMirror) fresh(index int) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.sides {
		if s := &m.sides[i]; s.current().Index == index {
			s.down, s.since = false, m.now()
		}
	}
}

// leave stops it and leaves down what it had set down to another process.
func (m *linkMirror) leave() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended = true
}

// end stops it and sets up what it had set down.
func (m *linkMirror) end() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return
	}
	m.ended = true
	for i := range m.sides {
		if s := &m.sides[i]; s.down {
			s.down = false
			if cur := s.current(); !cur.Gone {
				m.change(cur, true, "bitw ends")
			}
		}
	}
}

// setLink sets an interface of the device's namespace up or down.
func (b *bump) setLink(index int, up bool) error {
	return b.device.InNamespace(func() error {
		l, err := netlink.LinkByIndex(index)
		if err != nil {
			return err
		}
		if up {
			return netlink.LinkSetUp(l)
		}
		return netlink.LinkSetDown(l)
	})
}
