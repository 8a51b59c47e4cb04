package parser

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func mustPlan(t testing.TB, src string, o PlanOptions) *Plan {
	t.Helper()
	f, err := Parse("Dockerfile", []byte(src))
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	if isZeroPlatform(o.BuildPlatform) {
		o.BuildPlatform = host
	}
	p, err := f.Plan(o)
	if err != nil {
		t.Fatalf("Plan: %v", err)
	}
	return p
}

// steps walks all stages and returns the steps of the target.
func steps(t testing.TB, p *Plan) []Step {
	t.Helper()
	var out []Step
	if _, err := p.walk(baseImage, func(s *Stage, step Step) {
		if s == p.Target {
			out = append(out, step)
		}
	}); err != nil {
		t.Fatalf("walk: %v", err)
	}
	return out
}

// The error for each mistake has its line and a text that tells how to correct it.
func TestErrors(t *testing.T) {
	tests := []struct {
		name, src string
		o         PlanOptions
		want      string
	}{
		{"empty", "", PlanOptions{}, "Dockerfile: the Dockerfile cannot be empty"},
		{"only comments", "# nothing\n", PlanOptions{}, "Dockerfile:1: file with no instructions"},
		{"no stage", "ARG A\n", PlanOptions{},
			"Dockerfile: dockerfile contains no stages to build"},
		{"before FROM", "RUN true\n", PlanOptions{},
			"Dockerfile:1: no build stage in current context"},
		{"unknown instruction", "FROM busybox\n\nRUNN true\n", PlanOptions{},
			"Dockerfile:3: unknown instruction: RUNN (did you mean RUN?)"},
		{"unknown flag", "FROM busybox\nCOPY --chwn=1 a b\n", PlanOptions{},
			"Dockerfile:2: unknown flag: --chwn (did you mean chown?)"},
		{"unknown mount key", "FROM busybox\nRUN --mount=type=cache,targe=/x true\n", PlanOptions{},
			"Dockerfile:2: unexpected key 'targe' in 'targe=/x' (did you mean target?)"},
		{"unknown mount type", "FROM busybox\nRUN --mount=type=cach,target=/x true\n",
			PlanOptions{}, `Dockerfile:2: unsupported mount type "cach" (did you mean cache?)`},
		{"unknown target", "FROM busybox AS build\nFROM busybox AS test\n",
			PlanOptions{Target: "biuld"},
			`Dockerfile: target stage "biuld" could not be found (did you mean build?); stages: build, test`},
		{"blank base", "ARG B\nFROM $B\n", PlanOptions{},
			"Dockerfile:2: base name ($B) should not be blank"},
		{"bad base", "FROM bad@name\n", PlanOptions{},
			`Dockerfile:1: parse image name "bad@name": invalid reference format`},
		{"base in upper case", "FROM busybox AS Build\nFROM Build\n", PlanOptions{},
			`Dockerfile:2: parse image name "Build": invalid reference format: repository name (library/Build) must be lowercase (did you mean the stage build?)`},
		{"bad stage name", "FROM busybox AS 1st\n", PlanOptions{},
			`Dockerfile:1: invalid name for build stage: "1st", name can't start with a number or contain symbols`},
		{"bad platform", "FROM --platform=linx busybox\n", PlanOptions{},
			`Dockerfile:1: failed to parse platform linx: "linx": unknown operating system or ` +
				`architecture: invalid argument`},
		{"platform argument", "FROM --platform=$BUILDPLATFROM busybox\n", PlanOptions{},
			"Dockerfile:1: empty platform value from expression $BUILDPLATFROM (did you mean BUILDPLATFORM?)"},
		{"itself", "FROM busybox AS a\nCOPY --from=a x y\n", PlanOptions{},
			"Dockerfile:2: circular dependency detected on stage: a"},
		{"circle", "FROM busybox AS a\nCOPY --from=b x y\nFROM busybox AS b\nRUN --mount=from=a,target=/a true\n", PlanOptions{}, "Dockerfile:4: circular dependency detected on stage: a"},
		{"later stage", "FROM busybox AS a\nCOPY --from=b x y\nFROM busybox AS b\nFROM a\n",
			PlanOptions{}, `Dockerfile:2: cannot copy from stage "b", it needs to be defined before current stage "a"`},
		{"index", "FROM busybox\nCOPY --from=1 x y\n", PlanOptions{},
			"Dockerfile:2: invalid stage index 1"},
		{"from with variable", "FROM busybox\nCOPY --from=$X x y\n", PlanOptions{},
			"Dockerfile:2: variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround"},
		{"required variable", "FROM busybox\nARG A=\"${B:?say which}\"\n", PlanOptions{},
			`Dockerfile:2: failed to process "\"${B:?say which}\"": B: say which`},
		{"required global", "ARG A=\"${B:?say which}\"\nFROM busybox\n", PlanOptions{},
			`Dockerfile:1: failed to process "\"${B:?say which}\"": B: say which`},
		{"copy of a URL", "FROM busybox\nCOPY https://example.com/x y\n", PlanOptions{},
			"Dockerfile:2: source can't be a URL for COPY"},
		{"copy of a repository", "FROM busybox\nCOPY git@example.com:x.git y\n", PlanOptions{},
			"Dockerfile:2: source can't be a git ref for COPY"},
		{"git query", "FROM busybox\nADD https://example.com/x.git?rev=1 y\n", PlanOptions{},
			`Dockerfile:2: git URL https://example.com/x.git?rev=1: unexpected query "rev"`},
		{"checksum of a file", "FROM busybox\nADD --checksum=sha256:00 a b\n", PlanOptions{},
			"Dockerfile:2: checksum requires HTTP(S) or Git sources"},
		{"chmod", "FROM busybox\nCOPY --chmod=8888 a b\n", PlanOptions{},
			"Dockerfile:2: invalid chmod parameter: '8888'. it should be octal string and between 0 and 07777"},
		{"link by name", "FROM busybox\nCOPY --link --chown=app a b\n", PlanOptions{},
			"Dockerfile:2: --chown=app: user and group names can't be resolved when used with --link, use numeric uid[:gid] instead"},
		{"mount on root", "FROM busybox\nRUN --mount=type=cache,target=/ true\n", PlanOptions{},
			`Dockerfile:2: invalid mount target "/"`},
		{"device without a name", "FROM busybox\nRUN --device=required true\n", PlanOptions{},
			"Dockerfile:2: RUN --device: a name is expected, such as vendor.com/class=name"},
		{"device with two names", "FROM busybox\nRUN --device=a,name=b true\n", PlanOptions{},
			"Dockerfile:2: device name already set to a"},
		{"signal", "FROM busybox\nSTOPSIGNAL SIGNOPE\n", PlanOptions{},
			"Dockerfile:2: invalid signal: SIGNOPE"},
		{"port", "FROM busybox\nEXPOSE 70000\n", PlanOptions{},
			"Dockerfile:2: invalid containerPort: 70000"},
		{"heredoc", "FROM busybox\nRUN <<EOF\nnever ends\n", PlanOptions{},
			"Dockerfile:2: unterminated heredoc"},
		{"trigger", "FROM busybox AS a\nONBUILD XYZZYX x\nFROM a\n", PlanOptions{},
			`Dockerfile:3: parse ONBUILD trigger "XYZZYX x": unknown instruction: XYZZYX`},
		{"check directive", "# check=skp=all\nFROM busybox\n", PlanOptions{},
			`Dockerfile:1: parse check options: invalid check option "skp"`},
		{"epoch", "FROM busybox\n",
			PlanOptions{BuildArgs: map[string]string{"SOURCE_DATE_EPOCH": "today"}},
			`Dockerfile: invalid SOURCE_DATE_EPOCH: today (it is not a number of seconds)`},
		{"image that is not there", "FROM busybox\nFROM nowhere\n", PlanOptions{},
			"Dockerfile:2: no such image"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.BuildPlatform = host
			_, err := planText([]byte(tt.src), tt.o)
			if err == nil {
				t.Fatal("no error")
			}
			if err.Error() != tt.want {
				t.Errorf("error = %q, want %q", err, tt.want)
			}
			var e *Error
			if !errors.As(err, &e) {
				t.Errorf("error is a %T, want an *Error", err)
			}
		})
	}
}

