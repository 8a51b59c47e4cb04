package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/diff"
	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/snapshot"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const remedy = "build or pull the image again"

// Repair returns a function for store.Repair, which puts a missing or damaged blob into the store again: it seals a
// layer again from its snapshot, or downloads the blob. If it can do neither, it returns a *store.BlobError with the
// remedy.
func Repair(s *state.State, images *image.Resolver) func(context.Context, ocispec.Descriptor, *store.BlobError) error {
	return func(ctx context.Context, d ocispec.Descriptor, why *store.BlobError) error {
		resealed, err := reseal(ctx, s, d.Digest)
		if resealed || ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err = errors.Join(err, images.Restore(ctx, d))
		if err == nil {
			return nil
		}
		reason := fmt.Errorf("%w, and the state has nothing to make it from", why.Err)
		if !errors.Is(err, store.ErrNotFound) {
			reason = fmt.Errorf("%w, and cannot be made or fetched again (%v)", why.Err, err)
		}
		return &store.BlobError{Digest: d.Digest, Err: reason, Remedy: remedy}
	}
}

// reseal makes the blob of a layer from the snapshot that it was sealed from. It reports whether it did.
func reseal(ctx context.Context, s *state.State, want digest.Digest) (bool, error) {
	var errs []error
	for e, err := range s.Cache.All(cache.Seals) {
		if err != nil {
			return false, err
		}
		name, was, ok := e.SealedLayer()
		if !ok || was.Descriptor.Digest != want {
			continue
		}
		o, ok := sealOptions(name)
		if !ok {
			continue
		}
		l, err := sealAgain(ctx, s, snapshot.ID(e.Snapshot), o)
		if err != nil {
			errs = append(errs, err)
		}
		if l.Descriptor.Digest == want {
			return true, nil
		}
	}
	return false, errors.Join(errs...)
}

// sealOptions parses the text that sealer.configure writes.
func sealOptions(name string) (diff.Options, bool) {
	f := strings.Split(name, " ") // compression and level, and then perhaps "epoch" and a time
	if len(f) != 2 && len(f) != 4 {
		return diff.Options{}, false
	}
	o := diff.Options{Compression: f[0]}
	var err error
	if o.Level, err = strconv.Atoi(f[1]); err != nil {
		return o, false
	}
	if len(f) == 4 {
		if o.Epoch, err = Epoch(f[3]); err != nil || f[2] != "epoch" {
			return o, false
		}
	}
	return o, true
}

// sealAgain seals a snapshot's layer; that of "" has no entries.
func sealAgain(ctx context.Context, s *state.State, id snapshot.ID, o diff.Options) (_ diff.Layer, err error) {
	if id == "" {
		tmp := state.NewTempDir(s.Root)
		defer func() { err = errors.Join(err, tmp.Close()) }()
		tree, err := emptyTree(tmp)
		if err != nil {
			return diff.Layer{}, err
		}
		return diff.Seal(ctx, s.Store, tree, o)
	}
	c, err := s.Snapshots.Changes(id)
	if errors.Is(err, snapshot.ErrNotExist) {
		return diff.Layer{}, nil
	}
	if err != nil {
		return diff.Layer{}, err
	}
	return diff.Seal(ctx, s.Store, treeOf(c), o)
}

// emptyTree is the tree of the layer without entries.
func emptyTree(tmp *state.TempDir) (diff.Tree, error) {
	top, err := tmp.Path()
	if err != nil {
		return diff.Tree{}, err
	}
	dir, err := os.MkdirTemp(top, "empty-")
	if err == nil {
		err = os.Chmod(dir, 0o755) // the mode of an unchanged root
	}
	return diff.Tree{Dir: dir, Full: true}, err
}

// maxRepairs limits how often a build begins again.
const maxRepairs = 100

// repairing calls solve, and calls it again after an error about a damaged or missing blob. The second call makes the
// lost results again. Everything else is in the cache by then, also the results of steps run because of --no-cache.
func (b *builder) repairing(ctx context.Context, res *Result, solve func() error) error {
	met := map[digest.Digest]bool{}
	for {
		err := solve()
		var bad *store.BlobError
		if !errors.As(err, &bad) || ctx.Err() != nil || met[bad.Digest] || len(met) == maxRepairs {
			return err
		}
		met[bad.Digest] = true
		b.sink(event.Warning{Message: fmt.Sprintf("%v; what was made with it is made again", bad), Time: time.Now()})
		b.beginAgain()
		res.Names = nil
	}
}

// beginAgain forgets the results of stages, and keeps the open contexts and images.
func (b *builder) beginAgain() {
	b.sealer.wait()
	b.made.use()
	b.resolved, b.unpacked, b.trees = memo[imageKey, *image.Image]{}, memo[imageKey, rootfs]{}, memo[snapshot.ID, *source.Tree]{}
	b.runs, b.fetched, b.imports, b.promises = memo[string, stepResult]{}, memo[string, stepResult]{}, imports{}, promises{}
	b.sealer = newSealer(b.sealer.ctx, b)
	b.sealer.configure()
}

// anew returns a solver for the same plan without results.
func (s *solver) anew() *solver {
	return &solver{builder: s.builder, plan: s.plan, label: s.label, prefetch: s.prefetch}
}

// made are the keys of steps that were run.
type made struct {
	mu   sync.Mutex
	keys map[cache.Key]bool
	used bool
}

func (m *made) add(key cache.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.keys == nil {
		m.keys = map[cache.Key]bool{}
	}
	m.keys[key] = true
}

// use makes has report true for added keys.
func (m *made) use() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used = true
}

// has reports whether a step with one of the keys was run before the build began again.
func (m *made) has(keys ...cache.Key) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used && slices.ContainsFunc(keys, func(k cache.Key) bool { return m.keys[k] })
}
