package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"bitw/appliance/client"
)

// A keyRecording writes keys to files until it is ended.
type keyRecording struct {
	stream *client.Stream
	files  *keyFiles
	ended  chan error
}

// beginKeys begins to write the keys, and warns of it.
func (p *program) beginKeys(ctx context.Context, c *client.Client, f *captureFlags) (*keyRecording, error) {
	s, err := c.KeyLog(ctx)
	if err != nil {
		return nil, err
	}
	files := &keyFiles{path: f.keys, now: p.now}
	if err := files.next(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	fmt.Fprintf(p.err, `WARNING: the keys of all security associations go to %s.
  Whoever reads that file can read and forge all that they protect, also what was recorded
  before. Give it to nobody, delete it when you have looked, and change the keys if
  somebody else may have seen it.
`, f.keys)
	k := &keyRecording{s, files, make(chan error, 1)}
	go func() { k.ended <- files.copy(s) }()
	return k, nil
}

// end has the keys of the last SAs written.
func (k *keyRecording) end(within time.Duration) error {
	_ = k.stream.End()
	limit := time.AfterFunc(within, func() { _ = k.stream.Close() })
	defer limit.Stop()
	err := <-k.ended
	_ = k.stream.Close()
	if err = errors.Join(err, k.files.file.Close()); err != nil {
		return fmt.Errorf("the keys are not complete: %w", err)
	}
	return nil
}

// keyFiles are the tables of the keys of a capture. Wireshark takes the first row that fits
// an SPI and its addresses, so when such an SA gets another key there is another table, in
// which that stands in the place of the former.
type keyFiles struct {
	path string
	now  func() time.Time

	file  *os.File
	rows  []string
	names []string    // of the tables
	since []time.Time // when each began
}

// copy writes the rows of a stream until it ends.
func (k *keyFiles) copy(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			if err := k.add(line); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// add writes a row.
func (k *keyFiles) add(row string) error {
	if slices.Contains(k.rows, row) {
		return nil
	}
	of := rowOf(row)
	for i, was := range k.rows {
		if of == "" || rowOf(was) != of {
			continue
		}
		if info, err := k.file.Stat(); err == nil && !info.Mode().IsRegular() {
			break // what reads a pipe sees the rows in their order
		}
		k.rows[i] = row
		if err := k.file.Close(); err != nil {
			return err
		}
		return k.next()
	}
	k.rows = append(k.rows, row)
	_, err := k.file.WriteString(row)
	return err
}

// rowOf is what Wireshark finds a row by: version, addresses and SPI; "" for a comment.
func rowOf(row string) string {
	if !strings.HasPrefix(row, `"`) {
		return ""
	}
	fields := strings.SplitN(row, ",", 5)
	return strings.Join(fields[:min(4, len(fields))], ",")
}

// next begins a table with the rows that there are.
func (k *keyFiles) next() error {
	name := k.path
	if n := len(k.names); n > 0 {
		ext := filepath.Ext(k.path)
		name = fmt.Sprintf("%s-%d%s", k.path[:len(k.path)-len(ext)], n+1, ext)
	}
	file, err := createPrivate(name)
	if err != nil {
		return err
	}
	k.file, k.names, k.since = file, append(k.names, name), append(k.since, k.now())
	_, err = file.WriteString(strings.Join(k.rows, ""))
	return err
}

// text says which table is for what, if there is more than one.
func (k *keyFiles) text() string {
	if len(k.names) < 2 {
		return ""
	}
	var b strings.Builder
	b.WriteString("Keys were changed meanwhile, and Wireshark takes one key for an SPI: look with each table at its part of the capture.\n")
	for i, name := range k.names {
		fmt.Fprintf(&b, "  %s", name)
		if i > 0 {
			fmt.Fprintf(&b, "  from %s", k.since[i].Format("2006-01-02 15:04:05.000"))
		}
		if i+1 < len(k.names) {
			fmt.Fprintf(&b, "  until %s", k.since[i+1].Format("2006-01-02 15:04:05.000"))
		}
		b.WriteByte('\n')
	}
	return b.String()
}