// Mistakes in a stage that is not built are ignored, as far as BuildKit ignores them.
func TestMistakesInPrunedStages(t *testing.T) {
	p := mustPlan(t,
		"FROM nowhere AS a\nCOPY --from=b x y\nEXPOSE 99999\nFROM scratch AS b\nFROM busybox\n",
		PlanOptions{})
	if len(p.Stages) != 1 || p.Target.Index != 2 {
		t.Errorf("stages = %d, target %d, want the last only", len(p.Stages), p.Target.Index)
	}
	if err := p.Check(baseImage, nil); err != nil {
		t.Errorf("Check = %v", err)
	}
}

func TestTarget(t *testing.T) {
	const src = "FROM busybox AS one\nFROM busybox AS Two\nFROM busybox\nFROM busybox AS one\n"
	tests := []struct {
		target string
		want   int
	}{{"", 3}, {"one", 3}, {"ONE", 3}, {"two", 1}, {"Two", 1}, {"0", 0}, {"2", 2}}
	for _, tt := range tests {
		if got := mustPlan(t, src, PlanOptions{Target: tt.target}).Target.Index; got != tt.want {
			t.Errorf("target %q = stage %d, want %d", tt.target, got, tt.want)
		}
	}
}

func TestTargets(t *testing.T) {
	f, err := Parse("Dockerfile",
		[]byte(
			"# build compiles\nFROM --platform=$BUILDPLATFORM golang AS build\n\nFROM scratch\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []Target{
		{Name: "build", Description: "compiles", Base: "golang",
			Platform: "$BUILDPLATFORM", Range: Range{2, 2}},
		{Base: "scratch", Default: true, Range: Range{4, 4}},
	}
	if diff := cmp.Diff(want, f.Targets()); diff != "" {
		t.Errorf("Targets (-want +got):\n%s", diff)
	}
}

// Differences without a meaning do not change a key.
func TestKeysAreCanonical(t *testing.T) {
	plain := "FROM busybox\nARG A=1\nRUN --mount=type=cache,target=/b --mount=type=cache,target=/a make all\nCOPY --chown=1 a b /c/\nWORKDIR /w\n"
	fancy := "# syntax=docker/dockerfile:1\n\n# A comment\nfrom   busybox as named\narg A=1\n\nRUN --mount=type=cache,target=/a \\\n# inside\n--mount=type=cache,target=/b make all\n\n\ncopy   --chown=1   a   b   /c/\nworkdir /w\n"
	keys := func(src string) []string {
		var out []string
		for _, s := range steps(t, mustPlan(t, src, PlanOptions{})) {
			if s.Action != nil {
				b, err := json.Marshal(s.Action)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, string(b))
			}
		}
		return out
	}
	if diff := cmp.Diff(keys(plain), keys(fancy)); diff != "" {
		t.Errorf("keys differ:\n%s", diff)
	}
}

