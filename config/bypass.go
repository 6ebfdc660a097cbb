package config

import "path/filepath"

// bypass reads who may send past the cut.
func (d *decoder) bypass(f *fields) {
	c := &d.config
	if n := f.by["forbid_bypass"]; n != nil {
		c.ForbidBypass = d.boolean(n)
	}
	n := f.by["bypass_cgroup"]
	if n == nil {
		return
	}
	t, ok := d.text(n, "the directory of a cgroup")
	if !ok {
		return
	}
	switch {
	case !filepath.IsAbs(t):
		d.fail(n.place, "such as /sys/fs/cgroup/system.slice", "expected the absolute path of a cgroup's directory, found %s", quote(t))
	case !c.ForbidBypass:
		d.warn(n.place, "add forbid_bypass: true", "bypass_cgroup means nothing without forbid_bypass")
	}
	c.BypassCgroup = filepath.Clean(t)
}
