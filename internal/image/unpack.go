package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/unpack"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/layerbuild/layerbuild/diff"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/memo"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/ns"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/snapshot"
)

// UnpackOptions determine where progress is reported. The zero value works.
type UnpackOptions struct {
	ID   event.ID   // the work to which the progress belongs
	Sink event.Sink // nil: progress is not reported
	// Absent reports whether EnsureChecked may leave out a layer that is not in the store; nil: it
	// leaves out none. It is called by several goroutines.
	Absent func(context.Context, ocispec.Descriptor) bool
}

// Unpack makes snapshots of an image's layers and returns the topmost one, or "" for an image
// without layers. A layer whose snapshot exists is neither fetched nor unpacked; cached reports
// whether all snapshots existed. The digests of the compressed and of the uncompressed layers are
// verified. A layer that does not match leaves neither a snapshot nor a blob.
func (r *Resolver) Unpack(ctx context.Context, img *Image,
	o UnpackOptions) (top snapshot.ID, cached bool, err error) {
	u := r.newUnpacking(img, o)
	top, from, err := u.deepest(ctx)
	if err != nil {
		return "", false, fmt.Errorf("unpack %s: %w", img.Name, err)
	}
	if from == len(u.chains) {
		if from > 0 {
			r.cache.TouchChain(u.chains[from-1])
		}
		return top, true, nil
	}
	defer u.warn()
	if r.snapshots.Layered() {
		top, err = u.parallel(ctx, top, from)
	} else {
		top, err = u.sequential(ctx, top, from)
	}
	if err != nil {
		return "", false, fmt.Errorf("unpack %s: %w", img.Name, err)
	}
	return top, false, nil
}

// Top returns the name of the snapshot of an image's topmost layer, "" for an image without layers,
// and reports whether the snapshot exists.
func (r *Resolver) Top(ctx context.Context, img *Image) (id snapshot.ID, ok bool, err error) {
	u := r.newUnpacking(img, UnpackOptions{})
	if len(u.chains) == 0 {
		return "", true, nil
	}
	chain := u.chains[len(u.chains)-1]
	if id, ok, err = u.existing(ctx, chain); ok || err != nil {
		return id, ok, err
	}
	return snapshot.ID(chain.Encoded()), false, nil
}

// UnpackAs is like Unpack, and makes sure that the snapshot with the name that Top returned exists.
// Meanwhile another process may have recorded a snapshot with another name.
func (r *Resolver) UnpackAs(ctx context.Context, img *Image, id snapshot.ID,
	o UnpackOptions) (cached bool, err error) {
	top, cached, err := r.Unpack(ctx, img, o)
	if err != nil || top == id {
		return cached, err
	}
	// An empty snapshot on top has the same files.
	active, err := r.snapshots.Prepare(ctx, top)
	if err != nil {
		return false, fmt.Errorf("unpack %s: %w", img.Name, err)
	}
	if err := active.CommitOn(ctx, id, top, false); err != nil {
		return false, errors.Join(fmt.Errorf("unpack %s: %w", img.Name, err), active.Discard())
	}
	return cached, nil
}

// Ensure copies the blobs of all layers into the store. It is called for an image that is exported.
func (r *Resolver) Ensure(ctx context.Context, img *Image, o UnpackOptions) error {
	u := r.newUnpacking(img, o)
	if err := u.fetch(ctx, img.Manifest.Layers); err != nil {
		return fmt.Errorf("fetch %s: %w", img.Name, err)
	}
	return nil
}

