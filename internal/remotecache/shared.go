package remotecache

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/memo"
	"github.com/layerbuild/layerbuild/internal/ocijson"
	"github.com/layerbuild/layerbuild/internal/sorting"
	"github.com/layerbuild/layerbuild/internal/store"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// SharedPlace is a cache that builds on many machines read and write at once: a value of --cache.
type SharedPlace struct {
	// Ref is a repository of a registry, without a tag, or the address of another store, such as
	// https://cache.example.com/team or s3://bucket/prefix. It may have a password: messages have
	// Name instead.
	Ref string
	// ReadOnly is set if the build writes nothing.
	ReadOnly bool
	// Key signs the records that the build writes. Records without a signature of it are not used.
	// It must be able to sign unless ReadOnly is set. nil: signatures are ignored.
	Key *Key
}

// ParseShared parses a value of --cache: REF or REF,ro. It does not check the address of a store
// that is not a registry.
func ParseShared(s string) (SharedPlace, error) {
	ref, option, more := strings.Cut(s, ",")
	p := SharedPlace{Ref: ref, ReadOnly: more}
	switch {
	case ref == "" || strings.Contains(ref, "=") && !p.HasScheme():
		return p, errors.New("the name of a repository is expected, such as " +
			"registry.example.com/team/cache, or an address that begins with https://, http://, " +
			"s3:// or gha")
	case more && option != "ro":
		if strings.Contains(option, "@") { // a part of a password
			return p, errors.New("the comma of a password is written as %2C")
		}
		return p, fmt.Errorf("option %q: ro is expected", option)
	}
	return p, nil
}

// HasScheme reports whether the place is not a repository of a registry: names of repositories have
// no scheme.
func (p SharedPlace) HasScheme() bool {
	return strings.Contains(p.Ref, "://") || p.Ref == "gha" || strings.HasPrefix(p.Ref, "gha:")
}

// Name returns the place for messages, with xxxxx instead of a password, or of a user without one,
// which may be a token.
func (p SharedPlace) Name() string {
	scheme, rest, ok := strings.Cut(p.Ref, "://")
	end := strings.LastIndexByte(rest, '@')
	if !ok || end < 0 {
		return p.Ref
	}
	u, err := url.Parse(p.Ref)
	if err == nil && u.User == nil {
		return p.Ref // the @ is in the path
	}
	shown := "xxxxx"
	if err == nil {
		authority, _, _ := strings.Cut(rest, "/")
		end = strings.LastIndexByte(authority, '@')
		if _, ok := u.User.Password(); ok {
			shown = url.User(u.User.Username()).String() + ":xxxxx"
		}
	}
	return scheme + "://" + shown + rest[end:]
}

// String returns the place in the form of ParseShared, with xxxxx instead of a password.
func (p SharedPlace) String() string {
	if p.ReadOnly {
		return p.Name() + ",ro"
	}
	return p.Name()
}

// Store has documents by name, and the blobs to which the documents refer. It is safe for
// concurrent use.
type Store interface {
	// Get returns a document, and the artifact from which its layers are fetched. The error wraps
	// ErrNoDocument if there is none.
	Get(ctx context.Context, name string) (data []byte, from *image.Artifact, err error)
	// Put writes a document in place of an earlier one. The store keeps the blobs as long as it
	// keeps the document. They were sent before.
	Put(ctx context.Context, name string, data []byte, blobs []ocispec.Descriptor) error
	// Send copies a blob of this machine to the store, unless it has the blob.
	Send(ctx context.Context, d ocispec.Descriptor) error
}

// ErrNoDocument is returned if a Store does not have a document.
var ErrNoDocument = errors.New("the cache has no such document")

const (
	// keyPrefix begins the names of the documents of keys. The number is the version of the format.
	keyPrefix = "layerbuild-1-"
	// hintPrefix begins the names of hints.
	hintPrefix = "layerbuild-hint-1-"
	// maxResults limits the results that are kept of one key. Different machines may have different
	// results of a step, since few commands are reproducible; the oldest are dropped.
	maxResults = 8
	// maxHint limits the records of a hint. A record has about 600 bytes, and registries accept
	// manifests of 4 MiB.
	maxHint = 4000
	// refreshAge is the age at which a record that a build uses is written again.
	refreshAge = 7 * 24 * time.Hour
	// writers is the number of documents that are written at the same time.
	writers = 4
	// lookupTime limits the time for which a step waits for a cache that does not answer.
	lookupTime = 15 * time.Second
	// Records that were written are read again after minSettle, or settleFactor times the slowest
	// change of a document if that is longer, in at most maxRounds rounds.
	minSettle    = 100 * time.Millisecond
	settleFactor = 4
	maxRounds    = 5
)

