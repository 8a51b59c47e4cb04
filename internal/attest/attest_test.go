package attest

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// example returns a predicate with a value in each field.
func example() Predicate {
	var p Predicate
	d := &p.BuildDefinition
	d.ExternalParameters.ConfigSource = ConfigSource{URI: "https://host/r.git#main",
		Digest: DigestSet{"sha1": strings.Repeat("1", 40)}, Path: "Dockerfile"}
	d.ExternalParameters.Request = Request{Frontend: Frontend,
		Args:    map[string]string{"build-arg:A": "1", "label:l": "2", "target": "x"},
		Secrets: []Mounted{{ID: "s", Optional: true}}, SSH: []Mounted{{ID: "default"}},
		Locals: []Local{{Name: "context"}}}
	d.InternalParameters.BuilderPlatform = "linux/amd64"
	d.InternalParameters.DockerfileVersion = "1.28.0"
	d.InternalParameters.TargetPlatform = "linux/arm64"
	d.InternalParameters.BuildConfig = &BuildConfig{Definition: exampleSteps()}
	d.ResolvedDependencies = []Material{
		{URI: "pkg:docker/a@1?platform=linux%2Famd64",
			Digest: DigestSet{"sha256": strings.Repeat("2", 64)}},
		{URI: "https://host/file", Digest: DigestSet{"sha256": strings.Repeat("3", 64)}}}
	p.RunDetails.Builder.Version = map[string]string{"layerbuild": "v1"}
	start, end := time.Unix(1, 0).UTC(), time.Unix(2, 0).UTC()
	p.RunDetails.Metadata = Metadata{InvocationID: "id", StartedOn: &start, FinishedOn: &end,
		Hermetic: true, Completeness: CompletenessV1{Request: true, ResolvedDependencies: true},
		Details: Details{VCS: map[string]string{"revision": "r"},
			Source: &Source{Infos: []SourceInfo{{Filename: "Dockerfile", Language: "Dockerfile",
				Data: []byte("FROM a\n")}},
				Locations: map[string]Locations{"step1": {Locations: []Location{{
					Ranges: []Lines{{Start: Position{Line: 1}, End: Position{Line: 2}}}}}}}},
			Layers: map[string][][]ocispec.Descriptor{
				"step1:0": {{ocispec.DescriptorEmptyJSON}}}}}
	return p
}

// exampleSteps returns one step of each kind.
func exampleSteps() []Step {
	src, exec, file := &Op{}, &Op{}, &Op{}
	src.Do.Source = &SourceOp{Identifier: "docker-image://docker.io/library/a:1",
		Attrs: map[string]string{"k": "v"}}
	src.Platform = &OpPlatform{Architecture: "amd64", OS: "linux", Variant: "v2", OSVersion: "1",
		OSFeatures: []string{"f"}}
	exec.Do.Exec = &Exec{Meta: Meta{Args: []string{"sh"}, Env: []string{"A=1"}, Cwd: "/w",
		User: "u"}, Network: NetworkNone, Security: SecurityInsecure,
		SecretEnv: []SecretEnv{{ID: "s", Name: "S", Optional: true}},
		Devices:   []CDIDevice{{Name: "v.com/c=d", Optional: true}, {Name: "class"}},
		Mounts: []OpMount{{Dest: "/"},
			{Input: NoIndex, Output: NoIndex, Dest: "/c", MountType: MountCache, Selector: "/x",
				ReadOnly: true, Cache: &CacheOpt{ID: "c", Sharing: ShareLocked}},
			{Input: NoIndex, Output: NoIndex, Dest: "/t", MountType: MountTmpfs,
				Tmpfs: &TmpfsOpt{Size: 5}},
			{Input: NoIndex, Output: NoIndex, Dest: "/s", MountType: MountSecret,
				Secret: &OwnedOpt{ID: "s", UID: 1, GID: 2, Mode: 0o400, Optional: true}},
			{Input: NoIndex, Output: NoIndex, Dest: "/h", MountType: MountSSH,
				SSH: &OwnedOpt{ID: "default", UID: 1, GID: 2, Mode: 0o600, Optional: true}}}}
	owner := &Chown{User: &Principal{}, Group: &Principal{}}
	owner.User.User.ByName = &NamedUser{Name: "u", Input: 1}
	owner.Group.User.ByID = 7
	var cp, mkfile, mkdir FileAction
	cp.Secondary, cp.Output = 1, NoIndex
	cp.Action.Copy = &CopyFiles{Src: "/a", Dest: "/b", Owner: owner, Mode: NoIndex, ModeStr: "u+x",
		Follow: true, Content: true, Unpack: true, Create: true, Wild: true,
		Exclude: []string{"*.o"}}
	mkfile.Input = 2
	mkfile.Action.MkFile = &MkFile{Path: "/f", Mode: 0o644, Data: []byte("x")}
	mkdir.Secondary = NoIndex
	mkdir.Action.MkDir = &MkDir{Path: "/d", Mode: 0o755, MakeParents: true, Owner: owner}
	file.Do.File = &FileOp{Actions: []FileAction{cp, mkfile, mkdir}}
	return []Step{{ID: "step0", Op: src}, {ID: "step1", Op: exec, Inputs: []string{"step0:0"}},
		{ID: "step2", Op: file, Inputs: []string{"step1:0", "step0:0"}},
		{ID: "step3", Inputs: []string{"step2:0"}}}
}

