package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/internal/lock"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/parser"
)

// A cache mount is a directory that outlives the build, cache/mounts/NAME of the state:
//
//	lock       locked by the steps that use the directory, as their sharing mode says
//	id         the cache's id, for people
//	fs/        the files
//	fs.N/      newer files: --no-cache makes a cache begin anew while another step is using it
//	fill       locked by the build that makes files
//	new/       files while they are made
//
// NAME is a digest of everything that distinguishes caches. NAME.1, NAME.2 and so on are further directories of a
// private cache that several steps use at once.

// lockCaches finds and locks the directories of all cache mounts of a command, by the mount's index. A directory is locked
// once, with the strictest of the modes of the mounts that show it. Directories are locked in the order of their names, so
// that two steps never wait for each other.
func (r *runner) lockCaches(ctx context.Context, release *releaser) (map[int]string, error) {
	names := map[int]string{}
	modes := map[string]parser.Sharing{}
	first := map[string]int{} // a mount that shows the directory
	for i, m := range r.run.Mounts {
		if m.Type != parser.MountCache {
			continue
		}
		name, err := r.cacheName(i, m)
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", mountName(m), err)
		}
		names[i] = name
		modes[name] = stricter(modes[name], m.Sharing)
		first[name] = i
	}
	if len(names) == 0 {
		return nil, nil
	}
	top, err := r.state.Path("mounts")
	if err != nil {
		return nil, err
	}
	dirs := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(modes)) {
		if dirs[name], err = r.lockCache(ctx, filepath.Join(top, name), first[name], modes[name], release); err != nil {
			return nil, fmt.Errorf("lock a cache mount: %w", err)
		}
	}
	for i, name := range names {
		names[i] = dirs[name]
		id := filepath.Join(names[i], "id")
		if err := os.WriteFile(id, []byte(r.run.Mounts[i].ID+"\n"), 0o600); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// stricter returns the sharing mode, of two, that admits fewer steps at once.
func stricter(a, b parser.Sharing) parser.Sharing {
	order := []parser.Sharing{parser.SharingShared, parser.SharingPrivate, parser.SharingLocked}
	return order[max(slices.Index(order, a), slices.Index(order, b), 0)]
}

// cacheName returns the name of a cache mount's directory. As in BuildKit, mounts with different initial files, owner
// or mode have different directories.
func (r *runner) cacheName(i int, m parser.RunMount) (string, error) {
	begin := []any{m.ID, m.UID, m.GID, m.Mode}
	if r.from[i] != nil {
		begin = append(begin, r.content[i], m.Source, epochKey(r.epoch)) // the epoch is in the times of the files
	}
	if ns := r.cacheNamespace(); ns != "" {
		begin = append(begin, "namespace "+ns)
	}
	identity, err := json.Marshal(begin)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(identity)
	return hex.EncodeToString(sum[:]), nil
}

// lockCache locks the directory of a cache that mount i shows, which is made if it is missing. A private cache that is in
// use has further directories, and the first that is free is returned.
func (r *runner) lockCache(ctx context.Context, first string, i int, sharing parser.Sharing, release *releaser) (string, error) {
	for n := 0; ; n++ {
		dir := first
		if n > 0 {
			dir = fmt.Sprintf("%s.%d", first, n)
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", err
		}
		// --no-cache empties the cache.
		if r.opts.Cache.No && sharing == parser.SharingShared {
			if err := r.emptyCache(ctx, dir, i, false); err != nil {
				return "", err
			}
		}
		file := filepath.Join(dir, "lock")
		var held *os.File
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
		release.add(held.Close)
		if r.opts.Cache.No && sharing != parser.SharingShared {
			err = r.emptyCache(ctx, dir, i, true)
		}
		return dir, err
	}
}

// mountCache shows the files of a cache, whose directory is locked.
func (r *runner) mountCache(ctx context.Context, p *executor.Process, i int, m parser.RunMount) error {
	dir := r.caches[i]
	files := r.cacheFiles[dir]
	if files == "" {
		n, err := newestFiles(dir)
		if err != nil {
			return err
		}
		if files = filesOf(dir, n); n < 0 {
			if files, err = r.fillCache(ctx, dir, i, n); err != nil {
				return err
			}
		}
		r.cacheFiles[dir] = files
	}
	p.Mounts = append(p.Mounts, executor.Mount{Target: m.Target, Source: executor.Bind{Source: files}, ReadOnly: m.ReadOnly})
	return nil
}

// filesOf returns the directory of a cache's files that were made after n others.
func filesOf(dir string, n int) string {
	if n == 0 {
		return filepath.Join(dir, "fs")
	}
	return filepath.Join(dir, fmt.Sprintf("fs.%d", n))
}

// newestFiles returns the number of the newest files in the directory of a cache; -1 if there are none.
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

// fillCache makes new files in the directory of a cache, those that mount i says the cache begins with, unless it has files
// that are newer than number old. It returns their directory.
func (r *runner) fillCache(ctx context.Context, dir string, i, old int) (string, error) {
	held, err := lock.Acquire(ctx, filepath.Join(dir, "fill"), true)
	if err != nil {
		return "", err
	}
	defer held.Close()
	n, err := newestFiles(dir)
	if err != nil {
		return "", err
	}
	if n > old {
		return filesOf(dir, n), nil // another build has filled it
	}
	tmp := filepath.Join(dir, "new")
	if err := os.RemoveAll(tmp); err != nil { // a build that was killed left it
		return "", err
	}
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return "", err
	}
	m := r.run.Mounts[i]
	if f := r.from[i]; f != nil {
		if err := r.copyTo(ctx, tmp, f, i, m); err != nil {
			return "", err
		}
	}
	if err := ownCache(tmp, m); err != nil {
		return "", err
	}
	files := filesOf(dir, n+1)
	return files, os.Rename(tmp, files)
}

