package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/gotemplate"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/snapshot"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"
)

func inspectVerb() verb {
	return verb{name: "inspect", args: "IMAGE…", takesPaths: true,
		summary: "show images' configuration, layers and directories, as JSON", examples: []example{
			{"layerbuild inspect app", "show the image app"},
			{"layerbuild inspect --platform linux/arm64 app",
				"show one platform of a multi-platform image"},
			{"layerbuild inspect -f '{{.Config.Env}} {{json .Config.Labels}}' app",
				"print fields of the configuration"},
			{"layerbuild inspect docker://debian:12", "show an image of a registry"},
		}, notes: inspectNotes, flags: func(fs *pflag.FlagSet) prepareFunc {
			var f stateFlags
			f.define(fs)
			var access registryFlags
			var of, format string
			fs.Var((*given)(&of), "platform", platformUsage)
			format = "json"
			fs.VarP((*given)(&format), "format", "f", "`json|TEMPLATE` output format")
			var kind string
			fs.Var(newChoice(&kind, "image", "image"), "type", "kind of object")
			access.define(fs)
			return func(e *env, args []string) (runFunc, error) {
				if len(args) == 0 {
					return nil, errors.New("at least one image is expected")
				}
				want, err := platform(e, of)
				template, _, err1 := parseFormat(format, "json")
				if err := errors.Join(checkImages(args), err, err1, f.resolve(e),
					f.access(&access)); err != nil {
					return nil, err
				}
				return func(ctx context.Context) error {
					return f.inspect(ctx, e, args, want, template)
				}, nil
			}
		}}
}

// inspectNotes is a part of the help of inspect.
const inspectNotes = "A template of --format is one of Go's text/template, without methods. It " +
	"has the fields of the JSON output, which are those of docker, such as .Id, .RepoTags, " +
	".Config.Env and .RootFS.Layers; .Manifest is the OCI manifest. .Size is the sum of the " +
	"layers as they are in the store and in a registry, compressed, whatever is unpacked. The " +
	"functions json, join, lower, upper, split, title, pad and truncate are there. Each image " +
	"is printed on a line of its own."

func (f *stateFlags) inspect(ctx context.Context, e *env, names []string, want wanted,
	template *gotemplate.Template) error {
	return f.with(ctx, func(state *state.State, im *images) error {
		list := make([]inspected, 0, len(names))
		var errs []error
		for _, name := range names {
			one, err := im.inspect(ctx, state, name, want)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				errs = append(errs, err) // as in docker, the other images are shown
				continue
			}
			list = append(list, one)
		}
		switch {
		case template != nil:
			errs = append(errs, printTemplate(e.text(e.stdout), template, false, list, nil))
		case len(list) > 0:
			errs = append(errs, printJSON(e.json(e.stdout), list))
		}
		return errors.Join(errs...)
	})
}

// inspected is the output of `layerbuild inspect` for an image. Fields that `docker inspect` has
// too have its names. Fields without a name in JSON are those that docker had earlier, for
// templates.
type inspected struct {
	ID            string             `json:"Id"` // digest of the configuration
	Digest        string             `json:"Digest"`
	RepoTags      []string           `json:"RepoTags"`
	RepoDigests   []string           `json:"RepoDigests"`
	Parent        string             `json:"Parent"`
	Comment       string             `json:"Comment"` // of the last instruction
	Created       *time.Time         `json:"Created,omitempty"`
	Container     string             `json:"-"`
	DockerVersion string             `json:"DockerVersion"`
	Author        string             `json:"Author"`
	Architecture  string             `json:"Architecture"`
	Variant       string             `json:"Variant,omitempty"`
	OS            string             `json:"Os"`
	OSVersion     string             `json:"OsVersion,omitempty"`
	Size          int64              `json:"Size"`
	VirtualSize   int64              `json:"-"`
	Config        inspectedConfig    `json:"Config"`
	RootFS        rootFS             `json:"RootFS"`
	GraphDriver   graphDriver        `json:"GraphDriver"`
	Metadata      inspectedMetadata  `json:"Metadata"`
	Descriptor    ocispec.Descriptor `json:"Descriptor"`
	Manifest      ocispec.Manifest   `json:"Manifest"`
}

