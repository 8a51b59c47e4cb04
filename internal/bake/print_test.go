package bake

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/internal/goldentest"
	"github.com/rogpeppe/go-internal/txtar"
)

// testCase is a file of testdata/print: files, and a command line in its comment.
type testCase struct {
	args, sets, files []string
	env               map[string]string
	data              map[string]string // the files
	archive           *txtar.Archive
}

// readCase reads a file of testdata/print.
func readCase(t *testing.T, name string) *testCase {
	t.Helper()
	archive, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	c := &testCase{env: map[string]string{}, data: map[string]string{}, archive: archive}
	for line := range strings.Lines(string(archive.Comment)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "args":
			c.args = strings.Fields(value)
		case "files":
			c.files = strings.Fields(value)
		case "set":
			c.sets = append(c.sets, value)
		case "env":
			for _, v := range strings.Fields(value) {
				name, value, _ := strings.Cut(v, "=")
				c.env[name] = value
			}
		}
	}
	for _, f := range archive.Files {
		c.data[f.Name] = string(f.Data)
	}
	return c
}

// options returns the options of a case.
func (c *testCase) options() Options {
	return Options{
		LookupEnv: func(name string) (string, bool) { v, ok := c.env[name]; return v, ok },
		Builtins: map[string]string{"BAKE_LOCAL_PLATFORM": "linux/amd64",
			"BAKE_CMD_CONTEXT": "cwd://"},
		DotEnv: []byte(c.data[".env"]), Home: "/home/user",
		ReadFile: func(name string) ([]byte, error) {
			if data, ok := c.data[name]; ok {
				return []byte(data), nil
			}
			return nil, fs.ErrNotExist
		},
	}
}

// parse parses the files of a case.
func (c *testCase) parse() (*Config, error) {
	var files []File
	names := c.files
	if names == nil {
		names = DefaultFiles[:]
	}
	for _, name := range names {
		if data, ok := c.data[name]; ok {
			files = append(files, File{name, []byte(data)})
		}
	}
	return Parse(files, c.options())
}

// print returns the output of --print.
func (c *testCase) print() (string, error) {
	config, err := c.parse()
	if err != nil {
		return "", err
	}
	var sets []Override
	for _, s := range c.sets {
		o, ok, err := config.ParseOverride(s, c.options().LookupEnv)
		if err != nil {
			return "", err
		}
		if ok {
			sets = append(sets, o)
		}
	}
	args := c.args
	if args == nil {
		args = []string{"default"}
	}
	def, err := config.Resolve(args, sets)
	if err != nil {
		return "", err
	}
	data, err := def.JSON()
	return string(data) + "\n", err
}

// cases returns the names of all cases of a directory.
func cases(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob("testdata/" + dir + "/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	return names
}

// TestPrint compares the targets of files with golden files.
func TestPrint(t *testing.T) {
	for _, name := range cases(t, "print") {
		t.Run(filepath.Base(name), func(t *testing.T) {
			got, err := readCase(t, name).print()
			if err != nil {
				t.Fatal(err)
			}
			base := strings.TrimSuffix(filepath.Base(name), ".txtar")
			goldentest.Compare(t, "print/"+base+".json", got)
		})
	}
}

// TestPrintAgain reads the output of --print as a file: it defines the same targets.
func TestPrintAgain(t *testing.T) {
	for _, name := range cases(t, "print") {
		t.Run(filepath.Base(name), func(t *testing.T) {
			c := readCase(t, name)
			first, err := c.print()
			if err != nil {
				t.Fatal(err)
			}
			again := &testCase{data: map[string]string{"docker-bake.json": first}}
			second, err := again.print()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(first, second); diff != "" {
				t.Errorf("the second output differs (-first +second):\n%s", diff)
			}
		})
	}
}

// TestPrintAsBuildx compares the golden files with the output of buildx. That has some lists in a
// random order, and 0:0 for a ulimit of compose that is one number. The test needs a buildx
// program, whose path is that of LAYERBUILD_BUILDX.
func TestPrintAsBuildx(t *testing.T) {
	program := os.Getenv("LAYERBUILD_BUILDX")
	if program == "" {
		t.Skip("LAYERBUILD_BUILDX is not set: it is the path of a buildx program")
	}
	for _, name := range cases(t, "print") {
		t.Run(filepath.Base(name), func(t *testing.T) {
			c := readCase(t, name)
			want := c.runBuildx(t, program)
			got, err := c.print()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(decoded(t, want), decoded(t, got)); diff != "" {
				t.Errorf("-buildx +layerbuild:\n%s", diff)
			}
			if want != got {
				t.Logf("the texts differ: %s", cmp.Diff(want, got))
			}
		})
	}
}

// decoded decodes an output of --print. buildx prints the targets of a matrix in a random order.
func decoded(t *testing.T, text string) any {
	t.Helper()
	var v struct {
		Group  map[string]struct{ Targets []string }
		Target map[string]any
	}
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	for _, g := range v.Group {
		slices.Sort(g.Targets)
	}
	return v
}

// runBuildx runs buildx bake --print on a case.
func (c *testCase) runBuildx(t *testing.T, program string) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range c.data {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// buildx looks for the files of secrets, and reads those of keys and in the place of an agent.
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	for name := range strings.FieldsSeq("f other.txt token.txt x y KEY a.pem b.pem id_rsa") {
		if err := os.WriteFile(filepath.Join(dir, name), key, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"bake", "--print"}
	for _, f := range c.files {
		args = append(args, "-f", f)
	}
	for _, s := range c.sets {
		args = append(args, "--set", s)
	}
	cmd := exec.Command(program, append(args, c.args...)...)
	cmd.Dir, cmd.Env = dir, []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH"),
		"SSH_AUTH_SOCK=" + filepath.Join(dir, "KEY")}
	for name, value := range c.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		t.Fatalf("buildx: %v\n%s", err, exit.Stderr)
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestErrors compares the errors of files with golden files.
func TestErrors(t *testing.T) {
	for _, name := range cases(t, "errors") {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range archive.Files {
			t.Run(f.Name, func(t *testing.T) {
				want, text, _ := strings.Cut(string(f.Data), "\n")
				want = strings.TrimPrefix(want, "# ")
				file := "docker-bake.hcl"
				if filepath.Base(name) == "compose.txtar" {
					file = "compose.yaml"
				}
				c := &testCase{data: map[string]string{file: text}, args: []string{"t"}}
				if _, err := c.print(); err == nil || err.Error() != want {
					t.Errorf("error %v, want %s", err, want)
				}
			})
		}
	}
}
