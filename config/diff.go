package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// A ChangeKind is how something differs between two configurations.
type ChangeKind string

// Kinds of change.
const (
	Added   ChangeKind = "added"
	Removed ChangeKind = "removed"
	Changed ChangeKind = "changed"
	// Moved is only said of a policy: it stands before or after another one than it
	// did, which matters because the first match decides.
	Moved ChangeKind = "moved"
)

// A Subject is what a change is about.
type Subject string

// Subjects of change.
const (
	SettingEdit  Subject = "setting"
	ClassEdit    Subject = "class"
	NeighborEdit Subject = "static neighbor"
	RouteEdit    Subject = "route"
	SAEdit       Subject = "security association"
	PolicyEdit   Subject = "policy"
)

// A Change is one difference between two configurations.
type Change struct {
	Kind    ChangeKind
	Subject Subject
	// Name is the setting's key, the neighbour's address, the route's destination,
	// or the name.
	Name string
	// Fields are the keys of what changed within it, for Changed.
	Fields []string
}

// String is such as `policy "to-b" changed: remote, action`.
func (c Change) String() string {
	t := fmt.Sprintf("%s %q %s", c.Subject, c.Name, c.Kind)
	if len(c.Fields) > 0 {
		t += ": " + strings.Join(c.Fields, ", ")
	}
	return t
}

// Diff names what has to happen to come from old to new: settings, classes,
// neighbours, routes, SAs, then policies, in the order of new, what is removed
// last. Positions and the file that a key comes from make no difference.
func Diff(old, new *Config) []Change {
	var r []Change
	for _, key := range differing([]item{
		{"interface", old.Interface, new.Interface}, {"inside", old.Inside, new.Inside},
		{"protected", old.Protected, new.Protected}, {"mirror_link", old.MirrorLink, new.MirrorLink}, {"on_failure", old.OnFailure, new.OnFailure},
		{"control", old.Control, new.Control}, {"control_group", old.ControlGroup, new.ControlGroup},
		{"control_admin_group", old.ControlAdminGroup, new.ControlAdminGroup}, {"metrics", old.Metrics, new.Metrics}, {"state_dir", old.StateDir, new.StateDir},
		{"log_level", old.LogLevel, new.LogLevel}, {"trace", traceText(old.Trace), traceText(new.Trace)}, {"icmp_errors", old.ICMPErrors, new.ICMPErrors}, {"watchdog", old.Watchdog, new.Watchdog},
		{"confine", old.Confine, new.Confine}, {"forbid_bypass", old.ForbidBypass, new.ForbidBypass}, {"bypass_cgroup", old.BypassCgroup, new.BypassCgroup}, {"mtu", old.MTU, new.MTU}, {"offloads", old.Offloads, new.Offloads},
		{"allow_insecure", old.AllowInsecure, new.AllowInsecure},
		{"neighbors", old.Neighbors, new.Neighbors}, {"fragment_memory", old.Limits.FragmentMemory, new.Limits.FragmentMemory},
		{"fragment_timeout", old.Limits.FragmentTimeout, new.Limits.FragmentTimeout}, {"acquire", old.Limits.Acquire, new.Limits.Acquire},
	}) {
		r = append(r, Change{Kind: Changed, Subject: SettingEdit, Name: key})
	}
	r = append(r, diff(ClassEdit, old.Classes, new.Classes,
		func(x Class) string { return x.Name },
		func(a, b Class) []item { return []item{{"action", a.Action, b.Action}} })...)
	r = append(r, diff(NeighborEdit, old.StaticNeighbors, new.StaticNeighbors,
		func(x Neighbor) string { return x.Address.String() },
		func(a, b Neighbor) []item { return []item{{"mac", a.MAC.String(), b.MAC.String()}} })...)
	r = append(r, diff(RouteEdit, old.Routes, new.Routes,
		func(x Route) string { return x.Destination.String() },
		func(a, b Route) []item { return []item{{"via", a.Via, b.Via}} })...)
	r = append(r, diff(SAEdit, old.SAs, new.SAs, func(x SA) string { return x.Name }, saItems)...)
	r = append(r, diff(PolicyEdit, old.Policies, new.Policies, func(x Policy) string { return x.Name }, policyItems)...)
	return append(r, moved(old.Policies, new.Policies)...)
}

// An item is one key with its two values.
type item struct {
	key      string
	old, new any
}