// Shared is a SharedPlace in use by the builds of a process. Each key has a document of its own, so
// that builds of different Dockerfiles do not overwrite the results of each other, and a step is
// written as soon as its layer is sealed. A hint is a copy of all records that the last build with
// its name has used: with it a build on another machine needs one request for all its keys.
//
// Nothing of a Shared fails a build: its errors are warnings, and the first of reading or of
// writing ends that.
type Shared struct {
	place SharedPlace
	store Store
	hint  string // the name of the hint
	// hintsOnly is set if keys have no documents: see HintStore.
	hintsOnly bool
	sink      event.Sink
	id        event.ID

	lookups memo.Map[cache.Key, []Found]
	slots   chan struct{} // one for each document that is being written
	wg      sync.WaitGroup

	mu       sync.Mutex
	hintRead bool
	rejected map[digest.Digest]bool  // layers that cannot be used
	hinted   map[cache.Key][]Found   // of the hint
	later    map[cache.Key][]Found   // written by another machine during this build
	held     map[cache.Key]io.Closer // leases
	depths   map[digest.Digest]int   // by chain ID: the layers of the hint on it
	found    map[cache.Key][]Record  // by find
	current  map[cache.Key][]Record  // used or made in this build, for the next hint
	written  map[cache.Key]Record
	sent     map[cache.Key]bool // the keys that are only in the hint
	// lastWrite is the time of the last write of a document of a key, and slowest the longest time
	// from the reading of such a document to the end of its write.
	lastWrite time.Time
	slowest   time.Duration
	locks     map[cache.Key]*sync.Mutex
	// unreadable and unwritable are set after an error, noMounts after one of writing a mount, and
	// unsigned after a warning about records without a valid signature.
	unreadable, unwritable, noMounts, unsigned bool
	// unleasable is set if no more leases are taken.
	unleasable bool
}

// NewShared returns a Shared that reads nothing yet. hint names the build: builds of the same image
// should have the same.
func NewShared(place SharedPlace, store Store, hint string, sink event.Sink) *Shared {
	sum := sha256.Sum256([]byte(hint))
	_, hintsOnly := store.(HintStore)
	return &Shared{place: place, store: store, hintsOnly: hintsOnly,
		hint: hintPrefix + hex.EncodeToString(sum[:16]),
		sink: sink, id: event.ID("cache " + place.Name() + " " + hint),
		slots: make(chan struct{}, writers), hinted: map[cache.Key][]Found{},
		current: map[cache.Key][]Record{}, written: map[cache.Key]Record{},
		sent: map[cache.Key]bool{}, later: map[cache.Key][]Found{},
		held:     map[cache.Key]io.Closer{},
		rejected: map[digest.Digest]bool{}, found: map[cache.Key][]Record{},
		locks: map[cache.Key]*sync.Mutex{}}
}

// nameOf returns the name of the document of a key.
func nameOf(key cache.Key) string {
	sum := sha256.Sum256([]byte(key))
	return keyPrefix + hex.EncodeToString(sum[:])
}

// ReadHint reads the hint, if there is one and it was not read before.
func (s *Shared) ReadHint(ctx context.Context) {
	s.mu.Lock()
	known := s.hintRead
	s.mu.Unlock()
	if known {
		return
	}
	id := s.id + " hint"
	s.sink(event.Start{ID: id, Name: "reading the cache " + s.place.Name(), Time: time.Now()})
	records := s.read(ctx, s.hint)
	s.sink(event.Done{ID: id, Note: fmt.Sprintf("%d records of the last build", len(records)),
		Time: time.Now()})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hintRead = true
	for _, r := range records {
		s.hinted[r.Key] = append(s.hinted[r.Key], r)
	}
	s.setDepths()
}

