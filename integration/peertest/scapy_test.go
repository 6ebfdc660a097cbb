package peertest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"bitw/config"
	"bitw/integration/netlab"
	"bitw/integration/scapy"
)

const (
	hostPort  = 7200
	scapyPort = 7201
)

// scapySA is an SA of ours as scapy calls it.
func scapySA(c config.SA) scapy.SA {
	s := scapy.SA{Proto: string(c.Protocol), SPI: c.SPI, CryptKey: c.EncryptionKey.Bytes(), AuthKey: c.IntegrityKey.Bytes()}
	switch {
	case strings.Contains(c.Algorithm, "gcm"):
		s.Crypt = "AES-GCM"
	case c.Algorithm == "des-md5":
		s.Crypt, s.Auth = "DES", "HMAC-MD5-96"
	case c.Algorithm == "3des-sha1":
		s.Crypt, s.Auth = "3DES", "HMAC-SHA1-96"
	case c.Algorithm == "md5":
		s.Auth = "HMAC-MD5-96"
	case c.Protocol == config.ESP:
		s.Crypt, s.Auth = "AES-CBC", "SHA2-256-128"
	default:
		s.Auth = "SHA2-256-128"
	}
	if x := c.Encap; x != nil {
		s.EncapSrcPort, s.EncapDstPort = x.LocalPort, x.RemotePort
		if c.Direction == config.In {
			s.EncapSrcPort, s.EncapDstPort = x.RemotePort, x.LocalPort
		}
	}
	if c.Mode == config.Tunnel {
		s.TunnelSrc, s.TunnelDst = c.Source, c.Destination
	}
	return s
}

// scapyBed is a bed whose other end is this test: what it injects, scapy has
// sealed, and what it captures, scapy opens.
type scapyBed struct {
	*bed
	station, host net.HardwareAddr
	// sockets are the host's, one for each IP version.
	sockets map[int]net.PacketConn
}

// TestR37_Scapy has scapy seal packets that the host then receives, and open those
// that the host sends.
func TestR37_Scapy(t *testing.T) {
	var list []kase
	for _, s := range []suite{gcm(128, 16), cbc(128, 32), ah(32)} {
		list = append(list, transport(4, 0, s), transport(6, 0, s), tunnel(4, 4, 0, s), tunnel(6, 6, 0, s), tunnel(4, 6, 0, s), tunnel(6, 4, 0, s))
	}
	scapyMatrix(t, list)
}

// TestR42_RFC3948_2_1_ESPInUDPWithScapy is the same in UDP. IPv6 in transport mode is
// left out: scapy 2.5 leaves the UDP header where it was when it opens that.
func TestR42_RFC3948_2_1_ESPInUDPWithScapy(t *testing.T) {
	g, c := gcm(128, 16), cbc(128, 32)
	scapyMatrix(t, []kase{
		inUDP(transport(4, 0, g)), inUDP(transport(4, 0, c)),
		inUDP(tunnel(4, 4, 0, c)), inUDP(tunnel(6, 6, 0, g)), inUDP(tunnel(6, 4, 0, g)), inUDP(tunnel(4, 6, 0, c)),
	})
}

// TestR38_OldCiphersWithScapy is the same with those that are there for old peers.
func TestR38_OldCiphersWithScapy(t *testing.T) {
	scapyMatrix(t, []kase{
		transport(4, 0, des(md5())), tunnel(6, 4, 0, des(md5())), transport(6, 0, tripleDES(hmac(20))), tunnel(4, 4, 0, tripleDES(hmac(20))),
		transport(4, 0, ahWith(md5())), tunnel(6, 6, 0, ahWith(md5())),
	})
}

func scapyMatrix(t *testing.T, list []kase) {
	t.Helper()
	netlab.Require(t, scapy.Need())
	ctx := deadline(t, 10*patience)
	b := &scapyBed{bed: newWire(t), sockets: make(map[int]net.PacketConn)}
	for host, mac := range map[*netlab.Host]*net.HardwareAddr{b.bed.host: &b.host, b.third: &b.station} {
		link, err := host.Netlink().LinkByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		*mac = link.Attrs().HardwareAddr
	}
	for _, v := range []int{4, 6} {
		socket, err := b.bed.host.ListenPacket(ctx, "udp", netip.AddrPortFrom(hostAddr(v), hostPort).String())
		if err != nil {
			t.Fatal(err)
		}
		defer socket.Close()
		b.sockets[v] = socket
	}
	var cfg config.Config
	cfg.Offloads.NoUDPSuperframes = true // a frame of the capture is a packet
	var all []ends
	for _, k := range list {
		k.n = len(all)
		e := k.ends(t)
		all = append(all, e)
		cfg.SAs, cfg.Policies = append(cfg.SAs, e.sas...), append(cfg.Policies, e.policy)
		// Nobody is there to answer for them.
		cfg.StaticNeighbors = append(cfg.StaticNeighbors,
			config.Neighbor{Address: k.peerAddr(4), MAC: b.station}, config.Neighbor{Address: k.peerAddr(6), MAC: b.station})
	}
	b.startAppliance(t, cfg, 0)
	for _, e := range all {
		t.Run(strings.ReplaceAll(e.String(), " ", "_"), func(t *testing.T) {
			drops := b.box.Status().Drops
			if err := b.sealed(ctx, e); err != nil {
				t.Errorf("sealed by scapy: %v", err)
			}
			// One of the sealed packets was spoilt, another came twice.
			so := func() bool {
				d := since(drops, b.box.Status().Drops, "class_discard")
				return len(d) == 2 && d["icv"] == 1 && d["replay"] == 1
			}
			if !eventually(ctx, so) {
				t.Errorf("the appliance dropped %v", since(drops, b.box.Status().Drops, "class_discard"))
			}
			if err := b.opened(ctx, e); err != nil {
				t.Errorf("opened by scapy: %v", err)
			}
		})
	}
	if d := since(nil, b.box.Status().Drops, "icv", "replay", "class_discard"); len(d) != 0 {
		t.Errorf("the appliance dropped %v", d)
	}
}

