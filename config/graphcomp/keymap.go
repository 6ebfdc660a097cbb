package graphcomp

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"bitw/config"
)

// A State is that of a key.
type State uint8

// The three states of a key.
const (
	Empty   State = iota // there is none
	Valid                // it is in use
	Invalid              // there is one, and it must not be used
)

// String returns "empty", "valid" or "invalid".
func (s State) String() string {
	switch s {
	case Valid:
		return "valid"
	case Invalid:
		return "invalid"
	}
	return "empty"
}

// Params are what kmparams says of a key manager.
type Params struct {
	// Address is the length of addresses in octets.
	Address int
	// Least and Most bound the length of keys in octets.
	Least, Most int
	// Size is how many keys the map holds.
	Size int
}

// String is the three words of kmparams.
func (p Params) String() string {
	key := strconv.Itoa(p.Least)
	if p.Most != p.Least {
		key += "-" + strconv.Itoa(p.Most)
	}
	return fmt.Sprintf("%d %s %d", p.Address, key, p.Size)
}

// parseParams reads three words that were checked as an option's.
func parseParams(args []string) (p Params, err error) {
	if p.Address, err = parseCount(args[0], 1); err != nil {
		return p, err
	}
	if p.Least, p.Most, err = parseRange(args[1]); err != nil {
		return p, err
	}
	p.Size, err = parseCount(args[2], 1)
	return p, err
}

var (
	// ErrMapFull is returned for one key more than kmparams allows.
	ErrMapFull = errors.New("the map is full")
	// ErrNoKey is returned for an address that the map does not hold.
	ErrNoKey = errors.New("there is no key")
)

// A KeyMap is what one key manager holds: keys by address, in the order in which they
// came. It is for one goroutine at a time.
type KeyMap struct {
	// Manager is the name of the node, such as "km/md5".
	Manager string
	Params
	keys []*Key
}

// A Key is one entry of a KeyMap.
type Key struct {
	// Address has the octets by which it is found.
	Address []byte
	// Value is the key. One of no octets is valid where kmparams allows it.
	Value config.Secret
	State State
	// Pos is where its value stands in the key file; the zero Position at run time.
	Pos config.Position
}

// newKeyMap makes an empty map. The error is about parameters that the manager cannot have.
func newKeyMap(manager string, p Params) (*KeyMap, error) {
	sizes, what := []int{8, 20}, "an SPI and a destination"
	switch manager {
	case "km/sauser":
		sizes, what = []int{8, 32}, "a source and a destination"
	case "km/b":
		sizes, what = []int{4, 16}, "a destination"
	}
	if !slices.Contains(sizes, p.Address) {
		return nil, fmt.Errorf("an address of %s is %s, of %d or %d octets, and kmparams says %d", manager, what, sizes[0], sizes[1], p.Address)
	}
	return &KeyMap{Manager: manager, Params: p}, nil
}

// clone copies the map; the values are shared.
func (m *KeyMap) clone() *KeyMap {
	c := &KeyMap{Manager: m.Manager, Params: m.Params}
	for _, k := range m.keys {
		copied := *k
		c.keys = append(c.keys, &copied)
	}
	return c
}

// Keys returns the entries. They are the map's.
func (m *KeyMap) Keys() []*Key { return slices.Clone(m.keys) }

// Resolve returns the entry of an address. An address that the map does not hold has an
// empty key.
func (m *KeyMap) Resolve(address []byte) Key {
	if k := m.find(address); k != nil {
		return *k
	}
	return Key{Address: address}
}

func (m *KeyMap) find(address []byte) *Key {
	for _, k := range m.keys {
		if string(k.Address) == string(address) {
			return k
		}
	}
	return nil
}

// Set makes value the key of an address, and valid. It copies both. The errors are about
// lengths that kmparams does not allow, and ErrMapFull; then nothing has changed.
func (m *KeyMap) Set(address, value []byte) error {
	if err := m.checkLengths(address, len(value)); err != nil {
		return err
	}
	k := m.find(address)
	if k == nil {
		if len(m.keys) >= m.Size {
			return fmt.Errorf("%s: %w: kmparams allows %d keys", m.Manager, ErrMapFull, m.Size)
		}
		k = &Key{Address: slices.Clone(address)}
		m.keys = append(m.keys, k)
	}
	k.Value, k.State, k.Pos = config.NewSecret(value), Valid, config.Position{}
	return nil
}

func (m *KeyMap) checkLengths(address []byte, n int) error {
	if len(address) != m.Address {
		return fmt.Errorf("an address of %s has %d octets, found %d", m.Manager, m.Address, len(address))
	}
	if n < m.Least || n > m.Most {
		want := strconv.Itoa(m.Least)
		if m.Most != m.Least {
			want += " to " + strconv.Itoa(m.Most)
		}
		return fmt.Errorf("a key of %s has %s octets, found %d", m.Manager, want, n)
	}
	return nil
}

