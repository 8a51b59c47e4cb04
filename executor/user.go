package executor

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/internal/safepath"
)

// identity is the user and groups that a command runs as.
type identity struct {
	uid, gid uint32
	groups   []uint32
	home     string
}

// maxID is the largest id that a USER may have, as in Docker.
const maxID = 1<<31 - 1

// maxUserFile is the largest accepted size of an image's passwd and group files.
const maxUserFile = 10 << 20

// lookupUser looks up user|uid[:group|gid] in the passwd and group files of the root. A number is
// looked up too, for its group, home and further groups, but need not be found. Further groups are
// returned only if spec has no group.
func lookupUser(root int, spec string) (identity, error) {
	userName, groupName, hasGroup := strings.Cut(spec, ":")
	id := identity{home: "/"}
	uid, numeric, err := parseID(userName)
	if err != nil {
		return id, err
	}
	found := ""
	err = scanFile(root, "/etc/passwd", func(f []string) bool {
		// name:password:uid:gid:comment:home:shell
		if len(f) < 4 {
			return true
		}
		u, err1 := strconv.ParseUint(f[2], 10, 31)
		g, err2 := strconv.ParseUint(f[3], 10, 31)
		if err1 != nil || err2 != nil || numeric && u != uint64(uid) ||
			!numeric && f[0] != userName {
			return true
		}
		found, id.uid, id.gid = f[0], uint32(u), uint32(g)
		if len(f) > 5 && f[5] != "" {
			id.home = f[5]
		}
		return false
	})
	if err != nil {
		return id, fmt.Errorf("find user %s: %w", userName, err)
	}
	if found == "" {
		if !numeric {
			return id, fmt.Errorf("unable to find user %s: no matching entries in passwd file",
				userName)
		}
		id.uid = uid
	}
	if hasGroup && groupName != "" {
		id.gid, err = lookupGroup(root, groupName)
	} else if found != "" {
		id.groups, err = groupsOf(root, found)
	}
	if !slices.Contains(id.groups, id.gid) {
		id.groups = append([]uint32{id.gid}, id.groups...)
	}
	return id, err
}

func lookupGroup(root int, name string) (uint32, error) {
	gid, numeric, err := parseID(name)
	if err != nil || numeric {
		return gid, err
	}
	gid, ok, err := groupID(root, name)
	if err == nil && !ok {
		err = fmt.Errorf("unable to find group %s: no matching entries in group file", name)
	}
	return gid, err
}

func groupID(root int, name string) (gid uint32, ok bool, err error) {
	err = scanFile(root, "/etc/group", func(f []string) bool {
		// name:password:gid:members
		if len(f) < 3 || f[0] != name {
			return true
		}
		g, err := strconv.ParseUint(f[2], 10, 31)
		if err != nil {
			return true
		}
		gid, ok = uint32(g), true
		return false
	})
	if err != nil {
		err = fmt.Errorf("find group %s: %w", name, err)
	}
	return gid, ok, err
}

func groupsOf(root int, user string) ([]uint32, error) {
	var gids []uint32
	err := scanFile(root, "/etc/group", func(f []string) bool {
		if len(f) < 4 || !slices.Contains(strings.Split(f[3], ","), user) {
			return true
		}
		if g, err := strconv.ParseUint(f[2], 10, 31); err == nil &&
			!slices.Contains(gids, uint32(g)) {
			gids = append(gids, uint32(g))
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("find the groups of %s: %w", user, err)
	}
	return gids, nil
}

// parseID parses a number; "" is 0.
func parseID(s string) (id uint32, numeric bool, err error) {
	if s == "" {
		return 0, true, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if errors.Is(err, strconv.ErrSyntax) {
		return 0, false, nil
	}
	if err != nil || n < 0 || n > maxID {
		return 0, true, fmt.Errorf("user and group numbers must be in the range 0 to %d, not %s",
			maxID, s)
	}
	return uint32(n), true, nil
}

// lookupOwner looks up the owner of a --chown or of the user for a WORKDIR. Unlike with USER, a uid
// without a group is also the gid, and a name that is not found is 0. unknown is the name that was
// not found.
func lookupOwner(root int, spec string) (o copyfs.Owner, unknown string, err error) {
	userName, groupName, hasGroup := strings.Cut(spec, ":")
	uid, numeric, err := parseID(userName)
	if err != nil {
		return o, "", err
	}
	o = copyfs.Owner{UID: int(uid), GID: int(uid)}
	if !numeric {
		id, err := lookupUser(root, userName)
		if err != nil {
			unknown = userName
			id = identity{}
		}
		o = copyfs.Owner{UID: int(id.uid), GID: int(id.gid)}
	}
	if !hasGroup || groupName == "" {
		return o, unknown, nil
	}
	gid, numeric, err := parseID(groupName)
	if err != nil {
		return o, unknown, err
	}
	if !numeric {
		var ok bool
		if gid, ok, err = groupID(root, groupName); err != nil {
			return o, unknown, err
		}
		if !ok {
			unknown = groupName
			gid = uint32(o.GID)
		}
	}
	o.GID = int(gid)
	return o, unknown, nil
}

// scanFile calls line with the fields of each line until line returns false. A file that does not
// exist has no lines.
func scanFile(root int, name string, line func([]string) bool) error {
	f, err := openRegular(root, name)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	r := &io.LimitedReader{R: f, N: maxUserFile + 1}
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxUserFile+1)
	for s.Scan() {
		text := strings.TrimSpace(s.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		if !line(strings.Split(text, ":")) {
			return nil
		}
	}
	if r.N == 0 {
		return fmt.Errorf("%s is larger than %d MiB", name, maxUserFile>>20)
	}
	return s.Err()
}

// openRegular opens a regular file in the root. It neither blocks on a fifo nor touches a device.
func openRegular(root int, name string) (*os.File, error) {
	at, err := openIn(root, name, 0)
	if err != nil {
		return nil, safepath.InRootError(name, err)
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return nil, safepath.InRootError(name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("%s is not a regular file", name)
	}
	n, err := safepath.InRoot(root, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, safepath.InRootError(name, err)
	}
	return os.NewFile(uintptr(n), name), nil
}
