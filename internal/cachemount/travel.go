package cachemount

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/layerbuild/layerbuild/diff"
	"github.com/layerbuild/layerbuild/internal/lock"
	"github.com/layerbuild/layerbuild/internal/sorting"
)

// Copy identifies a cache whose files are copied between machines.
type Copy struct {
	Name string // see Mount
	ID   string
	// Platform is that of the commands. Caches of different platforms are never copied to each
	// other, although they share a directory on one machine.
	Platform string
}

// Copies are the copies of caches that other machines have made.
type Copies interface {
	// Selects reports whether the cache with an id is copied.
	Selects(id string) bool
	// Fetch unpacks the copy of a cache into an empty directory. It returns the name of the place
	// that has the copy, or "" if there is none that can be used: the directory may then have some
	// of the files. It returns an error only if ctx has ended.
	Fetch(ctx context.Context, c Copy, dir string) (place string, err error)
}

// used is the use of a cache by commands of a build.
type used struct {
	Copy
	dir string // of the cache
}

// selects reports whether the files of a mount are copied between machines.
func (s *Store) selects(m Mount) bool { return s.Copies != nil && s.Copies.Selects(m.ID) }

// use records that a command uses the files with number n of a cache.
func (s *Store) use(dir string, n int, m Mount) error {
	if m.Platform == "" {
		return nil
	}
	if err := addPlatform(dir, n, m.Platform); err != nil {
		return err
	}
	// The further directories of a private cache begin with the copy, and are not copied.
	if !s.selects(m) || filepath.Base(dir) != m.Name {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u := used{Copy{Name: m.Name, ID: m.ID, Platform: m.Platform}, dir}
	if !slices.Contains(s.used, u) {
		s.used = append(s.used, u)
	}
	return nil
}

// Used returns the caches that commands have used and whose files are copied, sorted.
func (s *Store) Used() []Copy {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Copy, len(s.used))
	for i, u := range s.used {
		list[i] = u.Copy
	}
	sorting.Func(list, func(a, b Copy) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Platform, b.Platform),
			cmp.Compare(a.Name, b.Name))
	})
	return list
}

// notes returns the names of the files with notes about the files with number n of a cache: the
// platforms of the commands that have used them, and a copied.
func notes(dir string, n int) (platforms, copies string) {
	return filepath.Join(dir, fmt.Sprintf("platforms.%d", n)),
		filepath.Join(dir, fmt.Sprintf("copies.%d", n))
}

// removeNotes removes the notes about files that are removed or not made yet.
func removeNotes(dir string, n int) error {
	platforms, copies := notes(dir, n)
	return errors.Join(removeFile(platforms), removeFile(copies))
}

