package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/lock"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/smallfile"
	"github.com/layerbuild/layerbuild/internal/state/ledger"
)

// Store is a directory of snapshots. Its methods may be called concurrently, and several processes
// may have the same directory open. It keeps no descriptor, so it need not be closed. Methods that
// have a context may wait for locks of other processes until it ends, and then return the cause
// (context.Cause).
type Store struct {
	top string // absolute path of the directory of all drivers' stores
	// directory of this store: of the driver in use or, for a store that Others returns, of another
	// driver
	root   string
	drv    driver
	user   bool // marks are user.overlay.*
	ledger *ledger.Ledger
	empty  string // an empty directory
	// mergeAfter is the number of snapshots after which a chain is merged; 0: never.
	mergeAfter int
	leased     func(context.Context, ID) error

	mu    sync.Mutex
	known map[ID]*node
}

// node is a committed snapshot that has been read. Committed snapshots do not change, and an
// ancestor cannot be removed before its descendants. So a chain need not be read again as long as
// its top is the same directory.
type node struct {
	info   Info
	parent *node
	stamp  stamp
	depth  int // number of ancestors
	// merged is set if the snapshot has a merged directory. Its parent is the next ancestor that is
	// not in that directory.
	merged atomic.Pointer[node]
	// unmergeable is set if the snapshot cannot be merged with others.
	unmergeable atomic.Bool
}

// stamp distinguishes a directory from an earlier one of the same name. It includes the time of the
// commit, since inode numbers are soon reused.
type stamp struct {
	ino  uint64
	time unix.Timespec
}

func (s *Store) stamp(id ID) (stamp, error) {
	var st unix.Stat_t
	err := unix.Lstat(s.dir(id), &st)
	return stamp{st.Ino, st.Ctim}, err
}

// Driver returns the name of the driver in use.
func (s *Store) Driver() string { return s.drv.name() }

// Layered reports whether a snapshot's directory contains only the difference to its parent. If so,
// a layer may be unpacked into the Upper of an Active prepared without a parent, and be given its
// parent later by CommitOn.
func (s *Store) Layered() bool { return s.drv.layered() }

// Home returns the path of the store below the directory of all drivers' stores; "" is that
// directory itself.
func (s *Store) Home() string { return s.drv.home() }

// Dir returns the directory of a committed snapshot, which contains its files and its info.
func (s *Store) Dir(id ID) string { return s.dir(id) }

