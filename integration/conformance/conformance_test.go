package conformance

import (
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write CONFORMANCE.md")

const (
	module = "../.." // of this directory
	page   = "../CONFORMANCE.md"
)

// TestConformance checks that each test that the table names exists, that each
// clause has either a test or a reason, and that the page is what the table says.
func TestConformance(t *testing.T) {
	known := make(map[string]map[string]bool)
	for _, d := range documents() {
		seen := make(map[string]bool)
		for _, c := range d.Clauses {
			where := d.Title + " " + c.Section
			if len(c.Tests) == 0 && c.Lacks == "" {
				t.Errorf("%s (%s): neither a test nor a reason", where, c.Asks)
			}
			if key := c.Section + c.Asks; seen[key] {
				t.Errorf("%s: twice: %s", where, c.Asks)
			} else {
				seen[key] = true
			}
			for _, name := range c.Tests {
				dir, fn, _ := strings.Cut(name, ".")
				if known[dir] == nil {
					known[dir] = testsOf(t, filepath.Join(module, filepath.FromSlash(dir)))
				}
				if !known[dir][fn] {
					t.Errorf("%s (%s): there is no test %s", where, c.Asks, name)
				}
			}
		}
	}
	want := render(documents())
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the table says: run go test ./integration/conformance -update", page)
	}
}

// testsOf returns the names of the test and fuzz functions of a directory.
func testsOf(t *testing.T, dir string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range f.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil &&
				(strings.HasPrefix(fn.Name.Name, "Test") || strings.HasPrefix(fn.Name.Name, "Fuzz")) {
				names[fn.Name.Name] = true
			}
		}
	}
	return names
}