// Values of proxies are not in the key, and a secret's variable is masked.
func TestWhatStaysOutOfKeysAndNames(t *testing.T) {
	p := mustPlan(t,
		"FROM busybox\nENV TOKEN=shadowed\nRUN --mount=type=secret,id=t,env=TOKEN curl $TOKEN\n",
		PlanOptions{BuildArgs: map[string]string{"https_proxy": "http://user:pass@proxy"}})
	s := steps(t, p)[1]
	run := s.Action.(*Run)
	key, err := json.Marshal(run)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(key), "proxy") {
		t.Errorf("key %s has the proxy in it", key)
	}
	if want := []string{"HTTPS_PROXY=http://user:pass@proxy",
		"https_proxy=http://user:pass@proxy"}; !slices.Equal(run.Proxy, want) {
		t.Errorf("Proxy = %q, want %q", run.Proxy, want)
	}
	if want := "RUN --mount=type=secret,id=t,env=TOKEN curl ****"; s.Name != want {
		t.Errorf("Name = %q, want %q", s.Name, want)
	}
}

// Steps share slices and maps, so no step may change the values of an earlier one.
func TestStepsDoNotChangeEachOther(t *testing.T) {
	const src = "FROM rich\nENV A=1\nLABEL a=1\nEXPOSE 1\nVOLUME /a\nONBUILD RUN x\nENV A=2 FOO=2\nLABEL a=2\nEXPOSE 2\nVOLUME /b\nONBUILD RUN y\n"
	p := mustPlan(t, src, PlanOptions{})
	base, err := image("rich")
	if err != nil {
		t.Fatal(err)
	}
	before := jsonText(base)
	var then, now []string
	var all []Step
	for s, err := range p.Target.Steps(base) {
		if err != nil {
			t.Fatal(err)
		}
		then = append(then, jsonText(s.Image))
		all = append(all, s)
	}
	for _, s := range all {
		now = append(now, jsonText(s.Image))
	}
	if diff := cmp.Diff(then, now); diff != "" {
		t.Errorf("configurations changed later:\n%s", diff)
	}
	if after := jsonText(base); after != before {
		t.Errorf("base = %s, was %s", after, before)
	}
}

