package snapshot

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/lock"
	"github.com/layerbuild/layerbuild/internal/mount"
)

// Active is a snapshot that is being written. The caller ends it with Commit, CommitOn or Discard.
// If the process dies first, the next Open removes the snapshot. An Active must not be used by
// several goroutines at once.
type Active struct {
	s       *Store
	work    *workDir
	parent  ID
	chain   []string // the parent's chain
	dir     string   // below tmp, and after Commit the committed directory
	mounted bool
	done    bool
	onHost  bool // Over made it
}

// Prepare starts a snapshot on parent; "" starts an empty one. It returns ErrNotExist if there is
// no such parent. The parent cannot be removed until the Active has ended. The caller ends it with
// Commit, CommitOn or Discard.
func (s *Store) Prepare(ctx context.Context, parent ID) (*Active, error) {
	a, err := s.prepare(ctx, parent)
	if err != nil {
		return nil, fmt.Errorf("prepare snapshot on %q: %w", string(parent), err)
	}
	return a, nil
}

func (s *Store) prepare(ctx context.Context, parent ID) (*Active, error) {
	work, err := s.newWorkDir()
	if err != nil {
		return nil, err
	}
	chain, err := s.pin(ctx, work.path, parent)
	if err == nil {
		err = s.drv.prepare(ctx, work.path, chain)
	}
	if err != nil {
		return nil, errors.Join(err, work.remove())
	}
	return &Active{s: s, work: work, parent: parent, chain: chain, dir: work.path}, nil
}

// Over starts a snapshot on a directory of the host, for changes that are thrown away: it cannot be
// committed. With a driver that is not layered the directory is copied. The caller ends it with
// Discard, and does not change the directory before.
func (s *Store) Over(ctx context.Context, dir string) (*Active, error) {
	work, err := s.newWorkDir()
	if err != nil {
		return nil, err
	}
	chain, drv := []string{dir}, s.drv
	if !drv.layered() {
		drv = plainCopies{} // a snapshot of a subvolume must be on its file system
	}
	if err := drv.prepare(ctx, work.path, chain); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare snapshot on %s: %w", dir, err), work.remove())
	}
	return &Active{s: s, work: work, chain: chain, dir: work.path, onHost: true}, nil
}

// pin records in dir, which must be locked, that parent has a child, and returns the parent's
// chain.
func (s *Store) pin(ctx context.Context, dir string, parent ID) ([]string, error) {
	if parent != "" {
		if err := parent.Validate(); err != nil {
			return nil, err
		}
	}
	if err := s.lease(ctx, parent); err != nil {
		return nil, err
	}
	release, err := s.lock(ctx, false)
	if err != nil {
		return nil, err
	}
	defer release()
	var n *node
	if parent != "" {
		if n, err = s.find(parent, 0); err != nil {
			return nil, err
		}
	}
	return s.chain(n), writeInfo(dir, s.newInfo("", parent))
}

// newInfo returns the Info of a snapshot whose files have all been written.
func (s *Store) newInfo(id, parent ID) Info {
	mark := s.ledger.Mark()
	return Info{ID: id, Parent: parent, Created: time.Now().UTC(), Driver: s.drv.name(),
		Boot: mark.Boot, Syncs: mark.Syncs}
}

// Mounts returns the mounts for reading and writing the snapshot. They may be made again after they
// have been unmounted.
func (a *Active) Mounts() []mount.Mount {
	a.mounted = true
	return a.s.drv.writable(a.dir, a.chain)
}

// Parent returns the snapshot's parent.
func (a *Active) Parent() ID { return a.parent }

// Upper returns the directory that contains the difference to the parent (with overlay's own
// whiteouts: 0:0 devices and opaque xattrs), into which a layer is unpacked. With a driver that is
// not layered it contains the whole tree.
func (a *Active) Upper() string { return filepath.Join(a.dir, fsDir) }

