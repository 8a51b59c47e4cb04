package imagebuild

import (
	"io"
	"time"

	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/job"
	"github.com/layerbuild/layerbuild/internal/outputs"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/secret"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Volume is a file or directory of the host in the containers of commands: see Options.Run.
type Volume = job.Volume

// Options are the options of a build. The zero value builds ./Dockerfile of the current directory
// and keeps the result in the store without a name.
type Options struct {
	// Name names the build among those that run together (BuildAll); "" for a single build.
	Name   string
	Source SourceOptions
	Image  ImageOptions
	// Run holds the options for the commands of RUN, without Hostname and CacheNamespace.
	Run   job.RunOptions
	Cache CacheOptions

	// Secrets and SSH are the secrets and agents that RUNs may mount.
	Secrets []secret.Secret
	SSH     []secret.Agent
	// Args holds the values of --build-arg.
	Args map[string]string
	// Target is the stage to build; "" is the last one.
	Target string
	// Platforms lists the platforms of the image; nil is the host's platform. Several platforms
	// result in an index, in their order.
	Platforms []ocispec.Platform
	// Pull requests base images from registries even if the store has an image of that name.
	Pull bool
	// NoPull requests no base images from registries: an image that is neither in the store nor
	// cached is an error.
	NoPull bool
	// Jobs limits the commands of RUN that run at the same time; 0: all that can run do.
	Jobs int
	// Lint configures the rules on Dockerfiles.
	Lint parser.LintOptions
	// Analyze keeps the tables of layers while they are sealed, so that package analyze does not
	// read the layers again.
	Analyze bool
	// CheckLayers compares each layer, applied to its parent, with the file system after the step.
	// A difference is an error.
	CheckLayers bool
	// Check ends the build after the checks of the Dockerfile, before anything runs.
	Check bool
	// ListTargets ends the build after the Dockerfile was parsed. Result.Targets lists the stages.
	ListTargets bool
	// Outline ends the build after the checks of the Dockerfile. Result.Outline has the parameters
	// of the target.
	Outline bool
	// Preview ends the build before anything runs. Result.Previews has what is known about the
	// steps by then.
	Preview bool
	// Native makes the plan of each platform as a machine of that platform would make it, which
	// matters for stages with --platform=$BUILDPLATFORM. It is for plans that other machines build.
	Native bool
	// Attest selects the attestations of the image.
	Attest AttestOptions
	// Outputs lists the destinations of the image.
	Outputs []export.Spec
	// Export has the environment of exporters.
	Export export.Env
	// Upload sends layers to registries while later steps run; nil: they are sent when the image is
	// finished.
	Upload outputs.Uploader
	// Sink receives the events of the build; nil discards them.
	Sink event.Sink
}

// WantsImage reports whether an image is made, and not only its files exported.
func (o *Options) WantsImage() bool {
	out := o.outputs()
	return out.WantsImage()
}

// wantsFiles reports whether the files of the image are exported.
func (o *Options) wantsFiles() bool {
	out := o.outputs()
	return out.WantsFiles()
}

// CheckOutputs returns an error for outputs and annotations that contradict each other, before
// anything runs.
func (o *Options) CheckOutputs() error {
	out := o.outputs()
	return out.Check()
}

// outputs returns the options for package outputs, without InlineCache.
func (o *Options) outputs() outputs.Options {
	return outputs.Options{
		Names: o.Image.Names, Annotations: o.Image.Annotations, Specs: o.Outputs,
		Platforms: o.Platforms, Attest: o.Attest.Options,
		Index: isSet(o.Args, multiPlatformArg), Epoch: o.Image.Epoch,
	}
}

// SourceOptions are the options for the Dockerfile and the contexts.
type SourceOptions struct {
	// Context is a directory, "-" for standard input, an archive or a URL; "" is ".".
	Context string
	// Dockerfile is the value of -f; "" is the file Dockerfile in the context.
	Dockerfile string
	// Inline is the text of the Dockerfile, if Dockerfile is "-"; "": it is read from Stdin.
	Inline string
	// Contexts holds the named contexts of --build-context.
	Contexts map[string]string
	// Stdin is the input that "-" refers to.
	Stdin io.Reader
	// RefusePolicy is set to return ErrPolicy for a Dockerfile beside which there is a policy for
	// the sources of the build.
	RefusePolicy bool
	// Accept returns an error for the name of an image that the build must not use; nil: all may be
	// used.
	Accept func(ref string) error
	// Fetched are the options for the context, if it is not a directory of this machine.
	Fetched source.FetchedOptions
}

// ImageOptions holds the names and metadata of the image.
type ImageOptions struct {
	// Names are given to the image in the store.
	Names []string
	// Labels are added to the image's configuration, each as key=value.
	Labels []string
	// Annotations are added to manifests, indexes or descriptors.
	Annotations []export.Annotation
	// Epoch is the latest time of a file in a layer, and the creation time of new layers and
	// history entries (SOURCE_DATE_EPOCH), in seconds since 1970; nil keeps real times.
	Epoch *int64
}

// CacheOptions determine which earlier results are used, and where results are exported.
type CacheOptions struct {
	// No runs every step again. The stages in NoStages (names or indexes) run again even without
	// No.
	No       bool
	NoStages []string
	// MaxAge is the age from which results of steps are not used; 0: results of any age are.
	MaxAge time.Duration
	// From lists places to import results from, and To places to export them to.
	From, To []remotecache.Place
	// Shared lists caches that builds on many machines read and write at once.
	Shared []SharedCache
	// Mounts selects cache mounts whose files are copied from and to the caches of Shared.
	Mounts MountOptions
	// Sync writes the results of the build to the disk before the build ends.
	Sync bool
}

// MountOptions select the cache mounts that are copied between machines. The zero value selects
// none.
type MountOptions struct {
	// All selects all cache mounts; otherwise those with an id of IDs are selected.
	All bool
	IDs []string
	// Limit is the size in bytes above which a mount is not copied.
	Limit int64
}

// SharedCache is a cache that builds on many machines read and write at once.
type SharedCache struct {
	Place remotecache.SharedPlace
	Store remotecache.Store
}

// Result is the result of a build.
type Result struct {
	// Root is the image's manifest, or its index if it was built for several platforms. It is zero
	// if only files were exported.
	Root ocispec.Descriptor
	// Config is the configuration of the first platform.
	Config ocispec.Descriptor
	// Names are the image's names in full.
	Names []string
	// Absent is set if the image is not in the store, but only in the registries to which it was
	// pushed, because they had layers of it that nothing else needed.
	Absent bool
	// Metadata is the content of the file of --metadata-file.
	Metadata export.Metadata
	// Warnings holds the findings of the rules on Dockerfiles.
	Warnings []parser.Warning
	// Targets lists the stages of the Dockerfile.
	Targets []parser.Target
	// Outline has the parameters of the target on the first platform, if Options.Outline is true.
	Outline parser.Outline
	// Previews have what is known about the steps for each platform, if Options.Preview is true.
	Previews []Preview
	// Dockerfile is the file's name for messages, and Text its content. They are set even if the
	// build failed.
	Dockerfile string
	Text       []byte
}
