package inputs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/memo"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/secret"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// Images finds and unpacks images. *image.Resolver implements it.
type Images interface {
	Resolve(ctx context.Context, ref string, o image.ResolveOptions) (*image.Image, error)
	Unpack(ctx context.Context, img *image.Image,
		o image.UnpackOptions) (top snapshot.ID, cached bool, err error)
	Top(ctx context.Context, img *image.Image) (id snapshot.ID, ok bool, err error)
	UnpackAs(ctx context.Context, img *image.Image, id snapshot.ID,
		o image.UnpackOptions) (cached bool, err error)
	Outline(ctx context.Context, img *image.Image, o image.UnpackOptions) (snapshot.ID, error)
}

// Viewer shows snapshots. *snapshot.Store implements it.
type Viewer interface {
	View(ctx context.Context, id snapshot.ID) ([]mount.Mount, error)
}

// Remote remembers what servers have answered. *cache.Cache implements it.
type Remote interface {
	Remote(address string) (cache.Finding, bool)
	PutRemote(ctx context.Context, address string, f cache.Finding) error
	TouchRemote(address string)
}

// Options determine where inputs come from.
type Options struct {
	Images    Images
	Snapshots Viewer
	Remote    Remote
	Lazy      *layers.Lazy
	Secrets   *secret.Store
	Sink      event.Sink

	// TempDir returns a directory for downloads, Index the place of the indexes of contexts. Own is
	// the state directory, which no context contains.
	TempDir func() (string, error)
	Index   func() (source.IndexPlace, error)
	Own     source.OwnState

	// Contexts are the named contexts of --build-context.
	Contexts map[string]string
	// Linked returns the configuration of the result of another build to which a named context
	// refers, and false for other contexts; nil: there are none.
	Linked func(c parser.ContextInput) (dockerspec.DockerOCIImage, bool)
	// Pull asks registries for images even if the store has one of that name.
	Pull bool
	// Local sends no requests for images to registries.
	Local bool
	// Accept returns an error for an image that the build does not use; nil: it uses all.
	Accept func(ref string) error
	// KeepGitDir keeps .git in contexts from git.
	KeepGitDir bool
	// Fetched are the options for the main context, if it is from elsewhere.
	Fetched source.FetchedOptions
}

// Inputs are the inputs of one build. It is safe for concurrent use.
type Inputs struct {
	o        Options
	open     *open
	resolved memo.Map[imageKey, *image.Image]
	first    memo.Map[string, *image.Image] // by name, for the platform that was resolved first
	unpacked memo.Map[imageKey, Unpacked]
	trees    memo.Map[snapshot.ID, *source.Tree]

	mu    sync.Mutex
	later []later           // the images of UnpackLater
	begun map[imageKey]bool // the images that have a line in the progress
	used  map[imageKey]bool // the images for which Unpack was called
}

// open holds the contexts, and what Close closes.
type open struct {
	main  *source.Context // set by Main
	named memo.Map[string, *source.Context]

	mu      sync.Mutex
	closers []io.Closer
	remote  map[remoteKey]source.Material // the sources of ADD that were opened
}

// remoteKey names a source of ADD on another machine.
type remoteKey struct {
	address, checksum string
	keepGitDir        bool
}

type imageKey struct{ ref, platform string }

func keyOf(in parser.ImageInput) imageKey {
	return imageKey{in.Ref, parser.FormatPlatform(in.Platform)}
}

// LineOf returns the ID of the work of unpacking an image.
func LineOf(img parser.ImageInput) event.ID {
	key := keyOf(img)
	return event.ID("image " + key.ref + " " + key.platform)
}

// New returns the inputs of a build. The caller closes them.
func New(o Options) *Inputs { return &Inputs{o: o, open: &open{}} }

// Again returns inputs for a build that starts again. They have the contexts of in, and none of its
// images and snapshots, which may have been damaged. lazy takes the place of Options.Lazy. Closing
// one closes the other.
func (in *Inputs) Again(lazy *layers.Lazy) *Inputs {
	o := in.o
	o.Lazy = lazy
	return &Inputs{o: o, open: in.open}
}

