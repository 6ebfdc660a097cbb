// Package scapy has scapy, a Python program that is not ours, seal and open ESP
// and AH packets: to make packets for tests that a well-behaved peer would not
// send, and for a second opinion on ours.
package scapy

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"time"

	"bitw/integration/netlab"
)

//go:embed run.py
var sealAndOpen string

// SA is a security association in scapy's terms. Its algorithms' names are
// those of scapy, in the comments.
type SA struct {
	Proto string // "esp" or "ah"
	SPI   uint32

	Crypt    string // NULL, AES-CBC, AES-CTR, AES-GCM, AES-CCM, CHACHA20-POLY1305, 3DES, ...
	CryptKey []byte // with the salt at its end, for AES-CTR and the AEADs
	ICVSize  int    // AES-CCM's, in octets; 0 is 16. Scapy 2.5 has no other for the other AEADs.
	Auth     string // NULL, HMAC-SHA1-96, SHA2-256-128, SHA2-384-192, SHA2-512-256, ...
	AuthKey  []byte

	// TunnelSrc and TunnelDst are the outer addresses; without them it is
	// transport mode.
	TunnelSrc, TunnelDst netip.Addr
	// EncapSrcPort and EncapDstPort are the UDP ports of RFC 3948; 0 is without.
	EncapSrcPort, EncapDstPort uint16
	// ESN is extended sequence numbers, of AEADs and AH only (scapy 2.5 leaves
	// them out of ESP's separate ICV); ESNHigh is the upper half.
	ESN     bool
	ESNHigh uint32
}

// Item is a packet to be sealed.
type Item struct {
	Packet []byte // from the IP header on; its checksums and lengths complete
	Seq    uint32
	IV     []byte // nil is one of scapy's choice
}

// ErrIntegrity is the error of a packet with a wrong ICV.
var ErrIntegrity = errors.New("scapy: the ICV is wrong")

// Opened is a packet after Open; one of the two is set.
type Opened struct {
	Packet []byte // from the IP header on
	Err    error  // ErrIntegrity, or what else scapy did not like
}

// python is the interpreter to use. Debian's, for which its package
// python3-scapy is; the first on PATH may be another that does not have it.
const python = "/usr/bin/python3"

// Need is scapy with what its ESP needs, for netlab.Require.
func Need() netlab.Need {
	return netlab.Need{Name: "scapy", Check: func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		_, err := run(ctx, "import cryptography, scapy.layers.ipsec", nil)
		if err != nil {
			return fmt.Errorf("it is in Debian's packages python3-scapy and python3-cryptography: %w", err)
		}
		return nil
	}}
}

// Run runs a Python script that finds in, as JSON, on its standard input, and
// writes an answer to its standard output as JSON, which goes into out.
func Run(ctx context.Context, script string, in, out any) error {
	input, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("scapy: %w", err)
	}
	output, err := run(ctx, script, input)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(output, out); err != nil {
		return fmt.Errorf("scapy: the script's answer: %w: %q", err, output)
	}
	return nil
}

