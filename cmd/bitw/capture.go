package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"bitw/appliance"
	"bitw/appliance/client"
	"bitw/appliance/keylog"
	"bitw/netstack/pcapng"
	"bitw/netstack/trace"
)

// captureEnd is how long the end of a capture may take that was told to end.
const captureEnd = 6 * time.Second

type captureFlags struct {
	where          address
	file, keys     string
	files, snaplen int
	fileSize       string
	count          uint64
	limit          time.Duration
}

func (p *program) captureVerb() *cobra.Command {
	var f captureFlags
	cmd := &cobra.Command{
		Use:   "capture -w FILE [FILTER] [-c FILE | --interface IFACE | --socket PATH]",
		Short: "Record packets on both sides, each with what became of it",
		Long: `capture records what crosses a running bitw as pcapng, for Wireshark and its like. The
file has the interfaces "inside", towards the host, and "outside", towards the wire, so a
protected packet is there twice: in the clear inside, as ESP outside. The comment of each
frame says what became of its packet: verdict and policy, security association, and the
reason if it was dropped.

It goes on until Ctrl-C, for a time (--for) or for so many frames (--count). -w - writes
to standard output. With --files and --file-size it writes file after file, as dumpcap
does (NAME_00001_TIME.EXT), and keeps the newest. Files have mode 0600.

bitw does not wait for who reads: frames that come too fast are missing. Their number is
in the file, and told at the end. It takes the rights of control_admin_group.

` + trace.FilterGrammar + `

--with-keys also writes the keys of all security associations, in the form of Wireshark's
table "esp_sa", so that it shows what is inside ESP. They go beside the capture, as
NAME.esp_sa, or to the file that is named. When a key is changed meanwhile, as by 'bitw
keys set', the keys from then on are in NAME-2.esp_sa, and so on: Wireshark takes one key
for an SPI. Whoever has them can read and forge all that these associations protect; root
and the user that bitw runs as may have them.

Which one is meant: the one of a configuration (-c FILE), of an interface (--interface
IFACE) or behind a control socket (--socket PATH); with none of these, the only one.`,
		Example: `  bitw capture -w eth0.pcapng
  bitw capture -w web.pcapng --for 1m 'host 192.0.2.9 port 443'
  bitw capture -w drops.pcapng --files 10 --file-size 16MiB drop
  bitw capture -w - not port 22 | wireshark -k -i -
  bitw capture -w eth0.pcapng --with-keys --count 1000`,
		RunE: func(cmd *cobra.Command, args []string) error {
			text := strings.Join(args, " ")
			filter, size, err := f.check(text)
			if err != nil {
				return p.filterHint(args, err, "name it by --interface")
			}
			c, err := p.meant(f.where)
			if err != nil {
				return err
			}
			fmt.Fprint(p.err, unknownNames(cmd.Context(), c, filter))
			return p.runCapture(cmd.Context(), c, &f, text, size)
		},
	}
	keyAddress(cmd, &f.where)
	flags := cmd.Flags()
	flags.StringVarP(&f.file, "write", "w", "", "record to this pcapng `FILE`; - is standard output")
	flags.IntVarP(&f.snaplen, "snaplen", "s", 0, "keep at most so many `OCTETS` of each frame (default all)")
	flags.Uint64Var(&f.count, "count", 0, "end after `N` frames")
	flags.DurationVar(&f.limit, "for", 0, "end after that `TIME`")
	flags.IntVar(&f.files, "files", 0, "with --file-size, keep the newest `N` files")
	flags.StringVar(&f.fileSize, "file-size", "", "with --files, begin a new file after `SIZE` octets, such as 16MiB")
	flags.StringVar(&f.keys, "with-keys", "", "also write the keys of all security associations, to this `FILE` or beside the capture")
	flags.Lookup("with-keys").NoOptDefVal = beside
	_ = cmd.MarkFlagFilename("write", "pcapng")
	_ = cmd.MarkFlagFilename("with-keys", "esp_sa")
	cmd.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return trace.FilterWords(), cobra.ShellCompDirectiveNoFileComp
	}
	return cmd
}

