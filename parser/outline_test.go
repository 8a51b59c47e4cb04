package parser

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// outlineCase is a Dockerfile with the result of Dockerfile2Outline of BuildKit v0.34.2
// (frontend/dockerfile/dockerfile2llb): arguments as "LINES NAME=VALUE (DESCRIPTION)", secrets and
// agents as "LINES NAME REQUIRED". The Dockerfiles are random, without base images.
type outlineCase struct {
	Src         string            `json:"src"`
	Target      string            `json:"target"`
	BuildArgs   map[string]string `json:"args"`
	Name        string            `json:"name"`
	Description string            `json:"description"`
	Args        []string          `json:"outArgs"`
	Secrets     []string          `json:"outSecrets"`
	SSH         []string          `json:"outSSH"`
}

func TestOutlineAsBuildKit(t *testing.T) {
	f, err := os.Open("testdata/buildkit_outline.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for s := bufio.NewScanner(f); s.Scan(); n++ {
		var want outlineCase
		if err := json.Unmarshal(s.Bytes(), &want); err != nil {
			t.Fatal(err)
		}
		o := outlineOf(t, want.Src, PlanOptions{Target: want.Target, BuildArgs: want.BuildArgs})
		got := outlineCase{Src: want.Src, Target: want.Target, BuildArgs: want.BuildArgs,
			Name: o.Name, Description: o.Description}
		for _, a := range o.Args {
			got.Args = append(got.Args, fmt.Sprintf("%d-%d %s=%s (%s)", a.Range.Start, a.Range.End,
				a.Name, a.Value, a.Description))
		}
		mounts := func(of []Parameter) (list []string) {
			for _, m := range of {
				list = append(list, fmt.Sprintf("%d-%d %s %v", m.Range.Start, m.Range.End, m.Name,
					m.Required))
			}
			return list
		}
		got.Secrets, got.SSH = mounts(o.Secrets), mounts(o.SSH)
		for _, list := range [][]string{got.Args, got.Secrets, got.SSH, want.Args, want.Secrets,
			want.SSH} {
			slices.Sort(list) // BuildKit's order of entries on the same line is random
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("case %d, of\n%s(-BuildKit +got):\n%s", n, want.Src, diff)
		}
	}
	if n < 300 {
		t.Errorf("%d cases", n)
	}
}

// outlineOf returns the outline of a Dockerfile, which must be valid.
func outlineOf(t *testing.T, src string, o PlanOptions) Outline {
	t.Helper()
	f, err := Parse("Dockerfile", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	o.BuildPlatform = host
	p, err := f.Plan(o)
	if err == nil {
		err = p.Check(baseImage, nil)
	}
	if err != nil {
		t.Fatalf("%v, in\n%s", err, src)
	}
	return p.Outline()
}

// What the cases of BuildKit do not have: cache mounts, triggers, named contexts, and the order of
// entries.
func TestOutline(t *testing.T) {
	const src = "# T is a tag\nARG T=1\nFROM busybox AS tools\n" +
		"RUN --mount=type=cache,target=/a/../c --mount=type=secret,id=s true\n" +
		"# app is it\nFROM trig AS app\nARG B\nARG WHAT=all T A=2\nCOPY --from=tools /x /x\n" +
		"RUN --mount=type=cache,id=go,target=/g --mount=type=cache,target=/c true\n"
	at := func(start int) Range { return Range{start, start} }
	want := Outline{Name: "app", Description: "is it",
		Args: []Parameter{{Name: "T", Description: "is a tag", Value: "1", Range: at(2)},
			{Name: "B", Range: at(7)}, {Name: "WHAT", Value: "all", Range: at(8)},
			{Name: "A", Value: "2", Range: at(8)}},
		Secrets: []Parameter{{Name: "s", Range: at(4)}},
		Caches:  []Parameter{{Name: "go", Range: at(10)}, {Name: "/c", Range: at(10)}},
	}
	if diff := cmp.Diff(want, outlineOf(t, src, PlanOptions{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	want = Outline{Name: "app", Description: "is it"}
	got := outlineOf(t, src, PlanOptions{Contexts: []string{"app"}})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("of a context (-want +got):\n%s", diff)
	}
}