// WriteNote keeps data with the snapshot, beside its files. It is called before a Commit.
func (a *Active) WriteNote(data []byte) error {
	return os.WriteFile(filepath.Join(a.dir, noteFile), data, 0o600)
}

// Changes returns the directories from which the difference to the parent is read. It may be called
// before and after the commit.
func (a *Active) Changes() Changes { return a.s.changes(a.Upper(), a.chain) }

// Commit makes the snapshot immutable and gives it its name. It must no longer be mounted for
// writing. If a snapshot of that name exists, Commit discards this one and succeeds: snapshots with
// the same name have the same content. After an error the Active can still be committed or
// discarded.
func (a *Active) Commit(ctx context.Context, id ID) error {
	if err := a.commit(ctx, id, a.parent, a.chain); err != nil {
		return fmt.Errorf("commit snapshot %s: %w", id, err)
	}
	return nil
}

// CommitOn commits a snapshot that was prepared without a parent because its parent did not exist
// yet: with a layered driver, a layer may be unpacked before the layers below it. ownRoot is set if
// the layer has an entry for the root: the root directory then keeps its mode, owner, attributes
// and time. Otherwise it gets those of the parent, as in Prepare.
func (a *Active) CommitOn(ctx context.Context, id, parent ID, ownRoot bool) error {
	if err := a.commitOn(ctx, id, parent, ownRoot); err != nil {
		return fmt.Errorf("commit snapshot %s on %q: %w", id, string(parent), err)
	}
	return nil
}

func (a *Active) commitOn(ctx context.Context, id, parent ID, ownRoot bool) error {
	if parent == a.parent {
		return a.commit(ctx, id, parent, a.chain)
	}
	if a.done {
		return errEnded
	}
	if !a.s.Layered() || a.parent != "" {
		return fmt.Errorf("it was prepared on %q", string(a.parent))
	}
	chain, err := a.s.pin(ctx, a.dir, parent)
	if err != nil {
		return err
	}
	if !ownRoot {
		// The merged root has the attributes of the upper directory's root.
		if err := copyRootAttributes(chain[0], a.Upper()); err != nil {
			return err
		}
	}
	writtenOn := a.chain
	a.parent, a.chain = parent, chain
	return a.commit(ctx, id, parent, writtenOn)
}

var errEnded = errors.New("it has already been committed or discarded")

// commit commits a snapshot whose files were written on the chain writtenOn. The marks that the
// driver's mount left in it refer to that chain, and not to that of a parent that it got later.
func (a *Active) commit(ctx context.Context, id, parent ID, writtenOn []string) error {
	if a.done {
		return errEnded
	}
	if a.onHost {
		return errors.New("it was prepared on a directory of the host")
	}
	if err := id.Validate(); err != nil {
		return err
	}
	if id == parent {
		return errors.New("it cannot be its own parent")
	}
	if err := a.s.drv.seal(a.dir, writtenOn, a.mounted); err != nil {
		return err
	}
	if err := writeInfo(a.dir, a.s.newInfo(id, parent)); err != nil {
		return err
	}
	won, err := a.s.publish(ctx, a.work, id)
	if err != nil {
		return err
	}
	a.done = true
	a.dir = a.s.dir(id)
	if won {
		a.work.release()
		return nil
	}
	// A snapshot with this name has the same content. Its parent may be another directory with
	// equal content.
	if n, err := a.s.lookup(ctx, id); err == nil {
		a.chain = a.s.chain(n.parent)
	}
	return a.work.remove()
}

// publish renames work to id. It returns false if a good snapshot has the name already.
func (s *Store) publish(ctx context.Context, work *workDir, id ID) (bool, error) {
	if err := s.lease(ctx, id); err != nil {
		return false, err
	}
	release, err := s.lock(ctx, false)
	if err != nil {
		return false, err
	}
	err = unix.Rename(work.path, s.dir(id))
	release()
	if err == nil {
		return true, nil
	}
	if err != unix.EEXIST && err != unix.ENOTEMPTY && err != unix.ENOTDIR {
		return false, &os.LinkError{Op: "rename", Old: work.path, New: s.dir(id), Err: err}
	}
	if _, err := s.find(id, 0); err == nil {
		return false, nil
	}
	return s.replace(ctx, work, id)
}

