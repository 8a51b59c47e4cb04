package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imageref"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/internal/ui"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"
)

func pullVerb() verb {
	return verb{
		name: "pull", args: "IMAGE…", summary: "fetch images into the store",
		examples: []example{
			{"layerbuild pull debian:12", "fetch an image"},
			{"layerbuild pull --platform linux/arm64 debian:12 alpine",
				"fetch two images for another platform"},
		},
		flags: func(fs *pflag.FlagSet) prepareFunc {
			var f stateFlags
			f.define(fs)
			var access registryFlags
			access.define(fs)
			var progress progressFlags
			progress.define(fs)
			var of string
			fs.Var((*given)(&of), "platform", platformUsage)
			return func(e *env, args []string) (runFunc, error) {
				if len(args) == 0 {
					return nil, errors.New("at least one image is expected")
				}
				for i, name := range args {
					args[i] = strings.TrimPrefix(name, string(imageref.Docker))
					if _, err := store.Name(args[i]); err != nil {
						return nil, pullError(name, err)
					}
				}
				want, err := platform(e, of)
				err = errors.Join(err, f.resolve(e), progress.resolve(e), f.access(&access))
				if err != nil {
					return nil, err
				}
				return func(ctx context.Context) error {
					return f.withProgress(ctx, e, progress.mode,
						func(_ *state.State, im *images, sink event.Sink) error {
							for _, name := range args {
								if err := pull(ctx, e, im, name, want.platform, sink); err != nil {
									return err
								}
							}
							return nil
						})
				}, nil
			}
		},
	}
}

// pullError returns the error for a word that is not the name of an image in a registry.
func pullError(word string, err error) error {
	switch r, bad := imageref.Parse(word, imageref.Options{Exists: image.Exists}); {
	case bad != nil:
		return bad
	case r.Scheme == imageref.Plain || r.Scheme == imageref.Docker:
		return err
	}
	return fmt.Errorf("%s is not in a registry; layerbuild copy %[1]s NAME copies it to the store",
		word)
}

func pull(ctx context.Context, e *env, im *images, name string, p ocispec.Platform,
	sink event.Sink) (err error) {
	full, err := store.Name(name)
	if err != nil {
		return err
	}
	id := event.ID("pull " + full)
	sink(event.Start{ID: id, Name: "pull " + full, Time: time.Now()})
	var img *image.Image
	defer func() { sink(event.Done{ID: id, Err: err, Time: time.Now()}) }()
	if img, err = im.resolver.Pull(ctx, name, image.ResolveOptions{Platform: p},
		image.UnpackOptions{ID: id, Sink: sink}); err != nil {
		return err
	}
	_, err = fmt.Fprintln(e.stdout, img.Descriptor.Digest)
	return err
}

func pushVerb() verb {
	return verb{
		name: "push", args: "IMAGE [NAME…]",
		summary: "send an image to a registry, under its own name or others",
		examples: []example{
			{"layerbuild push registry.example.com/app:v1", "push an image under its own name"},
			{"layerbuild push app registry.example.com/app:v1", "push an image under another name"},
		},
		flags: func(fs *pflag.FlagSet) prepareFunc {
			var f stateFlags
			f.define(fs)
			var access registryFlags
			access.define(fs)
			var progress progressFlags
			progress.define(fs)
			return func(e *env, args []string) (runFunc, error) {
				if len(args) == 0 {
					return nil, errors.New("an image is expected")
				}
				err := checkPushed(args[0], args[1:])
				err = errors.Join(err, f.resolve(e), progress.resolve(e), f.access(&access))
				if err != nil {
					return nil, err
				}
				return func(ctx context.Context) error {
					return f.withProgress(ctx, e, progress.mode,
						func(state *state.State, im *images, sink event.Sink) error {
							return pushAll(ctx, e, state, im, args[0], args[1:], sink)
						})
				}, nil
			}
		},
	}
}