// An image's triggers may name a stage that nothing else needs.
func TestTriggerOfImageNeedsPrunedStage(t *testing.T) {
	p := mustPlan(t, "FROM busybox AS tools\nRUN tools\nFROM busybox\nRUN own\n", PlanOptions{})
	if len(p.Stages) != 1 {
		t.Fatalf("stages = %d, want 1", len(p.Stages))
	}
	base, err := image("busybox")
	if err != nil {
		t.Fatal(err)
	}
	base.Config.OnBuild = []string{"COPY --from=tools /t /t"}
	var names []string
	for s, err := range p.Target.Steps(base) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, s.Name)
		if s.Image.Config.OnBuild != nil {
			t.Errorf("%s: OnBuild = %q, want none left", s.Name, s.Image.Config.OnBuild)
		}
		if c, ok := s.Action.(*Copy); ok {
			in, ok := c.From.(StageInput)
			if !ok || in.Stage.Name != "tools" {
				t.Errorf("From = %v, want the stage tools", c.From)
			}
		}
	}
	if want := []string{"ONBUILD COPY --from=tools /t /t", "RUN own"}; !slices.Equal(names, want) {
		t.Errorf("steps = %q, want %q", names, want)
	}
	base.Config.OnBuild = []string{"COPY --from=1 /t /t"}
	for _, err := range p.Target.Steps(base) {
		if err == nil || !strings.Contains(err.Error(), "needs to be defined before") {
			t.Errorf("trigger that copies from the stage itself: error %v", err)
		}
		break
	}
}

func TestChildNeedsWalkedParent(t *testing.T) {
	p := mustPlan(t, "FROM busybox AS a\nFROM a\nRUN x\n", PlanOptions{})
	for _, err := range p.Target.Steps(dockerspec.DockerOCIImage{}) {
		if err == nil {
			t.Error("steps of a child before its parent: no error")
		}
	}
}

// Stages can be walked concurrently.
func TestConcurrentWalks(t *testing.T) {
	p := mustPlan(t, "FROM busybox AS a\nCMD x\nCMD $Y\nFROM busybox AS b\nWORKDIR q$Z\nENV K=$L\nFROM scratch\nCOPY --from=a / /\nCOPY --from=b / /\n", PlanOptions{})
	want := map[int]int{0: 2, 1: 2, 2: 2}
	var wg sync.WaitGroup
	for range 4 {
		for _, s := range p.Stages {
			wg.Go(func() {
				base, err := baseImage(s)
				if err != nil {
					t.Error(err)
				}
				n := 0
				for _, err := range s.Steps(base) {
					if err != nil {
						t.Error(err)
					}
					n++
				}
				if n != want[s.Index] {
					t.Errorf("stage %d has %d steps, want %d", s.Index, n, want[s.Index])
				}
			})
		}
	}
	wg.Wait()
	seen := map[Warning]bool{}
	for _, w := range p.Warnings() {
		if seen[w] {
			t.Errorf("%v is reported twice", w)
		}
		seen[w] = true
	}
	if len(seen) == 0 {
		t.Error("no warnings at all")
	}
}

