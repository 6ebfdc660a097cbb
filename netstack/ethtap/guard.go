//go:build linux

package ethtap

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The guard is an nftables table in the interface's namespace that drops what goes
// by an interface of a guarded name with another index than the cut one. While the
// cut is in place it does nothing. An interface that is deleted and created anew has
// a new index and none of our programs; the guard keeps it shut from its creation
// until it is cut. The former index is given only to who asks for it, or by clsact to one
// that comes back from another namespace; once the device knows that the interface is gone
// the guard lets no index pass. As a kernel object it outlives the process, as pins do. KeepShut
// raises one that lets no index pass, before anything is cut.
//
// By the netdev family it sees every frame, ARP too, and before the device is up.
// That needs a kernel whose chains are bound to the name of a device (Linux 6.16) and
// egress hooks (CONFIG_NETFILTER_EGRESS). Elsewhere it is of the inet family, which
// sees IPv4 and IPv6 of this host and what it routes.

// GuardKind is how an interface that is created anew is kept shut.
type GuardKind uint32

const (
	// GuardNone: it is not; what it carries until it is cut passes in the clear.
	GuardNone GuardKind = iota
	// GuardNetdev: every frame is dropped.
	GuardNetdev
	// GuardINet: IPv4 and IPv6 are dropped, ARP and other frames are not.
	GuardINet
)

// String returns "none", "netdev" or "inet", the last two being nftables' families.
func (g GuardKind) String() string {
	switch g {
	case GuardNone:
		return "none"
	case GuardNetdev:
		return "netdev"
	case GuardINet:
		return "inet"
	}
	return fmt.Sprintf("GuardKind(%d)", uint32(g))
}

const (
	guardPrefix = "bitw-"        // of the table's name, the interface's follows
	guardProbe  = "bitw-probe"   // a table that is never committed
	absentName  = "bitw:absent." // no interface can have this name, it has a colon
)

func guardTable(name string, family nftables.TableFamily) *nftables.Table {
	return &nftables.Table{Name: guardPrefix + name, Family: family}
}

var guardFamilies = [...]struct {
	kind   GuardKind
	family nftables.TableFamily
}{{GuardNetdev, nftables.TableFamilyNetdev}, {GuardINet, nftables.TableFamilyINet}}

// setGuard makes, or replaces in one transaction, the guard of table name: it lets
// index alone carry the names. It runs inside the namespace.
func setGuard(name string, names []string, index int) (GuardKind, error) {
	if !hasNamedHooks() {
		return GuardINet, setINetGuard(name, names, index)
	}
	if err := setNetdevGuard(name, names, index); err != nil {
		return GuardNone, err
	}
	return GuardNetdev, nil
}

// hasNamedHooks asks the kernel for an egress chain of a device that does not exist,
// in a transaction that leaves nothing.
func hasNamedHooks() bool {
	c := new(nftables.Conn)
	t := c.AddTable(&nftables.Table{Name: guardProbe, Family: nftables.TableFamilyNetdev})
	netdevChain(c, t, "probe", nftables.ChainHookEgress, absentName)
	c.DelTable(t)
	return c.Flush() == nil
}

func netdevChain(c *nftables.Conn, t *nftables.Table, name string, hook *nftables.ChainHook, device string) *nftables.Chain {
	return c.AddChain(&nftables.Chain{
		Name: name, Table: t, Type: nftables.ChainTypeFilter, Hooknum: hook,
		Priority: nftables.ChainPriorityFilter, Device: device,
	})
}

func setNetdevGuard(name string, names []string, index int) error {
	c := new(nftables.Conn)
	t := replaceTable(c, guardTable(name, nftables.TableFamilyNetdev))
	for i, n := range names {
		out := netdevChain(c, t, fmt.Sprintf("out%d", i), nftables.ChainHookEgress, n)
		in := netdevChain(c, t, fmt.Sprintf("in%d", i), nftables.ChainHookIngress, n)
		c.AddRule(&nftables.Rule{Table: t, Chain: out, Exprs: notIndex(expr.MetaKeyOIF, index)})
		c.AddRule(&nftables.Rule{Table: t, Chain: in, Exprs: notIndex(expr.MetaKeyIIF, index)})
	}
	return guardError(c.Flush())
}

func setINetGuard(name string, names []string, index int) error {
	c := new(nftables.Conn)
	t := replaceTable(c, guardTable(name, nftables.TableFamilyINet))
	for _, s := range []struct {
		chain           string
		hook            *nftables.ChainHook
		byName, byIndex expr.MetaKey
	}{
		{"out", nftables.ChainHookPostrouting, expr.MetaKeyOIFNAME, expr.MetaKeyOIF},
		{"in", nftables.ChainHookPrerouting, expr.MetaKeyIIFNAME, expr.MetaKeyIIF},
	} {
		chain := c.AddChain(&nftables.Chain{
			Name: s.chain, Table: t, Type: nftables.ChainTypeFilter, Hooknum: s.hook, Priority: nftables.ChainPriorityRaw,
		})
		for _, n := range names {
			wanted := make([]byte, unix.IFNAMSIZ)
			copy(wanted, n)
			c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: append([]expr.Any{
				&expr.Meta{Key: s.byName, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: wanted},
			}, notIndex(s.byIndex, index)...)})
		}
	}
	return guardError(c.Flush())
}

