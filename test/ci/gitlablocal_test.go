package ci

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/test/lab"
)

// gitlabLocal is a version of gitlab-ci-local that starts with Node.js 18, which is that of Debian
// 12. Version 4.75.1 does not start with Node.js 20. The dependencies are those of the day in npm's
// flag --before.
const gitlabLocal = "gitlab-ci-local@4.65.1"

// installGitlabLocal installs gitlab-ci-local in a directory that other users can read. The test is
// skipped unless LAYERBUILD_NPM is set; the package comment has the reason.
func installGitlabLocal(t *testing.T) (program string) {
	t.Helper()
	if os.Getenv("LAYERBUILD_NPM") == "" {
		t.Skip("LAYERBUILD_NPM is not set: the test needs npm and rsync, and downloads " +
			gitlabLocal)
	}
	for _, name := range []string{"npm", "rsync", "git"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := os.MkdirTemp("/tmp", "layerbuild-npm-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	lab.Output(t, "npm", "install", "--prefix", dir, "--before=2026-09-30", "--ignore-scripts",
		"--no-audit", "--no-fund", gitlabLocal)
	return filepath.Join(dir, "node_modules/.bin/gitlab-ci-local")
}

// TestGitLabLocal has gitlab-ci-local evaluate the rules of .gitlab-ci.yml and run its jobs, those
// of a privileged runner as root and the others as a user.
func TestGitLabLocal(t *testing.T) {
	program := installGitlabLocal(t)
	text := read(t, "gitlab-ci/.gitlab-ci.yml")
	for name, jobs := range map[string]map[string]string{
		"rootless": {"check": "on_success", "build": "on_success", "build-privileged": "never"},
		"privileged": {"check": "on_success", "build": "never",
			"build-privileged": "on_success"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			project(t, s, text)
			privileged := "1"
			if name == "rootless" {
				privileged = "0"
				s.As(lab.User(t, true))
			}
			host := s.Registry.Host
			local := []string{program, "--force-shell-executor"}
			for _, variable := range []string{"LAYERBUILD_PRIVILEGED=" + privileged,
				"CI_REGISTRY=" + host, "CI_REGISTRY_IMAGE=" + host + "/team/app",
				"CI_REGISTRY_USER=" + user,
				// $$ stands for a dollar sign in the value of a variable.
				"CI_REGISTRY_PASSWORD=" + strings.ReplaceAll(password, "$", "$$"),
				// gitlab-ci-local gives a job with an image a directory in the container.
				"CI_PROJECT_DIR=" + s.Dir} {
				local = append(local, "--variable", variable)
			}
			if got := listedJobs(t, s, local); !maps.Equal(got, jobs) {
				t.Errorf("the jobs are %v, want %v", got, jobs)
			}
			out, err := s.run(t, local, "--no-color")
			s.pushed(t, out, err, "team/app:main", "team/app/cache:layerbuild-1-")
			for job, when := range jobs {
				passed := regexp.MustCompile(`(?m)PASS  ` + job + ` *$`).MatchString(out)
				if passed != (when != "never") {
					t.Errorf("%s passed: %v\n%s", job, passed, out)
				}
			}
			if !strings.Contains(s.file(t, "reports/waste.html"), "<html") {
				t.Error("the report is missing")
			}
			if _, err := os.Stat(filepath.Join(s.Dir, ".docker")); err == nil {
				t.Error("the credentials are left")
			}
			// The schema of GitLab accepts a stage that does not exist.
			s.Write(".gitlab-ci.yml", strings.Replace(text, "stage: check", "stage: chek", 1))
			if out, err := s.run(t, local, "--list"); err == nil || !strings.Contains(out, "chek") {
				t.Errorf("an unknown stage is not found: %v\n%s", err, out)
			}
		})
	}
}

// project makes a git repository of a site's directory, with .gitlab-ci.yml.
func project(t *testing.T, s *site, text string) {
	t.Helper()
	s.Write(".gitlab-ci.yml", text)
	for _, args := range [][]string{{"init", "-q", "-b", "main"},
		{"remote", "add", "origin", "https://gitlab.example.com/team/app.git"}, {"add", "-A"},
		{"-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-q", "-m", "a"}} {
		lab.Output(t, "git", append([]string{"-C", s.Dir}, args...)...)
	}
}

// listedJobs returns when each job of a pipeline runs.
func listedJobs(t *testing.T, s *site, local []string) map[string]string {
	t.Helper()
	out, err := s.run(t, local, "--list-json")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var list []struct{ Name, When string }
	// Messages are before the document.
	if err := json.Unmarshal([]byte(out[max(strings.Index(out, "\n[\n"), 0):]), &list); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	jobs := map[string]string{}
	for _, job := range list {
		jobs[job.Name] = job.When
	}
	return jobs
}
