package imagebuild

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/attest"
	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/outputs"
	"github.com/layerbuild/layerbuild/internal/provenance"
	"github.com/layerbuild/layerbuild/internal/sbom"
	"github.com/layerbuild/layerbuild/internal/scanner"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
)

// AttestOptions determine what is recorded about a build.
type AttestOptions struct {
	attest.Options
	// Metadata sets whether Result.Metadata has the provenance: with the steps if it is "max",
	// without them if it is "min", and not at all if it is "".
	Metadata string
	// Version is the version of this program.
	Version string
}

// attester makes the attestations of the images of a build.
type attester struct {
	b       *builder
	started time.Time
	id      string // of the run
}

func newAttester(b *builder) *attester {
	return &attester{b: b, started: time.Now(), id: strings.ToLower(rand.Text())}
}

// check returns an error for a generator that does not exist, before anything runs.
func (a *attester) check(ctx context.Context) error {
	s := a.b.opts.Attest.SBOM
	if s == nil || s.Generator == "" {
		return nil
	}
	if _, err := a.b.in.Resolve(ctx, scanner.Image(*s)); err != nil {
		return fmt.Errorf("--sbom generator=%s: %w", s.Generator, err)
	}
	return nil
}

// attested sets the attestations of the result of one platform, which must be complete otherwise.
func (a *attester) attested(ctx context.Context, p plan, s *build.Solver, t build.Target,
	out *outputs.Built) error {
	o := &a.b.opts.Attest
	scan := &scan{b: a.b, plan: p.plan, solver: s, target: t}
	if err := scan.prepare(ctx); err != nil {
		return err
	}
	var rec *provenance.Record
	if o.Provenance != nil || o.Metadata != "" {
		var err error
		if rec, err = a.record(ctx, p.plan); err != nil {
			return err
		}
	}
	if o.Metadata != "" {
		all := attest.Provenance{Version: attest.V02, BuilderID: a.builderID()}
		var err error
		out.Provenance, err = all.ForMetadata(rec.Predicate(nil), o.Metadata == "max")
		if err != nil {
			return err
		}
	}
	if !o.Any() {
		return nil
	}
	out.Attestations = func(ctx context.Context,
		made outputs.Made) (list []attest.Attestation, err error) {
		if o.SBOM != nil {
			if list, err = scan.list(ctx, made); err != nil {
				return nil, err
			}
		}
		if o.Provenance == nil {
			return list, nil
		}
		predicate, err := o.Provenance.Encode(rec.Predicate(made.Layers))
		if err != nil {
			return nil, fmt.Errorf("--provenance: %w", err)
		}
		return append(list, attest.Attestation{PredicateType: o.Provenance.PredicateType(),
			Predicate: predicate, Filename: o.Provenance.File(),
			InlineOnly: o.Provenance.InlineOnly}), nil
	}
	return nil
}

// builderID returns the identifier of the machine or service that builds.
func (a *attester) builderID() string {
	if p := a.b.opts.Attest.Provenance; p != nil {
		return p.BuilderID
	}
	return ""
}

// record returns the provenance of one platform.
func (a *attester) record(ctx context.Context, p *parser.Plan) (*provenance.Record, error) {
	o := &a.b.opts
	b := provenance.Build{
		Plan: p, Inputs: a.b.in, Context: a.b.file.context, Dockerfile: a.b.file.name,
		Text: a.b.file.text, Network: o.Run.Network, ID: a.id, Started: a.started,
		Finished: time.Now(), Epoch: a.b.writer.Options.Epoch, Version: o.Attest.Version,
		Request: provenance.Request{Args: o.Args, Labels: o.Image.Labels, Target: o.Target,
			Contexts: o.Source.Contexts, Others: a.parameters()},
	}
	for _, v := range o.Run.Volumes {
		b.Volumes = append(b.Volumes, v.Target)
	}
	if s := o.Attest.SBOM; s != nil {
		_, b.ScansContext = p.Scans()
		if s.Generator != "" {
			b.Tools = append(b.Tools, scanner.Image(*s))
		}
	}
	return b.Record(ctx)
}

// parameters returns the parameters of the command line with the names that BuildKit gives them,
// without those that have names of their own in a provenance.Request.
func (a *attester) parameters() map[string]string {
	o := &a.b.opts
	m := map[string]string{}
	if o.Cache.No {
		m["no-cache"] = ""
	} else if len(o.Cache.NoStages) > 0 {
		m["no-cache"] = strings.Join(o.Cache.NoStages, ",")
	}
	if o.Run.Network == "none" {
		m["force-network-mode"] = o.Run.Network
	}
	if o.Run.ShmSize > 0 {
		m["shm-size"] = fmt.Sprint(o.Run.ShmSize)
	}
	var hosts, limits []string
	for _, h := range o.Run.Hosts {
		hosts = append(hosts, h.Name+"="+h.IP)
	}
	for _, l := range o.Run.Ulimits {
		limits = append(limits, fmt.Sprintf("%s=%d:%d", l.Name, l.Soft, l.Hard))
	}
	for name, list := range map[string][]string{"add-hosts": hosts, "ulimit": limits} {
		if len(list) > 0 {
			m[name] = strings.Join(list, ",")
		}
	}
	if isSet(o.Args, multiPlatformArg) {
		m["multi-platform"] = "true"
	}
	return m
}

