package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/layerbuild/layerbuild/analyze"
	"github.com/layerbuild/layerbuild/analyze/browse"
	"github.com/layerbuild/layerbuild/analyze/html"
	"github.com/layerbuild/layerbuild/internal/atomicfile"
	"github.com/layerbuild/layerbuild/internal/hostfile"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imageanalysis"
	"github.com/layerbuild/layerbuild/internal/imagebuild"
	"github.com/layerbuild/layerbuild/internal/sarif"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/layerbuild/layerbuild/internal/store"
	"github.com/layerbuild/layerbuild/internal/ui"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

func analyzeVerb() verb {
	return verb{
		name: "analyze", args: "IMAGE|LAYOUT|ARCHIVE", takesPaths: true,
		summary: "show which instructions waste bytes, and how to save them",
		examples: []example{
			{"layerbuild analyze app", "print a report"},
			{"layerbuild analyze -i app", "browse layers and files in the terminal"},
			{"layerbuild analyze --format html -o report.html app.tar",
				"write a page about an archive"},
			{"layerbuild analyze --fail-over 5% --fail-on secrets app",
				"check the image in a pipeline"},
		},
		flags: func(fs *pflag.FlagSet) prepareFunc {
			var f analyzeFlags
			f.state.define(fs)
			group(fs, "Image", f.defineImage)
			group(fs, "Report", f.defineReport)
			group(fs, "Gate", f.defineGate)
			return f.prepare
		},
	}
}

// reportFormats are the formats of a report.
var reportFormats = []string{"text", "json", "markdown", "html", "sarif"}

// analyzeFlags are the flags of analyze and, in part, of build.
type analyzeFlags struct {
	state                                         stateFlags
	dockerfile                                    string
	runner                                        runner
	format, out, base, failOver, config, platform string
	failOn, accept                                []string
	top                                           int
	interactive                                   bool
}

func (f *analyzeFlags) defineImage(fs *pflag.FlagSet) {
	fs.Var((*given)(&f.platform), "platform", platformUsage)
	fs.Var((*given)(&f.base), "base", "`IMAGE` base image, or scratch for none\n"+
		"Without the flag it is the base image that the build or an annotation of the image "+
		"records.")
}

func (f *analyzeFlags) defineReport(fs *pflag.FlagSet) {
	fs.Var(newChoice(&f.format, "text", reportFormats...), "format", "format of the report")
	fs.VarP((*given)(&f.out), "output", "o", "`FILE` write the report to a file")
	fs.VarP((*given)(&f.dockerfile), "file", "f", "`FILE` Dockerfile that --format sarif names\n"+
		"The default is the name that the build has recorded, which is relative to the build "+
		"context.")
	fs.IntVar(&f.top, "top", 10, "`NUMBER` findings to show as text")
	fs.BoolVarP(&f.interactive, "interactive", "i", false,
		"browse layers and files in the terminal")
}

// defineGate defines the flags of the gate, which build has too.
func (f *analyzeFlags) defineGate(fs *pflag.FlagSet) {
	fs.Var((*given)(&f.failOver), "fail-over",
		"`LIMIT` fail if the image has more dead bytes than this\n"+
			"LIMIT is a size such as 5MB, or a share such as 2% of the image's own bytes. If "+
			"the image fails, the exit status is 3.")
	fs.Var((*commaList)(&f.failOn), "fail-on",
		"`KIND` fail if the image has findings of this kind\n"+
			"KIND is debris, secrets or a single kind of debris, such as package-lists. If the "+
			"image fails, the exit status is 3.")
	fs.Var((*givenList)(&f.accept), "accept", "`PATTERN` paths that these limits ignore")
	fs.Var((*given)(&f.config), "config", "`FILE` rules of the gate (default: "+
		analyze.ConfigFile+")\n"+
		"The default is the file of that name in the current directory, if there is one.")
}

func (f *analyzeFlags) prepare(e *env, args []string) (runFunc, error) {
	if err := oneImage(args); err != nil {
		return nil, err
	}
	rules, err := f.rules(".")
	if err != nil {
		return nil, err
	}
	if f.top < 1 {
		return nil, badValue("top", strconv.Itoa(f.top), errors.New("1 or more is expected"))
	}
	want, err := platform(e, f.platform)
	var githubErr error
	f.runner, githubErr = resolveGitHub(e, githubList{})
	if err := errors.Join(err, githubErr, f.check(e), f.state.resolve(e)); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return f.run(ctx, e, args[0], want, rules) }, nil
}

func (f *analyzeFlags) run(ctx context.Context, e *env, name string, want wanted,
	rules gateRules) error {
	return f.state.with(ctx, func(state *state.State, im *images) error {
		img, err := im.find(ctx, name, want)
		if err != nil {
			return err
		}
		r, err := f.analyze(ctx, state, im, img, rules)
		if err != nil {
			return err
		}
		r.Image = name
		if f.interactive {
			return browse.Run(ctx, r, e.stdin, e.stdout)
		}
		return f.report(e, r)
	})
}