// IDs returns the names of committed snapshots, including suspect and damaged ones. It returns none
// if the directory cannot be read.
func (s *Store) IDs() []ID {
	dir, err := os.Open(s.root)
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	var ids []ID
	for _, name := range names {
		if id := ID(name); id.Validate() == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

func (s *Store) dir(id ID) string { return filepath.Join(s.root, string(id)) }
func (s *Store) fs(id ID) string  { return filepath.Join(s.root, string(id), fsDir) }
func (s *Store) tmp() string      { return filepath.Join(s.root, "tmp") }

// lock takes the store's lock: shared while a snapshot gets a child, exclusive while one is
// removed. It waits until ctx ends, and then returns the cause. The caller should hold the lock
// only briefly, and releases it by calling release.
func (s *Store) lock(ctx context.Context, exclusive bool) (release func(), err error) {
	f, err := os.OpenFile(filepath.Join(s.root, "lock"), os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	held, err := lock.Hold(ctx, f, exclusive)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the snapshots: %w", err)
	}
	return func() { held.Close() }, nil
}

// Stat returns the Info of a committed snapshot, or ErrNotExist if there is none or if it is
// suspect.
func (s *Store) Stat(ctx context.Context, id ID) (Info, error) {
	n, err := s.lookup(ctx, id)
	if err != nil {
		return Info{}, err
	}
	return n.info, nil
}

// lease leases a snapshot, which need not exist. It may wait for the lock of the leases, which a
// collector holds while it waits for the store's lock. So it is not called while the store's lock
// is held, also not for a snapshot that is already leased.
func (s *Store) lease(ctx context.Context, id ID) error {
	if s.leased == nil || id == "" {
		return nil
	}
	return s.leased(ctx, id)
}

// lookup returns the node of id, with its whole chain.
func (s *Store) lookup(ctx context.Context, id ID) (*node, error) {
	if err := id.Validate(); err != nil {
		return nil, err
	}
	if err := s.lease(ctx, id); err != nil {
		return nil, err
	}
	return s.find(id, 0)
}

// maxChain is the length at which a chain is considered a cycle, which only a damaged state
// directory can have.
const maxChain = 10000

// remembered returns the node of id that was read before; nil if there is none. The directory may
// be another one by now.
func (s *Store) remembered(id ID) *node {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known[id]
}

// remember keeps the node of id, or forgets it if n is nil.
func (s *Store) remember(id ID, n *node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n == nil {
		delete(s.known, id)
		return
	}
	s.known[id] = n
}

// find returns the node of id, which the caller has leased. If the node was read before, find
// checks only its own directory again. Several goroutines may read one directory at the same time:
// they get equal nodes, and a node that has become out of date has another stamp than the
// directory.
func (s *Store) find(id ID, depth int) (*node, error) {
	now, err := s.stamp(id)
	if err != nil {
		s.remember(id, nil)
		if err == unix.ENOENT {
			err = ErrNotExist
		}
		return nil, fmt.Errorf("snapshot %s: %w", id, err)
	}
	if n := s.remembered(id); n != nil && n.stamp == now {
		return n, nil
	}
	info, err := readInfo(s.dir(id))
	if err == nil {
		err = s.checkTree(id)
	}
	if errors.Is(err, errDamaged) {
		err = fmt.Errorf("%w: %w", ErrNotExist, err)
	}
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", id, err)
	}
	info.ID = id
	if s.suspect(info) {
		return nil, fmt.Errorf(
			"snapshot %s: %w: the machine stopped before the snapshot was synced to the disk", id,
			ErrNotExist)
	}
	n := &node{info: info, stamp: now}
	if info.Parent != "" {
		if depth == maxChain {
			return nil, fmt.Errorf("snapshot %s: its chain of parents is too long", id)
		}
		if n.parent, err = s.find(info.Parent, depth+1); err != nil {
			return nil, fmt.Errorf("parent of %s: %w", id, err)
		}
		n.depth = n.parent.depth + 1
	}
	if s.mergeAfter > 0 && n.depth >= minMerged(s.mergeAfter)-1 {
		n.merged.Store(s.readMerged(n))
	}
	s.remember(id, n)
	return n, nil
}

// checkTree returns an error for a snapshot whose tree is missing.
func (s *Store) checkTree(id ID) error {
	var st unix.Stat_t
	if err := unix.Lstat(s.fs(id), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fmt.Errorf("%w: it has no directory %s", errDamaged, fsDir)
	}
	return nil
}

// suspect reports whether the machine may have stopped before the snapshot was written to the disk.
func (s *Store) suspect(info Info) bool {
	return !s.ledger.Safe(ledger.Mark{Boot: info.Boot, Syncs: info.Syncs})
}

// chain returns the directories of n and its ancestors, topmost first: the fs directory of each, or
// merged directories in place of several.
func (s *Store) chain(n *node) []string {
	var dirs []string
	for n != nil {
		if m := n.merged.Load(); m != nil {
			dirs = append(dirs, filepath.Join(s.dir(n.info.ID), mergedDir, fsDir))
			n = m.parent
			continue
		}
		dirs = append(dirs, s.fs(n.info.ID))
		n = n.parent
	}
	return dirs
}

// chainOf returns the chain of id; nil for "".
func (s *Store) chainOf(ctx context.Context, id ID) ([]string, error) {
	if id == "" {
		return nil, nil
	}
	n, err := s.lookup(ctx, id)
	if err != nil {
		return nil, err
	}
	return s.chain(n), nil
}

// View returns read-only mounts of a committed snapshot; for "", of an empty directory.
func (s *Store) View(ctx context.Context, id ID) ([]mount.Mount, error) {
	if id == "" {
		return []mount.Mount{{Type: mount.Bind, Source: s.empty, Options: []string{"ro"}}}, nil
	}
	chain, err := s.chainOf(ctx, id)
	if err != nil {
		return nil, err
	}
	return s.drv.view(chain), nil
}

// Changes returns the directories from which the difference between a committed snapshot and its
// parent is read.
func (s *Store) Changes(ctx context.Context, id ID) (Changes, error) {
	if id == "" {
		return Changes{}, fmt.Errorf("snapshot %q: %w", string(id), ErrNotExist)
	}
	n, err := s.lookup(ctx, id)
	if err != nil {
		return Changes{}, err
	}
	return s.changes(s.fs(id), s.chain(n.parent)), nil
}

func (s *Store) changes(dir string, lower []string) Changes {
	if s.drv.layered() {
		return Changes{Dir: dir, Lower: lower, UserXattr: s.user, StandIns: s.user}
	}
	return Changes{Dir: dir, Lower: lower[:min(1, len(lower))], Full: true, StandIns: s.user}
}

// Note returns the data that was kept with a committed snapshot, or an error that wraps
// fs.ErrNotExist if there is none.
func (s *Store) Note(ctx context.Context, id ID) ([]byte, error) {
	if _, err := s.lookup(ctx, id); err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(s.dir(id), noteFile))
}

