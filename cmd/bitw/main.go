// Command bitw is an IPsec bump-in-the-wire for a Linux host: it cuts a live
// interface and applies ESP and AH to what crosses. Each verb has a file; what they
// do is in package appliance.
//
// Exit status: 0 all went well, 1 it failed, 2 it was called in a wrong way, 4 the answer
// is not the one that was expected (bitw explain --expect). An error is told once, on
// standard error.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"bitw/appliance"
	"bitw/appliance/bench"
	"bitw/appliance/demo"
	"bitw/appliance/netcheck"
	"bitw/config"
)

// A program is what the verbs share: where they write, and what they reach outside
// of the process. Tests put their own in place.
type program struct {
	args     []string // of the call
	in       io.Reader
	out, err io.Writer
	now      func() time.Time
	// sockets is the folder in which control sockets are by default.
	sockets string
	// notify has the signals that end a program sent to the channel until the
	// returned function is called.
	notify func(chan<- os.Signal) (stop func())
	// hangup is notify for SIGHUP.
	hangup       func(chan<- os.Signal) (stop func())
	newAppliance func(appliance.Config, ...appliance.Option) (runner, error)
	recover      func(iface string) (joined bool, err error)
	giveUp       func(iface string) error
	keepShut     func(iface, inside string) (whole bool, err error)
	keptShut     func() ([]string, error)
	isShut       func(iface string) (bool, error)
	// findInterface is appliance.FindInterface.
	findInterface func(name string) (*appliance.FoundInterface, error)
	demo          func(context.Context, demo.Options) (demo.Result, error)
	netcheck      func(context.Context, netcheck.Options) *netcheck.Report
	bench         func(context.Context, bench.Options) (bench.Result, error)
	// tellManager tells the service manager, if there is one, and managerWaits says how
	// long that waits for a sign of life, 0 if there is none.
	tellManager  func(state string) error
	managerWaits func() (time.Duration, error)
}

// A runner is what bitw up needs of an appliance.
type runner interface {
	Run(context.Context) error
	Apply(cfg appliance.Config, dry bool) ([]config.Change, error)
	Refused(error)
	Ready() <-chan struct{}
	LeftOpen() bool
	Close() error
}

// gcPercent lets a start end before the first collection, which is at twice the default's 4
// MB; what passes later allocates next to nothing (netstack/PERFORMANCE.md). GOGC overrides it.
const gcPercent = 200

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	os.Exit(newProgram().run(context.Background(), os.Args[1:]))
}

// newProgram is the program in the surroundings of its process.
func newProgram() *program {
	return &program{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, now: time.Now, sockets: "/run/bitw",
		notify: func(c chan<- os.Signal) func() {
			signal.Notify(c, os.Interrupt, syscall.SIGTERM)
			return func() { signal.Stop(c) }
		},
		hangup: func(c chan<- os.Signal) func() {
			signal.Notify(c, syscall.SIGHUP)
			return func() { signal.Stop(c) }
		},
		newAppliance: func(cfg appliance.Config, opts ...appliance.Option) (runner, error) {
			return appliance.New(cfg, opts...)
		},
		findInterface: appliance.FindInterface,

		recover:  appliance.Recover,
		giveUp:   appliance.GiveUp,
		keepShut: appliance.KeepShut,
		keptShut: appliance.KeptShut,
		isShut:   appliance.IsShut,
		demo:     demo.Run,
		netcheck: netcheck.Run,
		bench:    bench.Run,
		tellManager: func(state string) error {
			_, err := daemon.SdNotify(false, state)
			return err
		},
		managerWaits: func() (time.Duration, error) {
			wait, err := daemon.SdWatchdogEnabled(false)
			if err == nil && wait == 0 && os.Getenv("NOTIFY_SOCKET") != "" {
				wait = untoldWatchdog
			}
			return wait, err
		},
	}
}

// A usageError is a call that cannot be meant; it ends with status 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

// A reportedError has been told in full already; only the exit status is left.
type reportedError struct{ error }

func (e reportedError) Unwrap() error { return e.error }

// An exitError has been told in full already; only this exit status is left.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// run is the whole program but for the process around it; the result is the exit
// status.
func (p *program) run(ctx context.Context, args []string) int {
	p.args = args
	root := p.command()
	root.SetArgs(args)
	called, err := root.ExecuteContextC(ctx)
	var (
		usage    usageError
		reported reportedError
		exit     exitError
	)
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return int(exit)
	case errors.As(err, &reported):
		return 1
	case errors.As(err, &usage):
		fmt.Fprintf(p.err, "bitw: %v\nrun '%s --help' for how it is called\n", err, called.CommandPath())
		return 2
	}
	fmt.Fprintf(p.err, "bitw: %v\n", err)
	if errors.As(err, new(unmetError)) {
		return 4
	}
	return 1
}

