package attest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The types of builds: they name the page that describes the parameters. The parameters here have
// the form that BuildKit's page describes.
const (
	buildTypeV1 = "https://github.com/moby/buildkit/blob/master/docs/attestations/" +
		"slsa-definitions.md"
	buildTypeV02 = "https://mobyproject.org/buildkit@v1"
)

// Frontend is the name of the Dockerfile frontend in requests.
const Frontend = "dockerfile.v0"

// Predicate is a SLSA provenance of version 1
// (https://slsa.dev/spec/v1.1/provenance).
type Predicate struct {
	BuildDefinition Definition `json:"buildDefinition"`
	RunDetails      RunDetails `json:"runDetails"`
}

// Definition describes the inputs of a build.
type Definition struct {
	BuildType            string     `json:"buildType"`
	ExternalParameters   External   `json:"externalParameters"`
	InternalParameters   Internal   `json:"internalParameters"`
	ResolvedDependencies []Material `json:"resolvedDependencies,omitempty"`
}

// External has the parameters that the user has given.
type External struct {
	ConfigSource ConfigSource `json:"configSource"`
	Request      Request      `json:"request"`
}

// ConfigSource is the place of the Dockerfile. URI and Digest are those of a remote context.
type ConfigSource struct {
	URI    string    `json:"uri,omitempty"`
	Digest DigestSet `json:"digest,omitempty"`
	Path   string    `json:"path,omitempty"`
}

// Request has the parameters of the command line. Args has the prefixes and names of BuildKit:
// build-arg:NAME, label:NAME, target.
type Request struct {
	Frontend string            `json:"frontend,omitempty"`
	Args     map[string]string `json:"args,omitempty"`
	Secrets  []Mounted         `json:"secrets,omitempty"`
	SSH      []Mounted         `json:"ssh,omitempty"`
	Locals   []Local           `json:"locals,omitempty"`
}

// Mounted is a secret or an SSH agent that a command had.
type Mounted struct {
	ID       string `json:"id"`
	Optional bool   `json:"optional,omitempty"`
}

// Local is a context from this machine: context, dockerfile, or the name of a named context.
type Local struct {
	Name string `json:"name"`
}

// Internal has the parameters that the builder has chosen.
type Internal struct {
	BuildConfig     *BuildConfig `json:"buildConfig,omitempty"`
	BuilderPlatform string       `json:"builderPlatform"`
	TargetPlatform  string       `json:"targetPlatform,omitempty"`
	// DockerfileVersion is the version of the Dockerfile syntax.
	DockerfileVersion string `json:"dockerfileVersion,omitempty"`
}

// Material is an input of a build that is identified by its digests.
type Material struct {
	URI    string    `json:"uri"`
	Digest DigestSet `json:"digest,omitempty"`
}

// RunDetails describes the run of a build.
type RunDetails struct {
	Builder  Builder  `json:"builder"`
	Metadata Metadata `json:"metadata"`
}

// Builder is the machine or service that has run a build.
type Builder struct {
	ID      string            `json:"id"`
	Version map[string]string `json:"version,omitempty"`
}

// Metadata has times and the extensions of BuildKit.
type Metadata struct {
	InvocationID string         `json:"invocationId,omitempty"`
	StartedOn    *time.Time     `json:"startedOn,omitempty"`
	FinishedOn   *time.Time     `json:"finishedOn,omitempty"`
	Details      Details        `json:"buildkit_metadata"`
	Hermetic     bool           `json:"buildkit_hermetic,omitempty"`
	Completeness CompletenessV1 `json:"buildkit_completeness"`
	Reproducible bool           `json:"buildkit_reproducible,omitempty"`
}

// CompletenessV1 tells whether all parameters and materials are listed.
type CompletenessV1 struct {
	Request              bool `json:"request"`
	ResolvedDependencies bool `json:"resolvedDependencies"`
}

