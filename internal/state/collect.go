package state

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/ocijson"
	"github.com/layerbuild/layerbuild/internal/sorting"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/snapshot"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// unit is a part of the state that is kept or removed as a whole.
type unit struct {
	used    time.Time
	created time.Time // of a snapshot
	keep    bool      // never removed: it is in use by a running build or by the one that collects

	// The unit is a snapshot, which may be lazy, an image, a cache mount, or only records. An image
	// with a name is a unit only if PruneOptions.Images has it.
	snapshot snapshot.ID
	in       *snapshot.Store // the store that has it; nil if it is lazy
	lazy     bool
	image    store.Entry
	mount    string

	size    int64           // of the snapshot or the mount
	blobs   []digest.Digest // that it holds
	records []cache.Entry

	parent   *unit // of a snapshot
	children int
	lost     bool // lazy, and its parent can no longer be made
	removed  bool
}

func (u *unit) isImage() bool { return u.image.Descriptor.Digest != "" }

// collection selects units to remove, and removes them.
type collection struct {
	s     *State
	store *store.Store // the state's; a collection does not repair damaged blobs
	o     PruneOptions
	usage *usage
	inUse inUse

	named  map[digest.Digest]bool // blobs that an image with a name refers to
	chains map[digest.Digest]bool // chain IDs of images that are kept
	blobs  map[digest.Digest]int64
	holds  map[digest.Digest]int // by how many units a blob is referenced

	units     []*unit
	stores    []*snapshot.Store
	snapshots map[string][]*unit // by ID: one for each store that has it, or a lazy one
	unusable  []cache.Entry      // records that no build can use
	trash     *TempDir           // directory for renamed files
	later     []func() error     // remove what has been renamed
	seals     []cache.Entry      // records of layers
	lazies    map[string]bool    // lazy snapshots that records of steps name
	onLazy    map[*unit]string   // the lazy parent of lazy units

	counted bool  // total is set
	total   int64 // size of the cache without the removed units
	limit   int64 // size to which the cache is reduced, if limited is set
	limited bool
}

// collect selects units to remove, and removes them unless o.DryRun is set. It waits for the gate
// as leases.collecting does. If that fails, the usage is nil.
func (s *State) collect(ctx context.Context, o PruneOptions,
	wait time.Duration) (done Pruned, u *usage, err error) {
	release, err := s.leases.collecting(ctx, wait)
	if err != nil {
		return done, nil, err
	}
	c := s.newCollection(o)
	err = c.run(ctx, &done)
	// Everything has been renamed: other processes need not wait until the files are removed.
	err = errors.Join(err, release())
	for _, remove := range c.later {
		err = errors.Join(err, remove())
	}
	return done, c.usage, err
}

func (s *State) newCollection(o PruneOptions) *collection {
	return &collection{s: s, store: s.Store.WithoutRepair(), o: o, usage: s.readUsage(),
		named: map[digest.Digest]bool{}, chains: map[digest.Digest]bool{},
		holds: map[digest.Digest]int{}, snapshots: map[string][]*unit{}, lazies: map[string]bool{},
		onLazy: map[*unit]string{},
		stores: s.snapshotStores(),
		trash:  NewTempDir(s.Root)}
}

// load reads what the state holds.
func (c *collection) load(ctx context.Context) error {
	for _, load := range []func(context.Context) error{c.loadLeases, c.loadBlobs, c.loadImages,
		c.loadSnapshots, c.loadRecords, c.loadMounts} {
		if err := errors.Join(load(ctx), context.Cause(ctx)); err != nil {
			return err
		}
	}
	return nil
}

// run collects. The caller then calls the functions in later.
func (c *collection) run(ctx context.Context, done *Pruned) error {
	err := c.load(ctx)
	if err != nil {
		return err
	}
	if c.usage.cache, err = c.choose(); err != nil {
		return err
	}
	return c.remove(ctx, done)
}

func (c *collection) add(u *unit) *unit {
	c.units = append(c.units, u)
	return c.use(u, u.used)
}

// use records when a unit was used, and sets keep.
func (c *collection) use(u *unit, used time.Time) *unit {
	if used.After(u.used) {
		u.used = used
	}
	u.keep = u.keep || !c.o.Since.IsZero() && !u.used.Before(c.o.Since) ||
		u.snapshot != "" && c.inUse.has(leasedSnapshot, string(u.snapshot)) ||
		u.isImage() && c.inUse.hasBlob(u.image.Descriptor.Digest) ||
		u.mount != "" && c.inUse.has(leasedMount, filepath.Base(u.mount))
	return u
}

