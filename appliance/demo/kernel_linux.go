package demo

import (
	"errors"
	"fmt"
	"net"

	"bitw/appliance"
	"bitw/appliance/netns"
	"bitw/netstack/ethtap"
)

// card is the interface of each host.
const card = "eth0"

// kernelNetwork joins two network namespaces by a veth.
type kernelNetwork struct {
	hosts    [2]*netns.Namespace
	sniffers [2]*sniffer
	seen     *evidence
}

// newKernelNetwork makes the hosts, and starts the capture of the wire. The error
// says in one sentence why this machine cannot have them; then nothing is left.
func newKernelNetwork() (_ network, err error) {
	if err := netns.Usable(); err != nil {
		return nil, err
	}
	n := &kernelNetwork{}
	defer func() {
		if err != nil {
			_ = n.close()
		}
	}()
	for i := range n.hosts {
		if n.hosts[i], err = netns.New(); err != nil {
			return nil, err
		}
	}
	if err := n.join(); err != nil {
		return nil, err
	}
	n.seen = newEvidence([2]net.HardwareAddr{mac(a), mac(b)})
	for i, h := range n.hosts {
		if n.sniffers[i], err = sniff(h, card, i, n.seen); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// cannotCut says that an error of the appliance is about what this machine lacks.
func cannotCut(err error) bool {
	return errors.Is(err, ethtap.ErrNoHook) || errors.Is(err, ethtap.ErrNoTUN) || errors.Is(err, ethtap.ErrPermission)
}

// join gives each host its eth0.
func (n *kernelNetwork) join() error {
	if err := netns.Join(n.hosts[a], n.hosts[b], card, mac(a), mac(b), mtu); err != nil {
		return err
	}
	for i, h := range n.hosts {
		if err := h.Up(card, addresses(i)...); err != nil {
			return fmt.Errorf("%s of host %s cannot be configured (%w)", card, hostName(i), err)
		}
	}
	return nil
}

func (n *kernelNetwork) host(i int) host     { return n.hosts[i] }
func (n *kernelNetwork) evidence() *evidence { return n.seen }

func (n *kernelNetwork) options(i int) (string, []appliance.Option) {
	return card, []appliance.Option{
		appliance.WithNetNS(n.hosts[i].Path()),
		// The namespaces end with the demo, and the cut with them.
		appliance.WithOpenOnStop(),
	}
}

func (n *kernelNetwork) settle() error {
	var errs []error
	for i, s := range n.sniffers {
		if s != nil {
			errs = append(errs, s.stop())
			n.sniffers[i] = nil
		}
	}
	return errors.Join(errs...)
}

func (n *kernelNetwork) close() error {
	err := n.settle()
	for _, h := range n.hosts {
		if h != nil {
			h.Close()
		}
	}
	return err
}
