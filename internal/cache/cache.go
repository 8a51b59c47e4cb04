package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"time"

	"github.com/layerbuild/layerbuild/internal/atomicfile"
	"github.com/layerbuild/layerbuild/internal/smallfile"
	"github.com/layerbuild/layerbuild/internal/state/ledger"
	"github.com/opencontainers/go-digest"
)

// Key names the result of a step. It is known before the step is run.
type Key string

// Kind is one of the four kinds of records.
type Kind string

const (
	Steps  Kind = "step"   // key → snapshot
	Chains Kind = "chain"  // chain ID of a base image's layers → snapshot
	Seals  Kind = "sealed" // source and options → layer; see Sealed
	Remote Kind = "remote" // address → what the address referred to
)

// kinds are all kinds of records.
var kinds = [...]Kind{Steps, Chains, Seals, Remote}

// Cache is a directory of records. It is safe for concurrent use, also by several processes.
type Cache struct {
	dir    string
	ledger *ledger.Ledger
	o      Options
}

// Options are the options of a cache. The zero value is a cache that no other process collects.
type Options struct {
	// Lease is called before a record is written, with the record's file and the snapshot that the
	// record names ("" for none): from then on no collector may remove them. It waits for a running
	// collector until the context ends. If it returns an error, the record is not written. It may
	// be nil.
	Lease func(ctx context.Context, file, snapshot string) error
	// Owner identifies this process in the names of its temporary files, for DropTemporary. It may
	// be "".
	Owner string
}

// Open opens the cache in dir, and makes dir if it does not exist. The ledger determines which
// records are trusted.
func Open(dir string, l *ledger.Ledger, o Options) (*Cache, error) {
	c := &Cache{dir: dir, ledger: l, o: o}
	if err := os.MkdirAll(c.tmp(), 0o755); err != nil {
		return nil, fmt.Errorf("open the cache: %w", err)
	}
	return c, nil
}

func (c *Cache) tmp() string { return filepath.Join(c.dir, "tmp") }

// tempPrefix is the kind of the temporary files: see atomicfile.OwnedPrefix.
const tempPrefix = "new-"

// Temp returns the options for writing a file in the cache's directory, so that DropTemporary finds
// the temporary files of killed processes.
func (c *Cache) Temp() atomicfile.Own {
	return atomicfile.Own{Dir: c.tmp(), Prefix: atomicfile.OwnedPrefix(tempPrefix, c.o.Owner)}
}

// Get returns the record of a step, and reports whether there is a trusted one.
func (c *Cache) Get(k Key) (Record, bool) {
	e, ok := c.get(Steps, string(k))
	if !ok {
		return Record{}, false
	}
	return e.Step()
}

// Put records a step.
func (c *Cache) Put(ctx context.Context, k Key, r Record) error { return c.put(ctx, r.entry(k)) }

// Touch records that a step's record was used. It costs one system call and writes no data.
func (c *Cache) Touch(k Key) { c.touch(Steps, string(k)) }

// Delete removes the record of a step.
func (c *Cache) Delete(k Key) error { return c.delete(Steps, string(k)) }

// Chain returns the snapshot into which the layers with this chain ID were unpacked.
func (c *Cache) Chain(id digest.Digest) (snapshot string, ok bool) {
	e, ok := c.get(Chains, string(id))
	return e.Snapshot, ok
}

// PutChain records the snapshot of a chain ID.
func (c *Cache) PutChain(ctx context.Context, id digest.Digest, snapshot string) error {
	return c.put(ctx, Entry{Kind: Chains, Key: string(id), Snapshot: snapshot})
}

// TouchChain records that a chain's record was used.
func (c *Cache) TouchChain(id digest.Digest) { c.touch(Chains, string(id)) }

// DeleteChain removes the record of a chain ID.
func (c *Cache) DeleteChain(id digest.Digest) error { return c.delete(Chains, string(id)) }

// Sealed returns the layer that was made from a source, and reports whether there is one. The
// source is a snapshot, the digest of a base image's blob, or "" for the layer without entries.
// options names everything else that determines the layer's bytes. Package image also records under
// the options "checked" that it has read a blob. Both are text: the keys of existing records have
// them.
func (c *Cache) Sealed(source, options string) (Layer, bool) {
	e, ok := c.get(Seals, sealKey(source, options))
	if !ok {
		return Layer{}, false
	}
	_, l, ok := e.SealedLayer()
	return l, ok
}

// PutSealed records the layer that was made from a source, for Sealed.
func (c *Cache) PutSealed(ctx context.Context, source, options string, l Layer) error {
	e, err := l.entry(source, options)
	if err != nil {
		return err
	}
	return c.put(ctx, e)
}

// sealKey joins a source, which has no space, and options.
func sealKey(source, options string) string { return source + " " + options }

// Remote returns the object to which an address referred, and reports whether there is a record.
// The address is a URL, a git repository with a reference, or an image name with a platform. Such a
// record is trusted in every boot, because the content to which it refers is checked by digest when
// it is read.
func (c *Cache) Remote(address string) (Finding, bool) {
	e, ok := c.get(Remote, address)
	return e.Finding(), ok
}