// Close closes all contexts and trees.
func (in *Inputs) Close() error {
	in.open.mu.Lock()
	closers := in.open.closers
	in.open.closers = nil
	in.open.mu.Unlock()
	var errs []error
	for _, c := range slices.Backward(closers) {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

func (in *Inputs) closeLater(c io.Closer) {
	in.open.mu.Lock()
	defer in.open.mu.Unlock()
	in.open.closers = append(in.open.closers, c)
}

// Resolve finds an image, once. It takes all platforms of a name from one index: between two
// requests a registry's tag may move, and the cache may have another index for one of them.
func (in *Inputs) Resolve(ctx context.Context, img parser.ImageInput) (*image.Image, error) {
	return in.resolved.Do(ctx, keyOf(img), func() (*image.Image, error) {
		mine := false
		first, err := in.first.Do(ctx, img.Ref, func() (*image.Image, error) {
			mine = true
			return in.resolve(ctx, img.Ref, img)
		})
		if mine {
			return first, err
		}
		if err != nil || first.Origin != image.FromRegistry || !first.IsIndex() ||
			strings.Contains(first.Name, "@") {
			return in.resolve(ctx, img.Ref, img)
		}
		got, err := in.resolve(ctx, first.Name+"@"+first.Root.Digest.String(), img)
		if err == nil {
			named := *got
			named.Name = first.Name
			got = &named
		}
		return got, err
	})
}

func (in *Inputs) resolve(ctx context.Context, ref string,
	img parser.ImageInput) (*image.Image, error) {
	if in.o.Accept != nil {
		if err := in.o.Accept(ref); err != nil {
			return nil, err
		}
	}
	return in.o.Images.Resolve(ctx, ref,
		image.ResolveOptions{Platform: img.Platform, Pull: in.o.Pull, Local: in.o.Local})
}

// Unpacked is an image and the snapshot of its uppermost layer, "" for an image without layers.
type Unpacked struct {
	Image *image.Image
	Top   snapshot.ID
}

// Unpack makes snapshots of an image's layers, once. name is the name of its line in the progress;
// "" is a name made from the image's.
func (in *Inputs) Unpack(ctx context.Context, img parser.ImageInput,
	name string) (Unpacked, error) {
	return in.unpacked.Do(ctx, keyOf(img), func() (Unpacked, error) {
		in.use(img)
		id := in.begin(img, name)
		u, cached, err := in.unpack(ctx, img, id)
		in.o.Sink(event.Done{ID: id, Cached: cached, Err: err, Time: time.Now()})
		return u, err
	})
}

// UnpackLater is like Unpack, but makes snapshots that do not exist only when Options.Lazy needs
// the uppermost one. Only then the image gets its line in the progress. Unneeded gives a line to
// the images that no step needed.
func (in *Inputs) UnpackLater(ctx context.Context, img parser.ImageInput,
	name string) (Unpacked, error) {
	got, err := in.Resolve(ctx, img)
	if err != nil {
		return Unpacked{}, err
	}
	top, ok, err := in.o.Images.Top(ctx, got)
	if err != nil {
		return Unpacked{}, fmt.Errorf("unpack %s: %w", got.Name, err)
	}
	if ok {
		return in.Unpack(ctx, img, name)
	}
	in.mu.Lock()
	in.later = append(in.later, later{img, name})
	in.mu.Unlock()
	in.o.Lazy.Add(top, func(ctx context.Context) error {
		u, err := in.Unpack(ctx, img, name)
		if err != nil || u.Top == top {
			return err
		}
		// A snapshot with another name was recorded since Top was called.
		_, err = in.o.Images.UnpackAs(ctx, got, top, image.UnpackOptions{})
		return err
	})
	in.o.Lazy.AddOutline(top, func(ctx context.Context) (snapshot.ID, error) {
		return in.outline(ctx, img, got, name)
	})
	return Unpacked{got, top}, nil
}

// use records that Unpack was called for an image, and isUsed reports whether it was.
func (in *Inputs) use(img parser.ImageInput) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.used == nil {
		in.used = map[imageKey]bool{}
	}
	in.used[keyOf(img)] = true
}

func (in *Inputs) isUsed(img parser.ImageInput) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.used[keyOf(img)]
}

