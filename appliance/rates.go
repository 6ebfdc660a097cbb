package appliance

import (
	"sync"
	"time"

	"bitw/sa"
)

// rateTicks is how many seconds are between two readings. A rate is over one to two of
// those times.
const rateTicks = 5

// A gauge is the two counters of an SA, or of one direction of a policy.
type gauge struct {
	of             any // *sa.SA or policyDirection
	packets, bytes uint64
}

type policyDirection struct {
	p *sa.Policy
	d sa.Direction
}

func gaugeOf(x *sa.SA) gauge { return gauge{x, x.Packets.Load(), x.Bytes.Load()} }

func gaugeOfPolicy(p *sa.Policy, d sa.Direction) gauge {
	c := p.Traffic(d)
	return gauge{policyDirection{p, d}, c.Packets.Load(), c.Bytes.Load()}
}

// readings are what all gauges said at one time.
type readings struct {
	at    int64
	count map[any]gauge
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
	r.older, r.last = r.last, readings{now, make(map[any]gauge, len(list))}
	for _, g := range list {
		r.last.count[g.of] = g
	}
}

// of is what was carried each second, nil if that is not known yet.
func (r *rates) of(g gauge, now int64) *Rate {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, then := range []readings{r.older, r.last} {
		was, ok := then.count[g.of]
		over := time.Duration(now - then.at)
		if !ok || over < time.Second || g.packets < was.packets || g.bytes < was.bytes {
			continue
		}
		return &Rate{Packets: float64(g.packets-was.packets) / over.Seconds(), Bits: 8 * float64(g.bytes-was.bytes) / over.Seconds(), Over: over.Seconds()}
	}
	return nil
}

// gauges are those of all SAs and policies.
func (b *bump) gauges() []gauge {
	sas, policies := b.sad.All(), b.engine.SPD().Policies()
	list := make([]gauge, 0, len(sas)+2*len(policies))
	for _, x := range sas {
		list = append(list, gaugeOf(x))
	}
	for _, p := range policies {
		list = append(list, gaugeOfPolicy(p, sa.Outbound), gaugeOfPolicy(p, sa.Inbound))
	}
	return list
}
