// Command packaging makes the Debian package of bitw, by one command:
//
//	go run -C cmd/bitw/packaging . -o DIR
//
// It builds the program, has that write its manual pages, completions, JSON schema and
// dashboard, and puts them together with the files in folder files. What the package does
// when it is installed and removed is told in the scripts there.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

func main() {
	var p plan
	flag.StringVar(&p.out, "o", ".", "the folder (`DIR`) for the package")
	flag.StringVar(&p.version, "version", "0.1.0", "`VERSION` of the package")
	flag.StringVar(&p.arch, "arch", runtime.GOARCH, "`ARCH`itecture, in Go's words")
	flag.Parse()
	path, err := p.make()
	if err != nil {
		fmt.Fprintf(os.Stderr, "packaging: %v\n", err)
		os.Exit(1)
	}
	fmt.Println(path)
}

// A plan is what is to be made.
type plan struct {
	out, version, arch string

	module string // the folder of bitw's module
	work   string // a folder for what is made on the way
	mtime  time.Time
}

// make makes the package, and returns its path.
func (p *plan) make() (path string, err error) {
	if p.module, err = filepath.Abs("../../.."); err != nil {
		return "", err
	}
	if p.work, err = os.MkdirTemp("", "bitw-package-"); err != nil {
		return "", err
	}
	defer os.RemoveAll(p.work)
	p.mtime = p.time()
	if err := p.build("bitw", p.arch); err != nil {
		return "", err
	}
	if err := p.generate(); err != nil {
		return "", err
	}
	if err := p.copyright(); err != nil {
		return "", err
	}
	return p.pack()
}

// time is SOURCE_DATE_EPOCH (reproducible-builds.org), else that of the last commit, else now.
func (p *plan) time() time.Time {
	text := os.Getenv("SOURCE_DATE_EPOCH")
	if text == "" {
		b, _ := exec.Command("git", "-C", p.module, "log", "-1", "--format=%ct").Output()
		text = strings.TrimSpace(string(b))
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Unix(n, 0).UTC()
	}
	return time.Now().UTC()
}

// build builds the program for an architecture, without libc, so that it runs on any
// distribution.
func (p *plan) build(name, arch string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(p.work, name), "./cmd/bitw")
	cmd.Dir = p.module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("building bitw for %s: %w", arch, err)
	}
	return nil
}
