package remotecachetest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/registry"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Memory is a cache in memory. The zero value is empty.
type Memory struct {
	// Stopped is set if the machines that have a lease do not renew it.
	Stopped bool

	mu     sync.Mutex
	docs   map[string][]byte
	blobs  map[digest.Digest]blob
	leases map[string]*memoryLease
	log    []string
}

type blob struct {
	data []byte
	sent time.Time
}

// On returns the cache as a machine with some blobs uses it. It is a Catalog and a Leaser.
func (m *Memory) On(blobs registry.Fetcher) remotecache.Store { return &view{m, blobs} }

// Log returns the requests, as "OPERATION NAME".
func (m *Memory) Log() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.log)
}

// begin logs a request and locks m.
func (m *Memory) begin(operation, name string) {
	m.mu.Lock()
	m.log = append(m.log, operation+" "+name)
	if m.docs == nil {
		m.docs, m.blobs = map[string][]byte{}, map[digest.Digest]blob{}
		m.leases = map[string]*memoryLease{}
	}
}

type view struct {
	*Memory
	from registry.Fetcher
}

// Get implements remotecache.Store.
func (v *view) Get(_ context.Context, name string) ([]byte, *image.Artifact, error) {
	v.begin("get", name)
	defer v.mu.Unlock()
	data, ok := v.docs[name]
	if !ok {
		return nil, nil, fmt.Errorf("%s: %w", name, remotecache.ErrNoDocument)
	}
	return data, image.ArtifactOf("memory", v.open), nil
}

func (v *view) open(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	v.begin("open", d.Digest.String())
	defer v.mu.Unlock()
	b, ok := v.blobs[d.Digest]
	if !ok {
		return nil, fmt.Errorf("blob %s: not found", d.Digest)
	}
	return io.NopCloser(bytes.NewReader(b.data)), nil
}

// Put implements remotecache.Store.
func (v *view) Put(_ context.Context, name string, data []byte,
	blobs []ocispec.Descriptor) error {
	v.begin("put", name)
	defer v.mu.Unlock()
	for _, d := range blobs {
		if _, ok := v.blobs[d.Digest]; !ok {
			return fmt.Errorf("blob %s was not sent", d.Digest)
		}
	}
	v.docs[name] = bytes.Clone(data)
	return nil
}

// Send implements remotecache.Store.
func (v *view) Send(ctx context.Context, d ocispec.Descriptor) error {
	r, err := v.from.Fetch(ctx, d)
	if err != nil {
		return err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	v.begin("send", d.Digest.String())
	defer v.mu.Unlock()
	v.blobs[d.Digest] = blob{data, time.Now()}
	return nil
}

// List implements remotecache.Catalog.
func (v *view) List(_ context.Context, f func(name string) error) error {
	v.begin("list", "")
	var names []string
	for name := range v.docs {
		names = append(names, name)
	}
	v.mu.Unlock()
	for _, name := range names {
		if err := f(name); err != nil {
			return err
		}
	}
	return nil
}

// Delete implements remotecache.Catalog.
func (v *view) Delete(_ context.Context, name string) error {
	v.begin("delete", name)
	defer v.mu.Unlock()
	if _, ok := v.docs[name]; !ok {
		return remotecache.ErrNoDocument
	}
	delete(v.docs, name)
	return nil
}

// Sweep implements remotecache.Catalog.
func (v *view) Sweep(_ context.Context, before time.Time,
	used func(digest.Digest) bool) (n int, size int64, err error) {
	v.begin("sweep", "")
	defer v.mu.Unlock()
	for d, b := range v.blobs {
		if b.sent.Before(before) && !used(d) {
			delete(v.blobs, d)
			n, size = n+1, size+int64(len(b.data))
		}
	}
	return n, size, nil
}

// memoryLease is a lease of a Memory.
type memoryLease struct {
	m       *Memory
	name    string
	expires time.Time // zero: it is renewed until it is closed
}

// Lease implements remotecache.Leaser.
func (v *view) Lease(_ context.Context, name string) (io.Closer, error) {
	v.begin("lease", name)
	defer v.mu.Unlock()
	if l := v.leases[name]; l != nil && (l.expires.IsZero() || time.Now().Before(l.expires)) {
		return nil, nil
	}
	l := &memoryLease{m: v.Memory, name: name}
	if v.Stopped {
		l.expires = time.Now().Add(remotecache.LeaseTime)
	}
	v.leases[name] = l
	return l, nil
}

// Close ends the lease.
func (l *memoryLease) Close() error {
	l.m.begin("release", l.name)
	defer l.m.mu.Unlock()
	if l.m.leases[l.name] == l {
		delete(l.m.leases, l.name)
	}
	return nil
}