// command is the tree of verbs.
func (p *program) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "bitw",
		Short: "IPsec bump-in-the-wire in userspace",
		Long: `bitw stands between a host's kernel and its network interface and applies IPsec
(ESP and AH) to what crosses, by the policies of a configuration file. The interface
keeps its name, addresses, routes and firewall rules, and programs on either side
need not know.

What no policy matches is discarded. When bitw ends, the interface stays shut until it
is back or 'bitw recover' is called, unless the configuration says on_failure: open.

The exit status is 0 if all went well, 1 if it failed, 2 if it was called in a wrong way
and 4 if an answer is not the one that was expected (explain --expect); status --check and
netcheck have their own. What is wrong is told on standard error.`,
		Example: `  bitw demo                      see it work, without root as well
  bitw init eth0                 write a first configuration
  bitw check -c bitw.yaml        is this configuration good?
  bitw up -c bitw.yaml           cut the interface and protect it, until Ctrl-C
  bitw apply bitw.yaml           put its changes in force, without a restart
  bitw status                    what passed, what was dropped and why
  bitw down                      end it`,
		Version:           buildVersion(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return usagef("there is no verb %q%s", args[0], nearVerb(cmd, args[0]))
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef("a verb is missing")
		},
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.SetOut(p.out)
	root.SetErr(p.err)
	root.AddCommand(p.up(), p.initVerb(), p.check(), p.apply(), p.status(), p.saVerb(), p.policyVerb(), p.neigh(), p.route(), p.dropsVerb(), p.dashboard(), p.down(), p.recoverVerb(), p.guard(), p.demoVerb(), p.benchVerb(), p.tap(), p.observe(), p.graph(), p.keys(), p.schema(), p.version(), p.man())
	root.AddCommand(p.netcheckVerb())
	root.AddCommand(p.explain())
	root.AddCommand(p.traceLevel(), p.traceVerb(), p.monitor(), p.captureVerb())
	root.AddCommand(topics()...)
	for _, verb := range root.Commands() {
		verb.DisableFlagsInUseLine = true // their lines have what must be given
	}
	ownVerbs(root)
	return root
}

// exactly refuses any number of arguments but that of names.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usagef("%s needs %s", cmd.Name(), strings.Join(names[len(args):], " and "))
		case len(args) > len(names):
			return usagef("%s takes no argument %q", cmd.Name(), args[len(names)])
		}
		return nil
	}
}

// oneOf makes an error of a flag's value that is not among the allowed ones.
func oneOf(flag, value string, allowed ...string) error {
	for _, a := range allowed {
		if value == a {
			return nil
		}
	}
	return usagef("--%s is %s, not %q", flag, strings.Join(allowed, ", "), value)
}

// placeFor says why a file cannot be written: its folder is not there, or it is one itself.
func placeFor(file string) error {
	if info, err := os.Stat(filepath.Dir(file)); err != nil || !info.IsDir() {
		return usagef("there is no folder %s for %s", filepath.Dir(file), file)
	}
	if info, err := os.Stat(file); err == nil && info.IsDir() {
		return usagef("%s is a folder; name a file in it", file)
	}
	return nil
}

// outputFlag adds -o.
func outputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "text", "`FORMAT` of the output: text or json")
	complete(cmd, "output", "text", "json")
}

// complete tells the shell what may stand after a flag.
func complete(cmd *cobra.Command, flag string, values ...string) {
	// It fails only for a flag that was not defined, or twice.
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err)
	}
}

// untilEnd gives a context that ends with the first signal, or after limit unless that
// is 0. The returned function ends it, and then the signals have their usual effect.
func (p *program) untilEnd(ctx context.Context, limit time.Duration) (context.Context, func()) {
	ignore := func(os.Signal) {}
	ctx, stop := p.untilSignal(ctx, ignore, ignore)
	if limit <= 0 {
		return ctx, stop
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	return ctx, func() {
		cancel()
		stop()
	}
}

// untilSignal gives a context that ends with the first signal, after first was
// called with it. Each signal after that goes to again. The returned function ends
// it, and then the signals have their usual effect.
func (p *program) untilSignal(ctx context.Context, first, again func(os.Signal)) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	signals := make(chan os.Signal, 4)
	stop := p.notify(signals)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tell := first
		for {
			select {
			case <-done:
				return
			case s := <-signals:
				tell(s)
				tell = again
				cancel()
			}
		}
	}()
	return ctx, func() {
		stop()
		close(done)
		<-ended
		cancel()
	}
}