func (c *collection) loadLeases(context.Context) (err error) {
	c.inUse, err = c.s.leases.read()
	return err
}

func (c *collection) loadBlobs(context.Context) (err error) {
	c.blobs, err = c.store.Blobs()
	return err
}

// maxUnnamed is the number of images without a name that a collection at the end of a build keeps.
const maxUnnamed = 20

// loadImages adds the images of the store. A build that collects keeps the newest of those without
// a name.
func (c *collection) loadImages(ctx context.Context) error {
	entries, err := c.store.Names(ctx)
	if err != nil {
		return err
	}
	sorting.StableFunc(entries, func(a, b store.Entry) int { return b.Tagged.Compare(a.Tagged) })
	leased, err := c.leasedBlobs(ctx)
	if err != nil {
		return err
	}
	c.add(&unit{keep: true, blobs: leased})
	unnamed := 0
	for _, e := range entries {
		blobs, err := c.leadsTo(ctx, e.Descriptor)
		if err != nil {
			return err
		}
		var u *unit
		if e.Name == "" || c.isChosen(e) {
			u = c.add(&unit{used: e.Tagged, image: e, blobs: blobs})
		}
		if e.Name != "" && (u == nil || u.keep) {
			for _, d := range blobs {
				c.named[d] = true
			}
			continue
		}
		old := c.o.Since.IsZero()
		if e.Name == "" {
			unnamed++
			old = old || unnamed > maxUnnamed
		}
		u.keep = u.keep || c.o.KeepImages
		if !u.keep && old && c.o.Only == nil && (!c.o.OnlyImages || c.isChosen(e)) {
			c.take(u)
		}
	}
	return nil
}

// isChosen reports whether PruneOptions.Images has an entry. An entry whose name was given to
// another image since is not the same.
func (c *collection) isChosen(e store.Entry) bool {
	return slices.ContainsFunc(c.o.Images, func(o store.Entry) bool {
		return o.Name == e.Name && o.Descriptor.Digest == e.Descriptor.Digest
	})
}

// leasedBlobs returns the blobs that processes have leased, and those that leased images refer to.
func (c *collection) leasedBlobs(ctx context.Context) ([]digest.Digest, error) {
	all := map[digest.Digest]bool{}
	for line := range c.inUse.held {
		kind, name, _ := strings.Cut(line, " ")
		d := digest.Digest(name)
		size, there := c.blobs[d]
		if !there {
			continue
		}
		switch leaseKind(kind) {
		case leasedBlob:
			all[d] = true
		case leasedImage:
			list, err := c.leadsTo(ctx, ocispec.Descriptor{Digest: d, Size: size})
			if err != nil {
				return nil, err
			}
			for _, d := range list {
				all[d] = true
			}
		}
	}
	return slices.Collect(maps.Keys(all)), nil
}

// leadsTo returns the blobs that an image refers to, and records the chain IDs of its layers.
func (c *collection) leadsTo(ctx context.Context,
	root ocispec.Descriptor) ([]digest.Digest, error) {
	var list []digest.Digest
	blobs, configs, err := c.store.Graph(ctx, root)
	if err != nil {
		return nil, err
	}
	for _, d := range blobs {
		list = append(list, d.Digest)
	}
	for _, d := range configs {
		var config ocispec.Image
		if data, err := c.store.Read(ctx, d); err == nil &&
			ocijson.Unmarshal(data, &config) == nil {
			for _, id := range identity.ChainIDs(config.RootFS.DiffIDs) {
				c.chains[id] = true
			}
		}
	}
	return list, nil
}

func (c *collection) loadSnapshots(context.Context) error {
	for _, in := range c.stores {
		parents := map[*unit]snapshot.ID{}
		for info, err := range in.All() {
			if err != nil && info.ID == "" {
				return err
			}
			u := c.add(&unit{snapshot: info.ID, in: in, created: info.Created,
				size: c.usage.snapshot(in, info.ID)})
			parents[u] = info.Parent
			c.snapshots[string(info.ID)] = append(c.snapshots[string(info.ID)], u)
		}
		for u, id := range parents {
			c.on(u, in, id)
		}
	}
	return nil
}

// on records the parent of a snapshot, which is in a store.
func (c *collection) on(u *unit, in *snapshot.Store, parent snapshot.ID) {
	for _, up := range c.snapshots[string(parent)] {
		if up.in == in {
			u.parent = up
			up.children++
		}
	}
}