// check returns an error for flags that cannot be combined.
func (f *analyzeFlags) check(e *env) error {
	if f.format == "html" && f.out == "" && term.IsTerminal(int(e.stdout.Fd())) {
		return errors.New("--format html: an output file is required, for example -o report.html")
	}
	if f.interactive && f.out != "" {
		return errors.New("--interactive shows the report in the terminal, and --output writes " +
			"it to a file: give one of them")
	}
	if f.interactive && !(term.IsTerminal(int(e.stdin.Fd())) &&
		term.IsTerminal(int(e.stdout.Fd()))) {
		return errors.New("--interactive: standard input and output are not a terminal")
	}
	return checkFile("output", f.out)
}

// gateRules are the rules from the flags and the configuration file.
type gateRules struct {
	analyze.Config
	wanted bool
}

// configError returns an error about the configuration file, which the user may not have named.
func (f *analyzeFlags) configError(name string, err error) error {
	if f.config == "" {
		return fmt.Errorf("%s: %w", name, err)
	}
	return badValue("config", f.config, err)
}

// rules reads the configuration file: the one that the flag names, or the one in dir. Flags take
// precedence over the file, but accepted paths of both are used.
func (f *analyzeFlags) rules(dir string) (gateRules, error) {
	var rules gateRules
	name, read := f.config, hostfile.ReadFile
	if name == "" {
		name, read = filepath.Join(dir, analyze.ConfigFile), hostfile.ReadRegular
	}
	data, err := read(name)
	switch {
	case err == nil:
		if rules.Config, err = analyze.ParseConfig(name, data); err != nil && f.config != "" {
			return rules, fmt.Errorf("--config: %w", err)
		} else if err != nil {
			return rules, err
		}
	case f.config != "" || !errors.Is(err, fs.ErrNotExist):
		return rules, f.configError(name, plainError(err))
	}
	if f.failOver != "" {
		if rules.FailOver, err = analyze.ParseThreshold(f.failOver); err != nil {
			return rules, fmt.Errorf("--fail-over: %w", err)
		}
	}
	if len(f.failOn) > 0 {
		rules.FailOn = f.failOn
		for _, name := range f.failOn {
			if err := analyze.CheckFailOn(name); err != nil {
				return rules, fmt.Errorf("--fail-on: %w", err)
			}
		}
	}
	rules.Accept = append(rules.Accept, f.accept...)
	if f.base != "" {
		if err := imageWord(f.base); err != nil {
			return rules, badValue("base", f.base, err)
		}
		rules.Base = f.base
	}
	rules.wanted = rules.FailOver != nil || len(rules.FailOn) > 0
	return rules, nil
}

func (f *analyzeFlags) analyze(ctx context.Context, state *state.State, im *images,
	img *image.Image, rules gateRules) (*analyze.Report, error) {
	base, err := im.ref(ctx, rules.Base)
	if err != nil {
		return nil, err
	}
	r, err := imageanalysis.Analyze(ctx, state, im.resolver, img,
		imageanalysis.Options{Base: base, Accept: rules.Accept})
	if err != nil {
		return nil, err
	}
	if rules.wanted {
		r.Check(analyze.Rules{FailOver: rules.FailOver, FailOn: rules.FailOn})
	}
	return r, nil
}

// forBuild checks the analysis flags of build. A gate in a flag or in the configuration file
// enables the analysis, too.
func (f *analyzeFlags) forBuild(e *env, o *imagebuild.Options) (gateRules, error) {
	if f.format == "" && f.failOver == "" && len(f.failOn) == 0 && f.config == "" {
		if len(f.accept) > 0 {
			return gateRules{}, badValue("accept", f.accept[0],
				errors.New(
					"it has no effect without --analyze, --fail-over, --fail-on or --config"))
		}
		return gateRules{}, nil
	}
	if o.Check || o.ListTargets || o.Outline {
		return gateRules{}, errors.New("--analyze, --fail-over, --fail-on and --config have no " +
			"effect with --check or --call: no image is made")
	}
	if !o.WantsImage() {
		return gateRules{}, errors.New(
			"--analyze: the outputs are files or cacheonly, and no image is made")
	}
	if f.format == "html" && len(o.Platforms) > 1 {
		return gateRules{}, errors.New(
			"--analyze=html: an HTML page shows one platform; use analyze --platform for each")
	}
	o.Analyze = true
	if err := f.check(e); err != nil {
		return gateRules{}, fmt.Errorf("--analyze: %w", err)
	}
	return f.rules(".")
}

