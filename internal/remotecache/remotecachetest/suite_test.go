package remotecachetest_test

import (
	"context"
	"testing"

	"github.com/layerbuild/layerbuild/internal/registry"
	"github.com/layerbuild/layerbuild/internal/registrytest"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/remotecache/remotecachetest"
	"github.com/layerbuild/layerbuild/internal/store"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestMemory checks that the store in memory passes the tests.
func TestMemory(t *testing.T) {
	var m remotecachetest.Memory
	remotecachetest.Test(t, func(_ *testing.T, on *remotecachetest.Machine) remotecache.Store {
		return m.On(on.State.Store)
	})
}

// TestRegistry checks that a repository of a registry passes the tests.
func TestRegistry(t *testing.T) {
	ref := registrytest.New(t).Host + "/team/cache"
	remotecachetest.Test(t, func(t *testing.T, on *remotecachetest.Machine) remotecache.Store {
		p, err := on.Client.Pusher(ref, registry.PushOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return &remotecache.RegistryStore{Ref: ref, Artifacts: on.Images, Store: on.State.Store,
			Repository: func(context.Context) (remotecache.Repository, error) {
				return repository{p, on.State.Store}, nil
			}}
	})
}

// repository is a repository to which a machine pushes.
type repository struct {
	*registry.Pusher
	store *store.Store
}

func (r repository) Blob(ctx context.Context, d ocispec.Descriptor) error {
	return r.Pusher.Blob(ctx, r.store, d)
}
