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

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/smallfile"
	"github.com/layerbuild/layerbuild/internal/state/ledger"
)

// Store is a directory of snapshots. Its methods may be called concurrently, and several processes may have the same
// directory open; it keeps no descriptor, so there is nothing to close.
type Store struct {
	top    string // absolute: the directory of the snapshots of all drivers
	root   string // that of the driver in use, or of a driver with the same home
	drv    driver
	user   bool // marks are user.overlay.*
	ledger *ledger.Ledger
	empty  string // an empty directory
	leased func(ID)

	mu    sync.Mutex
	known map[ID]*node
}

// node is a committed snapshot that has been read. Committed snapshots do not change, and an ancestor cannot be removed
// before its descendants, so that a chain need not be read again as long as its top is the same directory.
type node struct {
	info   Info
	parent *node
	stamp  stamp
}

// stamp tells a directory from another of the same name. The time is that of its commit: inode numbers come back soon.
type stamp struct {
	ino  uint64
	time unix.Timespec
}

func (s *Store) stamp(id ID) (stamp, error) {
	var st unix.Stat_t
	err := unix.Lstat(s.dir(id), &st)
	return stamp{st.Ino, st.Ctim}, err
}

// Driver is the name of the driver in use.
func (s *Store) Driver() string { return s.drv.name() }

// Layered says that a snapshot's directory holds only what differs from its parent. Then a layer may be unpacked into
// the Upper of an Active prepared without parent, and be put on its parent later, with CommitOn.
func (s *Store) Layered() bool { return s.drv.layered() }

// Home is the directory of the store below that of the snapshots of all drivers; "" is that directory itself.
func (s *Store) Home() string { return s.drv.home() }

// Dir is the directory of a committed snapshot, with its files and its info.
func (s *Store) Dir(id ID) string { return s.dir(id) }

// IDs lists the names of committed snapshots, the suspect and damaged ones included; none if the directory cannot be read.
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

// lock takes the store's lock, which is held for moments only: shared while a snapshot gets a child, exclusive while
// one is taken away. The result lets it go.
func (s *Store) lock(how int) (release func(), err error) {
	path := filepath.Join(s.root, "lock")
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	if err := flock(fd, how); err != nil {
		unix.Close(fd)
		return nil, &fs.PathError{Op: "lock", Path: path, Err: err}
	}
	return func() { unix.Close(fd) }, nil
}

func flock(fd, how int) error {
	for {
		err := unix.Flock(fd, how)
		if err != unix.EINTR {
			return err
		}
	}
}

// Stat tells what is known of a committed snapshot; ErrNotExist if there is none, or if it is suspect.
func (s *Store) Stat(id ID) (Info, error) {
	n, err := s.lookup(id)
	if err != nil {
		return Info{}, err
	}
	return n.info, nil
}

// lease leases a snapshot, which need not exist. A collector that takes the store's lock has the leases locked: so a
// snapshot is leased before the store's lock is taken.
func (s *Store) lease(id ID) {
	if s.leased != nil && id != "" {
		s.leased(id)
	}
}

