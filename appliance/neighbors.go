package appliance

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/ipsec"
)

// ErrNoNeighbor is returned for the deletion of a neighbour that is not known.
var ErrNoNeighbor = errors.New("no such neighbour")

// A MAC is an Ethernet address of 6 octets; as text it has colons.
type MAC net.HardwareAddr

// String returns for example "02:00:00:00:00:09".
func (m MAC) String() string { return net.HardwareAddr(m).String() }

// MarshalText implements encoding.TextMarshaler.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *MAC) UnmarshalText(text []byte) error {
	a, err := net.ParseMAC(string(text))
	if err != nil || len(a) != 6 {
		return fmt.Errorf("expected an Ethernet address such as 02:00:00:00:00:09, found %.40q", text)
	}
	*m = MAC(a)
	return nil
}

// A Neighbor is a station on the wire.
type Neighbor struct {
	Address netip.Addr `json:"address"`
	MAC     MAC        `json:"mac"`
}

// AddNeighbor makes a static neighbour on the wire known, which never expires and which
// traffic never changes. One with that address is replaced. It holds until the appliance
// ends or DeleteNeighbor.
func (a *Appliance) AddNeighbor(n Neighbor) error { return a.addNeighbor("", n) }

// addNeighbor is AddNeighbor for who asks.
func (a *Appliance) addNeighbor(by string, n Neighbor) error {
	b, err := a.running()
	if err != nil {
		return err
	}
	switch {
	case !n.Address.IsValid() || n.Address.Zone() != "" || n.Address.IsMulticast() || n.Address.IsUnspecified() || n.Address.IsLoopback() || n.Address.Is4In6() || n.Address == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return badRequest("expected the address of one station, found %q", n.Address)
	case b.own(n.Address):
		return badRequest("%v is this host's own address", n.Address)
	case b.twoNIC() && b.cfg.IsProtected(n.Address):
		return badRequest("%v is a protected host, which is on the inside", n.Address)
	case len(n.MAC) != 6 || n.MAC[0]&1 != 0 || bytes.Equal(n.MAC, make([]byte, 6)):
		return badRequest("expected the Ethernet address of one station, found %q", n.MAC)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.stack.AddStaticNeighbor(ipsec.RightNIC, protocolOf(n.Address), addressOf(n.Address), tcpip.LinkAddress(n.MAC)); err != nil {
		return fmt.Errorf("neighbor %v: %v", n.Address, err)
	}
	if b.added == nil {
		b.added = make(map[netip.Addr]tcpip.LinkAddress)
	}
	b.added[n.Address] = tcpip.LinkAddress(n.MAC)
	a.tell(Event{Kind: NeighborChanged, Level: "info", Text: "a static neighbour was added by hand", Address: n.Address.String(), MAC: n.MAC.String(), By: by})
	return nil
}

// DeleteNeighbor forgets a neighbour, learned or static. The error matches ErrNoNeighbor
// if none is known with that address.
func (a *Appliance) DeleteNeighbor(address netip.Addr) error { return a.deleteNeighbor("", address) }

// deleteNeighbor is DeleteNeighbor for who asks.
func (a *Appliance) deleteNeighbor(by string, address netip.Addr) error {
	b, err := a.running()
	if err != nil {
		return err
	}
	if !address.IsValid() || address.Zone() != "" || address.Is4In6() {
		return badRequest("expected an address, found %q", address)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	known := false
	for _, e := range b.neighborEntries(protocolOf(address)) {
		known = known || e.Addr == addressOf(address)
	}
	if !known {
		return fmt.Errorf("%w: %v", ErrNoNeighbor, address)
	}
	if err := b.stack.RemoveNeighbor(ipsec.RightNIC, protocolOf(address), addressOf(address)); err != nil {
		return fmt.Errorf("neighbor %v: %v", address, err)
	}
	delete(b.added, address)
	if b.deleted == nil {
		b.deleted = make(map[netip.Addr]bool)
	}
	for _, n := range b.live.Load().StaticNeighbors {
		if n.Address == address {
			b.deleted[address] = true
		}
	}
	a.tell(Event{Kind: NeighborChanged, Level: "info", Text: "a neighbour was removed by hand", Address: address.String(), By: by})
	return nil
}

// FlushNeighbors forgets all neighbours that were learned, and says how many.
func (a *Appliance) FlushNeighbors() (n int, err error) { return a.flushNeighbors("") }

// flushNeighbors is FlushNeighbors for who asks.
func (a *Appliance) flushNeighbors(by string) (n int, err error) {
	b, err := a.running()
	if err != nil {
		return 0, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, proto := range []tcpip.NetworkProtocolNumber{header.IPv4ProtocolNumber, header.IPv6ProtocolNumber} {
		for _, e := range b.neighborEntries(proto) {
			if e.State == stack.Static {
				continue
			}
			if err := b.stack.RemoveNeighbor(ipsec.RightNIC, proto, e.Addr); err != nil {
				return n, fmt.Errorf("neighbor %v: %v", e.Addr, err)
			}
			n++
		}
	}
	a.tell(Event{Kind: NeighborChanged, Level: "info", Text: fmt.Sprintf("%d learned neighbours were forgotten by hand", n), By: by})
	return n, nil
}

func (b *bump) neighborEntries(proto tcpip.NetworkProtocolNumber) []stack.NeighborEntry {
	entries, err := b.stack.Neighbors(ipsec.RightNIC, proto)
	if err != nil {
		return nil // the NIC does not speak that protocol
	}
	return entries
}

// serveAddNeighbor answers PUT /v1/neighbors/{address}.
func (a *Appliance) serveAddNeighbor(w http.ResponseWriter, r *http.Request) error {
	address, err := pathAddress(r)
	if err != nil {
		return err
	}
	body, err := requested[struct {
		MAC MAC `json:"mac"`
	}](r)
	if err != nil {
		return err
	}
	if err := a.addNeighbor(who(r.Context()), Neighbor{address, body.MAC}); err != nil {
		return err
	}
	return answer(w, struct{}{})
}

// serveDeleteNeighbor answers DELETE /v1/neighbors/{address}.
func (a *Appliance) serveDeleteNeighbor(w http.ResponseWriter, r *http.Request) error {
	address, err := pathAddress(r)
	if err != nil {
		return err
	}
	switch err := a.deleteNeighbor(who(r.Context()), address); {
	case errors.Is(err, ErrNoNeighbor):
		return &ControlError{Status: http.StatusNotFound, Code: CodeNoNeighbor, Message: err.Error()}
	case err != nil:
		return err
	}
	return answer(w, struct{}{})
}

// A Flushed tells how many neighbours were forgotten.
type Flushed struct {
	Flushed int `json:"flushed"`
}

// serveFlushNeighbors answers DELETE /v1/neighbors.
func (a *Appliance) serveFlushNeighbors(w http.ResponseWriter, r *http.Request) error {
	n, err := a.flushNeighbors(who(r.Context()))
	if err != nil {
		return err
	}
	return answer(w, Flushed{n})
}

func pathAddress(r *http.Request) (netip.Addr, error) {
	a, err := netip.ParseAddr(r.PathValue("address"))
	if err != nil {
		return a, badRequest("expected an address in the path, found %.60q", r.PathValue("address"))
	}
	return a, nil
}
