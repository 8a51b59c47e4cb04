package provenance

import (
	"context"
	"fmt"
	"strings"

	"github.com/layerbuild/layerbuild/internal/attest"
	"github.com/layerbuild/layerbuild/internal/platform"
	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// result is the result of a step; "" is the empty file system.
type result string

// steps are the steps of a build, with their lines.
type steps struct {
	list      []attest.Step
	locations map[string]attest.Locations
}

func newSteps() *steps { return &steps{locations: map[string]attest.Locations{}} }

// add adds a step that uses the results of others.
func (s *steps) add(op *attest.Op, used []string, lines parser.Range) result {
	id := fmt.Sprintf("step%d", len(s.list))
	s.list = append(s.list, attest.Step{ID: id, Op: op, Inputs: used})
	if lines.Start > 0 {
		s.locations[id] = attest.Locations{Locations: []attest.Location{{Ranges: []attest.Lines{{
			Start: attest.Position{Line: lines.Start}, End: attest.Position{Line: lines.End}}}}}}
	}
	return result(id + ":0")
}

// uses are the inputs of a step that is being made.
type uses []string

// add returns the index of a result, attest.NoIndex for the empty file system.
func (u *uses) add(r result) int {
	if r == "" {
		return attest.NoIndex
	}
	for i, have := range *u {
		if have == string(r) {
			return i
		}
	}
	*u = append(*u, string(r))
	return len(*u) - 1
}

// recorder walks a plan.
type recorder struct {
	ctx   context.Context // of Record: the callbacks of Plan.Check get none
	build *Build
	rec   *Record
	hide  func(string) string // replaces values that are secrets
	steps *steps

	sources map[string]result // the steps that fetch inputs
	ends    map[*parser.Stage]result
	heights map[*parser.Stage]int // number of layers after the last step
	err     error

	found   []attest.Material
	locals  map[string]bool
	secrets mounted
	agents  mounted
	network bool // a command has the network
	linked  bool // an input is the result of another build, whose inputs are not recorded
}

// run walks all stages.
func (r *recorder) run() error {
	r.locals, r.secrets, r.agents = map[string]bool{}, mounted{}, mounted{}
	r.addContexts()
	for _, v := range r.build.Volumes {
		r.locals["volume:"+v] = true
	}
	if r.build.ScansContext {
		r.input(parser.ContextInput{}, ocispec.Platform{}, parser.Range{})
	}
	for _, in := range r.build.Tools {
		img, err := r.build.Inputs.Resolve(r.ctx, in)
		if err != nil {
			return err
		}
		r.addImage(in.Ref, "", img, in.Platform)
	}
	err := r.build.Plan.Check(
		func(st *parser.Stage) (dockerspec.DockerOCIImage, error) {
			return r.build.Inputs.BaseConfig(r.ctx, st)
		},
		func(st *parser.Stage, step parser.Step) {
			if r.err == nil && r.ctx.Err() == nil {
				r.begin(st)
				r.step(st, step)
			}
		})
	if err != nil {
		return err
	}
	target := r.build.Plan.Target
	r.begin(target)
	r.rec.total = r.heights[target]
	var last uses
	last.add(r.ends[target])
	r.steps.add(nil, last, parser.Range{})
	return r.err
}

// begin records the base of a stage, once.
func (r *recorder) begin(st *parser.Stage) {
	if _, ok := r.ends[st]; ok || r.err != nil {
		return
	}
	switch in := st.Base.(type) {
	case parser.StageInput:
		r.begin(in.Stage)
		r.ends[st], r.heights[st] = r.ends[in.Stage], r.heights[in.Stage]
	case parser.Scratch:
		r.ends[st] = ""
	default:
		r.ends[st] = r.input(in, st.Platform, st.Range)
		r.heights[st] = r.layersOf(in)
		r.mark(st)
	}
}

// layersOf returns the number of layers of an input on which a stage is based.
func (r *recorder) layersOf(in parser.Input) int {
	if r.build.Inputs.IsLinked(in) {
		r.rec.unknown = true
		return 0
	}
	img, ok := r.image(in)
	if !ok {
		return 1 // the files of a context are one layer
	}
	got, err := r.build.Inputs.Resolve(r.ctx, img)
	if err != nil {
		r.fail(err)
		return 0
	}
	return len(got.Manifest.Layers)
}

// mark records how many layers of the image the result of a stage has, if it is part of the image.
func (r *recorder) mark(st *parser.Stage) {
	for _, own := range r.build.Plan.Target.Lineage() {
		if own == st && r.ends[st] != "" {
			r.rec.above[string(r.ends[st])] = r.heights[st]
		}
	}
}

func (r *recorder) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// image returns the image to which an input refers.
func (r *recorder) image(in parser.Input) (parser.ImageInput, bool) {
	switch in := in.(type) {
	case parser.ImageInput:
		return in, true
	case parser.ContextInput:
		return r.build.Inputs.ContextImage(in)
	}
	return parser.ImageInput{}, false
}

// input returns the result that an input is, and records the step that fetches it.
func (r *recorder) input(in parser.Input, p ocispec.Platform, lines parser.Range) result {
	switch in := in.(type) {
	case nil, parser.Scratch:
		return ""
	case parser.StageInput:
		r.begin(in.Stage)
		return r.ends[in.Stage]
	}
	if img, ok := r.image(in); ok {
		return r.imageStep(img, namedContext(in), lines)
	}
	name := namedContext(in)
	if r.build.Inputs.IsLinked(in) {
		r.linked = true
		return r.source("input:"+name, nil, p, parser.Range{})
	}
	c := r.build.Context
	if name != "" {
		var err error
		if c, err = r.build.Inputs.Named(r.ctx, name); err != nil {
			r.fail(err)
			return ""
		}
	}
	if m, ok := c.Material(); ok {
		return r.remoteStep(m, "", p, lines)
	}
	if name == "" {
		name = "context"
	}
	r.locals[name] = true
	return r.source("local://"+name, nil, p, parser.Range{})
}

// source returns the step that fetches an input, and adds it if there is none.
func (r *recorder) source(identifier string, attrs map[string]string, p ocispec.Platform,
	lines parser.Range) result {
	key := identifier + " " + platform.Format(p)
	if have, ok := r.sources[key]; ok {
		return have
	}
	op := &attest.Op{}
	if p.OS != "" {
		op.Platform = opPlatform(p)
	}
	op.Do.Source = &attest.SourceOp{Identifier: identifier, Attrs: attrs}
	r.sources[key] = r.steps.add(op, nil, lines)
	return r.sources[key]
}

// imageStep records an image.
func (r *recorder) imageStep(in parser.ImageInput, context string, lines parser.Range) result {
	img, err := r.build.Inputs.Resolve(r.ctx, in)
	if err != nil {
		r.fail(err)
		return ""
	}
	r.addImage(in.Ref, context, img, in.Platform)
	scheme, ref := "docker-image://", in.Ref
	if strings.HasPrefix(ref, "oci-layout:") {
		scheme, ref = "oci-layout://", context
	} else if n, err := reference.Parse(ref); err == nil {
		n = n.OrLatest()
		n.Digest = ""
		ref = n.String()
	}
	got := r.source(scheme+ref+"@"+img.Root.Digest.String(), nil, in.Platform, lines)
	r.rec.fixed[string(got)] = img.Manifest.Layers
	return got
}

// remoteStep records a repository or a download.
func (r *recorder) remoteStep(m source.Material, checksum string, p ocispec.Platform,
	lines parser.Range) result {
	r.addMaterial(m)
	if m.Commit == "" {
		var attrs map[string]string
		if checksum != "" {
			attrs = map[string]string{"http.checksum": checksum}
		}
		return r.source(m.URL, attrs, p, lines)
	}
	address, _, _ := strings.Cut(m.URL, "#")
	_, rest, ok := strings.Cut(m.URL, "://")
	if !ok {
		rest = m.URL
	}
	return r.source("git://"+rest, map[string]string{"git.fullurl": address}, p, lines)
}

// step records an instruction that has an action.
func (r *recorder) step(st *parser.Stage, step parser.Step) {
	op := &attest.Op{Platform: opPlatform(st.Platform)}
	var used uses
	switch a := step.Action.(type) {
	case nil:
		return
	case *parser.Run:
		r.exec(op, &used, st, step, a)
	case *parser.Copy:
		r.copy(op, &used, st, step, a)
	case *parser.Mkdir:
		act := attest.FileAction{Input: used.add(r.ends[st]), Secondary: attest.NoIndex}
		act.Action.MkDir = &attest.MkDir{Path: r.hide(a.Path), Mode: 0o755, MakeParents: true,
			Owner: owner(a.User, 0)}
		op.Do.File = &attest.FileOp{Actions: []attest.FileAction{act}}
	default:
		panic("unreachable")
	}
	if r.err != nil {
		return
	}
	r.ends[st] = r.steps.add(op, used, step.Range)
	r.heights[st]++ // each action has one layer, which may be empty
	r.mark(st)
}

func opPlatform(p ocispec.Platform) *attest.OpPlatform {
	return &attest.OpPlatform{Architecture: p.Architecture, OS: p.OS, Variant: p.Variant,
		OSVersion: p.OSVersion, OSFeatures: p.OSFeatures}
}

func (r *recorder) hideAll(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = r.hide(s)
	}
	return out
}