// outline makes the outline of an image, which gets its line in the progress. There is no outline
// for an image that is unpacked anyway.
func (in *Inputs) outline(ctx context.Context, img parser.ImageInput, got *image.Image,
	name string) (snapshot.ID, error) {
	if in.isUsed(img) {
		return "", nil
	}
	id := in.begin(img, name)
	top, err := in.o.Images.Outline(ctx, got, image.UnpackOptions{ID: id, Sink: in.o.Sink})
	note := "its directories are unpacked"
	if top == "" {
		note = "its files are needed"
	}
	if err != nil {
		note = ""
	}
	in.o.Sink(event.Done{ID: id, Note: note, Err: err, Time: time.Now()})
	return top, err
}

// later is an image that is unpacked when it is needed.
type later struct {
	img  parser.ImageInput
	name string
}

// Postponed reports whether UnpackLater has postponed unpacking an image. The image may have been
// unpacked since.
func (in *Inputs) Postponed() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.later) > 0
}

// Unneeded reports the images of UnpackLater that were not needed as done. It is called when the
// build needs no more files.
func (in *Inputs) Unneeded() {
	in.mu.Lock()
	list := in.later
	in.later = nil
	in.mu.Unlock()
	for _, l := range list {
		if in.hasLine(l.img) {
			continue // it was needed, or is the base of several stages
		}
		id := in.begin(l.img, l.name)
		in.o.Sink(event.Done{ID: id, Note: "no step needs its files", Time: time.Now()})
	}
}

// hasLine reports whether an image has a line in the progress.
func (in *Inputs) hasLine(img parser.ImageInput) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.begun[keyOf(img)]
}

// begin starts the line of an image in the progress.
func (in *Inputs) begin(img parser.ImageInput, name string) event.ID {
	key := keyOf(img)
	in.mu.Lock()
	if in.begun == nil {
		in.begun = map[imageKey]bool{}
	}
	in.begun[key] = true
	in.mu.Unlock()
	id := LineOf(img)
	if name == "" {
		name = "[image] " + img.Ref
	}
	in.o.Sink(event.Start{ID: id, Name: name, Time: time.Now()})
	return id
}

func (in *Inputs) unpack(ctx context.Context, ref parser.ImageInput,
	id event.ID) (Unpacked, bool, error) {
	img, err := in.Resolve(ctx, ref)
	if err != nil {
		return Unpacked{}, false, err
	}
	top, cached, err := in.o.Images.Unpack(ctx, img, image.UnpackOptions{ID: id, Sink: in.o.Sink})
	return Unpacked{img, top}, cached, err
}

// ContextImage returns the image to which a named context refers, and reports whether it refers to
// one.
func (in *Inputs) ContextImage(c parser.ContextInput) (parser.ImageInput, bool) {
	value := in.o.Contexts[c.Name]
	if ref, ok := strings.CutPrefix(value, image.SchemeName); ok {
		return parser.ImageInput{Ref: ref, Platform: c.Platform}, true
	}
	if strings.HasPrefix(value, image.SchemeLayout) {
		return parser.ImageInput{Ref: value, Platform: c.Platform}, true
	}
	return parser.ImageInput{}, false
}

// linked returns the configuration of the result of another build to which an input refers, and
// reports whether it refers to one.
func (in *Inputs) linked(input parser.Input) (dockerspec.DockerOCIImage, bool) {
	c, ok := input.(parser.ContextInput)
	if !ok || in.o.Linked == nil {
		return dockerspec.DockerOCIImage{}, false
	}
	return in.o.Linked(c)
}

