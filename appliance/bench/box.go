package bench

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

// startBox starts an appliance and waits until it is active.
func startBox(ctx context.Context, cfg appliance.Config, opts ...appliance.Option) (*box, error) {
	app, err := appliance.New(cfg, append(opts, appliance.WithSequenceStore(sa.NewMemoryStore()))...) // the keys end with the process
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	b := &box{Appliance: app, done: make(chan struct{})}
	go func() {
		defer close(b.done)
		// It outlives ctx until stop is called, so that traffic ends before it.
		b.err = app.Run(context.WithoutCancel(ctx))
	}()
	select {
	case <-app.Ready():
		return b, nil
	case <-b.done:
		return nil, fmt.Errorf("bench: %w", b.err)
	case <-ctx.Done():
		return nil, errors.Join(context.Cause(ctx), stopBoxes([2]*box{b}))
	}
}

// stopBoxes ends appliances, of which some may be nil, and returns their errors.
func stopBoxes(boxes [2]*box) error {
	var errs []error
	for _, b := range boxes {
		if b == nil {
			continue
		}
		_ = b.Close() // what it would return, Run does
		<-b.done
		if b.err != nil {
			errs = append(errs, fmt.Errorf("bench: %w", b.err))
		}
	}
	return errors.Join(errs...)
}
