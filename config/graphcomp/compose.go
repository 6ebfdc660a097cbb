package graphcomp

import (
	"fmt"
	"slices"
	"strings"
)

// compose checks that the nodes make an appliance.
func (c *compiler) compose() {
	c.cycles()
	if len(c.errs) > 0 {
		return
	}
	for _, n := range c.graph.Nodes {
		c.stand(n)
	}
	for _, name := range []string{"ethkern", "ethdev", "vnet", "ip"} {
		if c.graph.only(name) == nil {
			c.failAt(1, 1, "add name="+name+";", "the graph has no %s", name)
		}
	}
	if len(c.errs) > 0 {
		return
	}
	c.sides()
	c.protection()
}

// cycles finds nodes that stand on themselves.
func (c *compiler) cycles() {
	const (
		walking = 1
		done    = 2
	)
	state := make(map[*Node]int)
	var path []string
	var walk func(n *Node)
	walk = func(n *Node) {
		state[n] = walking
		path = append(path, n.Name)
		for i, below := range n.Lower {
			switch state[below] {
			case walking:
				from := slices.Index(path, below.Name)
				c.fail(n.lower[i], "take one of them out", "a cycle: %s", strings.Join(append(slices.Clone(path[from:]), below.Name), " stands on "))
			case 0:
				walk(below)
			}
		}
		path = path[:len(path)-1]
		state[n] = done
	}
	for _, n := range c.graph.Nodes {
		if state[n] == 0 {
			walk(n)
		}
	}
}

// stand checks what a node stands on.
func (c *compiler) stand(n *Node) {
	i := 0
	for _, want := range n.kind.lower {
		count := 0
		for i < len(n.Lower) && slices.Contains(want.kinds, n.Lower[i].Protocol) && (want.many || count == 0) {
			count++
			i++
		}
		if count > 0 || want.optional {
			continue
		}
		hint := fmt.Sprintf("%s stands on %s", n.Protocol, standsOn(n.kind.lower))
		if i < len(n.Lower) {
			c.fail(n.lower[i], hint, "%s cannot stand on %s here", n.Name, n.Lower[i].Name)
		} else {
			c.failAt(n.Pos.Line, n.Pos.Column, hint, "%s stands on nothing where it needs %s", n.Name, strings.Join(want.kinds, " or "))
		}
		return
	}
	if i < len(n.Lower) {
		hint := fmt.Sprintf("%s stands on %s", n.Protocol, standsOn(n.kind.lower))
		c.fail(n.lower[i], hint, "%s cannot stand on %s here", n.Name, n.Lower[i].Name)
	}
}

func standsOn(list []lower) string {
	if len(list) == 0 {
		return "nothing"
	}
	var words []string
	for _, l := range list {
		text := strings.Join(l.kinds, "|")
		switch {
		case l.many:
			text += " ..."
		case l.optional:
			text = "[" + text + "]"
		}
		words = append(words, text)
	}
	return strings.Join(words, ", ")
}

// sides checks that vnet joins the kernel's side with the wire's.
func (c *compiler) sides() {
	vnet := c.graph.only("vnet")
	for i := 0; i < 4; i += 2 {
		eth, arp := vnet.Lower[i], vnet.Lower[i+1]
		if arp.Lower[0] != eth {
			c.fail(vnet.lower[i+1], fmt.Sprintf("name the arp of %s", eth.Name), "%s stands on %s, and vnet has it beside %s", arp.Name, arp.Lower[0].Name, eth.Name)
			return
		}
	}
	if driver := vnet.Lower[0].Lower[0]; driver == vnet.Lower[2].Lower[0] {
		c.fail(vnet.lower[2], "one leads to ethkern and the other to ethdev", "both sides of vnet lead to %s", driver.Name)
		return
	}
	kern, dev := c.graph.side("ethkern"), c.graph.side("ethdev")
	for _, n := range c.graph.Nodes {
		if (n.Protocol == "eth" || n.Protocol == "arp") && !slices.Contains(vnet.Lower, n) {
			c.failAt(n.Pos.Line, n.Pos.Column, "remove it", "vnet does not stand on %s", n.Name)
		}
	}
	for _, o := range kern.arp.Options {
		c.failAt(o.Pos.Line, o.Pos.Column, fmt.Sprintf("write romopt %s %s;", dev.arp.Name, o), "%s answers the kernel with the host's own Ethernet address for every neighbour, and does not know the option %s", kern.arp.Name, o.Name)
	}
	a, b := interfaceOf(kern.driver), interfaceOf(dev.driver)
	if a.Name != "" && b.Name != "" && a.Args[0] != b.Args[0] {
		c.failAt(b.Pos.Line, b.Pos.Column, "name one interface", "ethkern and ethdev are the two ends of one interface, found %s and %s", a.Args[0], b.Args[0])
	}
}

func interfaceOf(n *Node) Option {
	o, _ := n.Option("interface")
	return o
}

// A side is what stands over one driver.
type side struct{ driver, eth, arp *Node }

func (g *Graph) side(driver string) side {
	vnet := g.only("vnet")
	for i := 0; i < 4; i += 2 {
		if d := vnet.Lower[i].Lower[0]; d.Protocol == driver {
			return side{d, vnet.Lower[i], vnet.Lower[i+1]}
		}
	}
	return side{}
}

// Protects says whether there is IPsec in the graph, or it only forwards.
func (g *Graph) Protects() bool { return g.only("spiint") != nil }

// protection checks the IPsec part, if there is one.
func (c *compiler) protection() {
	spiint := c.graph.only("spiint")
	if spiint == nil {
		return
	}
	if ip := spiint.Lower[0]; len(ip.Lower) < 2 {
		c.failAt(ip.Pos.Line, ip.Pos.Column, "write protocols=vnet,rfc1825", "spiint wants packets protected, and ip does not stand on rfc1825")
		return
	}
	saidmgr := spiint.Lower[1]
	if !saidmgr.stands("km/alg") {
		c.failAt(saidmgr.Pos.Line, saidmgr.Pos.Column, "add km/alg to its protocols=", "saidmgr does not stand on km/alg, which says by which slot an SA protects")
	}
	if !saidmgr.stands("km/sauser") && !saidmgr.stands("km/b") {
		c.failAt(saidmgr.Pos.Line, saidmgr.Pos.Column, "add one of them to its protocols=", "saidmgr stands neither on km/sauser nor on km/b, which say what is protected")
	}
	above := make(map[*Node]*Node)
	for _, n := range c.graph.Nodes {
		if !isTransform(n.Protocol) {
			continue
		}
		km := n.Lower[0]
		if before := above[km]; before != nil && before.Protocol != n.Protocol {
			c.fail(n.lower[0], "give each a key manager of its own", "%s has the keys of %s, and an SA protects by one of them", km.Name, before.Name)
		}
		if slices.Contains(policyManagers(), km.Name) {
			c.fail(n.lower[0], "", "%s says what is protected, and holds no keys for %s", km.Name, n.Name)
		}
		above[km] = n
	}
}

// policyManagers are the key managers whose values are no keys.
func policyManagers() []string { return []string{"km/sauser", "km/b", "km/alg"} }

func (n *Node) stands(name string) bool {
	return slices.ContainsFunc(n.Lower, func(l *Node) bool { return l.Name == name })
}
