package appliance

import (
	"sync"
	"sync/atomic"
	"time"

	"bitw/sa"
)

// rateTicks is how many seconds are between two readings. A rate is over one to two of
// those times.
const rateTicks = 5

// A gauge is the two counters of an SA, or of one direction of a policy.
type gauge struct{ packets, bytes *atomic.Uint64 }

// readings are what all gauges said at one time.
type readings struct {
	at    int64
	count map[gauge][2]uint64
}

// rates are what SAs and policies carried each second of late. It reads counters that are
// there anyhow, and costs the packet path nothing.
type rates struct {
	mu          sync.Mutex
	ticks       int
	older, last readings
}

// tick reads each rateTicks calls.
func (r *rates) tick(now int64, all func() []gauge) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ticks++; r.ticks%rateTicks != 1 {
		return
	}
	list := all()
	r.older, r.last = r.last, readings{now, make(map[gauge][2]uint64, len(list))}
	for _, g := range list {
		r.last.count[g] = [2]uint64{g.packets.Load(), g.bytes.Load()}
	}
}

// of is what was carried each second, nil if that is not known yet.
func (r *rates) of(g gauge, now int64) *Rate {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, then := range []readings{r.older, r.last} {
		was, ok := then.count[g]
		over := time.Duration(now - then.at)
		packets, bytes := g.packets.Load(), g.bytes.Load()
		if !ok || over < time.Second || packets < was[0] || bytes < was[1] {
			continue
		}
		return &Rate{Packets: float64(packets-was[0]) / over.Seconds(), Bits: 8 * float64(bytes-was[1]) / over.Seconds(), Over: over.Seconds()}
	}
	return nil
}

// gauges are those of all SAs and policies.
func (b *bump) gauges() []gauge {
	sas, policies := b.sad.All(), b.engine.SPD().Policies()
	list := make([]gauge, 0, len(sas)+2*len(policies))
	for _, x := range sas {
		list = append(list, gauge{&x.Packets, &x.Bytes})
	}
	for _, p := range policies {
		for _, d := range []sa.Direction{sa.Outbound, sa.Inbound} {
			list = append(list, gauge{&p.Traffic(d).Packets, &p.Traffic(d).Bytes})
		}
	}
	return list
}
