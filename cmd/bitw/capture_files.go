package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"bitw/netstack/pcapng"
)

// createPrivate makes a file that only its owner may read, and empties one that is there.
func createPrivate(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	// One that was there may be for others.
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		if err := f.Chmod(0o600); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return f, nil
}

// captureFiles are the files of a capture. Each block that they are given is written whole.
type captureFiles struct {
	path string
	// With size, a file that a frame would make larger is followed by the next, and the newest
	// keep stay. One frame alone may be larger, and what counts them stands behind the last.
	size int64
	keep int
	now  func() time.Time

	file    *os.File
	buf     *bufio.Writer // of the file
	head    []byte        // what all files begin with
	written int64
	frames  bool // the file has some
	number  int
	names   []string // of what stays, the oldest first
}

// write writes a block.
func (c *captureFiles) write(b pcapng.Block) error {
	if b.IsHead() {
		c.head = append(c.head, b...)
	} else if b.Type() == pcapng.EnhancedPacket && c.frames && c.size > 0 && c.written+int64(len(b)) > c.size {
		if err := c.close(); err != nil {
			return err
		}
	}
	if c.file == nil {
		if err := c.open(b.IsHead()); err != nil {
			return err
		}
	}
	if _, err := c.buf.Write(b); err != nil {
		return err
	}
	c.written += int64(len(b))
	c.frames = c.frames || b.Type() == pcapng.EnhancedPacket
	return nil
}

// open begins a file, with the head unless that is what is written next.
func (c *captureFiles) open(first bool) error {
	c.number++
	name := c.path
	if c.size > 0 {
		ext := filepath.Ext(c.path)
		name = fmt.Sprintf("%s_%05d_%s%s", c.path[:len(c.path)-len(ext)], c.number, c.now().Format("20060102150405"), ext)
	}
	for c.size > 0 && len(c.names) >= c.keep {
		if err := os.Remove(c.names[0]); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		c.names = c.names[1:]
	}
	f, err := createPrivate(name)
	if err != nil {
		return err
	}
	c.file, c.written, c.frames, c.names = f, 0, false, append(c.names, name)
	c.buf = bufio.NewWriterSize(f, 1<<16)
	if first {
		return nil
	}
	n, err := c.buf.Write(c.head)
	c.written = int64(n)
	return err
}

// flush writes what is buffered.
func (c *captureFiles) flush() error {
	if c.file == nil {
		return nil
	}
	return c.buf.Flush()
}

// close ends the file that is written.
func (c *captureFiles) close() error {
	if c.file == nil {
		return nil
	}
	f := c.file
	c.file = nil
	return errors.Join(c.buf.Flush(), f.Close())
}
