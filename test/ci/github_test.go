package ci

import (
	"fmt"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/test/lab"
)

// buildPushInputs are the inputs of docker/build-push-action v6.
const buildPushInputs = `add-hosts allow annotations attests build-args build-contexts builder
cache-from cache-to call cgroup-parent context file github-token labels load network no-cache
no-cache-filters outputs platforms provenance pull push sbom secret-envs secret-files secrets
shm-size ssh tags target ulimit`

// TestGitHubInputs compares the inputs of the action with those of build-push-action, with the
// variables of its script, and with the table of its README.
func TestGitHubInputs(t *testing.T) {
	action := documents(t, read(t, "github-actions/action.yml"))[0]
	script, readme := read(t, "github-actions/build.sh"), read(t, "github-actions/README.md")
	inputs := get[map[string]any](t, action, "inputs")
	step := get[map[string]any](t, action, "runs", "steps", 0)
	env := get[map[string]any](t, step, "env")
	for name := range strings.FieldsSeq(buildPushInputs) {
		if inputs[name] == nil {
			t.Errorf("action.yml has no input %s", name)
		}
	}
	for name := range inputs {
		variable := "INPUT_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
		if env[variable] != "${{ inputs."+name+" }}" {
			t.Errorf("the variable %s of the step is %v", variable, env[variable])
		}
		if !regexp.MustCompile(`\$\{?` + variable + `\b`).MatchString(script) {
			t.Errorf("build.sh does not use %s", variable)
		}
		if !strings.Contains(readme, "| `"+name+"` | ") {
			t.Errorf("the table of README.md has no row for %s", name)
		}
	}
	if len(env) != len(inputs) {
		t.Errorf("%d variables for %d inputs", len(env), len(inputs))
	}
	if run := get[string](t, step, "run"); strings.Contains(run, "${{") {
		t.Errorf("an input is text in the script: %s", run)
	}
	for _, name := range []string{"imageid", "digest", "metadata"} {
		if got := get[string](t, action, "outputs", name, "value"); got !=
			"${{ steps.build.outputs."+name+" }}" {
			t.Errorf("the output %s is %s", name, got)
		}
	}
}

