package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"bitw/appliance"
	"bitw/config"
)

func (p *program) initVerb() *cobra.Command {
	var file, dir string
	cmd := &cobra.Command{
		Use:               "init [IFACE] [-f FILE]",
		ValidArgsFunction: completeInterface,
		Short:             "Write a first configuration for an interface",
		Long: `init writes a configuration with comments for the interface IFACE, or where none is
named for the one by which the default route goes, with the addresses that it has. All
of its traffic is bypassed at first, so that nothing breaks when it is tried; the
protection of a peer stands there as an example to fill in. It touches no interface.

The file is /etc/bitw/IFACE.yaml, or what -f says ("-" for standard output), with mode
0600, and belongs to the owner of its folder. One that exists is never written over.`,
		Example: `  sudo bitw init
  sudo bitw init eth0
  bitw init eth0 -f -`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("init takes one interface, not %d", len(args))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			return p.runInit(name, file, dir)
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "write this `FILE` instead; - for standard output")
	cmd.Flags().StringVar(&dir, "dir", "/etc/bitw", "the folder (`DIR`) of the file where -f is not given")
	return cmd
}

func (p *program) runInit(name, file, dir string) error {
	found, err := p.findInterface(name)
	if err != nil {
		return err
	}
	text := firstConfig(found)
	// What is written must be good.
	if _, _, err := config.Parse("first configuration", []byte(text), appliance.ConfigOptions()); err != nil {
		return fmt.Errorf("interface %s: %w", found.Name, err)
	}
	if file == "-" {
		_, err := io.WriteString(p.out, text)
		return err
	}
	if file == "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return notWritten(err)
		}
		file = filepath.Join(dir, found.Name+".yaml")
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already, and is left as it is; name another file with -f, or look at it with: bitw check -c %s", file, shellWord(file))
	}
	if err != nil {
		return notWritten(err)
	}
	_, err = io.WriteString(f, text)
	if err = errors.Join(err, belongToFolder(f), f.Close()); err != nil {
		return errors.Join(err, os.Remove(file))
	}
	_, err = fmt.Fprintf(p.out, `%[1]s is written for %[2]s. Next:
  edit %[1]s
  bitw check -c %[1]s
  bitw observe %[2]s -c %[1]s --for 1m
  timeout 120 bitw up --open-on-stop -c %[1]s
`, shellWord(file), found.Name)
	return err
}

// notWritten adds to why a file cannot be written what would do.
func notWritten(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; run it as root, or name another file with -f, or - for standard output", err)
	}
	return err
}

// belongToFolder makes root's file that of the owner of its folder, which may be the user as
// whom the service runs.
func belongToFolder(f *os.File) error {
	var st unix.Stat_t
	if os.Geteuid() != 0 || unix.Stat(filepath.Dir(f.Name()), &st) != nil {
		return nil
	}
	return f.Chown(int(st.Uid), int(st.Gid))
}

// firstConfig is the configuration that init writes.
func firstConfig(i *appliance.FoundInterface) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# bitw on %[1]s. All keys: man bitw.yaml
# The interface has MTU %[2]d`, i.Name, i.MTU)
	for _, a := range i.Addresses {
		fmt.Fprintf(&b, ", %s", a)
	}
	fmt.Fprintf(&b, `
interface: %[1]s
on_failure: shut              # without bitw nothing passes; open: everything does, in the clear

classes:                      # frames that no policy decides are discarded unless named here
  dhcp: bypass
  ndp-router: bypass          # IPv6 router advertisements

`, i.Name)
	local, remote, mode := "192.0.2.1", "192.0.2.2", "transport"
	for _, a := range i.Addresses {
		if !a.Addr().IsLinkLocalUnicast() {
			local = a.Addr().String()
			if a.Addr().Is6() {
				remote = "2001:db8::2"
			}
			break
		}
	}
	fmt.Fprintf(&b, `# To protect the traffic with a peer, here %[2]s, take away the # below, on both hosts, with
# out and in, local and remote the other way round there. A key for each direction:
#   (umask 077; for sa in to-peer from-peer; do echo "$sa $(openssl rand -hex 20)"; done > %[4]s.keys)
#security_associations:
#  - {name: to-peer, direction: out, protocol: esp, mode: %[3]s, spi: 0x1001, source: "%[1]s", destination: "%[2]s", algorithm: aes128gcm16, key_file: %[4]s.keys}
#  - {name: from-peer, direction: in, protocol: esp, mode: %[3]s, spi: 0x2001, source: "%[2]s", destination: "%[1]s", algorithm: aes128gcm16, key_file: %[4]s.keys}

policies:                     # the first match decides, no match is discard
#  - name: peer
#    local: "%[1]s"
#    remote: "%[2]s"
#    action: protect
#    out: [to-peer]
#    in: [from-peer]
  - name: rest                # all else passes in the clear; remove it once every flow has a policy
    action: bypass
`, local, remote, mode, i.Name)
	return b.String()
}
