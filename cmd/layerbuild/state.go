package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/memo"
	"github.com/layerbuild/layerbuild/internal/ns"
	"github.com/layerbuild/layerbuild/internal/registry"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/snapshot"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"
)

// stateFlags are the flags for the location of the state; every verb has them.
type stateFlags struct {
	root, driver string
	registry     registry.Options
	stderr       io.Writer // for warnings
}

// rootVariable is the variable that sets the default of --root.
const rootVariable = "LAYERBUILD_ROOT"

// driverName is the name of a snapshot driver; "" selects the first driver that works.
type driverName string

func (d *driverName) Set(s string) error {
	if err := snapshot.CheckDriver(s); err != nil {
		return err
	}
	*d = driverName(s)
	return nil
}

func (d *driverName) Type() string     { return "string" }
func (d *driverName) String() string   { return string(*d) }
func (d *driverName) values() []string { return snapshot.Drivers() }

func (f *stateFlags) define(fs *pflag.FlagSet) {
	group(fs, groupOfState, func(fs *pflag.FlagSet) {
		fs.Var((*directory)(&f.root), "root", "`DIR` state directory: images, layers and cache\n"+
			"Without the flag it is $LAYERBUILD_ROOT. If that is not set, it is "+
			"/var/lib/layerbuild for root, and $XDG_DATA_HOME/layerbuild "+
			"(~/.local/share/layerbuild) for other users.")
		fs.Var((*driverName)(&f.driver), "driver",
			"snapshot driver (default: the first that works)")
	})
}

// resolve sets the state directory if no flag names it. It checks that no file has its name, and
// that the driver can work in it.
func (f *stateFlags) resolve(e *env) error {
	f.stderr = e.text(e.stderr)
	if err := f.resolveRoot(e); err != nil {
		return err
	}
	if err := snapshot.CheckPlace(f.driver, filepath.Join(f.root, "snapshots")); err != nil {
		return fmt.Errorf("--driver %q: %w", f.driver, err)
	}
	return nil
}

// resolveRoot sets the state directory, and checks that no file has its name.
func (f *stateFlags) resolveRoot(e *env) error {
	from := "--root"
	if f.root == "" {
		from = rootVariable
		if f.root = e.getenv(rootVariable); f.root == "" {
			root, err := defaultRoot(e)
			f.root = root
			return err
		}
	}
	if fi, err := os.Stat(f.root); err == nil && !fi.IsDir() {
		return fmt.Errorf("%s %q: a directory is expected, not a file", from, f.root)
	}
	return nil
}

// defaultRoot returns the state directory if neither a flag nor LAYERBUILD_ROOT names one.
func defaultRoot(e *env) (string, error) {
	info, err := ns.Current()
	if err != nil {
		return "", err
	}
	if info.HostUID == 0 && !info.Rootless {
		return "/var/lib/layerbuild", nil
	}
	// The XDG base directory specification says to ignore relative paths.
	if data := e.getenv("XDG_DATA_HOME"); filepath.IsAbs(data) {
		return filepath.Join(data, "layerbuild"), nil
	}
	home, err := homeDir(e, info.HostUID)
	return filepath.Join(home, ".local", "share", "layerbuild"), err
}

// setHome sets HOME to the home directory in the user database if it is not set (cron, systemd
// units): credentials and settings are below it, too. It removes HOME if that is a relative path,
// below which there may be files of a build context.
func setHome(e *env) {
	if filepath.IsAbs(e.getenv("HOME")) {
		return
	}
	os.Unsetenv("HOME")
	info, err := ns.Current()
	if err != nil {
		return
	}
	if dir, err := homeDir(e, info.HostUID); err == nil {
		os.Setenv("HOME", dir)
	}
}

// homeDir returns the user's home directory: HOME or, if it is not set (cron, systemd units), the
// one in the user database.
func homeDir(e *env, uid int) (string, error) {
	if home := e.getenv("HOME"); filepath.IsAbs(home) {
		return home, nil
	}
	why := fmt.Sprintf("the user database has no user %d", uid)
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		if fi, err := os.Stat(u.HomeDir); err == nil && fi.IsDir() && filepath.IsAbs(u.HomeDir) {
			return u.HomeDir, nil
		}
		why = fmt.Sprintf("the home of user %d in the user database, %q, is not a directory", uid,
			u.HomeDir)
	}
	return "", fmt.Errorf("no place for the state: HOME is not set, and %s; give --root DIR", why)
}

// images holds the store and the registry client of a verb.
type images struct {
	resolver *image.Resolver
	client   *registry.Client
	warnings *warnings
	pushers  memo.Map[place, *pushing]
	// caches are the repositories of --cache, which may have any layer of a build.
	caches []string
}

// warnings sends warnings about the state to the progress of a build, and to standard error while
// there is none.
type warnings struct {
	stderr io.Writer
	sink   atomic.Pointer[event.Sink]
}

func (w *warnings) warn(message string) {
	if sink := w.sink.Load(); sink != nil {
		(*sink)(event.Warning{Message: message, Time: time.Now()})
		return
	}
	fmt.Fprintln(w.stderr, "layerbuild: warning: "+message)
}