// sizes of UDP payloads; each is told from the others by it.
var scapySizes = []int{1, 100, 101, 102, 103, 1300}

func (b *scapyBed) sealed(ctx context.Context, e ends) error {
	us, them := netip.AddrPortFrom(hostAddr(e.inner), hostPort), netip.AddrPortFrom(e.peerAddr(e.inner), scapyPort)
	var items []scapy.Item
	for i, n := range scapySizes {
		items = append(items, scapy.Item{Packet: udpPacket(them, us, text(n)), Seq: uint32(i + 1)})
	}
	packets, err := scapy.Seal(ctx, scapySA(e.sas[1]), items...)
	if err != nil {
		return err
	}
	spoilt := bytes.Clone(packets[0])
	spoilt[len(spoilt)-1] ^= 1
	if err := inject(b.third, b.host, append([][]byte{spoilt, packets[0]}, packets...)...); err != nil {
		return err
	}
	buffer := make([]byte, 1<<16)
	for _, n := range scapySizes {
		if err := b.sockets[e.inner].SetReadDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		got, from, err := b.sockets[e.inner].ReadFrom(buffer)
		if err != nil {
			return fmt.Errorf("the host waits for %d octets: %w", n, err)
		}
		if !bytes.Equal(buffer[:got], text(n)) || from.String() != them.String() {
			return fmt.Errorf("the host has %d octets from %v, want %d from %v", got, from, n, them)
		}
	}
	return nil
}

func (b *scapyBed) opened(ctx context.Context, e ends) error {
	us, them := netip.AddrPortFrom(hostAddr(e.inner), hostPort), netip.AddrPortFrom(e.peerAddr(e.inner), scapyPort)
	capture := b.wire.Capture(netlab.CaptureOptions{})
	seen := func(n int) func() bool {
		return func() bool { return len(capture.Find(netlab.OfClass(e.outermost()))) >= n }
	}
	for i, n := range scapySizes {
		if _, err := b.sockets[e.inner].WriteTo(text(n), net.UDPAddrFromAddrPort(them)); err != nil {
			return err
		}
		if i == 0 {
			// It may have waited for its next hop, and then goes by another processor than the
			// next ones, which a veth does not keep in order.
			eventually(ctx, seen(1))
		}
	}
	there := eventually(ctx, seen(len(scapySizes)))
	counts, err := capture.Stop()
	if err != nil {
		return err
	}
	if !there || counts.Frames-counts.Of(netlab.ARP, netlab.ND, netlab.MLD) != len(scapySizes) {
		return fmt.Errorf("on the wire: %v", counts)
	}
	var packets [][]byte
	for _, f := range capture.Find(netlab.OfClass(e.outermost())) {
		if want := net.HardwareAddr(f.Data[:6]); want.String() != b.station.String() {
			return fmt.Errorf("a frame to %v, want %v", want, b.station)
		}
		packets = append(packets, f.Data[14:])
	}
	spoilt := bytes.Clone(packets[0])
	spoilt[len(spoilt)-1] ^= 1
	opened, err := scapy.Open(ctx, scapySA(e.sas[0]), append(packets, spoilt)...)
	if err != nil {
		return err
	}
	for i, n := range scapySizes {
		if opened[i].Err != nil {
			return fmt.Errorf("%d octets: %w", n, opened[i].Err)
		}
		src, dst, payload, err := readUDP(opened[i].Packet)
		if err != nil {
			return fmt.Errorf("%d octets: %w: % x", n, err, opened[i].Packet)
		}
		if src != us || dst != them || !bytes.Equal(payload, text(n)) {
			return fmt.Errorf("%d octets from %v to %v, want %d from %v to %v", len(payload), src, dst, n, us, them)
		}
	}
	if err := opened[len(scapySizes)].Err; !errors.Is(err, scapy.ErrIntegrity) {
		return fmt.Errorf("scapy of a spoilt packet: %v", err)
	}
	return nil
}

func text(n int) []byte {
	b := make([]byte, n)
	_, _ = io.ReadFull(netlab.NewPayload(uint64(n)), b) // has no error
	return b
}
