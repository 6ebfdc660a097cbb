package appliance

import (
	"cmp"
	"sync"

	"bitw/netstack/wire"
	"bitw/sa"
)

// ledgerTicks is how many seconds may pass until an SA is noticed that is no more.
const ledgerTicks = 5

// An saLine is what the SAs of one name and direction have in common.
type saLine struct {
	name      string
	direction sa.Direction
}

// saCount is what SAs carried and dropped.
type saCount struct {
	packets, bytes uint64
	drops          [wire.NumDropReasons]uint64
}

func (c *saCount) add(x *sa.SA) {
	c.packets += x.Packets.Load()
	c.bytes += x.Bytes.Load()
	for r := wire.DropNone + 1; r < wire.NumDropReasons; r++ {
		c.drops[r] += x.Drops.Load(r)
	}
}

// A ledger sums what SAs carried by name and direction, those that are no more
// included, so that a rollover or another key takes nothing away. An SA that came and went
// between two looks is missed.
type ledger struct {
	mu    sync.Mutex
	ticks int
	alive map[*sa.SA]bool // at the last look
	gone  map[saLine]*saCount
}

func lineOf(x *sa.SA) saLine {
	line := saLine{x.Name, x.Direction}
	if x.Lineage != nil {
		line.name = cmp.Or(x.Lineage.Name, x.Name)
	}
	return line
}

// tick looks each ledgerTicks calls.
func (l *ledger) tick(sad *sa.SAD) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ticks++; l.ticks%ledgerTicks == 0 {
		l.look(sad.All())
	}
}

// look folds the SAs that are no more. l.mu is held.
func (l *ledger) look(list []*sa.SA) {
	if l.gone == nil {
		l.gone = make(map[saLine]*saCount)
	}
	now := make(map[*sa.SA]bool, len(list))
	for _, x := range list {
		now[x] = true
	}
	for x := range l.alive {
		if !now[x] {
			line := lineOf(x)
			if l.gone[line] == nil {
				l.gone[line] = new(saCount)
			}
			l.gone[line].add(x)
		}
	}
	l.alive = now
}

// totals are the sums at this moment.
func (l *ledger) totals(sad *sa.SAD) map[saLine]*saCount {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := sad.All()
	l.look(list)
	sums := make(map[saLine]*saCount)
	for line, c := range l.gone {
		copied := *c
		sums[line] = &copied
	}
	for _, x := range list {
		line := lineOf(x)
		if sums[line] == nil {
			sums[line] = new(saCount)
		}
		sums[line].add(x)
	}
	return sums
}