// results analyzes the built image, for each platform.
func (f *analyzeFlags) results(ctx context.Context, b *finished) ([]*analyze.Report, error) {
	platforms := b.o.Platforms
	if len(platforms) == 0 {
		platforms = make([]ocispec.Platform, 1)
	}
	var list []*analyze.Report
	for _, p := range platforms {
		img, err := b.images.resolver.Resolve(ctx, b.res.Root.Digest.String(),
			image.ResolveOptions{Platform: p})
		if err != nil {
			return nil, err
		}
		r, err := f.analyze(ctx, b.state, b.images, img, b.rules)
		if err != nil {
			return nil, err
		}
		if len(b.res.Names) > 0 {
			r.Image = familiar(b.res.Names[0])
		}
		list = append(list, r)
	}
	return list, nil
}

// reportAll writes the reports, and returns the gate's status if one of them failed.
func (f *analyzeFlags) reportAll(e *env, reports []*analyze.Report) error {
	var failed error
	for _, r := range reports {
		if err := f.report(e, r); err != nil {
			var exit exitError
			if !errors.As(err, &exit) {
				return err
			}
			failed = err
		}
	}
	return failed
}

// columns returns the width of the terminal that a file is, and 0 for none.
func columns(f *os.File) int {
	if width, _, err := term.GetSize(int(f.Fd())); err == nil {
		return width
	}
	return 0
}

// report writes the report, and returns the gate's status if it failed.
func (f *analyzeFlags) report(e *env, r *analyze.Report) error {
	var b bytes.Buffer
	var err error
	switch f.format {
	case "json":
		err = r.WriteJSON(&b)
	case "markdown":
		err = r.WriteMarkdown(&b)
	case "html":
		err = html.Write(&b, r)
	case "sarif":
		log := sarif.New(sarifDriver())
		r.AddSARIF(log, sourcePath(e, f.dockerfile))
		err = printJSON(&b, log)
	default: // text, or a report for a gate of build
		o := analyze.TextOptions{Top: f.top}
		if f.out == "" && term.IsTerminal(int(e.stdout.Fd())) {
			o.Color = ui.Color(e.stdout, e.getenv)
			o.Width = columns(e.stdout)
		}
		err = r.WriteText(&b, o)
	}
	if err != nil {
		return err
	}
	if f.out == "" || f.out == "-" {
		out := e.text(e.stdout)
		if f.format == "json" || f.format == "sarif" {
			out = e.json(e.stdout)
		}
		_, err = out.Write(b.Bytes())
	} else {
		err = atomicfile.WriteFile(f.out, b.Bytes(), 0o644)
	}
	if err != nil || r.Gate == nil || r.Gate.Passed {
		return err
	}
	for _, failure := range r.Gate.Failures {
		fmt.Fprintf(e.text(e.stderr), "layerbuild: %s\n", analyze.Printable(failure))
	}
	f.runner.gate(e, r)
	return exitError{exitGate}
}

// find finds an image: in the store, by the path of a layout or an archive, or in a registry.
func (im *images) find(ctx context.Context, name string, want wanted) (*image.Image, error) {
	ref, err := im.ref(ctx, name)
	if err != nil {
		return nil, err
	}
	img, err := im.resolver.Resolve(ctx, ref, image.ResolveOptions{Platform: want.platform})
	if err != nil {
		return nil, err
	}
	return img, want.isFor(name, img)
}

// ref returns the resolver's name for an image argument. It first searches the store for a name, a
// digest or the prefix of a digest. If the store has none, the word may be a path or "oci:PATH"; a
// word of that form without a slash may also be a name. Any other word is returned unchanged.
func (im *images) ref(ctx context.Context, name string) (string, error) {
	if name == "" || name == "scratch" || image.HasPlace(name) {
		return name, nil
	}
	ref, _, err := im.resolver.Identify(ctx, name)
	if err == nil || !errors.Is(err, store.ErrNotFound) && store.IsShortID(name) {
		return ref, err
	}
	for _, scheme := range []string{image.SchemeOCI, image.SchemeOCIArchive,
		image.SchemeDockerArchive} {
		path, ok := strings.CutPrefix(name, scheme)
		if _, err := os.Stat(path); ok && err == nil {
			return scheme + "./" + path, nil
		}
	}
	if path, _, _ := strings.Cut(name, ":"); isImageFile(name) || isImageFile(path) {
		return image.SchemeLayout + name, nil
	}
	return name, nil
}

// isImageFile reports whether there is an archive or a layout at a path.
func isImageFile(path string) bool {
	fi, err := os.Stat(path)
	if err != nil {
		return false
	}
	if fi.IsDir() {
		_, err = os.Stat(filepath.Join(path, ocispec.ImageIndexFile))
		return err == nil
	}
	return fi.Mode().IsRegular()
}