// Details connects the steps with the lines of the Dockerfile and the layers of the image.
type Details struct {
	VCS    map[string]string                 `json:"vcs,omitempty"`
	Source *Source                           `json:"source,omitempty"`
	Layers map[string][][]ocispec.Descriptor `json:"layers,omitempty"`
}

// Source has the Dockerfile, and the lines of each step.
type Source struct {
	Locations map[string]Locations `json:"locations,omitempty"`
	Infos     []SourceInfo         `json:"infos,omitempty"`
}

// SourceInfo is a file with instructions.
type SourceInfo struct {
	Filename string `json:"filename,omitempty"`
	Language string `json:"language,omitempty"`
	Data     []byte `json:"data,omitempty"`
}

// Locations are the lines of a step.
type Locations struct {
	Locations []Location `json:"locations,omitempty"`
}

// Location is a place in the file with the index SourceIndex.
type Location struct {
	SourceIndex int     `json:"sourceIndex,omitempty"`
	Ranges      []Lines `json:"ranges,omitempty"`
}

// Lines is a range of lines, both ends included.
type Lines struct {
	Start Position `json:"start"`
	End   Position `json:"end"`
}

// Position is the beginning of a line, counted from 1.
type Position struct {
	Line int `json:"line,omitempty"`
}

// predicateV02 is a SLSA provenance of version 0.2 (https://slsa.dev/spec/v0.2/provenance).
type predicateV02 struct {
	Builder struct {
		ID string `json:"id"`
	} `json:"builder"`
	BuildType   string        `json:"buildType"`
	Materials   []Material    `json:"materials,omitempty"`
	Invocation  invocationV02 `json:"invocation"`
	BuildConfig *BuildConfig  `json:"buildConfig,omitempty"`
	Metadata    metadataV02   `json:"metadata"`
}

type invocationV02 struct {
	ConfigSource struct {
		URI        string    `json:"uri,omitempty"`
		Digest     DigestSet `json:"digest,omitempty"`
		EntryPoint string    `json:"entryPoint,omitempty"`
	} `json:"configSource"`
	Parameters  Request `json:"parameters"`
	Environment struct {
		Platform          string `json:"platform"`
		DockerfileVersion string `json:"dockerfileVersion,omitempty"`
	} `json:"environment"`
}

type metadataV02 struct {
	BuildInvocationID string          `json:"buildInvocationID,omitempty"`
	BuildStartedOn    *time.Time      `json:"buildStartedOn,omitempty"`
	BuildFinishedOn   *time.Time      `json:"buildFinishedOn,omitempty"`
	Completeness      completenessV02 `json:"completeness"`
	Reproducible      bool            `json:"reproducible"`

	Details  Details `json:"https://mobyproject.org/buildkit@v1#metadata"`
	Hermetic bool    `json:"https://mobyproject.org/buildkit@v1#hermetic,omitempty"`
}

type completenessV02 struct {
	Parameters  bool `json:"parameters"`
	Environment bool `json:"environment"`
	Materials   bool `json:"materials"`
}

// v02 returns the predicate in version 0.2. environment tells whether the environment is complete.
func (p Predicate) v02(environment bool) predicateV02 {
	def, meta := p.BuildDefinition, p.RunDetails.Metadata
	out := predicateV02{BuildType: buildTypeV02, Materials: def.ResolvedDependencies,
		BuildConfig: def.InternalParameters.BuildConfig}
	out.Builder.ID = p.RunDetails.Builder.ID
	out.Invocation.ConfigSource.URI = def.ExternalParameters.ConfigSource.URI
	out.Invocation.ConfigSource.Digest = def.ExternalParameters.ConfigSource.Digest
	out.Invocation.ConfigSource.EntryPoint = def.ExternalParameters.ConfigSource.Path
	out.Invocation.Parameters = def.ExternalParameters.Request
	out.Invocation.Environment.Platform = def.InternalParameters.BuilderPlatform
	out.Invocation.Environment.DockerfileVersion = def.InternalParameters.DockerfileVersion
	out.Metadata = metadataV02{
		BuildInvocationID: meta.InvocationID, BuildStartedOn: meta.StartedOn,
		BuildFinishedOn: meta.FinishedOn, Reproducible: meta.Reproducible,
		Details: meta.Details, Hermetic: meta.Hermetic,
		Completeness: completenessV02{Parameters: meta.Completeness.Request,
			Environment: environment, Materials: meta.Completeness.ResolvedDependencies},
	}
	return out
}

