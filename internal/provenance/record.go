package provenance

import (
	"cmp"
	"context"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/attest"
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/platform"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Build is a build for one platform that has ended.
type Build struct {
	Plan   *parser.Plan
	Inputs *inputs.Inputs
	// Context is the main context, and Dockerfile the name of the file in messages. Text is its
	// content.
	Context    *source.Context
	Dockerfile string
	Text       []byte
	Request    Request
	// ScansContext is set if a scanner reads the main context. Tools are the images of scanners.
	ScansContext bool
	Tools        []parser.ImageInput
	// Network is the network of commands whose instruction names none.
	Network string
	// Volumes are the places of the host's files in commands.
	Volumes []string
	// ID identifies the run of the build. It is not used with an epoch.
	ID                string
	Started, Finished time.Time
	// Epoch takes the place of both times, in seconds since 1970; nil: the real times.
	Epoch *int64
	// Version is the version of this program.
	Version string
}

// Request has the parameters of the command line.
type Request struct {
	Args     map[string]string // values of --build-arg
	Labels   []string          // as KEY=VALUE
	Target   string
	Contexts map[string]string // values of --build-context
	// Others are further parameters, with BuildKit's names.
	Others map[string]string
}

// Record is the provenance of a build, without the layers of an image.
type Record struct {
	predicate attest.Predicate
	// above has the number of layers of the image up to a step, by the key of its result.
	above map[string]int
	total int // layers of the image
	// unknown is set if above and total leave out the layers of another build's result.
	unknown bool
	// fixed has the layers of other images, by the key of the step that fetches the image.
	fixed map[string][]ocispec.Descriptor
	epoch bool
}

// Record describes the build. It must have succeeded.
func (b *Build) Record(ctx context.Context) (*Record, error) {
	r := &recorder{ctx: ctx, build: b, hide: b.hidden().Replace, steps: newSteps(),
		sources: map[string]result{}, ends: map[*parser.Stage]result{},
		heights: map[*parser.Stage]int{}}
	r.rec = &Record{above: map[string]int{}, fixed: map[string][]ocispec.Descriptor{},
		epoch: b.Epoch != nil}
	if err := r.run(); err != nil {
		return nil, err
	}
	p := &r.rec.predicate
	p.BuildDefinition.ExternalParameters = attest.External{
		ConfigSource: b.configSource(), Request: b.request(r)}
	p.BuildDefinition.InternalParameters = attest.Internal{
		BuildConfig:     &attest.BuildConfig{Definition: r.steps.list},
		BuilderPlatform: platform.Short(platform.Normalize(platform.Host())),
		TargetPlatform:  platform.Format(platform.Normalize(b.Plan.Target.Platform)),

		DockerfileVersion: parser.SyntaxVersion,
	}
	p.BuildDefinition.ResolvedDependencies = r.materials()
	if b.Version != "" {
		p.RunDetails.Builder.Version = map[string]string{"layerbuild": b.Version}
	}
	m := &p.RunDetails.Metadata
	m.Completeness = attest.CompletenessV1{Request: !b.hidesArgs(),
		ResolvedDependencies: len(r.locals) == 0 && !r.linked}
	m.Hermetic = m.Completeness.ResolvedDependencies && !r.network
	m.Details.Source = &attest.Source{Locations: r.steps.locations,
		Infos: []attest.SourceInfo{{Filename: b.filename(), Language: "Dockerfile", Data: b.Text}}}
	m.Details.VCS = b.vcs(ctx)
	b.date(p)
	return r.rec, nil
}

// date sets the times and the identifier of the run.
func (b *Build) date(p *attest.Predicate) {
	start, end, id := b.Started.UTC(), b.Finished.UTC(), b.ID
	if b.Epoch != nil {
		start = time.Unix(*b.Epoch, 0).UTC()
		end, id = start, p.ContentID()
	}
	m := &p.RunDetails.Metadata
	m.StartedOn, m.FinishedOn, m.InvocationID = &start, &end, id
}

// Predicate returns the provenance of an image with the given layers. Without layers, the image
// has not been made: only files are exported.
func (r *Record) Predicate(layers []ocispec.Descriptor) attest.Predicate {
	p := r.predicate
	chains := map[string][][]ocispec.Descriptor{}
	for key, list := range r.fixed {
		chains[key] = [][]ocispec.Descriptor{plain(list)}
	}
	if len(layers) == r.total && !r.unknown {
		for key, n := range r.above {
			if n > 0 {
				chains[key] = [][]ocispec.Descriptor{plain(layers[:n])}
			}
		}
	}
	p.RunDetails.Metadata.Details.Layers = chains
	return p
}

// plain returns descriptors with the fields that identify a blob.
func plain(list []ocispec.Descriptor) []ocispec.Descriptor {
	out := make([]ocispec.Descriptor, len(list))
	for i, d := range list {
		out[i] = ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
	}
	return out
}

// configSource returns the place of the Dockerfile.
func (b *Build) configSource() attest.ConfigSource {
	c := attest.ConfigSource{Path: b.filename()}
	if m, ok := b.Context.Material(); ok {
		c.URI, c.Digest = source.WithoutUser(b.Context.Name), digestOf(m)
	}
	return c
}

// filename returns the name of the Dockerfile, without directories of this machine.
func (b *Build) filename() string {
	name := b.Dockerfile
	_, remote := b.Context.Material()
	switch {
	case name == "-" || name == "" || name == b.Context.Name:
		return "Dockerfile"
	case remote && !strings.Contains(name, "://"):
		return name // in the repository
	}
	return path.Base(name)
}

// mask takes the place of a secret.
const mask = "****"

// hidden returns a replacer of the values of arguments that are secrets, or have some in an
// address.
func (b *Build) hidden() *strings.Replacer {
	var values, list []string
	with := map[string]string{}
	for name, value := range b.Request.Args {
		if public := source.WithoutUser(value); public != value {
			with[value] = public
		}
		if value != "" && parser.IsSecretName(name) {
			with[value] = mask
		}
	}
	// the longest first: one value may be the beginning of another
	values = slices.SortedFunc(maps.Keys(with), func(x, y string) int {
		return cmp.Or(len(y)-len(x), strings.Compare(x, y))
	})
	for _, value := range values {
		list = append(list, value, with[value])
	}
	return strings.NewReplacer(list...)
}

// hidesArgs reports whether an argument is left out of the request.
func (b *Build) hidesArgs() bool {
	return slices.ContainsFunc(slices.Collect(maps.Keys(b.Request.Args)), parser.IsSecretName)
}

// request returns the parameters of the build, with the names of BuildKit.
func (b *Build) request(r *recorder) attest.Request {
	req := attest.Request{Frontend: attest.Frontend, Args: map[string]string{},
		Secrets: r.secrets.list(), SSH: r.agents.list(), Locals: r.localList()}
	for name, value := range b.Request.Args {
		if !parser.IsSecretName(name) {
			req.Args["build-arg:"+name] = r.hide(value)
		}
	}
	for _, l := range b.Request.Labels {
		key, value, _ := strings.Cut(l, "=")
		req.Args["label:"+key] = r.hide(source.WithoutUser(value))
	}
	for name, value := range b.Request.Contexts {
		if !isRemote(value) {
			value = "local:" + name
		}
		req.Args["context:"+name] = r.hide(source.WithoutUser(value))
	}
	if b.Request.Target != "" {
		req.Args["target"] = b.Request.Target
	}
	for name, value := range b.Request.Others {
		req.Args[name] = r.hide(value)
	}
	if len(req.Args) == 0 {
		req.Args = nil
	}
	return req
}

// isRemote reports whether a context is not a directory or file of this machine.
func isRemote(value string) bool {
	kind, err := parser.SourceKind(value)
	return strings.HasPrefix(value, "docker-image://") || strings.HasPrefix(value, "target:") ||
		err == nil && kind != parser.Local
}

// vcs returns the commit of the repository that has the main context, if that is a directory of
// this machine. The files may differ from those of the commit.
func (b *Build) vcs(ctx context.Context) map[string]string {
	dir := b.Context.LocalDir()
	if dir == "" {
		return nil
	}
	commit, remote := source.Revision(ctx, dir)
	if commit == "" {
		return nil
	}
	m := map[string]string{"revision": commit}
	if remote != "" {
		m["source"] = remote
	}
	return m
}
