package main

import (
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"bitw/appliance"
)

// A notifier tells the service manager how bitw up is doing, as sd_notify(3) has it. The
// appliance never waits for it: what is to be told goes by a goroutine.
type notifier struct {
	send  func(state string) error
	log   logrus.FieldLogger
	iface string
	open  func() bool // how the interface was left

	once  sync.Once // for readiness
	queue chan notice
	ended chan struct{}
}

// A notice is a message, or where it is empty nothing but sent, which is closed in its turn.
type notice struct {
	text string
	sent chan struct{}
}

// untoldWatchdog is how long a service manager is taken to wait that has not said so. systemd
// tells the process of ExecStart alone, and waits for the one that has taken over too.
const untoldWatchdog = 1500 * time.Millisecond

// notifyQueue is how many messages may wait; a state that finds no room is not told.
const notifyQueue = 16

func newNotifier(send func(string) error, log logrus.FieldLogger, iface string, open func() bool) *notifier {
	n := &notifier{send: send, log: log, iface: iface, open: open, queue: make(chan notice, notifyQueue), ended: make(chan struct{})}
	go func() {
		defer close(n.ended)
		failed := false
		for s := range n.queue {
			if s.sent != nil {
				close(s.sent)
				continue
			}
			err := n.send(s.text)
			if err != nil && !failed {
				n.log.WithError(err).Warn("the service manager cannot be told")
			}
			failed = err != nil
		}
	}()
	return n
}

// state tells a state of the appliance. The process that is ready is the service's main
// one from then on.
func (n *notifier) state(s string) {
	switch s {
	case "active":
		text := "STATUS=" + n.iface + " is cut and protected"
		n.once.Do(func() { text = fmt.Sprintf("READY=1\nMAINPID=%d\n%s", os.Getpid(), text) })
		n.tell(text)
	case "clear":
		n.tell("STATUS=" + n.iface + " carries its traffic without protection")
	case "severed":
		n.tell("STATUS=" + n.iface + " is cut, and nothing passes")
	case "stopping":
		n.tell("STOPPING=1\nSTATUS=" + n.iface + ": delivering what was accepted")
	case "stopped":
		n.tell("STATUS=" + leftIn(n.iface, n.open()))
	}
}

// reloading tells that a configuration is being read (sd_notify(3) for Type=notify-reload),
// and reloaded that it was, whether or not it came into force.
func (n *notifier) reloading() {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return
	}
	n.tell(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/int64(time.Microsecond)))
}

func (n *notifier) reloaded() { n.tell("READY=1") }

// beat feeds the service manager's watchdog, unless something else waits to be told.
func (n *notifier) beat() {
	if len(n.queue) == 0 {
		n.tell("WATCHDOG=1")
	}
}

func (n *notifier) tell(s string) {
	select {
	case n.queue <- notice{text: s}:
	default:
	}
}

// flush waits until what was to be told is told, or for a second.
func (n *notifier) flush() {
	sent := make(chan struct{})
	late := time.After(time.Second)
	select {
	case n.queue <- notice{sent: sent}:
	case <-late:
		return
	}
	select {
	case <-sent:
	case <-late:
	}
}

// close ends it when all is told, or after a second. Nothing may be told after it.
func (n *notifier) close() {
	close(n.queue)
	select {
	case <-n.ended:
	case <-time.After(time.Second):
	}
}

// options are those by which an appliance tells n. every is how long the service manager
// waits for a sign of life, 0 if it does not.
func (n *notifier) options(every time.Duration) []appliance.Option {
	opts := []appliance.Option{appliance.WithStates(n.state)}
	if every > 0 {
		opts = append(opts, appliance.WithHeartbeat(max(every/3, time.Millisecond), n.beat))
	}
	return opts
}
