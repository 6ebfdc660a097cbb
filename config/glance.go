package config

import (
	"regexp"
	"strings"
)

// A Glance is what a file that need not be good says of the interface itself, as far as
// that can be told. It is what somebody has to know who keeps an interface shut for a
// configuration that may turn out to be wrong.
type Glance struct {
	// Interface is the outside one of two, and Inside the other; empty where the file does
	// not say.
	Interface, Inside string
	// OnFailure is Open only where the file says so and nothing else, and Shut elsewhere.
	OnFailure OnFailure
}

// GlanceAt reads the file at path. With an error the Glance is that of an empty file.
func GlanceAt(path string) (Glance, error) {
	data, _, err := readFile(path, maxSize)
	if err != nil {
		return Glance{OnFailure: Shut}, fileError(path, "the configuration", err)
	}
	return glance(string(data)), nil
}

// aWord is a word of YAML that stands alone on the rest of its line, but for a comment.
var aWord = regexp.MustCompile(`^[ \t]+(?:"([^"\s]+)"|'([^'\s]+)'|([^"'#\s]\S*))[ \t]*(?:[ \t]#.*)?\n?$`)

// glance takes the keys of the top level from lines "key: word", by which no YAML is
// mistaken: what belongs to another key is indented.
func glance(text string) Glance {
	g := Glance{OnFailure: Shut}
	said := make(map[string]string)
	for line := range strings.Lines(strings.ReplaceAll(text, "\r", "\n")) { // both end a line of YAML
		key, value, found := strings.Cut(line, ":")
		if !found || strings.HasPrefix(key, " ") || strings.HasPrefix(key, "\t") {
			continue
		}
		var word string
		name := strings.Trim(key, "\"' \t")
		if m := aWord.FindStringSubmatch(value); m != nil && name == key {
			word = m[1] + m[2] + m[3]
		}
		if was, twice := said[name]; twice && was != word {
			word = "" // it contradicts itself
		}
		said[name] = word
	}
	if said["on_failure"] == string(Open) {
		g.OnFailure = Open
	}
	g.Interface, g.Inside = said["interface"], said["inside"]
	if o := said["outside"]; o != "" {
		g.Interface = o
	}
	return g
}
