// Package tshark has Wireshark's tshark look at a capture: a second opinion, of
// a program that is not ours, on what was on the wire, with the keys given for
// what is encrypted there.
package tshark

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"bitw/integration/netlab"
)

// Wireshark's names of ESP's algorithms. Version 4.0 has no ChaCha20-Poly1305.
const (
	EncNull   = "NULL"
	EncAESCBC = "AES-CBC [RFC3602]"
	EncAESCTR = "AES-CTR [RFC3686]"
	// These three are AES-GCM with keys of every length; EncKey ends in the salt.
	EncAESGCM8  = "AES-GCM with 8 octet ICV [RFC4106]"
	EncAESGCM12 = "AES-GCM with 12 octet ICV [RFC4106]"
	EncAESGCM16 = "AES-GCM with 16 octet ICV [RFC4106]"

	AuthNull   = "NULL"
	AuthSHA1   = "HMAC-SHA-1-96 [RFC2404]"
	AuthSHA256 = "HMAC-SHA-256-128 [RFC4868]"
	AuthSHA384 = "HMAC-SHA-384-192 [RFC4868]"
	AuthSHA512 = "HMAC-SHA-512-256 [RFC4868]"
)

// SA is what tshark needs to decrypt the ESP of one direction.
type SA struct {
	Src, Dst netip.Addr // the outer addresses
	SPI      uint32
	Enc      string // one of the Enc constants
	EncKey   []byte
	Auth     string // one of the Auth constants; "" is AuthNull, as for AEADs
	AuthKey  []byte
}

// Row is the SA in the form of a line of Wireshark's file "esp_sa" (of 4.0; one
// of 4.4 has two more columns, for which its defaults do).
func (s SA) Row() string {
	protocol := "IPv4"
	if s.Src.Is6() {
		protocol = "IPv6"
	}
	auth := s.Auth
	if auth == "" {
		auth = AuthNull
	}
	fields := []string{
		protocol, s.Src.String(), s.Dst.String(), fmt.Sprintf("0x%08x", s.SPI),
		s.Enc, keyWord(s.EncKey), auth, keyWord(s.AuthKey),
	}
	return `"` + strings.Join(fields, `","`) + `"`
}

func keyWord(key []byte) string {
	if len(key) == 0 {
		return ""
	}
	return "0x" + hex.EncodeToString(key)
}

// Options tell what to read and to show.
type Options struct {
	// File is a capture, such as netlab.Capture.WritePcapng's.
	File string
	// SAs decrypt what of it is ESP.
	SAs []SA
	// KeyFile is a file in the form of Wireshark's "esp_sa", to be used instead.
	KeyFile string
	// Filter is a display filter; "" shows all.
	Filter string
	// Fields are the names of what to show of each packet, such as "ip.src".
	Fields []string
	// Preferences are more settings, each as "name:value".
	Preferences []string
}

// Packet has by a field's name its values in the order of the packet's layers:
// in tunnel mode, the outer header's "ip.src" comes first, then the inner one's.
type Packet map[string][]string

// First is the first value of a field, "" when there is none.
func (p Packet) First(field string) string {
	if len(p[field]) == 0 {
		return ""
	}
	return p[field][0]
}

// Need is tshark, for netlab.Require.
func Need() netlab.Need { return netlab.Tool("tshark", "tshark") }

// Of the output: values and fields never have these in them.
const (
	valueMark = "\x1f"
	fieldMark = "\x1e"
)

