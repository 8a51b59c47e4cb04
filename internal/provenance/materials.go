package provenance

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/layerbuild/layerbuild/internal/attest"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// digestOf returns the checksum of content from another machine.
func digestOf(m source.Material) attest.DigestSet {
	switch len(m.Commit) {
	case 0:
		return attest.DigestOf(m.Digest)
	case 64:
		return attest.DigestSet{"sha256": m.Commit}
	}
	return attest.DigestSet{"sha1": m.Commit}
}

// materials returns all inputs from elsewhere: images, repositories, downloads.
func (r *recorder) materials() []attest.Material {
	list := slices.Clone(r.found)
	slices.SortStableFunc(list, func(a, b attest.Material) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a.URI, b.URI))
	})
	return slices.CompactFunc(list, func(a, b attest.Material) bool {
		return a.URI == b.URI && maps.Equal(a.Digest, b.Digest)
	})
}

// rank sorts materials as in BuildKit: images, then repositories, then downloads.
func rank(m attest.Material) int {
	switch {
	case strings.HasPrefix(m.URI, "pkg:"):
		return 0
	case strings.HasSuffix(strings.SplitN(m.URI, "#", 2)[0], ".git"), m.Digest["sha1"] != "":
		return 1
	}
	return 2
}

// addImage adds an image. name is that of the named context that refers to it; "" for an image that
// the Dockerfile names.
func (r *recorder) addImage(ref, name string, img *image.Image, want ocispec.Platform) {
	kind := "docker"
	if img.Origin == image.FromLayout {
		kind, ref = "oci", cmp.Or(name, "layout")
	}
	n, err := reference.Parse(ref)
	if err != nil { // the name of a context can be any text
		n = reference.Name{Domain: reference.DockerHub, Path: "library/layout", Tag: "latest"}
	}
	r.found = append(r.found, attest.Material{URI: attest.PURL(kind, n, &want),
		Digest: attest.DigestOf(img.Root.Digest)})
}

// addContexts adds what the main context and the Dockerfile are made of.
func (r *recorder) addContexts() {
	context, remote := r.build.Context.Material()
	if remote {
		r.addMaterial(context)
	}
	if file, ok := r.build.Context.DockerfileMaterial(); ok {
		r.addMaterial(file)
	} else if !remote {
		r.locals["dockerfile"] = true
		// BuildKit lists a directory even if no step has files of it: its ignore file is read.
		if r.build.Context.LocalDir() != "" {
			r.locals["context"] = true
		}
	}
}

func (r *recorder) addMaterial(m source.Material) {
	r.found = append(r.found, attest.Material{URI: m.URL, Digest: digestOf(m)})
}

// localList returns the contexts from this machine.
func (r *recorder) localList() []attest.Local {
	var list []attest.Local
	for _, name := range slices.Sorted(maps.Keys(r.locals)) {
		list = append(list, attest.Local{Name: name})
	}
	return list
}

// mounted are secrets or agents by their IDs. The value is set if they are optional everywhere.
type mounted map[string]bool

func (m mounted) add(id string, optional bool) {
	if have, ok := m[id]; ok {
		optional = optional && have
	}
	m[id] = optional
}

func (m mounted) list() []attest.Mounted {
	var list []attest.Mounted
	for _, id := range slices.Sorted(maps.Keys(m)) {
		list = append(list, attest.Mounted{ID: id, Optional: m[id]})
	}
	return list
}

// namedContext returns the name of the context that an input refers to; "" for other inputs.
func namedContext(in parser.Input) string {
	if c, ok := in.(parser.ContextInput); ok {
		return c.Name
	}
	return ""
}