func TestCheck(t *testing.T) {
	const body = "FROM busybox\nCMD shell form\nworkdir rel\n"
	tests := []struct {
		name, src string
		o         PlanOptions
		rules     string
		fails     bool
	}{
		{"default", body, PlanOptions{},
			"JSONArgsRecommended ConsistentInstructionCasing WorkdirRelativePath", false},
		{"skip one", "# check=skip=JSONArgsRecommended\n" + body, PlanOptions{},
			"ConsistentInstructionCasing WorkdirRelativePath", false},
		{"skip all", "# check=skip=all;error=true\n" + body, PlanOptions{}, "", false},
		{"error", "# check=error=true\n" + body, PlanOptions{},
			"JSONArgsRecommended ConsistentInstructionCasing WorkdirRelativePath", true},
		{"error by option", body, PlanOptions{Lint: LintOptions{Error: true,
			Skip: []string{"WorkdirRelativePath"}}},
			"JSONArgsRecommended ConsistentInstructionCasing", true},
		{"build argument", "# check=error=true\n" + body,
			PlanOptions{BuildArgs: map[string]string{"BUILDKIT_DOCKERFILE_CHECK": "skip=all"}}, "",
			false},
		{"one instruction", "FROM busybox\n# check=skip=JSONArgsRecommended\nCMD shell form\nENTRYPOINT shell form\n", PlanOptions{}, "JSONArgsRecommended", false},
		{"nothing to say", "# check=error=true\nFROM busybox\n", PlanOptions{}, "", false},
		{"after a shebang", "#!/usr/bin/env docker\n# check=skip=all\n" + body,
			PlanOptions{}, "", false},
		{"size rules are off", "FROM busybox\nRUN apt-get update\n", PlanOptions{}, "", false},
		{"size rules by name", "FROM busybox\nRUN apt-get update\n",
			PlanOptions{Lint: LintOptions{Experimental: []string{"PackageListsLeftBehind"}}},
			"PackageListsLeftBehind", false},
		{"platform of base", "FROM busybox\n",
			PlanOptions{Platform: ocispec.Platform{OS: "linux", Architecture: "arm64"}},
			"InvalidBaseImagePlatform", false},
		{"default argument", "ARG V\nFROM busybox:$V\n",
			PlanOptions{BuildArgs: map[string]string{"V": "latest"}},
			"InvalidDefaultArgInFrom", false},
		{"secret", "FROM busybox\nARG API_TOKEN\nENV PUBLIC_KEY=1\n", PlanOptions{},
			"SecretsUsedInArgOrEnv", false},
		{"all stages", "FROM busybox AS a\nENV A=$UNSET\nFROM busybox\n",
			PlanOptions{AllStages: true}, "UndefinedVar", false},
		{"only the target", "FROM busybox AS a\nENV A=$UNSET\nFROM busybox\n",
			PlanOptions{}, "", false},
		{"similar variable", "FROM busybox\nENV A=$PAHT\n", PlanOptions{}, "UndefinedVar", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := mustPlan(t, tt.src, tt.o)
			if err := p.Check(baseImage, nil); err != nil {
				t.Fatal(err)
			}
			err := p.Violations()
			var rules []string
			for _, w := range p.Warnings() {
				rules = append(rules, w.Rule)
			}
			if got := strings.Join(rules, " "); got != tt.rules {
				t.Errorf("rules = %q, want %q", got, tt.rules)
			}
			var lintErr *LintError
			if errors.As(err, &lintErr) != tt.fails {
				t.Errorf("Violations = %v, want an error: %v", err, tt.fails)
			}
			if lintErr != nil && !slices.IsSorted(lintErr.Rules) {
				t.Errorf("Rules = %q, want them sorted", lintErr.Rules)
			}
		})
	}
}

func TestWarningFields(t *testing.T) {
	p := mustPlan(t, "FROM busybox\n\nENV PAHT=1 \\\n  B=$PATHH\n", PlanOptions{})
	if err := p.Check(baseImage, nil); err != nil {
		t.Fatal(err)
	}
	want := []Warning{{
		Rule:        "UndefinedVar",
		Description: "Variables should be defined before their use",
		URL:         "https://docs.docker.com/go/dockerfile/rule/undefined-var/",
		Msg:         "Usage of undefined variable '$PATHH' (did you mean $PATH?)",
		Range:       Range{3, 4},
	}}
	if diff := cmp.Diff(want, p.Warnings()); diff != "" {
		t.Errorf("Warnings (-want +got):\n%s", diff)
	}
}

func TestResolved(t *testing.T) {
	p := mustPlan(t, "FROM scratch\nCOPY --from=busybox a b\n",
		PlanOptions{Platform: ocispec.Platform{OS: "linux", Architecture: "arm64"}})
	in := steps(t, p)[0].Action.(*Copy).From.(ImageInput)
	p.Resolved(in, Range{2, 2}, in.Platform)
	if w := p.Warnings(); len(w) != 0 {
		t.Errorf("right platform: warnings %v", w)
	}
	p.Resolved(in, Range{2, 2}, host)
	if w := p.Warnings(); len(w) != 1 || w[0].Range.Start != 2 ||
		w[0].Rule != "InvalidBaseImagePlatform" {
		t.Errorf("wrong platform: warnings %v", w)
	}
}

func TestFinish(t *testing.T) {
	base, err := image("rich")
	if err != nil {
		t.Fatal(err)
	}
	arm := ocispec.Platform{OS: "linux", Architecture: "arm", Variant: "v7"}
	p := mustPlan(t, "FROM rich\n", PlanOptions{Labels: []string{"one=1", "empty=", "one=2"},
		Platform: arm})
	got := p.Finish(base)
	if want := map[string]string{"one": "2", "empty": "",
		"kept": "yes"}; !cmp.Equal(got.Config.Labels, want) {
		t.Errorf("Labels = %v, want %v", got.Config.Labels, want)
	}
	if base.Config.Labels["one"] != "0" {
		t.Error("the base's labels changed")
	}
	if diff := cmp.Diff(arm, got.Platform); diff != "" {
		t.Errorf("Platform (-want +got):\n%s", diff)
	}
}

