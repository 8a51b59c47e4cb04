package ns

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/layerbuild/layerbuild/internal/smallfile"
	"golang.org/x/sys/unix"
)

// Range is a range of ids: the Count ids in the namespace that begin with Inside correspond to the
// ids in its parent that begin with Outside.
type Range struct {
	Inside, Outside, Count uint32
}

// Info describes the namespaces in which the program runs.
type Info struct {
	// Rootless is set in a user namespace. Its root has fewer rights than the host's, even with all
	// ids.
	Rootless bool
	// SingleID is set if only the id 0 exists, so that files cannot have other owners than root.
	SingleID bool
	// UIDs and GIDs are the ids of this namespace.
	UIDs, GIDs []Range
	// HostUID and HostGID are the ids of the user who started the program.
	HostUID, HostGID int
	// Entered is set if Enter started this process. Otherwise the program runs in the namespaces in
	// which it was started.
	Entered bool
	// Reasons are the reasons, one sentence each, for limitations such as a single id.
	Reasons []string
}

// Options are the options of Enter. The zero value is for a build.
type Options struct {
	// Mounts requests a private mount namespace also for root, who does not need one if all mounts
	// are detached or made in a step's own namespace.
	Mounts bool
}

// Enter moves the program into its namespaces if it is not in them. It does nothing for root with
// CAP_SYS_ADMIN. In all other cases it starts the program again with the same arguments, and in the
// calling process it returns only with an error: that process either becomes the second one, or
// waits for it and exits with its status. In the second process Enter returns nil.
//
// It must be called once, early in main, before the program does anything that must not be done
// twice.
func Enter(o Options) error {
	if s, ok := os.LookupEnv(stateVar); ok {
		return arrive(s)
	}
	if !admin() {
		return enterUser()
	}
	if o.Mounts || !mayMount() {
		return enterMount()
	}
	return nil
}

// Current returns the Info of this process. It may be called before Enter, or without it.
func Current() (Info, error) {
	in := Info{HostUID: os.Getuid(), HostGID: os.Getgid()}
	var err error
	if in.UIDs, err = readMap("/proc/self/uid_map"); err != nil {
		return in, err
	}
	if in.GIDs, err = readMap("/proc/self/gid_map"); err != nil {
		return in, err
	}
	in.Rootless = inUserNS(in.UIDs)
	in.SingleID = single(in.UIDs) || single(in.GIDs)
	if s, ok := os.LookupEnv(stateVar); ok {
		st, err := parseState(s)
		if err != nil {
			return in, err
		}
		in.Entered, in.HostUID, in.HostGID, in.Reasons = true, st.UID, st.GID, st.Reasons
	} else if in.SingleID {
		in.Reasons = []string{"the user namespace in which the program was started has only one id"}
	}
	return in, nil
}

// inUserNS reports whether this is not the initial user namespace, which has a fixed number
// (PROC_USER_INIT_INO in the kernel's proc_ns.h). A user namespace that maps all ids to themselves
// is also not the initial one.
func inUserNS(uids []Range) bool {
	if link, err := os.Readlink("/proc/self/ns/user"); err == nil {
		return link != "user:[4026531837]"
	}
	return !identity(uids)
}

// identity reports whether the ids are all ids of the initial namespace.
func identity(ids []Range) bool {
	return len(ids) == 1 && ids[0].Inside == 0 && ids[0].Outside == 0 && ids[0].Count >= 1<<31
}

func single(ids []Range) bool {
	return len(ids) == 1 && ids[0].Count == 1
}

func readMap(name string) ([]Range, error) {
	data, err := smallfile.Read(name)
	if errors.Is(err, os.ErrNotExist) {
		// The kernel has no user namespaces, or /proc is not mounted. Later errors are more
		// specific than an error from here.
		return []Range{{Count: 1<<32 - 1}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the ids of the user namespace: %w", err)
	}
	return parseMap(bytes.NewReader(data))
}

func parseMap(r io.Reader) ([]Range, error) {
	var ids []Range
	for s := bufio.NewScanner(r); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) != 3 {
			return nil, fmt.Errorf("read the ids of the user namespace: line %q", s.Text())
		}
		var n [3]uint32
		for i := range f {
			v, err := strconv.ParseUint(f[i], 10, 32)
			if err != nil {
				return nil, fmt.Errorf("read the ids of the user namespace: %w", err)
			}
			n[i] = uint32(v)
		}
		ids = append(ids, Range{n[0], n[1], n[2]})
	}
	return ids, nil
}

// admin reports whether this process has CAP_SYS_ADMIN in its user namespace.
func admin() bool {
	return capable(unix.CAP_SYS_ADMIN)
}

func capable(c uint) bool {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if err := unix.Capget(&h, &d[0]); err != nil {
		return false
	}
	return d[c/32].Effective&(1<<(c%32)) != 0
}

// mayMount reports whether the mount namespace belongs to this user namespace; under `unshare -r`
// it does not. It clones a mount: the kernel makes the same check as for mounting, and nothing
// remains.
func mayMount() bool {
	fd, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err == nil {
		unix.Close(fd)
	}
	// EINVAL: permitted, but a clone of "/" alone would reveal files under the mounts below it
	return err == nil || err == unix.EINVAL
}