// EnsureChecked is like Ensure, and also checks the layers that have no snapshot: each is read once
// to its end, to see that it is a tar that all readers interpret in the same way and that it has
// the digest in the image's configuration. It is called for a base image that need not be unpacked.
func (r *Resolver) EnsureChecked(ctx context.Context, img *Image, o UnpackOptions) error {
	u := r.newUnpacking(img, o)
	_, unpacked, err := u.deepest(ctx)
	if err != nil {
		return fmt.Errorf("fetch %s: %w", img.Name, err)
	}
	g, ctx := errgroup.WithContext(ctx)
	for i, d := range img.Manifest.Layers {
		g.Go(func() error {
			ok, err := r.store.Exists(ctx, d)
			if err != nil || !ok && o.Absent != nil && o.Absent(ctx, d) {
				return err
			}
			if i < unpacked {
				return u.fetch(ctx, img.Manifest.Layers[i:i+1])
			}
			return u.check(ctx, i)
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("fetch %s: %w", img.Name, err)
	}
	return nil
}

// layerChecked takes the place of the options of sealing in the record of a blob whose content was
// read and has the diffID of the record.
const layerChecked = "checked"

// check copies a layer's blob into the store, and reads it once. The cache records that it was
// read.
func (u *unpacking) check(ctx context.Context, i int) error {
	d, diffID := u.img.Manifest.Layers[i], u.img.Config.RootFS.DiffIDs[i]
	l, ok := u.r.cache.Sealed(d.Digest.String(), layerChecked)
	if ok && l.DiffID == diffID {
		return u.fetch(ctx, u.img.Manifest.Layers[i:i+1])
	}
	return u.readLayer(ctx, i, func(body io.Reader) (digest.Digest, error) {
		return diff.DiffID(ctx, body)
	})
}

// readLayer copies a layer's blob into the store and calls read with its bytes, once or, if the
// blob in the store is damaged, twice. read returns the digest of the layer's tar. The cache
// records that the layer was read.
func (u *unpacking) readLayer(ctx context.Context, i int,
	read func(body io.Reader) (digest.Digest, error)) error {
	d, diffID := u.img.Manifest.Layers[i], u.img.Config.RootFS.DiffIDs[i]
	if err := u.acquire(ctx); err != nil {
		return err
	}
	defer u.release()
	err := refetching(func() (stored bool, err error) {
		return u.read(ctx, d, func(body io.Reader) error {
			got, err := read(body)
			if err == nil && got != diffID {
				err = fmt.Errorf("its content has the digest %s, but its description has %s", got,
					diffID)
			}
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("layer %s: %w", d.Digest, err)
	}
	return u.r.cache.PutSealed(ctx, d.Digest.String(), layerChecked,
		cache.Layer{Descriptor: d, DiffID: diffID})
}

// Pull resolves an image at the registry, copies all of its blobs into the store and names it
// there.
func (r *Resolver) Pull(ctx context.Context, ref string, ro ResolveOptions,
	o UnpackOptions) (*Image, error) {
	ro.Pull = true
	img, err := r.Resolve(ctx, ref, ro)
	if err != nil {
		return nil, err
	}
	if err := r.Ensure(ctx, img, o); err != nil {
		return nil, err
	}
	name := img.Name
	if digestOf(name) != "" {
		name = "" // the image is identified by its digest
	}
	// The manifest gets the name even if it came from an index: the other images of the index
	// are not in the store.
	d := img.Descriptor
	d.Platform = &img.Platform
	return img, r.store.Tag(ctx, name, d)
}

// unpacking is the state of one call of Unpack or Ensure.
type unpacking struct {
	r      *Resolver
	img    *Image
	o      UnpackOptions
	chains []digest.Digest
	ns     func() (ns.Info, error)

	mu        sync.Mutex
	owners    tally // files whose owner could not be set
	skips     tally // devices and attributes that were left out
	whiteouts tally // devices 0:0
	standIns  tally // device nodes that were replaced by empty files
}

// A tally is the number of files with a property, and a description of the first of them.
type tally struct {
	n     int
	first string
}

// count adds a file, which the other arguments describe as for fmt.Sprintf, to a tally of u.
func (u *unpacking) count(t *tally, format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if t.n == 0 {
		t.first = fmt.Sprintf(format, args...)
	}
	t.n++
}

func (r *Resolver) newUnpacking(img *Image, o UnpackOptions) *unpacking {
	if o.Sink == nil {
		o.Sink = event.Discard
	}
	return &unpacking{r: r, img: img, o: o, ns: sync.OnceValues(ns.Current),
		chains: identity.ChainIDs(slices.Clone(img.Config.RootFS.DiffIDs))}
}

// deepest returns the snapshot of the longest prefix of layers with a snapshot, and the index of
// the first layer above it.
func (u *unpacking) deepest(ctx context.Context) (snapshot.ID, int, error) {
	for i := len(u.chains) - 1; i >= 0; i-- {
		if id, ok, err := u.existing(ctx, u.chains[i]); ok || err != nil {
			return id, i + 1, err
		}
	}
	return "", 0, nil
}

// existing returns the snapshot of a chain ID, and reports whether there is one: the recorded
// snapshot, which may belong to an image that was built here, or the snapshot that Unpack made. It
// returns an error only if ctx has ended.
func (u *unpacking) existing(ctx context.Context,
	chain digest.Digest) (id snapshot.ID, ok bool, err error) {
	if recorded, ok := u.r.cache.Chain(chain); ok {
		if _, err := u.r.snapshots.Stat(ctx, snapshot.ID(recorded)); err == nil {
			return snapshot.ID(recorded), true, nil
		}
	}
	id = snapshot.ID(chain.Encoded())
	if _, err := u.r.snapshots.Stat(ctx, id); err != nil {
		return "", false, context.Cause(ctx)
	}
	u.record(ctx, chain, id) // if this fails, the snapshot is found in the same way again
	return id, true, nil
}

func (u *unpacking) record(ctx context.Context, chain digest.Digest, id snapshot.ID) error {
	return u.r.cache.PutChain(ctx, chain, string(id))
}

// parallel unpacks layers at the same time, each into its own directory, and stacks them in
// order.
func (u *unpacking) parallel(ctx context.Context, base snapshot.ID, from int) (snapshot.ID, error) {
	g, ctx := errgroup.WithContext(ctx)
	below := memo.NewCall[snapshot.ID]()
	below.Finish(base, nil)
	for i := from; i < len(u.chains); i++ {
		here := memo.NewCall[snapshot.ID]()
		f, mine := u.r.chains.Claim(u.chains[i])
		parent := below
		below = here
		if mine {
			// Acquire the slot here, so that lower layers come first: the others wait for them.
			if err := u.acquire(ctx); err != nil {
				u.r.chains.End(ctx, u.chains[i], f, "", err)
				here.Finish("", err)
				break
			}
		}
		g.Go(func() error {
			id, err := u.claimed(ctx, i, parent, f, mine)
			here.Finish(id, err)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return "", err
	}
	return below.Wait(context.Background()) // it has finished, and ctx has ended with the group
}

func (u *unpacking) acquire(ctx context.Context) error {
	select {
	case u.r.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (u *unpacking) release() { <-u.r.slots }

// claimed makes a layer's snapshot, or waits for the goroutine that makes it. If that goroutine is
// canceled, claimed makes the snapshot.
func (u *unpacking) claimed(ctx context.Context, i int, parent, f *memo.Call[snapshot.ID],
	mine bool) (snapshot.ID, error) {
	key := u.chains[i]
	for !mine {
		id, err := f.Wait(ctx)
		if !f.Abandoned() || ctx.Err() != nil {
			return id, err
		}
		if f, mine = u.r.chains.Claim(key); mine {
			if err := u.acquire(ctx); err != nil {
				u.r.chains.End(ctx, key, f, "", err)
				return "", err
			}
		}
	}
	id, err := u.layered(ctx, i, parent)
	u.r.chains.End(ctx, key, f, id, err)
	return id, err
}

// layered unpacks a layer without its parent. The caller has acquired a slot; layered releases
// it.
func (u *unpacking) layered(ctx context.Context, i int,
	parent *memo.Call[snapshot.ID]) (snapshot.ID, error) {
	release := sync.OnceFunc(u.release)
	defer release()
	// It may have been made meanwhile.
	if id, ok, err := u.existing(ctx, u.chains[i]); ok || err != nil {
		return id, err
	}
	work, err := u.unpack(ctx, i, "", false)
	release()
	alone := err == nil
	if err != nil && !errors.Is(err, diff.ErrNeedsParent) {
		return "", err
	}
	below, err := parent.Wait(ctx)
	if err == nil && alone {
		err = u.inherit(ctx, work, below)
	}
	if err != nil && alone {
		err = errors.Join(err, work.active.Discard())
		alone = false
	}
	if err != nil && !errors.Is(err, diff.ErrNeedsParent) {
		return "", err
	}
	if !alone {
		if work, err = u.unpack(ctx, i, below, true); err != nil {
			return "", err
		}
	}
	id := snapshot.ID(u.chains[i].Encoded())
	if err := work.active.CommitOn(ctx, id, below,
		!impliesRoot(work.applied)); err != nil {
		return "", errors.Join(err, work.active.Discard())
	}
	return id, u.record(ctx, u.chains[i], id)
}

// impliesRoot reports whether a layer has no entry for the root directory.
func impliesRoot(a diff.Applied) bool {
	return slices.ContainsFunc(a.Implied, func(d unpack.Implied) bool { return d.Path == "." })
}

// inherit gives a layer that was unpacked without its parent what it takes from the parent.
func (u *unpacking) inherit(ctx context.Context, work unpacked, below snapshot.ID) error {
	lower, err := u.r.snapshots.Dirs(ctx, below)
	if err != nil {
		return err
	}
	t := diff.Tree{Dir: work.active.Upper(), Lower: lower,
		UserXattr: work.active.Changes().UserXattr}
	return diff.Inherit(ctx, t, work.applied)
}

// sequential unpacks one layer after the other, each on a copy of its parent. Meanwhile the
// following layers are downloaded.
func (u *unpacking) sequential(ctx context.Context, base snapshot.ID,
	from int) (snapshot.ID, error) {
	g, ctx := errgroup.WithContext(ctx)
	if from+1 < len(u.chains) {
		g.Go(func() error { return u.fetch(ctx, u.img.Manifest.Layers[from+1:]) })
	}
	id := base
	g.Go(func() error {
		for i := from; i < len(u.chains); i++ {
			var err error
			if id, err = u.onto(ctx, i, id); err != nil {
				return err
			}
		}
		return nil
	})
	err := g.Wait() // the order of evaluation of id and g.Wait() in one statement is not specified
	return id, err
}

// onto makes a layer's snapshot on an existing parent.
func (u *unpacking) onto(ctx context.Context, i int, parent snapshot.ID) (snapshot.ID, error) {
	return u.r.chains.Share(ctx, u.chains[i], func() (snapshot.ID, error) {
		if id, ok, err := u.existing(ctx, u.chains[i]); ok || err != nil {
			return id, err
		}
		work, err := u.unpack(ctx, i, parent, true)
		if err != nil {
			return "", err
		}
		id := snapshot.ID(u.chains[i].Encoded())
		if err := work.active.Commit(ctx, id); err != nil {
			return "", errors.Join(err, work.active.Discard())
		}
		return id, u.record(ctx, u.chains[i], id)
	})
}

// unpacked is a layer in a snapshot that is not committed yet.
type unpacked struct {
	active  *snapshot.Active
	applied diff.Applied
}

// unpack unpacks a layer: alone or, if full is set, on top of the visible layers below it.
func (u *unpacking) unpack(ctx context.Context, i int, parent snapshot.ID,
	full bool) (w unpacked, err error) {
	err = refetching(func() (stored bool, err error) {
		w, stored, err = u.unpackOnce(ctx, i, parent, full)
		return stored, err
	})
	if err != nil {
		return unpacked{}, fmt.Errorf("layer %s: %w", u.img.Manifest.Layers[i].Digest, err)
	}
	return w, nil
}

// refetching calls read, and calls it once more if the blob was in the store and was damaged: the
// second call fetches the blob. stored reports whether the blob was in the store.
func refetching(read func() (stored bool, err error)) error {
	stored, first := read()
	if !stored || !isBad(first) {
		return first
	}
	_, err := read()
	if err != nil && !isBad(err) {
		err = fmt.Errorf("%w; %w", first, err)
	}
	return err
}

// isBad reports whether err is about a blob that is missing from the store or damaged there.
func isBad(err error) bool {
	return errors.Is(err, store.ErrDamaged) || errors.Is(err, store.ErrNotFound)
}

func (u *unpacking) unpackOnce(ctx context.Context, i int, parent snapshot.ID,
	full bool) (w unpacked, stored bool, err error) {
	d, want := u.img.Manifest.Layers[i], u.img.Config.RootFS.DiffIDs[i]
	active, err := u.r.snapshots.Prepare(ctx, parent)
	if err != nil {
		return unpacked{}, false, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, active.Discard())
		}
	}()
	ao, err := u.applyOptions(active, full)
	if err != nil {
		return unpacked{}, false, err
	}
	dir := active.Upper()
	if full && u.r.snapshots.Layered() {
		tree, err := mount.Open(active.Mounts())
		if err != nil {
			return unpacked{}, false, err
		}
		defer tree.Close()
		dir = dirfd.FDPath(int(tree.Fd()))
	}
	w.active = active
	needsParent := false
	stored, err = u.read(ctx, d, func(r io.Reader) error {
		r, done := u.watch(r, "unpack", d)
		defer done()
		a, err := diff.Apply(ctx, r, dir, ao)
		if !full && errors.Is(err, diff.ErrNeedsParent) {
			needsParent = true // the blob is valid and is kept for the second attempt
			return nil
		}
		if err != nil {
			return err
		}
		if a.DiffID != want {
			return fmt.Errorf("its content has the digest %s, but the configuration has %s",
				a.DiffID, want)
		}
		w.applied = a
		return nil
	})
	if err == nil && needsParent {
		err = diff.ErrNeedsParent
	}
	return w, stored, err
}

// applyOptions returns the options for unpacking a layer. Devices and owners that cannot be
// created here are counted, and reported in one warning.
func (u *unpacking) applyOptions(active *snapshot.Active, full bool) (diff.ApplyOptions, error) {
	o := diff.ApplyOptions{Full: full, UserXattr: active.Changes().UserXattr}
	where, err := u.ns()
	if err != nil {
		return o, err
	}
	o.OnWhiteoutDevice = func(path string) { u.count(&u.whiteouts, "%s", path) }
	if where.SingleID {
		o.OnOwnerError = func(path string, uid, gid int, _ error) {
			u.count(&u.owners, "%s belongs to %d:%d", path, uid, gid)
		}
	}
	if where.Rootless {
		o.OnSkip = func(path, what string, _ error) { u.count(&u.skips, "%s of %s", what, path) }
		o.OnStandIn = func(path string) { u.count(&u.standIns, "%s", path) }
	}
	return o, nil
}

// warn reports the owners and devices that could not be created.
func (u *unpacking) warn() {
	u.mu.Lock()
	owners, standIns, whiteouts, skips := u.owners, u.standIns, u.whiteouts, u.skips
	u.mu.Unlock()
	if owners.n > 0 {
		u.o.Sink(event.Warning{ID: u.o.ID, Time: time.Now(), Message: fmt.Sprintf(
			"%d files of %s belong to users without ids in /etc/subuid and /etc/subgid (%s): in "+
				"this build they belong to root",
			owners.n, u.img.Name, owners.first)})
	}
	if standIns.n > 0 {
		u.o.Sink(event.Warning{ID: u.o.ID, Time: time.Now(), Message: fmt.Sprintf(
			"device nodes of %s cannot be made without root (%d, the first is %s): the image has "+
				"them, and steps find empty files in their place",
			u.img.Name, standIns.n, standIns.first)})
	}
	if whiteouts.n > 0 {
		u.o.Sink(event.Warning{ID: u.o.ID, Time: time.Now(), Message: fmt.Sprintf(
			"devices 0:0 of %s are left out (%d, the first is %s): in an overlay they are "+
				"whiteouts", u.img.Name, whiteouts.n, whiteouts.first)})
	}
	if skips.n > 0 {
		u.o.Sink(event.Warning{ID: u.o.ID, Time: time.Now(), Message: fmt.Sprintf(
			"%d devices or extended attributes of %s cannot be made without root and were left out",
			skips.n, u.img.Name)})
	}
}

// fetch copies blobs into the store.
func (u *unpacking) fetch(ctx context.Context, layers []ocispec.Descriptor) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, d := range layers {
		if ok, err := u.r.store.Exists(ctx, d); ok && err == nil {
			continue
		}
		g.Go(func() error {
			if err := u.acquire(ctx); err != nil {
				return err
			}
			defer u.release()
			if _, err := u.read(ctx, d, nil); err != nil {
				return fmt.Errorf("layer %s: %w", d.Digest, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// read calls use with a blob's bytes, and stores the blob if the store does not have it. stored
// reports whether the store already had it. If use is nil, a blob in the store is not read.
func (u *unpacking) read(ctx context.Context, d ocispec.Descriptor,
	use func(io.Reader) error) (stored bool, err error) {
	for {
		ok, err := u.r.store.Exists(ctx, d)
		if err != nil {
			return false, err
		}
		if ok {
			return true, u.readStored(ctx, d, use)
		}
		if u.img.source == nil || u.img.Origin == FromStore {
			// The store may be able to repair the blob. Try the registry only afterwards, because
			// the name may refer to another image there by now.
			var bad *store.BlobError
			if err := u.repairStored(ctx, d); err == nil {
				continue
			} else if !errors.As(err, &bad) || u.img.source == nil {
				return false, err
			}
		}
		f, mine := u.r.blobs.Claim(d.Digest)
		if mine {
			// Another goroutine may have finished between the look-up and the claim.
			if ok, err := u.r.store.Exists(ctx, d); ok && err == nil {
				u.r.blobs.End(ctx, d.Digest, f, struct{}{}, nil)
				continue
			}
			err := u.download(ctx, d, use)
			u.r.blobs.End(ctx, d.Digest, f, struct{}{}, err)
			return false, err
		}
		// If the other goroutine fails, its reason may not apply here: try again.
		f.Wait(ctx)
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
	}
}

// repairStored makes the store repair a missing blob.
func (u *unpacking) repairStored(ctx context.Context, d ocispec.Descriptor) error {
	r, err := u.r.store.Fetch(ctx, d)
	if err != nil {
		return err
	}
	return r.Close()
}

func (u *unpacking) readStored(ctx context.Context, d ocispec.Descriptor,
	use func(io.Reader) error) error {
	if use == nil {
		return nil
	}
	r, err := u.r.store.Fetch(ctx, d)
	if err != nil {
		return err
	}
	defer r.Close()
	return readWhole(ctx, r, nil, use)
}

// download stores a blob while use reads it.
func (u *unpacking) download(ctx context.Context, d ocispec.Descriptor,
	use func(io.Reader) error) error {
	return u.r.store.IngestAs(ctx, d, func(w io.Writer) error {
		body, err := u.img.source.Open(ctx, d)
		if err != nil {
			return err
		}
		defer body.Close()
		watched, done := u.watch(body, "download", d)
		defer done()
		return readWhole(ctx, watched, w, use)
	})
}

// watch reports the progress of reading a blob, unless the work has no line in the progress.
func (u *unpacking) watch(r io.Reader, what string, d ocispec.Descriptor) (io.Reader, func()) {
	if u.o.ID == "" {
		return r, func() {}
	}
	w := &watched{r: r, sink: u.o.Sink, p: event.Progress{ID: u.o.ID,
		Part: what + " " + d.Digest.String(), Total: d.Size}}
	w.report(time.Now())
	return w, func() {
		w.p.Done = true
		w.report(time.Now())
	}
}

type watched struct {
	r    io.Reader
	sink event.Sink
	p    event.Progress
	last time.Time
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	w.p.Current += int64(n)
	if now := time.Now(); now.Sub(w.last) > 100*time.Millisecond {
		w.report(now)
	}
	return n, err
}

func (w *watched) report(now time.Time) {
	w.last, w.p.Time = now, now
	w.sink(w.p)
}
