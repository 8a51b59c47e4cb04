package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/hostfile"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
)

// output parses the destinations of the image.
func (f *buildFlags) output(o *imagebuild.Options, e *env) error {
	if err := errors.Join(checkNewNames("tag", f.tags), checkFile("iidfile", f.iidFile),
		checkFile("metadata-file", f.metadataFile),
		checkFile("logfile", string(f.logFile))); err != nil {
		return err
	}
	for _, s := range f.outputs {
		spec, err := export.Parse(s)
		if err != nil {
			// the wrapping error repeats "output" and s
			return badValue("output", s, errors.Unwrap(err))
		}
		if fd, ok := hostfile.Descriptor(spec.Dest); ok && fd == int(e.stdout.Fd()) {
			spec.Dest = "-" // such as /dev/stdout: -q must not write the image ID to it, too
		}
		for _, name := range spec.Names {
			if err := checkNewName(name); err != nil {
				return badValue("output", s, fmt.Errorf("name %q: %w", name, err))
			}
		}
		o.Outputs = append(o.Outputs, spec)
	}
	// As in buildx, the short forms apply to an output of that type, if there is one.
	if f.push {
		o.Outputs = pushImages(o.Outputs)
	}
	loads := func(s export.Spec) bool { return s.Type == export.TypeDocker && s.Dest == "" }
	if f.load && !slices.ContainsFunc(o.Outputs, loads) {
		o.Outputs = append(o.Outputs, export.Spec{Type: export.TypeDocker})
	}
	o.Outputs = f.mediaTypes(o.Outputs)
	for i, spec := range o.Outputs {
		if spec.Push && len(o.Image.Names)+len(spec.Names) == 0 {
			flag := "--push"
			if i < len(f.outputs) {
				flag = fmt.Sprintf("--output %q", f.outputs[i])
			}
			return fmt.Errorf("%s: the image to push has no name; give one with -t NAME", flag)
		}
	}
	if err := export.Check(e.stdout, o.Outputs...); err != nil {
		return fmt.Errorf("--%w", err)
	}
	if err := f.checkApart(o.Outputs); err != nil {
		return err
	}
	for i, s := range f.outputs {
		if err := checkDest(o.Outputs[i]); err != nil {
			return badValue("output", s, err)
		}
	}
	return nil
}

// checkApart returns an error if two of the additional files that the build writes are the same
// file, or if one of them is an output.
func (f *buildFlags) checkApart(outputs []export.Spec) error {
	taken := map[string]string{}
	for _, spec := range outputs {
		if place := realPlace(spec.Dest); place != "" {
			taken[place] = "--output " + spec.String()
		}
	}
	for _, file := range [...]struct{ flag, name string }{{"iidfile", f.iidFile},
		{"metadata-file", f.metadataFile}, {"logfile", string(f.logFile)}} {
		place := realPlace(file.name)
		if place == "" {
			continue
		}
		if other := taken[place]; other != "" {
			return badValue(file.flag, file.name, fmt.Errorf("%s writes the same file", other))
		}
		taken[place] = "--" + file.flag
	}
	return nil
}

// mediaTypes returns outputs with Docker's media types if --format docker is given. The image in
// the store has them too, so an output of type=image is added if there is none.
func (f *buildFlags) mediaTypes(outputs []export.Spec) []export.Spec {
	if f.format != "docker" {
		return outputs
	}
	oci := false
	list := slices.Clone(outputs)
	// An image is stored without type=image, too.
	stored := len(list) == 0 || len(f.tags) > 0 && slices.ContainsFunc(list,
		func(s export.Spec) bool { return s.Type != export.TypeCacheOnly })
	for i := range list {
		stored = stored && list[i].Type != export.TypeImage
		if list[i].MakesImage() && list[i].Layers.OCIMediaTypes == nil {
			list[i].Layers.OCIMediaTypes = &oci
		}
	}
	if stored {
		list = append(list, export.Spec{Type: export.TypeImage,
			Layers: export.Layers{OCIMediaTypes: &oci}})
	}
	return list
}

// pushImages returns outputs with Push set for each output of type=image, of which it adds one if
// there is none.
func pushImages(outputs []export.Spec) []export.Spec {
	list := slices.Clone(outputs)
	isImage := func(s export.Spec) bool { return s.Type == export.TypeImage }
	if !slices.ContainsFunc(list, isImage) {
		list = append(list, export.Spec{Type: export.TypeImage})
	}
	for i := range list {
		list[i].Push = list[i].Push || isImage(list[i])
	}
	return list
}
