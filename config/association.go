package config

import (
	"fmt"
	"net/netip"
	"strings"
)

// A saNode is what later checks need of an SA beyond its value.
type saNode struct {
	name      string
	place     place
	direction Direction
	// whole says that direction, mode and all endpoints are known.
	whole bool
	index int
	mode  place
}

type saID struct {
	spi         uint32
	destination netip.Addr
	protocol    Protocol
}

func (d *decoder) securityAssociations(n *node) {
	ids := make(map[saID]saNode)
	keys := make(map[string]SA)
	items := d.list(n, "security associations")
	d.countKeyFiles(items)
	for _, item := range items {
		f := d.fields(item, "a security association", saKeyNames...)
		if f == nil {
			continue
		}
		sa := SA{ReplayWindow: DefaultReplayWindow, Pos: d.position(item.place)}
		what := "a security association"
		if x := d.required(f, "name", what); x != nil {
			if sa.Name = d.name(x); sa.Name != "" {
				what = fmt.Sprintf("security association %q", sa.Name)
				if before, twice := d.saNames[sa.Name]; twice {
					d.fail(x.place, "give each a name of its own", "%s is already in line %d", what, before.line)
				} else {
					d.saNames[sa.Name] = x.place
				}
			}
		}
		d.saIdentity(f, &sa, what)
		d.saTuning(f, &sa)
		d.saEncap(f, &sa)
		d.saHeaders(f, &sa)
		algorithm, known := d.algorithm(f, &sa, what)
		d.saKeys(f, &sa, what, algorithm, known)
		d.config.SAs = append(d.config.SAs, sa)

		sn := saNode{sa.Name, item.place, sa.Direction, sa.Direction != "" && sa.Mode != "" && sa.Source.IsValid() && sa.Destination.IsValid() &&
			(sa.Mode != BEET || sa.InnerSource.IsValid() && sa.InnerDestination.IsValid()), len(d.config.SAs) - 1, item.place}
		if x := f.by["mode"]; x != nil {
			sn.mode = x.place
		}
		d.sas = append(d.sas, sn)
		if sa.SPI != 0 && sa.Destination.IsValid() && sa.Protocol != "" {
			id := saID{sa.SPI, sa.Destination, sa.Protocol}
			if before, twice := ids[id]; twice {
				d.fail(f.by["spi"].place, "give each an SPI of its own", "SPI 0x%x for %s to %s is already that of %q in line %d",
					sa.SPI, sa.Protocol, sa.Destination, before.name, before.place.line)
			} else {
				ids[id] = sn
			}
		}
		if known && algorithm.CounterMode && sa.EncryptionKey.Len() > 0 {
			d.counterMode(f, &sa, keys)
		}
	}
}

// counterMode checks that no nonce is used twice: by two SAs with one key, or by
// one SA before and after a restart.
func (d *decoder) counterMode(f *fields, sa *SA, keys map[string]SA) {
	at := f.by["encryption_key"]
	if at == nil {
		at = f.by["key_file"]
	}
	key := string(sa.EncryptionKey.Bytes())
	if before, twice := keys[key]; twice {
		d.fail(at.place, "give each SA a key of its own", "the encryption key is also that of %q in line %d; with %s two SAs with one key reveal what they protect",
			before.Name, before.Pos.Line, sa.Algorithm)
	} else {
		keys[key] = *sa
	}
	if sa.Direction == Out && d.config.StateDir == "" {
		d.fail(f.by["algorithm"].place, "set state_dir, or take an algorithm without a counter",
			"%s must never repeat a sequence number with one key, and without state_dir they start again with bitw", sa.Algorithm)
	}
}

