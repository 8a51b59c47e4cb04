package imageref

import (
	"errors"
	"fmt"
	"strings"

	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/opencontainers/go-digest"
)

// Scheme is the beginning of a reference: the kind of place that has the image.
type Scheme string

// The schemes. A reference without one is an image name.
const (
	Plain         Scheme = ""                // a name, in the store or in a registry
	Name          Scheme = "docker-image://" // the same
	Docker        Scheme = "docker://"       // a name in a registry
	Layout        Scheme = "oci-layout://"   // an OCI image layout, or an archive of one
	OCI           Scheme = "oci:"            // the same; as a destination, a directory
	OCIArchive    Scheme = "oci-archive:"    // the same; as a destination, an archive
	DockerArchive Scheme = "docker-archive:" // an archive of docker save
	Daemon        Scheme = "docker-daemon:"  // an image of a docker daemon
)

// IsPath reports whether the scheme is followed by the path of a layout or an archive.
func (s Scheme) IsPath() bool {
	switch s {
	case Layout, OCI, OCIArchive, DockerArchive:
		return true
	}
	return false
}

// schemes lists the schemes, those that begin with another one before it.
var schemes = [...]Scheme{Name, Docker, Layout, OCIArchive, OCI, DockerArchive, Daemon}

// Schemes returns the schemes that a command line may have.
func Schemes() []Scheme { return schemes[:] }

// refused has the schemes of other programs, with the reason why layerbuild does not take them.
var refused = [...]struct{ scheme, why string }{
	{"containers-storage:", "layerbuild does not read the storage of podman and buildah, whose " +
		"format belongs to them; 'podman save -o FILE IMAGE' writes an archive for " +
		"docker-archive:FILE"},
	{"dir:", "layerbuild does not read directories of skopeo's own format; " +
		"'skopeo copy dir:DIR oci:DIR' makes a layout"},
	{"sif:", "layerbuild does not read images of Singularity"},
	{"tarball:", "a tarball has no configuration; build it with FROM scratch and ADD"},
	{"ostree:", "layerbuild does not read ostree repositories"},
}

// Ref is a parsed reference.
type Ref struct {
	Scheme Scheme
	// Name is the image's name for Plain, Name, Docker and Daemon; for Daemon it may also be an ID.
	Name string
	// Path is the path of a layout or an archive. Tag and Digest select an image there; both may be
	// empty.
	Path   string
	Tag    string
	Digest digest.Digest
}

// String returns the reference as Parse accepts it.
func (r Ref) String() string {
	s := string(r.Scheme) + r.Name + r.Path
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest.String()
	}
	return s
}

// Options are the options of Parse.
type Options struct {
	// Exists reports whether there is a file at a path. Paths and image names may both contain
	// colons: the path ends at the first colon before which there is a file, or at the first colon
	// if there is none.
	Exists func(path string) bool
	// Explicit takes each word that begins with a scheme as one. Otherwise oci:latest, and the like
	// without a slash or a second colon, are names of images on Docker Hub.
	Explicit bool
}

// Parse parses a reference. It does not check names without a scheme, which may also be IDs or
// paths.
func Parse(s string, o Options) (Ref, error) {
	for _, r := range refused {
		if strings.HasPrefix(s, r.scheme) && (o.Explicit || !isName(s)) {
			return Ref{}, fmt.Errorf("%s %s", r.scheme, r.why)
		}
	}
	for _, scheme := range schemes {
		rest, ok := strings.CutPrefix(s, string(scheme))
		if !ok {
			continue
		}
		switch {
		case scheme == Name || scheme == Docker || scheme == Daemon:
			return named(scheme, rest)
		case !o.Explicit && !strings.HasSuffix(string(scheme), "//") && isName(s):
			return Ref{Name: s}, nil
		}
		return located(scheme, rest, o)
	}
	return Ref{Name: s}, nil
}

// isName reports whether a word that begins with a scheme can be an image name with a tag:
// "oci:latest" has neither a slash nor a second colon.
func isName(s string) bool {
	_, rest, _ := strings.Cut(s, ":")
	return !strings.ContainsAny(rest, "/:")
}

// named parses a reference by name.
func named(scheme Scheme, name string) (Ref, error) {
	r := Ref{Scheme: scheme, Name: name}
	if name == "" {
		return Ref{}, fmt.Errorf("%s an image name is expected after it", scheme)
	}
	if scheme == Daemon && digest.Digest(name).Validate() == nil {
		return r, nil
	}
	if _, err := reference.Parse(name); err != nil && scheme != Name {
		return Ref{}, fmt.Errorf("image name %q: %w", name, err)
	}
	return r, nil
}

// located parses a reference by path.
func located(scheme Scheme, rest string, o Options) (Ref, error) {
	r := Ref{Scheme: scheme}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		if d := digest.Digest(rest[i+1:]); d.Validate() == nil {
			r.Digest, rest = d, rest[:i]
		}
	}
	r.Path, r.Tag = split(rest, o.Exists)
	if r.Path == "" {
		return Ref{}, errors.New("image layout: no path is given")
	}
	return r, nil
}

// split finds the end of the path.
func split(s string, exists func(string) bool) (path, tag string) {
	if exists == nil {
		exists = func(string) bool { return false }
	}
	if s == "" || exists(s) {
		return s, ""
	}
	for i := range len(s) {
		if s[i] == ':' && i > 0 && exists(s[:i]) {
			return s[:i], s[i+1:]
		}
	}
	path, tag, _ = strings.Cut(s, ":")
	return path, tag
}
