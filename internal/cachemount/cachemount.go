package cachemount

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/layerbuild/layerbuild/internal/lock"
	"github.com/layerbuild/layerbuild/internal/memo"
	"github.com/layerbuild/layerbuild/parser"
)

// Store holds the cache mounts of a build.
type Store struct {
	// Top returns the directory of all caches. It makes the directory if it is missing.
	Top func() (string, error)
	// Empty empties each cache when the build first uses it (--no-cache).
	Empty bool
	// Lease is called with the name of a cache's directory before the directory is used: from then
	// on no collector may remove it. It waits for a running collector until the context ends. nil:
	// there is no collector.
	Lease func(ctx context.Context, dir string) error
	// FixType moves a directory that has the name of a file, or a file that has the name of a
	// directory, out of the way. nil: nothing is moved.
	FixType func(path string, dir bool) error
	// Copies has the copies of caches that other machines have made; nil: there are none.
	Copies Copies

	emptied, dropped memo.Map[string, struct{}] // by the cache's directory

	mu   sync.Mutex
	used []used
}

// Mount is a cache mount of a command.
type Mount struct {
	Name    string // the result of Name
	ID      string
	Sharing parser.Sharing
	// Platform is that of the command.
	Platform string
	// Fill makes the initial files of a cache in an empty directory of the host. It also sets the
	// mode and the owner of the directory.
	Fill func(ctx context.Context, dir string) error
}

// Name returns the name of a cache: a digest of everything that distinguishes it from others.
func Name(identity ...any) (string, error) {
	data, err := json.Marshal(identity)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// Locked are the caches that a command uses. Close releases them.
type Locked struct {
	store *Store
	dirs  []string // of the caches, by the mount's index
	locks []*lock.Held
	// known has the directories of the files, by the directory of the cache.
	known memo.Map[string, string]
}

// Lock finds and locks the directories of all caches of a command. A directory is locked once, with
// the strictest of the modes of its mounts. Directories are locked in the order of their names, so
// that two commands cannot deadlock.
func (s *Store) Lock(ctx context.Context, mounts []Mount) (_ *Locked, err error) {
	l := &Locked{store: s}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	modes, first := map[string]parser.Sharing{}, map[string]Mount{}
	for _, m := range mounts {
		modes[m.Name] = stricter(modes[m.Name], m.Sharing)
		first[m.Name] = m
	}
	names := make([]string, 0, len(first))
	for name := range first {
		names = append(names, name)
	}
	slices.Sort(names)
	top, err := s.Top()
	if err != nil {
		return nil, err
	}
	dirs := map[string]string{}
	for _, name := range names {
		if dirs[name], err = l.lock(ctx, filepath.Join(top, name), first[name],
			modes[name]); err != nil {
			return nil, fmt.Errorf("lock a cache mount: %w", err)
		}
	}
	for _, m := range mounts {
		dir := dirs[m.Name]
		if err := os.WriteFile(filepath.Join(dir, "id"), []byte(m.ID+"\n"), 0o600); err != nil {
			return nil, err
		}
		l.dirs = append(l.dirs, dir)
	}
	return l, nil
}

// Close releases the locks.
func (l *Locked) Close() error {
	var errs []error
	for _, f := range slices.Backward(l.locks) {
		errs = append(errs, f.Close())
	}
	l.locks = nil
	return errors.Join(errs...)
}

// Files returns the directory with the files of mount i. It makes the files if the cache has none.
// It may be called for several mounts at once.
func (l *Locked) Files(ctx context.Context, i int, m Mount) (string, error) {
	dir := l.dirs[i]
	return l.known.Try(ctx, dir, func() (string, error) {
		n, err := newestFiles(dir)
		if err == nil && n < 0 {
			n, err = l.store.fill(ctx, dir, m, n)
		}
		if err != nil {
			return "", err
		}
		return filesOf(dir, n), l.store.use(dir, n, m)
	})
}

// stricter returns the one of two sharing modes that admits fewer steps at once.
func stricter(a, b parser.Sharing) parser.Sharing {
	order := []parser.Sharing{parser.SharingShared, parser.SharingPrivate, parser.SharingLocked}
	return order[max(slices.Index(order, a), slices.Index(order, b), 0)]
}

// lock locks the directory of a cache, which it makes if it is missing. A private cache that is in
// use has further directories: lock returns the first one that is not in use.
func (l *Locked) lock(ctx context.Context, base string, m Mount,
	sharing parser.Sharing) (string, error) {
	for n := 0; ; n++ {
		dir := base
		if n > 0 {
			dir = fmt.Sprintf("%s.%d", base, n)
		}
		if l.store.Lease != nil {
			if err := l.store.Lease(ctx, filepath.Base(dir)); err != nil {
				return "", err
			}
		}
		if err := l.store.makeDir(dir); err != nil {
			return "", err
		}
		if sharing == parser.SharingShared {
			if err := l.store.begin(ctx, dir, m, false); err != nil {
				return "", err
			}
		}
		file := filepath.Join(dir, "lock")
		var held *lock.Held
		var err error
		switch sharing {
		case parser.SharingPrivate:
			if held, err = lock.Try(file, true); errors.Is(err, lock.ErrHeld) {
				continue
			}
		case parser.SharingLocked:
			held, err = lock.Acquire(ctx, file, true)
		default:
			held, err = lock.Acquire(ctx, file, false)
		}
		if err != nil {
			return "", err
		}
		l.locks = append(l.locks, held)
		if sharing != parser.SharingShared {
			err = l.store.begin(ctx, dir, m, true)
		}
		return dir, err
	}
}

// begin removes files with which a build must not begin.
func (s *Store) begin(ctx context.Context, dir string, m Mount, locked bool) error {
	if s.Empty {
		return s.empty(ctx, dir, m, locked)
	}
	return s.dropEmpty(ctx, dir, m, locked)
}

// makeDir makes the directory of a cache if it is missing, and moves files of the wrong type in it
// out of the way.
func (s *Store) makeDir(dir string) error {
	fixType := s.FixType
	if fixType == nil {
		fixType = func(string, bool) error { return nil }
	}
	if err := fixType(dir, true); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	var errs []error
	for _, name := range []string{"lock", "id", "fill"} {
		errs = append(errs, fixType(filepath.Join(dir, name), false))
	}
	n, err := newestFiles(dir)
	if n >= 0 {
		platforms, copies := notes(dir, n)
		err = errors.Join(fixType(filesOf(dir, n), true), fixType(platforms, false),
			fixType(copies, false))
	}
	return errors.Join(append(errs, err)...)
}

// filesOf returns the directory with number n for a cache's files.
func filesOf(dir string, n int) string {
	if n == 0 {
		return filepath.Join(dir, "fs")
	}
	return filepath.Join(dir, fmt.Sprintf("fs.%d", n))
}

// newestFiles returns the number of the newest files in the directory of a cache; -1 if there are
// none.
func newestFiles(dir string) (int, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return -1, err
	}
	newest := -1
	for _, e := range list {
		if e.Name() == "fs" {
			newest = max(newest, 0)
		}
		if s, ok := strings.CutPrefix(e.Name(), "fs."); ok {
			if n, err := strconv.Atoi(s); err == nil {
				newest = max(newest, n)
			}
		}
	}
	return newest, nil
}

