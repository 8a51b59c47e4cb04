package scanner

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/layerbuild/layerbuild/internal/attest"
	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/platform"
	"github.com/layerbuild/layerbuild/parser"
)

// The directories of the protocol, and the name of the file system of the image.
const (
	core      = "sbom"
	coreDir   = "/run/src/core/" + core
	extrasDir = "/run/src/extras"
	outDir    = "/run/out"
)

// maxFiles limits the number of statements that a generator may write.
const maxFiles = 1000

// Scan is a run of a generator for one platform.
type Scan struct {
	Solver *build.Solver
	Inputs *inputs.Inputs
	Plan   *parser.Plan
	// SBOM has the name of the generator and its parameters.
	SBOM attest.SBOM
	// Platform is the platform of the image as text, for the progress.
	Platform string
}

// Image returns the image of the generator. It is for the machine that builds.
func Image(s attest.SBOM) parser.ImageInput {
	return parser.ImageInput{Ref: s.Generator, Platform: platform.Host()}
}

// Run runs the generator on the files of the image, and on the stages and the context that the
// Dockerfile names for it. It returns the statements that the generator has written, the one about
// the image first.
func (s *Scan) Run(ctx context.Context) ([]attest.Attestation, error) {
	img, err := s.Inputs.Resolve(ctx, Image(s.SBOM))
	if err != nil {
		return nil, err
	}
	config := img.Config.Config
	run := &parser.Run{Args: slices.Concat(config.Entrypoint, config.Cmd), Dir: "/"}
	if len(run.Args) == 0 {
		return nil, fmt.Errorf("the SBOM generator %s has no command", s.SBOM.Generator)
	}
	if config.WorkingDir != "" {
		run.Dir = path.Clean("/" + config.WorkingDir)
	}
	run.Mounts = s.mounts()
	run.Env = s.environment(config.Env)
	top, err := s.Solver.RunTool(ctx, build.Tool{
		Image: Image(s.SBOM), Actions: []parser.Action{&parser.Mkdir{Path: outDir}, run},
		ID:   event.ID("sbom " + s.Platform),
		Name: fmt.Sprintf("[%s] generating sbom using %s", s.Platform, img.Name),
	})
	if err != nil {
		return nil, err
	}
	files, err := s.Inputs.OfSnapshot(ctx, top)
	if err != nil {
		return nil, err
	}
	list, err := read(files)
	if err != nil {
		return nil, fmt.Errorf("the SBOM generator %s: %w", s.SBOM.Generator, err)
	}
	return list, nil
}

// mounts returns the mounts with the file systems, which the generator reads.
func (s *Scan) mounts() []parser.RunMount {
	bind := func(target string, from parser.Input) parser.RunMount {
		return parser.RunMount{Type: parser.MountBind, Target: target, Source: "/", From: from,
			ReadOnly: true}
	}
	list := []parser.RunMount{bind(coreDir, parser.StageInput{Stage: s.Plan.Target}),
		{Type: parser.MountTmpfs, Target: "/tmp"}}
	stages, context := s.Plan.Scans()
	for _, st := range stages {
		list = append(list, bind(path.Join(extrasDir, core+"-"+st.ScanName()),
			parser.StageInput{Stage: st}))
	}
	if context {
		list = append(list, bind(path.Join(extrasDir, core+"-context"), parser.ContextInput{}))
	}
	return list
}

// environment returns the variables of the generator.
func (s *Scan) environment(image []string) []string {
	env := slices.Clone(image)
	set := func(name, value string) {
		env = slices.DeleteFunc(env, func(kv string) bool {
			return strings.HasPrefix(kv, name+"=")
		})
		env = append(env, name+"="+value)
	}
	if !slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "PATH=") }) {
		set("PATH", parser.DefaultPath)
	}
	set("BUILDKIT_SCAN_DESTINATION", outDir+"/")
	set("BUILDKIT_SCAN_SOURCE", coreDir)
	if stages, context := s.Plan.Scans(); len(stages) > 0 || context {
		set("BUILDKIT_SCAN_SOURCE_EXTRAS", extrasDir+"/")
	}
	if name := s.Plan.Target.Name; name != "" {
		set("BUILDKIT_SCAN_STAGE_NAME", name)
	}
	for _, name := range slices.Sorted(maps.Keys(s.SBOM.Parameters)) {
		set("BUILDKIT_SCAN_"+name, s.SBOM.Parameters[name])
	}
	return env
}

// read returns the statements that a generator has written.
func read(files *inputs.Files) ([]attest.Attestation, error) {
	names, err := files.Tree.Names(outDir)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", outDir, err)
	}
	if len(names) > maxFiles {
		return nil, fmt.Errorf("it has written %d files, and at most %d are read", len(names),
			maxFiles)
	}
	if len(names) == 0 {
		return nil, errors.New("it has written no file to " + outDir)
	}
	var first, others []attest.Attestation
	for _, name := range names {
		a, err := readOne(files, name)
		if err != nil {
			return nil, fmt.Errorf("its file %s: %w", name, err)
		}
		if isOf, _, _ := strings.Cut(name, "."); isOf == core {
			first = append(first, a)
		} else {
			others = append(others, a)
		}
	}
	return append(first, others...), nil
}

func readOne(files *inputs.Files, name string) (a attest.Attestation, err error) {
	f, err := files.Tree.Open(path.Join(outDir, name))
	if err != nil {
		return a, err
	}
	defer f.Close()
	st, err := attest.ReadStatement(f)
	if err != nil {
		return a, err
	}
	a = attest.Attestation{PredicateType: st.PredicateType, Predicate: st.Predicate,
		Filename: name}
	if len(st.Subject) > 0 {
		a.Subjects = st.Subject
	}
	return a, nil
}