// inspectedConfig is an image's configuration, with the fields of containers that docker printed
// with it before version 28.
type inspectedConfig struct {
	dockerspec.DockerOCIImageConfig
	Hostname     string `json:"-"`
	Domainname   string `json:"-"`
	Image        string `json:"-"`
	AttachStdin  bool   `json:"-"`
	AttachStdout bool   `json:"-"`
	AttachStderr bool   `json:"-"`
	Tty          bool   `json:"-"`
	OpenStdin    bool   `json:"-"`
	StdinOnce    bool   `json:"-"`
}

// inspectedMetadata has the facts about an image that are in the store alone. The time is zero for
// an image without a name.
type inspectedMetadata struct {
	LastTagTime time.Time `json:"LastTagTime"`
}

type rootFS struct {
	Type   string          `json:"Type"`
	Layers []digest.Digest `json:"Layers"`
}

// graphDriver describes the directories of the image's files on this machine: UpperDir is the top
// layer's directory. LowerDir has the directories below it, top first, separated by colons.
// MergedDir is a directory at which all of them could be mounted, with the directory WorkDir.
// layerbuild does not mount it. With a driver that keeps whole trees it is the same as UpperDir.
type graphDriver struct {
	Name string            `json:"Name"`
	Data map[string]string `json:"Data"`
}

func (im *images) inspect(ctx context.Context, state *state.State, name string,
	want wanted) (inspected, error) {
	img, err := im.local(ctx, name, want)
	if err != nil {
		return inspected{}, err
	}
	return inspect(ctx, state, img)
}

func inspect(ctx context.Context, state *state.State, img *image.Image) (inspected, error) {
	out := inspected{
		ID: img.Manifest.Config.Digest.String(), Digest: img.Descriptor.Digest.String(),
		RepoTags: []string{}, RepoDigests: []string{},
		Created: img.Config.Created, Author: img.Config.Author,
		Architecture: img.Config.Architecture, Variant: img.Config.Variant,
		OS: img.Config.OS, OSVersion: img.Config.OSVersion,
		Config: inspectedConfig{DockerOCIImageConfig: img.Config.Config},
		RootFS: rootFS{"layers", img.Config.RootFS.DiffIDs}, Manifest: img.Manifest,
		Descriptor: img.Root,
	}
	if n := len(img.Config.History); n > 0 {
		out.Comment = img.Config.History[n-1].Comment
	}
	for _, l := range img.Manifest.Layers {
		out.Size += l.Size
	}
	out.VirtualSize = out.Size
	entries, err := state.Store.Names(ctx)
	if err != nil {
		return out, err
	}
	for _, entry := range entries {
		if entry.Name != "" && (entry.Descriptor.Digest == img.Descriptor.Digest ||
			entry.Descriptor.Digest == img.Root.Digest) {
			out.RepoTags = append(out.RepoTags, familiar(entry.Name))
			if entry.Tagged.After(out.Metadata.LastTagTime) {
				out.Metadata.LastTagTime = entry.Tagged
			}
			if n, err := reference.Parse(entry.Name); err == nil {
				n.Tag, n.Digest = "", entry.Descriptor.Digest
				out.RepoDigests = append(out.RepoDigests, n.Familiar())
			}
		}
	}
	slices.Sort(out.RepoDigests)
	out.RepoDigests = slices.Compact(out.RepoDigests) // a repository may have several tags
	out.GraphDriver, err = graph(ctx, state, img)
	return out, err
}

// graph finds the image's directories; there is no data if its layers are not unpacked.
func graph(ctx context.Context, state *state.State, img *image.Image) (graphDriver, error) {
	g := graphDriver{Name: state.Snapshots.Driver(), Data: map[string]string{}}
	if len(img.Config.RootFS.DiffIDs) == 0 {
		return g, nil
	}
	id, ok := state.Cache.Chain(identity.ChainID(img.Config.RootFS.DiffIDs))
	if !ok {
		return g, nil
	}
	dirs, err := state.Snapshots.Dirs(ctx, snapshot.ID(id))
	if err != nil || len(dirs) == 0 {
		return g, context.Cause(ctx) // without the snapshot there are no directories
	}
	g.Data["UpperDir"] = dirs[0]
	if !state.Snapshots.Layered() {
		g.Data["MergedDir"] = dirs[0]
		return g, nil
	}
	top := strings.TrimSuffix(dirs[0], "/fs")
	if len(dirs) > 1 {
		g.Data["LowerDir"] = strings.Join(dirs[1:], ":")
	}
	g.Data["MergedDir"], g.Data["WorkDir"] = top+"/merged", top+"/work"
	return g, nil
}
