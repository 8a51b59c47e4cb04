package cluster

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// hostile are values that an engine, a shell or YAML could take for something else.
var hostile = []string{
	"", " ", "a b", `"`, `'`, `\`, "a\nb", "a\n  b: c\n---\n", "#x", "a: b", "- a", "[x", "{x", "*x",
	"&x", "!x", "%x", "@x", "`id`", "$(id)", "$$(id)", "$X", "${X}", "$", "$$", "$(LAYERBUILD_BRACE)",
	"$(DOCKER_CONFIG)", "$(LAYERBUILD_DOLLAR)", "{{x}}", "{{{x}}}", "{{=1+1}}", "{{inputs.parameters.x}}", "{{", "{",
	"$(params.args)", "$(params.args[*])", "$(context.taskRun.name)", "${{ github.token }}", "<id>",
	"<args>", "<container>", "'; touch evil; '", "\t", "\r\n", "\x00", "\x01\x7f", "\u0085\u2028\u2029",
	"\ufeffé€𝄞", "yes", "null", "1e3", "--", "#SBATCH --hold", "\n#SBATCH --hold\n", "it's",
	`'"'"'`, "*", "~", "a;b|c&d<e>f", "!!", `\n`, "\\\n",
}

// planOf returns a plan with a value in each place of a node that has one of the user.
func planOf(value string) *Plan {
	p := &Plan{Image: "registry.example.com/layerbuild:latest", Claim: "source", Dir: "/dir",
		Notes: []string{"The context is " + value}}
	args := func(more ...string) []string {
		return append([]string{"layerbuild", "build", "--build-arg=X=" + value}, more...)
	}
	g := Graph{Platform: "linux/arm/v7", Final: 2, Stages: []Stage{{Name: value, Target: value, Steps: 1},
		{Name: "other", Target: "other", Steps: 1}, {Name: "final", Needs: []int{0, 1}}}}
	for _, platform := range []string{"linux/arm/v7", "linux/arm-v7"} {
		nodes := Divide(g, 0)
		for i := range nodes {
			nodes[i].Args = args("--target="+nodes[i].Target, value)
		}
		p.Add(nodes, platform)
	}
	p.Join(args(value))
	return p
}

// withoutNUL is a value as a command line can have it.
func withoutNUL(s string) string { return strings.ReplaceAll(s, "\x00", "") }

func TestHostileValues(t *testing.T) {
	for _, value := range hostile {
		check(t, planOf(value))
	}
	if err := planOf("\xff").Check(); err == nil {
		t.Error("bytes that are not UTF-8 are accepted")
	}
}

func FuzzValues(f *testing.F) {
	for _, value := range hostile {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		p := planOf(value)
		if utf8.ValidString(value) != (p.Check() == nil) {
			t.Fatalf("Check of %q: %v", value, p.Check())
		}
		if p.Check() == nil {
			check(t, p)
		}
	})
}

var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// check checks that each engine runs the command lines of the nodes unchanged.
func check(t *testing.T, p *Plan) {
	t.Helper()
	want := map[string][]string{}
	for _, n := range p.Nodes {
		if want[n.Name] != nil || !label.MatchString("layerbuild-"+p.ID()+"-"+n.Name) {
			t.Fatalf("the name %q is not unique, or not valid", n.Name)
		}
		want[n.Name] = n.Args
	}
	compare := func(engine, name string, args []string) {
		t.Helper()
		if !slices.Equal(args, want[name]) {
			t.Fatalf("%s runs %q for %s, want %q", engine, args, name, want[name])
		}
	}
	jobs := documents(t, p.Kubernetes())
	if len(jobs) != len(p.Nodes) {
		t.Fatalf("%d Jobs of %d nodes", len(jobs), len(p.Nodes))
	}
	for i, job := range jobs {
		name := at[string](t, job, "metadata", "name")
		compare("k8s", strings.TrimPrefix(name, "layerbuild-"+p.ID()+"-"),
			command(t, at[any](t, job, "spec", "template", "spec", "containers", 0), nil))
		if wave := at[string](t, job, "metadata", "labels", "layerbuild-wave"); wave !=
			string(rune('0'+p.Nodes[i].Level)) {
			t.Errorf("wave %s of %v", wave, p.Nodes[i])
		}
	}
	checkArgo(t, p, compare)
	checkTekton(t, p, compare)
	checkGitHub(t, p, compare)
	checkSlurm(t, p, compare)
}

func checkArgo(t *testing.T, p *Plan, compare func(engine, name string, args []string)) {
	t.Helper()
	text := p.Argo()
	flow := documents(t, text)
	if len(flow) != 1 || strings.Contains(text[strings.Index(text, "\nkind:"):], "{{") {
		t.Fatalf("Argo replaces a part of\n%s", text)
	}
	templates := at[[]any](t, flow[0], "spec", "templates")
	for _, template := range templates[1:] {
		compare("argo", at[string](t, template, "name"),
			command(t, at[any](t, template, "container"), nil))
	}
	for i, task := range at[[]any](t, templates[0], "dag", "tasks") {
		if got := at[[]any](t, task, "dependencies"); len(got) != len(p.Nodes[i].Needs) {
			t.Fatalf("%v depends on %v", p.Nodes[i], got)
		}
	}
}

func checkTekton(t *testing.T, p *Plan, compare func(engine, name string, args []string)) {
	t.Helper()
	docs := documents(t, p.Tekton())
	step := at[any](t, docs[0], "spec", "steps", 0)
	for _, task := range at[[]any](t, docs[1], "spec", "pipelineSpec", "tasks") {
		args := at[[]any](t, task, "params", 0, "value")
		for _, arg := range args {
			rest := strings.ReplaceAll(arg.(string), "$(LAYERBUILD_DOLLAR)", "")
			if strings.Contains(rest, "$") {
				t.Fatalf("Tekton may replace a part of %q", arg)
			}
		}
		compare("tekton", at[string](t, task, "name"), command(t, step, args))
	}
}

