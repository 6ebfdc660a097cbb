//go:build linux

package ethtap

import (
	"time"

	"golang.org/x/sys/unix"
)

// A feeder keeps the dead man's switch ahead of the clock.
type feeder struct {
	stop, done chan struct{}
}

// feed starts to feed the dead man's switch.
func (d *Device) feed() {
	d.push()
	f := &feeder{make(chan struct{}), make(chan struct{})}
	d.feeder = f
	go f.run(d.opts.DeadMan/4, d.push)
}

func (f *feeder) run(every time.Duration, push func()) {
	defer close(f.done)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-f.stop:
			return
		case <-tick.C:
			push()
		}
	}
}

// starve ends feeding.
func (d *Device) starve() {
	if d.feeder != nil {
		close(d.feeder.stop)
		<-d.feeder.done
		d.feeder = nil
	}
}

// push keeps the dead man's switch ahead of the clock.
func (d *Device) push() {
	d.cut.setDeadline(monotonic() + uint64(d.opts.DeadMan))
}

// monotonic is the clock of bpf_ktime_get_ns.
func monotonic() uint64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return uint64(ts.Nano())
}
