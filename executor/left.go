package executor

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// leaveThere notes what an item holds instead of copying it to top, and says whether it did. It does only where there
// can be no doubt about what copying would come to.
func (c *copier) leaveThere(top *frame, it *Item) (bool, error) {
	a := c.c
	if !a.Leave || it.Entries == nil || len(a.Sources) != 1 || len(a.Sources[0].Items) != 1 || len(a.Inline) > 0 {
		return false, nil
	}
	// Not every owner can be had in a user namespace: only the attempt tells.
	if c.spec.SingleID || c.spec.UserNS && (c.own == nil || *c.own != owner{}) {
		return false, nil
	}
	if names, err := readNames(top.dst); err != nil || len(names) > 0 {
		return false, err
	}
	// New files get access lists from such a directory.
	if hasDefaultACL(top.dst) {
		return false, nil
	}
	place, err := pathOf(top.dst)
	if err != nil {
		return false, err
	}
	dir, err := unix.FcntlInt(uintptr(top.src), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return false, err
	}
	c.result.Left = &Left{
		Path: strings.TrimPrefix(place, "/"), Dir: os.NewFile(uintptr(dir), "source"), Entries: it.Entries,
		Owner: func(uid, gid uint32) (uint32, uint32) {
			o := c.wanted(&unix.Stat_t{Uid: uid, Gid: gid})
			return uint32(o.uid), uint32(o.gid)
		},
		Mode: func(mode uint32, dir bool) uint32 {
			st := unix.Stat_t{Mode: mode | unix.S_IFREG}
			if dir {
				st.Mode = mode | unix.S_IFDIR
			}
			return c.mode(&st)
		},
	}
	return true, nil
}