// lookup finds id with its whole chain.
func (s *Store) lookup(id ID) (*node, error) {
	if err := id.Validate(); err != nil {
		return nil, err
	}
	s.lease(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(id, 0)
}

// maxChain stops a chain that bites its own tail, which only a damaged state directory can have.
const maxChain = 10000

// find is called with s.mu held. Only the top of what is known is looked at again.
func (s *Store) find(id ID, depth int) (*node, error) {
	now, err := s.stamp(id)
	if err != nil {
		delete(s.known, id)
		if err == unix.ENOENT {
			err = ErrNotExist
		}
		return nil, fmt.Errorf("snapshot %s: %w", id, err)
	}
	if n := s.known[id]; n != nil && n.stamp == now {
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
		return nil, fmt.Errorf("snapshot %s: %w: the machine went down before it was surely on the disk", id, ErrNotExist)
	}
	n := &node{info: info, stamp: now}
	if info.Parent != "" {
		if depth == maxChain {
			return nil, fmt.Errorf("snapshot %s: its chain has no end", id)
		}
		if n.parent, err = s.find(info.Parent, depth+1); err != nil {
			return nil, fmt.Errorf("parent of %s: %w", id, err)
		}
	}
	s.known[id] = n
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

// suspect reports whether the machine may have gone down before the snapshot was on the disk.
func (s *Store) suspect(info Info) bool {
	return !s.ledger.Safe(ledger.Mark{Boot: info.Boot, Syncs: info.Syncs})
}

// chain are the fs directories of n and those below it, topmost first.
func (s *Store) chain(n *node) []string {
	var dirs []string
	for ; n != nil; n = n.parent {
		dirs = append(dirs, s.fs(n.info.ID))
	}
	return dirs
}

// chainOf is the chain of id; nil for "".
func (s *Store) chainOf(id ID) ([]string, error) {
	if id == "" {
		return nil, nil
	}
	n, err := s.lookup(id)
	if err != nil {
		return nil, err
	}
	return s.chain(n), nil
}

// View gives the mounts by which a committed snapshot is read; of "", an empty directory. They refuse writes.
func (s *Store) View(_ context.Context, id ID) ([]mount.Mount, error) {
	if id == "" {
		return []mount.Mount{{Type: mount.Bind, Source: s.empty, Options: []string{"ro"}}}, nil
	}
	chain, err := s.chainOf(id)
	if err != nil {
		return nil, err
	}
	return s.drv.view(chain), nil
}

// Changes tells where the difference between a committed snapshot and its parent is read.
func (s *Store) Changes(id ID) (Changes, error) {
	chain, err := s.chainOf(id)
	if err != nil {
		return Changes{}, err
	}
	if len(chain) == 0 {
		return Changes{}, fmt.Errorf("snapshot %q: %w", string(id), ErrNotExist)
	}
	return s.changes(chain[0], chain[1:]), nil
}

func (s *Store) changes(dir string, lower []string) Changes {
	if s.drv.layered() {
		return Changes{Dir: dir, Lower: lower, UserXattr: s.user, StandIns: s.user}
	}
	return Changes{Dir: dir, Lower: lower[:min(1, len(lower))], Full: true, StandIns: s.user}
}

// Dirs are the directories that a committed snapshot is put together from, topmost first; none if there is no such
// snapshot.
func (s *Store) Dirs(id ID) []string {
	chain, err := s.chainOf(id)
	if err != nil || len(chain) == 0 {
		return nil
	}
	if !s.drv.layered() {
		return chain[:1]
	}
	return chain
}

// All goes through the committed snapshots by name, the suspect ones included. A directory that cannot be read as a
// snapshot yields an error with the Info's ID set, and the iteration goes on.
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
				continue // removed meanwhile
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

// Remove removes a committed snapshot; suspect and damaged ones too. It is ErrNotExist if there is none and ErrInUse if
// others, committed or active in any process, are made on it. It does not know of views: who removes snapshots while
// others may look at them needs a lock of their own.
func (s *Store) Remove(_ context.Context, id ID) error {
	if err := id.Validate(); err != nil {
		return err
	}
	release, err := s.lock(unix.LOCK_EX)
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

// Others returns the stores of the snapshots in the same directory that the driver in use cannot read. They serve to list,
// measure and remove these snapshots.
func (s *Store) Others() []*Store {
	var others []*Store
	for _, drv := range []driver{&overlay{kind: mount.Overlay, user: s.user}, &overlay{kind: mount.FuseOverlay, user: s.user}, btrfs{}} {
		o := &Store{top: s.top, root: filepath.Join(s.top, drv.home()), drv: drv, user: s.user, ledger: s.ledger, known: make(map[ID]*node)}
		if drv.home() == s.drv.home() {
			continue
		}
		if fi, err := os.Lstat(o.tmp()); err == nil && fi.IsDir() {
			others = append(others, o)
		}
	}
	return others
}

// maxTrashLocks is how many snapshots that are being removed are kept locked, each of which costs a descriptor. Others that
// open the store may remove those that are not locked, too, which does no harm.
const maxTrashLocks = 32

// RemoveAll removes committed snapshots, each after those made on it. Nobody may lease these meanwhile: the caller
// holds the lock of the leases. The returned function removes the files, which have been renamed by then; it may be
// called after that lock is released. Missing snapshots are not an error.
func (s *Store) RemoveAll(ids []ID) (finish func() error, err error) {
	release, err := s.lock(unix.LOCK_EX)
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

// child names a snapshot that is made on id, "" if there is none. The store's lock is held exclusively.
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
		// Nobody holds what a dead process has left.
		if l, err := tryLock(dir); err == nil {
			unix.Close(l)
			continue
		}
		return "a snapshot being made", nil
	}
	return "", nil
}

// parentOf reads a snapshot's parent, from memory if the directory is the one that was read before: a prune of n
// snapshots would otherwise read n² files.
func (s *Store) parentOf(id ID, e fs.DirEntry) (ID, error) {
	s.mu.Lock()
	n := s.known[id]
	s.mu.Unlock()
	if n != nil {
		if now, err := s.stamp(id); err == nil && n.stamp == now {
			return n.info.Parent, nil
		}
	}
	info, err := readInfo(s.dir(id))
	return info.Parent, err
}

// replaceFile writes a file by way of another name, and has it on the disk when it returns. The store's lock is held
// exclusively.
func replaceFile(path, content string) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

const infoFile = "info.json"

// errDamaged is returned for a snapshot whose info or tree is missing, incomplete or unreadable. Such a snapshot counts
// as missing, and Commit replaces it.
var errDamaged = errors.New("it is damaged")

func readInfo(dir string) (Info, error) {
	data, err := smallfile.Read(filepath.Join(dir, infoFile))
	if err != nil {
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM) {
			return Info{}, err // the error is not about the file
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

// writeInfo needs no care for readers: nobody else reads a directory that is not yet committed, but for its parent.
func writeInfo(dir string, info Info) error {
	data, err := json.Marshal(info)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, infoFile), append(data, '\n'), 0o600)
}