func removeFile(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// addPlatform notes that a command of a platform uses files.
func addPlatform(dir string, n int, platform string) error {
	path, _ := notes(dir, n)
	list, err := readPlatforms(dir, n)
	if err != nil || slices.Contains(list, platform) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(platform + "\n")
	return errors.Join(err, f.Close())
}

// readPlatforms returns the platforms of the commands that have used files.
func readPlatforms(dir string, n int) ([]string, error) {
	path, _ := notes(dir, n)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return strings.Fields(string(data)), err
}

// copied are the digests of the trees that were last copied from or to places, by the name of the
// place and the platform.
type copied map[string]string

func readCopied(dir string, n int) copied {
	_, path := notes(dir, n)
	c := copied{}
	data, err := os.ReadFile(path)
	if err == nil && json.Unmarshal(data, &c) != nil || c == nil {
		c = copied{} // damaged: the files are copied again
	}
	return c
}

// write replaces the note, so that it is whole at each moment.
func (c copied) write(dir string, n int) error {
	_, path := notes(dir, n)
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// keyOf returns the key of a copied.
func keyOf(place, platform string) string { return place + " " + platform }

// fetch fetches the copy of a cache into tmp, an empty directory that becomes files n, and reports
// whether there is one. Otherwise the directory is empty.
func (s *Store) fetch(ctx context.Context, dir, tmp string, n int, m Mount) (bool, error) {
	if !s.selects(m) || s.Empty || m.Platform == "" {
		return false, nil
	}
	// Archives of caches have the attributes of the top directory only if they differ from these.
	if err := os.Chmod(tmp, 0o755); err != nil {
		return false, err
	}
	place, err := s.Copies.Fetch(ctx, Copy{Name: m.Name, ID: m.ID, Platform: m.Platform}, tmp)
	if err == nil && place != "" {
		var t Tree
		if t, err = describe(ctx, tmp); err == nil {
			err = copied{keyOf(place, m.Platform): t.Digest}.write(dir, n)
			return err == nil, err
		}
	}
	if err != nil {
		return false, err
	}
	return false, errors.Join(os.RemoveAll(tmp), os.Mkdir(tmp, 0o755))
}

// dropEmpty removes files of a cache that has no files, once in a build, so that its copy is
// fetched: a command that failed may have left them. locked reports whether the caller holds the
// directory's lock exclusively. Files that another command uses are left as they are.
func (s *Store) dropEmpty(ctx context.Context, dir string, m Mount, locked bool) error {
	if !s.selects(m) || s.Empty {
		return nil
	}
	_, err := s.dropped.Try(ctx, dir, func() (struct{}, error) {
		n, err := newestFiles(dir)
		if err != nil || n < 0 {
			return struct{}{}, err
		}
		if !locked {
			held, err := lock.Try(filepath.Join(dir, "lock"), true)
			if errors.Is(err, lock.ErrHeld) {
				return struct{}{}, nil
			}
			if err != nil {
				return struct{}{}, err
			}
			defer held.Close()
		}
		if os.Remove(filesOf(dir, n)) != nil {
			return struct{}{}, nil // it has files
		}
		errs := []error{removeNotes(dir, n)}
		for n--; n >= 0; n-- { // no command uses these
			errs = append(errs, os.RemoveAll(filesOf(dir, n)), removeNotes(dir, n))
		}
		return struct{}{}, errors.Join(errs...)
	})
	return err
}

// Hold is a cache that no command uses.
type Hold struct {
	Copy
	// Tree describes the files.
	Tree Tree
	// Platforms are those of all commands that have used the files.
	Platforms []string

	dir  string
	n    int // number of the files
	held *lock.Held
}

// Hold locks a cache, so that no command uses it until the Hold is closed. It returns nil if a
// command of another build uses the cache, or if there are no files.
func (s *Store) Hold(ctx context.Context, c Copy) (_ *Hold, err error) {
	top, err := s.Top()
	if err != nil {
		return nil, err
	}
	h := &Hold{Copy: c, dir: filepath.Join(top, c.Name)}
	h.held, err = lock.Try(filepath.Join(h.dir, "lock"), true)
	if errors.Is(err, lock.ErrHeld) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close())
		}
	}()
	if h.n, err = newestFiles(h.dir); err != nil {
		return nil, err
	}
	if h.n < 0 {
		return nil, h.Close()
	}
	if h.Platforms, err = readPlatforms(h.dir, h.n); err != nil {
		return nil, err
	}
	h.Tree, err = describe(ctx, filesOf(h.dir, h.n))
	return h, err
}

// Close releases the lock. It may be called several times.
func (h *Hold) Close() error {
	if h.held == nil {
		return nil
	}
	err := h.held.Close()
	h.held = nil
	return err
}

// IsCopied reports whether the files are those that were last copied from or to a place.
func (h *Hold) IsCopied(place string) bool {
	return readCopied(h.dir, h.n)[keyOf(place, h.Platform)] == h.Tree.Digest
}

// Seal writes the files as an archive. The cache must still be locked.
func (h *Hold) Seal(ctx context.Context, ing diff.Ingester) (diff.Layer, error) {
	return seal(ctx, ing, filesOf(h.dir, h.n))
}

// SetCopied notes that the files were copied to a place. The cache need not be locked any more: a
// command may have changed the files, which are then copied again.
func (h *Hold) SetCopied(place string) error {
	c := readCopied(h.dir, h.n)
	c[keyOf(place, h.Platform)] = h.Tree.Digest
	return c.write(h.dir, h.n)
}