// loadRecords assigns each record to the unit that it keeps. Records of layers keep nothing by
// themselves.
func (c *collection) loadRecords(ctx context.Context) error {
	var all []cache.Entry
	for e, err := range c.s.Cache.Files() {
		switch {
		case err != nil:
			return err
		case e.Kind == "" || !e.Trusted:
			c.unusable = append(c.unusable, e)
		case e.Kind == cache.Seals:
			c.seals = append(c.seals, e)
		case e.Kind == cache.Remote:
			if err := c.remote(ctx, e); err != nil {
				return err
			}
		default:
			all = append(all, e)
			if rec, ok := e.Step(); ok && rec.Lazy != nil {
				c.lazies[e.Snapshot] = true
			}
		}
	}
	for _, e := range all { // after the chains of all images are known
		if !c.hold(ctx, e) {
			c.unusable = append(c.unusable, e)
		}
	}
	for u, id := range c.onLazy {
		for _, up := range c.snapshots[id] {
			u.parent = up
			up.children++
		}
		u.lost = len(c.snapshots[id]) == 0
	}
	for _, e := range c.seals {
		c.seal(e)
	}
	return nil
}

// remote handles a record of what was found at an address: an image, whose blobs it keeps, or other
// data.
func (c *collection) remote(ctx context.Context, e cache.Entry) (err error) {
	u := c.add(&unit{used: e.Used, records: []cache.Entry{e}})
	if root := e.Finding().Root; root != nil {
		u.blobs, err = c.leadsTo(ctx, *root)
	}
	return err
}

// hold assigns a record of a step or of a chain to its snapshot. It reports whether a build can use
// the record.
func (c *collection) hold(ctx context.Context, e cache.Entry) bool {
	if e.Snapshot == "" {
		c.add(&unit{used: e.Used, records: []cache.Entry{e}})
		return true
	}
	// A snapshot that was unpacked from a chain is named by the chain ID. The other records of
	// chains are of images that were built here, and are useful as long as the image exists.
	if id := digest.Digest(e.Key); e.Kind == cache.Chains && id.Validate() == nil &&
		e.Snapshot != id.Encoded() && !c.chains[id] {
		return false
	}
	units := c.snapshots[e.Snapshot]
	if len(units) == 0 {
		u := c.lazy(ctx, e)
		if u == nil {
			return false
		}
		units = []*unit{u}
	}
	good := false
	for _, u := range units {
		if !u.lazy {
			if _, err := u.in.Stat(ctx, u.snapshot); err != nil {
				continue
			}
		}
		good = true
		u.records = append(u.records, e)
		c.use(u, e.Used)
	}
	return good
}

// lazy returns the unit of a step whose snapshot does not exist and is made when it is needed; nil
// if it cannot be made.
func (c *collection) lazy(ctx context.Context, e cache.Entry) *unit {
	rec, ok := e.Step()
	if !ok {
		return nil
	}
	if rec.NoOp && c.canBeMade(e.Snapshot) {
		u := c.add(&unit{lazy: true})
		if c.lazies[e.Snapshot] {
			c.onLazy[u] = e.Snapshot
		}
		return u
	}
	l, ok := c.s.LazyLayer(ctx, rec)
	if !ok {
		return nil
	}
	u := &unit{snapshot: snapshot.ID(e.Snapshot), lazy: true,
		blobs: []digest.Digest{l.Descriptor.Digest}}
	if parent := snapshot.ID(rec.Lazy.Parent); parent != "" {
		i := slices.IndexFunc(c.stores, func(in *snapshot.Store) bool {
			_, err := in.Stat(ctx, parent)
			return err == nil
		})
		switch {
		case i >= 0:
			c.on(u, c.stores[i], parent)
		case c.lazies[rec.Lazy.Parent]:
			c.onLazy[u] = rec.Lazy.Parent
		case !c.canBeMade(rec.Lazy.Parent):
			return nil
		}
	}
	c.snapshots[e.Snapshot] = []*unit{u}
	return c.add(u)
}

// canBeMade reports whether a snapshot that does not exist may be made by a build: that of a chain
// of an image's layers, or a lazy one.
func (c *collection) canBeMade(id string) bool {
	return c.lazies[id] || digest.NewDigestFromEncoded(digest.SHA256, id).Validate() == nil
}