// saIdentity reads what names an SA and where it is.
func (d *decoder) saIdentity(f *fields, sa *SA, what string) {
	if n := d.required(f, "direction", what); n != nil {
		sa.Direction = enum(d.source, n, Out, In)
	}
	if n := d.required(f, "protocol", what); n != nil {
		sa.Protocol = enum(d.source, n, ESP, AH)
	}
	if n := d.required(f, "mode", what); n != nil {
		sa.Mode = enum(d.source, n, Transport, Tunnel, BEET)
	}
	if n := d.required(f, "spi", what); n != nil {
		// RFC 4303 §2.1: 1 to 255 are IANA's, 0 is for local use.
		if v, err := parseNumber(n.text); n.kind == scalar && err == nil && v < 256 {
			d.fail(n.place, "choose a number from 0x100 to 0xffffffff", "SPI %s is reserved (RFC 4303 §2.1)", quote(n.text))
		} else if v, ok := d.number(n, 256, 0xffffffff); ok {
			sa.SPI = uint32(v)
		}
	}
	sa.Source, sa.Destination = d.ends(f, what, "source", "destination")
	if sa.Mode == BEET {
		if sa.Protocol == AH {
			d.fail(f.by["mode"].place, "take protocol: esp, or mode: tunnel", "mode beet is for esp only")
		}
		sa.InnerSource, sa.InnerDestination = d.ends(f, what, "inner_source", "inner_destination")
		return
	}
	for _, key := range []string{"inner_source", "inner_destination"} {
		if n := f.by[key]; n != nil && sa.Mode != "" {
			d.fail(n.place, "remove it, or set mode: beet", "%s has %s, but its mode is %s", what, key, sa.Mode)
		}
	}
}

// ends reads the two addresses of one IP header. The second is invalid when they do
// not fit each other.
func (d *decoder) ends(f *fields, what, sourceKey, destinationKey string) (source, destination netip.Addr) {
	endpoint := func(key string) (a netip.Addr) {
		n := d.required(f, key, what)
		if n == nil {
			return a
		}
		a, ok := d.address(n)
		if ok && !isStation(a) {
			d.fail(n.place, "", "an SA goes from one host to another, found %s %s", key, a)
			return netip.Addr{}
		}
		return a
	}
	source, destination = endpoint(sourceKey), endpoint(destinationKey)
	switch {
	case !source.IsValid() || !destination.IsValid():
	case source.BitLen() != destination.BitLen():
		d.fail(f.by[destinationKey].place, "both are ends of one IP header", "%s %s is %s, %s %s is %s",
			sourceKey, source, family(source), destinationKey, destination, family(destination))
		destination = netip.Addr{}
	case source == destination:
		d.fail(f.by[destinationKey].place, "", "%s and %s are both %s", sourceKey, destinationKey, source)
	}
	return source, destination
}

// saTuning reads what has a default.
func (d *decoder) saTuning(f *fields, sa *SA) {
	if n := f.by["esn"]; n != nil {
		sa.ESN = d.boolean(n)
	}
	if n := f.by["replay_window"]; n != nil {
		if v, ok := d.number(n, 32, 65536); ok {
			sa.ReplayWindow = int(v+63) / 64 * 64
			if sa.Direction == Out {
				d.warn(n.place, "remove it", "replay_window has no effect on an SA with direction out")
			}
		}
	}
	d.lifetimes(f, sa)
}

// algorithm tells whether the algorithm's key lengths are known.
func (d *decoder) algorithm(f *fields, sa *SA, what string) (Algorithm, bool) {
	n := d.required(f, "algorithm", what)
	if n == nil {
		return Algorithm{}, false
	}
	t, ok := d.text(n, "the name of an algorithm")
	if !ok {
		return Algorithm{}, false
	}
	sa.Algorithm = t
	if d.opt.Algorithm == nil || sa.Protocol == "" {
		return Algorithm{}, false
	}
	a, err := d.opt.Algorithm(sa.Protocol, t)
	if err == nil {
		d.mayUse(n, t, a)
		d.noSequence(f, sa, a)
		return a, true
	}
	other := ESP
	if sa.Protocol == ESP {
		other = AH
	}
	var names []string
	if d.opt.AlgorithmNames != nil {
		names = d.opt.AlgorithmNames(sa.Protocol)
	}
	if _, no := d.opt.Algorithm(other, t); no == nil {
		d.fail(n.place, d.suggest(t, names, "set protocol: "+string(other)), "algorithm %q is for %s, and protocol is %s", t, other, sa.Protocol)
		return Algorithm{}, false
	}
	hint := d.suggest(t, names, "")
	switch {
	case hint != "":
	case len(names) > 0:
		hint = "known are " + strings.Join(names, ", ")
	default:
		hint = err.Error()
	}
	d.fail(n.place, hint, "unknown algorithm %s for %s", quote(t), sa.Protocol).Err = err
	return Algorithm{}, false
}
