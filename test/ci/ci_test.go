package ci

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/internal/schematest"
	"github.com/layerbuild/layerbuild/test/lab"
	"go.yaml.in/yaml/v3"
)

func TestMain(m *testing.M) { lab.Main(m) }

const (
	user     = "robot"
	password = `p"a\s$s 'w`
)

// example returns the path of a file of the examples.
func example(name string) string { return filepath.Join(lab.Top(), "examples", name) }

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(example(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// documents returns the documents of a YAML file, as encoding/json decodes them.
func documents(t *testing.T, text string) (list []map[string]any) {
	t.Helper()
	dec := yaml.NewDecoder(strings.NewReader(text))
	for {
		var doc, clean map[string]any
		if err := dec.Decode(&doc); err != nil {
			if len(list) == 0 {
				t.Fatal(err)
			}
			return list
		}
		data, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, &clean); err != nil {
			t.Fatal(err)
		}
		list = append(list, clean)
	}
}

// get returns the value at a path of keys and indexes of a document.
func get[T any](t *testing.T, doc any, path ...any) T {
	t.Helper()
	for _, key := range path {
		switch at := doc.(type) {
		case map[string]any:
			doc = at[key.(string)]
		case []any:
			doc = at[key.(int)]
		default:
			t.Fatalf("nothing at %v", path)
		}
	}
	v, ok := doc.(T)
	if !ok {
		t.Fatalf("%v at %v", doc, path)
	}
	return v
}

// module returns the directory of a Go module, which the go command fetches if necessary.
func module(t *testing.T, version string) string {
	t.Helper()
	lab.Need(t, "go")
	cmd := lab.Exec(t, "go", "mod", "download", "-json", version)
	cmd.Dir = t.TempDir()
	out, err := cmd.Output()
	var m struct{ Dir, Error string }
	if json.Unmarshal(out, &m) != nil || err != nil || m.Dir == "" {
		t.Skipf("the module %s cannot be had: %s %v", version, m.Error, err)
	}
	return m.Dir
}

// site is a place in which the shell lines of an example run.
type site struct {
	*lab.Lab
	env []string
}

// newSite returns a site with a context in its directory, the program in PATH, and a registry that
// asks for credentials.
func newSite(t *testing.T) *site {
	t.Helper()
	lab.Root(t)
	l := lab.New(t)
	l.Busybox()
	l.Registry.Auth(user, password)
	l.Write("Dockerfile", "FROM scratch\nARG A=1\nCOPY file /\nLABEL a=$A\n", "file", "content\n")
	bin, err := os.MkdirTemp("", "layerbuild-ci-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(bin) })
	if err := os.Chmod(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(lab.Binary(t))
	if err != nil {
		t.Fatal(err)
	}
	// The checkout may be in a directory that another user cannot enter.
	if err := os.WriteFile(filepath.Join(bin, "layerbuild"), data, 0o755); err != nil {
		t.Fatal(err)
	}
	return &site{Lab: l, env: append(slices.Clone(l.Env), "LAYERBUILD_ROOT="+l.State,
		"PATH="+bin+":"+os.Getenv("PATH")+":/usr/sbin:/sbin", "GITHUB_ACTIONS=",
		"REGISTRY="+l.Registry.Host)}
}

// run runs a script with a shell and returns its output.
func (s *site) run(t *testing.T, shell []string, script string, env ...string) (string, error) {
	t.Helper()
	line := slices.Concat(s.Prefix, shell, []string{script})
	cmd := lab.Exec(t, line[0], line[1:]...)
	cmd.Dir = s.Dir
	cmd.Env = slices.Concat(os.Environ(), s.env, env)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// pushed checks that a manifest was pushed under each name, or under one that begins with it, and
// that the log has no password.
func (s *site) pushed(t *testing.T, out string, err error, names ...string) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	log := strings.Join(s.Registry.Log(), "\n")
	for _, name := range names {
		repo, tag, _ := strings.Cut(name, ":")
		if !strings.Contains(log, "PUT /v2/"+repo+"/manifests/"+tag) {
			t.Errorf("%s was not pushed:\n%s\n%s", name, out, log)
		}
	}
	if strings.Contains(out, password) {
		t.Errorf("the log has the password:\n%s", out)
	}
}

func (s *site) file(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(s.Dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func openSchema(t *testing.T, file string) schematest.Schema {
	t.Helper()
	s, err := schematest.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestGitLab checks .gitlab-ci.yml against GitLab's schema, and runs its lines for both kinds of
// runners.
func TestGitLab(t *testing.T) {
	text := read(t, "gitlab-ci/.gitlab-ci.yml")
	doc := documents(t, text)[0]
	schema := openSchema(t, "testdata/gitlab-ci.json")
	if err := schema.CheckValue(extended(t, doc)); err != nil {
		t.Error(err)
	}
	mistake := documents(t, strings.Replace(text, "paths: [reports]", "paths: 7", 1))[0]
	if err := schema.CheckValue(extended(t, mistake)); err == nil {
		t.Error("the schema accepts a mistake")
	}
	for _, job := range []string{"check", "build", "build-privileged"} {
		// The runner starts a shell with the entrypoint of the image, which would be layerbuild.
		image := get[map[string]any](t, extended(t, doc), job, "image")
		if entrypoint := fmt.Sprintf("%q", image["entrypoint"]); entrypoint != `[""]` {
			t.Errorf("the image of %s has the entrypoint %s", job, entrypoint)
		}
	}
	lines := func(path ...any) string {
		var list []string
		for _, line := range get[[]any](t, doc, path...) {
			list = append(list, line.(string))
		}
		return strings.Join(list, "\n") + "\n"
	}
	script := "set -eu\n" + lines(".layerbuild", "before_script") + lines("check", "script") +
		lines(".build", "script") + lines(".layerbuild", "after_script")
	for _, as := range []string{"privileged", "rootless"} {
		t.Run(as, func(t *testing.T) {
			s := newSite(t)
			if as == "rootless" {
				s.As(lab.User(t, true))
			}
			host := s.Registry.Host
			out, err := s.run(t, []string{"sh", "-c"}, script, "CI_PROJECT_DIR="+s.Dir,
				"CI_REGISTRY="+host, "CI_REGISTRY_USER="+user, "CI_REGISTRY_PASSWORD="+password,
				"IMAGE="+host+"/team/app:main", "CACHE="+host+"/team/app/cache")
			s.pushed(t, out, err, "team/app:main", "team/app/cache:layerbuild-1-")
			if !strings.Contains(s.file(t, "reports/metadata.json"), `"containerimage.digest"`) ||
				!strings.Contains(s.file(t, "reports/waste.html"), "<html") {
				t.Error("the reports are missing")
			}
			if _, err := os.Stat(filepath.Join(s.Dir, ".docker")); err == nil {
				t.Error("the credentials are left")
			}
		})
	}
}

// extended returns a configuration of GitLab whose jobs have the keys of the jobs that they extend.
// The schema does not check jobs whose names begin with a dot.
func extended(t *testing.T, doc map[string]any) map[string]any {
	t.Helper()
	var merged func(job map[string]any) map[string]any
	merged = func(job map[string]any) map[string]any {
		all := map[string]any{}
		if base, ok := job["extends"].(string); ok {
			all = merged(get[map[string]any](t, doc, base))
		}
		maps.Copy(all, job)
		delete(all, "extends")
		return all
	}
	out := map[string]any{}
	for name, v := range doc {
		if job, ok := v.(map[string]any); ok && name != "variables" {
			v = merged(job)
		}
		out[name] = v
	}
	return out
}

// TestKubernetes checks the manifests with kubeconform, and runs the lines with the capabilities
// that the Job asks for.
func TestKubernetes(t *testing.T) {
	text := read(t, "kubernetes/job.yaml")
	docs := documents(t, text)
	t.Run("schema", func(t *testing.T) {
		kubernetesSchema(t, text)
		kubernetesSchema(t, read(t, "kubernetes/platforms.yaml"))
	})
	s := newSite(t)
	docker := filepath.Join(s.Dir, "docker")
	credentials(t, s, docker)
	context := filepath.Join(s.Dir, "context")
	if err := os.Mkdir(context, 0o755); err != nil {
		t.Fatal(err)
	}
	// A volume of a ConfigMap has links to the files.
	dockerfile := get[string](t, docs[0], "data", "Dockerfile")
	s.Write("context/..data/Dockerfile", dockerfile)
	if err := os.Symlink("..data/Dockerfile", filepath.Join(context, "Dockerfile")); err != nil {
		t.Fatal(err)
	}
	container := get[map[string]any](t, docs[1], "spec", "template", "spec", "containers", 0)
	caps := "-all"
	for _, name := range slices.Concat(defaultCapabilities,
		get[[]any](t, container, "securityContext", "capabilities", "add")) {
		caps += ",+" + strings.ToLower(name.(string))
	}
	lab.Need(t, "setpriv")
	s.Prefix = []string{"setpriv", "--bounding-set=" + caps, "--inh-caps=" + caps}
	var shell []string
	for _, word := range get[[]any](t, container, "command") {
		shell = append(shell, word.(string))
	}
	host := s.Registry.Host
	out, err := s.run(t, shell, get[string](t, container, "args", 0), "DOCKER_CONFIG="+docker,
		"IMAGE="+host+"/team/app:latest", "CACHE="+host+"/team/app-cache", "CONTEXT="+context,
		"WORK="+filepath.Join(s.Dir, "work"))
	s.pushed(t, out, err, "team/app:latest", "team/app-cache:layerbuild-1-")
}

// defaultCapabilities are those that containerd and CRI-O give a container.
var defaultCapabilities = []any{"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID",
	"SETUID", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT"}

// credentials writes a config.json for the registry.
func credentials(t *testing.T, s *site, dir string) {
	t.Helper()
	config, err := json.Marshal(map[string]any{"auths": map[string]any{
		s.Registry.Host: map[string]string{"username": user, "password": password}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestTekton checks the Task and the TaskRun with kubeconform, and runs the Task's script.
func TestTekton(t *testing.T) {
	task := documents(t, read(t, "tekton/task.yaml"))[0]
	t.Run("schema", func(t *testing.T) {
		tektonSchema(t, read(t, "tekton/task.yaml")+"---\n"+read(t, "tekton/taskrun.yaml"))
	})
	s := newSite(t)
	docker := filepath.Join(s.Dir, "docker")
	credentials(t, s, docker)
	step := get[map[string]any](t, task, "spec", "steps", 0)
	host := s.Registry.Host
	values := map[string]string{"$(params.image)": host + "/team/app:latest",
		"$(params.dockerfile)": "Dockerfile", "$(params.context)": ".",
		"$(params.cache)": host + "/team/app-cache", "$(workspaces.dockerconfig.path)": docker,
		"$(results.IMAGE_DIGEST.path)": filepath.Join(s.Dir, "digest"),
		"$(results.IMAGE_URL.path)":    filepath.Join(s.Dir, "url"), "/state": s.State}
	var env []string
	for _, v := range get[[]any](t, step, "env") {
		value := get[string](t, v, "value")
		if _, ok := values[value]; !ok {
			t.Errorf("the test has no value for %s", value)
		}
		env = append(env, get[string](t, v, "name")+"="+values[value])
	}
	script := get[string](t, step, "script")
	if strings.Contains(script, "$(params") {
		t.Error("a parameter is text in the script")
	}
	out, err := s.run(t, []string{"sh", "-c"}, script, env...)
	s.pushed(t, out, err, "team/app:latest", "team/app-cache:layerbuild-1-")
	if digest := s.file(t, "digest"); len(digest) != len("sha256:")+64 {
		t.Errorf("the digest is %q", digest)
	}
	if url := s.file(t, "url"); url != host+"/team/app:latest" {
		t.Errorf("the URL is %q", url)
	}
}

// TestJenkins runs the lines of the Jenkinsfile, and checks that its brackets and quotes match.
func TestJenkins(t *testing.T) {
	text := read(t, "jenkins/Jenkinsfile")
	scripts, err := jenkinsScripts(text)
	if err != nil {
		t.Fatal(err)
	}
	if len(scripts) != 2 {
		t.Fatalf("%d scripts, want 2", len(scripts))
	}
	for _, broken := range []string{strings.Replace(text, "}", "", 1), text + "}",
		strings.Replace(text, "'''", "'", 1), strings.Replace(text, "(time: 1", "[time: 1", 1)} {
		if _, err := jenkinsScripts(broken); err == nil {
			t.Errorf("no mistake is found in\n%s", broken)
		}
	}
	s := newSite(t)
	host := s.Registry.Host
	for _, script := range scripts {
		// Jenkins runs a script with sh -xe.
		out, err := s.run(t, []string{"sh", "-e", "-c"}, script, "REGISTRY="+host,
			"IMAGE="+host+"/team/app", "BUILD_NUMBER=17", "LOGIN_USR="+user, "LOGIN_PSW="+password,
			"WORKSPACE_TMP="+filepath.Join(s.Dir, "tmp"))
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if strings.Contains(script, "--push") {
			s.pushed(t, out, err, "team/app:17", "team/app-cache:layerbuild-1-")
		}
	}
	if _, err := os.Stat(filepath.Join(s.Dir, "tmp/docker")); err == nil {
		t.Error("the credentials are left")
	}
	if !strings.Contains(s.file(t, "metadata.json"), `"containerimage.digest"`) {
		t.Error("there are no metadata")
	}
}

// goRun runs a program of a Go module, which the go command builds.
func goRun(t *testing.T, dir, program string, args ...string) (string, error) {
	t.Helper()
	cmd := lab.Exec(t, "go", append([]string{"run", program}, args...)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		t.Fatal(err)
	}
	return string(out), err
}
