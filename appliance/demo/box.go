package demo

import (
	"context"
	"errors"
	"fmt"

	"bitw/appliance"
	"bitw/sa"
)

// box is a running appliance.
type box struct {
	*appliance.Appliance
	done chan struct{} // Run has returned
	err  error         // of Run; valid after done
}

// startBox starts the appliance of a host and waits until it is active. Should it
// end by itself later, fail is told.
func startBox(ctx context.Context, fail context.CancelCauseFunc, host int, n network, associations []association, more ...appliance.Option) (*box, error) {
	iface, opts := n.options(host)
	opts = append(opts, appliance.WithSequenceStore(sa.NewMemoryStore())) // the keys end with the process
	app, err := appliance.New(configOf(host, iface, associations), append(opts, more...)...)
	if err != nil {
		return nil, fmt.Errorf("demo: appliance %s: %w", hostName(host), err)
	}
	b := &box{Appliance: app, done: make(chan struct{})}
	go func() {
		defer close(b.done)
		// It outlives ctx until stop is called, so that traffic ends before it.
		b.err = app.Run(context.WithoutCancel(ctx))
		fail(fmt.Errorf("demo: appliance %s has ended by itself", hostName(host))) // stop tells why
	}()
	select {
	case <-app.Ready():
		return b, nil
	case <-b.done:
		return nil, fmt.Errorf("demo: appliance %s: %w", hostName(host), b.err)
	case <-ctx.Done():
		return nil, errors.Join(context.Cause(ctx), b.stop())
	}
}

// stop ends the appliance and returns its error.
func (b *box) stop() error {
	_ = b.Close() // what it would return, Run does
	<-b.done
	if b.err != nil {
		return fmt.Errorf("demo: %w", b.err)
	}
	return nil
}