func checkGitHub(t *testing.T, p *Plan, compare func(engine, name string, args []string)) {
	t.Helper()
	text, err := p.GitHub()
	var doc struct {
		Waves  []matrix
		Images matrix
		Index  string
	}
	if err != nil || strings.Count(text, "\n") != 1 || json.Unmarshal([]byte(text), &doc) != nil {
		t.Fatalf("%v, %q", err, text)
	}
	n := 0
	for _, m := range append(doc.Waves, doc.Images) {
		for _, e := range m.Include {
			compare("github", e.Name, shellWords(t, e.Command))
			n++
		}
	}
	compare("github", "index", shellWords(t, doc.Index))
	if n != len(p.Nodes)-1 {
		t.Errorf("%d entries of %d nodes", n, len(p.Nodes))
	}
}

func checkSlurm(t *testing.T, p *Plan, compare func(engine, name string, args []string)) {
	t.Helper()
	for i, part := range strings.Split(p.Slurm(), "\t--wrap=")[1:] {
		if k := strings.LastIndex(part, ")\n\n"); k >= 0 {
			part = part[:k]
		}
		words := shellWords(t, part)
		if len(words) != 1 {
			t.Fatalf("%q has %d words", part, len(words))
		}
		compare("slurm", p.Nodes[i].Name, shellWords(t, words[0]))
	}
}

// command returns the words that a container runs: Kubernetes expands references to its variables.
func command(t *testing.T, container any, args []any) []string {
	t.Helper()
	vars := map[string]string{}
	for _, v := range at[[]any](t, container, "env") {
		vars[at[string](t, v, "name")] = at[string](t, v, "value")
	}
	words := []string{at[string](t, container, "command", 0)}
	if args == nil {
		args = at[[]any](t, container, "args")
	}
	for _, arg := range args {
		words = append(words, expand(arg.(string), vars))
	}
	return words
}

// expand does what Kubernetes does with the arguments of a container
// (k8s.io/kubernetes/third_party/forked/golang/expansion).
func expand(s string, vars map[string]string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != '$' || i+1 == len(s):
			b.WriteByte(s[i])
		case s[i+1] == '$':
			b.WriteByte('$')
			i++
		case s[i+1] == '(' && strings.Contains(s[i:], ")"):
			name, _, _ := strings.Cut(s[i+2:], ")")
			if value, ok := vars[name]; ok {
				b.WriteString(value)
			} else {
				b.WriteString("$(" + name + ")")
			}
			i += len(name) + 2
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}

// shellWords splits a line into words as a shell does, if it has nothing but single quotes and
// backslashes outside of them.
func shellWords(t *testing.T, line string) (words []string) {
	t.Helper()
	var word strings.Builder
	in, quoted := false, false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case quoted && c != '\'':
			word.WriteByte(c)
		case c == '\'':
			in, quoted = true, !quoted
		case c == '\\':
			i++
			word.WriteByte(line[i])
			in = true
		case c == ' ':
			if in {
				words = append(words, word.String())
			}
			word.Reset()
			in = false
		case strings.IndexByte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"+
			"@%+=:,./-_", c) >= 0:
			word.WriteByte(c)
			in = true
		default:
			t.Fatalf("%q: %q outside of quotes", line, c)
		}
	}
	if in {
		words = append(words, word.String())
	}
	return words
}

func documents(t *testing.T, text string) (list []any) {
	t.Helper()
	dec := yaml.NewDecoder(strings.NewReader(text))
	for {
		var doc any
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if doc != nil {
			list = append(list, doc)
		}
	}
}

func at[T any](t *testing.T, doc any, path ...any) T {
	t.Helper()
	for _, key := range path {
		switch in := doc.(type) {
		case map[string]any:
			doc = in[key.(string)]
		case []any:
			doc = in[key.(int)]
		}
	}
	v, ok := doc.(T)
	if !ok {
		t.Fatalf("%v at %v", doc, path)
	}
	return v
}

// TestShells runs the lines for Slurm and GitHub in real shells, with a program sbatch that runs
// the line that it is given.
func TestShells(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	for name, script := range map[string]string{
		"sbatch": `#!/bin/sh
echo 7
for a; do case $a in --wrap=*) printf '#!/bin/sh\n%s\n' "${a#--wrap=}" >script; sh script;; esac; done
`,
		"layerbuild": "#!/bin/sh\nfor a; do printf '%s\\0' \"$a\"; done >>words\nprintf '\\n\\0' >>words\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	words := filepath.Join(dir, "words")
	run := func(script string) string {
		t.Helper()
		os.Remove(words)
		cmd := exec.Command(bash, "-c", script)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s\n%s", err, out, script)
		}
		data, err := os.ReadFile(words)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	p := planOf(withoutNUL(strings.Join(hostile, "|")))
	want := ""
	for _, n := range p.Nodes {
		want += strings.Join(n.Args[1:], "\x00") + "\x00\n\x00"
	}
	if got := run(p.Slurm()); got != want {
		t.Errorf("the script for Slurm runs\n%q\nwant\n%q", got, want)
	}
	lines := ""
	for _, n := range p.Nodes {
		lines += ShellLine(n.Args) + "\n"
	}
	if got := run(lines); got != want {
		t.Errorf("the lines run\n%q\nwant\n%q", got, want)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 4 {
		t.Errorf("a value was executed: %v, %v", entries, err)
	}
}