// sendTo sends warnings to sink while build runs.
func (w *warnings) sendTo(sink event.Sink, build func()) {
	w.sink.Store(&sink)
	defer w.sink.Store(nil)
	build()
}

// open opens the state and returns it with a resolver. The caller closes the state.
func (f *stateFlags) open(ctx context.Context) (*state.State, *images, error) {
	w := &warnings{stderr: f.stderr}
	state, err := state.Open(ctx, state.Options{Root: f.root, Driver: f.driver, Warn: w.warn})
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return nil, nil, fmt.Errorf("%w; give a directory that you may write to with --root DIR",
			err)
	}
	if err != nil {
		return nil, nil, f.full(err)
	}
	client := registry.New(f.registry)
	im := &images{resolver: image.New(image.Options{Store: state.Store, Cache: state.Cache,
		Snapshots: state.Snapshots, Registry: client, Engine: newEngine(os.Getenv)}),
		client: client, warnings: w}
	state.Own(im.resolver)
	state.Own(client)
	state.Store.Repair = layers.Repair(state, im.resolver)
	return state, im, nil
}

// exportEnv returns the environment of exporters.
func (f *stateFlags) exportEnv(e *env, state *state.State, im *images) export.Env {
	return export.Env{Stdout: e.stdout, Tagger: state.Store, Pusher: im,
		KeepOwners: !state.NS.Rootless}
}

// full adds a remedy to an error that a full state directory caused.
func (f *stateFlags) full(err error) error {
	root, err1 := filepath.Abs(f.root)
	if err1 != nil {
		return err
	}
	return state.Full(root, err)
}

// place identifies the destination of a push.
type place struct {
	name               string
	byDigest, insecure bool
}

// pushing is a push that may have sent single layers before its progress could be reported.
type pushing struct {
	*registry.Pusher
	report atomic.Pointer[func(registry.PushProgress)]
}

// pusher returns the pusher for a destination. Each destination has only one, so that no layer is
// sent twice.
func (im *images) pusher(ctx context.Context, p place) (*pushing, error) {
	full, err := store.Name(p.name)
	if err != nil {
		return nil, err
	}
	p.name = full
	return im.pushers.Try(ctx, p, func() (*pushing, error) { return im.newPusher(ctx, p) })
}

func (im *images) newPusher(ctx context.Context, p place) (*pushing, error) {
	origins, err := im.resolver.Origins(ctx)
	if err != nil {
		return nil, err
	}
	made := &pushing{}
	made.Pusher, err = im.client.Pusher(p.name, registry.PushOptions{
		ByDigest: p.byDigest, Insecure: p.insecure,
		From: func(d digest.Digest) []string { return slices.Concat(origins(d), im.caches) },
		Progress: func(at registry.PushProgress) {
			if report := made.report.Load(); report != nil {
				(*report)(at)
			}
		},
	})
	if err != nil {
		return nil, err
	}
	return made, nil
}

// uploader sends single layers while the build continues.
type uploader struct {
	images  *images
	content export.Fetcher
}

// Send implements outputs.Uploader.
func (u uploader) Send(ctx context.Context, name string, spec export.Spec,
	d ocispec.Descriptor) error {
	p, err := u.images.pusher(ctx, place{name, spec.ByDigest, spec.Insecure})
	if err != nil {
		return err
	}
	return p.Blob(ctx, u.content, d)
}

// Stream implements outputs.Uploader.
func (u uploader) Stream(ctx context.Context, name string, spec export.Spec,
	g *store.Growing) error {
	p, err := u.images.pusher(ctx, place{name, spec.ByDigest, spec.Insecure})
	if err != nil {
		return err
	}
	return p.Stream(ctx, g)
}

// Locate implements outputs.Uploader.
func (u uploader) Locate(ctx context.Context, name string, spec export.Spec,
	d ocispec.Descriptor) (bool, error) {
	p, err := u.images.pusher(ctx, place{name, spec.ByDigest, spec.Insecure})
	if err != nil {
		return false, err
	}
	return p.Locate(ctx, d)
}

// Push pushes an image to a registry. It implements export.Pusher.
func (im *images) Push(ctx context.Context, name string, root ocispec.Descriptor,
	content export.Fetcher, o export.PushOptions) error {
	p, err := im.pusher(ctx, place{name, o.ByDigest, o.Insecure})
	if err != nil {
		return err
	}
	report := func(at registry.PushProgress) {
		o.Sink(progressOf(o.ID, at))
	}
	p.report.Store(&report)
	return p.Push(ctx, content, root)
}

// progressOf returns the event for the progress of a push.
func progressOf(id event.ID, at registry.PushProgress) event.Progress {
	part := "push " + at.Descriptor.Digest.String()
	if at.Note != "" {
		part += " (" + at.Note + ")"
	}
	return event.Progress{ID: id, Part: part, Current: at.Current, Total: at.Descriptor.Size,
		Done: at.Done, Time: time.Now()}
}