// seal handles the record of a layer. A build that collects keeps the blobs of the snapshots that
// it keeps, so that the next build need not seal them again. prune removes these blobs: they can be
// sealed again.
func (c *collection) seal(e cache.Entry) {
	_, l, ok := e.SealedLayer()
	if !ok || c.o.Since.IsZero() {
		return
	}
	for _, u := range c.snapshots[e.Snapshot] {
		u.blobs = append(u.blobs, l.Descriptor.Digest)
	}
}

// sealed reports whether the snapshot and the blob of a layer's record exist and are kept.
func (c *collection) sealed(e cache.Entry, live map[digest.Digest]bool) bool {
	_, l, ok := e.SealedLayer()
	if _, there := c.blobs[l.Descriptor.Digest]; !ok || !there || !live[l.Descriptor.Digest] {
		return false
	}
	return e.Snapshot == "" || slices.ContainsFunc(c.snapshots[e.Snapshot],
		func(u *unit) bool { return !u.removed })
}

func (c *collection) loadMounts(context.Context) error {
	top := c.s.cachePath(Mounts)
	entries, err := os.ReadDir(top)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		dir := filepath.Join(top, e.Name())
		c.add(&unit{used: mountUsed(dir), mount: dir, size: c.usage.mount(e.Name())})
	}
	return nil
}

// mountUsed returns when a cache mount was last used: each use writes the file with its id.
func mountUsed(dir string) time.Time {
	fi, err := os.Lstat(filepath.Join(dir, "id"))
	if err != nil {
		fi, err = os.Lstat(dir)
	}
	if err != nil {
		return time.Time{}
	}
	return fi.ModTime()
}

// choose selects units that nothing refers to, and then the least recently used ones, as the
// options demand. It returns the size of the remaining cache.
func (c *collection) choose() (int64, error) {
	order := c.byUse()
	_, free, err := c.s.freeSpace()
	if err != nil && c.o.MinFree > 0 {
		return 0, err
	}
	c.limit, c.limited = c.o.cacheLimit(c.before(), free)
	switch {
	case c.o.OnlyImages:
		c.unusable = nil
	case c.o.Only != nil:
		c.unusable = slices.DeleteFunc(c.unusable,
			func(e cache.Entry) bool { return !c.o.Only(recordPart(e)) })
	default:
		c.dropUnreachable(order)
	}
	for _, u := range order {
		if u.removed {
			continue
		}
		c.total += u.size
		for _, d := range u.blobs {
			if c.holds[d]++; c.holds[d] == 1 && !c.named[d] {
				c.total += c.blobs[d]
			}
		}
	}
	c.counted = true
	for _, u := range order {
		if !u.removed && !u.keep && u.children == 0 && c.selects(u) {
			c.take(u)
		}
	}
	return c.total, nil
}

// selects reports whether the options demand that a unit is removed.
func (c *collection) selects(u *unit) bool {
	if c.o.OnlyImages || c.limited && !(c.total > c.limit && c.frees(u)) {
		return false
	}
	if c.o.Only != nil {
		return c.o.Only(c.part(u))
	}
	old := c.o.Unused > 0 && time.Since(u.used) > c.o.Unused
	return c.o.All || old || c.limited && c.o.Unused == 0
}

// before returns the size of the cache before the collection.
func (c *collection) before() int64 {
	var n int64
	for d, size := range c.blobs {
		if !c.named[d] {
			n += size
		}
	}
	for _, u := range c.units {
		n += u.size
	}
	return n
}

// part describes a unit.
func (c *collection) part(u *unit) Part {
	p := Part{Size: u.size, Created: u.created, LastUsed: u.used}
	if u.used.IsZero() { // no record names the snapshot
		p.LastUsed = u.created
	}
	if u.parent != nil {
		p.Parent = string(u.parent.snapshot)
	}
	switch {
	case u.snapshot != "":
		p.Kind, p.ID = PartSnapshot, string(u.snapshot)
	case u.isImage():
		p.Kind, p.ID, p.Created = PartImage, u.image.Descriptor.Digest.String(), u.image.Tagged
		if u.image.Name != "" {
			p.Images = []string{u.image.Name}
		}
	case u.mount != "":
		p.Kind, p.ID = PartMount, filepath.Base(u.mount)
	case len(u.blobs) > 0: // an image that a registry has
		p.Kind, p.ID = PartBlob, u.blobs[0].String()
	case len(u.records) > 0:
		p.Kind, p.ID = PartRecords, u.records[0].Key
	}
	return p
}

// recordPart describes a record.
func recordPart(e cache.Entry) Part {
	return Part{Kind: PartRecords, ID: e.Key, Created: e.Created, LastUsed: e.Used}
}

