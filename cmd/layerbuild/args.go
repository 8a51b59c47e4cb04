package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imageref"
	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/layerbuild/layerbuild/internal/registry"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/parser"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// noArgs is the argument check of verbs without arguments.
func noArgs(args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("no arguments are expected: %s", strings.Join(args, " "))
	}
	return nil
}

// oneImage is the argument check of verbs with one image.
func oneImage(args []string) error {
	switch len(args) {
	case 0:
		return errors.New("an image is expected")
	case 1:
		return checkImage(args[0])
	}
	return fmt.Errorf("one image is expected, not %d: %s", len(args), strings.Join(args, " "))
}

// checkImage returns an error for an argument that cannot name an image, independently of the
// store.
func checkImage(name string) error {
	if err := imageWord(name); err != nil {
		return fmt.Errorf("image %q: %w", name, err)
	}
	return nil
}

// imageWord is like checkImage, but its error does not repeat the argument, which the caller's
// error has.
func imageWord(name string) error {
	if _, err := imageref.Parse(name, imageref.Options{Exists: image.Exists}); err != nil {
		return err
	}
	if store.IsShortID(name) || isImageFile(name) || image.HasPlace(name) {
		return nil
	}
	if path, _, _ := strings.Cut(name, ":"); isImageFile(path) {
		return nil
	}
	if _, err := os.Stat(name); err == nil && strings.ContainsAny(name, "/.") {
		return errors.New(
			"it is neither an OCI image layout (there is no index.json) nor an archive")
	}
	if _, err := reference.Parse(strings.TrimPrefix(name, image.SchemeName)); err != nil {
		return fmt.Errorf(
			"%w; a name such as app:v2, an image ID, oci:DIR or docker-archive:FILE is expected",
			err)
	}
	return nil
}

// checkImages is like checkImage for several arguments.
func checkImages(names []string) error {
	for _, name := range names {
		if err := checkImage(name); err != nil {
			return err
		}
	}
	return nil
}

// checkNewName returns an error if a word cannot be the name of a new image.
func checkNewName(name string) error {
	const example = "a name such as app, app:v2 or registry.example/team/app:v2 is expected"
	if name == "" {
		return errors.New(example)
	}
	if err := notPlace(name); err != nil {
		return err
	}
	n, err := reference.Parse(name)
	if err != nil {
		return fmt.Errorf("%w; %s", err, example)
	}
	// The grammar accepts a first component with capital letters as a registry, as docker does.
	// Without a dot or a port it is treated as a mistake.
	if strings.ToLower(n.Domain) != n.Domain && !strings.ContainsAny(n.Domain, ".:") {
		return fmt.Errorf("repository name must be lowercase; %s", example)
	}
	if n.Digest != "" {
		return errors.New("a name that is given to an image has no digest")
	}
	return nil
}

// notPlace returns an error for the place of an image, where a name is expected.
func notPlace(word string) error {
	r, err := imageref.Parse(word, imageref.Options{Exists: image.Exists})
	switch {
	case err != nil:
		return err
	case r.Scheme.IsPath() || r.Scheme == imageref.Daemon:
		return fmt.Errorf("it is a place and not a name; 'layerbuild copy IMAGE %s' writes an "+
			"image there", word)
	case r.Scheme == imageref.Docker:
		return fmt.Errorf("a name has no docker://; 'layerbuild push IMAGE %s' sends an image to "+
			"the registry", r.Name)
	}
	return nil
}

// explicitly returns a word with ./ before its path if it begins with the scheme of a path that
// exists, or if always is set. Without it, words such as oci:v1 are names.
func explicitly(word string, always bool) string {
	r, err := imageref.Parse(word, imageref.Options{Exists: image.Exists, Explicit: true})
	if err == nil && r.Scheme.IsPath() && !strings.ContainsAny(r.Path, "/:") &&
		(always || image.Exists(r.Path)) {
		r.Path = "./" + r.Path
		return r.String()
	}
	return word
}

