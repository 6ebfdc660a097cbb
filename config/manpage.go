package config

import (
	"fmt"
	"strings"
)

// ManualPage returns the manual page bitw.yaml(5), in the man macros of roff. classes are
// the names of the classes of frames.
func ManualPage(classes []string) string {
	var b strings.Builder
	b.WriteString(`.TH "BITW.YAML" "5" "" "bitw" "bitw manual"
.SH NAME
bitw.yaml \- configuration of bitw
.SH DESCRIPTION
One file in YAML is the configuration of one bitw, which \fBbitw up \-c\fR \fIFILE\fR runs by,
\fBbitw check\fR looks at, and \fBbitw apply\fR puts in force without a restart. It is read strictly: a key that is
not here, twice, or in the wrong place is an error with line and column.
.PP
Addresses are IPv4 or IPv6 without zone. Numbers are decimal, or hexadecimal after 0x. Truth is true or false, or yes or no.
A file that holds keys must have mode 0600.
`)
	var nested []nestedKeys
	manKeys(&b, "FILE", "", Keys(classes), &nested)
	for len(nested) > 0 {
		n := nested[0]
		nested = nested[1:]
		manKeys(&b, n.title, n.intro, n.keys, &nested)
	}
	b.WriteString(".SH EXAMPLE\n.nf\n")
	b.WriteString(roff(Example()))
	b.WriteString(`.fi
.SH "SEE ALSO"
\fBbitw\fR(8), \fBbitw\-up\fR(8), \fBbitw\-check\fR(8), \fBbitw\-apply\fR(8), \fBbitw\-schema\fR(8)
`)
	return b.String()
}

// nestedKeys is the table of a mapping that stands behind a key.
type nestedKeys struct {
	title, intro string
	keys         []Key
}

func manKeys(b *strings.Builder, title, intro string, keys []Key, nested *[]nestedKeys) {
	fmt.Fprintf(b, ".SH \"%s\"\n", roff(strings.ToUpper(title)))
	if intro != "" {
		b.WriteString(roff(intro) + "\n")
	}
	for i := range keys {
		k := &keys[i]
		words := k.Value.Words
		if words == "" {
			words = "..."
		}
		fmt.Fprintf(b, ".TP\n\\fB%s:\\fR %s\n%s.", roff(k.Name), roff(words), roff(upper(k.Doc)))
		switch {
		case k.Required:
			b.WriteString(" It must be there.")
		case k.Default != "":
			fmt.Fprintf(b, " Default: %s.", roff(k.Default))
		}
		if e := k.Value.Entries; e != nil && len(e.Names) > 0 {
			fmt.Fprintf(b, "\n.br\nKnown are %s; EtherTypes are written as in ethertype 0x8899.", roff(strings.Join(e.Names, ", ")))
		}
		b.WriteString("\n")
		if inner := innerKeys(&k.Value); inner != nil {
			already := false
			for _, n := range *nested {
				already = already || sameNames(n.keys, inner)
			}
			if !already {
				*nested = append(*nested, nestedKeys{k.Name, "Keys of \"" + k.Name + "\".", inner})
			}
		}
	}
}

// innerKeys is the table of the mapping, or of the list of mappings, that v may be.
func innerKeys(v *Value) []Key {
	switch {
	case v.Keys != nil:
		return v.Keys
	case v.Items != nil:
		return innerKeys(v.Items)
	}
	for i := range v.Any {
		if keys := innerKeys(&v.Any[i]); keys != nil {
			return keys
		}
	}
	return nil
}

func sameNames(a, b []Key) bool {
	return strings.Join(names(a), " ") == strings.Join(names(b), " ")
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// roff takes the meaning for roff from text.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`).Replace(s)
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}
