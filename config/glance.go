package config

import (
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

// glance takes the keys of the top level from lines "key: word", by which no YAML is
// mistaken: what belongs to another key is indented.
func glance(text string) Glance {
	g := Glance{OnFailure: Shut}
	said := make(map[string]string)
	for line := range strings.Lines(text) {
		key, value, found := strings.Cut(line, ":")
		if !found || strings.TrimSpace(value) == "" {
			continue
		}
		word := strings.Trim(strings.Fields(value)[0], `"'`)
		if was, twice := said[key]; twice && was != word {
			word = "" // it contradicts itself
		}
		said[key] = word
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