// read returns the records of a document. It returns none if there is no document or it cannot be
// read.
func (s *Shared) read(ctx context.Context, name string) []Found {
	s.mu.Lock()
	off := s.unreadable
	s.mu.Unlock()
	if off {
		return nil
	}
	timed, cancel := context.WithTimeoutCause(ctx, lookupTime, errors.New("no answer"))
	defer cancel()
	data, from, err := s.store.Get(timed, name)
	var records []Record
	if err == nil {
		records, err = decodeRecords(data)
	}
	if err != nil && !errors.Is(err, ErrNoDocument) && ctx.Err() == nil {
		s.fail(&s.unreadable, fmt.Errorf("the cache at %s is not read: %w", s.place.Name(), err))
	}
	records = s.signed(records)
	list := make([]Found, len(records))
	for i, r := range records {
		list[i] = Found{Record: r, From: from, Lazy: true}
	}
	return list
}

// signed removes the records without a valid signature, if signatures are needed.
func (s *Shared) signed(records []Record) []Record {
	if s.place.Key == nil {
		return records
	}
	n := len(records)
	records = slices.DeleteFunc(records, func(r Record) bool { return !s.place.Key.valid(r) })
	if len(records) < n {
		s.fail(&s.unsigned, fmt.Errorf("the cache at %s has results without a signature of the "+
			"key of --cache-key: they are not used", s.place.Name()))
	}
	return records
}

// fail warns about the first error of its kind.
func (s *Shared) fail(kind *bool, err error) {
	s.mu.Lock()
	first := !*kind
	*kind = true
	s.mu.Unlock()
	if first {
		s.sink(event.Warning{Message: err.Error(), Time: time.Now()})
	}
}

// decodeRecords returns the records of a document.
func decodeRecords(data []byte) ([]Record, error) {
	var doc Document
	if err := ocijson.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("records: %w", err)
	}
	return doc.Records, nil
}

// find returns the records of a key. Of several results of a step those come first on which later
// steps have results, and of these the latest.
func (s *Shared) find(ctx context.Context, key cache.Key) []Found {
	list := s.known(key)
	if len(list) == 0 && !s.hintsOnly {
		var err error
		list, err = s.lookups.Do(ctx, key, func() ([]Found, error) {
			return slices.DeleteFunc(s.read(ctx, nameOf(key)),
				func(r Found) bool { return r.Key != key }), context.Cause(ctx)
		})
		if err != nil {
			return nil
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	list = slices.DeleteFunc(slices.Clone(list), func(r Found) bool {
		return r.Layer != nil && s.rejected[r.Layer.Descriptor.Digest]
	})
	for _, r := range list {
		s.use(r.Record)
		if !slices.ContainsFunc(s.found[r.Key], r.same) {
			s.found[r.Key] = append(s.found[r.Key], r.Record)
		}
	}
	sorting.Func(list, func(a, b Found) int {
		return cmp.Or(cmp.Compare(s.depth(b.Layer), s.depth(a.Layer)),
			b.Created.Compare(a.Created))
	})
	return list
}

// Reject makes the build use no result with a layer. If the build writes another result of the
// step, the one with the layer is removed, so that other builds do not try it again.
func (s *Shared) Reject(layer digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rejected[layer] = true
	for key, list := range s.current {
		s.current[key] = slices.DeleteFunc(list, func(r Record) bool {
			return r.Layer != nil && r.Layer.Descriptor.Digest == layer
		})
	}
}

// isRejected reports whether Reject was called for a layer.
func (s *Shared) isRejected(l *Layer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rejected[l.Descriptor.Digest]
}

// known returns the records of a key in the hint, or those that findLater has found.
func (s *Shared) known(key cache.Key) []Found {
	s.mu.Lock()
	defer s.mu.Unlock()
	if list := s.later[key]; len(list) > 0 {
		return list
	}
	return s.hinted[key]
}

// setDepths sets s.depths from the records of the hint.
func (s *Shared) setDepths() {
	above := map[digest.Digest][]digest.Digest{} // the layers on a layer, as chain IDs
	for _, list := range s.hinted {
		for _, r := range list {
			if r.Layer != nil {
				above[r.Layer.Parent] = append(above[r.Layer.Parent], chainOf(r.Layer))
			}
		}
	}
	s.depths = map[digest.Digest]int{}
	var depth func(chain digest.Digest) int
	depth = func(chain digest.Digest) int {
		if d, ok := s.depths[chain]; ok {
			return d
		}
		s.depths[chain] = 0
		deepest := 0
		for _, next := range above[chain] {
			deepest = max(deepest, 1+depth(next))
		}
		s.depths[chain] = deepest
		return deepest
	}
	for parent := range above {
		depth(parent)
	}
}

// depth returns the number of layers in the hint that lie on a layer.
func (s *Shared) depth(l *Layer) int {
	if l == nil {
		return 0
	}
	return s.depths[chainOf(l)]
}

// chainOf returns the chain ID of the layers up to l.
func chainOf(l *Layer) digest.Digest {
	if l.Parent == "" {
		return l.DiffID
	}
	return identity.ChainID([]digest.Digest{l.Parent, l.DiffID})
}

// use adds a record to the next hint, or takes over its time if it was written later. s.mu is held.
func (s *Shared) use(r Record) {
	list := s.current[r.Key]
	i := slices.IndexFunc(list, r.same)
	switch {
	case i < 0:
		s.current[r.Key] = append(list, r)
	case r.Written.After(list[i].Written):
		list[i] = r
	}
}

// noteFresh takes over the time of a record from its document to the next hint.
func (s *Shared) noteFresh(r Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.use(r)
}

// isFresh reports whether the record was written so late that a build that uses it does not write
// it again. Stores do not record when something was read: the time of the last write has to show
// whether a record is used.
func (r Record) isFresh() bool { return time.Since(r.Written) < refreshAge }

// same reports whether o has the same result as r.
func (r Record) same(o Record) bool {
	if r.Key != o.Key || (r.Layer == nil) != (o.Layer == nil) {
		return false
	}
	return r.Layer == nil || r.Layer.Parent == o.Layer.Parent && r.Layer.DiffID == o.Layer.DiffID &&
		r.Layer.Sealed == o.Layer.Sealed
}

// Publish writes the result of a step in the background. record waits for its layer.
func (s *Shared) Publish(ctx context.Context,
	record func(ctx context.Context) (Record, error)) {
	if s.place.ReadOnly {
		return
	}
	s.wg.Go(func() {
		r, err := record(ctx)
		if err != nil {
			return // the build ends with this error
		}
		defer s.release(r.Key)
		if s.place.Key != nil {
			r.Signature = s.place.Key.sign(r)
		}
		s.mu.Lock()
		s.use(r)
		off := s.unwritable
		s.mu.Unlock()
		if r.Layer == nil || off || s.has(r) {
			return // the time of an instruction without a layer is only in the hint
		}
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
		case <-ctx.Done():
			return
		}
		err = s.store.Send(ctx, r.Layer.Descriptor)
		switch {
		case errors.Is(err, store.ErrNotFound):
			return // the result was found in the cache, which has lost the layer
		case err != nil:
		case s.hintsOnly:
			s.noteSent(r)
		default:
			err = s.merge(ctx, r)
		}
		s.writeFailed(ctx, err)
	})
}

func (s *Shared) writeFailed(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		s.fail(&s.unwritable, fmt.Errorf("no more steps are written to the cache at %s: %w",
			s.place.Name(), err))
	}
}