// PredicateType returns the type of the predicate that Encode makes.
func (o Provenance) PredicateType() string {
	if o.Version == V02 {
		return PredicateV02
	}
	return PredicateV1
}

// Encode returns the predicate with the details that the options ask for, in their version. p is
// not changed.
func (o Provenance) Encode(p Predicate) (json.RawMessage, error) {
	p = o.reduced(p)
	if o.Complete && !p.RunDetails.Metadata.Completeness.ResolvedDependencies {
		return nil, fmt.Errorf("the materials of the build are not all known, and "+
			"complete-materials=true is given: %s", incomplete(p))
	}
	var doc any = p
	if o.Version == V02 {
		doc = p.v02(!o.NoEnvironment)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(doc)
	return bytes.TrimSpace(b.Bytes()), err
}

// ForMetadata returns the predicate for the file of --metadata-file, in version 0.2. As in buildx,
// it has neither metadata nor steps unless full is set.
func (o Provenance) ForMetadata(p Predicate, full bool) (json.RawMessage, error) {
	doc := o.reduced(p).v02(true)
	if full {
		return json.Marshal(doc)
	}
	doc.BuildConfig = nil
	out := struct {
		predicateV02
		Builder  any `json:"builder,omitempty"`
		Metadata any `json:"metadata,omitempty"`
	}{predicateV02: doc}
	if doc.Builder.ID != "" {
		out.Builder = doc.Builder
	}
	return json.Marshal(out)
}

// File returns the name of the file with the provenance.
func (o Provenance) File() string { return cmp.Or(o.Filename, "provenance.json") }

// incomplete explains why the materials are not complete.
func incomplete(p Predicate) string {
	var names []string
	for _, l := range p.BuildDefinition.ExternalParameters.Request.Locals {
		names = append(names, l.Name)
	}
	if len(names) == 0 {
		return "a download of the build has no digest"
	}
	return "files of this machine have no digest (" + strings.Join(names, ", ") + "); build from " +
		"a git repository or from the URL of an archive"
}

// reduced returns the predicate without what the options leave out.
func (o Provenance) reduced(p Predicate) Predicate {
	p.BuildDefinition.BuildType = buildTypeV1
	p.RunDetails.Builder.ID = o.BuilderID
	meta := &p.RunDetails.Metadata
	meta.Reproducible = o.Reproducible
	if o.NoEnvironment {
		p.BuildDefinition.InternalParameters.BuilderPlatform = ""
		p.BuildDefinition.InternalParameters.DockerfileVersion = ""
		p.RunDetails.Builder.Version = nil
		meta.Details.VCS = nil
	}
	if !o.Min {
		return p
	}
	p.BuildDefinition.InternalParameters.BuildConfig = nil
	meta.Details.Source, meta.Details.Layers = nil, nil
	req := &p.BuildDefinition.ExternalParameters.Request
	req.Secrets, req.SSH = nil, nil
	given := len(req.Args)
	req.Args = maps.Clone(req.Args)
	maps.DeleteFunc(req.Args, func(key, _ string) bool {
		return strings.HasPrefix(key, "build-arg:") || strings.HasPrefix(key, "label:")
	})
	if len(req.Args) < given {
		meta.Completeness.Request = false
	}
	return p
}

// ContentID returns an identifier of a build that depends only on the predicate, in the place of a
// random one: two builds with the same inputs have the same.
func (p Predicate) ContentID() string {
	data, err := json.Marshal(p)
	if err != nil {
		panic("unreachable: a predicate is plain data: " + err.Error())
	}
	return digest.FromBytes(data).Encoded()[:32]
}
