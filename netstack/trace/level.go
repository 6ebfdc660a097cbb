package trace

// A Level is how much a node tells of what it does; a lower one tells more. The zero
// value says that none is set.
type Level uint8

// The levels, from the one that tells everything to the one that tells what cannot be
// turned off.
const (
	LevelUnset Level = iota
	FullTrace
	Detailed
	FunctionalTrace
	MoreEvents
	Events
	SoftErrors
	MajorEvents
	GrossEvents
	Errors
	Always
)

var levelNames = [...]string{
	"", "TR_FULL_TRACE", "TR_DETAILED", "TR_FUNCTIONAL_TRACE", "TR_MORE_EVENTS", "TR_EVENTS",
	"TR_SOFT_ERRORS", "TR_MAJOR_EVENTS", "TR_GROSS_EVENTS", "TR_ERRORS", "TR_ALWAYS",
}

// String returns the name as a graph's trace= has it, such as "TR_EVENTS", and "" when unset.
func (l Level) String() string {
	if int(l) < len(levelNames) {
		return levelNames[l]
	}
	return "Level(?)"
}

// MarshalText is String.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// LevelNames are the names of all levels, the one that tells most first.
func LevelNames() []string { return append([]string(nil), levelNames[1:]...) }

// ParseLevel finds a level by its name.
func ParseLevel(name string) (Level, bool) {
	for i, n := range levelNames {
		if i > 0 && n == name {
			return Level(i), true
		}
	}
	return LevelUnset, false
}
