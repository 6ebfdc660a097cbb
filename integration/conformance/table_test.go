package conformance

import (
	"fmt"
	"strings"
)

// A document is one RFC, with its clauses in order.
type document struct {
	Number  int
	Title   string
	Clauses []clause
}

// A clause is one requirement of a document.
type clause struct {
	Section string   // as the RFC numbers it, such as "3.3.4"
	Asks    string   // what it asks for, in our words
	Does    string   // what bitw does, "" if just that
	Tests   []string // "package.Test", the package relative to the module
	Lacks   string   // why it, or a part of it, is not done
}

func documents() []document {
	return []document{rfc4301(), rfc4302(), rfc4303(), rfc3948(), rfc6040(), rfc8221()}
}

// verdict is what the table says in one word.
func (c clause) verdict() string {
	switch {
	case c.Lacks == "":
		return "yes"
	case len(c.Tests) > 0:
		return "in part"
	}
	return "no"
}

// render returns the table as Markdown.
func render(docs []document) string {
	var b strings.Builder
	b.WriteString(`# Conformance

What bitw does of the RFCs of IPsec, clause by clause, and the tests that fail without it. Made by
` + "`go test ./integration/conformance -update`" + `, which also checks that each test exists.

`)
	b.WriteString("| RFC | clauses | yes | in part | no |\n|---|---|---|---|---|\n")
	for _, d := range docs {
		count := make(map[string]int)
		for _, c := range d.Clauses {
			count[c.verdict()]++
		}
		fmt.Fprintf(&b, "| %d, %s | %d | %d | %d | %d |\n", d.Number, d.Title, len(d.Clauses),
			count["yes"], count["in part"], count["no"])
	}
	for _, d := range docs {
		fmt.Fprintf(&b, "\n## RFC %d: %s\n\n", d.Number, d.Title)
		b.WriteString("| clause | asks | | bitw | tests |\n|---|---|---|---|---|\n")
		for _, c := range d.Clauses {
			does := c.Does
			if does == "" && len(c.Tests) > 0 {
				does = "as asked"
			}
			if c.Lacks != "" {
				does = strings.TrimPrefix(does+" *Not: "+c.Lacks+"*", " ")
			}
			tests := make([]string, len(c.Tests))
			for i, t := range c.Tests {
				tests[i] = "`" + t + "`"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", c.Section, c.Asks, c.verdict(), does,
				strings.Join(tests, "<br>"))
		}
	}
	return b.String()
}
