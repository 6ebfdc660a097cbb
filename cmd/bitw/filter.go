package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"bitw/appliance/client"
	"bitw/config"
	"bitw/netstack/trace"
)

// parseFilter reads a filter. The error shows where it is wrong, and what may be meant.
func parseFilter(text string) (*trace.Filter, error) {
	filter, err := trace.ParseFilter(text)
	var e *trace.FilterError
	if !errors.As(err, &e) {
		return filter, err
	}
	near := ""
	if k := config.Nearest(e.Word, e.Known); k != "" {
		near = fmt.Sprintf("\ndid you mean %q?", k)
	}
	if len(text) > maxShown {
		return nil, usagef("%w%s", err, near)
	}
	return nil, usagef("%w\n  %s\n  %s^%s", err, strings.Map(visible, text), strings.Repeat(" ", e.Column-1), near)
}

// maxShown bounds the text that an error shows again.
const maxShown = 200

// visible keeps the columns of what no terminal should be given.
func visible(r rune) rune {
	if r < ' ' || r == 0x7f {
		return '?'
	}
	return r
}

// unknownNames says which rules and SAs a filter asks for that are not there now.
func unknownNames(ctx context.Context, c *client.Client, filter *trace.Filter) string {
	rules, sas := filter.Names()
	if len(rules)+len(sas) == 0 {
		return ""
	}
	st, err := c.Status(ctx)
	if err != nil {
		return "" // what is asked for next will tell
	}
	var b strings.Builder
	missing := func(what string, asked, known []string) {
		for _, name := range asked {
			if !slices.Contains(known, name) {
				fmt.Fprintf(&b, "there is no %s %q now", what, name)
				if k := config.Nearest(name, known); k != "" {
					fmt.Fprintf(&b, ", did you mean %q?", k)
				}
				b.WriteByte('\n')
			}
		}
	}
	var policies, associations []string
	for i := range st.Policies {
		policies = append(policies, st.Policies[i].Name)
	}
	for i := range st.SAs {
		associations = append(associations, st.SAs[i].Name)
	}
	missing("policy", rules, policies)
	missing("security association", sas, associations)
	return b.String()
}
