package ns

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/layerbuild/layerbuild/internal/sorting"
)

// subFiles has the names of the files with subordinate ids, subuid(5) and subgid(5), and of
// login.defs(5), which contains the lowest subordinate id.
type subFiles struct {
	UIDs, GIDs, Login string
}

// of returns the ranges of a user. If there are none, it returns a sentence with the reason and the
// command that adds one.
func (f subFiles) of(name string, uid int) (uids, gids []Range, why string) {
	who := name
	if who == "" {
		who = strconv.Itoa(uid)
	}
	uidText, err := readIfThere(f.UIDs)
	if err != nil {
		return nil, nil, fmt.Sprintf("no range of ids for user %s: %v", who, err)
	}
	gidText, err := readIfThere(f.GIDs)
	if err != nil {
		return nil, nil, fmt.Sprintf("no range of ids for user %s: %v", who, err)
	}
	uids = parseSubIDs(bytes.NewReader(uidText), name, uid)
	gids = parseSubIDs(bytes.NewReader(gidText), name, uid)
	if len(uids) > 0 && len(gids) > 0 {
		return uids, gids, ""
	}
	var missing []string
	if len(uids) == 0 {
		missing = append(missing, f.UIDs)
	}
	if len(gids) == 0 {
		missing = append(missing, f.GIDs)
	}
	why = fmt.Sprintf("no range of ids for user %s in %s", who, strings.Join(missing, " and "))
	first, ok := freeRange(slices.Concat(allSubIDs(uidText), allSubIDs(gidText)),
		f.lowest(), uint32(uid))
	if !ok {
		return nil, nil, why
	}
	return nil, nil, why + " (as root: " +
		f.remedy(name, uid, first, len(uids) == 0, len(gids) == 0) + ")"
}

// rangeSize is the number of ids to propose for a user: the same as useradd(8) assigns, so that the
// id 65534, the user nobody, is included.
const rangeSize = 65536

// remedy returns the command that assigns ids to a user, in each file that has none for the user.
func (f subFiles) remedy(name string, uid int, first uint32, uids, gids bool) string {
	if name == "" { // usermod accepts user names only
		var commands []string
		add := func(wanted bool, file string) {
			if wanted {
				commands = append(commands, fmt.Sprintf("echo %d:%d:%d >>%s", uid,
					first, rangeSize, file))
			}
		}
		add(uids, f.UIDs)
		add(gids, f.GIDs)
		return strings.Join(commands, " && ")
	}
	command := "usermod"
	if uids {
		command += fmt.Sprintf(" --add-subuids %d-%d", first, first+rangeSize-1)
	}
	if gids {
		command += fmt.Sprintf(" --add-subgids %d-%d", first, first+rangeSize-1)
	}
	return command + " " + name
}

// lowest returns the lowest subordinate id that a user may get.
func (f subFiles) lowest() uint32 {
	lowest := uint32(100000) // the default of SUB_UID_MIN in login.defs
	text, err := os.ReadFile(f.Login)
	if err != nil {
		return lowest
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "SUB_UID_MIN" && fields[0] != "SUB_GID_MIN" {
			continue
		}
		if n, err := strconv.ParseUint(fields[1], 10, 32); err == nil {
			lowest = max(lowest, uint32(n))
		}
	}
	return lowest
}

// freeRange returns the first range of ids from lowest on that overlaps none of the given ranges
// and does not contain the user's own id.
func freeRange(taken []Range, lowest, uid uint32) (uint32, bool) {
	taken = append(slices.Clone(taken), Range{Outside: uid, Count: 1})
	sorting.Func(taken, func(a, b Range) int { return cmp.Compare(a.Outside, b.Outside) })
	first := uint64(lowest)
	for _, r := range taken {
		if uint64(r.Outside) >= first+rangeSize {
			break
		}
		first = max(first, uint64(r.Outside)+uint64(r.Count))
	}
	return uint32(first), first+rangeSize < 1<<32-1
}

// allSubIDs returns the ranges of all users.
func allSubIDs(text []byte) []Range {
	var ids []Range
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		f := strings.Split(strings.TrimSpace(s.Text()), ":")
		if len(f) != 3 {
			continue
		}
		first, err1 := strconv.ParseUint(f[1], 10, 32)
		count, err2 := strconv.ParseUint(f[2], 10, 32)
		if err1 == nil && err2 == nil && count > 0 {
			ids = append(ids, Range{Outside: uint32(first), Count: uint32(count)})
		}
	}
	return ids
}

// readIfThere reads a file. It returns no data for a file that does not exist.
func readIfThere(name string) ([]byte, error) {
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return text, err
}
