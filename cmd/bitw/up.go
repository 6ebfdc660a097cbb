package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"bitw/appliance"
	"bitw/appliance/confine"
	"bitw/appliance/observe"
	"bitw/config"
)

type upFlags struct {
	origin
	logLevel, hook      string
	confine             string
	logJSON, openOnStop bool
	takeover            bool
	background          bool
	tellReady           int
}

func (p *program) up() *cobra.Command {
	var f upFlags
	cmd := &cobra.Command{
		Use:   "up -c FILE | --graph FILE",
		Short: "Cut the interface and protect it",
		Long: `up cuts the interface that the configuration names, and applies its policies to
all that crosses, in the foreground. It says so when the interface is cut, and logs
to standard error.

SIGINT (Ctrl-C), SIGTERM and 'bitw down' end it cleanly: frames that it accepted are
delivered. After that the interface is shut, nothing passes: 'bitw up' takes it over
without a moment in the clear, 'bitw recover' gives it back without protection. The
same holds when the process ends in any other way. With --open-on-stop a clean end
gives it back; with on_failure: open in the configuration every end does.

SIGHUP has it read FILE anew and apply it as 'bitw apply FILE' does: all of it or nothing,
without loss. What came of that is in the log.

Under systemd it is a service of Type=notify: it says when the interface is cut, when
something becomes of that, and when it stops. Where the unit has WatchdogSec, it gives
signs of life as long as frames of both sides make progress. After a takeover it is the
service's main process, as long as it was started within the service: by its ExecReload,
with --background.

With --takeover it takes the interface over from the bitw that runs there and answers
on the configuration's control socket, as for an upgrade or another configuration: no
frame is lost, none passes in the clear, and SAs go on with their sequence numbers,
replay windows, lifetimes and path MTUs where the configuration has them with the same
key. The other one ends with status 0. If this one cannot start, the other goes on; if
none runs, this one starts as without --takeover.

With --graph the configuration is a graph in the language of the x-kernel instead, with
the files rom, prottbl and km/* beside it. 'bitw graph FILE' shows what it composes,
'bitw keys' its keys.

It needs root, or CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF and folders of its own, as
bitw@.service has it; /dev/net/tun; and a kernel with tcx (Linux 6.6) or clsact (5.8).

Once the interface is cut it gives up, for good, all other capabilities and the system
calls that it does not need. One of those fails with EPERM then, and to execute a
program or trace another ends it, as a crash does; the kernel's log names the call.
--confine capabilities and --confine off are for a machine on which that goes wrong.`,
		Example: `  bitw up -c /etc/bitw/eth0.yaml
  bitw up -c eth0.yaml --open-on-stop
  bitw up -c eth0.yaml --takeover
  bitw up -c eth0.yaml --log-level debug --log-json
  bitw up --graph graph.comp --interface eth0`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.background {
				return p.upInBackground(p.args)
			}
			return p.runUp(cmd.Context(), f)
		},
	}
	f.flags(cmd)
	cmd.Flags().StringVar(&f.logLevel, "log-level", "", "`LEVEL` of the log: error, warn, info, debug or trace (default: the configuration's)")
	cmd.Flags().BoolVar(&f.logJSON, "log-json", false, "log in JSON")
	cmd.Flags().BoolVar(&f.openOnStop, "open-on-stop", false, "give the interface back, without protection, when ended cleanly")
	cmd.Flags().BoolVar(&f.takeover, "takeover", false, "take the interface over from the bitw that runs there, if one does")
	cmd.Flags().BoolVar(&f.background, "background", false, "return when the interface is cut, and go on in the background")
	cmd.Flags().IntVar(&f.tellReady, "tell-ready", 0, "descriptor of --background")
	// It fails only for a flag that was not defined.
	if err := cmd.Flags().MarkHidden("tell-ready"); err != nil {
		panic(err)
	}
	cmd.Flags().StringVar(&f.confine, "confine", "", "what it gives up once the interface is cut: full, capabilities or off (`WHAT`; default: the configuration's)")
	cmd.Flags().StringVar(&f.hook, "hook", "auto", "attach to the interface by `HOOK`: auto, tcx or clsact")
	complete(cmd, "log-level", logLevels()...)
	complete(cmd, "hook", "auto", "tcx", "clsact")
	complete(cmd, "confine", confines()...)
	return cmd
}

