package imagebuild

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/export"
	"github.com/layerbuild/layerbuild/internal/build"
	"github.com/layerbuild/layerbuild/internal/event"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// target returns the options of a build with a Dockerfile of its own.
func (f *fixture) target(name, text string) Options {
	f.t.Helper()
	file := filepath.Join(f.context, name+".Dockerfile")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
	return Options{Name: name, Source: SourceOptions{Context: f.context, Dockerfile: file}}
}

// buildAll runs builds together.
func (f *fixture) buildAll(ctx context.Context, list ...Options) ([]*Result, error) {
	f.t.Helper()
	f.steps.ran, f.events = nil, nil
	for i := range list {
		list[i].Sink = func(e event.Event) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.events = append(f.events, e)
		}
	}
	parts := DefaultParts(f.state, nil)
	parts.Engine.Run, parts.Engine.Images = f.steps.run, nil
	parts.BaseImages, parts.Artifacts = &f.images, &f.images
	open := descriptors(f.t)
	res, err := BuildAllWith(ctx, f.state, nil, list, parts)
	if now := descriptors(f.t); now != open {
		f.t.Errorf("%d files are open after the build, and %d were before", now, open)
	}
	if left := f.left(); len(left) > 0 {
		f.t.Errorf("the build has left %q", left)
	}
	return res, err
}

// mustAll is like buildAll, and fails the test if a build fails.
func (f *fixture) mustAll(list ...Options) []*Result {
	f.t.Helper()
	res, err := f.buildAll(f.t.Context(), list...)
	if err != nil {
		f.t.Fatal(err)
	}
	return res
}

// image returns the manifest and the configuration of a result.
func (f *fixture) image(res *Result) (m ocispec.Manifest, config ocispec.Image) {
	f.t.Helper()
	f.read(res.Root, &m)
	f.read(m.Config, &config)
	return m, config
}

// TestCommonSteps runs builds with equal steps together: each runs once, and the images share its
// layer.
func TestCommonSteps(t *testing.T) {
	f := newFixture(t)
	const common = "FROM scratch AS base\nRUN write common 1\nRUN write more 2\nFROM base\n"
	other := common + "RUN write b 1\n"
	res := f.mustAll(f.target("a", common+"RUN write a 1\n"), f.target("b", other),
		f.target("c", common))
	f.want("together", "write common 1", "write more 2", "write a 1", "write b 1")
	a, _ := f.image(res[0])
	b, _ := f.image(res[1])
	c, _ := f.image(res[2])
	if len(c.Layers) != 2 || len(a.Layers) != 3 || len(b.Layers) != 3 ||
		a.Layers[0].Digest != b.Layers[0].Digest || a.Layers[1].Digest != c.Layers[1].Digest ||
		a.Layers[2].Digest == b.Layers[2].Digest {
		t.Errorf("layers %v, %v, %v", a.Layers, b.Layers, c.Layers)
	}
	ids := map[event.ID]string{}
	for _, e := range f.events {
		if s, ok := e.(event.Start); ok {
			if have, ok := ids[s.ID]; ok {
				t.Errorf("%q and %q have the ID %s", have, s.Name, s.ID)
			}
			if ids[s.ID] = s.Name; !slices.ContainsFunc([]string{"[a", "[b", "[c"},
				func(p string) bool { return strings.HasPrefix(s.Name, p) }) {
				t.Errorf("the name %q does not have that of the target", s.Name)
			}
		}
	}
	f.mustAll(f.target("b", other))
	f.want("again")
}

// TestLinkedTarget builds a target that has the result of another one as a named context: as the
// base of a stage, and as the source of a COPY.
func TestLinkedTarget(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: the files of a stage are mounted")
	}
	f := newFixture(t)
	base := f.target("base", "FROM scratch\nENV A=1\nRUN write base 1\nLABEL of=base\n")
	base.Outputs = []export.Spec{{Type: export.TypeCacheOnly}}
	app := f.target("app", "FROM main\nRUN write $A app\nFROM scratch AS x\nCOPY --from=main / /\n"+
		"FROM main\nRUN write app 1\n")
	app.Source.Contexts = map[string]string{"main": "target:base"}
	res := f.mustAll(app, base)
	f.want("together", "write base 1", "write app 1")
	m, config := f.image(res[0])
	if len(m.Layers) != 2 || len(config.History) != 4 || config.Config.Labels["of"] != "base" ||
		!slices.Contains(config.Config.Env, "A=1") {
		t.Errorf("layers %v, configuration %+v, history %+v", m.Layers, config.Config,
			config.History)
	}
	if res[1].Root.Digest != "" {
		t.Errorf("the other target has the image %s", res[1].Root.Digest)
	}
	app.Target = "x"
	f.mustAll(app, base)
	f.want("a copy")
	base.Image.Labels = []string{"of=flag"}
	app.Target = ""
	res = f.mustAll(app, base)
	if _, config := f.image(res[0]); config.Config.Labels["of"] != "flag" {
		t.Errorf("labels %v, want that of --label", config.Config.Labels)
	}
}