// scan lists the software of the image of one platform.
type scan struct {
	b      *builder
	plan   *parser.Plan
	solver *build.Solver
	target build.Target

	found  []attest.Attestation   // of a generator
	extras map[string]snapshot.ID // for the built-in scanner, by name
}

// platform returns the platform as text.
func (s *scan) platform() string { return parser.FormatPlatform(s.plan.Target.Platform) }

// prepare runs the generator, or makes the additional file systems for the built-in scanner.
func (s *scan) prepare(ctx context.Context) (err error) {
	o := s.b.opts.Attest.SBOM
	if o == nil {
		return nil
	}
	if o.Generator != "" {
		run := scanner.Scan{Solver: s.solver, Inputs: s.b.in, Plan: s.plan, SBOM: *o,
			Platform: s.platform()}
		s.found, err = run.Run(ctx)
		return err
	}
	s.extras = map[string]snapshot.ID{}
	stages, context := s.plan.Scans()
	for _, st := range stages {
		if s.extras["sbom-"+st.ScanName()], err = s.solver.StageFiles(ctx, st); err != nil {
			return err
		}
	}
	if context {
		s.extras["sbom-context"], err = s.solver.ContextFiles(ctx)
	}
	return err
}

// list returns the lists of software: that of the image, and those of stages and of the context.
func (s *scan) list(ctx context.Context, made outputs.Made) (list []attest.Attestation,
	err error) {
	if s.b.opts.Attest.SBOM.Generator != "" {
		return s.found, nil
	}
	id := event.ID(fmt.Sprintf("sbom %s %s", s.platform(), made.Manifest.Digest))
	sink := s.b.opts.Sink
	sink(event.Start{ID: id, Name: fmt.Sprintf("[%s] generating sbom", s.platform()),
		Time: time.Now()})
	note := ""
	defer func() { sink(event.Done{ID: id, Err: err, Note: note, Time: time.Now()}) }()
	image := s.image(made)
	packages := 0
	add := func(name string, doc *sbom.Document) error {
		for _, w := range doc.Warnings {
			sink(event.Warning{ID: id, Message: "the list of packages: " + w, Time: time.Now()})
		}
		var data bytes.Buffer
		err := doc.SPDX(&data)
		packages += len(doc.Packages)
		list = append(list, attest.Attestation{PredicateType: attest.PredicateSPDX,
			Predicate: json.RawMessage(data.Bytes()), Filename: name + ".spdx.json"})
		return err
	}
	doc, err := sbom.Scan(ctx, image)
	if err == nil {
		err = add("sbom", doc)
	}
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(s.extras)) {
		extra := image
		extra.Name, extra.Digest = name, ""
		extra.Layers = []sbom.Layer{s.files(s.extras[name])}
		if doc, err = sbom.Scan(ctx, extra); err == nil {
			err = add(name, doc)
		}
		if err != nil {
			return nil, err
		}
	}
	note = fmt.Sprintf("%d packages", packages)
	return list, nil
}

// image describes the image for the built-in scanner. If only files are exported, all of them are
// one layer.
func (s *scan) image(made outputs.Made) sbom.Layers {
	img := sbom.Layers{Digest: made.Manifest.Digest, Platform: s.plan.Target.Platform,
		Tool: s.b.opts.Attest.Version}
	if names := s.b.opts.Image.Names; len(names) > 0 {
		img.Name = names[0]
	}
	if c := s.target.Config.Created; c != nil {
		img.Created = *c
	}
	if epoch := s.b.writer.Options.Epoch; epoch != nil {
		img.Created = time.Unix(*epoch, 0).UTC()
	}
	if len(made.Layers) != len(s.target.Layers) {
		img.Layers = []sbom.Layer{s.files(s.target.Top)}
		return img
	}
	origins := s.target.LayerOrigins()
	store := s.b.all.state.Store
	for i, d := range made.Layers {
		l := sbom.Layer{Digest: d.Digest, Origin: sbom.Origin{Base: origins[i] == nil}}
		if !made.Pruned {
			l.DiffID = s.target.Layers[i].DiffID
		}
		if o := origins[i]; o != nil {
			l.Origin = sbom.Origin{Instruction: o.Text, Stage: o.Stage.Name, Line: o.Lines.Start,
				EndLine: o.Lines.End}
		}
		l.Read = func(ctx context.Context, use func(io.Reader) error) error {
			r, err := store.Fetch(ctx, d)
			if err != nil {
				return err
			}
			defer r.Close()
			return use(r)
		}
		img.Layers = append(img.Layers, l)
	}
	return img
}

// files returns the files of a snapshot as a layer for the built-in scanner.
func (s *scan) files(top snapshot.ID) sbom.Layer {
	return sbom.Layer{Read: func(ctx context.Context, use func(io.Reader) error) error {
		return through(func(w io.Writer) error {
			return layers.WriteFiles(ctx, w, s.b.all.state, s.b.attempt.layers.Lazy, top,
				s.b.writer.Options.Epoch)
		}, use)
	}}
}

// through calls use with what write writes. If use ends before, write gets an error.
func through(write func(io.Writer) error, use func(io.Reader) error) error {
	r, w := io.Pipe()
	wrote := make(chan error, 1)
	go func() {
		err := write(w)
		w.CloseWithError(err)
		wrote <- err
	}()
	err := use(r)
	r.CloseWithError(io.ErrClosedPipe)
	if werr := <-wrote; err == nil && werr != io.ErrClosedPipe {
		err = werr
	}
	return err
}
