package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // what makes Debian packages
	"github.com/goreleaser/nfpm/v2/files"
)

const maintainer = "The bitw authors <bitw@localhost>"

// contents are where the files go: what was made, and what lies in the folder files.
func (p *plan) contents() (files.Contents, error) {
	var list files.Contents
	add := func(source, destination string, mode fs.FileMode) {
		list = append(list, &files.Content{
			Source: source, Destination: destination,
			FileInfo: &files.ContentFileInfo{Owner: "root", Group: "root", Mode: mode, MTime: p.mtime},
		})
	}
	made := func(name, destination string) { add(filepath.Join(p.work, name), destination, 0o644) }
	add(filepath.Join(p.work, "bitw"), "/usr/sbin/bitw", 0o755)
	add("files/bitw@.service", "/usr/lib/systemd/system/bitw@.service", 0o644)
	add("files/bitw-guard@.service", "/usr/lib/systemd/system/bitw-guard@.service", 0o644)
	add("files/sysusers.conf", "/usr/lib/sysusers.d/bitw.conf", 0o644)
	add("files/tmpfiles.conf", "/usr/lib/tmpfiles.d/bitw.conf", 0o644)
	made("bitw.bash", "/usr/share/bash-completion/completions/bitw")
	made("_bitw", "/usr/share/zsh/vendor-completions/_bitw")
	made("bitw.fish", "/usr/share/fish/vendor_completions.d/bitw.fish")
	made("schema.json", "/usr/share/bitw/schema.json")
	made("grafana.json", "/usr/share/bitw/grafana.json")
	made("copyright", "/usr/share/doc/bitw/copyright")
	made("changelog.gz", "/usr/share/doc/bitw/changelog.gz")
	add(filepath.Join(p.module, "README.md"), "/usr/share/doc/bitw/README.md", 0o644)
	pages, err := filepath.Glob(filepath.Join(p.work, "man", "*.gz"))
	if err != nil {
		return nil, err
	}
	for _, page := range pages {
		name := filepath.Base(page)
		section := name[len(name)-len("8.gz")] // as in bitw-up.8.gz
		add(page, fmt.Sprintf("/usr/share/man/man%c/%s", section, name), 0o644)
	}
	add("files/example.yaml", "/etc/bitw/example.yaml", 0o644)
	list[len(list)-1].Type = files.TypeConfigNoReplace
	return list, nil
}

// pack makes the package of all that.
func (p *plan) pack() (path string, err error) {
	list, err := p.contents()
	if err != nil {
		return "", err
	}
	info := nfpm.WithDefaults(&nfpm.Info{
		Name: "bitw", Version: p.version, Arch: p.arch, Platform: "linux", Section: "net", Priority: "optional",
		Maintainer: maintainer, License: "Apache-2.0", MTime: p.mtime,
		Description: "IPsec bump-in-the-wire in userspace\n" +
			"bitw stands between a host's kernel and its network interface and applies\n" +
			"ESP and AH to what crosses, by the policies of a configuration file. It\n" +
			"fails closed, and tells of each packet why it was protected or dropped.",
		Overridables: nfpm.Overridables{
			Contents:   list,
			Depends:    []string{"systemd"},
			Recommends: []string{"nftables"},
			Scripts:    nfpm.Scripts{PostInstall: "files/postinst", PreRemove: "files/prerm", PostRemove: "files/postrm"},
			Deb:        nfpm.Deb{Compression: "xz"},
		},
	})
	packager, err := nfpm.Get("deb")
	if err != nil {
		return "", err
	}
	if err := nfpm.PrepareForPackager(info, "deb"); err != nil {
		return "", err
	}
	path = filepath.Join(p.out, packager.ConventionalFileName(info))
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	if err := errors.Join(packager.Package(info, f), f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(path))
	}
	return path, nil
}