func confines() []string {
	return []string{string(config.ConfineFull), string(config.ConfineCapabilities), string(config.ConfineOff)}
}

func logLevels() []string { return []string{"error", "warn", "info", "debug", "trace"} }

func (p *program) runUp(ctx context.Context, f upFlags) (err error) {
	// What it could not cut may be shut.
	iface, cut := f.named(), false
	defer func() {
		if err == nil || cut {
			return
		}
		if shut := p.whetherShut(iface); shut != "" {
			fmt.Fprintln(p.err, shut)
		}
	}()
	hook, err := hookNamed(appliance.WithHook, f.hook)
	if err != nil {
		return err
	}
	if f.logLevel != "" {
		if err := oneOf("log-level", f.logLevel, logLevels()...); err != nil {
			return err
		}
	}
	if f.confine != "" {
		if err := oneOf("confine", f.confine, confines()...); err != nil {
			return err
		}
	}
	cfg, warnings, known, err := p.plan(f.origin)
	if err != nil {
		return p.report(f.path(), warnings, err)
	}
	iface = cfg.Interface
	log, err := p.logger(f, cfg.LogLevel)
	if err != nil {
		return err
	}
	noteWarnings(log, warnings)
	opts := append([]appliance.Option{appliance.WithLogger(log), hook}, known...)
	if f.openOnStop {
		opts = append(opts, appliance.WithOpenOnStop())
	}
	if f.takeover {
		opts = append(opts, appliance.WithTakeover())
	}
	if f.logLevel == "" {
		opts = append(opts, appliance.WithApplied(func(c *config.Config) { followLevel(log, c.LogLevel) }))
	}
	if what := cmp.Or(config.Confine(f.confine), cfg.Confine, config.ConfineFull); what != config.ConfineOff {
		opts = append(opts, appliance.WithConfine(func() error { return giveUpRights(what, log) }))
	}
	var a runner
	waits, err := p.managerWaits()
	if err != nil {
		log.WithError(err).Warn("the service manager's watchdog is not fed")
	}
	manager := newNotifier(p.tellManager, log, cfg.Interface, func() bool { return a.LeftOpen() })
	defer manager.close()
	defer moreProcessors(appliance.Readers)()
	a, err = p.newAppliance(*cfg, append(opts, manager.options(waits)...)...)
	if err != nil {
		return err
	}
	ctx, stop := p.untilSignal(ctx,
		func(s os.Signal) { log.WithField("signal", s.String()).Info("stopping") },
		func(s os.Signal) {
			log.WithFields(logrus.Fields{"signal": s.String(), "interface": cfg.Interface}).Warn(
				"still stopping, frames under way are being delivered; if this takes longer than some seconds, kill -KILL " +
					fmt.Sprint(os.Getpid()) + " and bitw recover " + cfg.Interface)
		})
	defer stop()
	if f.graph == "" {
		defer p.onHangup(func() {
			select {
			case <-a.Ready():
			default:
				log.Warn("SIGHUP comes before the interface is cut, and is ignored")
				return
			}
			manager.reloading()
			p.reload(a, f.config, log)
			manager.reloaded()
		})()
	}
	ended := make(chan error, 1)
	go func() {
		ended <- takenBy(a.Run(ctx), cfg.Interface, "bitw up --takeover takes its place, bitw down "+cfg.Interface+" ends it")
	}()
	select {
	case err = <-ended:
	case <-a.Ready():
		cut = true
		manager.flush() // before whoever started this goes
		if err := tellReady(f.tellReady); err != nil {
			log.WithError(err).Warn("nobody waits for this process to be ready")
		}
		fmt.Fprintf(p.out, "%s is cut and protected; see what passes with: bitw status %s\n", cfg.Interface, f.which(cfg))
		if !slices.ContainsFunc(cfg.Policies, func(x config.Policy) bool { return x.Action == config.Protect }) {
			fmt.Fprintln(p.out, "no policy of it says protect: what passes goes in the clear")
		}
		err = <-ended
	}
	if closeErr := a.Close(); err == nil {
		err = closeErr
	}
	if errors.Is(err, appliance.ErrHandedOver) {
		fmt.Fprintln(p.out, cfg.Interface+" is another bitw's now, which took it over")
		return handedOver(err)
	}
	select {
	case <-a.Ready():
		fmt.Fprintln(p.out, leftIn(cfg.Interface, a.LeftOpen()))
	default: // it never held the interface
	}
	return err
}