// TestParse checks the grammar of the flags, and their conflicts.
func TestParse(t *testing.T) {
	max, min := &Provenance{Version: V1}, &Provenance{Version: V1, Min: true}
	one := func(v string) Flags { return Flags{Provenance: v} }
	for _, tt := range []struct {
		f    Flags
		want Options
		err  string
	}{
		{Flags{}, Options{}, ""},
		{one("true"), Options{Provenance: max}, ""},
		{one("1"), Options{Provenance: max}, ""},
		{one("false"), Options{}, ""},
		{one("max"), Options{Provenance: max}, ""},
		{one("min"), Options{Provenance: min}, ""},
		{one("mode=full"), Options{Provenance: max}, ""},
		{one("disabled=true"), Options{}, ""},
		{one("disabled=false,mode=min"), Options{Provenance: min}, ""},
		{one("mode=min,version=v0.2,builder-id=https://ci/1,disable-env=true,inline-only=true," +
			"reproducible=true,complete-materials=1,filename=p.json,capture-usage=false"),
			Options{Provenance: &Provenance{Min: true, Version: V02, BuilderID: "https://ci/1",
				NoEnvironment: true, InlineOnly: true, Reproducible: true, Complete: true,
				Filename: "p.json"}}, ""},
		{one(`"builder-id=a,b",Mode=min`), Options{Provenance: &Provenance{Version: V1, Min: true,
			BuilderID: "a,b"}}, ""},
		{one("type=provenance,mode=min"), Options{Provenance: min}, ""},
		{Flags{SBOM: "true"}, Options{SBOM: &SBOM{}}, ""},
		{Flags{SBOM: "false"}, Options{}, ""},
		{Flags{SBOM: "generator=a/b:1,EXTRA=x"}, Options{SBOM: &SBOM{Generator: "a/b:1",
			Parameters: map[string]string{"EXTRA": "x"}}}, ""},
		{Flags{Attest: []string{"type=sbom", "type=provenance,mode=min"}},
			Options{Provenance: min, SBOM: &SBOM{}}, ""},
		{Flags{Attest: []string{"type=sbom,disabled=true"}}, Options{}, ""},

		{one("maximum"), Options{}, "true, false, min, max or KEY=VALUE,… is expected"},
		{Flags{SBOM: "yes"}, Options{}, "true, false or KEY=VALUE,… is expected"},
		{one("min,max"), Options{}, `"min" is not KEY=VALUE`},
		{one("mode=mid"), Options{}, `unknown mode "mid": did you mean min?`},
		{one("version=1"), Options{}, `unknown version "1"`},
		{one("bilder-id=x"), Options{}, "did you mean builder-id?"},
		{one("inline-only=x"), Options{}, `inline-only is "x": true or false is expected`},
		{one("filename=a/b"), Options{}, "a name without slashes"},
		{one("capture-usage=true"), Options{}, "does not measure"},
		{one("mode=min,mode=max"), Options{}, "mode is given twice"},
		{one("type=sbom"), Options{}, "the type is provenance"},
		{one(" "), Options{}, "it is empty"},
		{one("mode=min\nmode=max"), Options{}, "more than one line"},
		{one(`"mode=min`), Options{}, "a value with a comma is quoted"},
		{Flags{SBOM: "generator="}, Options{}, `generator ""`},
		{Flags{SBOM: "generator=A B"}, Options{}, `generator "A B"`},
		{Flags{SBOM: "X=1"}, Options{}, "the built-in scanner has no parameters"},
		{Flags{Attest: []string{"mode=min"}}, Options{}, "type is missing"},
		{Flags{Attest: []string{"type=sbon"}}, Options{}, "did you mean sbom?"},
		{Flags{Attest: []string{"true"}}, Options{}, "not KEY=VALUE"},
		{Flags{Attest: []string{"type=sbom", "type=sbom"}}, Options{},
			"--attest has the options of the sbom too"},
		{Flags{Attest: []string{"type=provenance"}, Provenance: "false"}, Options{},
			"--attest has the options of the provenance too"},
	} {
		got, err := Parse(tt.f)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("Parse(%+v): error %v, want %q", tt.f, err, tt.err)
			}
			var of *Error
			if err != nil && !errors.As(err, &of) {
				t.Errorf("Parse(%+v): the error is a %T", tt.f, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("Parse(%+v): %v", tt.f, err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("Parse(%+v): %s", tt.f, diff)
		}
		if got.Any() != (got.SBOM != nil || got.Provenance != nil) {
			t.Errorf("Parse(%+v): Any is %t", tt.f, got.Any())
		}
	}
}

// FuzzParse checks that a value that is accepted is accepted in --attest, too, with the same
// result.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"true", "mode=min,version=v0.2", `"builder-id=a,b"`, "generator=a:b",
		"disabled=1", "a=\"", "=", ",", "type=provenance"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, kind := range []string{typeProvenance, typeSBOM} {
			flags := Flags{Provenance: s}
			if kind == typeSBOM {
				flags = Flags{SBOM: s}
			}
			o, err := Parse(flags)
			if err != nil || s == "" {
				continue
			}
			if !strings.Contains(s, "=") || strings.Contains(strings.ToLower(s), "type") {
				continue
			}
			other, err := Parse(Flags{Attest: []string{"type=" + kind + "," + s}})
			if err != nil {
				t.Fatalf("--attest type=%s,%s: %v", kind, s, err)
			}
			if diff := cmp.Diff(o, other); diff != "" {
				t.Errorf("%q: %s", s, diff)
			}
		}
	})
}