// has reports whether find has found a record that need not be written again. If its layer was
// rejected, the layer may be missing in the store, and is sent again.
func (s *Shared) has(r Record) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.rejected[r.Layer.Descriptor.Digest] && slices.ContainsFunc(s.found[r.Key],
		func(o Record) bool { return r.same(o) && o.isFresh() })
}

// lock serializes the writers of a key in this process.
func (s *Shared) lock(key cache.Key) *sync.Mutex {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locks[key] == nil {
		s.locks[key] = &sync.Mutex{}
	}
	return s.locks[key]
}

// merge adds a record to the document of its key.
func (s *Shared) merge(ctx context.Context, r Record) error {
	mu := s.lock(r.Key)
	mu.Lock()
	defer mu.Unlock()
	began := time.Now()
	data, _, err := s.store.Get(ctx, nameOf(r.Key))
	var list []Record
	switch {
	case err == nil:
		list, _ = decodeRecords(data) // a document that cannot be read is replaced
		list = s.signed(list)
		list = slices.DeleteFunc(list, func(o Record) bool {
			return o.Key != r.Key || o.Layer == nil || s.isRejected(o.Layer) && !r.same(o)
		})
	case !errors.Is(err, ErrNoDocument):
		return err
	}
	if i := slices.IndexFunc(list, r.same); i >= 0 {
		if list[i].isFresh() {
			s.noteFresh(list[i])
			return nil
		}
		list = slices.Delete(list, i, i+1)
	}
	r.Written = time.Now().UTC()
	list = append(list, r)
	sorting.Func(list, func(a, b Record) int { return b.Created.Compare(a.Created) })
	list = list[:min(len(list), maxResults)]
	if !slices.ContainsFunc(list, r.same) {
		return nil // it is older than those of other machines
	}
	if err := s.put(ctx, nameOf(r.Key), list, true); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.use(r)
	s.written[r.Key], s.lastWrite = r, time.Now()
	s.slowest = max(s.slowest, time.Since(began))
	return nil
}