// moreProcessors lets Go use n processors more than the machine has until the returned
// function is called, if the environment does not say how many.
func moreProcessors(n int) (restore func()) {
	if os.Getenv("GOMAXPROCS") != "" {
		return func() {}
	}
	before := runtime.GOMAXPROCS(0)
	runtime.GOMAXPROCS(before + n)
	return func() { runtime.GOMAXPROCS(before) }
}

// giveUpRights confines the process, and logs how.
func giveUpRights(what config.Confine, log *logrus.Logger) error {
	r, err := confine.Process(confine.Options{Seccomp: what == config.ConfineFull})
	if err != nil {
		return err
	}
	if r.NoSeccomp != nil {
		log.WithError(r.NoSeccomp).Warn("all system calls remain allowed")
	}
	log.WithFields(logrus.Fields{"capabilities": strings.Join(r.Capabilities, " "), "seccomp": r.Seccomp}).Info("confined")
	return nil
}

// takenBy adds what to do where another bitw holds the interface.
func takenBy(err error, iface, remedy string) error {
	if !errors.Is(err, observe.ErrTaken) {
		return err
	}
	return fmt.Errorf("%w; bitw status %s asks it, %s", err, iface, remedy)
}

// noteWarnings logs what is doubtful in a configuration.
func noteWarnings(log *logrus.Logger, warnings config.Warnings) {
	for _, w := range warnings {
		log.WithFields(logrus.Fields{"file": w.File, "line": w.Line, "column": w.Column}).Warn(sentence(w.Msg, w.Hint))
	}
}

// followLevel sets the level of the log to that of a configuration.
func followLevel(log *logrus.Logger, level string) {
	if l, err := logrus.ParseLevel(level); err == nil {
		log.SetLevel(l)
	}
}

// onHangup calls f for each SIGHUP, one after the other, until the returned function is
// called, which waits for a call under way.
func (p *program) onHangup(f func()) (end func()) {
	signals := make(chan os.Signal, 1) // one more is enough: it comes after the last change
	stop := p.hangup(signals)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case <-signals:
				f()
			}
		}
	}()
	return func() {
		stop()
		close(done)
		<-ended
	}
}

// handedOver returns what went wrong beside, nil if nothing did.
func handedOver(err error) error {
	if err == appliance.ErrHandedOver {
		return nil
	}
	return err
}

// leftIn says in what state an interface is after an end that was no crash.
func leftIn(iface string, open bool) string {
	if open {
		return iface + " carries its traffic without protection now"
	}
	return iface + " is shut, nothing passes; bitw up takes it over, bitw recover " + iface + " gives it back without protection"
}

func (p *program) logger(f upFlags, level string) (*logrus.Logger, error) {
	if f.logLevel != "" {
		level = f.logLevel
	}
	l, err := logrus.ParseLevel(level)
	if err != nil {
		return nil, fmt.Errorf("log level: %w", err)
	}
	log := logrus.New()
	log.SetOutput(p.err)
	log.SetLevel(l)
	if f.logJSON {
		log.SetFormatter(&logrus.JSONFormatter{})
	} else {
		log.SetFormatter(&logrus.TextFormatter{FullTimestamp: true})
	}
	return log, nil
}

// hookNamed makes an option of the name of a hook. The type of hooks is of a
// package that this one does not know; its values count from 0 and tell their names.
func hookNamed[H interface {
	~uint32
	String() string
}](with func(H) appliance.Option, name string) (appliance.Option, error) {
	var names []string
	for h := range H(3) {
		if h.String() == name {
			return with(h), nil
		}
		names = append(names, h.String())
	}
	return nil, oneOf("hook", name, names...)
}

// configFlag adds -c; what tells what becomes of it where it may be absent.
func configFlag(cmd *cobra.Command, path *string, what string) {
	usage := "the configuration `FILE`"
	if what != "" {
		usage = what
	}
	cmd.Flags().StringVarP(path, "config", "c", "", usage)
	// It fails only for a flag that was not defined.
	if err := cmd.MarkFlagFilename("config", "yaml", "yml"); err != nil {
		panic(err)
	}
}

// load reads a configuration file.
func (p *program) load(path string) (*config.Config, config.Warnings, error) {
	if path == "" {
		return nil, nil, usagef("-c FILE is missing")
	}
	return config.Load(path, appliance.ConfigOptions())
}