// replace replaces a suspect snapshot (see Info.Suspect) with work. The caller has leased it. Its
// descendants are suspect too, but are kept until Remove removes them.
func (s *Store) replace(ctx context.Context, work *workDir, id ID) (bool, error) {
	release, err := s.lock(ctx, true)
	if err != nil {
		return false, err
	}
	if _, err := s.find(id, 0); err == nil {
		release()
		return false, nil // another process has replaced it meanwhile
	}
	old, err := s.trash(id)
	if err == nil {
		err = unix.Rename(work.path, s.dir(id))
	}
	release()
	if err != nil {
		return false, err
	}
	// If this fails, a later Open removes the rest.
	_ = old.remove()
	return true, nil
}

// Discard removes the snapshot. It must no longer be mounted. After a Commit it does nothing, so
// that it can be deferred.
func (a *Active) Discard() error {
	if a.done {
		return nil
	}
	a.done = true
	if err := a.work.remove(); err != nil {
		return fmt.Errorf("discard snapshot: %w", err)
	}
	return nil
}

// workDir is a directory below tmp. Its lock shows other processes that its owner is alive.
type workDir struct {
	s    *Store
	path string
	lock *lock.Held // nil after release
}

// newWorkDir makes a workDir. A collector may remove it between mkdir and flock, because it looks
// abandoned. Then newWorkDir makes another one.
func (s *Store) newWorkDir() (*workDir, error) {
	for {
		path := filepath.Join(s.tmp(), rand.Text())
		if err := unix.Mkdir(path, 0o700); err != nil {
			return nil, &os.PathError{Op: "mkdir", Path: path, Err: err}
		}
		held, err := lock.TryDir(path)
		if err == nil {
			return &workDir{s, path, held}, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, lock.ErrHeld) {
			return nil, err
		}
	}
}

// trash moves a committed snapshot into tmp, so that it can no longer be opened. It returns an
// error that wraps fs.ErrNotExist if the snapshot is missing. The caller holds the store's lock
// exclusively.
func (s *Store) trash(id ID) (*workDir, error) {
	// In a damaged state directory, a file of another type may have the name. It has no contents to
	// remove, so that there is no workDir.
	if err := unix.Unlink(s.dir(id)); err == nil {
		return nil, nil
	}
	held, err := lock.TryDir(s.dir(id))
	if err != nil {
		return nil, err
	}
	w := &workDir{s, filepath.Join(s.tmp(), rand.Text()), held}
	if err := unix.Rename(s.dir(id), w.path); err != nil {
		w.release()
		return nil, &os.LinkError{Op: "rename", Old: s.dir(id), New: w.path, Err: err}
	}
	s.remember(id, nil)
	return w, nil
}

func (w *workDir) release() {
	if w.lock != nil {
		_ = w.lock.Close() // only the lock of a closed file cannot be released
	}
	w.lock = nil
}

// remove removes the directory and releases its lock.
func (w *workDir) remove() error {
	if w == nil {
		return nil
	}
	defer w.release()
	tmp, err := unix.Open(filepath.Dir(w.path), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: filepath.Dir(w.path), Err: err}
	}
	defer unix.Close(tmp)
	return w.s.drv.remove(tmp, filepath.Base(w.path))
}

// RemoveLeftOvers removes the files of dead processes, as Open does for the snapshots of its own
// driver.
func (s *Store) RemoveLeftOvers() error { return s.collect() }

// collect removes the files of dead processes. It ignores errors, since they must not prevent a
// build: the next Open tries again.
func (s *Store) collect() error {
	entries, err := os.ReadDir(s.tmp())
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(s.tmp(), e.Name())
		held, err := lock.TryDir(path)
		if err != nil {
			continue
		}
		_ = (&workDir{s, path, held}).remove()
	}
	return nil
}
