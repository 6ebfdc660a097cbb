package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"bitw/netstack/pcapng"
)

// captureBlocks is a capture of n frames of 100 octets, by its blocks.
func captureBlocks(t *testing.T, n int) (list []pcapng.Block) {
	t.Helper()
	blocks := pcapng.NewBlocks(func(b pcapng.Block) error {
		list = append(list, bytes.Clone(b))
		return nil
	})
	w, err := pcapng.NewWriter(blocks, 100)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		f := pcapng.Frame{At: now, Interface: i % pcapng.Interfaces, Data: bytes.Repeat([]byte{byte(i)}, 100), Length: 100}
		if err := w.Write(&f); err != nil {
			t.Fatal(err)
		}
	}
	for i := range pcapng.Interfaces {
		if err := w.Count(i, uint64(n), 0, now); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return list
}

// Each file of a ring is whole, none is too large, and the newest stay.
func TestR50_CaptureFiles(t *testing.T) {
	for _, c := range []struct {
		name       string
		size       int64
		keep, want int
		frames     int // that stay
	}{
		{"one file", 0, 0, 1, 20},
		{"all fit into one", 1 << 20, 2, 1, 20},
		{"ring of three", 600, 3, 3, 8},
		{"ring of one", 600, 1, 1, 2},
		{"smaller than a frame", 1, 4, 4, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			f := captureFiles{path: filepath.Join(dir, "x.y.pcapng"), size: c.size, keep: c.keep, now: func() time.Time { return now }}
			for _, b := range captureBlocks(t, 20) {
				if err := f.write(b); err != nil {
					t.Fatal(err)
				}
			}
			if err := f.close(); err != nil {
				t.Fatal(err)
			}
			names, err := filepath.Glob(filepath.Join(dir, "*"))
			if err != nil || len(names) != c.want || len(f.names) != c.want {
				t.Fatalf("files %v, it says %v; expected %d", names, f.names, c.want)
			}
			frames := 0
			for i, name := range names {
				if name != f.names[i] {
					t.Errorf("file %d is %s, it says %s", i, name, f.names[i])
				}
				b, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				var types []uint32
				blocks := pcapng.NewBlocks(func(b pcapng.Block) error {
					types = append(types, b.Type())
					if b.Type() == pcapng.EnhancedPacket {
						frames++
					}
					return nil
				})
				if _, err := blocks.Write(b); err != nil || blocks.Close() != nil {
					t.Errorf("%s is no capture: %v", name, err)
				}
				if len(types) < 4 || types[0] != pcapng.Section || types[1] != pcapng.Description || types[2] != pcapng.Description || types[3] == pcapng.Description {
					t.Errorf("%s has blocks of types %v", name, types)
				}
				if counts := int64(200); c.size > 1 && int64(len(b)) > c.size+counts {
					t.Errorf("%s has %d octets", name, len(b))
				}
				if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o600 {
					t.Errorf("%s: %v, %v", name, info.Mode(), err)
				}
			}
			if frames != c.frames {
				t.Errorf("%d frames stay, expected %d", frames, c.frames)
			}
			if first := "x.y_00001_20260304050607.pcapng"; c.size == 1<<20 && filepath.Base(names[0]) != first {
				t.Errorf("the first is %s, expected %s", names[0], first)
			}
		})
	}
}

// A file that others may read is theirs no more, and a device stays what it is.
func TestR50_CreatePrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, []byte("long enough"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := createPrivate(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := os.Stat(path); err != nil || info.Size() != 0 || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	before, err := os.Stat(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	null, err := createPrivate(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if after, err := os.Stat(os.DevNull); err != nil || after.Mode() != before.Mode() {
		t.Errorf("%s was %v, is %v, %v", os.DevNull, before.Mode(), after.Mode(), err)
	}
}
