package netlab_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/sys/unix"

	"bitw/integration/netlab"
)

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestTrafficAndCapture(t *testing.T) {
	for _, test := range []struct {
		name    string
		options netlab.PairOptions
	}{
		{"offloads", netlab.PairOptions{}},
		{"no offloads", netlab.PairOptions{NoOffload: true}},
		{"jumbo", netlab.PairOptions{MTU: 9000, NoOffload: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx := deadline(t)
			pair := netlab.New(t).Pair(test.options)
			capture := pair.Wire.Capture(netlab.CaptureOptions{
				Watch: []netlab.Match{netlab.Containing([]byte(netlab.Marker))},
			})
			for _, prefix := range netlab.DefaultB() {
				to := prefix.Addr()
				result, err := netlab.Ping(ctx, pair.A, to, netlab.PingOptions{Count: 5})
				if err != nil || result.Received != 5 || result.Lost != 0 || len(result.RTTs) != 5 {
					t.Fatalf("ping %v: %v, %v", to, result, err)
				}
				udp, err := netlab.UDPEcho(ctx, pair.A, pair.B, netlab.UDPOptions{Addr: to, Sizes: []int{0, 1, 1000, 1472, 1473, 9000, 65000}})
				if err != nil || udp.Received != 7 || len(udp.Lost) != 0 {
					t.Fatalf("UDP to %v: %+v, %v", to, udp, err)
				}
				if digest, err := netlab.HTTPTransfer(ctx, pair.B, pair.A, to, 3<<20); err != nil || digest.Size != 3<<20 {
					t.Fatalf("HTTP from %v: %v, %v", to, digest, err)
				}
				if digest, err := netlab.TCPBulk(ctx, pair.A, pair.B, to, 3<<20); err != nil || digest.Size != 3<<20 {
					t.Fatalf("TCP to %v: %v, %v", to, digest, err)
				}
			}
			counts, err := capture.Stop()
			if err != nil {
				t.Fatal(err)
			}
			// 2 families, each with 2 transfers of 3 MiB and more.
			if counts.Bytes < 12<<20 || counts.NotKept != 0 || counts.Of(netlab.ARP) < 2 || counts.Of(netlab.ND) < 2 || counts.Of(netlab.ESP) != 0 {
				t.Errorf("the capture has %v", counts)
			}
			if clear := capture.Watched(0); clear.Frames < 100 || len(clear.First) == 0 {
				t.Errorf("the marker is in %d frames", clear.Frames)
			}
			longest := 0
			for _, f := range capture.Frames() {
				longest = max(longest, f.Length)
			}
			mtu := max(test.options.MTU, 1500)
			if whole := longest == mtu+14; whole != test.options.NoOffload {
				t.Errorf("the longest frame has %d octets, with NoOffload %v", longest, test.options.NoOffload)
			}
			ping := netlab.InFlow(netlab.Flow{Proto: unix.IPPROTO_ICMP, Src: netlab.DefaultA()[0].Addr()})
			requests := capture.Find(ping)
			if len(requests) != 5 || requests[0].Port != "port-a" {
				t.Errorf("%d frames with echo requests, want 5 at port-a", len(requests))
			}
			if both := capture.Find(netlab.InConversation(netlab.Flow{Proto: unix.IPPROTO_ICMP, Src: netlab.DefaultA()[0].Addr()})); len(both) != 10 {
				t.Errorf("%d frames with ICMP, want 10", len(both))
			}
			checkPcapng(t, capture)
		})
	}
}

func checkPcapng(t *testing.T, capture *netlab.Capture) {
	path := filepath.Join(t.TempDir(), "wire.pcapng")
	if err := capture.WritePcapng(path); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	reader, err := pcapgo.NewNgReader(file, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range capture.Frames() {
		data, info, err := reader.ReadPacketData()
		if err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if !bytes.Equal(data, want.Data) || !info.Timestamp.Equal(want.Time) {
			t.Fatalf("frame %d differs", i)
		}
		if intf, err := reader.Interface(info.InterfaceIndex); err != nil || intf.Name != want.Port {
			t.Fatalf("frame %d is of interface %q (%v), want %q", i, intf.Name, err, want.Port)
		}
	}
}

func TestCaptureIsBounded(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{NoOffload: true})
	capture := pair.Wire.Capture(netlab.CaptureOptions{
		MaxBytes: 20_000, SnapLen: 60,
		Watch: []netlab.Match{netlab.Containing([]byte(netlab.Marker)), netlab.OfClass(netlab.ARP)},
	})
	if _, err := netlab.TCPBulk(deadline(t), pair.A, pair.B, netlab.DefaultB()[0].Addr(), 1<<20); err != nil {
		t.Fatal(err)
	}
	counts, err := capture.Stop()
	if err != nil {
		t.Fatal(err)
	}
	kept := 0
	for _, f := range capture.Frames() {
		if kept += len(f.Data); len(f.Data) > 60 {
			t.Errorf("a kept frame has %d octets", len(f.Data))
		}
	}
	if kept > 20_000 || counts.NotKept == 0 || counts.NotKept+len(capture.Frames()) != counts.Frames {
		t.Errorf("kept %d octets in %d frames of %v, %d not kept", kept, len(capture.Frames()), counts, counts.NotKept)
	}
	// What is not kept has been looked at all the same, before it was cut.
	if clear := capture.Watched(0); clear.Frames < 1<<20/1500 {
		t.Errorf("the marker was seen in %d frames", clear.Frames)
	}
}

