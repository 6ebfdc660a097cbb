package appliance

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"

	"bitw/config"
)

// legacyConfig is protectAll with the original's DES for IPv4, and triple DES with MD5 in
// today's form for IPv6.
func legacyConfig(t *testing.T) config.Config {
	c := protectAll(t)
	for i := range c.SAs {
		s := &c.SAs[i]
		s.Algorithm, s.EncryptionKey, s.IntegrityKey = "desiv32", key(t, 8), config.Secret{}
		if s.Mode == config.Tunnel {
			s.Algorithm, s.EncryptionKey, s.IntegrityKey = "3des-md5", key(t, 24), key(t, 16)
		}
	}
	return c
}

// Whatever makes the Config, New refuses what is not allowed by its exact name.
func TestR38_NewRefusesWhatIsNotAllowed(t *testing.T) {
	for _, c := range []struct {
		allowed []string
		missing string
	}{
		{nil, `"desiv32"`},
		{[]string{"des", "desiv64", "3des", "md5"}, `"desiv32"`},
		{[]string{"desiv32", "3des"}, `"md5"`},
		{[]string{"desiv32", "md5"}, `"3des"`},
		{[]string{"desiv32", "md5", "des"}, `"3des"`},
	} {
		cfg := legacyConfig(t)
		cfg.AllowInsecure = c.allowed
		if _, err := New(cfg, WithLinks(nil, nil, Host{MAC: make([]byte, 6)})); err == nil || !strings.Contains(err.Error(), "by the name "+c.missing) {
			t.Errorf("%q allowed: %v", c.allowed, err)
		}
	}
}

// What is allowed works, and is loud: in the log at start, in the status of the SA, in a
// number for metrics, and in the warnings.
func TestR38_AllowedIsLoud(t *testing.T) {
	cfg := legacyConfig(t)
	cfg.AllowInsecure = []string{"desiv32", "3des", "md5"}
	var text bytes.Buffer
	log := logrus.New()
	log.SetOutput(&text)
	p := newMemoryPair(t, cfg, mirror(cfg), WithLogger(log))
	p.transfer(t, false, 100_000)
	p.transfer(t, true, 100_000)
	if got := p.wire.protocols(); got[50] == 0 || got[6] != 0 {
		t.Errorf("on the wire: %v", got)
	}
	s := p.boxA.Status()
	if !slices.Equal(s.AllowInsecure, cfg.AllowInsecure) || s.InsecureSAs != 4 {
		t.Errorf("status: %q allowed, %d SAs insecure", s.AllowInsecure, s.InsecureSAs)
	}
	for _, x := range s.SAs {
		if !x.Insecure || x.Weak == "" || x.NoSequence != (x.Algorithm == "desiv32") || x.NoSequence && x.Sequence != 0 {
			t.Errorf("SA %s: %+v", x.Name, x)
		}
		if !strings.Contains(fmt.Sprint(s.Health), "SA "+x.Name+": "+x.Algorithm+" is INSECURE") {
			t.Errorf("SA %s: findings are %q", x.Name, s.Health)
		}
	}
	if err := p.boxA.Close(); err != nil {
		t.Fatal(err)
	}
	for i := range cfg.SAs {
		if want := "insecure algorithm"; !strings.Contains(text.String(), want) || !strings.Contains(text.String(), "sa="+cfg.SAs[i].Name) {
			t.Errorf("the log says nothing of %s:\n%s", cfg.SAs[i].Name, &text)
		}
	}
}

// Each algorithm of this build that is not today's needs its name to be loaded, and says so.
func TestR38_LoadRefusesEach(t *testing.T) {
	opt := ConfigOptions()
	for _, a := range algorithms().Algorithms() {
		proto := config.ESP
		if a.Protocol == config.AH.Number() {
			proto = config.AH
		}
		got, err := opt.Algorithm(proto, a.Name)
		if err != nil || !slices.Equal(got.Insecure, a.Insecure) || got.NoSequence != a.NoSequence {
			t.Errorf("%s: %v, %+v", a.Name, err, got)
		}
		for _, part := range a.Insecure {
			if !slices.Contains(opt.InsecureNames, part) {
				t.Errorf("%s: %q cannot be allowed", a.Name, part)
			}
		}
		old := strings.HasPrefix(a.Name, "des") || strings.HasPrefix(a.Name, "3des") || strings.Contains(a.Name, "md5")
		if old != (len(a.Insecure) > 0) {
			t.Errorf("%s: insecure are %q", a.Name, a.Insecure)
		}
		for _, word := range []string{"sha1", "null", "3des", "md5", "des"} {
			if strings.Contains(a.Name, word) && a.Weak == "" {
				t.Errorf("%s does not warn", a.Name)
			}
		}
	}
}
