package parser

import (
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// phase is the phase in which a rule has a finding or a mistake is found.
type phase int

const (
	reading  phase = iota // instructions are parsed
	choosing              // FROMs are resolved and stages chosen
	naming                // names of images are parsed
	walking               // instructions are expanded
)

// The findings of rules before a mistake are kept, for every kind of mistake.
func TestFindingsBeforeMistake(t *testing.T) {
	findings := []struct {
		rule, src string
		at        phase
	}{
		{"FromAsCasing", "FROM busybox as a\n", reading},
		{"StageNameCasing", "FROM busybox AS Aa\n", reading},
		{"LegacyKeyValueFormat", "FROM busybox AS a\nENV A b\n", walking},
		{"MaintainerDeprecated", "FROM busybox AS a\nMAINTAINER me\n", reading},
		{"NoEmptyContinuation", "FROM busybox AS a\nENV A=b \\\n\n  C=d\n", reading},
		{"DuplicateStageName", "FROM busybox AS a\nFROM busybox AS a\n", choosing},
		{"ReservedStageName", "FROM busybox AS context\n", choosing},
		{"ConsistentInstructionCasing", "FROM busybox AS a\nenv A=b\n", choosing},
		{"InvalidDefaultArgInFrom", "ARG V\nFROM busybox:$V AS a\n", choosing},
		{"UndefinedArgInFrom", "FROM busybox${NONE} AS a\n", choosing},
		{"FromPlatformFlagConstDisallowed", "FROM --platform=linux/amd64 busybox AS a\n", choosing},
		{"UndefinedVar", "FROM busybox AS a\nENV A=$NONE\n", walking},
		{"JSONArgsRecommended", "FROM busybox AS a\nCMD a b\n", walking},
		{"WorkdirRelativePath", "FROM busybox AS a\nWORKDIR a\n", walking},
		{"MultipleInstructionsDisallowed", "FROM busybox AS a\nCMD [\"a\"]\nCMD [\"b\"]\n",
			walking},
		{"SecretsUsedInArgOrEnv", "FROM busybox AS a\nARG TOKEN\n", walking},
		{"InvalidBaseImagePlatform",
			"FROM --platform=$BUILDPLATFORM busybox AS x\nFROM --platform=linux/arm64 busybox AS arm64\n", walking},
	}
	mistakes := []struct {
		name, src string
		o         PlanOptions
		at        phase
	}{
		{"unknown instruction", "FROM busybox\nRUNN true\n", PlanOptions{}, reading},
		{"unknown flag", "FROM busybox\nCOPY --nope a b\n", PlanOptions{}, reading},
		{"blank base", "FROM $NOTHING\n", PlanOptions{}, choosing},
		{"bad name", "FROM UPPER\n", PlanOptions{}, naming},
		{"bad name of a source", "FROM busybox\nCOPY --from=UPPER / /\n", PlanOptions{}, naming},
		{"a later stage", "FROM busybox\nCOPY --from=later / /\nFROM busybox AS later\n",
			PlanOptions{}, walking},
		{"bad platform", "FROM --platform=a/b/c/d busybox\n", PlanOptions{}, choosing},
		{"unknown target", "FROM busybox\n", PlanOptions{Target: "nope"}, choosing},
		{"circle", "FROM busybox AS c\nCOPY --from=d / /\nFROM busybox AS d\nCOPY --from=c / /\n",
			PlanOptions{}, choosing},
		{"missing base", "FROM nosuch\n", PlanOptions{}, walking},
		{"bad chmod", "FROM busybox\nCOPY --chmod=u-z a b\n", PlanOptions{}, walking},
		{"bad signal", "FROM busybox\nSTOPSIGNAL NOPE\n", PlanOptions{}, walking},
	}
	for _, f := range findings {
		for _, m := range mistakes {
			for _, src := range []string{f.src + m.src, m.src + f.src} {
				if strings.HasPrefix(src, m.src+"ARG") {
					continue // an ARG after a FROM is in another phase
				}
				file, err := Parse("Dockerfile", []byte(src))
				if file == nil {
					t.Errorf("Parse(%q) = nil, %v, want a file", src, err)
					continue
				}
				m.o.AllStages, m.o.BuildPlatform = true, host
				m.o.BuildArgs = map[string]string{"V": "latest"}
				p, planErr := file.Plan(m.o)
				if p == nil {
					t.Errorf("Plan of %q = nil, %v, want a plan", src, planErr)
					continue
				}
				if err != nil && (planErr == nil || planErr.Error() != err.Error()) {
					t.Errorf("Plan of %q: %v, want the error of Parse: %v", src, planErr, err)
				}
				if planErr == nil {
					planErr = p.Check(baseImage, nil)
				}
				if planErr == nil {
					t.Errorf("%s: %q has no mistake", m.name, src)
				}
				before := strings.HasPrefix(src, f.src)
				if f.at > m.at || f.at == m.at && !before && m.at != walking {
					continue // the mistake ends the build before the rule runs
				}
				found := slices.ContainsFunc(p.Warnings(),
					func(w Warning) bool { return w.Rule == f.rule })
				if !found {
					t.Errorf("%s is lost when there is a mistake (%s):\n%s", f.rule, m.name, src)
				}
			}
		}
	}
}

// A build for further platforms does not repeat the findings of the first one.
func TestLintOff(t *testing.T) {
	const src = "# check=error=true\nFROM busybox as a\nCMD a b\n"
	p := mustPlan(t, src, PlanOptions{Lint: LintOptions{Off: true},
		Platform: ocispec.Platform{OS: "linux", Architecture: "arm64"}})
	if err := p.Check(baseImage, nil); err != nil {
		t.Fatal(err)
	}
	if w, err := p.Warnings(), p.Violations(); len(w) > 0 || err != nil {
		t.Errorf("Warnings = %v, Violations = %v, want none", w, err)
	}
}

// With mistakes in several stages, the first one in the file is the error. Stages based on a stage
// with a mistake are not checked.
func TestCheckGoesOn(t *testing.T) {
	const src = "FROM nosuch AS a\nFROM a\nENV A=$NONE\nFROM busybox\nSTOPSIGNAL NOPE\n" +
		"FROM busybox\nCMD x\n"
	p := mustPlan(t, src, PlanOptions{AllStages: true})
	err := p.Check(baseImage, nil)
	if err == nil || !strings.HasPrefix(err.Error(), "Dockerfile:1: ") {
		t.Errorf("Check = %v, want the mistake of line 1", err)
	}
	var rules []string
	for _, w := range p.Warnings() {
		rules = append(rules, w.Rule)
	}
	if got := strings.Join(rules, " "); got != "JSONArgsRecommended" {
		t.Errorf("rules = %q, want JSONArgsRecommended", got)
	}
}