// fill makes new files in the directory of a cache, unless the cache has files with a number higher
// than old. The files are those of a copy or, if there is none, the initial ones. It returns their
// number.
func (s *Store) fill(ctx context.Context, dir string, m Mount, old int) (int, error) {
	held, err := lock.Acquire(ctx, filepath.Join(dir, "fill"), true)
	if err != nil {
		return -1, err
	}
	defer held.Close()
	n, err := newestFiles(dir)
	if err != nil {
		return -1, err
	}
	if n > old {
		return n, nil // another build has made them
	}
	n++
	tmp := filepath.Join(dir, "new")
	// a build that was killed may have left both
	if err := errors.Join(os.RemoveAll(tmp), removeNotes(dir, n)); err != nil {
		return -1, err
	}
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return -1, err
	}
	fetched, err := s.fetch(ctx, dir, tmp, n, m)
	if err == nil && !fetched {
		err = m.Fill(ctx, tmp)
	}
	if err != nil {
		return -1, err
	}
	return n, os.Rename(tmp, filesOf(dir, n))
}

// empty empties a cache, once in a build. After an error it may be called again: the step may be
// run again if a file of its context has changed. locked reports whether the caller holds the
// directory's lock exclusively. Otherwise a step of another build may use the files: that step
// continues to use them, new files are made beside them, and the next call removes the old files.
func (s *Store) empty(ctx context.Context, dir string, m Mount, locked bool) error {
	_, err := s.emptied.Try(ctx, dir, func() (struct{}, error) {
		old, err := newestFiles(dir)
		if err != nil || old < 0 {
			return struct{}{}, err
		}
		if !locked {
			held, err := lock.Try(filepath.Join(dir, "lock"), true)
			if errors.Is(err, lock.ErrHeld) {
				_, err := s.fill(ctx, dir, m, old)
				return struct{}{}, err
			}
			if err != nil {
				return struct{}{}, err
			}
			defer held.Close()
		}
		var errs []error
		for n := old; n >= 0; n-- {
			errs = append(errs, os.RemoveAll(filesOf(dir, n)), removeNotes(dir, n))
		}
		return struct{}{}, errors.Join(errs...)
	})
	return err
}

// Own sets the mode and the owner of a cache's top directory to those that a mount requests.
func Own(dir string, m parser.RunMount) error {
	uid, gid, mode := 0, 0, os.FileMode(0o755)
	if m.UID != nil {
		uid = int(*m.UID)
	}
	if m.GID != nil {
		gid = int(*m.GID)
	}
	if m.Mode != nil {
		mode = os.FileMode(*m.Mode & 0o777)
		for bit, flag := range map[uint32]os.FileMode{0o4000: os.ModeSetuid, 0o2000: os.ModeSetgid,
			0o1000: os.ModeSticky} {
			if *m.Mode&bit != 0 {
				mode |= flag
			}
		}
	}
	if uid != 0 || gid != 0 {
		if err := os.Chown(dir, uid, gid); err != nil {
			return err
		}
	}
	return os.Chmod(dir, mode)
}