func TestEpoch(t *testing.T) {
	const src = "ARG SOURCE_DATE_EPOCH=5\nFROM busybox\nARG SOURCE_DATE_EPOCH\n"
	args := map[string]string{"SOURCE_DATE_EPOCH": "0123"}
	p := mustPlan(t, src, PlanOptions{BuildArgs: args})
	if p.Epoch == nil || *p.Epoch != 123 {
		t.Errorf("Epoch = %v, want 123", p.Epoch)
	}
	if got, want := steps(t, p)[0].History, "ARG SOURCE_DATE_EPOCH=123"; got != want {
		t.Errorf("History = %q, want %q", got, want)
	}
	if args["SOURCE_DATE_EPOCH"] != "0123" {
		t.Error("the caller's arguments changed")
	}
	if p := mustPlan(t, src, PlanOptions{}); p.Epoch == nil || *p.Epoch != 5 {
		t.Errorf("Epoch of a global ARG = %v, want 5", p.Epoch)
	}
	for _, none := range []string{"", "context"} {
		p := mustPlan(t, src[strings.Index(src, "FROM"):],
			PlanOptions{BuildArgs: map[string]string{"SOURCE_DATE_EPOCH": none}})
		if p.Epoch != nil {
			t.Errorf("Epoch of %q = %v, want none", none, p.Epoch)
		}
		if got, want := steps(t, p)[0].History, "ARG SOURCE_DATE_EPOCH"; got != want {
			t.Errorf("History with %q = %q, want %q", none, got, want)
		}
	}
}

