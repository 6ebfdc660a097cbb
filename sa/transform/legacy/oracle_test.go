package legacy

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"bitw/netstack/wire"
	"bitw/sa/transform"
)

// missing skips the test, or fails it where nothing may be missing.
func missing(t *testing.T, what string, err error) {
	t.Helper()
	if os.Getenv("BITW_REQUIRE") == "all" {
		t.Fatalf("%s is missing: %v", what, err)
	}
	t.Skipf("%s is missing: %v", what, err)
}

// openssl runs the openssl command on data.
func openssl(t *testing.T, data []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("openssl", args...)
	cmd.Stdin = bytes.NewReader(data)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl %q: %v: %s", args, err, complaints.Bytes())
	}
	return out
}

// crypt is openssl enc of whole blocks.
func crypt(t *testing.T, data []byte, mode string, key, iv []byte, more ...string) []byte {
	t.Helper()
	args := append([]string{"enc", "-provider", "legacy", "-provider", "default", "-nopad", mode,
		"-K", hex.EncodeToString(key), "-iv", hex.EncodeToString(iv)}, more...)
	return openssl(t, data, args...)
}

// oracle encrypts a body as the package comment says, with whole calls of openssl.
func oracle(t *testing.T, name string, key, iv, body []byte) []byte {
	t.Helper()
	switch name {
	case "desiv32", "desiv64":
		return crypt(t, body, "-des-cbc", key, iv)
	case "3des112iv64":
		return crypt(t, body, "-des-ede-cbc", key, iv)
	case "3des168iv64":
		return crypt(t, body, "-des-ede3-cbc", key, iv)
	case "3desin112iv64", "3desin168iv64":
		third := key[len(key)-8:]
		if len(key) == 16 {
			third = key[:8]
		}
		once := crypt(t, body, "-des-cbc", key[:8], iv)
		twice := crypt(t, once, "-des-cbc", key[8:16], iv, "-d")
		return crypt(t, twice, "-des-cbc", third, iv)
	case "desctsiv32", "desctsiv64":
		rest := len(body) % 8
		padded := append(bytes.Clone(body), make([]byte, (8-rest)%8)...)
		c := crypt(t, padded, "-des-cbc", key, iv)
		if n := len(c); rest != 0 {
			swapped := append(bytes.Clone(c[:n-16]), c[n-8:]...)
			c = append(swapped, c[n-16:n-16+rest]...)
		}
		return c
	}
	t.Fatalf("no oracle for %q", name)
	return nil
}

// Every ESP suite against OpenSSL, octet for octet.
func TestR38_OpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		missing(t, "openssl", err)
	}
	if err := exec.Command("openssl", "list", "-providers", "-provider", "legacy").Run(); err != nil {
		missing(t, "OpenSSL's legacy provider", err)
	}
	s := transform.Sequence{SPI: 0xfedcba98, Number: 1}
	for _, a := range algorithms() {
		if a.Protocol != transform.ProtoESP {
			continue
		}
		key := pattern(a.EncryptionKeyLen, 0x31)
		x, err := a.New(key, nil, transform.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{0, 1, 6, 7, 13, 14, 1003} {
			name := fmt.Sprintf("%s, %d octets", a.Name, n)
			payload := pattern(n, 9)
			p := sealed(t, x, transform.Options{}, payload, 17, s)
			pad := x.TrailerLen(n) - 2
			body := bytes.Clone(payload)
			for i := range pad {
				body = append(body, byte(i+1))
			}
			body = append(body, byte(pad), 17)
			iv := bytes.Clone(p.Buf[p.Hdr+4 : p.Pay])
			if len(iv) == 4 {
				for _, b := range iv[:4] {
					iv = append(iv, ^b)
				}
			}
			want := oracle(t, a.Name, key, iv, body)
			if got := p.Buf[p.Pay:p.End]; !bytes.Equal(got, want) {
				t.Errorf("%s: sealed to\n%x, OpenSSL to\n%x", name, got, want)
			}
		}
	}
}

// AH against OpenSSL's MD5.
func TestRFC1828_OpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		missing(t, "openssl", err)
	}
	key := pattern(16, 3)
	x, err := md5Family().Algorithms[0].New(nil, key, transform.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 63, 64, 65, 1400} {
		p := sealed(t, x, transform.Options{}, pattern(n, 1), 17, transform.Sequence{SPI: 0x1001})
		message := append(bytes.Clone(key), 0x80)
		message = append(message, make([]byte, 39)...)
		message = append(message, 128, 0, 0, 0, 0, 0, 0, 0)
		datagram := bytes.Clone(p.Buf[p.Net:p.End])
		datagram[8], datagram[10], datagram[11] = 0, 0, 0
		clear(datagram[28:44])
		message = append(append(message, datagram...), key...)
		if got, want := p.Buf[p.Hdr+8:p.Pay], openssl(t, message, "dgst", "-md5", "-binary"); !bytes.Equal(got, want) {
			t.Errorf("%d octets: %x, OpenSSL has %x", n, got, want)
		}
		if r := x.Open(p, transform.Sequence{SPI: 0x1001}); r != wire.DropNone {
			t.Errorf("%d octets: Open: %v", n, r)
		}
	}
}
