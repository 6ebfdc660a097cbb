package transform

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"bitw/netstack/wire"
)

// A scapyCase is one request to testdata/scapy_oracle.py.
type scapyCase struct {
	Seal     bool   `json:"seal"`
	Protocol uint8  `json:"protocol"`
	Crypt    string `json:"crypt"`
	CryptKey string `json:"crypt_key"`
	IV       string `json:"iv"`
	CryptICV int    `json:"crypt_icv"` // octets; 0 is what scapy takes
	Auth     string `json:"auth"`
	AuthKey  string `json:"auth_key"`
	SPI      uint32 `json:"spi"`
	Number   uint64 `json:"number"`
	ESN      bool   `json:"esn"`
	Packet   string `json:"packet"`
}

type scapyAnswer struct {
	Packet string `json:"packet"`
	Error  string `json:"error"`
}

// missing skips the test, or fails it where nothing may be missing.
func missing(t *testing.T, what string, err error) {
	t.Helper()
	if os.Getenv("BITW_REQUIRE") == "all" {
		t.Fatalf("%s is missing: %v", what, err)
	}
	t.Skipf("%s is missing: %v", what, err)
}

// askScapy puts all cases to one run of scapy.
func askScapy(t *testing.T, cases []scapyCase) []scapyAnswer {
	t.Helper()
	python := "/usr/bin/python3" // that of the system, for which python3-scapy is installed
	if _, err := os.Stat(python); err != nil {
		missing(t, "python3", err)
	}
	in, err := json.Marshal(cases)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "testdata/scapy_oracle.py")
	cmd.Stdin = bytes.NewReader(in)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if exit, ok := err.(*exec.ExitError); ok && exit.ExitCode() == 3 {
		missing(t, "python3-scapy", fmt.Errorf("%s", bytes.TrimSpace(complaints.Bytes())))
	}
	if err != nil {
		t.Fatalf("%v: %s", err, complaints.Bytes())
	}
	var answers []scapyAnswer
	if err := json.Unmarshal(out, &answers); err != nil {
		t.Fatal(err)
	}
	if len(answers) != len(cases) {
		t.Fatalf("%d answers to %d cases", len(answers), len(cases))
	}
	return answers
}

// scapyNames translates an algorithm for scapy. It says whether scapy has it, and
// whether scapy's ESN is that of RFC 4303 for it: its ESP with a separate MAC leaves the
// high half out.
func scapyNames(a Algorithm) (c scapyCase, known, esn bool) {
	c = scapyCase{
		Protocol: a.Protocol,
		CryptKey: hex.EncodeToString(pattern(a.EncryptionKeyLen, 1)),
		AuthKey:  hex.EncodeToString(pattern(a.IntegrityKeyLen, 2)),
	}
	crypt, auth, separate := strings.Cut(a.Name, "-")
	if a.Protocol == ProtoAH {
		crypt, auth, separate = "", a.Name, true
	}
	if separate {
		c.Auth = map[string]string{
			"sha1": "HMAC-SHA1-96", "sha256": "SHA2-256-128", "sha384": "SHA2-384-192", "sha512": "SHA2-512-256",
			"aescmac": "AES-CMAC-96", "md5": "HMAC-MD5-96",
		}[auth]
		if c.Auth == "" {
			return c, false, false
		}
	}
	for name, pattern := range map[string]string{
		"": "", "NULL": "null", "AES-CBC": "aes[0-9]{3}", "DES": "des", "3DES": "3des", "AES-CTR": "aes[0-9]{3}ctr",
		"AES-GCM": "aes[0-9]{3}gcm[0-9]+", "AES-CCM": "aes[0-9]{3}ccm[0-9]+", "CHACHA20-POLY1305": "chacha20poly1305",
	} {
		if regexp.MustCompile("^(" + pattern + ")$").MatchString(crypt) {
			c.Crypt, known = name, true
		}
	}
	if c.Crypt == "AES-CCM" {
		c.CryptICV = a.ICVLen
	}
	return c, known, !separate || a.Protocol == ProtoAH
}

// clearPacket is a whole IP packet with UDP behind the IP header (and extra, options
// or extension headers, which for IPv6 say themselves what follows).
func clearPacket(ipv6 bool, first uint8, extra, payload []byte) (packet []byte, ipLen int) {
	udp := append([]byte{0x12, 0x34, 0x56, 0x78, 0, 0, 0, 0}, payload...)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	ip := ipHeader(ipv6, first, len(extra)+len(udp))
	if !ipv6 {
		ip[0] += byte(len(extra) / 4)
		fixIPv4(ip, len(ip)+len(extra)+len(udp), first, extra)
	}
	packet = append(append(ip, extra...), udp...)
	return packet, len(ip) + len(extra)
}

// fixIPv4 sets length, protocol and checksum; options are the octets behind ip.
func fixIPv4(ip []byte, length int, protocol uint8, options []byte) {
	binary.BigEndian.PutUint16(ip[2:], uint16(length))
	ip[9], ip[10], ip[11] = protocol, 0, 0
	var sum uint32
	for _, b := range [][]byte{ip[:20], options} {
		for i := 0; i < len(b); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
	}
	sum = sum&0xffff + sum>>16
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
}

