package build

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/outputs"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/secret"
	"github.com/layerbuild/layerbuild/parser"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Options say what to build. The zero value builds ./Dockerfile of the current directory and keeps the result in the
// store without a name.
type Options struct {
	Source SourceOptions
	Image  ImageOptions
	Run    RunOptions
	Cache  CacheOptions

	// Args are the values of --build-arg.
	Args map[string]string
	// Target is the stage to build; "" is the last one.
	Target string
	// Platforms are what to build for; none is the host's. Several give an index in their order.
	Platforms []ocispec.Platform
	// Pull asks registries for base images even if the store has one of that name.
	Pull bool
	// Lint configures the rules on Dockerfiles.
	Lint parser.LintOptions
	// Analyze keeps the tables of layers while they are sealed, so that Analyze need not read them.
	Analyze bool
	// CheckLayers compares each layer, applied to its parent, with what the step saw. A difference is an error.
	CheckLayers bool
	// Check ends the build when the Dockerfile has been looked at, before anything runs.
	Check bool
	// ListTargets ends the build when the Dockerfile has been parsed: Result.Targets says what could be built.
	ListTargets bool
	// Outputs are where the image is sent.
	Outputs []export.Spec
	// Export is what exporters need.
	Export export.Env
	// Upload sends layers to registries while later steps run; nil: they are sent when the image is finished.
	Upload outputs.SendFunc
	// Sink takes what happens; nil forgets it.
	Sink event.Sink
}

// WantsImage reports whether an image is made, and not only its files exported.
func (o *Options) WantsImage() bool {
	out := o.outputs()
	return out.WantsImage()
}

// CheckOutputs returns an error for outputs and annotations that contradict each other, before anything runs.
func (o *Options) CheckOutputs() error {
	out := o.outputs()
	return out.Check()
}

// outputs returns the options of the images. InlineCache is not set.
func (o *Options) outputs() outputs.Options {
	return outputs.Options{
		Names: o.Image.Names, Annotations: o.Image.Annotations, Specs: o.Outputs, Platforms: o.Platforms,
		Index: isSet(o.Args, "BUILDKIT_MULTI_PLATFORM"), Epoch: o.Image.Epoch,
	}
}

// Epoch reads SOURCE_DATE_EPOCH: seconds since 1970; "" is nil.
func Epoch(s string) (*time.Time, error) {
	if s = strings.TrimSpace(s); s == "" {
		return nil, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("SOURCE_DATE_EPOCH: %q is not a number of seconds", s)
	}
	t := time.Unix(n, 0).UTC()
	return &t, nil
}

// SourceOptions say where the files of a build come from.
type SourceOptions struct {
	// Context is a directory, "-", an archive or a URL; "" is ".".
	Context string
	// Dockerfile is -f; "" is Dockerfile in the context.
	Dockerfile string
	// Contexts are the named contexts of --build-context.
	Contexts map[string]string
	// Stdin is what "-" reads.
	Stdin io.Reader
}

// ImageOptions say what the image is to be like.
type ImageOptions struct {
	// Names are given to the image in the store.
	Names []string
	// Labels are added to the image's configuration, key=value.
	Labels []string
	// Annotations are put into manifest or index.
	Annotations []export.Annotation
	// Epoch clamps all times and is the time of what is made now (SOURCE_DATE_EPOCH); nil: real times.
	Epoch *time.Time
}

// RunOptions are for the commands of RUN.
type RunOptions struct {
	// Network is "host" or "none"; "" is host.
	Network string
	Hosts   []executor.Host
	ShmSize int64
	Ulimits []executor.Ulimit
	// Insecure allows RUN --security=insecure, HostNetwork RUN --network=host where Network is none.
	Insecure    bool
	HostNetwork bool
	Secrets     []secret.Secret
	SSH         []secret.Agent
}

// CacheOptions say what of earlier builds is used.
type CacheOptions struct {
	// No runs every step again; the stages of NoStages (names or indexes) run again even so.
	No       bool
	NoStages []string
	// From are where results are taken from that are not here, To where they are left as well.
	From, To []remotecache.Place
	// Sync writes what was built to the disk before the build ends.
	Sync bool
}

// Result is a finished build.
type Result struct {
	// Root is the image's manifest, or its index where it was built for several platforms. It is zero where only
	// files were exported.
	Root ocispec.Descriptor
	// Config is the digest of the configuration, of the first platform.
	Config ocispec.Descriptor
	// Names are the image's names in full.
	Names []string
	// Metadata is what other programs are told of the image.
	Metadata export.Metadata
	// Warnings are what the rules on Dockerfiles found.
	Warnings []parser.Warning
	// Targets are the stages of the Dockerfile.
	Targets []parser.Target
	// Dockerfile is the file's name for messages, and Text what is in it. They are set even when the build failed.
	Dockerfile string
	Text       []byte
}