func run(ctx context.Context, script string, input []byte) ([]byte, error) {
	// Isolated from the user's own modules and settings, and from the current folder.
	cmd := exec.CommandContext(ctx, python, "-I", "-c", script)
	cmd.WaitDelay = time.Minute
	cmd.Stdin = bytes.NewReader(input)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("scapy: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}

// What run.py takes and gives.
type (
	requestSA struct {
		Proto        string `json:"proto"`
		SPI          uint32 `json:"spi"`
		Crypt        string `json:"crypt,omitempty"`
		CryptKey     string `json:"crypt_key,omitempty"`
		ICVSize      int    `json:"icv_size,omitempty"`
		Auth         string `json:"auth,omitempty"`
		AuthKey      string `json:"auth_key,omitempty"`
		TunnelSrc    string `json:"tunnel_src,omitempty"`
		TunnelDst    string `json:"tunnel_dst,omitempty"`
		EncapSrcPort uint16 `json:"encap_src_port,omitempty"`
		EncapDstPort uint16 `json:"encap_dst_port,omitempty"`
		ESN          bool   `json:"esn,omitempty"`
		ESNHigh      uint32 `json:"esn_high,omitempty"`
	}
	requestItem struct {
		Packet string `json:"packet"`
		Seq    uint32 `json:"seq"`
		IV     string `json:"iv,omitempty"`
	}
	request struct {
		Do    string        `json:"do"`
		SA    requestSA     `json:"sa"`
		Items []requestItem `json:"items"`
	}
	answer struct {
		Packet    string `json:"packet"`
		Error     string `json:"error"`
		Integrity bool   `json:"integrity"`
	}
)

// check refuses what scapy would quietly do in another way.
func (sa SA) check() error {
	if sa.ICVSize != 0 && sa.ICVSize != 16 && sa.Crypt != "AES-CCM" {
		return fmt.Errorf("scapy: it has no %s with an ICV of %d octets", sa.Crypt, sa.ICVSize)
	}
	if sa.ESN && sa.Proto == "esp" && sa.Auth != "" {
		return fmt.Errorf("scapy: it has no extended sequence numbers for ESP with %s", sa.Auth)
	}
	return nil
}

func ask(ctx context.Context, do string, sa SA, items []requestItem) ([]answer, error) {
	if err := sa.check(); err != nil {
		return nil, err
	}
	r := request{Do: do, Items: items, SA: requestSA{
		Proto: sa.Proto, SPI: sa.SPI,
		Crypt: sa.Crypt, CryptKey: hex.EncodeToString(sa.CryptKey), ICVSize: sa.ICVSize,
		Auth: sa.Auth, AuthKey: hex.EncodeToString(sa.AuthKey),
		EncapSrcPort: sa.EncapSrcPort, EncapDstPort: sa.EncapDstPort,
		ESN: sa.ESN, ESNHigh: sa.ESNHigh,
	}}
	if sa.TunnelSrc.IsValid() {
		r.SA.TunnelSrc, r.SA.TunnelDst = sa.TunnelSrc.String(), sa.TunnelDst.String()
	}
	var answers []answer
	if err := Run(ctx, sealAndOpen, r, &answers); err != nil {
		return nil, err
	}
	if len(answers) != len(items) {
		return nil, fmt.Errorf("scapy: %d answers to %d packets", len(answers), len(items))
	}
	return answers, nil
}

// Seal puts IP packets into ESP or AH; the result is from the IP header on, too.
func Seal(ctx context.Context, sa SA, items ...Item) ([][]byte, error) {
	var requests []requestItem
	for _, i := range items {
		requests = append(requests, requestItem{hex.EncodeToString(i.Packet), i.Seq, hex.EncodeToString(i.IV)})
	}
	answers, err := ask(ctx, "seal", sa, requests)
	if err != nil {
		return nil, err
	}
	var sealed [][]byte
	for i, a := range answers {
		if a.Error != "" {
			return nil, fmt.Errorf("scapy: sealing packet %d: %s", i, a.Error)
		}
		packet, err := hex.DecodeString(a.Packet)
		if err != nil {
			return nil, fmt.Errorf("scapy: sealed packet %d: %w", i, err)
		}
		sealed = append(sealed, packet)
	}
	return sealed, nil
}

// Open takes IP packets out of ESP or AH, each on its own: nobody looks at
// sequence numbers.
func Open(ctx context.Context, sa SA, packets ...[]byte) ([]Opened, error) {
	var requests []requestItem
	for _, p := range packets {
		requests = append(requests, requestItem{Packet: hex.EncodeToString(p)})
	}
	answers, err := ask(ctx, "open", sa, requests)
	if err != nil {
		return nil, err
	}
	opened := make([]Opened, len(answers))
	for i, a := range answers {
		switch {
		case a.Integrity:
			opened[i].Err = ErrIntegrity
		case a.Error != "":
			opened[i].Err = errors.New("scapy: " + a.Error)
		default:
			if opened[i].Packet, err = hex.DecodeString(a.Packet); err != nil {
				return nil, fmt.Errorf("scapy: opened packet %d: %w", i, err)
			}
		}
	}
	return opened, nil
}
