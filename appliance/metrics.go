package appliance

import (
	"cmp"
	_ "embed"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"bitw/netstack/wire"
)

// A meter is the metrics of one appliance. It collects when it is asked, and costs the
// packet path nothing.
type meter struct {
	a     *Appliance
	descs map[string]*prometheus.Desc
}

// meters are all metrics: name, help and labels.
var meters = [...]struct {
	name, help string
	labels     []string
}{
	{"bitw_info", "What runs: always 1.", []string{"interface", "cut", "on_failure"}},
	{"bitw_state", "1 for the state that the appliance is in.", []string{"state"}},
	{"bitw_start_time_seconds", "When the appliance started, since 1970.", nil},
	{"bitw_carrier", "1 if the interface is up and has a signal.", nil},
	{"bitw_mtu_bytes", "Octets of the largest datagram on the wire.", nil},
	{"bitw_stalled", "1 for a side whose frames make no progress.", []string{"side"}},
	{"bitw_findings", "What an operator should look at, see bitw status.", []string{"severity"}},
	{"bitw_bypass_refused_total", "Sockets that would send past the cut and were refused.", nil},
	{"bitw_held_datagrams", "Datagrams that wait for an SA.", nil},
	{"bitw_neighbors", "Neighbours known on the wire.", []string{"state"}},
	{"bitw_link_frames_total", "Frames read (in) and written (out) on a side.", []string{"side", "direction"}},
	{"bitw_link_bytes_total", "Octets of frames read (in) and written (out) on a side.", []string{"side", "direction"}},
	{"bitw_passed_open_frames_total", "Frames that passed without protection, since bitw was held up under on_failure: open.", []string{"side"}},
	{"bitw_class_frames_total", "Frames that no policy decides, by class.", []string{"class", "action"}},
	{"bitw_drops_total", "What was dropped, by the side that it came from.", []string{"side", "reason"}},
	{"bitw_policy_packets_total", "Packets that a policy let pass.", []string{"policy", "direction"}},
	{"bitw_policy_bytes_total", "Octets of IP datagrams that a policy let pass.", []string{"policy", "direction"}},
	{"bitw_policy_drops_total", "What was dropped on a policy's account.", []string{"policy", "direction", "reason"}},
	{"bitw_policy_last_use_timestamp_seconds", "When a policy let something pass last, since 1970; 0 for never.", []string{"policy", "direction"}},
	{"bitw_policy_up", "1 if a policy's SAs can be used.", []string{"policy"}},
	{"bitw_sas_configured", "SAs of the configuration.", nil},
	{"bitw_sas_established", "SAs that can be used.", nil},
	{"bitw_sa_packets_total", "Packets that the SAs of a name carried, over all rollovers.", []string{"sa", "direction"}},
	{"bitw_sa_bytes_total", "Octets of IP datagrams that the SAs of a name carried, over all rollovers.", []string{"sa", "direction"}},
	{"bitw_sa_drops_total", "What was dropped on the account of the SAs of a name, over all rollovers.", []string{"sa", "direction", "reason"}},
	{"bitw_sa_established", "How many SAs of a name can be used.", []string{"sa", "direction"}},
	{"bitw_sa_last_use_timestamp_seconds", "When an SA was used last, inbound by an authentic packet, since 1970; 0 for never.", []string{"sa", "direction"}},
	{"bitw_sa_expiry_timestamp_seconds", "When the newest SA of a name is over, since 1970.", []string{"sa", "direction"}},
	{"bitw_sa_path_mtu_bytes", "The path MTU that was learned from the wire.", []string{"sa"}},
	{"bitw_sa_peer_moves_total", "How often the peer of an SA has moved.", []string{"sa"}},
}

func newMeter(a *Appliance) *meter {
	m := &meter{a: a, descs: make(map[string]*prometheus.Desc, len(meters))}
	for _, x := range meters {
		m.descs[x.name] = prometheus.NewDesc(x.name, x.help, x.labels, nil)
	}
	return m
}

// Metrics returns a collector of the appliance's metrics, for a registry of the caller's.
// Its names begin with bitw_ and say their units.
func (a *Appliance) Metrics() prometheus.Collector { return newMeter(a) }

// Describe implements prometheus.Collector.
func (m *meter) Describe(c chan<- *prometheus.Desc) {
	for _, d := range m.descs {
		c <- d
	}
}