// PutRemote records the object to which an address referred.
func (c *Cache) PutRemote(ctx context.Context, address string, f Finding) error {
	e, err := f.entry(address)
	if err != nil {
		return err
	}
	return c.put(ctx, e)
}

// TouchRemote records that the record of an address was used.
func (c *Cache) TouchRemote(address string) { c.touch(Remote, address) }

// DeleteRemote removes the record of an address.
func (c *Cache) DeleteRemote(address string) error { return c.delete(Remote, address) }

// path returns the path of a record's file. Its name is a digest, so that any string can be a key.
func (c *Cache) path(kind Kind, key string) string {
	sum := sha256.Sum256([]byte(key))
	name := hex.EncodeToString(sum[:])
	return c.dir + "/" + string(kind) + "/" + name[:2] + "/" + name[2:] // at most 256 directories
}

// get returns a record, and reports whether there is a trusted one.
func (c *Cache) get(kind Kind, key string) (Entry, bool) {
	data, err := smallfile.Read(c.path(kind, key))
	if err != nil {
		return Entry{}, false
	}
	e, ok := decode(string(data))
	if !ok || e.Kind != kind || e.Key != key || kind != Remote && !c.ledger.Safe(e.mark) {
		return Entry{}, false
	}
	return e, true
}

// maxRecord is the maximum size of a record's file.
const maxRecord = 1 << 20

func (c *Cache) put(ctx context.Context, e Entry) error {
	if e.Created.IsZero() {
		e.Created = time.Now()
	}
	e.mark = c.ledger.Mark()
	data, err := encode(e)
	if err != nil {
		return fmt.Errorf("write a cache record: %w", err)
	}
	if len(data) > maxRecord {
		return fmt.Errorf("write a cache record: %d bytes are too many", len(data))
	}
	path := c.path(e.Kind, e.Key)
	if c.o.Lease != nil {
		if err := c.o.Lease(ctx, path, e.Snapshot); err != nil {
			return fmt.Errorf("write a cache record: %w", err)
		}
	}
	if err := c.Temp().ReplaceFile(path, data); err != nil {
		return fmt.Errorf("write a cache record: %w", err)
	}
	return nil
}

func (c *Cache) touch(kind Kind, key string) {
	now := time.Now()
	// Ignore errors: the record was removed, or belongs to another user.
	os.Chtimes(c.path(kind, key), now, now)
}

func (c *Cache) delete(kind Kind, key string) error {
	err := os.Remove(c.path(kind, key))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete a cache record: %w", err)
	}
	return nil
}

// Entry is a record of any kind.
type Entry struct {
	Kind     Kind // "" for a file that cannot be read
	Key      string
	Snapshot string    // the snapshot that the record names, or the source of Seals; "" for none
	Created  time.Time // the time of the work; put sets it if it is zero
	Used     time.Time // the time at which the record was written or last touched
	Trusted  bool

	facts map[string]string // by names of letters, digits, dot, dash and underscore
	path  string
	mark  ledger.Mark
}

// All returns the records of one kind that can be read, in no particular order.
func (c *Cache) All(kind Kind) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for e, err := range c.files(kind) {
			if err == nil && e.Kind == "" {
				continue
			}
			if !yield(e, err) {
				return
			}
		}
	}
}

// files returns the records of one kind. Records that cannot be read have no Kind.
func (c *Cache) files(kind Kind) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		top := filepath.Join(c.dir, string(kind))
		shards, err := os.ReadDir(top)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			yield(Entry{}, fmt.Errorf("list cache records: %w", err))
			return
		}
		for _, shard := range shards {
			if !shard.IsDir() { // damage
				if !yield(Entry{path: filepath.Join(top, shard.Name())}, nil) {
					return
				}
				continue
			}
			names, err := os.ReadDir(filepath.Join(top, shard.Name()))
			if err != nil {
				if !yield(Entry{}, fmt.Errorf("list cache records: %w", err)) {
					return
				}
				continue
			}
			for _, n := range names {
				e, ok := c.load(kind, filepath.Join(top, shard.Name(), n.Name()))
				if ok && !yield(e, nil) {
					return
				}
			}
		}
	}
}

// load reads one file of a listing. It returns false when the file is gone.
func (c *Cache) load(kind Kind, path string) (Entry, bool) {
	fi, err := os.Stat(path)
	if err != nil {
		return Entry{path: path}, !errors.Is(err, fs.ErrNotExist)
	}
	data, err := smallfile.Read(path)
	if err != nil {
		return Entry{path: path, Used: fi.ModTime()}, !errors.Is(err, fs.ErrNotExist)
	}
	e, ok := decode(string(data))
	if !ok || e.Kind != kind {
		return Entry{path: path, Used: fi.ModTime()}, true
	}
	e.path, e.Used = path, fi.ModTime()
	e.Trusted = kind == Remote || c.ledger.Safe(e.mark)
	return e, true
}
