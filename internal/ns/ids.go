package ns

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mapping contains the ids that a new user namespace gets.
type mapping struct {
	uids, gids []Range
	// newuidmap and newgidmap are the helpers' paths. If both are empty, this process writes the
	// maps itself.
	newuidmap, newgidmap string
	// setgroups is set if this process may map more than one gid itself.
	setgroups bool
}

func (m mapping) single() bool { return single(m.uids) && single(m.gids) }

func oneID(uid, gid int) mapping {
	return mapping{uids: []Range{{0, uint32(uid), 1}}, gids: []Range{{0, uint32(gid), 1}}}
}

// wanted returns the mapping for a user, and the reasons why it does not contain more ids.
func wanted(uid, gid int) (mapping, []string) {
	if uid == 0 && capable(unix.CAP_SETUID) && capable(unix.CAP_SETGID) &&
		capable(unix.CAP_SETFCAP) {
		// Root without CAP_SYS_ADMIN (a pod): map all ids that exist to themselves.
		if m, ok := allIDs(); ok {
			return m, nil
		}
	}
	files := subFiles{UIDs: "/etc/subuid", GIDs: "/etc/subgid", Login: "/etc/login.defs"}
	uids, gids, why := files.of(userName(uid), uid)
	if why != "" {
		return oneID(uid, gid), []string{why}
	}
	m := mapping{
		uids: append([]Range{{0, uint32(uid), 1}}, uids...),
		gids: append([]Range{{0, uint32(gid), 1}}, gids...),
	}
	var err error
	if m.newuidmap, err = exec.LookPath("newuidmap"); err != nil {
		return oneID(uid, gid), []string{
			"newuidmap is not installed (package uidmap or shadow-utils)"}
	}
	if m.newgidmap, err = exec.LookPath("newgidmap"); err != nil {
		return oneID(uid, gid), []string{
			"newgidmap is not installed (package uidmap or shadow-utils)"}
	}
	return m, nil
}

func allIDs() (mapping, bool) {
	uids, err := readMap("/proc/self/uid_map")
	if err != nil {
		return mapping{}, false
	}
	gids, err := readMap("/proc/self/gid_map")
	if err != nil {
		return mapping{}, false
	}
	for _, ids := range [][]Range{uids, gids} {
		for i := range ids {
			ids[i].Outside = ids[i].Inside // the child's parent is this namespace
		}
	}
	return mapping{uids: uids, gids: gids, setgroups: true}, true
}

func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return os.Getenv("USER") // newuidmap looks up the user itself and fails if the name is wrong
}

func parseSubIDs(r io.Reader, name string, uid int) []Range {
	var ids []Range
	next := uint64(1) // 0 is the user's own id
	for s := bufio.NewScanner(r); s.Scan(); {
		f := strings.Split(strings.TrimSpace(s.Text()), ":")
		if len(f) != 3 || f[0] == "" || f[0] != name && f[0] != strconv.Itoa(uid) {
			continue
		}
		first, err1 := strconv.ParseUint(f[1], 10, 32)
		count, err2 := strconv.ParseUint(f[2], 10, 32)
		if err1 != nil || err2 != nil || count == 0 || first+count > 1<<32-1 ||
			next+count > 1<<32-1 {
			continue
		}
		ids = append(ids, Range{uint32(next), uint32(first), uint32(count)})
		next += count
	}
	return ids
}

// mapIDs sets the child's id maps.
func (c *child) mapIDs(m mapping) error {
	pid := c.cmd.Process.Pid
	if m.newuidmap != "" {
		if err := runMap(m.newuidmap, pid, m.uids); err != nil {
			return err
		}
		return runMap(m.newgidmap, pid, m.gids)
	}
	if !m.setgroups {
		// Without it an unprivileged process may not write a gid map (user_namespaces(7)).
		if err := writeProc(pid, "setgroups", "deny"); err != nil {
			return err
		}
	}
	if err := writeProc(pid, "uid_map", mapText(m.uids)); err != nil {
		return err
	}
	return writeProc(pid, "gid_map", mapText(m.gids))
}

func runMap(tool string, pid int, ids []Range) error {
	args := []string{strconv.Itoa(pid)}
	for _, r := range ids {
		args = append(args, u32(r.Inside), u32(r.Outside), u32(r.Count))
	}
	var out bytes.Buffer
	cmd := exec.Command(tool, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", tool, err, strings.TrimSpace(out.String()))
	}
	return nil
}

func writeProc(pid int, name, text string) error {
	file := fmt.Sprintf("/proc/%d/%s", pid, name)
	if err := os.WriteFile(file, []byte(text), 0); err != nil {
		return fmt.Errorf("map the ids of the user namespace: %w", err)
	}
	return nil
}

func mapText(ids []Range) string {
	var b strings.Builder
	for _, r := range ids {
		fmt.Fprintf(&b, "%d %d %d\n", r.Inside, r.Outside, r.Count)
	}
	return b.String()
}

func u32(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
