package main

import (
	"context"
	"path/filepath"
	"time"

	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/ns"
	"github.com/layerbuild/layerbuild/internal/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"
)

// stateFlags say where the state is; every verb has them.
type stateFlags struct {
	root, driver string
}

func (f *stateFlags) define(fs *pflag.FlagSet) {
	fs.StringVar(&f.root, "root", "", "`DIR` of the state: images, layers, cache")
	fs.StringVar(&f.driver, "driver", "", "how snapshots are kept: `overlay|fuse-overlayfs|btrfs|copy` (default the first that works)")
}

// dir is the state directory.
func (f *stateFlags) dir(e *env) string {
	if f.root != "" {
		return f.root
	}
	if root := e.getenv("LAYERBUILD_ROOT"); root != "" {
		return root
	}
	if info, err := ns.Current(); err == nil && info.HostUID == 0 && !info.Rootless {
		return "/var/lib/layerbuild"
	}
	if data := e.getenv("XDG_DATA_HOME"); data != "" {
		return filepath.Join(data, "layerbuild")
	}
	return filepath.Join(e.getenv("HOME"), ".local", "share", "layerbuild")
}

// images are where images come from and go to.
type images struct {
	resolver *image.Resolver
	client   *registry.Client
}

// open opens the state and what finds images. The caller closes the state.
func (f *stateFlags) open(ctx context.Context, e *env, exclusive bool) (*build.State, *images, error) {
	state, err := build.OpenState(ctx, build.StateOptions{Root: f.dir(e), Driver: f.driver, Exclusive: exclusive})
	if err != nil {
		return nil, nil, err
	}
	client := registry.New(registry.Options{})
	im := &images{resolver: image.New(image.Options{Store: state.Store, Cache: state.Cache, Snapshots: state.Snapshots, Registry: client}), client: client}
	state.Own(im.resolver)
	state.Own(client)
	return state, im, nil
}

// exportEnv is what exporters get of the world.
func (f *stateFlags) exportEnv(e *env, state *build.State, im *images) export.Env {
	return export.Env{Stdout: e.stdout, Tagger: state.Store, Pusher: im, KeepOwners: !state.NS.Rootless}
}

// Push sends an image to a registry. It is export.Pusher.
func (im *images) Push(ctx context.Context, name string, root ocispec.Descriptor, content export.Fetcher, o export.PushOptions) error {
	origins, err := im.resolver.Origins(ctx)
	if err != nil {
		return err
	}
	return im.client.Push(ctx, name, content, root, registry.PushOptions{
		ByDigest: o.ByDigest, Insecure: o.Insecure, From: origins,
		Progress: func(p registry.PushProgress) {
			part := "push " + p.Descriptor.Digest.String()
			if p.Note != "" {
				part += " (" + p.Note + ")"
			}
			o.Sink(event.Progress{ID: o.ID, Part: part, Current: p.Current, Total: p.Descriptor.Size, Done: p.Done, Time: time.Now()})
		},
	})
}
