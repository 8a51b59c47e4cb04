package state

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/ns"
	"github.com/layerbuild/layerbuild/internal/state/ledger"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/snapshot"
)

// State is the data kept between builds: images, snapshots and cache, below one directory that
// several processes share.
type State struct {
	Root       string
	Store      *store.Store
	Snapshots  *snapshot.Store
	Cache      *cache.Cache
	NS         ns.Info
	ledger     *ledger.Ledger
	warn       func(message string) // may be nil
	leases     *leases
	owned      []io.Closer
	background sync.WaitGroup // work that Close waits for
	wrote      atomic.Bool    // NoteUnsynced was called
}

// Options are the options of Open.
type Options struct {
	// Root is the directory. Open makes it if it is missing.
	Root string
	// Driver is the snapshot driver's name; "" selects the best one that works here.
	Driver string
	// Warn is called with a message about damage; may be nil.
	Warn func(message string)
}

// Open opens the state. Other processes do not remove data that this process uses until Close.
func Open(ctx context.Context, o Options) (_ *State, err error) {
	root, err := filepath.Abs(o.Root)
	if err != nil {
		return nil, err
	}
	info, err := ns.Current()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	s := &State{Root: root, NS: info, warn: o.Warn}
	if err := s.fixTypes(places...); err != nil {
		return nil, err
	}
	if s.leases, err = openLeases(ctx, root); err != nil {
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.leases.close())
		}
	}()
	if err := s.open(ctx, o); err != nil {
		return nil, err
	}
	return s, nil
}

// open opens the ledger, the store, the cache and the snapshots.
func (s *State) open(ctx context.Context, o Options) (err error) {
	cacheDir := s.cachePath()
	if s.ledger, err = ledger.Open(cacheDir); err != nil {
		return err
	}
	if s.Store, err = store.Open(ctx, filepath.Join(s.Root, storeName), store.Options{Warn: o.Warn,
		Lease: s.leaseBlob, Owner: s.leases.id, Stamps: stamps{s}}); err != nil {
		return err
	}
	if s.Cache, err = cache.Open(cacheDir, s.ledger, cache.Options{Lease: s.leaseRecord,
		Owner: s.leases.id}); err != nil {
		return err
	}
	s.Snapshots, err = snapshot.Open(ctx, filepath.Join(s.Root, snapshotsName),
		snapshot.Options{Driver: o.Driver, UserNS: s.NS.Rootless, Ledger: s.ledger,
			Lease: s.leaseSnapshot})
	return err
}

// snapshotStores returns the stores of snapshots: first the store of the driver in use, then the
// stores of other drivers.
func (s *State) snapshotStores() []*snapshot.Store {
	return append([]*snapshot.Store{s.Snapshots}, s.Snapshots.Others()...)
}

// Own makes Close close c. It is not safe for concurrent use.
func (s *State) Own(c io.Closer) { s.owned = append(s.owned, c) }

// Close waits for background work, closes the things that the state owns in reverse order, and ends
// the leases.
func (s *State) Close() error {
	s.background.Wait()
	var errs []error
	for _, c := range slices.Backward(s.owned) {
		errs = append(errs, c.Close())
	}
	return errors.Join(append(errs, s.leases.close())...)
}

// Path returns a directory below the cache directory. It makes the directory if it is missing.
func (s *State) Path(name ...string) (string, error) {
	dir := s.cachePath(name...)
	return dir, os.MkdirAll(dir, 0o700)
}
