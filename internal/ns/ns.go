// Package ns puts the program into the namespaces that it works in: once, at its start.
//
// Root who may mount needs none: whatever the program itself reads is a detached mount, and a step's mounts are made
// in the step's own namespace. Everybody else needs a user namespace, in which they are root, and a mount namespace
// that belongs to it. A user namespace can only be entered by a process with one thread, and a Go program never has
// one; so the program starts itself again there, and the first process does nothing but wait. That costs the start of
// the program and of newuidmap and newgidmap, once a build: less than what a namespace for each step would.
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

// Range is a range of ids: Count ids from Inside in the namespace are those from Outside in its parent.
type Range struct {
	Inside, Outside, Count uint32
}

// Info says where the program runs.
type Info struct {
	// Rootless says that this is a user namespace, whose root may less than the host's, even where it has all ids.
	Rootless bool
	// SingleID says that only id 0 exists: owners other than root can't be had.
	SingleID bool
	// UIDs and GIDs are the ids of this namespace.
	UIDs, GIDs []Range
	// HostUID and HostGID are the ids of the user who started the program.
	HostUID, HostGID int
	// Entered says that Enter started this process; otherwise the program works where it was started.
	Entered bool
	// Reasons say, one sentence each, why it is not the better way: why there is a single id, for one.
	Reasons []string
}

// Options change how Enter works. The zero value is right for a build.
type Options struct {
	// Mounts asks for a private mount namespace even for root, who needs none as long as all mounts are detached
	// or performed in a step's child.
	Mounts bool
}

// Enter puts the program into its namespaces if it is not there already. Root who may mount stays where he is. In all
// other cases the program is started again with the same arguments, and the process that called Enter does not come
// back from it but with an error: it becomes the second one, or waits for it and exits with its status. In the
// second Enter returns nil.
//
// It is called once, early in main, before the program has done anything that it should not do twice.
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

// Current says where the program runs. It may be called before Enter, or without it.
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
		in.Reasons = []string{"the user namespace in which the program was started has one id only"}
	}
	return in, nil
}

// inUserNS says whether this is another user namespace than the initial one, which has a number of its own
// (PROC_USER_INIT_INO in the kernel's proc_ns.h). One that maps all ids as they are is none the less another.
func inUserNS(uids []Range) bool {
	if link, err := os.Readlink("/proc/self/ns/user"); err == nil {
		return link != "user:[4026531837]"
	}
	return !identity(uids)
}

// identity says whether the ids are all those of the initial namespace.
func identity(ids []Range) bool {
	return len(ids) == 1 && ids[0].Inside == 0 && ids[0].Outside == 0 && ids[0].Count >= 1<<31
}

func single(ids []Range) bool {
	return len(ids) == 1 && ids[0].Count == 1
}

func readMap(name string) ([]Range, error) {
	data, err := smallfile.Read(name)
	if errors.Is(err, os.ErrNotExist) {
		// No user namespaces in this kernel, or no /proc at all: then later errors say more than this one could.
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

// admin says whether this process has CAP_SYS_ADMIN in its user namespace.
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

// mayMount says whether the mount namespace belongs to this user namespace: under `unshare -r` it does not. Cloning
// a mount asks the kernel the same question as mounting does, and leaves nothing behind.
func mayMount() bool {
	fd, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil || err == unix.EINVAL // EINVAL: it would be, but "/" alone would uncover what mounts below it hide
}