// TestMin checks what mode=min leaves out, and that the predicate itself is unchanged.
func TestMin(t *testing.T) {
	full := example()
	data, err := Provenance{Min: true}.Encode(full)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"build-arg:A", "label:l", "secrets", "ssh", "llbDefinition",
		"RlJPTSBhCg", "step1:0"} {
		if strings.Contains(string(data), secret) {
			t.Errorf("mode=min has %q:\n%s", secret, data)
		}
	}
	for _, kept := range []string{`"target": "x"`, "pkg:docker/a@1", "startedOn", "invocationId",
		`"request": false`, "linux/arm64", "linux/amd64"} {
		if !strings.Contains(string(data), kept) {
			t.Errorf("mode=min does not have %q:\n%s", kept, data)
		}
	}
	if diff := cmp.Diff(example(), full); diff != "" {
		t.Errorf("the predicate has changed: %s", diff)
	}
	full.BuildDefinition.ExternalParameters.Request.Args = map[string]string{"target": "x"}
	if data, err = (Provenance{Min: true}).Encode(full); err != nil ||
		!strings.Contains(string(data), `"request": true`) {
		t.Errorf("without arguments the request is complete: %v\n%s", err, data)
	}
}

// TestOptions checks the options that change single fields.
func TestOptions(t *testing.T) {
	has := func(o Provenance, want, not string) {
		t.Helper()
		data, err := o.Encode(example())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(data), want) ||
			not != "" && strings.Contains(string(data), not) {
			t.Errorf("%+v: want %q and not %q:\n%s", o, want, not, data)
		}
	}
	has(Provenance{BuilderID: "https://a/<b>&c"}, `"id": "https://a/<b>&c"`, "u003c")
	has(Provenance{Reproducible: true}, `"buildkit_reproducible": true`, "")
	has(Provenance{}, `"dockerfileVersion": "1.28.0"`, "")
	has(Provenance{Version: V02}, `"dockerfileVersion": "1.28.0"`, "")
	has(Provenance{NoEnvironment: true}, `"builderPlatform": ""`, `"revision"`)
	has(Provenance{NoEnvironment: true}, `"builderPlatform": ""`, `"dockerfileVersion"`)
	has(Provenance{NoEnvironment: true, Version: V02}, `"environment": false`, "linux/amd64\"")
	has(Provenance{Version: V02}, `"environment": true`, "")
	has(Provenance{Complete: true}, `"resolvedDependencies": true`, "")
	p := example()
	p.RunDetails.Metadata.Completeness.ResolvedDependencies = false
	if _, err := (Provenance{Complete: true}).Encode(p); err == nil ||
		!strings.Contains(err.Error(), "(context)") {
		t.Errorf("incomplete materials: %v", err)
	}
	p.BuildDefinition.ExternalParameters.Request.Locals = nil
	if _, err := (Provenance{Complete: true}).Encode(p); err == nil ||
		!strings.Contains(err.Error(), "download") {
		t.Errorf("incomplete materials: %v", err)
	}
}

