package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/internal/ui"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"
)

func pullVerb() verb {
	return verb{
		name: "pull", args: "IMAGE…", summary: "fetch images into the store",
		flags: func(fs *pflag.FlagSet) runFunc {
			var f stateFlags
			f.define(fs)
			progress := fs.String("progress", "auto", "`auto|plain|tty|rawjson|quiet`")
			platform := fs.String("platform", "", "`OS/ARCH` of an image for several")
			return func(ctx context.Context, e *env, args []string) error {
				if len(args) == 0 {
					return usagef("at least one image is expected")
				}
				p, err := parseOptionalPlatform(*platform)
				if err != nil {
					return usageError{err}
				}
				return f.shown(ctx, e, *progress, func(_ *state.State, im *images, sink event.Sink) error {
					for _, name := range args {
						if err := pull(ctx, e, im, name, p, sink); err != nil {
							return err
						}
					}
					return nil
				})
			}
		},
	}
}

func pull(ctx context.Context, e *env, im *images, name string, p ocispec.Platform, sink event.Sink) (err error) {
	full, err := store.Name(name)
	if err != nil {
		return err
	}
	id := event.ID("pull " + full)
	sink(event.Start{ID: id, Name: "pull " + full, Time: time.Now()})
	var img *image.Image
	defer func() { sink(event.Done{ID: id, Err: err, Time: time.Now()}) }()
	if img, err = im.resolver.Pull(ctx, name, image.ResolveOptions{Platform: p}, image.UnpackOptions{ID: id, Sink: sink}); err != nil {
		return err
	}
	fmt.Fprintln(e.stdout, img.Descriptor.Digest)
	return nil
}

func pushVerb() verb {
	return verb{
		name: "push", args: "IMAGE [NAME…]", summary: "send an image to the registry that its name, or another one, says",
		flags: func(fs *pflag.FlagSet) runFunc {
			var f stateFlags
			f.define(fs)
			progress := fs.String("progress", "auto", "`auto|plain|tty|rawjson|quiet`")
			return func(ctx context.Context, e *env, args []string) error {
				if len(args) == 0 {
					return usagef("an image is expected")
				}
				return f.shown(ctx, e, *progress, func(state *state.State, im *images, sink event.Sink) error {
					d, err := state.Store.Resolve(ctx, args[0])
					if err != nil {
						return err
					}
					names := args[1:]
					if len(names) == 0 {
						names = args[:1]
					}
					for _, name := range names {
						if err := push(ctx, e, state, im, name, d, sink); err != nil {
							return err
						}
					}
					return nil
				})
			}
		},
	}
}

func push(ctx context.Context, e *env, state *state.State, im *images, name string, d ocispec.Descriptor, sink event.Sink) (err error) {
	full, err := store.Name(name)
	if err != nil {
		return err
	}
	id := event.ID("push " + full)
	sink(event.Start{ID: id, Name: "push " + full, Time: time.Now()})
	err = im.Push(ctx, full, d, state.Store, export.PushOptions{ID: id, Sink: sink})
	sink(event.Done{ID: id, Err: err, Time: time.Now()})
	if err == nil {
		fmt.Fprintln(e.stdout, d.Digest)
	}
	return err
}

// shown does something with a display of its progress.
func (f *stateFlags) shown(ctx context.Context, e *env, mode string, do func(*state.State, *images, event.Sink) error) error {
	display, err := ui.New(mode, e.stderr, ui.Options{Getenv: e.getenv})
	if err != nil {
		return usageError{err}
	}
	err = f.with(ctx, e, func(state *state.State, im *images) error { return do(state, im, display.Sink()) })
	return errors.Join(err, display.Close())
}

func parseOptionalPlatform(s string) (ocispec.Platform, error) {
	if s == "" {
		return ocispec.Platform{}, nil
	}
	return parsePlatform(s)
}
