package appliance

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// An Event is something that has happened to an appliance. The log tells the same: its
// message is Text, its field event Kind, and its other fields are called as here.
type Event struct {
	// Number counts the events of an appliance from 1.
	Number uint64    `json:"number"`
	Time   time.Time `json:"time"`
	Kind   EventKind `json:"event"`
	// Level is "debug", "info", "warning" or "error", as in the log.
	Level string `json:"level"`
	// Text is for people; it need not stay as it is.
	Text string `json:"text"`

	// What follows is there where Kind says so.

	// SA is the name of an SA and of its lineage, which has SPI, Direction ("out" or "in")
	// and Destination; OldSPI is that of the SA before it.
	SA          string `json:"sa,omitempty"`
	Direction   string `json:"direction,omitempty"`
	SPI         string `json:"spi,omitempty"`
	OldSPI      string `json:"old_spi,omitempty"`
	Destination string `json:"destination,omitempty"`
	Algorithm   string `json:"algorithm,omitempty"`
	Peer        string `json:"peer,omitempty"`
	PathMTU     int    `json:"path_mtu,omitempty"`
	Policy      string `json:"policy,omitempty"`
	Packet      string `json:"packet,omitempty"`
	Key         string `json:"key,omitempty"`
	State       string `json:"state,omitempty"`
	Kernel      string `json:"kernel,omitempty"`
	Wire        string `json:"wire,omitempty"`
	Flow        string `json:"flow,omitempty"`
	Side        string `json:"side,omitempty"`
	// Address is that of a neighbour on the wire.
	Address string `json:"address,omitempty"`
	// Name is that of the interface.
	Name string `json:"name,omitempty"`
	MAC  string `json:"mac,omitempty"`
	MTU  int    `json:"mtu,omitempty"`
	// Changes are what differs, such as "mac" of an interface, or "policy web added" of a
	// configuration, of which at most maxEventChanges are told.
	Changes []string `json:"changes,omitempty"`
	Filter  string   `json:"filter,omitempty"`
	// By is who asked by the control socket, such as "user 0, process 812".
	By    string `json:"by,omitempty"`
	Error string `json:"error,omitempty"`
	// Omitted is how many events of the kind Of came too fast to be told one by one.
	Omitted uint64    `json:"omitted,omitempty"`
	Of      EventKind `json:"of,omitempty"`

	// Missed is how many events before this one its reader was too slow for.
	Missed uint64 `json:"missed,omitempty"`

	// onPath says that it came from the packet path, which does not wait for the log.
	onPath bool
}

// An EventKind says what happened.
type EventKind string

// The kinds of events, with the fields that they have beside those which all have.
const (
	SAAdded    EventKind = "sa-added"    // SA, Direction, SPI, Destination, Algorithm
	SAReplaced EventKind = "sa-replaced" // the same and OldSPI: the place of an SA has another, such as one with another key
	SASwitched EventKind = "sa-switched" // the same: outbound packets go by it from now on, as after a rollover
	SARetired  EventKind = "sa-retired"  // it is kept for a grace time only
	SARevived  EventKind = "sa-revived"  // it is configured again within that
	SADeleted  EventKind = "sa-deleted"
	ExpireSoft EventKind = "expire-soft" // its soft lifetime is over
	ExpireHard EventKind = "expire-hard" // its hard lifetime is over: it drops everything
	// SequenceLow: it has used 7/8 of its sequence numbers.
	SequenceLow EventKind = "sequence-low"
	// Acquire: a packet needs an SA, and a key manager was asked. SA, Policy, Packet
	Acquire EventKind = "acquire"
	// PeerMoved: an authentic packet came from another address or port. Peer
	PeerMoved EventKind = "peer-moved"
	PeerDead  EventKind = "peer-dead" // packets leave by the lineage SA, and none comes back
	// PathMTULearned: the path of an SA takes no more than PathMTU octets, outer header
	// included.
	PathMTULearned EventKind = "path-mtu"
	KeyChanged     EventKind = "key-changed" // by hand. Key, By
	KeysShown      EventKind = "keys-shown"  // values of keys. By
	// InsecureAlgorithm: an SA has an algorithm that had to be allowed. SA, Algorithm
	InsecureAlgorithm EventKind = "insecure-algorithm"

	StateChanged EventKind = "state" // State is that of Status
	TapsSet      EventKind = "taps"  // by hand. Kernel, Wire, Flow, By
	// NeighborChanged: by hand. Address, and MAC of one that was added; neither when all that
	// were learned were forgotten. By
	NeighborChanged EventKind = "neighbor-changed"
	Stalled         EventKind = "stalled"    // the watchdog sees no progress on Side
	FailState       EventKind = "fail-state" // it has put the taps there. Flow
	Resumed         EventKind = "resumed"    // and back to service. Flow
	HandedOver      EventKind = "handed-over"
	// PassedOpen: frames from Side passed without protection, since bitw was held up for so
	// long that the dead man's switch opened the interface (on_failure: open).
	PassedOpen EventKind = "passed-open"

	// InterfaceChanged: Name, MAC, MTU, Changes. The others are of its existence.
	InterfaceChanged   EventKind = "interface-changed"
	InterfaceGone      EventKind = "interface-gone"
	InterfaceRecreated EventKind = "interface-recreated"
	InterfaceCut       EventKind = "interface-cut"   // it is cut again
	InterfaceUncut     EventKind = "interface-uncut" // it cannot be. Error
	GuardRestored      EventKind = "guard-restored"  // somebody had removed it
	TapRestored        EventKind = "tap-restored"    // somebody had set it down
	GuardMissing       EventKind = "guard-missing"   // and it cannot be made anew. Error

	ConfigurationApplied EventKind = "configuration-applied" // Changes, By
	ConfigurationRefused EventKind = "configuration-refused" // Error, By
	TraceLevelSet        EventKind = "trace-level"           // of a node, by hand. By
	TraceStarted         EventKind = "trace-started"         // Filter, By
	TraceStopped         EventKind = "trace-stopped"
	CaptureStarted       EventKind = "capture-started" // Filter, By
	CaptureStopped       EventKind = "capture-stopped"

	// EventsOmitted: so many of a kind came within a second that the rest was only
	// counted. Omitted, Of
	EventsOmitted EventKind = "omitted"
)

