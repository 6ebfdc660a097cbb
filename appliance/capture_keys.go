package appliance

import (
	"io"
	"net/http"
	"net/netip"
	"time"

	"bitw/appliance/keylog"
	"bitw/sa"
	"bitw/sa/transform"
)

// serveKeyLog answers POST /v1/keys/wireshark: keys of all SAs for ESP, and of those that
// come later, as lines of Wireshark's table "esp_sa".
func (a *Appliance) serveKeyLog(s *stream, _ *http.Request) error {
	b, err := a.running()
	if err != nil {
		return err
	}
	if err := s.begin("text/plain; charset=utf-8"); err != nil {
		return err
	}
	a.tell(Event{Kind: KeysShown, Level: "warning", By: who(s.ctx), Text: "the keys of all security associations go to who asked by the control socket, for a capture"})
	defer a.watchers.add(Watcher{Kind: WatcherKeys, By: who(s.ctx), Since: time.Unix(0, a.opt.clock())}, nil)()
	events := a.Subscribe(0)
	defer events.Close()
	told := make(map[*sa.SA]bool)
	for ended := false; ; {
		now := make(map[*sa.SA]bool)
		for _, x := range b.sad.All() {
			now[x] = true
			if line := keyLine(x); line != "" && !told[x] {
				if _, err := io.WriteString(s, line); err != nil {
					return err
				}
			}
		}
		told = now
		if ended {
			return nil
		}
		for changed := false; !changed; {
			ev, err := events.Next(s.ctx)
			if err != nil { // what came last is told too
				ended = true
				break
			}
			switch changed = ev.Missed > 0; ev.Kind {
			case SAAdded, SAReplaced, EventsOmitted:
				changed = true
			}
		}
	}
}

// keyLine is an SA's line, "" if there is nothing to say of it.
func keyLine(s *sa.SA) string {
	if s.Key.Proto != transform.ProtoESP {
		return ""
	}
	enc, integ := s.Secrets()
	defer enc.Clear()
	defer integ.Clear()
	if enc.Empty() && integ.Empty() {
		return ""
	}
	k := keylog.SA{
		IPv6: s.Key.Dst.Is6(), Src: s.Src, Dst: s.Key.Dst, SPI: s.Key.SPI, Algorithm: s.Algorithm.Name,
		EncryptionKey: enc.Bytes(), IntegrityKey: integ.Bytes(),
	}
	if s.Encap != nil { // a NAT may have changed the addresses
		k.Src, k.Dst = netip.Addr{}, netip.Addr{}
	}
	row, err := k.Row()
	if err != nil {
		return "# SA " + s.Name + ": " + err.Error() + "\n"
	}
	return row + "\n"
}
