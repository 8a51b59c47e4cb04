package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/layerbuild/layerbuild/internal/cachestore"
	"github.com/layerbuild/layerbuild/internal/hostfile"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/internal/units"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// sharedCache and sharedKey are the variables that set the defaults of --cache and --cache-key.
const (
	sharedCache = "LAYERBUILD_CACHE"
	sharedKey   = "LAYERBUILD_CACHE_KEY"
)

// setting returns the value of a variable or, if it is "", that of a key of the configuration
// files, with its place. It returns "" if neither is set.
func setting(e *env, variable, of, key string) (value, at string, err error) {
	if of != "" {
		return of, "$" + variable, nil
	}
	for _, file := range configFiles(e) {
		if value, at, err = configured(file, key); value != "" || err != nil {
			return value, at, err
		}
	}
	return "", "", nil
}

// sharedCaches parses the caches of --cache, or of the variable, or of a configuration file, and
// reads their key.
func (f *buildFlags) sharedCaches(o *imagebuild.Options, e *env) error {
	for _, s := range f.caches {
		if err := addCache(o, s); err != nil {
			return badValue("cache", shownCache(s), err)
		}
	}
	if len(f.caches) == 0 {
		value, at, err := setting(e, sharedCache, e.getenv(sharedCache), "cache")
		if err != nil {
			return err
		}
		for _, s := range strings.Fields(value) {
			if err := addCache(o, s); err != nil {
				return usageError{fmt.Errorf("%s: %q: %w", at, shownCache(s), err)}
			}
		}
	}
	return f.readCacheKey(o, e)
}

// readCacheKey reads the key of the shared caches, if there is one.
func (f *buildFlags) readCacheKey(o *imagebuild.Options, e *env) error {
	file := f.cacheKey
	failed := func(err error) error { return badValue("cache-key", file, err) }
	switch {
	case file != "":
	case len(o.Cache.Shared) == 0:
		return nil
	default:
		var at string
		var err error
		file, at, err = setting(e, sharedKey, e.getenv(sharedKey), "cache-key")
		if file == "" || err != nil {
			return err
		}
		failed = func(err error) error { return usageError{fmt.Errorf("%s: %w", at, err)} }
	}
	key, err := keyOf(file)
	if err != nil {
		return failed(err)
	}
	if len(o.Cache.Shared) == 0 {
		return failed(errors.New("it has no effect without --cache"))
	}
	for i := range o.Cache.Shared {
		p := &o.Cache.Shared[i].Place
		if !p.ReadOnly && !key.CanSign() {
			return failed(fmt.Errorf("a public key cannot sign what the build writes to %s: give "+
				"the private key, or %s,ro", p.Name(), p.Name()))
		}
		p.Key = key
	}
	return nil
}

