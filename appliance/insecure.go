package appliance

import (
	"slices"
)

// warnInsecure says in the log which SAs have an algorithm that had to be allowed.
func (a *Appliance) warnInsecure() {
	registry := algorithms()
	cfg := a.live.Load()
	for i := range cfg.SAs {
		s := &cfg.SAs[i]
		alg, err := registry.Lookup(s.Protocol.Number(), s.Algorithm)
		if err != nil || len(alg.Insecure) == 0 {
			continue // of the former New has made no appliance
		}
		a.tell(Event{Kind: InsecureAlgorithm, Level: "warning", SA: s.Name, Algorithm: s.Algorithm, Text: "insecure algorithm: " + alg.Weak})
	}
}

// allowance is what status tells of insecure algorithms.
func allowance(allowed []string, list []SAStatus) (names []string, used int) {
	for i := range list {
		if list[i].Insecure {
			used++
		}
	}
	return slices.Clone(allowed), used
}