// TestGitHubWorkflow checks the workflow, and the inputs that it gives the action, with actionlint.
func TestGitHubWorkflow(t *testing.T) {
	const program = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"
	module(t, "github.com/rhysd/actionlint@v1.7.12")
	dir := t.TempDir()
	lab.Need(t, "git")
	lab.Output(t, "git", "init", "-q", dir)
	write := func(name, text string) {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const workflow = ".github/workflows/image.yml"
	write(".github/actions/layerbuild/action.yml", read(t, "github-actions/action.yml"))
	text := read(t, "github-actions/workflow.yml")
	write(workflow, text)
	if out, err := goRun(t, dir, program, "-shellcheck=", "-pyflakes="); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	write(".github/workflows/plan.yml", read(t, "github-actions/plan.yml"))
	if out, err := goRun(t, dir, program, "-shellcheck=", "-pyflakes="); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	write(workflow, strings.Replace(text, " cache:", " cash:", 1))
	if out, err := goRun(t, dir, program, "-shellcheck=", "-pyflakes="); err == nil ||
		!strings.Contains(out, `"cash" is not defined in action`) {
		t.Errorf("an unknown input is not found: %v\n%s", err, out)
	}
}

// outputs parses the file of $GITHUB_OUTPUT.
func outputs(t *testing.T, text string) map[string]string {
	t.Helper()
	all := map[string]string{}
	if text == "" {
		return all
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for len(lines) > 0 {
		if name, end, ok := strings.Cut(lines[0], "<<"); ok {
			n := slices.Index(lines, end)
			if n < 0 {
				t.Fatalf("%s does not end in\n%s", name, text)
			}
			all[name], lines = strings.Join(lines[1:n], "\n"), lines[n+1:]
			continue
		}
		name, value, _ := strings.Cut(lines[0], "=")
		all[name], lines = value, lines[1:]
	}
	return all
}

// act runs the script of the action with inputs.
func (s *site) act(t *testing.T, inputs map[string]string) (log string, out map[string]string,
	err error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "output")
	env := []string{"GITHUB_OUTPUT=" + file, "RUNNER_TEMP=" + t.TempDir(), "DOCKER_CONFIG=" +
		filepath.Join(s.Dir, "docker")}
	for name, value := range inputs {
		env = append(env, "INPUT_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))+"="+value)
	}
	log, err = s.run(t, []string{"bash"}, example("github-actions/build.sh"), env...)
	data, _ := os.ReadFile(file) // there is none after an error
	return log, outputs(t, string(data)), err
}

// TestGitHubAction runs the script of the action with its inputs.
func TestGitHubAction(t *testing.T) {
	s := newSite(t)
	credentials(t, s, filepath.Join(s.Dir, "docker"))
	host := s.Registry.Host
	log, out, err := s.act(t, map[string]string{"context": ".", "push": "true", "load": "false",
		"tags":       host + "/team/app:1," + host + "/team/app:2\n" + host + "/team/other:3\n",
		"build-args": "\n  A=some, text=$x `y`\n\nB=unused\n", "no-cache": "false",
		"cache":  host + "/team/cache",
		"labels": "l=1\r\nm=\"2\"\r\n", "annotations": "a=b c",
		"cache-to":   "type=registry,ref=" + host + "/team/app:cache",
		"cache-from": "type=registry,ref=" + host + "/team/app:cache"})
	s.pushed(t, log, err, "team/app:1", "team/app:2", "team/other:3", "team/app:cache",
		"team/cache:layerbuild-1-")
	if !strings.HasPrefix(out["digest"], "sha256:") || !strings.HasPrefix(out["imageid"],
		"sha256:") || !strings.Contains(out["metadata"], out["digest"]) {
		t.Errorf("outputs %q", out)
	}
	labels := fmt.Sprint(s.Image(host + "/team/app:1").Config.Config.Labels)
	if labels != "map[a:some, text=$x `y` l:1 m:\"2\"]" {
		t.Errorf("labels %s", labels)
	}
	t.Run("secrets", func(t *testing.T) { actSecrets(t, s) })
	t.Run("check", func(t *testing.T) {
		s.Write("Checked", "FROM scratch\nCMD a b\n")
		log, out, err := s.act(t, map[string]string{"context": ".", "call": "check",
			"file": "Checked"})
		if err == nil || !strings.Contains(log, "JSONArgsRecommended") || len(out) > 0 {
			t.Errorf("%v, outputs %q\n%s", err, out, log)
		}
	})
	t.Run("refused", func(t *testing.T) {
		log, _, err := s.act(t, map[string]string{"context": ".", "labels": "\"a=1"})
		if err == nil || !strings.Contains(log, "a quote is not closed") {
			t.Errorf("%v\n%s", err, log)
		}
		log, _, err = s.act(t, map[string]string{"context": ".", "network": "bridge"})
		if err == nil || !strings.Contains(log, "--network") {
			t.Errorf("%v\n%s", err, log)
		}
	})
	t.Run("git", func(t *testing.T) { actGit(t, s) })
}

// actSecrets builds with secrets from values, variables and files.
func actSecrets(t *testing.T, s *site) {
	s.Write("Secrets", "FROM busybox\nRUN --mount=type=secret,id=one --mount=type=secret,id=two "+
		"--mount=type=secret,id=three --mount=type=secret,id=lines "+
		"cat /run/secrets/one /run/secrets/two /run/secrets/three /run/secrets/lines | md5sum > /sum\n",
		"secret-file", "3")
	s.env = append(s.env, "SECRET_TWO=2")
	log, _, err := s.act(t, map[string]string{"context": ".", "file": "Secrets", "tags": "secrets",
		"secrets": "one=1=a, b\n\"lines=first\n\"\"second\"\"\"\n", "secret-envs": "two=SECRET_TWO",
		"secret-files": "three=secret-file"})
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	want := lab.Output(t, "sh", "-c", `printf '1=a, b23first\n"second"' | md5sum`)
	if got := s.Layer("secrets", -1); !strings.Contains(got, strings.Fields(want)[0]) {
		t.Errorf("the layer holds\n%s\nwant %s", got, want)
	}
}

// actGit builds the repository of the workflow, as without a context.
func actGit(t *testing.T, s *site) {
	lab.Need(t, "git")
	repo := filepath.Join(s.Dir, "repos/owner/name.git")
	git := func(args ...string) string {
		return lab.Output(t, "git", append([]string{"-C", repo, "-c", "user.name=a",
			"-c", "user.email=a@example.com"}, args...)...)
	}
	s.Write("repos/owner/name.git/Dockerfile", "FROM scratch\nCOPY Dockerfile /\nLABEL from=git\n")
	git("init", "-q")
	git("add", ".")
	git("commit", "-q", "-m", "a")
	git("config", "uploadpack.allowReachableSHA1InWant", "true") // as GitHub's servers do
	path, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	backend := &cgi.Handler{Path: path, Args: []string{"http-backend"},
		Env: []string{"GIT_PROJECT_ROOT=" + filepath.Join(s.Dir, "repos"), "GIT_HTTP_EXPORT_ALL=1"}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, token, ok := r.BasicAuth(); !ok || token != "some token" {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	defer server.Close()
	s.env = append(s.env, "GITHUB_SERVER_URL="+server.URL, "GITHUB_REPOSITORY=owner/name",
		"GITHUB_SHA="+strings.TrimSpace(git("rev-parse", "HEAD")))
	log, _, err := s.act(t, map[string]string{"tags": "fromgit", "github-token": "some token"})
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	if labels := s.Image("fromgit").Config.Config.Labels; labels["from"] != "git" {
		t.Errorf("labels %v", labels)
	}
}