// emptyCache empties the cache that mount i shows, once in a build. locked is set if the caller holds the directory's
// lock exclusively. Otherwise a step of another build may use the files: that step keeps them, new files are made
// beside them, and the next call removes the old ones.
func (r *runner) emptyCache(ctx context.Context, dir string, i int, locked bool) error {
	_, err := r.emptied.Do(ctx, dir, func() (struct{}, error) {
		old, err := newestFiles(dir)
		if err != nil || old < 0 {
			return struct{}{}, err
		}
		if !locked {
			held, err := lock.Try(filepath.Join(dir, "lock"), true)
			if errors.Is(err, lock.ErrHeld) {
				_, err := r.fillCache(ctx, dir, i, old)
				return struct{}{}, err
			}
			if err != nil {
				return struct{}{}, err
			}
			defer held.Close()
		}
		var errs []error
		for n := old; n >= 0; n-- {
			errs = append(errs, os.RemoveAll(filesOf(dir, n)))
		}
		return struct{}{}, errors.Join(errs...)
	})
	if again(err, 0) {
		r.emptied.Forget(dir)
	}
	return err
}

// copyTo copies the initial files of mount i, a directory of f, to a directory of the host. If look has digested the
// files, it copies the digested ones.
func (r *runner) copyTo(ctx context.Context, dir string, f *files, i int, from parser.RunMount) error {
	m := r.looked[i]
	if m == nil {
		var err error
		if m, err = f.tree.Match(ctx, r.mountQuery(from)); err != nil {
			return err
		}
	}
	c := &copier{solver: r.solver, from: f}
	act := &executor.Copy{Dest: "/", KeepOwner: true, Sources: []executor.Source{{Dir: f.tree.Dir(), Items: items(m.Items, false)}}}
	act.Frozen = frozen(f.tree, m)
	return c.noteChanged(r.exec(ctx, []mount.Mount{{Type: "bind", Source: dir}}, act, r.silent()))
}

// ownCache gives the top directory of a new cache the mode and the owner of the mount.
func ownCache(fs string, m parser.RunMount) error {
	uid, gid, mode := 0, 0, os.FileMode(0o755)
	if m.UID != nil {
		uid = int(*m.UID)
	}
	if m.GID != nil {
		gid = int(*m.GID)
	}
	if m.Mode != nil {
		mode = os.FileMode(*m.Mode & 0o777)
		for bit, flag := range map[uint32]os.FileMode{0o4000: os.ModeSetuid, 0o2000: os.ModeSetgid, 0o1000: os.ModeSticky} {
			if *m.Mode&bit != 0 {
				mode |= flag
			}
		}
	}
	if uid != 0 || gid != 0 {
		if err := os.Chown(fs, uid, gid); err != nil {
			return err
		}
	}
	return os.Chmod(fs, mode)
}