// replaceTable empties the table within the transaction; the kernel wants a table
// that is to be deleted to exist.
func replaceTable(c *nftables.Conn, t *nftables.Table) *nftables.Table {
	c.AddTable(t)
	c.DelTable(t)
	return c.AddTable(t)
}

// notIndex counts and drops what goes by another interface than that of the index.
func notIndex(key expr.MetaKey, index int) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(uint32(index))},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
}

func guardError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("nftables of kernel %s (CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET): %w", kernelRelease(), permission(err))
}

// findGuard gives the kind of the guard of table name and the index that it lets
// carry the name, 0 for none; GuardNone if there is no guard.
func findGuard(name string) (GuardKind, int) {
	c := new(nftables.Conn)
	for _, f := range guardFamilies {
		ts, err := c.ListTablesOfFamily(f.family)
		if err != nil {
			continue
		}
		for _, t := range ts {
			if t.Name != guardPrefix+name {
				continue
			}
			for _, chain := range []string{"out0", "out"} {
				rs, err := c.GetRules(t, &nftables.Chain{Name: chain, Table: t})
				if err != nil {
					continue
				}
				for _, r := range rs {
					if index, ok := onlyIndex(r); ok {
						return f.kind, index
					}
				}
			}
		}
	}
	return GuardNone, 0
}

func onlyIndex(r *nftables.Rule) (int, bool) {
	for _, e := range r.Exprs {
		if c, ok := e.(*expr.Cmp); ok && c.Op == expr.CmpOpNeq && len(c.Data) == 4 {
			return int(binaryutil.NativeEndian.Uint32(c.Data)), true
		}
	}
	return 0, false
}

// removeGuard removes the guard of table name and tells whether there was one.
func removeGuard(name string) (was bool, err error) {
	if kind, _ := findGuard(name); kind == GuardNone {
		return false, nil
	}
	var errs []error
	for _, f := range guardFamilies {
		c := new(nftables.Conn)
		c.DelTable(guardTable(name, f.family))
		switch err := c.Flush(); {
		case err == nil:
			was = true
		case !errors.Is(err, unix.ENOENT):
			errs = append(errs, fmt.Errorf("remove the guard of %s: %w", name, permission(err)))
		}
	}
	return was, errors.Join(errs...)
}

// The sides of a device that have an interface each.
const (
	outside = iota
	inside
)

// A guarded interface has two names: the one by which it was opened, since an interface
// of that name takes the place of one that is gone, and the present one.
type guarded struct {
	opened, name string
	index        int
}

// guarded are those of the device, by side.
func (d *Device) guarded() []guarded {
	list := []guarded{outside: {d.opts.Interface, d.info.Name, d.info.Index}}
	if d.twoNIC() {
		list = append(list, guarded{d.opts.Inside, d.info.Inside, d.info.InsideIndex})
	}
	return list
}

// raiseGuard makes the guard as it must be now. Without one the cut is as good as
// with it until the interface is deleted, so a failure is told by Guard alone.
func (d *Device) raiseGuard() {
	if d.opts.OnFailure != FailShut {
		return
	}
	for side, g := range d.guarded() {
		index := g.index
		if d.gone[side] {
			index = 0 // it may come back with the index that it had, without the programs
		}
		kind, err := setGuard(g.opened, slices.Compact([]string{g.opened, g.name}), index)
		if err != nil {
			kind = GuardNone
		}
		d.guard[side].Store(&guardState{kind, index, err})
	}
}

type guardState struct {
	kind  GuardKind
	index int // of the interface that may carry the name, 0 for none
	err   error
}

// Guard tells how the interface is kept shut when it is deleted and created anew, until
// it is cut again: GuardNone under FailOpen, and with the reason where the kernel cannot. Of
// two it is the less that is told.
func (d *Device) Guard() (kind GuardKind, err error) {
	for side := range d.guard {
		g := d.guard[side].Load()
		switch {
		case g == nil:
		case side == outside || g.kind == GuardNone || kind == GuardNetdev:
			kind, err = g.kind, errors.Join(err, g.err)
		}
	}
	return kind, err
}

// CheckGuard makes the guard anew if somebody has removed it, as reloading a firewall
// may ("flush ruleset"), and tells whether that was so.
func (d *Device) CheckGuard() (restored bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false, ErrClosed
	}
	err = d.InNamespace(func() error {
		for side, g := range d.guarded() {
			was := d.guard[side].Load()
			if was == nil || was.kind == GuardNone {
				continue
			}
			if kind, _ := findGuard(g.opened); kind == GuardNone {
				restored = true
			}
		}
		if !restored {
			return nil
		}
		d.raiseGuard()
		_, err := d.Guard()
		return err
	})
	return restored, err
}

// lowerGuard removes the guard, unless another cut has made it its own since.
func (d *Device) lowerGuard() error {
	var errs []error
	for side, g := range d.guarded() {
		was := d.guard[side].Load()
		if was == nil || was.kind == GuardNone {
			continue
		}
		if _, index := findGuard(g.opened); index == was.index {
			_, err := removeGuard(g.opened)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// dropGuards removes the guards of a cut that was taken over by another name, and under
// FailOpen the interfaces' own.
func (d *Device) dropGuards(formerly []string) error {
	var own []string
	for _, g := range d.guarded() {
		own = append(own, g.opened)
	}
	if d.opts.OnFailure == FailOpen {
		formerly, own = append(formerly, own...), nil
	}
	var errs []error
	for _, name := range formerly {
		if slices.Contains(own, name) {
			continue
		}
		_, err := removeGuard(name)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
