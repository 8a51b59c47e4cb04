package snapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/layerbuild/layerbuild/internal/atomicfile"
	"github.com/layerbuild/layerbuild/internal/smallfile"
	"github.com/layerbuild/layerbuild/internal/state/ledger"
	"golang.org/x/sys/unix"
)

// Open opens the store in the directory root. It makes the directory if it does not exist, and
// removes the files of dead processes in it. Snapshots of drivers that cannot read each other's are
// in different directories below root.
func Open(ctx context.Context, root string, o Options) (*Store, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	s := &Store{top: root, root: root, user: o.UserNS, ledger: o.Ledger,
		empty: filepath.Join(root, "empty"), known: make(map[ID]*node), leased: o.Lease,
		mergeAfter: cmp.Or(o.MergeAfter, mergeAfter)}
	if err := s.open(ctx, o); err != nil {
		return nil, fmt.Errorf("open snapshots in %s: %w", root, err)
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, o Options) error {
	if s.ledger == nil {
		var err error
		// The ledger has no file and makes none: only snapshots of this boot are trusted.
		if s.ledger, err = ledger.Open(s.root); err != nil {
			return err
		}
	}
	if err := makeDirs(s.root); err != nil {
		return err
	}
	if err := s.checkIDs(ctx); err != nil {
		return err
	}
	drv, err := choose(ctx, s.root, s.ledger.Boot(), o)
	if err != nil {
		return err
	}
	s.drv = drv
	if home := s.drv.home(); home != "" {
		s.root = filepath.Join(s.top, home)
		if err := makeDirs(s.root); err != nil {
			return err
		}
	}
	return s.collect()
}

// makeDirs makes a store's directories. Other users cannot enter them: snapshots contain setuid
// programs.
func makeDirs(root string) error {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(root, "tmp"), 0o700); err != nil &&
		!errors.Is(err, fs.ErrExist) {
		return err
	}
	empty := filepath.Join(root, "empty")
	if err := unix.Mkdir(empty, 0o755); err != nil {
		if err == unix.EEXIST {
			return nil
		}
		return &os.PathError{Op: "mkdir", Path: empty, Err: err}
	}
	return plainRoot(empty)
}

// checkIDs returns an error when the directory was made with another id mapping, for example first
// by root and then by a user, or first with subordinate ids and then without. Otherwise its files
// would silently have wrong owners.
func (s *Store) checkIDs(ctx context.Context) error {
	now, err := idMapping()
	if err != nil {
		return err
	}
	path := filepath.Join(s.root, "ids")
	was, err := smallfile.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		release, err := s.lock(ctx, true)
		if err != nil {
			return err
		}
		defer release()
		return atomicfile.Own{Locked: true, Sync: true}.ReplaceFile(path, []byte(now))
	}
	if err != nil && !errors.Is(err, unix.EISDIR) {
		return err
	}
	if err != nil || !isIDMapping(string(was)) {
		return fmt.Errorf("%s is damaged; remove it if no other user has used this state "+
			"directory, or use another state directory", path)
	}
	if string(was) != now {
		return fmt.Errorf("it was made with other user ids (%s) than those of this process (%s); "+
			"use another state directory, or remove this one",
			describeIDs(string(was)), describeIDs(now))
	}
	return nil
}

// idMapping returns the ids that exist in this user namespace, as lines "uid <first> <count>" and
// "gid <first> <count>". It leaves out the corresponding ids outside of the namespace: in a pod
// with its own user namespace those differ at each start.
func idMapping() (string, error) {
	var b strings.Builder
	for _, kind := range [...]string{"uid", "gid"} {
		data, err := smallfile.Read("/proc/self/" + kind + "_map")
		if err != nil {
			return "", err
		}
		for line := range strings.Lines(string(data)) {
			if f := strings.Fields(line); len(f) == 3 {
				fmt.Fprintf(&b, "%s %s %s\n", kind, f[0], f[2])
			}
		}
	}
	return b.String(), nil
}

// isIDMapping reports whether text has the form of idMapping's result.
func isIDMapping(text string) bool {
	kinds := map[string]int{}
	for line := range strings.Lines(text) {
		var kind string
		var first, count uint32
		if n, err := fmt.Sscanf(line, "%s %d %d\n", &kind, &first, &count); n != 3 || err != nil ||
			line != fmt.Sprintf("%s %d %d\n", kind, first, count) {
			return false
		}
		kinds[kind]++
	}
	return len(kinds) == 2 && kinds["uid"] > 0 && kinds["gid"] > 0
}

func describeIDs(mapping string) string {
	uids := strings.Count(mapping, "uid ")
	switch {
	case strings.HasPrefix(mapping, "uid 0 4294967295\n"):
		return "all ids of the machine"
	case uids == 1 && strings.HasPrefix(mapping, "uid 0 1\n"):
		return "a single id"
	default:
		return "a range of subordinate ids"
	}
}