// Read returns the fields of the packets that pass the filter. ICVs are checked:
// see Verified.
func Read(ctx context.Context, o Options) ([]Packet, error) {
	if len(o.Fields) == 0 {
		return nil, errors.New("tshark: no fields to read")
	}
	// A profile of our own, so that the user's settings do not count.
	config, err := os.MkdirTemp("", "bitw-tshark-")
	if err != nil {
		return nil, fmt.Errorf("tshark: %w", err)
	}
	defer os.RemoveAll(config)
	keys := new(bytes.Buffer)
	if o.KeyFile != "" {
		text, err := os.ReadFile(o.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("tshark: %w", err)
		}
		keys.Write(text)
	}
	for _, sa := range o.SAs {
		fmt.Fprintln(keys, sa.Row())
	}
	if err := os.WriteFile(filepath.Join(config, "esp_sa"), keys.Bytes(), 0o600); err != nil {
		return nil, fmt.Errorf("tshark: %w", err)
	}
	args := []string{
		"-n", "-r", o.File, "-T", "fields",
		"-E", "separator=" + fieldMark, "-E", "aggregator=" + valueMark, "-E", "occurrence=a",
		"-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE",
	}
	for _, preference := range o.Preferences {
		args = append(args, "-o", preference)
	}
	if o.Filter != "" {
		args = append(args, "-Y", o.Filter)
	}
	for _, field := range o.Fields {
		args = append(args, "-e", field)
	}
	cmd := exec.CommandContext(ctx, "tshark", args...)
	cmd.Env = append(os.Environ(), "WIRESHARK_CONFIG_DIR="+config, "LC_ALL=C.UTF-8")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("tshark: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	// It says so, but does not fail, when a line of the keys is no good.
	if text := stderr.String(); strings.Contains(text, "esp_sa") {
		return nil, fmt.Errorf("tshark: the keys: %s", strings.TrimSpace(text))
	}
	return parse(stdout.String(), o.Fields)
}

func parse(output string, fields []string) ([]Packet, error) {
	var packets []Packet
	for line := range strings.Lines(output) {
		columns := strings.Split(strings.TrimSuffix(line, "\n"), fieldMark)
		if len(columns) != len(fields) {
			return nil, fmt.Errorf("tshark: a line with %d fields instead of %d: %q", len(columns), len(fields), line)
		}
		packet := make(Packet)
		for i, field := range fields {
			if columns[i] != "" {
				packet[field] = strings.Split(columns[i], valueMark)
			}
		}
		packets = append(packets, packet)
	}
	return packets, nil
}

// Verdict is what tshark makes of the ESP packets of a capture.
type Verdict struct {
	ESP int // packets with an ESP header
	// Decrypted is of how many the inside is well formed. With a wrong key that
	// happens by chance, too, now and then: Read tells of its content.
	Decrypted int
	GoodICV   int // of which tshark has checked the ICV
	BadICV    int // of which the ICV is wrong
	// Undecoded are the frame numbers of those that could not be decrypted.
	Undecoded []string
	// Inner is how many of the decrypted packets hold these protocols, in
	// tshark's words: "icmp:data", or "ip:tcp" in tunnel mode.
	Inner map[string]int
}

// Verify has a capture's ESP packets decrypted with the keys given; it sets the
// options' Filter and Fields.
func Verify(ctx context.Context, o Options) (Verdict, error) {
	o.Filter = "esp"
	o.Fields = []string{"frame.number", "esp.protocol", "esp.icv_good", "esp.icv_bad", "frame.protocols"}
	packets, err := Read(ctx, o)
	if err != nil {
		return Verdict{}, err
	}
	v := Verdict{Inner: make(map[string]int)}
	for _, p := range packets {
		v.ESP++
		if isTrue(p.First("esp.icv_bad")) {
			v.BadICV++
		}
		if isTrue(p.First("esp.icv_good")) {
			v.GoodICV++
		}
		_, inner, found := strings.Cut(p.First("frame.protocols"), ":esp:")
		if p.First("esp.protocol") == "" || !found {
			v.Undecoded = append(v.Undecoded, p.First("frame.number"))
			continue
		}
		v.Decrypted++
		v.Inner[inner]++
	}
	return v, nil
}

func isTrue(value string) bool { return value == "1" || strings.EqualFold(value, "true") }
