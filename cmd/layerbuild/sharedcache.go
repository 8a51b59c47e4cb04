package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/store"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// sharedCache is the variable that sets the default of --cache.
const sharedCache = "LAYERBUILD_CACHE"

// sharedCaches parses the caches of --cache, or of the variable, or of a configuration file.
func (f *buildFlags) sharedCaches(o *imagebuild.Options, e *env) error {
	for _, s := range f.caches {
		if err := addCache(o, s); err != nil {
			return badValue("cache", s, err)
		}
	}
	if len(f.caches) > 0 {
		return nil
	}
	value, at := e.getenv(sharedCache), "$"+sharedCache
	for _, file := range configFiles(e) {
		if value != "" {
			break
		}
		var err error
		if value, at, err = configured(file, "cache"); err != nil {
			return err
		}
	}
	for _, s := range strings.Fields(value) {
		if err := addCache(o, s); err != nil {
			return usageError{fmt.Errorf("%s: %q: %w", at, s, err)}
		}
	}
	return nil
}

func addCache(o *imagebuild.Options, s string) error {
	p, err := remotecache.ParseShared(s)
	if err != nil {
		return err
	}
	n, err := reference.Parse(p.Ref)
	if err != nil {
		return err
	}
	if n.Tag != "" || n.Digest != "" {
		return errors.New("a repository without a tag is expected: the tags of a cache are those " +
			"of its steps")
	}
	if !reference.HasRegistry(p.Ref) {
		return errors.New("the name of a registry is missing, such as registry.example.com/" +
			p.Ref)
	}
	o.Cache.Shared = append(o.Cache.Shared, imagebuild.SharedCache{Place: p})
	return nil
}

// openCaches sets the stores of the caches of --cache.
func (im *images) openCaches(o *imagebuild.Options, state *state.State) {
	for i := range o.Cache.Shared {
		c := &o.Cache.Shared[i]
		if n, err := reference.Full(c.Place.Ref); err == nil {
			im.caches = append(im.caches, n.Repository())
		}
		c.Store = &remotecache.RegistryStore{Ref: c.Place.Ref, Artifacts: im.resolver,
			Store: state.Store,
			Repository: func(ctx context.Context) (remotecache.Repository, error) {
				p, err := im.pusher(ctx, place{name: c.Place.Ref})
				return repository{p, state.Store}, err
			}}
	}
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