func saItems(a, b SA) []item {
	return append([]item{
		{"direction", a.Direction, b.Direction}, {"protocol", a.Protocol, b.Protocol}, {"mode", a.Mode, b.Mode},
		{"spi", a.SPI, b.SPI}, {"source", a.Source, b.Source}, {"destination", a.Destination, b.Destination},
		{"inner_source", a.InnerSource, b.InnerSource}, {"inner_destination", a.InnerDestination, b.InnerDestination},
		{"algorithm", a.Algorithm, b.Algorithm},
		{"encryption_key", true, a.EncryptionKey.Equal(b.EncryptionKey)},
		{"integrity_key", true, a.IntegrityKey.Equal(b.IntegrityKey)},
		{"esn", a.ESN, b.ESN}, {"replay_window", a.ReplayWindow, b.ReplayWindow}, {"lifetime", a.Lifetime, b.Lifetime}, {"soft_lifetime", a.SoftLifetime, b.SoftLifetime},
		{"encap", a.Encap, b.Encap}, {"tfc_padding", a.TFCPadding, b.TFCPadding}, {"dummy", a.Dummies, b.Dummies},
	}, headerItems(&a.Headers, &b.Headers)...)
}

func policyItems(a, b Policy) []item {
	return []item{
		{"direction", a.Direction, b.Direction}, {"local", a.Local, b.Local}, {"remote", a.Remote, b.Remote},
		{"protocol", a.Protocol, b.Protocol}, {"local_ports", a.upper("local_ports", a.LocalPorts), b.upper("local_ports", b.LocalPorts)},
		{"remote_ports", a.upper("remote_ports", a.RemotePorts), b.upper("remote_ports", b.RemotePorts)},
		{"icmp", a.upper("icmp", a.ICMP), b.upper("icmp", b.ICMP)}, {"mh_type", a.upper("mh_type", a.MHTypes), b.upper("mh_type", b.MHTypes)},
		{"populate", a.Populate, b.Populate}, {"mss_clamp", a.MSSClamp, b.MSSClamp}, {"reject", a.Reject, b.Reject}, {"fragments", a.DiscardFragments, b.DiscardFragments}, {"action", a.Action, b.Action},
		{"out", a.Out, b.Out}, {"in", a.In, b.In},
	}
}

func differing(items []item) []string {
	var keys []string
	for _, x := range items {
		if !reflect.DeepEqual(x.old, x.new) {
			keys = append(keys, x.key)
		}
	}
	return keys
}

func diff[T any](subject Subject, old, new []T, name func(T) string, items func(a, b T) []item) []Change {
	var r []Change
	before := make(map[string]T, len(old))
	for _, x := range old {
		before[name(x)] = x
	}
	for _, x := range new {
		n := name(x)
		was, ok := before[n]
		if !ok {
			r = append(r, Change{Kind: Added, Subject: subject, Name: n})
			continue
		}
		delete(before, n)
		if keys := differing(items(was, x)); len(keys) > 0 {
			r = append(r, Change{Changed, subject, n, keys})
		}
	}
	for _, x := range old {
		if _, gone := before[name(x)]; gone {
			r = append(r, Change{Kind: Removed, Subject: subject, Name: name(x)})
		}
	}
	return r
}

// moved names the fewest policies whose moving makes the order of old that of new:
// those outside a longest common subsequence.
func moved(old, new []Policy) []Change {
	at := make(map[string]int, len(old))
	for i, p := range old {
		at[p.Name] = i
	}
	// tails[n] is the end of the best rising sequence of n+1 old places, by its index
	// in new.
	var tails []int
	previous := make([]int, len(new))
	for j, p := range new {
		i, ok := at[p.Name]
		if !ok {
			continue
		}
		n, _ := slices.BinarySearchFunc(tails, i, func(t, i int) int { return at[new[t].Name] - i })
		previous[j] = -1
		if n > 0 {
			previous[j] = tails[n-1]
		}
		if n == len(tails) {
			tails = append(tails, j)
		} else {
			tails[n] = j
		}
	}
	stays := make(map[string]bool, len(tails))
	if len(tails) > 0 {
		for j := tails[len(tails)-1]; j >= 0; j = previous[j] {
			stays[new[j].Name] = true
		}
	}
	var r []Change
	for _, p := range new {
		if _, ok := at[p.Name]; ok && !stays[p.Name] {
			r = append(r, Change{Kind: Moved, Subject: PolicyEdit, Name: p.Name})
		}
	}
	return r
}