// blobPart describes a blob that no image with a name has.
func (c *collection) blobPart(d digest.Digest) Part {
	p := Part{Kind: PartBlob, ID: d.String(), Size: c.blobs[d]}
	if fi, err := os.Lstat(c.store.Path(d)); err == nil {
		p.Created, p.LastUsed = fi.ModTime(), fi.ModTime()
	}
	return p
}

// dropUnreachable selects the snapshots that nothing refers to, and the records that no build can
// use.
func (c *collection) dropUnreachable(order []*unit) {
	for _, u := range slices.Backward(order) { // parents come before their children
		if (u.snapshot != "" || u.lazy) && !u.keep && held(u) && !reachable(u) {
			c.unusable = append(c.unusable, u.records...)
			u.records = nil
		}
	}
	for _, u := range order { // children come before their parents
		if u.snapshot != "" && !u.keep && !held(u) && u.children == 0 {
			c.take(u)
		}
	}
}

// reachable reports whether a build can reach a snapshot that records name: from the empty file
// system, from an image, or from another snapshot that a build can reach. When a step is run again
// its result replaces the earlier one, and snapshots made on the earlier one can no longer be
// found.
func reachable(u *unit) bool {
	up := u.parent
	if up == nil {
		return !u.lost
	}
	return held(up) || digest.NewDigestFromEncoded(digest.SHA256,
		string(up.snapshot)).Validate() == nil ||
		slices.ContainsFunc(u.records, func(e cache.Entry) bool { return e.Kind == cache.Chains })
}

// held reports whether a record names the snapshot. Those of layers do not count.
func held(u *unit) bool { return len(u.records) > 0 }

// frees reports whether removing a unit makes the state smaller, at once or after other units with
// the same blobs are removed.
func (c *collection) frees(u *unit) bool {
	return u.size > 0 || u.snapshot != "" ||
		slices.ContainsFunc(u.blobs, func(d digest.Digest) bool { return !c.named[d] })
}

// byUse sets the time of each snapshot to the latest time of its descendants, if that is later, and
// returns the units sorted by time: the least recently used first, and snapshots before their
// parents.
func (c *collection) byUse() []*unit {
	depth := map[*unit]int{}
	for _, u := range c.units {
		// a damaged state may have a cycle
		for up := u.parent; up != nil && depth[u] < len(c.units); up = up.parent {
			depth[u]++
		}
	}
	deepest := slices.Clone(c.units)
	sorting.StableFunc(deepest, func(a, b *unit) int { return cmp.Compare(depth[b], depth[a]) })
	for _, u := range deepest {
		if up := u.parent; up != nil {
			up.keep = up.keep || u.keep
			if u.used.After(up.used) {
				up.used = u.used
			}
		}
	}
	sorting.StableFunc(deepest, func(a, b *unit) int { return a.used.Compare(b.used) })
	return deepest
}

// take selects a unit for removal.
func (c *collection) take(u *unit) {
	if u.removed {
		return
	}
	u.removed = true
	if c.counted {
		c.total -= u.size
		for _, d := range u.blobs {
			if c.holds[d]--; c.holds[d] == 0 && !c.named[d] {
				c.total -= c.blobs[d]
			}
		}
	}
	if u.parent != nil {
		if u.parent.children--; u.parent.children == 0 && u.parent.snapshot != "" &&
			!u.parent.keep && !held(u.parent) &&
			(c.o.Only == nil || c.o.Only(c.part(u.parent))) {
			c.take(u.parent)
		}
	}
}

// live returns the blobs that images with a name and units that are kept refer to.
func (c *collection) live() map[digest.Digest]bool {
	live := maps.Clone(c.named)
	for _, u := range c.units {
		if u.removed {
			continue
		}
		for _, d := range u.blobs {
			live[d] = true
		}
	}
	return live
}

