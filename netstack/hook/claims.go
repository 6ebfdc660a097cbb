package hook

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
)

const (
	// maxClaims is how many addresses are kept account of.
	maxClaims = 256
	// answersApart is how soon two stations answer one question.
	answersApart = 2 * time.Second
	// backAgain is how soon an address that goes back to the station that had it has two.
	backAgain = 30 * time.Second
)

// Claims notices that two stations on the wire say to have one address (RFC 5227 §2.4). A
// station that takes an address over from another one is none of them: of two stations
// either both answer a question, or the address goes to and fro.
//
// Any number of goroutines may use it.
type Claims struct {
	now func() int64

	mu    sync.Mutex
	seen  map[netip.Addr]*claim
	twice map[netip.Addr]*Conflict
}

// claim is what the last two stations that spoke for an address were.
type claim struct {
	mac, before  tcpip.LinkAddress
	at, beforeAt int64
	answer       bool // the last one answered a question
}

// A Conflict is an address that two stations say to have.
type Conflict struct {
	Address netip.Addr
	// Own says that it is the host's, which is not among Stations.
	Own      bool
	Stations []tcpip.LinkAddress
	// Last is the time of the last word about it, by the clock of NewClaims.
	Last int64
}

// NewClaims returns Claims by a clock in nanoseconds.
func NewClaims(now func() int64) *Claims {
	return &Claims{now: now, seen: make(map[netip.Addr]*claim), twice: make(map[netip.Addr]*Conflict)}
}

// own notes that a station, not the host, says to have an address of the host.
func (c *Claims) own(a netip.Addr, mac tcpip.LinkAddress) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conflict(a, true, mac)
}

// other notes that a station says to have an address that is not the host's; answer says
// that it was asked.
func (c *Claims) other(a netip.Addr, mac tcpip.LinkAddress, answer bool) {
	if c == nil || a.IsUnspecified() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	x := c.seen[a]
	switch {
	case x == nil:
		if len(c.seen) >= maxClaims {
			c.forget(now)
		}
		if len(c.seen) < maxClaims {
			c.seen[a] = &claim{mac: mac, at: now, answer: answer}
		}
		return
	case x.mac == mac:
	case answer && x.answer && now-x.at < int64(answersApart),
		x.before == mac && now-x.beforeAt < int64(backAgain):
		c.conflict(a, false, x.mac, mac)
		fallthrough
	default:
		x.mac, x.before, x.beforeAt = mac, x.mac, x.at
	}
	x.at, x.answer = now, answer
}

// conflict notes stations. c.mu is held.
func (c *Claims) conflict(a netip.Addr, own bool, macs ...tcpip.LinkAddress) {
	x := c.twice[a]
	if x == nil {
		if len(c.twice) >= maxClaims {
			return
		}
		x = &Conflict{Address: a}
		c.twice[a] = x
	}
	x.Own, x.Last = own, c.now()
	for _, mac := range macs {
		if !slices.Contains(x.Stations, mac) && len(x.Stations) < 4 {
			x.Stations = append(x.Stations, mac)
		}
	}
}

// forget makes room for new addresses. c.mu is held.
func (c *Claims) forget(now int64) {
	for a, x := range c.seen {
		if now-x.at > int64(backAgain) {
			delete(c.seen, a)
		}
	}
}

// Conflicts returns what was noticed, by address.
func (c *Claims) Conflicts() []Conflict {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []Conflict
	for _, x := range c.twice {
		y := *x
		y.Stations = slices.Clone(x.Stations)
		list = append(list, y)
	}
	slices.SortFunc(list, func(a, b Conflict) int { return a.Address.Compare(b.Address) })
	return list
}