// beside stands for the file beside the capture.
const beside = "NAME.esp_sa"

// check says what is wrong with the call, and returns the filter and the size of a file.
func (f *captureFlags) check(text string) (filter *trace.Filter, size int64, err error) {
	switch {
	case f.file == "":
		return nil, 0, usagef("-w FILE is missing; -w - writes to standard output")
	case f.limit < 0:
		return nil, 0, usagef("--for is a time such as 30s, not %v", f.limit)
	case f.snaplen != 0 && (f.snaplen < 14 || f.snaplen > pcapng.MaxSnaplen):
		return nil, 0, usagef("--snaplen is 14 to %d, not %d", pcapng.MaxSnaplen, f.snaplen)
	case (f.files != 0) != (f.fileSize != ""):
		return nil, 0, usagef("--files and --file-size belong together")
	case f.files < 0:
		return nil, 0, usagef("--files is 1 or more, not %d", f.files)
	case f.files != 0 && f.file == "-":
		return nil, 0, usagef("--files is for files, and -w - is none")
	case f.keys == beside && f.file == "-":
		return nil, 0, usagef("with -w - say where the keys go: --with-keys=FILE")
	}
	if f.keys == beside {
		f.keys = keylog.Path(f.file)
	}
	if f.keys != "" && f.keys == f.file {
		return nil, 0, usagef("-w and --with-keys are one file, %s", f.file)
	}
	for _, path := range []string{f.file, f.keys} {
		if path == "" || path == "-" {
			continue
		}
		if err := placeFor(path); err != nil {
			return nil, 0, err
		}
	}
	if f.fileSize != "" {
		if size, err = parseSize(f.fileSize); err != nil {
			return nil, 0, err
		}
	}
	filter, err = parseFilter(text)
	return filter, size, err
}

// destination is the file as others find it, "" for standard output.
func (f *captureFlags) destination() string {
	if f.file == "-" {
		return ""
	}
	path, err := filepath.Abs(f.file)
	if err != nil {
		return f.file
	}
	return path
}

// filterHint adds to what is wrong with a filter how an interface is named instead.
func (p *program) filterHint(args []string, err error, how string) error {
	if !errors.As(err, new(*trace.FilterError)) {
		return err
	}
	for _, path := range p.socketPaths() {
		if name := ifaceOf(path); len(args) > 0 && name == args[0] {
			return usagef("%w\n%s is an interface: %s %s", err, name, how, name)
		}
	}
	return err
}

func (p *program) runCapture(ctx context.Context, c *client.Client, f *captureFlags, filter string, size int64) (err error) {
	if out, ok := p.out.(*os.File); f.file == "-" && ok && term.IsTerminal(int(out.Fd())) {
		return usagef("-w - writes no text, and standard output is a terminal; pipe it: bitw capture -w - | wireshark -k -i -")
	}
	ctx, stop := p.untilEnd(ctx, f.limit)
	defer stop()
	// It outlives ctx, so that the end of the streams arrives.
	streams, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	if f.keys != "" {
		keys, err1 := p.beginKeys(streams, c, f)
		if err1 != nil {
			return err1
		}
		defer func() {
			err = errors.Join(err, keys.end(captureEnd))
			fmt.Fprint(p.err, keys.files.text())
		}()
	}
	s, err := c.Capture(streams, appliance.CaptureRequest{Filter: filter, Snaplen: f.snaplen, File: f.destination()})
	if err != nil {
		return err
	}
	r := &recording{flags: f, files: captureFiles{path: f.file, size: size, keep: f.files, now: p.now}}
	if f.file == "-" {
		r.out = bufio.NewWriterSize(p.out, 1<<16)
	}
	r.begun = func() { fmt.Fprintf(p.err, "capturing %s; Ctrl-C ends it\n", r.to()) }
	err = r.run(ctx, s, cut)
	fmt.Fprint(p.err, r.text())
	if f.keys != "" && f.file != "-" {
		fmt.Fprint(p.err, keylog.Hint("bitw", r.newest(), f.keys))
	}
	return err
}

