package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// Each script has every verb and every flag that is shown, and its shell can parse it.
func TestCompletionScripts(t *testing.T) {
	all := visible(verbs())
	for _, shell := range shells {
		t.Run(shell.name, func(t *testing.T) {
			script := shell.script(completionsOf(all))
			for _, v := range all {
				forEachFlag(v, func(f *pflag.Flag) {
					long := "--" + f.Name
					if shell.name == "fish" {
						long = "-l " + f.Name
					}
					if has := strings.Contains(script, long); has == f.Hidden {
						t.Errorf("%s: %s --%s: %t, hidden %t", shell.name, v.name,
							f.Name, has, f.Hidden)
					}
				})
				if !strings.Contains(script, v.name) {
					t.Errorf("%s: no verb %s", shell.name, v.name)
				}
			}
			if strings.Count(script, "gen-docs") != 1 { // in the comment
				t.Errorf("%s: gen-docs is completed", shell.name)
			}
			name := filepath.Join(t.TempDir(), "script")
			if err := os.WriteFile(name, []byte(script), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := exec.LookPath(shell.name); err != nil {
				t.Skip(err)
			}
			if out, err := exec.Command(shell.name, "-n", name).CombinedOutput(); err != nil ||
				len(out) > 0 {
				t.Errorf("%s -n: %v, %s", shell.name, err, out)
			}
		})
	}
}

// bashCompletions returns the words that bash offers for command lines, in a directory with the
// directory sub and the file app.tar, and with images in the store.
func bashCompletions(t *testing.T, lines []string) []string {
	t.Helper()
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return name
	}
	script := write("bash", bashCompletion(completionsOf(visible(verbs()))), 0o600)
	write("bin/layerbuild",
		"#!/bin/sh\nprintf 'NAME    ID\\napp:v1  1\\napp:v2  2\\n<none>  3\\nreg/x:1 4\\n'\n",
		0o700)
	write("work/app.tar", "", 0o600)
	write("work/sub/file", "", 0o600)
	test := `source "$1"; shift; complete -p layerbuild >&2
for COMP_LINE; do COMP_POINT=${#COMP_LINE}; _layerbuild; (IFS=' '; echo "${COMPREPLY[*]}"); done`
	cmd := exec.Command("bash", append([]string{"--norc", "-c", test, "bash", script}, lines...)...)
	cmd.Dir = filepath.Join(dir, "work")
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.String() != "complete -F _layerbuild layerbuild\n" {
		t.Fatalf("bash: %v, %s", err, stderr.String())
	}
	return strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
}

func TestBashCompletion(t *testing.T) {
	tests := []struct{ line, want string }{
		{"layerbuild pru", "prune prune-image"},
		{"layerbuild help pru", "prune prune-image"},
		{"layerbuild --root s ima", "images image"},
		{"layerbuild --root=s ima", "images image"},
		{"layerbuild -t images ima", ""}, // the verb build, whose context is "images"
		{"layerbuild s", "save sbom sub"},
		{"layerbuild build ", "sub"},
		{"layerbuild build sub --no-cache-", "--no-cache-filter"},
		{"layerbuild --no-cache-", "--no-cache-filter"},
		{"layerbuild sub --no-cache-", "--no-cache-filter"},
		{"layerbuild images --no", "--no-trunc"},
		{"layerbuild image pu", "pull push"},
		{"layerbuild build --progress ", "auto plain tty rawjson json quiet none"},
		{"layerbuild build --progress=pl", "plain"}, // bash keeps the text before =
		{"layerbuild build --progress=", "auto plain tty rawjson json quiet none"},
		{"layerbuild build --progress plain ", "sub"},
		{"layerbuild build --analyze=m", "markdown"},
		{"layerbuild build --analyze ", "sub"}, // a value is only accepted after =
		{"layerbuild build --call c", "check"},
		{"layerbuild build --allow security.insecure,n", "security.insecure,network.host"},
		{"layerbuild build --build-arg ", ""},
		{"layerbuild build -f a", "app.tar"},
		{"layerbuild build --file a", "app.tar"},
		{"layerbuild --root ", "sub"},
		{"layerbuild images --driver c", "copy"},
		{"layerbuild run ", "app:v1 app:v2 reg/x:1"},
		{"layerbuild run -t a", "app:v1 app:v2"},
		{"layerbuild run app:v", "v1 v2"}, // bash keeps the text before :
		{"layerbuild run app --", ""},     // flags of the command
		{"layerbuild analyze a", "app:v1 app:v2 app.tar"},
		{"layerbuild analyze --base r", "reg/x:1"},
		{"layerbuild tag app:v1 app:v2 r", "reg/x:1"},
		{"layerbuild version ", ""},
		{"layerbuild version --", "--help --format"},
		{"layerbuild help gen", ""},
	}
	var lines []string
	for _, tt := range tests {
		lines = append(lines, tt.line)
	}
	// Each value of each choice completes.
	for _, v := range visible(verbs()) {
		for _, g := range flagsOf(v) {
			for _, f := range g.flags {
				for _, value := range f.values {
					lines = append(lines, fmt.Sprintf("layerbuild %s --%s=%s",
						v.name, f.name, value))
					tests = append(tests, struct{ line, want string }{lines[len(lines)-1], value})
				}
			}
		}
	}
	got := bashCompletions(t, lines)
	if len(got) != len(tests) {
		t.Fatalf("%d answers for %d lines: %q", len(got), len(tests), got)
	}
	for i, tt := range tests {
		if got[i] != tt.want {
			t.Errorf("%q is completed with %q, want %q", tt.line, got[i], tt.want)
		}
	}
}
