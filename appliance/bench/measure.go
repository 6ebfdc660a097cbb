package bench

import "slices"

// A Measure is one quantity, measured in several rounds.
type Measure struct {
	// Name is a path such as "engine/outbound" or "kernel/protected/tcp-ab".
	Name string `json:"name"`
	Unit string `json:"unit"`
	// Rounds are the values in the order in which they were taken.
	Rounds []float64 `json:"rounds"`
	Median float64   `json:"median"`
	Low    float64   `json:"low"`
	High   float64   `json:"high"`
	// Spread is High less Low as a part of the median: how noisy it was.
	Spread float64 `json:"spread"`
	// Ratio compares to another measure, round by round; nil if there is none.
	Ratio *Ratio `json:"ratio,omitempty"`
}

// A Ratio is how many times another measure one is: in each round the quotient, of
// which these are median, lowest and highest.
type Ratio struct {
	To     string  `json:"to"`
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

// notebook takes values down as they come.
type notebook struct {
	list []*Measure
	to   map[string]string // the measure that one is compared to, by names
}

// add takes down the value of one round.
func (n *notebook) add(name, unit string, value float64) {
	for _, m := range n.list {
		if m.Name == name {
			m.Rounds = append(m.Rounds, value)
			return
		}
	}
	n.list = append(n.list, &Measure{Name: name, Unit: unit, Rounds: []float64{value}})
}

// compare is add for a measure that is compared to another, which has as many rounds.
func (n *notebook) compare(name, to, unit string, value float64) {
	if n.to == nil {
		n.to = make(map[string]string)
	}
	n.to[name] = to
	n.add(name, unit, value)
}

// find returns the measure of a name, or nil.
func (n *notebook) find(name string) *Measure {
	for _, m := range n.list {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// measures draws the conclusions.
func (n *notebook) measures() []Measure {
	list := make([]Measure, 0, len(n.list))
	for _, m := range n.list {
		m.Median, m.Low, m.High = middle(m.Rounds)
		if m.Median != 0 {
			m.Spread = (m.High - m.Low) / m.Median
		}
		if to := n.find(n.to[m.Name]); to != nil {
			m.Ratio = ratioOf(m, to)
		}
		list = append(list, *m)
	}
	return list
}

// ratioOf is nil where the other measure was 0 in a round.
func ratioOf(m, to *Measure) *Ratio {
	var quotients []float64
	for i := range min(len(m.Rounds), len(to.Rounds)) {
		if to.Rounds[i] == 0 {
			return nil
		}
		quotients = append(quotients, m.Rounds[i]/to.Rounds[i])
	}
	if quotients == nil {
		return nil
	}
	r := &Ratio{To: to.Name}
	r.Median, r.Low, r.High = middle(quotients)
	return r
}

// middle returns median, lowest and highest of values, at least one.
func middle(values []float64) (median, low, high float64) {
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2, v[0], v[n-1]
}

// percentile returns the p-th percentile, from 0 to 100, of sorted values by the
// nearest rank.
func percentile[T any](sorted []T, p int) T {
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}