// remove removes the selected units, or only counts them. It removes records first, so that no
// record refers to a partly removed unit.
func (c *collection) remove(ctx context.Context, done *Pruned) error {
	live := c.live()
	records := c.unusable
	var images []store.Entry
	snapshots := map[*snapshot.Store][]snapshot.ID{}
	var mounts []string
	freed := map[digest.Digest]bool{} // blobs of removed units
	for _, u := range c.units {
		if !u.removed {
			continue
		}
		records = append(records, u.records...)
		there := u.snapshot != "" && !u.lazy || u.isImage() || u.mount != ""
		if c.o.Removed != nil && there {
			c.o.Removed(c.part(u))
		}
		for _, d := range u.blobs {
			freed[d] = true
		}
		switch {
		case u.snapshot != "" && !u.lazy:
			done.SnapshotBytes += u.size
			done.Snapshots++
			snapshots[u.in] = append(snapshots[u.in], u.snapshot)
		case u.isImage():
			images = append(images, u.image)
		case u.mount != "":
			done.MountBytes += u.size
			mounts = append(mounts, u.mount)
		}
	}
	if c.o.Only != nil {
		for d := range c.blobs {
			live[d] = live[d] || !freed[d] && !c.o.Only(c.blobPart(d))
		}
	}
	for _, e := range c.seals {
		if !c.sealed(e, live) {
			records = append(records, e)
		}
	}
	records = slices.DeleteFunc(once(records),
		func(e cache.Entry) bool { return c.inUse.has(leasedRecord, c.s.relative(e.File())) })
	for id := range c.inUse.owners {
		if id != c.s.leases.id {
			done.Others++
		}
	}
	done.Records, done.Images, done.Mounts = len(records), len(images), len(mounts)
	if !c.o.DryRun {
		if err := c.removeCache(ctx, records, images, snapshots, mounts); err != nil {
			return err
		}
	}
	got, trash, err := c.store.CollectLater(ctx,
		store.CollectOptions{Live: live, Owners: c.inUse.owners, DryRun: c.o.DryRun,
			Removed: func(d digest.Digest) {
				if c.o.Removed != nil {
					c.o.Removed(c.blobPart(d))
				}
			}})
	c.later = append(c.later, trash.Remove)
	done.Blobs, done.BlobBytes = got.Blobs, got.Bytes
	if err != nil || c.o.DryRun {
		return err
	}
	return c.leftOver()
}

// removeCache removes records, and the units that they referred to.
func (c *collection) removeCache(ctx context.Context, records []cache.Entry, images []store.Entry,
	snapshots map[*snapshot.Store][]snapshot.ID, mounts []string) error {
	for _, e := range records {
		if err := c.s.Cache.Drop(e); err != nil {
			return err
		}
	}
	c.later = append(c.later, c.trash.Close)
	for _, dir := range mounts {
		if err := c.moveToTrash(dir); err != nil {
			return err
		}
	}
	err := c.store.Forget(ctx, images...)
	if noSpace(err) { // there is room for index.json after the other files are removed
		defer func() {
			c.later = append(c.later, func() error { return c.store.Forget(ctx, images...) })
		}()
	} else if err != nil {
		return err
	}
	err = nil
	for _, in := range c.stores {
		if in != c.s.Snapshots { // the store in use was cleaned when the state was opened
			c.later = append(c.later, in.RemoveLeftOvers)
		}
		remove, err1 := in.RemoveAll(ctx, snapshots[in])
		c.later, err = append(c.later, remove), errors.Join(err, err1)
	}
	return err
}

// moveToTrash renames a directory, so that it is removed later, or removes it now if it cannot be
// renamed, as on a full disk.
func (c *collection) moveToTrash(dir string) error {
	if trash, err := c.trash.Path(); err == nil &&
		os.Rename(dir, filepath.Join(trash, filepath.Base(dir))) == nil {
		return nil
	}
	return os.RemoveAll(dir)
}

// once removes the records that are in a list more than once: one may be held by a snapshot in each
// store.
func once(list []cache.Entry) []cache.Entry {
	type record struct {
		kind cache.Kind
		key  string
	}
	seen := map[record]bool{}
	return slices.DeleteFunc(list, func(e cache.Entry) bool {
		r := record{e.Kind, e.Key}
		again := seen[r] && e.Kind != ""
		seen[r] = true
		return again
	})
}

// leftOver removes the files of killed processes, the tables of removed blobs, and old indexes of
// contexts and accounts of steps.
func (c *collection) leftOver() error {
	return errors.Join(c.s.Cache.DropTemporary(c.inUse.owners), RemoveTempDirs(c.s.Root),
		c.s.dropKept(), c.s.dropOld(Indexes), c.s.dropOld(Explained))
}

// keptFor is how long an index of a context and an account of steps are kept after they were last
// written. Without the index a build reads the files again, and without the account it does not
// explain why a step runs.
const keptFor = 30 * 24 * time.Hour

func (s *State) dropOld(kind string) error {
	dir := s.cachePath(kind)
	for _, name := range names(dir) {
		path := filepath.Join(dir, name)
		fi, err := os.Lstat(path)
		if err != nil || time.Since(fi.ModTime()) < keptFor {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}
