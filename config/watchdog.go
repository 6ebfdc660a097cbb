package config

import "time"

// minWatchdog bounds the watchdog's time from below: a busy machine may leave a reader
// without a processor for a while.
const minWatchdog = 100 * time.Millisecond

// watchdog reads how long a side may make no progress.
func (d *decoder) watchdog(n *node) time.Duration {
	if n.kind == scalar && n.text == "off" {
		return 0
	}
	before := len(d.errs)
	v := d.time(n, "a time such as 5s, or off")
	if v < minWatchdog && len(d.errs) == before {
		d.fail(n.place, "", "expected %v or more, or off, found %s", minWatchdog, quote(n.text))
	}
	return v
}

// watchdogText is how a configuration says it.
func watchdogText(v time.Duration) string {
	if v == 0 {
		return "off"
	}
	return v.String()
}