// Dirs returns the directories that a committed snapshot consists of, topmost first; none for "".
func (s *Store) Dirs(ctx context.Context, id ID) ([]string, error) {
	chain, err := s.chainOf(ctx, id)
	if err != nil || len(chain) == 0 {
		return nil, err
	}
	if !s.drv.layered() {
		return chain[:1], nil
	}
	return chain, nil
}

// All iterates over the committed snapshots in the order of their names, including suspect ones.
// For a directory that cannot be read as a snapshot it yields an error and an Info that only has
// the ID, and continues.
func (s *Store) All() iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		entries, err := os.ReadDir(s.root)
		if err != nil {
			yield(Info{}, err)
			return
		}
		for _, e := range entries {
			id := ID(e.Name())
			if id.Validate() != nil {
				continue
			}
			info, err := readInfo(s.dir(id))
			if _, gone := s.stamp(id); gone == unix.ENOENT {
				continue // removed since the directory was listed
			}
			info.ID = id
			if err != nil {
				err = fmt.Errorf("snapshot %s: %w", id, err)
			}
			info.Suspect = err == nil && s.suspect(info)
			if !yield(info, err) {
				return
			}
		}
	}
}

// Remove removes a committed snapshot, which may be suspect or damaged. It returns ErrNotExist if
// there is none and ErrInUse if it has children, committed or active in any process. It does not
// detect views: if other processes may view a snapshot, the caller needs a lock of its own.
func (s *Store) Remove(ctx context.Context, id ID) error {
	if err := id.Validate(); err != nil {
		return err
	}
	release, err := s.lock(ctx, true)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(s.dir(id), &st); err != nil {
		release()
		if err == unix.ENOENT {
			return fmt.Errorf("remove snapshot %s: %w", id, ErrNotExist)
		}
		return fmt.Errorf("remove snapshot %s: %w", id, err)
	}
	if by, err := s.child(id); err != nil || by != "" {
		release()
		if err == nil {
			err = fmt.Errorf("%w by %s", ErrInUse, by)
		}
		return fmt.Errorf("remove snapshot %s: %w", id, err)
	}
	trash, err := s.trash(id)
	release()
	if err != nil {
		return fmt.Errorf("remove snapshot %s: %w", id, err)
	}
	if err := trash.remove(); err != nil {
		return fmt.Errorf("remove snapshot %s: %w", id, err)
	}
	return nil
}

// Others returns the stores in the same directory whose snapshots the driver in use cannot read.
// They are for listing, measuring and removing these snapshots.
func (s *Store) Others() []*Store {
	var others []*Store
	for _, drv := range []driver{&overlay{kind: mount.Overlay, user: s.user},
		&overlay{kind: mount.FuseOverlay, user: s.user}, btrfs{}} {
		o := &Store{top: s.top, root: filepath.Join(s.top, drv.home()), drv: drv, user: s.user,
			ledger: s.ledger, known: make(map[ID]*node)}
		if drv.home() == s.drv.home() {
			continue
		}
		if fi, err := os.Lstat(o.tmp()); err == nil && fi.IsDir() {
			others = append(others, o)
		}
	}
	return others
}

