package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/imageref"
	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/layerbuild/layerbuild/internal/source"
)

// sources checks the paths and addresses of the Dockerfile and the contexts.
func (f *buildFlags) sources(o *imagebuild.Options, e *env) error {
	so := source.Options{Stdin: e.stdin, Dockerfile: string(f.file), Fetched: f.fetched}
	err := source.Check(o.Source.Context, so)
	if err != nil {
		err = fmt.Errorf("build context %q: %w", o.Source.Context, err)
	} else if f.file != "" {
		err = source.CheckDockerfile(o.Source.Context, so)
		if err != nil {
			err = badValue("file", string(f.file), err)
		}
	}
	o.Source.Contexts = map[string]string{}
	for _, c := range f.contexts {
		name, value, ok := strings.Cut(c, "=")
		if !ok || name == "" || value == "" {
			return errors.Join(err, badValue("build-context", c,
				errors.New("NAME=WHERE is expected")))
		}
		value = withBuildxScheme(value)
		if bad := checkNamedContext(value, so); bad != nil {
			return errors.Join(err, badValue("build-context", c, bad))
		}
		o.Source.Contexts[name] = value
	}
	return err
}

// withBuildxScheme replaces the schemes of images that buildah and podman have, too, by that of
// buildx.
func withBuildxScheme(value string) string {
	for _, scheme := range [...]string{"container-image://", string(imageref.Docker)} {
		if name, ok := strings.CutPrefix(value, scheme); ok {
			return image.SchemeName + name
		}
	}
	return value
}

// checkNamedContext returns an error for an invalid value of --build-context.
func checkNamedContext(value string, o source.Options) error {
	if value == "-" {
		return errors.New("standard input is for the build context only")
	}
	if strings.HasPrefix(value, image.SchemeLayout) {
		return image.CheckPath(value)
	}
	if name, ok := strings.CutPrefix(value, image.SchemeName); ok {
		_, err := reference.Parse(name)
		return err
	}
	return source.Check(value, o)
}

// oneContext returns an error unless there is one context.
func oneContext(args []string) error {
	switch {
	case len(args) == 0:
		return errors.New(
			"the build context is missing; give the directory with the files, for example '.'")
	case len(args) == 1 && args[0] == "":
		return errors.New("the build context is an empty argument; give the directory with the " +
			"files, for example '.'")
	case len(args) == 1:
		return nil
	}
	for _, v := range verbs() {
		if args[0] == v.name {
			return fmt.Errorf("the verb must come before its flags: layerbuild %s [flags] %s",
				v.name, v.args)
		}
	}
	return fmt.Errorf("one build context is expected, not %d: %s", len(args),
		strings.Join(args, " "))
}