func TestPingLossAndTooBig(t *testing.T) {
	ctx := deadline(t)
	pair := netlab.New(t).Pair(netlab.PairOptions{MTU: 1400})
	b := netlab.DefaultB()
	nobody := b[0].Addr().Next()
	result, err := netlab.Ping(ctx, pair.A, nobody, netlab.PingOptions{Count: 2, Timeout: 200 * time.Millisecond})
	if err != nil || result.Sent != 2 || result.Lost != 2 {
		t.Errorf("ping %v: %v, %v", nobody, result, err)
	}
	for _, prefix := range b {
		result, err := netlab.Ping(ctx, pair.A, prefix.Addr(), netlab.PingOptions{Count: 2, Size: 1400, DontFragment: true})
		if err != nil || result.TooBig != 2 || result.Sent != 0 {
			t.Errorf("ping %v with DF: %v, %v", prefix.Addr(), result, err)
		}
		result, err = netlab.Ping(ctx, pair.A, prefix.Addr(), netlab.PingOptions{Count: 20, Size: 4000, Interval: time.Millisecond})
		if err != nil || result.Received != 20 {
			t.Errorf("ping %v in fragments: %v, %v", prefix.Addr(), result, err)
		}
	}
}

func TestVLANTagsAreSeen(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	capture := pair.Wire.Capture(netlab.CaptureOptions{})
	// The kernel takes the tag out of the frame on its way to the capture.
	tagged := octets("ffffffffffff 020000000001 8100 0007 88b5" + strings.Repeat("00", 46))
	err := pair.A.Do(func() error {
		card, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, tagged, 0, &unix.SockaddrLinklayer{Ifindex: card.Index})
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := capture.Stop(); err != nil {
		t.Fatal(err)
	}
	if found := capture.Find(func(f *netlab.Frame) bool { return bytes.Equal(f.Data, tagged) }); len(found) != 1 {
		t.Errorf("the tagged frame is seen %d times in %+v", len(found), capture.Frames())
	}
}

func TestProcesses(t *testing.T) {
	ctx := deadline(t)
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	out, err := pair.A.Run(ctx, "ip", "-br", "addr", "show", "dev", "eth0")
	if err != nil || !strings.Contains(out, "192.0.2.1/24") {
		t.Errorf("ip: %q, %v", out, err)
	}
	if _, err := pair.A.Run(ctx, "sh", "-c", "echo no >&2; exit 3"); err == nil || !strings.Contains(err.Error(), "no") {
		t.Errorf("a failing program: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if _, err := pair.A.Run(short, "sh", "-c", "sleep 600; true"); err == nil || short.Err() == nil {
		t.Errorf("a program past its deadline: %v", err)
	}
	p, err := pair.B.Start(exec.Command("sh", "-c", "sleep 600 & echo $!; wait"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(0); err != nil {
		t.Errorf("a running process: %v", err)
	}
	p.Kill()
	p.Kill()
	if err := p.Signal(0); err != os.ErrProcessDone {
		t.Errorf("signal to a process that has ended: %v", err)
	}
}

func TestCleanupLeavesNothing(t *testing.T) {
	var name, path string
	var pid int
	t.Run("lab", func(t *testing.T) {
		lab := netlab.New(t)
		pair := lab.Pair(netlab.PairOptions{})
		if err := pair.Wire.AttachTAP("tap0"); err != nil {
			t.Error(err)
		}
		pair.Wire.Capture(netlab.CaptureOptions{})
		p, err := pair.A.Start(exec.Command("sleep", "600"))
		if err != nil {
			t.Fatal(err)
		}
		name, path, pid = lab.Name(), pair.A.NetNSPath(), p.Pid()
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	})
	if name == "" {
		t.Skip("this test needs a lab, which the one within it could not have")
	}
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), name+"*"))
	if len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
	if err := unix.Kill(pid, 0); err != unix.ESRCH {
		t.Errorf("process %d is still there (%v)", pid, err)
	}
}
