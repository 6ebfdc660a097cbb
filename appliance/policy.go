package appliance

import (
	"bitw/config"
	"bitw/netstack/hook"
	"bitw/sa"
	"bitw/sa/keyer"
)

// Databases are the policies and SAs of a configuration for whoever only asks what
// they would do. They are made as an appliance makes its own, but no sequence number
// is reserved for them, so nothing must be sent by these SAs.
type Databases struct {
	SPD *sa.SPD
	SAD *sa.SAD
	// Classes are the rules for frames that no policy decides.
	Classes []hook.ClassRule
	// Neighbors says what becomes of arp and ndp from the host.
	Neighbors hook.Neighbors

	close func() error
}

// NewDatabases makes the databases of cfg. The errors are those of New. The caller
// closes them.
func NewDatabases(cfg Config) (*Databases, error) {
	a, err := New(cfg)
	if err != nil {
		return nil, err
	}
	keys, spd, err := a.databases(sa.NewMemoryStore(), nil)
	if err != nil {
		return nil, err
	}
	d := &Databases{
		SPD: spd, SAD: sa.NewSAD(), Classes: classRules(&a.cfg), Neighbors: crossing(a.cfg.Neighbors == config.Relay)[hook.Left], close: keys.Close,
	}
	if err := keys.Start(&keyer.Commands{SAD: d.SAD}); err != nil {
		_ = keys.Close()
		return nil, err
	}
	return d, nil
}

// Close ends the SAs and clears their keys.
func (d *Databases) Close() error { return d.close() }