// TestContentID checks that the identifier depends on the predicate and on nothing else.
func TestContentID(t *testing.T) {
	a, b := example(), example()
	if a.ContentID() != b.ContentID() || len(a.ContentID()) != 32 {
		t.Errorf("%s and %s", a.ContentID(), b.ContentID())
	}
	b.BuildDefinition.ExternalParameters.Request.Args["target"] = "y"
	if a.ContentID() == b.ContentID() {
		t.Error("another request has the same identifier")
	}
}

// TestManifest checks both forms of the manifest of attestations.
func TestManifest(t *testing.T) {
	data := []byte(`{"_type":"x"}`)
	l := Layer(PredicateSPDX, data)
	if l.MediaType != MediaType || l.Annotations["in-toto.io/predicate-type"] != PredicateSPDX ||
		l.Size != int64(len(data)) {
		t.Errorf("layer %+v", l)
	}
	target := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Size: 5,
		Digest: ocispec.DescriptorEmptyJSON.Digest, Annotations: map[string]string{"a": "b"},
		Platform: &ocispec.Platform{OS: "linux"}}
	m, config, err := NewManifest(target, []ocispec.Descriptor{l}, false)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers",` +
		`"diff_ids":["` + l.Digest.String() + `"]}}`
	if string(config) != want || m.Subject != nil || m.ArtifactType != "" ||
		m.Config.MediaType != ocispec.MediaTypeImageConfig ||
		m.Config.Size != int64(len(config)) || m.Config.Digest.Validate() != nil {
		t.Errorf("%+v with the configuration\n%s\nwant\n%s", m, config, want)
	}
	m, config, err = NewManifest(target, []ocispec.Descriptor{l}, true)
	if err != nil || string(config) != "{}" || m.Subject == nil ||
		m.Subject.Digest != target.Digest || m.Subject.Platform != nil ||
		m.Subject.Annotations != nil || m.ArtifactType != artifactType ||
		m.Config.MediaType != ocispec.MediaTypeEmptyJSON {
		t.Errorf("%+v, %s, %v", m, config, err)
	}
}

// TestReadStatement checks statements of scanners.
func TestReadStatement(t *testing.T) {
	good := `{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"` + PredicateSPDX +
		`","subject":[{"name":"a","digest":{"sha256":"00"}}],"predicate":{"SPDXID":"x"}}`
	s, err := ReadStatement(strings.NewReader(good))
	if err != nil || s.Type != StatementType || string(s.Predicate) != `{"SPDXID":"x"}` ||
		s.Subject[0].Name != "a" {
		t.Errorf("%+v, %v", s, err)
	}
	for in, want := range map[string]string{
		"":                                     "not an in-toto statement",
		"[]":                                   "not an in-toto statement",
		good + good:                            "not an in-toto statement",
		`{"predicateType":"x","predicate":{}}`: `the type "x"`,
		`{"predicateType":"` + PredicateSPDX + `"}`:                                        "no predicate",
		`{"predicateType":"` + PredicateSPDX + `","predicate":[]}`:                         "no predicate",
		strings.Replace(good, `"00"`, `""`, 1):                                             "an empty digest",
		strings.Replace(good, `"name":"a"`, `"name":"a","name":"b"`, 1):                    "its subject",
		strings.Replace(good, `[{"name"`, `[`+strings.Repeat("{},", 300_000)+`{"name"`, 1): "its subject",
	} {
		if _, err := ReadStatement(strings.NewReader(in)); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("ReadStatement(%.100s): %v, want %q", in, err, want)
		}
	}
	endless := strings.NewReader(strings.Repeat(" ", MaxStatement+1))
	if _, err := ReadStatement(endless); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("%v", err)
	}
}

// FuzzReadStatement checks that a statement that is accepted can be written and read again.
func FuzzReadStatement(f *testing.F) {
	f.Add([]byte(`{"predicateType":"` + PredicateSPDX + `","predicate":{}}`))
	f.Add([]byte(`{"predicateType":"` + PredicateSPDX + `","predicate":{},"subject":[{"name":"a",` +
		`"digest":{"sha256":"00"}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ReadStatement(strings.NewReader(string(data)))
		if err != nil {
			return
		}
		out, err := json.Marshal(NewStatement(Attestation{PredicateType: s.PredicateType,
			Predicate: s.Predicate, Subjects: s.Subject}, nil))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ReadStatement(strings.NewReader(string(out))); err != nil {
			t.Errorf("%s: %v", out, err)
		}
	})
}