// maxTrashLocks is the number of snapshots that are kept locked while they are removed. Each lock
// needs a descriptor. Another process that opens the store may also remove the snapshots that are
// not locked, which is harmless.
const maxTrashLocks = 32

// RemoveAll removes committed snapshots, each after its descendants. No process may lease them
// meanwhile: the caller holds the lock of the leases. RemoveAll itself only renames the snapshots.
// The function that it returns removes their files, and may be called after that lock is released.
// Missing snapshots are not an error.
func (s *Store) RemoveAll(ctx context.Context, ids []ID) (finish func() error, err error) {
	release, err := s.lock(ctx, true)
	if err != nil {
		return func() error { return nil }, err
	}
	defer release()
	var all []*workDir
	for _, id := range ids {
		if err = id.Validate(); err != nil {
			break
		}
		var w *workDir
		if w, err = s.trash(id); errors.Is(err, fs.ErrNotExist) {
			err = nil
		} else if err != nil {
			err = fmt.Errorf("remove snapshot %s: %w", id, err)
			break
		}
		if w != nil && len(all) >= maxTrashLocks {
			w.release()
		}
		all = append(all, w)
	}
	return func() error {
		var errs []error
		for _, w := range all {
			errs = append(errs, w.remove())
		}
		return errors.Join(errs...)
	}, err
}

// child returns the name of a child of id, "" if there is none. The caller holds the store's lock
// exclusively.
func (s *Store) child(id ID) (string, error) {
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		other := ID(e.Name())
		if !e.IsDir() || other == id || other.Validate() != nil {
			continue
		}
		if parent, err := s.parentOf(other, e); err == nil && parent == id {
			return string(other), nil
		}
	}
	actives, err := os.ReadDir(s.tmp())
	if err != nil {
		return "", err
	}
	for _, e := range actives {
		dir := filepath.Join(s.tmp(), e.Name())
		if info, err := readInfo(dir); err != nil || info.Parent != id {
			continue
		}
		// The directory of a dead process is not locked.
		if held, err := lock.TryDir(dir); err == nil {
			if err := held.Close(); err != nil {
				return "", err
			}
			continue
		}
		return "a snapshot being made", nil
	}
	return "", nil
}

// parentOf returns a snapshot's parent. It uses the node in memory if the directory has not
// changed: otherwise a prune of n snapshots would read n² files.
func (s *Store) parentOf(id ID, e fs.DirEntry) (ID, error) {
	if n := s.remembered(id); n != nil {
		if now, err := s.stamp(id); err == nil && n.stamp == now {
			return n.info.Parent, nil
		}
	}
	info, err := readInfo(s.dir(id))
	return info.Parent, err
}

const infoFile = "info.json"

// noteFile has the data of Active.WriteNote.
const noteFile = "note"

// errDamaged is returned for a snapshot whose info or tree is missing, incomplete or unreadable.
// The store treats such a snapshot as missing, and Commit replaces it.
var errDamaged = errors.New("it is damaged")

func readInfo(dir string) (Info, error) {
	data, err := smallfile.Read(filepath.Join(dir, infoFile))
	if err != nil {
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) ||
			errors.Is(err, unix.ENOMEM) {
			return Info{}, err // the process lacks resources; the file may be good
		}
		return Info{}, fmt.Errorf("%w: %w", errDamaged, err)
	}
	info := Info{Syncs: ledger.Unknown}
	if err := json.Unmarshal(data, &info); err != nil {
		return Info{}, fmt.Errorf("%w: %s: %w", errDamaged, infoFile, err)
	}
	if info.Parent != "" {
		if err := info.Parent.Validate(); err != nil {
			return Info{}, fmt.Errorf("%w: %w", errDamaged, err)
		}
	}
	return info, nil
}

// writeInfo writes the file in place, since the directory is not committed yet. Other processes
// read the file only to find the snapshot's parent.
func writeInfo(dir string, info Info) error {
	data, err := json.Marshal(info)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, infoFile), append(data, '\n'), 0o600)
}
