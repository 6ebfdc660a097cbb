package keyer_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"bitw/sa"
	"bitw/sa/keyer"
	"bitw/sa/transform"
)

// A daemon is a key manager for one peer. Where an IKEv2 daemon would exchange
// messages with the peer, it takes keys from agree.
type daemon struct {
	lineage *sa.Lineage
	events  *keyer.Events
	agree   func() (in, out keys, err error)
	say     func(...any) // what the example prints

	cmd  *keyer.Commands
	stop context.CancelFunc
	done sync.WaitGroup
	in   *sa.SA
}

// keys are what the two ends agree on for one direction.
type keys struct {
	spi    uint32
	secret sa.Secret
}

func newDaemon(name string, agree func() (in, out keys, err error)) *daemon {
	d := &daemon{events: keyer.NewEvents(), agree: agree}
	d.lineage = &sa.Lineage{Name: name, Notify: d.events.Put, DeadAfter: time.Minute}
	return d
}

func (d *daemon) Name() string { return "daemon" }

func (d *daemon) Lineage(name string) *sa.Lineage {
	if name == d.lineage.Name {
		return d.lineage
	}
	return nil
}

func (d *daemon) Start(cmd *keyer.Commands) error {
	ctx, stop := context.WithCancel(context.Background())
	d.cmd, d.stop = cmd, stop
	d.done.Go(func() {
		for {
			ev, err := d.events.Next(ctx)
			if err != nil {
				return
			}
			d.handle(ev)
		}
	})
	return nil
}

func (d *daemon) Close() error {
	d.stop()
	d.done.Wait()
	return d.cmd.DeleteAll(d.lineage)
}

func (d *daemon) handle(ev sa.Event) {
	switch ev.Kind {
	case sa.Acquire, sa.ExpireSoft, sa.SequenceLow:
		if ev.SA != nil && ev.SA.Retiring() {
			return // its successor is at work
		}
		if err := d.rollover(); err != nil {
			d.cmd.Refuse(d.lineage)
			return
		}
		d.say(ev.Kind, "-> sends by", d.lineage.Outbound().Key)
	case sa.ExpireHard:
		_ = d.cmd.Delete(ev.SA) // it may be gone already
	case sa.Dead:
		_ = d.cmd.DeleteAll(d.lineage) // IKEv2 would ask the peer first
	}
}

// rollover makes before it breaks. The first time there is nothing to break.
func (d *daemon) rollover() error {
	in, out, err := d.agree()
	if err != nil {
		return err
	}
	inbound, err := d.cmd.Add(d.config(sa.Inbound, in))
	if err != nil {
		return err
	}
	// IKEv2 would now wait until the peer has its inbound SA, too.
	outbound, err := d.cmd.Add(d.config(sa.Outbound, out))
	if err != nil {
		_ = d.cmd.Delete(inbound)
		return err
	}
	old, err := d.cmd.Switch(outbound)
	if err != nil {
		return err
	}
	for _, s := range []*sa.SA{old, d.in} {
		if s != nil {
			_ = d.cmd.Retire(s, 30*time.Second)
		}
	}
	d.in = inbound
	return nil
}

func (d *daemon) config(dir sa.Direction, k keys) sa.SAConfig {
	here, peer := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	alg, _ := transform.Lookup(transform.ProtoESP, "aes128gcm16")
	c := sa.SAConfig{
		Name: d.lineage.Name, Lineage: d.lineage, Direction: dir, Mode: sa.Tunnel,
		Key: sa.Key{SPI: k.spi, Dst: peer, Proto: transform.ProtoESP}, Src: here,
		Algorithm: alg, EncryptionKey: k.secret,
		Soft: sa.Lifetime{Packets: 1000}, Hard: sa.Lifetime{Packets: 2000},
	}
	if dir == sa.Inbound {
		c.Key.Dst, c.Src = here, peer
	}
	return c
}

// A whole key manager: traffic asks for SAs, and later the soft lifetime for their
// successors. An appliance takes it by appliance.WithKeyManager; here the example
// plays the part of the traffic.
func ExampleManager() {
	spi := uint32(0x1000)
	said := make(chan struct{})
	d := newDaemon("peer", func() (in, out keys, err error) {
		spi++
		return keys{spi, random(20)}, keys{spi + 0x1000, random(20)}, nil
	})
	d.say = func(words ...any) {
		fmt.Println(words...)
		said <- struct{}{}
	}
	db := sa.NewSAD()
	if err := d.Start(&keyer.Commands{SAD: db, Store: sa.NewMemoryStore()}); err != nil {
		fmt.Println(err)
		return
	}

	p := &sa.Policy{Name: "to-peer", Action: sa.Protect, Out: []*sa.Lineage{d.lineage}, In: []*sa.Lineage{d.lineage}}
	d.lineage.NeedSA(p, &sa.Flow{}) // a datagram that no SA is there for
	<-said
	d.lineage.Outbound().Used(1000, 1000*500, 1) // the soft lifetime
	<-said
	fmt.Println("SAs while the old ones are still taken:", db.Len())
	if err := db.Tick(time.Now().Add(40 * time.Second).UnixNano()); err != nil {
		fmt.Println(err)
	}
	fmt.Println("after the grace time:", db.Len())
	if err := d.Close(); err != nil {
		fmt.Println(err)
	}
	fmt.Println("after Close:", db.Len())
	// Output:
	// acquire -> sends by esp 0x00002001 to 192.0.2.2
	// expire-soft -> sends by esp 0x00002002 to 192.0.2.2
	// SAs while the old ones are still taken: 4
	// after the grace time: 2
	// after Close: 0
}

func random(n int) sa.Secret {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	defer clear(b)
	return sa.NewSecret(b)
}