func TestSimilar(t *testing.T) {
	p := mustPlan(t, "FROM busybox AS builder\nFROM busybox\n", PlanOptions{})
	for in, want := range map[string]string{"bulder": "builder", "alpin": "alpine",
		"debain": "debian", "registry.example/x": ""} {
		if got := p.Similar(in); got != want {
			t.Errorf("Similar(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestContexts(t *testing.T) {
	const src = "FROM alpine AS base\nFROM base\n"
	tests := []struct {
		name     string
		contexts []string
		want     string // the base of the first stage that is built
	}{
		{"none", nil, "image alpine linux/amd64"},
		{"stage", []string{"base"}, "context base"},
		{"image", []string{"alpine"}, "context alpine"},
		{"image with tag", []string{"alpine:latest"}, "context alpine:latest"},
		{"image in full", []string{"docker.io/library/alpine"}, "context docker.io/library/alpine"},
		{"other tag", []string{"alpine:3.20"}, "image alpine linux/amd64"},
	}
	for _, tt := range tests {
		if got := inputText(mustPlan(t, src,
			PlanOptions{Contexts: tt.contexts}).Stages[0].Base); got != tt.want {
			t.Errorf("%s: base = %q, want %q", tt.name, got, tt.want)
		}
	}
	p := mustPlan(t, "FROM scratch\n", PlanOptions{Contexts: []string{"scratch"}})
	if _, ok := p.Target.Base.(Scratch); !ok {
		t.Errorf("scratch replaced by %v", p.Target.Base)
	}
}

// TestLineage checks that a lineage has the stages below a stage, and not those that are only
// copied from.
func TestLineage(t *testing.T) {
	p := mustPlan(t,
		"FROM busybox AS a\nFROM busybox AS b\nFROM a AS c\nFROM c AS d\nCOPY --from=b / /\n",
		PlanOptions{})
	var names []string
	for _, st := range p.Target.Lineage() {
		names = append(names, st.Name)
	}
	if want := []string{"d", "c", "a"}; !slices.Equal(names, want) {
		t.Errorf("Lineage = %q, want %q", names, want)
	}
}

// TestSplitSources checks that only ADD takes an address as one.
func TestSplitSources(t *testing.T) {
	c := Copy{Sources: []string{"a", "https://h/b", "git@h:c.git", "./d"}}
	local, remote := c.SplitSources()
	if !slices.Equal(local, c.Sources) || len(remote) > 0 {
		t.Errorf("COPY: local %q, remote %q", local, remote)
	}
	c.Add = true
	local, remote = c.SplitSources()
	if !slices.Equal(local, []string{"a", "./d"}) ||
		!slices.Equal(remote, []string{"https://h/b", "git@h:c.git"}) {
		t.Errorf("ADD: local %q, remote %q", local, remote)
	}
}

func TestTotal(t *testing.T) {
	const src = "FROM busybox AS a\nENV A=1\nWORKDIR /x\nRUN x\nONBUILD COPY a b\nONBUILD ENV Q=1\nFROM a\nADD a b\n"
	p := mustPlan(t, src, PlanOptions{})
	if got := []int{p.Stages[0].Total, p.Stages[1].Total}; !slices.Equal(got, []int{2, 2}) {
		t.Errorf("Total = %v, want [2 2]", got)
	}
	var base dockerspec.DockerOCIImage
	base.Config.OnBuild = []string{"RUN\tx", " workdir /y", "ENV A=1"}
	if got := p.Stages[0].TotalOn(base); got != 4 {
		t.Errorf("TotalOn an image with two steps = %d, want 4", got)
	}
}

func TestLastRun(t *testing.T) {
	const src = "FROM busybox AS a\nENV A=1\nWORKDIR /x\nRUN x\nONBUILD COPY a b\nONBUILD RUN y\n" +
		"COPY a b\nFROM a AS b\nADD a b\nONBUILD RUN z\nFROM busybox\nCOPY --from=b a b\n"
	p := mustPlan(t, src, PlanOptions{})
	var none, base dockerspec.DockerOCIImage
	base.Config.OnBuild = []string{"ENV A=1", "COPY a b", " run\tx", "COPY c d"}
	for i, want := range []int{2, 2, 0} {
		if got := p.Stages[i].LastRun(none); got != want {
			t.Errorf("LastRun of stage %d = %d, want %d", i, got, want)
		}
	}
	for i, want := range map[int]int{0: 5, 2: 2} {
		if got := p.Stages[i].LastRun(base); got != want {
			t.Errorf("LastRun of stage %d on an image with triggers = %d, want %d", i, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.dockerfile")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	for _, s := range []string{
		"FROM busybox\nRUN <<A <<B\nA\nB\n", "FROM a$\n", "ARG A=${A:?\nFROM $A\n",
		"FROM busybox\nENV A=${B/\\//x} C=${A%%*}\n",
		"#!x\n# check=skip=all\nFROM busybox\n", "FROM busybox\nONBUILD # check=x\n",
		"FROM busybox\nEXPOSE 0-65535:1\n",
		"FROM busybox\nCOPY <<EOF <<-EOF /\nEOF\n\tEOF\n", "# escape=`\nFROM busybox\nRUN a`\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		o := PlanOptions{BuildPlatform: host, BuildArgs: map[string]string{"A": "1"},
			Contexts: []string{"ctx"}, AllStages: true}
		first, err1 := planText(src, o)
		second, err2 := planText(src, o)
		if (err1 == nil) != (err2 == nil) || first != second {
			t.Errorf("two plans of one file differ: %v, %v\n%s", err1, err2,
				cmp.Diff(first, second))
		}
		var e *Error
		if err1 != nil && !errors.As(err1, &e) {
			t.Errorf("error %v is a %T, want an *Error", err1, err1)
		}
	})
}

func BenchmarkPlan(b *testing.B) {
	src := []byte("ARG V=1\nFROM busybox AS base\n" +
		strings.Repeat("ENV A=$PATH:x B=\"$A\"\nRUN --mount=type=cache,target=/c echo $A\nCOPY --chown=1:2 a b /c/\n", 50) +
		"FROM base\nWORKDIR /x\nCOPY --from=base /a /b\nCMD [\"a\"]\n")
	b.SetBytes(int64(len(src)))
	b.ReportAllocs()
	for b.Loop() {
		p := mustPlan(b, string(src), PlanOptions{})
		if err := p.Check(baseImage, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// TestStepsAgain checks that walking a stage again returns the steps of the first walk, even if the
// history and the layers of the base differ, and new steps if another part of the base differs.
func TestStepsAgain(t *testing.T) {
	const src = "FROM base AS a\nARG V=1\nENV A=$B\nRUN x\nFROM a\nENV C=$A$V\nCOPY --from=a x /\n"
	base := func(b string, layers int) dockerspec.DockerOCIImage {
		var img dockerspec.DockerOCIImage
		img.OS, img.Architecture = "linux", "amd64"
		img.Config.Env = []string{"B=" + b}
		for n := range layers {
			img.History = append(img.History, ocispec.History{Comment: fmt.Sprint("layer ", n)})
			img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, digest.FromString(fmt.Sprint(n)))
		}
		return img
	}
	// walk walks both stages, the second one on the result of the first with another layer.
	walk := func(p *Plan, img dockerspec.DockerOCIImage) (all []Step) {
		t.Helper()
		for _, s := range p.Stages {
			result := s.Start(img)
			for step, err := range s.Steps(img) {
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, step)
				result = step.Image
			}
			img = result
			img.History = append(slices.Clone(img.History), ocispec.History{Comment: "step"})
			img.RootFS.DiffIDs = append(slices.Clone(img.RootFS.DiffIDs), digest.FromString("step"))
		}
		return all
	}
	p := mustPlan(t, src, PlanOptions{})
	for _, o := range []struct {
		b      string
		layers int
	}{{"1", 1}, {"1", 1}, {"1", 3}, {"2", 3}, {"2", 0}, {"1", 0}} {
		got := walk(p, base(o.b, o.layers))
		want := walk(mustPlan(t, src, PlanOptions{}), base(o.b, o.layers))
		if len(got) != len(want) {
			t.Fatalf("B=%s, %d layers: %d steps, want %d", o.b, o.layers, len(got), len(want))
		}
		for i := range got {
			a, b := got[i].Action, want[i].Action
			got[i].Action, want[i].Action = nil, nil // actions refer to stages of their own plan
			if !reflect.DeepEqual(got[i], want[i]) || reflect.TypeOf(a) != reflect.TypeOf(b) {
				t.Errorf("B=%s, %d layers: step %d is\n%+v\nwant\n%+v", o.b,
					o.layers, i, got[i], want[i])
			}
		}
	}
	first, second := walk(p, base("1", 0)), walk(p, base("1", 2))
	for i := range first {
		if a, ok := first[i].Action.(*Run); ok && a != second[i].Action {
			t.Errorf("step %d was expanded again", i)
		}
	}
}

// TestLargeStepsAreNotKept checks that the steps of a stage with large values are expanded again.
func TestLargeStepsAreNotKept(t *testing.T) {
	for size, kept := range map[int]bool{1000: true, 60_000: false} { // the value is used 20 times
		p := mustPlan(t, "FROM scratch\nARG A="+strings.Repeat("a", size)+"\nENV B="+
			strings.Repeat("$A", 20)+"\nRUN [\"x\"]\n", PlanOptions{})
		run := func() (found Action) {
			for step, err := range p.Target.Steps(dockerspec.DockerOCIImage{}) {
				if err != nil {
					t.Fatal(err)
				}
				found = step.Action
			}
			return found
		}
		if first := run(); first == nil || (first == run()) != kept {
			t.Errorf("with a value of %d bytes: kept %v, want %v", size, !kept, kept)
		}
	}
}

func TestParseEpoch(t *testing.T) {
	for _, c := range []struct {
		in   string
		want int64
		fail bool
	}{{"", 0, false}, {"0", 0, false}, {" 1700000000\n", 1700000000, false},
		{"-62167219200", -62167219200, false}, {"253402300799", 253402300799, false},
		{"-62167219201", 0, true}, {"253402300800", 0, true}, {"1700000000000", 0, true},
		{"9223372036854775807", 0, true}, {"yesterday", 0, true}, {"1.5", 0, true}} {
		got, err := ParseEpoch(c.in)
		if (err != nil) != c.fail {
			t.Errorf("ParseEpoch(%q): error %v", c.in, err)
		}
		if err == nil && c.in != "" && (got == nil || *got != c.want) {
			t.Errorf("ParseEpoch(%q) = %v, want %d", c.in, got, c.want)
		}
		if c.in == "" && got != nil {
			t.Errorf("ParseEpoch of nothing = %v, want nil", got)
		}
	}
}

// TestTextsOnce checks that the texts of the instructions are made once for each stage, since each
// step of a build may ask for those of its stage.
func TestTextsOnce(t *testing.T) {
	p := mustPlan(t, "FROM scratch\nCOPY a b\nRUN  x &&\\\n y\n", PlanOptions{})
	first, second := p.Stages[0].Texts(), p.Stages[0].Texts()
	if want := []string{"COPY a b", "RUN  x && y"}; !slices.Equal(first, want) {
		t.Errorf("%q, want %q", first, want)
	}
	if &first[0] != &second[0] {
		t.Error("the texts were made again")
	}
}
