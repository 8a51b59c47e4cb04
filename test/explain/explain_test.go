package explain

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/fstree"
	"github.com/layerbuild/layerbuild/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// dockerfile is the Dockerfile that the changes are made to.
const dockerfile = `ARG BASE=base
FROM $BASE AS build
ARG VERSION=1
ARG OTHER=a
ENV MODE=x
WORKDIR /src
COPY app ./app
COPY --chmod=644 conf.$VERSION /etc/conf
RUN --mount=type=cache,target=/cache,id=one --mount=type=bind,source=tools,target=/tools echo $VERSION >/v
RUN echo one >/one
RUN echo two >/two
RUN <<EOF
echo three >/three
EOF
FROM scratch
COPY --from=build /src /out
COPY extra /extra
`

// files are the files of the context.
const files = `
file base.df 0644 FROM+busybox
file app/main.ts 0644 main
file app/lib/a.ts 0644 a
file app/lib/b.ts 0644 b
link app/link -> main.ts
file conf.1 0644 1
file conf.2 0644 2
file tools/tool 0755 tool
file extra/x 0644 x
file secret 0600 s
`

// bench is a context in which builds are changed.
type bench struct {
	*lab.Lab
	t *testing.T
}

// path returns the path of a file of the context.
func (b *bench) path(name string) string { return filepath.Join(b.Dir, name) }

