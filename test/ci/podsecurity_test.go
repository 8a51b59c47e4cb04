package ci

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/test/lab"
)

// podSecurity is a program that evaluates pods, as JSON on standard input, against the Pod Security
// Standard baseline, with the code of the API server. It prints the checks that each pod fails.
const podSecurity = `package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

func main() {
	e, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		panic(err)
	}
	level := api.LevelVersion{Level: api.LevelBaseline, Version: api.LatestVersion()}
	for dec := json.NewDecoder(os.Stdin); ; {
		var pod corev1.PodTemplateSpec
		if err := dec.Decode(&pod); err == io.EOF {
			return
		} else if err != nil {
			panic(err)
		}
		var failed []string
		for _, r := range e.EvaluatePod(level, &pod.ObjectMeta, &pod.Spec) {
			if !r.Allowed {
				failed = append(failed, r.ForbiddenReason+" ("+r.ForbiddenDetail+")")
			}
		}
		fmt.Println(strings.Join(failed, "; "))
	}
}
`

// TestPodSecurity evaluates the pods of the manifests and of a plan with the package
// k8s.io/pod-security-admission. They need three things that the standard baseline forbids, and
// nothing else.
func TestPodSecurity(t *testing.T) {
	if os.Getenv("LAYERBUILD_PODSECURITY") != "1" {
		t.Skip("compiles the types of Kubernetes; LAYERBUILD_PODSECURITY=1 runs it")
	}
	const version = "v0.37.2"
	module(t, "k8s.io/pod-security-admission@"+version)
	dir := t.TempDir()
	for name, text := range map[string]string{"main.go": podSecurity, "go.mod": "module podsecurity" +
		"\n\ngo 1.26\n\nrequire k8s.io/pod-security-admission " + version + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var pods bytes.Buffer
	n := 0
	for _, text := range []string{read(t, "kubernetes/job.yaml"),
		read(t, "kubernetes/platforms.yaml"), planned(t, newSite(t), "k8s")} {
		for _, doc := range documents(t, text) {
			if doc["kind"] != "Job" {
				continue
			}
			n++
			pod := get[map[string]any](t, doc, "spec", "template")
			if err := json.NewEncoder(&pods).Encode(pod); err != nil {
				t.Fatal(err)
			}
		}
	}
	tidy := lab.Exec(t, "go", "mod", "tidy")
	tidy.Dir = dir
	if out, err := tidy.CombinedOutput(); err != nil {
		t.Skipf("the modules of the program cannot be had: %v\n%s", err, out)
	}
	run := lab.Exec(t, "go", "run", ".")
	run.Dir, run.Stdin = dir, &pods
	out, err := run.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != n {
		t.Fatalf("%d results for %d pods:\n%s", len(lines), n, out)
	}
	for _, line := range lines {
		var reasons []string
		for reason := range strings.SplitSeq(line, "; ") {
			name, _, _ := strings.Cut(reason, " (")
			reasons = append(reasons, name)
		}
		slices.Sort(reasons)
		want := []string{"forbidden AppArmor profile", "non-default capabilities", "seccompProfile"}
		if !slices.Equal(reasons, want) {
			t.Errorf("a pod needs %s", line)
		}
	}
}
