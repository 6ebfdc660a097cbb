package appliance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"bitw/config"
)

// access is what a process at the other end of the control socket may do.
type access uint8

const (
	noAccess  access = iota
	mayRead          // ask, but change nothing
	mayChange        // everything but a takeover, which is the owner's
	mayOwn           // everything
)

// allowedGroups are the groups beside root and the owner; -1 stands for none.
type allowedGroups struct {
	read, change int64
}

// controlGroups looks up the groups of a configuration.
func controlGroups(cfg *config.Config) (g allowedGroups, err error) {
	if g.read, err = groupID(cfg, "control_group", cfg.ControlGroup); err != nil {
		return g, err
	}
	g.change, err = groupID(cfg, "control_admin_group", cfg.ControlAdminGroup)
	return g, err
}

// groupID is the number of a group that is named by name or number.
func groupID(cfg *config.Config, key, name string) (int64, error) {
	if name == "" {
		return -1, nil
	}
	if n, err := strconv.ParseUint(name, 10, 32); err == nil {
		return int64(n), nil
	}
	found, err := user.LookupGroup(name)
	if err != nil {
		return 0, cfg.ErrorAt(key, fmt.Sprintf("there is no group %q on this machine", name), "name one of /etc/group, or make it: groupadd --system "+name, err)
	}
	n, err := strconv.ParseUint(found.Gid, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%s: group %s has the number %q", key, name, found.Gid)
	}
	return int64(n), nil
}

// open lets the groups connect to the socket at path. A file has one group only, so with
// two all may connect, and what they are is looked at then.
func (g allowedGroups) open(path string) error {
	one := max(g.read, g.change)
	switch {
	case one < 0:
		return os.Chmod(path, 0o600)
	case g.read >= 0 && g.change >= 0 && g.read != g.change:
		return os.Chmod(path, 0o666)
	}
	if err := os.Chown(path, -1, int(one)); err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("only a member of group %d may give it that, and the user that this runs as is none; make it one: usermod -aG (%w)", one, err)
		}
		return err
	}
	return os.Chmod(path, 0o660)
}

// of says what a process may do.
func (g allowedGroups) of(p peer) access {
	in := func(group int64) bool { return group >= 0 && slices.Contains(p.groups, uint32(group)) }
	switch {
	case !p.known:
		return noAccess
	case p.uid == 0 || int(p.uid) == os.Geteuid():
		return mayOwn
	case in(g.change):
		return mayChange
	case in(g.read):
		return mayRead
	}
	return noAccess
}

// A peer is the process at the other end of a connection, as it was when it connected.
type peer struct {
	known  bool
	pid    int
	uid    uint32
	groups []uint32
}

// peerKey is where a request's context has its peer.
type peerKey struct{}

func withPeer(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, peerKey{}, peerOf(conn))
}

// peerOf asks the kernel (SO_PEERCRED and SO_PEERGROUPS, unix(7)). Where that fails
// nobody is known.
func peerOf(conn net.Conn) (p peer) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return p
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return p
	}
	_ = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			return
		}
		more, err := peerGroups(fd)
		if err != nil {
			return
		}
		p = peer{known: true, pid: int(cred.Pid), uid: cred.Uid, groups: append(more, cred.Gid)}
	})
	return p
}

// peerGroups are the supplementary groups, which no function of package unix asks for.
func peerGroups(fd uintptr) ([]uint32, error) {
	list := make([]uint32, 32)
	for {
		size := uint32(4 * len(list))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&list[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch need := int(size / 4); {
		case errno == 0:
			return list[:min(need, len(list))], nil
		case errno == unix.ERANGE && need > len(list): // it says how many there are
			list = make([]uint32, need)
		default:
			return nil, errno
		}
	}
}
