package parser

import (
	"fmt"
	"path"
	"strings"

	"github.com/layerbuild/layerbuild/internal/reference"
	bkparser "github.com/moby/buildkit/frontend/dockerfile/parser"
)

// SyntaxArg is the build argument that replaces the syntax directive.
const SyntaxArg = "BUILDKIT_SYNTAX"

// CheckFrontend returns an *Error if a file is written for another frontend than BuildKit's for
// Dockerfiles: if its syntax directive, or arg, the value of SyntaxArg, names an unknown image.
// Such a file may have a language of its own, so that it is checked before Parse. The image is not
// fetched.
func CheckFrontend(name string, text []byte, arg string) error {
	if arg != "" {
		if image := strings.Fields(arg); len(image) > 0 && !isDockerfileFrontend(image[0]) {
			err := fmt.Errorf("%s: %w", SyntaxArg, unknownFrontend(image[0]))
			return &Error{File: name, Err: err}
		}
		return nil
	}
	image, _, at, ok := bkparser.DetectSyntax(text)
	if !ok || isDockerfileFrontend(image) {
		return nil
	}
	return &Error{File: name, Range: rangeOf(at), Err: unknownFrontend(image)}
}

func unknownFrontend(image string) error {
	return fmt.Errorf("unknown frontend %q: layerbuild only reads Dockerfiles (docker/dockerfile)",
		image)
}

// isDockerfileFrontend reports whether an image is BuildKit's frontend for Dockerfiles:
// docker/dockerfile or docker/dockerfile-upstream, of any version, with or without labs features,
// or a copy in another registry or repository.
func isDockerfileFrontend(image string) bool {
	n, err := reference.Parse(image)
	if err != nil {
		return false
	}
	base := path.Base(n.Path)
	return base == "dockerfile" || base == "dockerfile-upstream"
}