// checkPushed returns an error for the first invalid image or name. It removes the scheme of names
// in podman's form, docker://NAME.
func checkPushed(image string, names []string) error {
	err := checkStored(image, "'layerbuild copy %s docker://NAME' sends it to a registry")
	if err != nil {
		return err
	}
	for i, name := range names {
		names[i] = strings.TrimPrefix(name, string(imageref.Docker))
		if err := checkNewName(explicitly(names[i], names[i] == name)); err != nil {
			return fmt.Errorf("name %q: %w", name, err)
		}
	}
	return nil
}

// pushAll pushes an image under all given names, or under its own name if none is given.
func pushAll(ctx context.Context, e *env, state *state.State, im *images, of string, names []string,
	sink event.Sink) error {
	d, err := im.stored(ctx, of)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		if _, err := state.Store.Resolve(ctx, of); err != nil ||
			digest.Digest(of).Validate() == nil {
			return usagef("%s is a digest; give the name to push to: layerbuild push %s NAME", of,
				of)
		}
		names = []string{of}
	}
	for _, name := range names {
		if err := push(ctx, e, state, im, name, d, sink); err != nil {
			return err
		}
	}
	return nil
}

func push(ctx context.Context, e *env, state *state.State, im *images, name string,
	d ocispec.Descriptor, sink event.Sink) (err error) {
	full, err := store.Name(name)
	if err != nil {
		return err
	}
	id := event.ID("push " + full)
	sink(event.Start{ID: id, Name: "push " + full, Time: time.Now()})
	err = im.Push(ctx, full, d, state.Store, export.PushOptions{ID: id, Sink: sink})
	sink(event.Done{ID: id, Err: err, Time: time.Now()})
	if err == nil {
		_, err = fmt.Fprintln(e.stdout, d.Digest)
	}
	return err
}

// progressFlags are the flags of pull, push, copy, save and load for the display.
type progressFlags struct {
	mode  string
	quiet bool
}

func (f *progressFlags) define(fs *pflag.FlagSet) {
	fs.BoolVarP(&f.quiet, "quiet", "q", false, "print no progress")
	fs.Var(newProgress(&f.mode), "progress", progressUsage)
}

// resolve applies --quiet, or else the mode of the environment.
func (f *progressFlags) resolve(e *env) error {
	if f.quiet {
		f.mode = "none"
		return nil
	}
	return resolveProgress(e, &f.mode)
}

const progressUsage = "progress display"

// newProgress returns the value for a flag --progress.
func newProgress(value *string) choice { return newChoice(value, "auto", ui.Modes[:]...) }

// progressVariable is the variable with the default of --progress.
const progressVariable = "BUILDKIT_PROGRESS"

// resolveProgress replaces the mode auto by the one of the environment, if it has one.
func resolveProgress(e *env, mode *string) error {
	name := e.getenv(progressVariable)
	if *mode != "auto" || name == "" {
		return nil
	}
	if err := newProgress(mode).Set(name); err != nil {
		return fmt.Errorf("$%s is %q: %w", progressVariable, name, err)
	}
	return nil
}

// withProgress calls a function with a display of its progress.
func (f *stateFlags) withProgress(ctx context.Context, e *env, mode string,
	do func(*state.State, *images, event.Sink) error) error {
	display, err := ui.New(mode, e.stderr, ui.Options{Getenv: e.getenv})
	if err != nil {
		return err
	}
	sink := display.Sink()
	if !ui.ForPrograms(mode) {
		sink = withoutReasons(sink)
	}
	err = f.with(ctx, func(state *state.State, im *images) error { return do(state, im, sink) })
	return errors.Join(err, display.Close())
}

// errFailed replaces the error of a piece of work in a display.
var errFailed = errors.New("failed")

// withoutReasons returns a sink that leaves out the reasons of failures. The verb ends with the
// error of its first failure, which is printed below the display.
func withoutReasons(to event.Sink) event.Sink {
	return func(ev event.Event) {
		if done, ok := ev.(event.Done); ok && done.Err != nil &&
			!errors.Is(done.Err, context.Canceled) {
			done.Err = errFailed
			ev = done
		}
		to(ev)
	}
}
