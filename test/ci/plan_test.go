package ci

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// planned returns the output of plan for two platforms, with a build argument that YAML and the
// engines could take for something else.
func planned(t *testing.T, s *site, format string) string {
	t.Helper()
	s.Write("Dockerfile", "FROM scratch AS a\nCOPY file /a\nFROM scratch AS b\nCOPY file /b\n"+
		"FROM scratch\nCOPY --from=a / /\nCOPY --from=b / /\n")
	s.Registry.Auth("", "")
	host := s.Registry.Host
	return s.For(t).Run("plan", "--format="+format, "--platform=linux/amd64,linux/arm64",
		"--cache="+host+"/team/cache", "-t", host+"/team/app:v1",
		"--build-arg=X=\"a: b\" 'c' $(params.x) {{workflow.name}}\n- d", ".")
}

// TestPlans checks the objects that plan prints with kubeconform.
func TestPlans(t *testing.T) {
	s := newSite(t)
	for format, check := range map[string]func(*testing.T, string){
		"k8s": kubernetesSchema, "argo": argoSchema, "tekton": tektonSchema} {
		text := planned(t, s, format)
		t.Run(format, func(t *testing.T) { check(t, text) })
	}
}

// kubectl logs its arguments. Jobs have ended as soon as they are applied.
const kubectl = `#!/bin/sh
printf '%s\n' "$*" >>log
case $1 in
apply) ;;
get)
	case $* in
	*wave=$FAILED*) echo Failed ;;
	*wave=0*) printf 'Complete\nComplete\nComplete\nComplete\n' ;;
	*wave=1*) printf 'Complete\nComplete\n' ;;
	*) echo Complete ;;
	esac
	;;
esac
`

// TestWaves runs the script that applies the Jobs of a plan, with a kubectl that does nothing.
func TestWaves(t *testing.T) {
	s := newSite(t)
	text := planned(t, s, "k8s")
	s.Write("plan.yaml", text, "kubectl", kubectl)
	if err := os.Chmod(filepath.Join(s.Dir, "kubectl"), 0o755); err != nil {
		t.Fatal(err)
	}
	id := get[string](t, documents(t, text)[0], "metadata", "labels", "layerbuild-plan")
	script := "KUBECTL=./kubectl INTERVAL=0 sh " + example("kubernetes/waves.sh") + " plan.yaml"
	out, err := s.run(t, []string{"sh", "-c"}, script, "FAILED=none")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var got []string
	for line := range strings.Lines(s.file(t, "log")) {
		got = append(got, strings.Join(strings.Fields(line)[:4], " "))
	}
	want := ""
	for _, wave := range []string{"0", "1", "2"} {
		want += "apply -f plan.yaml -l\nget job -l layerbuild-plan=" + id +
			",layerbuild-wave=" + wave + "\n"
	}
	if log := strings.Join(got, "\n") + "\n"; log != want {
		t.Errorf("kubectl is called with\n%swant\n%s", log, want)
	}
	if out, err = s.run(t, []string{"sh", "-c"}, script, "FAILED=1"); err == nil ||
		!strings.Contains(out, "a Job of wave 1 has failed") ||
		strings.Contains(s.file(t, "log"), "wave=3") {
		t.Errorf("a failed Job: %v\n%s", err, out)
	}
}

// TestGitHubPlan runs the commands of a plan for GitHub as the workflow of the example does.
func TestGitHubPlan(t *testing.T) {
	s := newSite(t)
	var plan struct {
		Waves  []struct{ Include []struct{ Command string } }
		Images struct{ Include []struct{ Command string } }
		Index  string
	}
	if err := json.Unmarshal([]byte(planned(t, s, "github")), &plan); err != nil {
		t.Fatal(err)
	}
	workflow := documents(t, read(t, "github-actions/plan.yml"))[0]
	line := get[string](t, workflow, "jobs", "image", "steps", 2, "run")
	var commands []string
	for _, w := range append(plan.Waves, plan.Images) {
		for _, e := range w.Include {
			commands = append(commands, e.Command)
		}
	}
	if len(commands) != 6 {
		t.Fatalf("%d commands, want those of two stages and the image for two platforms: %q",
			len(commands), commands)
	}
	for _, c := range append(commands, plan.Index) {
		if out, err := s.run(t, []string{"bash", "-ec"}, line, "COMMAND="+c); err != nil {
			t.Fatalf("%s: %v\n%s", c, err, out)
		}
	}
	s.pushed(t, "", nil, "team/app:v1-linux-amd64", "team/app:v1-linux-arm64", "team/app:v1")
}