const (
	// KeptEvents is how many events are kept for who asks later or reads slowly.
	KeptEvents = 1024
	// maxEventChanges bounds Event.Changes.
	maxEventChanges = 32
	// eventsPerSecond bounds the events of one kind, and outsideEventsPerSecond those of a
	// kind that somebody on the wire may cause.
	eventsPerSecond        = 256
	outsideEventsPerSecond = 16
)

// perSecond is how many events of a kind are told within a second.
func (k EventKind) perSecond() int {
	switch k {
	case PeerMoved, PathMTULearned, Acquire:
		return outsideEventsPerSecond
	}
	return eventsPerSecond
}

// An eventHub keeps the last events and wakes who waits for one. Telling it takes a lock
// for a moment and waits for nobody: who reads too slowly has the oldest overwritten.
type eventHub struct {
	clock func() int64

	mu      sync.Mutex
	ring    [KeptEvents]*Event // by number
	last    uint64             // number of the newest, 0 before the first
	readers map[*Subscription]struct{}
	rates   map[EventKind]*eventRate
}

// eventRate is what came of one kind in this second.
type eventRate struct {
	second  int64
	told    int
	omitted uint64
}

func newEventHub(clock func() int64) *eventHub {
	return &eventHub{clock: clock, readers: make(map[*Subscription]struct{}), rates: make(map[EventKind]*eventRate)}
}

// admits says whether one more event of a kind may be told in this second. It is asked
// before the event is made.
func (h *eventHub) admits(kind EventKind) bool {
	now := h.clock()
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.rates[kind]
	if r == nil {
		r = new(eventRate)
		h.rates[kind] = r
	}
	if second := now / int64(time.Second); r.second != second {
		h.settle(now, kind, r)
		r.second, r.told = second, 0
	}
	if r.told == kind.perSecond() {
		r.omitted++
		return false
	}
	r.told++
	return true
}

// put keeps an event.
func (h *eventHub) put(ev *Event) {
	now := h.clock()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.keep(now, ev)
}

// settle tells how many of a kind were omitted. h.mu is held.
func (h *eventHub) settle(now int64, kind EventKind, r *eventRate) {
	if r.omitted == 0 {
		return
	}
	h.keep(now, &Event{
		Kind: EventsOmitted, Level: "warning", Of: kind, Omitted: r.omitted, onPath: true,
		Text: fmt.Sprintf("%d more %s events came too fast to be told one by one", r.omitted, kind),
	})
	r.omitted = 0
}

// tick tells once a second what was omitted before this second.
func (h *eventHub) tick() {
	now := h.clock()
	h.mu.Lock()
	defer h.mu.Unlock()
	for kind, r := range h.rates {
		if now/int64(time.Second) != r.second {
			h.settle(now, kind, r)
		}
	}
}

// keep numbers an event and wakes the readers. h.mu is held.
func (h *eventHub) keep(now int64, ev *Event) {
	h.last++
	ev.Number, ev.Time = h.last, time.Unix(0, now)
	h.ring[h.last%KeptEvents] = ev
	for s := range h.readers {
		select {
		case s.more <- struct{}{}:
		default:
		}
	}
}