// A recording writes a stream to files, or to out.
type recording struct {
	flags        *captureFlags
	files        captureFiles
	out          *bufio.Writer
	begun        func() // is called once it captures
	frames, lost [pcapng.Interfaces]uint64
}

// run records until the stream ends, which ctx has it do, or cut after a while.
func (r *recording) run(ctx context.Context, s *client.Stream, cut func()) error {
	ended := make(chan error, 1)
	go func() { ended <- r.copy(s) }()
	var err error
	select {
	case err = <-ended:
	case <-ctx.Done():
		_ = s.End()
		limit := time.NewTimer(captureEnd)
		defer limit.Stop()
		select {
		case err = <-ended:
		case <-limit.C:
			cut()
			return fmt.Errorf("%s takes nothing, so the end of the capture is missing", r.flags.file)
		}
	}
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = errors.New("bitw has cut the capture off; what came until then is written")
	case err == nil && ctx.Err() == nil && !r.enough():
		err = errors.New("bitw has stopped, and with it the capture, which is whole")
	}
	return errors.Join(err, s.Close(), r.files.close())
}

// copy records until the stream ends, which it has it do when there is enough. What comes at
// once is written at once.
func (r *recording) copy(s *client.Stream) error {
	blocks := pcapng.NewBlocks(func(b pcapng.Block) error { return r.block(s, b) })
	chunk := make([]byte, 1<<16)
	for {
		n, err := s.Read(chunk)
		if _, err := blocks.Write(chunk[:n]); err != nil {
			return err
		}
		if err := r.flush(); err != nil {
			return err
		}
		if err == io.EOF {
			return blocks.Close()
		}
		if err != nil {
			return err
		}
	}
}

// block records one block.
func (r *recording) block(s *client.Stream, b pcapng.Block) error {
	if r.begun != nil { // the head of the file has come
		r.begun()
		r.begun = nil
	}
	i, ok := b.Interface()
	switch ok = ok && i < pcapng.Interfaces; {
	case ok && b.Type() == pcapng.Statistics:
		_, r.lost[i] = b.Counts()
	case ok && b.Type() == pcapng.EnhancedPacket:
		if r.enough() {
			return nil
		}
		r.frames[i]++
		if r.enough() {
			_ = s.End()
		}
	}
	if r.out == nil {
		return r.files.write(b)
	}
	_, err := r.out.Write(b)
	return err
}

// enough says whether there are as many frames as were wanted.
func (r *recording) enough() bool {
	return r.flags.count > 0 && r.frames[pcapng.Inside]+r.frames[pcapng.Outside] >= r.flags.count
}

func (r *recording) flush() error {
	if r.out == nil {
		return r.files.flush()
	}
	return r.out.Flush()
}

// to says where the capture goes.
func (r *recording) to() string {
	switch {
	case r.out != nil:
		return "to standard output"
	case r.files.size > 0:
		return fmt.Sprintf("to files beside %s, of which the newest %d stay", r.flags.file, r.files.keep)
	}
	return "to " + r.flags.file
}

// newest is the file that was written last.
func (r *recording) newest() string {
	if n := len(r.files.names); n > 0 {
		return r.files.names[n-1]
	}
	return r.flags.file
}

// text says what was captured, and what is missing.
func (r *recording) text() string {
	text := fmt.Sprintf("%s inside, %s outside\n", count(r.frames[pcapng.Inside], "frame"), count(r.frames[pcapng.Outside], "frame"))
	if r.files.size > 0 {
		text += "in " + strings.Join(r.files.names, "\n   ") + "\n"
	}
	if in, out := r.lost[pcapng.Inside], r.lost[pcapng.Outside]; in+out > 0 {
		text += fmt.Sprintf("MISSING: %s inside, %s outside came faster than they were read\n", count(in, "frame"), count(out, "frame"))
	}
	return text
}
