package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

func TestUsageErrors(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"", "a verb is missing"},
		{"stats", `there is no verb "stats", did you mean status?`},
		{"frobnicate", `there is no verb "frobnicate"`},
		{"help stats", `there is no help about "stats", did you mean status?`},
		{"help keys lst", `there is no help about "keys lst", did you mean list?`},
		{"completion", "completion is followed by one of bash, fish, powershell, zsh"},
		{"completion tcsh", `not "tcsh"`},
		{"completion bash x", `bash takes no argument "x"`},
		{"keys", "keys is followed by one of clear, invalidate, list, set"},
		{"keys lst", `not "lst", did you mean list?`},
		{"neigh fluhs", `no bitw runs on "fluhs", did you mean flush?`},
		{"up --takover", "unknown flag: --takover, did you mean --takeover?"},
		{"monitor --last x", `--last is a number, not "x"`},
		{"capture --count -1", `--count is a number, not below 0, not "-1"`},
		{"--frob", "unknown flag: --frob"},
		{"up", "-c FILE is missing"},
		{"up FILE", `up takes no argument "FILE"`},
		{"up -c", "flag needs an argument"},
		{"up -c x --hook xdp", `--hook is auto, tcx, clsact, not "xdp"`},
		{"up -c x --log-level loud", `--log-level is error, warn, info, debug, trace, not "loud"`},
		{"check", "-c FILE is missing"},
		{"check -c x -o yaml", `--output is text, json, not "yaml"`},
		{"status eth0 eth1", "status takes one interface, not 2"},
		{"status eth0 -c x", "give only one of them"},
		{"status --socket x -c x", "give only one of them"},
		{"status ./bitw.yaml", "a file goes after -c"},
		{"status -o xml", `not "xml"`},
		{"status --for 3s", "--every and --for are for --watch"},
		{"status --every 2s", "--every and --for are for --watch"},
		{"down a b", "down takes one interface, not 2"},
		{"down --timeout 0s", "--timeout is a time above 0"},
		{"down --timeout soon", `--timeout is a time such as 10s or 5m, not "soon"`},
		{"recover", "recover needs IFACE"},
		{"recover eth0 eth1", `recover takes no argument "eth1"`},
		{"demo --size 0", "is not a number of octets"},
		{"demo --size -1", "is not a number of octets"},
		{"demo --size 9999999999GiB", "is not a number of octets"},
		{"demo --size 5MB", "is not a number of octets"},
		{"demo -w /nowhere/at/all/x.pcapng", "there is no folder /nowhere/at/all"},
		{"demo now", `demo takes no argument "now"`},
		{"explain", "explain needs a packet, such as"},
		{"explain tcp 10.0.0.5:1234", "put quotes around it"},
		{"explain tcp 10.0.0.5:1234 > 192.0.2.9:443 eth0", "put quotes around it"},
		{"explain tcp eth0", "put quotes around it"},
		{"explain arp --offline", "--offline needs -c FILE"},
		{"explain arp eth0 eth1", "explain takes one interface, not 2"},
		{"explain arp --mtu 1400", "--mtu is for --offline"},
		{"explain arp -c x --offline --mtu 10", "--mtu is 68 to 65535"},
		{"explain arp --number 2", "--number is for --pcap"},
		{"explain --pcap x --number 0", "--number is 1 or more"},
		{"explain arp --direction up", `--direction is out, in, not "up"`},
		{"explain arp --expect allow", `--expect is protect, bypass, discard, not "allow"`},
		{"explain arp -o xml", `not "xml"`},
		{"explain apr", "column 1: found \"apr\""},
		{"bench now", `bench takes no argument "now"`},
		{"bench --wire gsso", `--wire is off, gso, on, not "gsso"`},
		{"bench --suite aes128gcm17", "aes128gcm16"},
		{"bench -o yaml", `--output is text, json, not "yaml"`},
		{"capture", "-w FILE is missing"},
		{"capture -w x tcp prot 443", "filter, column 5: \"prot\" is not known"},
		{"capture -w x tcp port x", "  tcp port x\n           ^"},
		{"capture -w x --for -1s", "--for is a time"},
		{"capture -w x --snaplen 10", "--snaplen is 14 to 131072, not 10"},
		{"capture -w x --files 3", "--files and --file-size belong together"},
		{"capture -w x --files 3 --file-size 3MB", "is not a number of octets"},
		{"capture -w - --files 3 --file-size 3MiB", "-w - is none"},
		{"capture -w - --with-keys", "say where the keys go"},
		{"capture -w x.esp_sa --with-keys", "are one file"},
		{"capture -w /nowhere/at/all/x", "there is no folder /nowhere/at/all"},
		{"capture -w .", ". is a folder; name a file in it"},
		{"capture -w x drop icvv", "       ^\ndid you mean \"icv\"?"},
		{"capture -w x hots 1.2.3.4", "did you mean \"host\"?"},
		{"trace", "trace needs a filter"},
		{"trace hots", "  hots\n  ^\ndid you mean \"host\"?"},
		{"trace tcp port 443", "put quotes around it, 'tcp port 443'"},
		{"capture -w x --with-keys=/nowhere/at/all/k", "there is no folder /nowhere/at/all"},
		{"capture -w x --socket y -c z", "give only one of them"},
		{"keys set", "set needs NAME"},
		{"keys set a 00112233445566778899aabbccddeeff", "others see what stands on the command line"},
		{"keys set 00112233445566778899aabbccddeeff", "others see what stands on the command line"},
		{"version 1", `version takes no argument "1"`},
		{"man", "man needs DIR"},
	} {
		t.Run(c.args, func(t *testing.T) {
			w := newWorld(t)
			w.call(t, 2, "", c.want, strings.Fields(c.args)...)
			if w.out.String() != "" {
				t.Errorf("stdout: %q", w.out.String())
			}
			if !strings.HasSuffix(w.err.String(), "--help' for how it is called\n") {
				t.Errorf("stderr does not tell where help is: %q", w.err.String())
			}
		})
	}
}

