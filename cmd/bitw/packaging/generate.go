package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// generate has the program write what comes of its own tables.
func (p *plan) generate() error {
	program := filepath.Join(p.work, "bitw")
	if p.arch != runtime.GOARCH {
		program += "-here"
		if err := p.build(filepath.Base(program), runtime.GOARCH); err != nil {
			return err
		}
	}
	bitw := func(args ...string) ([]byte, error) {
		cmd := exec.Command(program, args...)
		cmd.Stderr = os.Stderr
		b, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("bitw %s: %w", strings.Join(args, " "), err)
		}
		return b, nil
	}
	for name, args := range map[string][]string{
		"bitw.bash": {"completion", "bash"}, "_bitw": {"completion", "zsh"}, "bitw.fish": {"completion", "fish"},
		"schema.json": {"schema"}, "grafana.json": {"dashboard"},
	} {
		text, err := bitw(args...)
		if err != nil {
			return err
		}
		if err := p.write(name, text); err != nil {
			return err
		}
	}
	man := filepath.Join(p.work, "man")
	if _, err := bitw("man", man); err != nil {
		return err
	}
	pages, err := filepath.Glob(filepath.Join(man, "*.[58]"))
	if err != nil {
		return err
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err == nil {
			err = p.writeCompressed(filepath.Join("man", filepath.Base(page)+".gz"), text)
		}
		if err != nil {
			return err
		}
	}
	return p.writeCompressed("changelog.gz", fmt.Appendf(nil, "bitw (%s) unstable; urgency=medium\n\n  * See the project's history.\n\n -- %s  %s\n",
		p.version, maintainer, p.mtime.Format("Mon, 02 Jan 2006 15:04:05 -0700")))
}

func (p *plan) write(name string, text []byte) error {
	return os.WriteFile(filepath.Join(p.work, name), text, 0o644)
}

// writeCompressed writes as gzip -9n does.
func (p *plan) writeCompressed(name string, text []byte) error {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := w.Write(text); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return p.write(name, b.Bytes())
}

// copyright writes the licence of bitw, and those of all that is linked into it.
func (p *plan) copyright() error {
	out, err := p.run("go", "version", "-m", filepath.Join(p.work, "bitw"))
	if err != nil {
		return err
	}
	var b strings.Builder
	b.WriteString(`bitw, an IPsec bump-in-the-wire in userspace.

Licensed under the Apache License, Version 2.0, which on Debian systems is in
/usr/share/common-licenses/Apache-2.0.

The program contains the Go standard library and the modules below, each under
its own licence.
`)
	root, err := p.run("go", "env", "GOROOT")
	if err != nil {
		return err
	}
	if err := licences(&b, "the Go standard library", strings.TrimSpace(root)); err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 3 || f[0] != "dep" {
			continue
		}
		dir, err := p.run("go", "list", "-m", "-f", "{{.Dir}}", f[1])
		if err != nil {
			return err
		}
		if err := licences(&b, f[1]+" "+f[2], strings.TrimSpace(dir)); err != nil {
			return err
		}
	}
	return p.write("copyright", []byte(b.String()))
}

// licences adds the licences in a folder.
func licences(b *strings.Builder, what, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("the licence of %s: %w", what, err)
	}
	found := false
	for _, e := range entries {
		name, _, _ := strings.Cut(strings.ToUpper(e.Name()), ".")
		if e.IsDir() || !slices.Contains([]string{"LICENSE", "LICENCE", "COPYING", "NOTICE", "COPYRIGHT"}, name) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		found = true
		fmt.Fprintf(b, "\n%s\n%s (%s)\n\n%s\n", strings.Repeat("-", 72), what, e.Name(), strings.TrimSpace(string(text)))
	}
	if !found {
		return fmt.Errorf("%s has no licence in %s", what, dir)
	}
	return nil
}

// run runs a command in bitw's module.
func (p *plan) run(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Stderr = p.module, os.Stderr
	b, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return string(b), nil
}