// Invalidate makes a key invalid; it is kept. The error is ErrNoKey.
func (m *KeyMap) Invalidate(address []byte) error {
	k := m.find(address)
	if k == nil {
		return fmt.Errorf("%s/%s: %w", m.Manager, m.AddressText(address), ErrNoKey)
	}
	if k.State == Valid {
		k.State = Invalid
	}
	return nil
}

// Clear forgets a key, so that it is empty. Copies of its Secret elsewhere remain.
func (m *KeyMap) Clear(address []byte) error {
	k := m.find(address)
	if k == nil {
		return fmt.Errorf("%s/%s: %w", m.Manager, m.AddressText(address), ErrNoKey)
	}
	m.keys = slices.DeleteFunc(m.keys, func(x *Key) bool { return x == k })
	return nil
}

// AddressText is an address as people write it: the octets of km/sauser as
// 192.0.2.1/192.0.2.2, those of km/b as 192.0.2.2, and others as 0x00001001/192.0.2.2.
func (m *KeyMap) AddressText(address []byte) string {
	if len(address) != m.Address {
		return hex.EncodeToString(address)
	}
	switch m.Manager {
	case "km/sauser":
		a, b := m.pair(address)
		return a.String() + "/" + b.String()
	case "km/b":
		return m.host(address).String()
	}
	spi, dst := m.association(address)
	return fmt.Sprintf("0x%08x/%s", spi, dst)
}

// pair is an address of km/sauser.
func (m *KeyMap) pair(address []byte) (source, destination netip.Addr) {
	half := len(address) / 2
	return m.host(address[:half]), m.host(address[half:])
}

// host is an address of km/b, or a part of another's.
func (m *KeyMap) host(octets []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(octets) // the lengths were checked
	return a
}

// association is an address of any other manager.
func (m *KeyMap) association(address []byte) (spi uint32, destination netip.Addr) {
	return binary.BigEndian.Uint32(address), m.host(address[4:])
}

// Octets reads octets as people write them: hexadecimal, or parts between slashes that
// are hexadecimal, IP addresses, or numbers of 32 bits with 0x, such as
// 0x1001/192.0.2.2. Two quotes are no octets.
func Octets(text string) ([]byte, error) {
	if text == `""` {
		return nil, nil
	}
	var octets []byte
	for _, x := range strings.Split(text, "/") {
		number, isNumber := strings.CutPrefix(x, "0x")
		switch a, err := netip.ParseAddr(x); {
		case err == nil && a.Zone() == "":
			octets = append(octets, a.AsSlice()...)
		case isNumber && len(number) <= 8:
			n, err := strconv.ParseUint(number, 16, 32)
			if err != nil {
				return nil, errors.New("a number behind 0x is not hexadecimal")
			}
			octets = binary.BigEndian.AppendUint32(octets, uint32(n))
		default:
			b, err := hexOctets(x)
			if err != nil {
				return nil, err
			}
			octets = append(octets, b...)
		}
	}
	return octets, nil
}

// hexOctets reads hexadecimal digits with or without 0x, which colons and underscores may
// group. The error does not show them, as they may be a key.
func hexOctets(text string) ([]byte, error) {
	text = strings.TrimPrefix(text, "0x")
	b, err := hex.DecodeString(strings.NewReplacer(":", "", "_", "").Replace(text))
	switch {
	case errors.Is(err, hex.ErrLength):
		return nil, errors.New("an odd number of hexadecimal digits")
	case err != nil:
		return nil, errors.New("not hexadecimal")
	case len(b) == 0:
		return nil, errors.New(`no octets; two quotes ("") stand for none`)
	}
	return b, nil
}

// ValueOctets reads a value for the manager: SPIs and slots as Octets has them, keys in
// hexadecimal.
func (m *KeyMap) ValueOctets(text string) ([]byte, error) {
	if slices.Contains([]string{"km/sauser", "km/b"}, m.Manager) {
		return Octets(text)
	}
	if text == `""` {
		return nil, nil
	}
	return hexOctets(text)
}

// ValueText is the value as ValueOctets reads it. It shows the key.
func (m *KeyMap) ValueText(value config.Secret) string {
	b := value.Bytes()
	switch {
	case len(b) == 0:
		return `""`
	case slices.Contains([]string{"km/sauser", "km/b"}, m.Manager) && len(b)%4 == 0:
		var words []string
		for ; len(b) > 0; b = b[4:] {
			words = append(words, fmt.Sprintf("0x%08x", binary.BigEndian.Uint32(b)))
		}
		return strings.Join(words, "/")
	}
	return hex.EncodeToString(b)
}