// Every verb has what its help and its manual page are made of.
func TestHelp(t *testing.T) {
	root := newWorld(t).command()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "help" || cmd.Name() == "completion" {
			continue // cobra's own
		}
		for _, line := range strings.Split(cmd.Long, "\n") {
			if utf8.RuneCountInString(line) > 90 || strings.Contains(line, "go doc ./") {
				t.Errorf("%s: a line that is too long, or only right in the source: %q", cmd.Name(), line)
			}
		}
		if cmd.IsAdditionalHelpTopicCommand() {
			newWorld(t).call(t, 0, strings.TrimSpace(cmd.Long), "", "help", cmd.Name())
			continue
		}
		if cmd.Short == "" || cmd.Long == "" || !strings.Contains(cmd.Example, "bitw "+cmd.Name()) {
			t.Errorf("%s: Short, Long or Example is missing", cmd.Name())
		}
		w := newWorld(t)
		w.call(t, 0, "Usage:\n  bitw "+cmd.Use+"\n", "", cmd.Name(), "--help")
	}
	w := newWorld(t)
	w.call(t, 0, "IPsec", "", "--help")
	if strings.Contains(w.out.String(), "manual pages") {
		t.Error("man is not hidden")
	}
}

func TestVersion(t *testing.T) {
	newWorld(t).call(t, 0, "bitw ", "", "version")
	newWorld(t).call(t, 0, "bitw ", "", "--version")
}

func TestCompletion(t *testing.T) {
	w := newWorld(t)
	w.call(t, 0, "bitw", "", "completion", "bash")
	w = newWorld(t)
	w.die(t, "eth0")
	w.die(t, "eth1")
	w.call(t, 0, "eth0\neth1\n", "", cobra.ShellCompRequestCmd, "status", "")
	// An interface, and no file.
	for _, verb := range []string{"guard", "init", "netcheck", "observe", "recover"} {
		w = newWorld(t)
		w.call(t, 0, ":4\n", "", cobra.ShellCompRequestCmd, verb, "no", "")
		w = newWorld(t)
		w.call(t, 0, ":4\n", "", cobra.ShellCompRequestCmd, verb, "")
		if strings.Contains(w.out.String(), "lo\n") {
			t.Errorf("%s: %q", verb, w.out.String())
		}
	}
	w = newWorld(t)
	w.call(t, 0, "tcx\n", "", cobra.ShellCompRequestCmd, "up", "--hook", "")
}

func TestManualPages(t *testing.T) {
	dir := t.TempDir() + "/man8"
	w := newWorld(t)
	w.call(t, 0, "", "", "man", dir)
	for _, name := range []string{"bitw.8", "bitw-up.8", "bitw-check.8", "bitw-status.8", "bitw-down.8", "bitw-recover.8", "bitw-demo.8", "bitw-bench.8", "bitw-explain.8", "bitw-version.8"} {
		if text := read(t, dir+"/"+name); !strings.Contains(text, "EXAMPLE") {
			t.Errorf("%s has no example", name)
		}
	}
	if text := read(t, dir+"/bitw-trace.8"); !strings.Contains(text, ".EX\nall          every packet, as the empty filter\nout | in     the packet came") {
		t.Errorf("bitw-trace.8 does not keep its table:\n%s", text)
	}
	if text := read(t, dir+"/bitw.8"); !strings.HasSuffix(strings.NewReplacer(`\fB`, "", `\fP`, "").Replace(text), ", bitw-version(8), bitw-algorithms(8), bitw-interface(8), bitw-limits(8), bitw-paths(8), bitw.yaml(5)\n") {
		t.Errorf("bitw.8 does not name all pages:\n%s", text[max(0, len(text)-200):])
	}
	if text := read(t, dir+"/bitw-limits.8"); !strings.Contains(text, "does not outlive a reboot") {
		t.Errorf("bitw-limits.8 does not have its text:\n%s", text)
	}
	if text := read(t, dir+"/bitw.yaml.5"); !strings.Contains(text, `\fBon_failure:\fR shut | open`) {
		t.Errorf("bitw.yaml.5 has no on_failure:\n%s", text)
	}
	w = newWorld(t)
	w.call(t, 1, "", "bitw: manual pages: ", "man", dir+"/bitw.8/x")
}