// subscribe returns a reader of the events from now on and of the last before them.
func (h *eventHub) subscribe(last int) *Subscription {
	s := &Subscription{hub: h, more: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	s.next = h.last + 1 - min(uint64(max(last, 0)), h.last, KeptEvents)
	h.readers[s] = struct{}{}
	return s
}

// A Subscription reads the events of an appliance, in their order. It is for one goroutine.
type Subscription struct {
	hub    *eventHub
	more   chan struct{} // has an element when there may be more
	next   uint64        // number of the next event
	missed uint64        // before that
}

// Subscribe returns a Subscription of the events from now on, and of the last so many
// before, of which 1024 are kept, from New on. Close it when it is no longer read. It costs
// nobody anything who is not reading it: one that reads too slowly loses the oldest events,
// and is told how many.
func (a *Appliance) Subscribe(last int) *Subscription { return a.events.subscribe(last) }

// Next returns the next event, and waits for it until ctx ends, whose error it then
// returns. What Event.Missed says comes before it.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		if ev, ok := s.take(); ok {
			return ev, nil
		}
		select {
		case <-s.more:
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
}

// take returns the next event if there is one.
func (s *Subscription) take() (Event, bool) {
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last >= KeptEvents {
		if oldest := h.last - KeptEvents + 1; s.next < oldest {
			s.missed += oldest - s.next
			s.next = oldest
		}
	}
	if s.next > h.last {
		return Event{}, false
	}
	ev := *h.ring[s.next%KeptEvents]
	ev.Missed, s.missed = s.missed, 0
	s.next++
	return ev, true
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	delete(s.hub.readers, s)
}

// tell tells an event to who has subscribed and to the log. It is not for the packet path.
func (a *Appliance) tell(ev Event) {
	if a.events.admits(ev.Kind) {
		a.events.put(&ev)
		a.logEvent(&ev)
	}
}

// logEvents writes events of the packet path to the log, until the returned function is
// called, which waits for the last one.
func (a *Appliance) logEvents() (end func()) {
	s := a.events.subscribe(KeptEvents)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	write := func(ev *Event) {
		if ev.Missed > 0 {
			a.log.WithField("events_missing", ev.Missed).Warn("events came too fast for the log")
		}
		if ev.onPath {
			a.logEvent(ev)
		}
	}
	go func() {
		defer close(done)
		defer s.Close()
		for {
			ev, err := s.Next(ctx)
			if err != nil {
				return
			}
			write(&ev)
		}
	}()
	return func() {
		cancel()
		<-done
		for ev, ok := s.take(); ok; ev, ok = s.take() {
			write(&ev)
		}
	}
}

// logEvent writes an event to the log.
func (a *Appliance) logEvent(ev *Event) {
	level, err := logrus.ParseLevel(ev.Level)
	if err != nil {
		level = logrus.InfoLevel
	}
	log := a.log.WithFields(ev.fields())
	if node, on := a.trace.ofEvent(ev.Kind); on {
		log, level = log.WithField("node", node), min(level, logrus.InfoLevel)
	}
	log.Log(level, ev.Text)
}

// details are what an event has beside what all have, as names and values.
func (ev *Event) details() (list [][2]string) {
	add := func(name, value string) {
		if value != "" {
			list = append(list, [2]string{name, value})
		}
	}
	number := func(name string, n int) {
		if n != 0 {
			add(name, strconv.Itoa(n))
		}
	}
	add("sa", ev.SA)
	add("direction", ev.Direction)
	add("spi", ev.SPI)
	add("old_spi", ev.OldSPI)
	add("destination", ev.Destination)
	add("algorithm", ev.Algorithm)
	add("peer", ev.Peer)
	number("path_mtu", ev.PathMTU)
	add("policy", ev.Policy)
	add("packet", ev.Packet)
	add("key", ev.Key)
	add("state", ev.State)
	add("kernel", ev.Kernel)
	add("wire", ev.Wire)
	add("flow", ev.Flow)
	add("side", ev.Side)
	add("address", ev.Address)
	add("name", ev.Name)
	add("mac", ev.MAC)
	number("mtu", ev.MTU)
	add("changes", strings.Join(ev.Changes, ", "))
	add("filter", ev.Filter)
	add("by", ev.By)
	number("omitted", int(ev.Omitted))
	add("of", string(ev.Of))
	add("error", ev.Error)
	return list
}

// fields are those of a line in the log.
func (ev *Event) fields() logrus.Fields {
	f := logrus.Fields{"event": string(ev.Kind)}
	for _, d := range ev.details() {
		f[d[0]] = d[1]
	}
	return f
}

// String writes the event in a line, without its time: "sa-added: an SA was added (sa=ab
// direction=out …)".
func (ev *Event) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s", ev.Kind, ev.Text)
	list := ev.details()
	if ev.Kind == StateChanged {
		list = nil // the text has it
	}
	for i, d := range list {
		b.WriteString([]string{" (", " "}[min(i, 1)])
		value := d[1]
		if strings.ContainsAny(value, " \n\"()") {
			value = strconv.Quote(value)
		}
		b.WriteString(d[0] + "=" + value)
	}
	if len(list) > 0 {
		b.WriteByte(')')
	}
	return b.String()
}

// who says which process asks by the control socket, "" if it is the program itself.
func who(ctx context.Context) string {
	p, _ := ctx.Value(peerKey{}).(peer)
	if !p.known {
		return ""
	}
	return fmt.Sprintf("user %d, process %d", p.uid, p.pid)
}
