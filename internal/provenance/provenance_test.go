package provenance

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/internal/attest"
	"github.com/layerbuild/layerbuild/internal/inputs"
	"github.com/layerbuild/layerbuild/internal/secret"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/moby/buildkit/solver/llbsolver/provenance/types"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const dockerfile = `FROM scratch AS base
ARG API_TOKEN
ADD --chown=1:users --chmod=u+x a /b/
FROM base AS app
ARG V
COPY --from=base --chmod=0640 --exclude=*.o /b /c /d/
COPY <<E /inline
text
E
RUN --mount=type=secret,id=s,required=true,mode=0400 --mount=type=secret,id=e,env=E \
  --mount=type=cache,target=/cache,sharing=locked --mount=type=tmpfs,target=/t,size=5 \
  --mount=type=ssh --mount=type=bind,from=base,source=/b,target=/m --network=none echo $API_TOKEN
WORKDIR /w/$API_TOKEN
RUN --device=v.com/c=d --device=class,required <<E
#!/bin/sh
echo
E
`

// testBuild returns a build of a Dockerfile without images.
func testBuild(t *testing.T, text string, args map[string]string) *Build {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	in := inputs.New(inputs.Options{Secrets: &secret.Store{},
		Index: func() (source.IndexPlace, error) {
			return source.IndexPlace{Dir: t.TempDir()}, nil
		}})
	t.Cleanup(func() {
		if err := in.Close(); err != nil {
			t.Error(err)
		}
	})
	c, err := in.Main(t.Context(), dir, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := parser.Parse("Dockerfile", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	p, err := f.Plan(parser.PlanOptions{BuildArgs: args,
		Platform: ocispec.Platform{OS: "linux", Architecture: "arm64"}})
	if err != nil {
		t.Fatal(err)
	}
	return &Build{Plan: p, Inputs: in, Context: c, Dockerfile: "/somewhere/Dockerfile",
		Text: []byte(text), Request: Request{Args: args}, ID: "id", Version: "v1",
		Started: time.Unix(1, 0), Finished: time.Unix(2, 0)}
}

// TestSteps checks the steps of each kind of instruction. BuildKit's types read all of them.
func TestSteps(t *testing.T) {
	args := map[string]string{"API_TOKEN": "s3cr3t", "V": "1"}
	rec, err := testBuild(t, dockerfile, args).Record(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	layers := make([]ocispec.Descriptor, 6)
	for i := range layers {
		layers[i] = ocispec.Descriptor{Size: int64(i + 1),
			Digest: ocispec.DescriptorEmptyJSON.Digest, Annotations: map[string]string{"a": "b"}}
	}
	p := rec.Predicate(layers)
	data, err := attest.Provenance{}.Encode(p)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), "s3cr3t") {
		t.Errorf("the value of a secret is in\n%s", data)
	}
	var got []string
	for _, s := range p.BuildDefinition.InternalParameters.BuildConfig.Definition {
		var op any
		if s.Op != nil {
			op = s.Op.Do
		}
		text, err := json.Marshal(op)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, strings.Join(append([]string{s.ID}, s.Inputs...), " ")+" "+string(text))
	}
	golden, err := os.ReadFile(filepath.Join("testdata", "steps.txt"))
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSpace(string(golden)), "\n")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	var theirs types.ProvenancePredicateSLSA1
	if err := json.Unmarshal(data, &theirs); err != nil {
		t.Fatal(err)
	}
	if n := len(theirs.BuildDefinition.InternalParameters.BuildConfig.Definition); n != len(want) {
		t.Errorf("BuildKit reads %d steps", n)
	}
	sizes := map[string]int{}
	for key, chains := range p.RunDetails.Metadata.Details.Layers {
		last := chains[0][len(chains[0])-1]
		if sizes[key] = len(chains[0]); last.Annotations != nil || int(last.Size) != sizes[key] {
			t.Errorf("%s ends with %+v", key, last)
		}
	}
	if diff := cmp.Diff(map[string]int{"step1:0": 1, "step2:0": 2, "step3:0": 3, "step4:0": 4,
		"step5:0": 5, "step7:0": 6}, sizes); diff != "" {
		t.Errorf("layers: %s", diff)
	}
	if got := rec.Predicate(nil).RunDetails.Metadata.Details.Layers; len(got) > 0 {
		t.Errorf("files without an image have the layers %v", got)
	}
}

// TestRequest checks the parameters, the completeness and the times.
func TestRequest(t *testing.T) {
	b := testBuild(t, dockerfile, map[string]string{"API_TOKEN": "s3cr3t", "V": "x-s3cr3t-y"})
	b.Request.Labels = []string{"l=1", "empty", "url=https://u:p@host/l"}
	b.Request.Target = "app"
	b.Request.Contexts = map[string]string{"dir": "/home/x", "img": "docker-image://a",
		"repo": "https://u:p@host/r.git"}
	b.Request.Others = map[string]string{"no-cache": ""}
	rec, err := b.Record(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := rec.Predicate(nil)
	ext := p.BuildDefinition.ExternalParameters
	want := attest.External{ConfigSource: attest.ConfigSource{Path: "Dockerfile"},
		Request: attest.Request{Frontend: attest.Frontend,
			Args: map[string]string{"build-arg:V": "x-****-y", "label:l": "1", "label:empty": "",
				"label:url": "https://xxxxx:xxxxx@host/l", "target": "app",
				"context:dir": "local:dir", "context:img": "docker-image://a",
				"context:repo": "https://xxxxx:xxxxx@host/r.git", "no-cache": ""},
			Secrets: []attest.Mounted{{ID: "e", Optional: true}, {ID: "s"}},
			SSH:     []attest.Mounted{{ID: "default", Optional: true}},
			Locals:  []attest.Local{{Name: "context"}, {Name: "dockerfile"}}}}
	if diff := cmp.Diff(want, ext); diff != "" {
		t.Error(diff)
	}
	m := p.RunDetails.Metadata
	if m.Completeness.Request || m.Completeness.ResolvedDependencies || m.Hermetic ||
		!m.StartedOn.Equal(time.Unix(1, 0)) || !m.FinishedOn.Equal(time.Unix(2, 0)) ||
		m.InvocationID != "id" {
		t.Errorf("metadata %+v", m)
	}
	if got := p.BuildDefinition.InternalParameters.TargetPlatform; got != "linux/arm64" {
		t.Errorf("platform %s", got)
	}
}

// TestEpoch checks that two runs with an epoch have equal predicates, and without one others.
func TestEpoch(t *testing.T) {
	const text = "FROM scratch\nCOPY Dockerfile /\n"
	epoch := int64(1000)
	var all []string
	for _, e := range []*int64{&epoch, &epoch, nil, nil} {
		b := testBuild(t, text, nil)
		b.Epoch, b.ID = e, strings.Repeat("i", len(all)+1)
		rec, err := b.Record(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		data, err := json.Marshal(rec.Predicate(nil))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, string(data))
	}
	if all[0] != all[1] || !strings.Contains(all[0], `"startedOn":"1970-01-01T00:16:40Z"`) {
		t.Errorf("with an epoch: %s\nand\n%s", all[0], all[1])
	}
	if all[2] == all[3] {
		t.Errorf("without an epoch two runs have the same predicate:\n%s", all[2])
	}
}