// noteSent adds a record whose layer was sent to the next hint.
func (s *Shared) noteSent(r Record) {
	r.Written = time.Now().UTC()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.use(r)
	s.sent[r.Key] = true
}

// put writes a document. keep is set if the store keeps the layers of its records.
func (s *Shared) put(ctx context.Context, name string, list []Record, keep bool) error {
	doc := Document{Records: list, Written: time.Now().UTC()}
	if !keep {
		doc.Sort()
	}
	data, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	var blobs []ocispec.Descriptor
	for _, r := range doc.Records {
		if keep && !slices.ContainsFunc(blobs, func(d ocispec.Descriptor) bool {
			return d.Digest == r.Layer.Descriptor.Digest
		}) {
			blobs = append(blobs, r.Layer.Descriptor)
		}
	}
	return s.store.Put(ctx, name, data, blobs)
}

// Finish waits until all results are written, checks that no other machine has overwritten one of
// them, and writes the hint.
func (s *Shared) Finish(ctx context.Context) {
	if s.place.ReadOnly {
		return
	}
	s.sink(event.Start{ID: s.id, Name: "writing steps to the cache " + s.place.Name(),
		Time: time.Now()})
	s.wg.Wait()
	s.writeFailed(ctx, s.verify(ctx))
	s.writeFailed(ctx, s.writeHint(ctx))
	s.mu.Lock()
	n := len(s.written) + len(s.sent)
	s.mu.Unlock()
	s.sink(event.Done{ID: s.id, Note: fmt.Sprintf("%d new", n), Time: time.Now()})
}

// verify writes those records again that another machine has overwritten. A registry has no
// operation that changes a document only if it is still the one that was read: a machine that has
// read a document before this one wrote it, and writes it afterwards, drops the new record. So the
// documents are read again when such a machine has had the time to write.
func (s *Shared) verify(ctx context.Context) error {
	for range maxRounds {
		s.mu.Lock()
		list := slices.Collect(maps.Values(s.written))
		off, began := s.unwritable, s.lastWrite
		wait := time.Until(began.Add(max(minSettle, settleFactor*s.slowest)))
		s.mu.Unlock()
		if off || len(list) == 0 {
			return nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(writers)
		for _, r := range list {
			g.Go(func() error { return s.merge(gctx, r) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
		s.mu.Lock()
		settled := s.lastWrite.Equal(began)
		s.mu.Unlock()
		if settled {
			return nil
		}
	}
	return nil
}

// writeHint writes the records that this build has used and made, unless the hint has them already.
func (s *Shared) writeHint(ctx context.Context) error {
	s.mu.Lock()
	if s.unwritable {
		s.mu.Unlock()
		return nil
	}
	var list []Record
	changed := len(s.current) != len(s.hinted) && !s.hintsOnly
	for key, records := range s.current {
		list = append(list, records...)
		for _, r := range records {
			changed = changed || !slices.ContainsFunc(s.hinted[key], func(f Found) bool {
				return r.same(f.Record) && r.Written.Sub(f.Written) < refreshAge
			})
		}
	}
	if s.hintsOnly {
		list = append(list, s.unused()...)
	}
	s.mu.Unlock()
	if !changed || len(list) == 0 {
		return nil
	}
	return s.put(ctx, s.hint, list[:min(len(list), maxHint)], false)
}

// hintAge is the age up to which the hint of a HintStore keeps a record that builds do not use.
const hintAge = 4 * refreshAge

// unused returns the records of the hint that this build has not used, for a store that has them
// nowhere else: a build that has failed used only some. s.mu is held.
func (s *Shared) unused() (list []Record) {
	for key, found := range s.hinted {
		for _, f := range found {
			last := f.Created
			if f.Written.After(last) {
				last = f.Written
			}
			if s.current[key] == nil && time.Since(last) < hintAge &&
				(f.Layer == nil || !s.rejected[f.Layer.Descriptor.Digest]) {
				list = append(list, f.Record)
			}
		}
	}
	return list
}