func (b *bench) write(name, text string) {
	b.t.Helper()
	if err := os.MkdirAll(filepath.Dir(b.path(name)), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(b.path(name), []byte(text), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// edit replaces a text of the Dockerfile.
func (b *bench) edit(old, new string) {
	b.t.Helper()
	data, err := os.ReadFile(b.path("Dockerfile"))
	if err != nil || !strings.Contains(string(data), old) {
		b.t.Fatalf("%v, or no %q", err, old)
	}
	b.write("Dockerfile", strings.Replace(string(data), old, new, 1))
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// reset makes the context as it was before the changes, and builds it.
func (b *bench) reset() {
	b.t.Helper()
	b.must(os.RemoveAll(b.Dir))
	b.must(os.Mkdir(b.Dir, 0o755))
	b.must(fstree.Make(b.Dir, files))
	b.write("base.df", "FROM busybox\nCOPY base.df /\n")
	b.write("other.df", "FROM busybox\nCOPY other.df /\n")
	b.write("Dockerfile", dockerfile)
	b.Run("build", "-q", "-t", "base", "-f", "base.df", ".")
	b.Run("build", "-q", "-t", "other", "-f", "other.df", ".")
	b.Run("build", "-q", ".")
}

var reason = regexp.MustCompile(`(?m)^#\d+ (runs(?: again)?: .*)$`)

// reasons builds with some flags and returns the reasons of the steps that run.
func (b *bench) reasons(args ...string) (list []string) {
	b.t.Helper()
	out, err := b.Command("build", append(args, "--progress=plain", ".")...).CombinedOutput()
	if err != nil {
		b.t.Fatalf("%v\n%s", err, out)
	}
	for _, m := range reason.FindAllStringSubmatch(string(out), -1) {
		list = append(list, m[1])
	}
	return list
}

// consequence matches the reason of a step that runs because another one has.
var consequence = regexp.MustCompile(
	`^runs again: ((step \d+ before it|stage \w+) ran again$|.* of stage build )`)

// TestReasons changes one thing in a build. One step must name it, and the steps after it must name
// a step before them that ran again, or the same. want is "" if nothing runs; after a bar it has a
// reason of other steps.
func TestReasons(t *testing.T) {
	lab.Root(t)
	b := &bench{lab.New(t), t}
	b.Busybox()
	edit := func(old, new string) func(*bench) { return func(b *bench) { b.edit(old, new) } }
	write := func(name, text string) func(*bench) { return func(b *bench) { b.write(name, text) } }
	for _, tt := range []struct {
		name   string
		change func(*bench)
		args   []string
		want   string
	}{
		{"nothing", nil, nil, ""},
		{"content", write("app/main.ts", "new"), nil, "runs again: app/main.ts changed"},
		{"contents", func(b *bench) {
			b.write("app/main.ts", "new")
			b.write("app/lib/a.ts", "new")
			b.write("app/lib/b.ts", "new")
		}, nil, "runs again: app/lib/a.ts changed (and 2 more files)"},
		{"mode", func(b *bench) { b.must(os.Chmod(b.path("app/lib/a.ts"), 0o600)) }, nil,
			"runs again: app/lib/a.ts changed"},
		{"owner of a mounted file", func(b *bench) { b.must(os.Chown(b.path("tools/tool"), 5, 5)) },
			nil, "runs again: tools/tool changed"},
		{"time", func(b *bench) {
			b.must(os.Chtimes(b.path("app/main.ts"), time.Time{}, time.Unix(1, 0)))
		}, nil, ""},
		{"name", func(b *bench) {
			b.must(os.Rename(b.path("app/main.ts"), b.path("app/renamed.ts")))
		}, nil, "runs again: app/main.ts is gone (and 1 more file)"},
		{"new file", write("app/lib/c.ts", "c"), nil, "runs again: app/lib/c.ts is new"},
		{"deleted file", func(b *bench) { b.must(os.Remove(b.path("app/lib/a.ts"))) }, nil,
			"runs again: app/lib/a.ts is gone"},
		{"target of a link", func(b *bench) {
			b.must(os.Remove(b.path("app/link")))
			b.must(os.Symlink("lib", b.path("app/link")))
		}, nil, "runs again: app/link changed"},
		{"type of a file", func(b *bench) {
			b.must(os.Remove(b.path("app/link")))
			b.write("app/link", "text")
		}, nil, "runs again: app/link changed"},
		{"extended attribute of a mount", write("tools/tool", "other"), nil,
			"runs again: tools/tool changed"},
		{"argument in the file", edit("OTHER=a", "OTHER=b"), nil, "runs again: ARG OTHER changed"},
		{"argument of a flag", nil, []string{"--build-arg", "OTHER=c"},
			"runs again: ARG OTHER changed"},
		{"argument of a COPY", nil, []string{"--build-arg", "VERSION=2"},
			"runs again: ARG VERSION changed, conf.1 is gone (and 1 more file)"},
		{"new argument", edit("ARG OTHER=a", "ARG OTHER=a\nARG MORE=m"), nil,
			"runs again: ARG MORE is new"},
		{"argument that is not declared", nil, []string{"--build-arg", "NONE=x"}, ""},
		{"environment", edit("MODE=x", "MODE=y"), nil, "runs again: ENV MODE changed"},
		{"new variable", edit("MODE=x", "MODE=x DEBUG=1"), nil, "runs again: ENV DEBUG is new"},
		{"working directory", func(b *bench) {
			b.edit("WORKDIR /src", "WORKDIR /work")
			b.edit("/src /out", "/work /out")
		}, nil, "runs again: line 6 was edited | runs again: WORKDIR changed"},
		{"command", edit("echo one", "echo eins"), nil, "runs again: line 10 was edited"},
		{"destination", edit("extra /extra", "extra /more"), nil, "runs again: line 17 was edited"},
		{"--link", edit("COPY extra", "COPY --link extra"), nil, "runs again: line 17 was edited"},
		{"heredoc", edit("echo three", "echo drei"), nil, "runs again: line 12 was edited"},
		{"order", edit("RUN echo one >/one\nRUN echo two >/two\n",
			"RUN echo two >/two\nRUN echo one >/one\n"), nil,
			"runs again: line 10 was at another place | runs again: line 11 was at another place"},
		{"new instruction", edit("RUN echo two", "RUN echo more\nRUN echo two"), nil,
			"runs: line 11 is new"},
		{"removed instruction", edit("RUN echo one >/one\n", ""), nil,
			"runs again: removed before it: RUN echo one >/one"},
		{"comment", edit("RUN echo two", "# a comment\nRUN echo two"), nil, ""},
		{"user", edit("RUN echo two", "USER 0\nRUN echo two"), nil, "runs again: USER changed"},
		{"shell", edit("RUN echo one >/one", "SHELL [\"/bin/sh\", \"-ec\"]\nRUN echo one >/one"), nil,
			"runs again: SHELL changed"},
		{"base that moved", func(b *bench) {
			b.write("base.df", "FROM busybox\nCOPY base.df /new\n")
			b.Run("build", "-q", "-t", "base", "-f", "base.df", ".")
		}, nil, "runs again: base docker.io/library/base:latest moved: sha256:"},
		{"other base", nil, []string{"--build-arg", "BASE=other"},
			"runs again: the base was docker.io/library/base:latest and is " +
				"docker.io/library/other:latest"},
		{"epoch", nil, []string{"--source-date-epoch", "1000"},
			"runs again: SOURCE_DATE_EPOCH is new"},
		{"source of a mount", write("tools/more", "m"), nil, "runs again: tools/more is new"},
		{"id of a cache", edit("id=one", "id=two"), nil, "runs again: line 9 was edited"},
		{"network", nil, []string{"--network", "none"},
			"runs again: --network changed: host → none"},
		{"host", nil, []string{"--add-host", "db:10.0.0.1"}, "runs again: --add-host is new"},
		{"shared memory", nil, []string{"--shm-size", "1m"}, "runs again: --shm-size is new"},
		{"limit", nil, []string{"--ulimit", "nofile=100"}, "runs again: --ulimit is new"},
		{"capability", nil, []string{"--cap-drop", "KILL"},
			"runs again: --cap-add and --cap-drop is new"},
		{"volume", nil, []string{"-v", "/etc/hostname:/hostname"}, "runs again: --volume is new"},
		{"no cache", nil, []string{"--no-cache"}, "runs again: --no-cache"},
		{"no cache of a stage", nil, []string{"--no-cache-filter", "build"},
			"runs again: --no-cache-filter"},
		{"ignored directory", write(".dockerignore", "app/lib\n"), nil,
			"runs again: .dockerignore leaves out app/lib/"},
		{"ignored files", write(".dockerignore", "app/lib/*.ts\n"), nil,
			"runs again: .dockerignore leaves out app/lib/"},
		{"stage in between", edit("RUN <<EOF", "RUN echo made >/src/made\nRUN <<EOF"), nil,
			"runs: line 12 is new"},
		{"collected results", func(b *bench) { b.Run("prune", "--all") }, nil,
			"runs again: its earlier result is no longer there"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := &bench{b.For(t), t}
			b.reset()
			if tt.change != nil {
				tt.change(b)
			}
			list := b.reasons(tt.args...)
			want, then, _ := strings.Cut(tt.want, " | ")
			found := want == ""
			for _, got := range list {
				mine := want != "" && strings.HasPrefix(got, want)
				found = found || mine
				cause, _, _ := strings.Cut(want, ",") // the first of several
				if !mine && got != cause && got != then && !consequence.MatchString(got) {
					t.Errorf("a step has the reason %q; want %q", got, want)
				}
			}
			if !found || want == "" && len(list) > 0 {
				t.Errorf("the reasons are %q; one is to be %q", list, want)
			}
		})
	}
}

// TestIgnoreFile checks the reason if ignored files come back.
func TestIgnoreFile(t *testing.T) {
	lab.Root(t)
	b := &bench{lab.New(t), t}
	b.Busybox()
	b.reset()
	// Nothing that is like the build without the ignore file is in the account.
	b.write("app/main.ts", "second")
	b.write(".dockerignore", "app/lib\nsecret\n")
	b.reasons()
	b.write("app/more.ts", "third")
	b.write(".dockerignore", "secret\n")
	b.must(os.Remove(b.path("app/link")))
	want := "runs again: .dockerignore lets in app/"
	if list := b.reasons(); !slices.ContainsFunc(list,
		func(s string) bool { return strings.HasPrefix(s, want) }) {
		t.Errorf("%q", list)
	}
}

// TestSecretsStayOut checks that nothing of the account has a value that must not be shown.
func TestSecretsStayOut(t *testing.T) {
	lab.Root(t)
	b := &bench{lab.New(t), t}
	b.Busybox()
	b.write("token", "s3cret-token")
	b.write("Dockerfile", "FROM busybox\nARG KEY\nENV PASSWORD=pa55word\n"+
		"RUN --mount=type=secret,id=token cat /run/secrets/token | wc -c\n")
	args := []string{"--build-arg", "KEY=k3y-value", "--build-arg", "NONE=undec1ared", "--secret",
		"id=token,src=token"}
	b.reasons(args...)
	b.reasons(append(args, "--no-cache")...)
	names, err := filepath.Glob(filepath.Join(b.State, "cache", "explain", "*"))
	if err != nil || len(names) < 2 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		b.must(err)
		for _, value := range []string{"s3cret-token", "k3y-value", "undec1ared", "pa55word"} {
			if strings.Contains(string(data), value) {
				t.Errorf("%s has the value %s", name, value)
			}
		}
	}
	if out := b.Run("explain"); !strings.Contains(out, "ran: --no-cache") ||
		strings.Contains(out, "pa55word") || strings.Contains(out, "s3cret") {
		t.Errorf("explain prints %s", out)
	}
}
