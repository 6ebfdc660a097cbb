package config

import (
	"fmt"
	"strings"
)

// Redacted is the configuration in its own format, complete but for the keys,
// which read (hidden).
func (c *Config) Redacted() string {
	var w writer
	w.line(0, "interface", c.Interface)
	w.line(0, "on_failure", string(c.OnFailure))
	w.line(0, "control", c.Control)
	w.line(0, "control_group", c.ControlGroup)
	w.line(0, "control_admin_group", c.ControlAdminGroup)
	if c.Metrics.IsValid() {
		w.line(0, "metrics", c.Metrics.String())
	}
	w.always(0, "state_dir", c.StateDir)
	w.line(0, "log_level", c.LogLevel)
	if len(c.Trace) > 0 {
		fmt.Fprintf(&w, "trace: {%s}\n", traceText(c.Trace))
	}
	if c.ICMPErrors != "" {
		w.line(0, "icmp_errors", string(c.ICMPErrors))
	}
	w.always(0, "watchdog", watchdogText(c.Watchdog))
	w.line(0, "confine", string(c.Confine))
	if c.ForbidBypass {
		w.line(0, "forbid_bypass", "true")
	}
	w.line(0, "bypass_cgroup", c.BypassCgroup)
	if c.MTU != 0 {
		w.line(0, "mtu", fmt.Sprint(c.MTU))
	}
	w.offloads(&c.Offloads)
	w.list(0, "allow_insecure", c.AllowInsecure)
	w.limits(&c.Limits)
	w.head("classes", len(c.Classes))
	for _, x := range c.Classes {
		w.line(2, x.Name, string(x.Action))
	}
	w.line(0, "neighbors", string(c.Neighbors))
	w.head("static_neighbors", len(c.StaticNeighbors))
	for _, x := range c.StaticNeighbors {
		fmt.Fprintf(&w, "  - {address: %s, mac: %q}\n", plain(x.Address.String()), x.MAC)
	}
	w.head("routes", len(c.Routes))
	for _, x := range c.Routes {
		via := ""
		if x.Via.IsValid() {
			via = ", via: " + plain(x.Via.String())
		}
		fmt.Fprintf(&w, "  - {destination: %s%s}\n", plain(x.Destination.String()), via)
	}
	w.head("security_associations", len(c.SAs))
	for i := range c.SAs {
		w.sa(&c.SAs[i])
	}
	w.head("policies", len(c.Policies))
	for i := range c.Policies {
		w.policy(&c.Policies[i])
	}
	return w.String()
}

// String is Redacted.
func (c Config) String() string { return c.Redacted() }

// GoString is Redacted.
func (c Config) GoString() string { return c.Redacted() }

// A writer writes the lines of a configuration, leaving out what is absent.
type writer struct{ strings.Builder }

func (w *writer) line(indent int, key, value string) {
	if value != "" {
		w.always(indent, key, value)
	}
}

func (w *writer) always(indent int, key, value string) {
	fmt.Fprintf(w, "%*s%s: %s\n", indent, "", key, plain(value))
}

func (w *writer) head(key string, n int) {
	if n > 0 {
		w.WriteString(key + ":\n")
	}
}

func (w *writer) list(indent int, key string, items []string) {
	if len(items) == 0 {
		return
	}
	quoted := make([]string, len(items))
	for i, x := range items {
		quoted[i] = plain(x)
	}
	fmt.Fprintf(w, "%*s%s: [%s]\n", indent, "", key, strings.Join(quoted, ", "))
}

func (w *writer) sa(sa *SA) {
	fmt.Fprintf(w, "  - name: %s\n", plain(sa.Name))
	w.line(4, "direction", string(sa.Direction))
	w.line(4, "protocol", string(sa.Protocol))
	w.line(4, "mode", string(sa.Mode))
	fmt.Fprintf(w, "    spi: 0x%x\n", sa.SPI)
	w.line(4, "source", sa.Source.String())
	w.line(4, "destination", sa.Destination.String())
	if sa.Mode == BEET {
		w.line(4, "inner_source", sa.InnerSource.String())
		w.line(4, "inner_destination", sa.InnerDestination.String())
	}
	w.line(4, "algorithm", sa.Algorithm)
	if sa.KeyFile != "" {
		w.line(4, "key_file", sa.KeyFile)
	} else {
		for _, k := range keyFields(sa, Algorithm{}) {
			if k.to.Len() > 0 {
				w.line(4, k.name, hidden)
			}
		}
	}
	fmt.Fprintf(w, "    esn: %t\n", sa.ESN)
	if sa.Direction == In {
		fmt.Fprintf(w, "    replay_window: %d\n", sa.ReplayWindow)
	}
	w.lifetime("lifetime", sa.Lifetime)
	w.lifetime("soft_lifetime", sa.SoftLifetime)
	w.encap(sa)
	w.headers(&sa.Headers)
}

func (w *writer) policy(p *Policy) {
	fmt.Fprintf(w, "  - name: %s\n", plain(p.Name))
	w.line(4, "direction", string(p.Direction))
	w.list(4, "local", texts(p.Local))
	w.list(4, "remote", texts(p.Remote))
	if p.Protocol != nil {
		w.line(4, "protocol", protocolName(p.Protocol))
	}
	w.upper(p)
	w.line(4, "action", string(p.Action))
	if p.Reject {
		w.line(4, "reject", "true")
	}
	if p.DiscardFragments {
		w.line(4, "fragments", string(Discard))
	}
	switch p.MSSClamp {
	case 0:
	case ClampToPMTU:
		w.WriteString("    mss_clamp: pmtu\n")
	default:
		fmt.Fprintf(w, "    mss_clamp: %d\n", p.MSSClamp)
	}
	w.list(4, "out", p.Out)
	w.list(4, "in", p.In)
}

func texts[T fmt.Stringer](items []T) []string {
	r := make([]string, len(items))
	for i, x := range items {
		r[i] = x.String()
	}
	return r
}

// plain puts quotes around what YAML could read as anything but this text.
func plain(t string) string {
	for i, r := range t {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && (i == 0 && r != '/' || !strings.ContainsRune("/._- ", r)) {
			return fmt.Sprintf("%q", t)
		}
	}
	switch strings.ToLower(t) {
	case "", "null":
		return fmt.Sprintf("%q", t)
	}
	return t
}