// Collect implements prometheus.Collector.
func (m *meter) Collect(c chan<- prometheus.Metric) {
	gauge := func(name string, v float64, labels ...string) {
		c <- prometheus.MustNewConstMetric(m.descs[name], prometheus.GaugeValue, v, labels...)
	}
	count := func(name string, v uint64, labels ...string) {
		c <- prometheus.MustNewConstMetric(m.descs[name], prometheus.CounterValue, float64(v), labels...)
	}
	s := m.a.Status()
	gauge("bitw_info", 1, s.Interface, s.Cut, s.OnFailure)
	gauge("bitw_state", 1, s.State)
	gauge("bitw_start_time_seconds", seconds(s.Since))
	gauge("bitw_carrier", truth(s.Carrier))
	gauge("bitw_mtu_bytes", float64(s.MTU))
	count("bitw_bypass_refused_total", s.BypassRefused)
	gauge("bitw_held_datagrams", float64(s.Held))
	for _, severity := range []string{Critical, Warning, Notice} {
		n := 0
		for _, f := range s.Health {
			if f.Severity == severity {
				n++
			}
		}
		gauge("bitw_findings", float64(n), severity)
	}
	states := make(map[string]int)
	for _, n := range s.Neighbors {
		states[n.State]++
	}
	for state, n := range states {
		gauge("bitw_neighbors", float64(n), state)
	}
	for side, l := range s.Links {
		gauge("bitw_stalled", truth(slices.Contains(s.Stalled, side)), side)
		count("bitw_link_frames_total", l.FramesIn, side, "in")
		count("bitw_link_frames_total", l.FramesOut, side, "out")
		count("bitw_passed_open_frames_total", l.PassedOpen, side)
		count("bitw_link_bytes_total", l.BytesIn, side, "in")
		count("bitw_link_bytes_total", l.BytesOut, side, "out")
	}
	for class, x := range s.Classes {
		count("bitw_class_frames_total", x.Bypassed, class, "bypass")
		count("bitw_class_frames_total", x.Discarded, class, "discard")
	}
	for side, drops := range s.DropsBySide {
		for reason, n := range drops {
			count("bitw_drops_total", n, side, reason)
		}
	}
	for i := range s.Policies {
		p := &s.Policies[i]
		gauge("bitw_policy_up", truth(len(p.Down) == 0), p.Name)
		for direction, x := range map[string]*Traffic{"out": &p.Out, "in": &p.In} {
			if p.Direction != "both" && p.Direction != direction {
				continue
			}
			count("bitw_policy_packets_total", x.Packets, p.Name, direction)
			count("bitw_policy_bytes_total", x.Bytes, p.Name, direction)
			gauge("bitw_policy_last_use_timestamp_seconds", seconds(x.LastUse), p.Name, direction)
			for reason, n := range x.Drops {
				count("bitw_policy_drops_total", n, p.Name, direction, reason)
			}
		}
	}
	m.collectSAs(s, gauge, count)
}

func (m *meter) collectSAs(s *Status, gauge func(string, float64, ...string), count func(string, uint64, ...string)) {
	type line struct{ name, direction string }
	type state struct {
		up         int
		used, ends time.Time
		mtu        int
		moves      uint64
		moved      bool
	}
	lines := make(map[line]*state)
	established := 0
	for i := range s.SAs {
		x := &s.SAs[i]
		key := line{cmp.Or(x.Lineage, x.Name), x.Direction}
		st := lines[key]
		if st == nil {
			st = new(state)
			lines[key] = st
		}
		if (x.Key == "" || x.Key == "valid") && x.Expired != "hard" {
			st.up++
			established++
		}
		if x.LastUse.After(st.used) {
			st.used = x.LastUse
		}
		if l := x.Lifetime; l != nil && l.Expires.After(st.ends) {
			st.ends = l.Expires
		}
		if x.PathMTU != 0 && (st.mtu == 0 || !x.Retiring) {
			st.mtu = x.PathMTU
		}
		if x.Encap != nil && x.Direction == "out" {
			st.moved, st.moves = true, max(st.moves, x.Encap.Moves)
		}
	}
	gauge("bitw_sas_configured", float64(len(m.a.live.Load().SAs)))
	gauge("bitw_sas_established", float64(established))
	for key, st := range lines {
		gauge("bitw_sa_established", float64(st.up), key.name, key.direction)
		gauge("bitw_sa_last_use_timestamp_seconds", seconds(st.used), key.name, key.direction)
		if !st.ends.IsZero() {
			gauge("bitw_sa_expiry_timestamp_seconds", seconds(st.ends), key.name, key.direction)
		}
		if st.mtu != 0 && key.direction == "out" {
			gauge("bitw_sa_path_mtu_bytes", float64(st.mtu), key.name)
		}
		if st.moved {
			count("bitw_sa_peer_moves_total", st.moves, key.name)
		}
	}
	b := m.a.bump.Load()
	if b == nil {
		return
	}
	for key, x := range b.ledger.totals(b.sad) {
		direction := key.direction.String()
		count("bitw_sa_packets_total", x.packets, key.name, direction)
		count("bitw_sa_bytes_total", x.bytes, key.name, direction)
		for r := wire.DropNone + 1; r < wire.NumDropReasons; r++ {
			if x.drops[r] != 0 {
				count("bitw_sa_drops_total", x.drops[r], key.name, direction, r.String())
			}
		}
	}
}

// seconds since 1970, 0 for the zero time.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixNano()) / 1e9
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

//go:embed grafana.json
var dashboard []byte

// Dashboard is a dashboard for Grafana over the metrics, as JSON to import there.
func Dashboard() []byte { return slices.Clone(dashboard) }