// TestLinkedPlatforms builds linked targets for two platforms: each platform has its own base.
func TestLinkedPlatforms(t *testing.T) {
	f := newFixture(t)
	platforms := []ocispec.Platform{linux("amd64"), linux("arm64")}
	base := f.target("base", "FROM scratch\nARG TARGETARCH\nENV ARCH=$TARGETARCH\n")
	app := f.target("app", "FROM main\nRUN write $ARCH 1\n")
	app.Source.Contexts = map[string]string{"main": "target:base"}
	app.Platforms, base.Platforms = platforms, platforms
	res := f.mustAll(app, base)
	var index ocispec.Index
	f.read(res[0].Root, &index)
	if len(index.Manifests) != 2 {
		t.Fatalf("manifests %v", index.Manifests)
	}
	for i, d := range index.Manifests {
		var m ocispec.Manifest
		var config ocispec.Image
		f.read(d, &m)
		f.read(m.Config, &config)
		if want := "ARCH=" + platforms[i].Architecture; !slices.Contains(config.Config.Env, want) {
			t.Errorf("%s: environment %v, want %s", platforms[i].Architecture, config.Config.Env,
				want)
		}
	}
}

// TestTargetFails runs builds of which one fails: it is named, and ends the others.
func TestTargetFails(t *testing.T) {
	f := newFixture(t)
	f.steps.waiting = func() {}
	for _, tt := range []struct {
		name, text string
		line       int
	}{
		{"a command", "FROM scratch\nRUN fail\n", 2},
		{"a mistake", "FROM scratch\nEXPOSE x\n", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.t = t
			res, err := f.buildAll(t.Context(), f.target("good", "FROM scratch\nRUN wait\n"),
				f.target("bad", tt.text))
			target, ok := errors.AsType[*TargetError](err)
			if !ok || target.Name != "bad" {
				t.Fatalf("error %v, want that of the target bad", err)
			}
			step, ok := errors.AsType[*build.StepError](err)
			if tt.line > 0 && (!ok || step.Range.Start != tt.line) {
				t.Errorf("error %v, want one in line %d", err, tt.line)
			}
			if string(res[1].Text) != tt.text || res[0].Root.Digest != "" {
				t.Errorf("results %+v, %+v", res[0], res[1])
			}
		})
	}
}

// TestTargetCycle builds targets that are contexts of each other.
func TestTargetCycle(t *testing.T) {
	f := newFixture(t)
	a, b := f.target("a", "FROM x\n"), f.target("b", "FROM x\n")
	a.Source.Contexts = map[string]string{"x": "target:b"}
	b.Source.Contexts = map[string]string{"x": "target:a"}
	_, err := f.buildAll(t.Context(), a, b)
	if err == nil || !strings.Contains(err.Error(), "has itself as a context") {
		t.Errorf("error %v", err)
	}
}

// TestLinkedEnd links a build to one that is only checked.
func TestLinkedEnd(t *testing.T) {
	f := newFixture(t)
	a, b := f.target("a", "FROM x\nRUN write a 1\n"), f.target("b", "FROM scratch\nENV A=1\n")
	a.Source.Contexts, b.Check = map[string]string{"x": "target:b"}, true
	_, err := f.buildAll(t.Context(), a, b)
	if err == nil || !strings.Contains(err.Error(), "needs the result of target b") {
		t.Errorf("error %v", err)
	}
	a.Check = true
	f.mustAll(a, b)
	f.want("a check")
}

// TestDifferentEnds runs a check and a list of stages together with a build.
func TestDifferentEnds(t *testing.T) {
	f := newFixture(t)
	a, b := f.target("a", "FROM scratch\nRUN write a 1\n"), f.target("b", "FROM scratch as x\n")
	c := f.target("c", "FROM scratch AS y\n")
	b.Check, c.ListTargets = true, true
	res := f.mustAll(a, b, c)
	f.want("together", "write a 1")
	if res[0].Root.Digest == "" || len(res[1].Warnings) != 1 || res[2].Targets[0].Name != "y" {
		t.Errorf("results %+v, %+v, %+v", res[0], res[1], res[2])
	}
}