// Main opens the context of the build.
func (in *Inputs) Main(ctx context.Context, where, dockerfile string,
	stdin io.Reader) (*source.Context, error) {
	o, err := in.sourceOptions()
	if err != nil {
		return nil, err
	}
	o.Stdin, o.Dockerfile, o.Fetched = stdin, dockerfile, in.o.Fetched
	if in.open.main, err = source.Open(ctx, where, o); err != nil {
		return nil, err
	}
	in.closeLater(in.open.main)
	return in.open.main, nil
}

// Named opens a named context that is not an image, once.
func (in *Inputs) Named(ctx context.Context, name string) (*source.Context, error) {
	return in.open.named.Do(ctx, name, func() (*source.Context, error) {
		o, err := in.sourceOptions()
		if err != nil {
			return nil, err
		}
		c, err := source.Open(ctx, in.o.Contexts[name], o)
		if err != nil {
			return nil, fmt.Errorf("--build-context %s: %w", name, err)
		}
		in.closeLater(c)
		return c, nil
	})
}

// Tree opens a snapshot for reading, once, without attaching a mount to anything.
func (in *Inputs) Tree(ctx context.Context, id snapshot.ID) (*source.Tree, error) {
	if err := in.o.Lazy.Materialize(ctx, id); err != nil {
		return nil, err
	}
	return in.trees.Do(ctx, id, func() (*source.Tree, error) {
		mounts, err := in.o.Snapshots.View(ctx, id)
		if err != nil {
			return nil, err
		}
		dir, err := mount.Open(mounts)
		if err != nil {
			return nil, err
		}
		in.closeLater(dir)
		tree, err := source.NewTree(dir, source.TreeOptions{Immutable: true})
		if err == nil {
			in.closeLater(tree)
		}
		return tree, err
	})
}

func (in *Inputs) sourceOptions() (source.Options, error) {
	index, err := in.o.Index()
	git := in.Git(in.o.KeepGitDir)
	git.SSH.User = true // the user names the contexts
	return source.Options{Own: in.o.Own, TempDir: in.o.TempDir, Index: index, HTTP: in.HTTP(),
		Git: git}, err
}

// HTTP returns the options of downloads.
func (in *Inputs) HTTP() source.HTTPOptions {
	return source.HTTPOptions{TempDir: in.o.TempDir, Store: answers{in.o.Remote},
		Authorization: in.o.Secrets.HTTPAuthorization}
}

// Git returns the options of git repositories that a Dockerfile names.
func (in *Inputs) Git(keepGitDir bool) source.GitOptions {
	agent, _ := in.o.Secrets.Agent("default")
	return source.GitOptions{TempDir: in.o.TempDir, KeepGitDir: keepGitDir, CommitTime: true,
		Authorization: in.o.Secrets.GitAuthorization, SSH: source.SSHKeys{Agent: agent}}
}

// Material returns what identifies a source of ADD on another machine. A source that no step has
// opened, because the cache had the results, is opened.
func (in *Inputs) Material(ctx context.Context, add *parser.Copy,
	address string) (source.Material, error) {
	in.open.mu.Lock()
	m, ok := in.open.remote[remoteKey{address, add.Checksum, add.KeepGitDir}]
	in.open.mu.Unlock()
	if ok {
		return m, nil
	}
	r, err := in.Remote(ctx, add, address)
	if err != nil {
		return m, err
	}
	return r.Material(), r.Close()
}

// answers keeps what servers have answered about addresses in the cache.
type answers struct{ remote Remote }

func (a answers) Load(address string) []byte {
	f, ok := a.remote.Remote("source " + address)
	if !ok {
		return nil
	}
	a.remote.TouchRemote("source " + address)
	return []byte(f.Value)
}

func (a answers) Store(ctx context.Context, address string, value []byte) error {
	return a.remote.PutRemote(ctx, "source "+address, cache.Finding{Value: string(value)})
}