// protect seals a clear packet in transport mode. last is the octet that names what
// follows the IP header and its extension headers.
func protect(t *testing.T, x Transform, packet []byte, ipLen, last int, s Sequence) []byte {
	t.Helper()
	payload := packet[ipLen:]
	ip := bytes.Clone(packet[:ipLen])
	n := x.HeaderLen() + len(payload) + x.TrailerLen(len(payload))
	next := ip[last]
	ip[last] = x.Protocol()
	if ip[0]>>4 == 4 {
		fixIPv4(ip, ipLen+n, x.Protocol(), ip[20:])
	} else {
		binary.BigEndian.PutUint16(ip[4:], uint16(ipLen-40+n))
	}
	p := unsealed(x, ip, payload, next)
	if r := x.Seal(p, s); r != wire.DropNone {
		t.Fatalf("Seal: %v", r)
	}
	return p.Buf[p.Net:p.End]
}

// Every algorithm against scapy, both ways, in transport mode over IPv4 and IPv6. Where
// the IV is the sequence number, scapy is given it and the packets are the same octet
// for octet. What scapy cannot say: ESN with a separate MAC; AES-XCBC, AES-GMAC, and
// implicit IVs; and its GCM knows the whole tag only, so that for the shorter ones what
// it seals is cut here.
func TestR37_R38_Scapy(t *testing.T) {
	type expectation struct {
		name  string
		x     Transform
		s     Sequence
		ipLen int
		clear []byte
		cut   int    // octets of scapy's ICV that are too many
		same  []byte // what scapy must seal to, from the IP header on; nil if it has an IV of its own
	}
	var cases []scapyCase
	var expected []expectation
	unknown := make(map[string]bool)
	for _, a := range Algorithms() {
		for _, c := range []struct {
			name   string
			ipv6   bool
			first  uint8
			extra  string
			last   int // offset of the octet that names the transport protocol
			ah     bool
			onlyIn bool // scapy seals only
		}{
			{name: "IPv4", first: 17, last: 9},
			{name: "IPv6", ipv6: true, first: 17, last: 6},
			{name: "IPv4 with options", first: 17, extra: "94040000 070704 00000000 00", last: 9, ah: true},
			{name: "IPv6 with hop-by-hop", ipv6: true, first: 0, extra: "1101 05020000 3e06010203040506 0000", last: 40, ah: true},
			{name: "IPv6 with routing", ipv6: true, first: 43, extra: "11040002 00000000" + addr6(7) + addr6(8), last: 40, ah: true, onlyIn: true},
		} {
			if c.ah && a.Protocol != ProtoAH {
				continue
			}
			x := mustNew(t, a, Options{IPv6: c.ipv6})
			for _, s := range []Sequence{{SPI: 0xabcd1234, Number: 77}, {SPI: 0xabcd1234, Number: 0x90000004d, ESN: true}} {
				request, known, esn := scapyNames(a)
				if !known {
					unknown[a.Name] = true
					continue
				}
				if s.ESN && !esn {
					continue
				}
				for _, n := range []int{0, 1, 2, 3, 13, 14, 15, 16, 1200} {
					clear, ipLen := clearPacket(c.ipv6, c.first, unhex(t, c.extra), pattern(n, 5))
					e := expectation{
						name: fmt.Sprintf("%s, %s, %d octets, ESN %t", a.Name, c.name, n, s.ESN),
						x:    x, s: s, ipLen: ipLen, clear: clear,
					}
					r := request
					if r.Crypt == "AES-GCM" {
						e.cut = 16 - a.ICVLen
					}
					if a.CounterMode {
						r.IV = fmt.Sprintf("%016x", s.Number)
					}
					ours := protect(t, x, clear, ipLen, c.last, s)
					if a.IVLen == 0 || a.CounterMode {
						e.same = ours
					}
					r.SPI, r.Number, r.ESN = s.SPI, s.Number, s.ESN
					r.Seal, r.Packet = true, hex.EncodeToString(clear)
					cases, expected = append(cases, r), append(expected, e)
					if !c.onlyIn && e.cut == 0 {
						r.Seal, r.Packet = false, hex.EncodeToString(ours)
						cases, expected = append(cases, r), append(expected, e)
					}
				}
			}
		}
	}
	for i, answer := range askScapy(t, cases) {
		e := expected[i]
		if answer.Error != "" {
			t.Errorf("%s, scapy seals: %t: scapy says %s", e.name, cases[i].Seal, answer.Error)
			continue
		}
		packet := unhex(t, answer.Packet)
		if !cases[i].Seal {
			if !bytes.Equal(packet, e.clear) {
				t.Errorf("%s: scapy opened to\n%x, want\n%x", e.name, packet, e.clear)
			}
			continue
		}
		packet = packet[:len(packet)-e.cut]
		if e.same != nil && !bytes.Equal(packet[e.ipLen:], e.same[e.ipLen:]) {
			t.Errorf("%s: scapy seals to\n%x, we to\n%x", e.name, packet[e.ipLen:], e.same[e.ipLen:])
		}
		p := &Packet{Buf: packet, Hdr: e.ipLen, End: len(packet)}
		if r := e.x.Open(p, e.s); r != wire.DropNone {
			t.Errorf("%s: scapy sealed, Open: %v\n%x", e.name, r, packet)
			continue
		}
		if p.NextHeader != 17 || !bytes.Equal(p.Buf[p.Pay:p.End], e.clear[e.ipLen:]) {
			t.Errorf("%s: scapy sealed, opened to next header %d and %x", e.name, p.NextHeader, p.Buf[p.Pay:p.End])
		}
	}
	t.Logf("%d packets; scapy does not have %q", len(cases), slices.Sorted(maps.Keys(unknown)))
}