// keyOf reads the file of a key.
func keyOf(file string) (*remotecache.Key, error) {
	f, err := hostfile.Open(file, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxCacheKey+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxCacheKey {
		return nil, fmt.Errorf("the file has more than %d bytes", maxCacheKey)
	}
	return remotecache.ParseKey(data)
}

// maxCacheKey limits the size of the file of a key.
const maxCacheKey = 64 << 10

// cacheMounts is the variable that sets the default of --cache-mounts.
const cacheMounts = "LAYERBUILD_CACHE_MOUNTS"

// mountsLimit is the default of --cache-mounts-limit.
const mountsLimit = "2g"

// copiedMounts parses the cache mounts that are copied from and to the caches of --cache: those of
// --cache-mounts, or of the variable, or of a configuration file.
func (f *buildFlags) copiedMounts(o *imagebuild.Options, e *env) error {
	m := &o.Cache.Mounts
	var err error
	if m.Limit, err = units.ParseDocker(f.mountsLimit); err == nil && m.Limit == 0 {
		err = errors.New("a size such as 500m or 2g is expected")
	}
	if err != nil {
		return badValue("cache-mounts-limit", f.mountsLimit, err)
	}
	for _, s := range f.mounts {
		if err := addMounts(m, s); err != nil {
			return badValue("cache-mounts", s, err)
		}
		if s != noMounts && len(o.Cache.Shared) == 0 {
			return usageError{errors.New("--cache-mounts needs --cache: the files of cache " +
				"mounts are copied from and to that cache")}
		}
	}
	if len(f.mounts) > 0 {
		return nil
	}
	value, at, err := setting(e, cacheMounts, e.getenv(cacheMounts), "cache-mounts")
	if value == "" || err != nil {
		return err
	}
	if err := addMounts(m, value); err != nil {
		return usageError{fmt.Errorf("%s: %q: %w", at, value, err)}
	}
	return nil
}

// allMounts and noMounts are values of --cache-mounts. The others are ids.
const (
	allMounts = "all"
	noMounts  = "none"
)

// addMounts parses a value of --cache-mounts.
func addMounts(m *imagebuild.MountOptions, s string) error {
	switch s {
	case allMounts:
		m.All = true
		return nil
	case noMounts:
		*m = imagebuild.MountOptions{Limit: m.Limit}
		return nil
	}
	for id := range strings.SplitSeq(s, ",") {
		if id == "" || id == allMounts || id == noMounts {
			return errors.New("all, none, or ids of cache mounts with commas between them are " +
				"expected")
		}
		m.IDs = append(m.IDs, id)
	}
	return nil
}

func addCache(o *imagebuild.Options, s string) error {
	p, err := parseCache(s)
	if err == nil {
		o.Cache.Shared = append(o.Cache.Shared, imagebuild.SharedCache{Place: p})
	}
	return err
}

// parseCache parses a value of --cache.
func parseCache(s string) (p remotecache.SharedPlace, err error) {
	if p, err = remotecache.ParseShared(s); err != nil {
		return p, err
	}
	if p.HasScheme() {
		return p, cachestore.Check(p)
	}
	n, err := reference.Parse(p.Ref)
	if err != nil {
		return p, err
	}
	if n.Tag != "" || n.Digest != "" {
		return p, errors.New("a repository without a tag is expected: the tags of a cache are " +
			"those of its steps")
	}
	if !reference.HasRegistry(p.Ref) {
		return p, errors.New("the name of a registry is missing, such as registry.example.com/" +
			p.Ref)
	}
	return p, nil
}

// shownCache returns a value of --cache without the password that it may have.
func shownCache(s string) string { return remotecache.SharedPlace{Ref: s}.Name() }

// openCaches sets the stores of the caches of --cache.
func (im *images) openCaches(o *imagebuild.Options, state *state.State) {
	for i := range o.Cache.Shared {
		c := &o.Cache.Shared[i]
		if n, err := reference.Full(c.Place.Ref); err == nil && !c.Place.HasScheme() {
			im.caches = append(im.caches, n.Repository())
		}
		c.Store = im.cacheStore(c.Place, state)
	}
}

// cacheStore returns the store of a cache.
func (im *images) cacheStore(p remotecache.SharedPlace, state *state.State) remotecache.Store {
	if p.HasScheme() {
		s, err := cachestore.Open(p, cachestore.Options{Client: im.client, Blobs: state.Store,
			Getenv: os.Getenv})
		if err != nil {
			panic("unreachable: parseCache has checked the address")
		}
		return s
	}
	ref := p.Ref
	return &remotecache.RegistryStore{Ref: ref, Artifacts: im.resolver, Store: state.Store,
		Repository: func(ctx context.Context) (remotecache.Repository, error) {
			p, err := im.pusher(ctx, place{name: ref})
			return repository{p, state.Store}, err
		}}
}

// repository is the repository of a cache.
type repository struct {
	pusher *pushing
	store  *store.Store
}

// Blob implements remotecache.Repository.
func (r repository) Blob(ctx context.Context, d ocispec.Descriptor) error {
	return r.pusher.Blob(ctx, r.store, d)
}

// Manifest implements remotecache.Repository.
func (r repository) Manifest(ctx context.Context, d ocispec.Descriptor, data []byte,
	tag string) error {
	return r.pusher.Manifest(ctx, d, data, tag)
}

// Tags implements remotecache.Repository.
func (r repository) Tags(ctx context.Context, f func(tag string) error) error {
	return r.pusher.Tags(ctx, f)
}

// Untag implements remotecache.Repository.
func (r repository) Untag(ctx context.Context, tag string) error {
	return r.pusher.Untag(ctx, tag)
}
