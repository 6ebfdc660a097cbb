package sa

import "testing"

// An SA shows copies of its keys, until it is closed.
func TestR50_SecretsOfAnSA(t *testing.T) {
	cfg := testConfig(Outbound)
	given := cfg.EncryptionKey.Clone()
	s := mustNew(t, cfg)
	cfg.EncryptionKey.Clear()
	enc, integ := s.Secrets()
	if !enc.Equal(given) || !integ.Empty() {
		t.Errorf("keys of %d and %d octets, expected those that were given", enc.Len(), integ.Len())
	}
	enc.Clear()
	again, _ := s.Secrets()
	if !again.Equal(given) {
		t.Error("what was shown is no copy")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if enc, _ := s.Secrets(); !enc.Empty() || !s.secrets.enc.Empty() {
		t.Error("a closed SA has its key still")
	}
	cfg = testConfig(Outbound)
	cfg.EncryptionKey = Secret{}
	if enc, integ := mustNew(t, cfg).Secrets(); !enc.Empty() || !integ.Empty() {
		t.Error("keys without a key")
	}
}