// checkStored returns an error for an argument that cannot name an image of the store. command is
// the command line that does the same for an image in another place.
func checkStored(name, command string) error {
	word := explicitly(name, false)
	if err := checkImage(word); err != nil {
		return err
	}
	if !image.HasPlace(word) {
		return nil
	}
	return fmt.Errorf("image %s: the name of an image in the store is expected; %s", name,
		fmt.Sprintf(command, word))
}

// checkNewNames is like checkNewName for the values of a flag.
func checkNewNames(flag string, names []string) error {
	for _, name := range names {
		if err := checkNewName(name); err != nil {
			return badValue(flag, name, err)
		}
	}
	return nil
}

// defaultPlatform is the variable from which docker and buildx read the platform if there is no
// flag.
const defaultPlatform = "DOCKER_DEFAULT_PLATFORM"

// platformUsage is the usage of a --platform for one platform.
const platformUsage = "`OS/ARCH` platform to use of a multi-platform image\n" +
	"Without the flag it is $DOCKER_DEFAULT_PLATFORM, or else the platform of this machine."

// wanted is the platform of an image to find. The zero value is this machine's platform.
type wanted struct {
	platform ocispec.Platform
	explicit bool // a flag gave the platform
}

// platform parses the value of a --platform for one platform. If it is "", the environment's
// value is used.
func platform(e *env, s string) (wanted, error) {
	if s != "" {
		p, err := parsePlatform(s)
		if err != nil {
			return wanted{}, badValue("platform", s, err)
		}
		return wanted{p, true}, nil
	}
	list, err := platforms(e, nil)
	if err != nil || len(list) == 0 {
		return wanted{}, err
	}
	return wanted{platform: list[0]}, nil
}

// isFor returns an error if a platform was requested and the image is for another one. The image of
// an index was chosen for the platform, but a single manifest may be for any platform. Unlike in a
// FROM, it is not enough that the platform can run the image.
func (w wanted) isFor(name string, img *image.Image) error {
	p := w.platform
	if !w.explicit || registry.FormatPlatform(img.Platform) == registry.FormatPlatform(p) &&
		registry.MatchesVersion(p, img.Platform) {
		return nil
	}
	if img.Root.Digest != img.Descriptor.Digest { // this image was chosen among several
		return fmt.Errorf("image %s has no image for %s; 'layerbuild images' lists its platforms",
			name, parser.FormatPlatform(p))
	}
	return fmt.Errorf("image %s is for %s and not for %s", name,
		parser.FormatPlatform(img.Platform), parser.FormatPlatform(p))
}

// platforms parses the values of a --platform for several platforms.
func platforms(e *env, values []string) ([]ocispec.Platform, error) {
	fromEnv := len(values) == 0 && e.getenv(defaultPlatform) != ""
	if fromEnv {
		values = strings.Split(e.getenv(defaultPlatform), ",")
	}
	var list []ocispec.Platform
	seen := map[string]bool{}
	add := func(p, is ocispec.Platform) {
		// a repeated platform counts once, as in buildx
		if name := parser.FormatPlatform(parser.NormalizePlatform(is)); !seen[name] {
			seen[name] = true
			list = append(list, p)
		}
	}
	for _, s := range values {
		if s == "local" {
			add(ocispec.Platform{}, parser.HostPlatform())
			continue
		}
		p, err := parsePlatform(strings.TrimSpace(s))
		if err != nil && fromEnv {
			return nil, fmt.Errorf("%s %q: %w", defaultPlatform, e.getenv(defaultPlatform), err)
		}
		if err != nil {
			return nil, badValue("platform", s, err)
		}
		add(p, p)
	}
	return list, nil
}

func parsePlatform(s string) (ocispec.Platform, error) {
	p, err := parser.ParsePlatform(s)
	if err != nil {
		return p, errors.New("OS/ARCH[/VARIANT] is expected, such as linux/amd64 or linux/arm64")
	}
	return p, nil
}
