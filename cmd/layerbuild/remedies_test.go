package main_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/internal/imagetest"
)

// big returns the content of a file: 300 kB that no other file has.
func big(name string) string {
	return strings.Repeat("content of "+name+"\n", 300_000/(len(name)+12))
}

// fill is a command that writes 300 kB to a file.
const fill = "head -c 300000 /dev/zero >"

// remedyCases are typical Dockerfiles that waste bytes below path. debris is set if the bytes are
// visible debris, and not dead.
var remedyCases = []struct {
	name, dockerfile, path string
	files                  map[string]string
	debris                 bool
	want                   string // the remedy's beginning
	gone                   bool   // the remedy removes the files: debris
}{
	{name: "COPY of a file, used and removed", path: "/tmp/tool",
		files:      map[string]string{"out/tool": big("tool")},
		dockerfile: "COPY out/tool /tmp/tool\nRUN wc -c </tmp/tool >/size\nRUN rm /tmp/tool\n",
		want:       "use RUN --mount=type=bind,source=out/tool,target=/tmp/tool at line 3 instead of the COPY at line 2; leave out the RUN at line 4"},
	{name: "COPY of a file, used and removed in one RUN", path: "/tmp/tool",
		files:      map[string]string{"tool": big("tool")},
		dockerfile: "COPY tool /tmp/\nRUN wc -c </tmp/tool >/size\nRUN cp /tmp/tool /kept && rm -f /tmp/tool && echo done >/done\n"},
	{name: "COPY of a file that nobody uses", path: "/tmp/tool",
		files:      map[string]string{"tool": big("tool")},
		dockerfile: "COPY tool /tmp/tool\nRUN rm /tmp/tool\n",
		want:       "leave out the COPY at line 2; leave out the RUN at line 3"},
	{name: "COPY of a wildcard", path: "/tmp/tool",
		files:      map[string]string{"out/tool": big("tool")},
		dockerfile: "COPY out/* /tmp/\nRUN wc -c </tmp/tool >/size\nRUN rm /tmp/tool\n",
		want:       "use RUN --mount=type=bind,source=out/tool,target=/tmp/tool at line 3 instead"},
	{name: "COPY of all in a directory", path: "/pkgs/",
		files:      map[string]string{"pkgs/a": big("a"), "pkgs/b": big("b")},
		dockerfile: "COPY pkgs/* /pkgs/\nRUN cat /pkgs/* | wc -c >/size\nRUN rm -rf /pkgs\n",
		want:       "use RUN --mount=type=bind,source=pkgs,target=/pkgs at line 3 instead"},
	{name: "COPY of a directory beside a file", path: "/opt/tool",
		files:      map[string]string{"out/tool": big("tool"), "app": "app"},
		dockerfile: "COPY out app /opt/\nRUN wc -c </opt/tool >/size\nRUN rm /opt/tool\n",
		want:       "use RUN --mount=type=bind,source=out/tool,target=/opt/tool at line 3; add --exclude=tool to the COPY at line 2; leave out the RUN at line 4"},
	{name: "COPY of several files, one of them removed", path: "/opt/b",
		files:      map[string]string{"a": "a", "b": big("b"), "c": "c"},
		dockerfile: "COPY a b c /opt/\nRUN wc -c </opt/b >/size\nRUN rm /opt/b\n"},
	{name: "COPY --from of a directory", path: "/tmp/out/", files: map[string]string{"f": "f"},
		dockerfile: "COPY --from=build /out /tmp/out\nRUN cat /tmp/out/* | wc -c >/size\nRUN rm -rf /tmp/out\n",
		want:       "use RUN --mount=type=bind,from=build,source=/out,target=/tmp/out at line 7 instead of the COPY at line 6"},
	{name: "COPY . and rm of a subdirectory", path: "/app/tests/",
		files: map[string]string{"src/main": "main", "src/tests/a": big("a"),
			"src/tests/b": big("b")},
		dockerfile: "COPY src /app\nRUN rm -rf /app/tests\n",
		want:       "add --exclude=tests to the COPY at line 2; leave out the RUN at line 3"},
	{name: "COPY . and rm of a subdirectory that was used", path: "/app/tests/",
		files: map[string]string{"src/main": "main", "src/tests/a": big("a"),
			"src/tests/b": big("b")},
		dockerfile: "WORKDIR /app\nCOPY src .\nRUN cat tests/* | wc -c >/size\nRUN rm -rf tests && echo removed >/removed\n",
		want:       "use RUN --mount=type=bind,source=src/tests,target=/app/tests at line 4 and line 5; add --exclude=tests to the COPY at line 3; leave out ‘rm -rf tests’ at line 5"},
	{name: "COPY of sources, built and removed", path: "/src/",
		files:      map[string]string{"src/a": big("a"), "src/b": big("b")},
		dockerfile: "COPY src /src\nRUN cat /src/a /src/b >/src/object && wc -c </src/object >/size\nRUN head -c 5 /src/object >/five\nRUN rm -rf /src\n",
		want:       "leave out the COPY at line 2; join the RUNs of line 3 and line 4; use RUN --mount=type=bind,source=src,target=/src,rw at line 4"},
	{name: "mv out of what was copied", path: "/tmp/pkg/",
		files:      map[string]string{"pkg/tool": big("tool"), "pkg/readme": big("readme")},
		dockerfile: "COPY pkg /tmp/pkg\nRUN mv /tmp/pkg/tool /usr/bin/tool && mv /tmp/pkg/readme /readme\n",
		want:       "use RUN --mount=type=bind,source=pkg,target=/tmp/pkg,rw at line 3 instead of the COPY at line 2"},
	{name: "mv of what was copied", path: "/tmp/tool",
		files:      map[string]string{"tool": big("tool")},
		dockerfile: "COPY tool /tmp/tool\nRUN mv /tmp/tool /usr/bin/tool && echo moved >/moved\n",
		want:       "write ‘tool /usr/bin/tool’ instead of ‘tool /tmp/tool’ at line 2; leave out ‘mv /tmp/tool /usr/bin/tool’ at line 3"},
	{name: "COPY --chown, removed after a pipe", path: "/tmp/tool",
		files:      map[string]string{"tool": big("tool")},
		dockerfile: "COPY --chown=1:1 tool /tmp/\nRUN cat /tmp/tool | wc -c >/size && rm /tmp/tool\n",
		want:       "move the COPY at line 2 to a stage of its own: ‘FROM scratch AS copied’; use RUN --mount=type=bind,from=copied,source=/tmp/tool,target=/mnt/tool at line 3; begin the RUN at line 3"},
	{name: "COPY --chmod, removed in its directory", path: "/tmp/tool",
		files:      map[string]string{"tool": big("tool")},
		dockerfile: "COPY --chmod=0600 tool /tmp/\nRUN cd /tmp && wc -c <tool >/size && rm tool*\n"},
	{name: "removed by a condition", path: "/tmp/tool",
		files:      map[string]string{"tool": big("tool")},
		dockerfile: "COPY tool /tmp/tool\nRUN wc -c </tmp/tool >/size\nRUN if [ -f /tmp/tool ]; then head -c 9 /tmp/tool >/nine; rm /tmp/tool; fi\n",
		want:       "leave out the COPY at line 2; join the RUNs of line 3 and line 4; use RUN --mount=type=bind,source=tool,target=/mnt/tool at line 4; begin the RUN at line 4"},
	{name: "two files of a directory", path: "/app/",
		files:      map[string]string{"app/a": big("a"), "app/b": big("b"), "app/main": "main"},
		dockerfile: "COPY app /app\nRUN cat /app/a /app/b | wc -c >/size\nRUN rm /app/a /app/b\n",
		want:       "use RUN --mount=type=bind,source=app/a,target=/app/a at line 3; add --exclude=a to the COPY at line 2; leave out the RUN at line 4; use RUN"},
	{name: "two files copied into a directory that has others", path: "/usr/bin/",
		files:      map[string]string{"a": big("a"), "b": big("b")},
		dockerfile: "COPY a b /usr/bin/\nRUN cat /usr/bin/a /usr/bin/b | wc -c >/size\nRUN rm -f /usr/bin/a /usr/bin/b /tmp/none\n",
		want:       "use RUN --mount=type=bind,source=a,target=/usr/bin/a at line 3 and line 4 instead of the COPY at line 2; write ‘rm -f /tmp/none’ instead"},
	{name: "lists of packages copied before all else", path: "/app/",
		files: map[string]string{"app/package.json": big("package"),
			"app/lock": big("lock"), "app/main": "main"},
		dockerfile: "WORKDIR /app\nCOPY app/package.json app/lock ./\nRUN cat package.json lock | wc -c >/app/modules\nCOPY --chmod=750 app .\n",
		want:       "use RUN --mount=type=bind,source=app/lock,target=/app/lock at line 4 instead of the COPY at line 3; use RUN"},
	{name: "files of a RUN replaced by a COPY", path: "/etc/made/",
		files: map[string]string{"made/a.conf": "a", "made/b.conf": "b"},
		dockerfile: "RUN mkdir /etc/made && " + fill + "/etc/made/a.conf && " + fill +
			"/etc/made/b.conf && echo stays >/etc/made/c.conf\nCOPY made /etc/made\n",
		want: "append ‘&& rm -rf /etc/made/a.conf’ to the RUN at line 2; append ‘&& rm -rf /etc/made/b.conf’ to the RUN at line 2"},
	{name: "ADD of a URL", path: "/tmp/file", files: map[string]string{},
		dockerfile: "ARG URL\nADD $URL/file /tmp/file\nRUN wc -c </tmp/file >/size\nRUN rm /tmp/file\n",
		want:       "move the ADD at line 3 to a stage of its own: ‘FROM scratch AS copied’, ‘ARG URL’; use RUN --mount=type=bind,from=copied,source=/tmp/file,target=/tmp/file at line 4"},
	{name: "ADD of an archive", path: "/src/tree/",
		files:      map[string]string{"tree/a": big("a"), "tree/b": big("b")},
		dockerfile: "WORKDIR /src\nADD tree.tar ./\nRUN cat /src/tree/* | wc -c >/size\nRUN rm -rf /src/tree\n",
		want:       "move the ADD at line 3 to a stage of its own: ‘FROM scratch AS copied’, ‘WORKDIR /src’"},
	{name: "chmod of what was copied", path: "/opt/run",
		files:      map[string]string{"run": big("run")},
		dockerfile: "COPY run /opt/run\nRUN chmod 755 /opt/run\n",
		want:       "add --chmod=0755 to the COPY at line 2; leave out the RUN at line 3"},
	{name: "chown -R of what was copied", path: "/app/",
		files:      map[string]string{"app/a": big("a"), "app/sub/b": big("b")},
		dockerfile: "COPY app /app\nRUN chown -R nobody:users /app && echo owned >/owned\n",
		want:       "add --chown=65534:100 to the COPY at line 2; leave out ‘chown -R nobody:users /app’ at line 3"},
	{name: "chown -R of the working directory", path: "/app/",
		files:      map[string]string{"app/a": big("a"), "app/sub/b": big("b")},
		dockerfile: "WORKDIR /app\nCOPY app .\nRUN chown -R nobody:users /app\n",
		want:       "add --chown=65534:100 to the COPY at line 3; write ‘chown nobody:users /app’ instead of ‘chown -R nobody:users /app’ at line 4"},
	{name: "COPY --from of a stage by its number", path: "/tmp/out/",
		files:      map[string]string{"f": "f"},
		dockerfile: "FROM busybox\nCOPY --from=0 /out /tmp/out\nRUN cat /tmp/out/* | wc -c >/size\nRUN rm -rf /tmp/out\n",
		want:       "move the COPY at line 6 to a stage of its own: ‘FROM scratch AS copied’; use RUN --mount=type=bind,from=copied,source=/tmp/out,target=/tmp/out at line 7"},
	{name: "sources built in place and removed in one RUN", path: "/src/",
		files:      map[string]string{"src/a": big("a"), "src/b": big("b")},
		dockerfile: "COPY src /src\nRUN cd /src && cat a b >object && wc -c <object >/size && cd / && rm -rf /src\n",
		want:       "leave out the COPY at line 2; use RUN --mount=type=bind,source=src,target=/mnt/src at line 3; begin the RUN at line 3 with"},
	{name: "chmod and chown of what was copied", path: "/usr/bin/",
		files:      map[string]string{"a.sh": big("a"), "b.sh": big("b")},
		dockerfile: "COPY a.sh b.sh /usr/bin/\nRUN chmod +x /usr/bin/a.sh /usr/bin/b.sh && chown nobody /usr/bin/*.sh\n",
		want:       "add --chmod=0755 --chown=65534:0 to the COPY at line 2; leave out the RUN at line 3"},
	{name: "a file used and copied again with another mode", path: "/app/package.json",
		files:      map[string]string{"app/package.json": big("package"), "app/main": "main"},
		dockerfile: "WORKDIR /app\nCOPY app/package.json ./\nRUN wc -c <package.json >/size\nCOPY --chmod=750 app .\n",
		want:       "use RUN --mount=type=bind,source=app/package.json,target=/app/package.json at line 4 instead of the COPY at line 3"},
	{name: "a file copied again with another mode", path: "/opt/f",
		files:      map[string]string{"f": big("f")},
		dockerfile: "COPY f /opt/f\nCOPY --chmod=600 f /opt/f\n",
		want:       "leave out the COPY at line 2"},
	{name: "a file replaced by another COPY", path: "/app/config",
		files: map[string]string{"app/config": big("config"), "app/main": "main",
			"production": big("production")},
		dockerfile: "COPY app /app\nCOPY production /app/config\n",
		want:       "add --exclude=config to the COPY at line 2"},
	{name: "a file used and replaced by another COPY", path: "/app/config",
		files: map[string]string{"app/config": big("config"), "app/main": "main",
			"production": big("production")},
		dockerfile: "COPY app /app\nRUN wc -c </app/config >/size\nCOPY production /app/config\n",
		want:       "use RUN --mount=type=bind,source=app/config,target=/app/config at line 3; add --exclude=config"},
	{name: "a file of a RUN replaced by a COPY", path: "/etc/made.conf",
		files:      map[string]string{"made.conf": "mine"},
		dockerfile: "RUN " + fill + "/etc/made.conf\nCOPY made.conf /etc/made.conf\n",
		want:       "append ‘&& rm -rf /etc/made.conf’ to the RUN at line 2"},
	{name: "package lists in several RUNs", path: "/var/lib/apt/lists/x",
		dockerfile: "RUN mkdir -p /var/lib/apt/lists && " + fill +
			"/var/lib/apt/lists/x\nRUN head -c 5 /var/lib/apt/lists/x >/installed\nRUN rm -rf /var/lib/apt/lists/*\n",
		want: "use RUN --mount=type=cache,target=/var/lib/apt/lists at line 2 and line 3; leave out the RUN at line 4"},
	{name: "package lists that stay", path: "/var/cache/apk/index", debris: true, gone: true,
		dockerfile: "RUN mkdir -p /var/cache/apk && " + fill +
			"/var/cache/apk/index\nRUN head -c 5 /var/cache/apk/index >/installed\n",
		want: "use RUN --mount=type=cache,target=/var/cache/apk at line 2 and line 3"},
	{name: "the cache of pip", path: "/root/.cache/pip/wheel", debris: true, gone: true,
		dockerfile: "RUN mkdir -p /root/.cache/pip && " + fill +
			"/root/.cache/pip/wheel && echo pip >/installed\n",
		want: "use RUN --mount=type=cache,target=/root/.cache/pip at line 2"},
	{name: "the cache of npm, removed later", path: "/root/.npm/_cacache/x",
		dockerfile: "RUN mkdir -p /root/.npm/_cacache && " + fill +
			"/root/.npm/_cacache/x\nRUN echo built >/built; rm -rf /root/.npm/_cacache/x\n",
		want: "use RUN --mount=type=cache,target=/root/.npm/_cacache at line 2 and line 3; leave out ‘rm -rf /root/.npm/_cacache/x’ at line 3"},
	{name: "the cache of go", path: "/root/.cache/go-build/x", debris: true, gone: true,
		dockerfile: "RUN mkdir -p /root/.cache/go-build && \\\n    " + fill +
			"/root/.cache/go-build/x && \\\n    echo built >/built\n",
		want: "use RUN --mount=type=cache,target=/root/.cache/go-build at lines 2-4"},
	{name: "downloaded, unpacked and removed", path: "/tmp/x.tar", files: map[string]string{},
		dockerfile: "RUN " + fill +
			"/tmp/x.tar\nENV A=1\nRUN cp /tmp/x.tar /unpacked\nRUN rm /tmp/x.tar\n",
		want: "join the RUNs of line 2, line 4 and line 5"},
	{name: "build dependencies, purged later", path: "/usr/lib/gcc/",
		files: map[string]string{"src": "src"},
		dockerfile: "RUN mkdir -p /usr/lib/gcc && " + fill + "/usr/lib/gcc/cc1 && " + fill +
			"/usr/lib/gcc/lto1\nCOPY src /src\nRUN head -c 9 /usr/lib/gcc/cc1 >/built\nRUN rm -rf /usr/lib/gcc\n",
		want: "join the RUNs of line 2, line 4 and line 5"},
	{name: "downloaded and removed, a COPY elsewhere between", path: "/tmp/x.tar",
		files: map[string]string{"src": "src"},
		dockerfile: "RUN " + fill + "/tmp/x.tar\nRUN cp /tmp/x.tar /unpacked\nCOPY src /opt/\n" +
			"RUN rm /tmp/x.tar\n",
		want: "join the RUNs of line 2, line 3 and line 5"},
	{name: "chmod of what a RUN made", path: "/made",
		dockerfile: "RUN " + fill + "/made\nRUN chmod 700 /made\n",
		want:       "join the RUNs of line 2 and line 3"},
	{name: "compiled Python of the distribution's packages",
		path: "/usr/lib/python3/dist-packages/", debris: true, gone: true,
		dockerfile: "RUN mkdir -p /usr/lib/python3/dist-packages/a/__pycache__ /usr/lib/python3/dist-packages/b/__pycache__ && echo py >/usr/lib/python3/dist-packages/a/x.py && " +
			fill + "/usr/lib/python3/dist-packages/a/__pycache__/x.cpython-312.pyc && " + fill +
			"/usr/lib/python3/dist-packages/b/__pycache__/y.cpython-312.pyc\n",
		want: "append ‘&& find /usr/lib/python3/dist-packages -name '*.pyc' -exec rm -f {} +’ to the RUN at line 2"},
	{name: "logs", path: "/var/log/", debris: true, gone: true,
		dockerfile: "RUN mkdir -p /var/log/apt && " + fill + "/var/log/dpkg.log && " + fill +
			"/var/log/apt/history.log && echo installed >/installed\n",
		want: "append ‘&& rm -f /var/log/"},
	{name: "many logs", path: "/var/log/apt/", debris: true, gone: true,
		dockerfile: "RUN mkdir -p /var/log/apt && for i in 1 2 3 4 5 6 7 8 9 10; do " + fill +
			"/var/log/apt/$i; done\n",
		want: "append ‘&& find /var/log/apt -type f -exec rm -f {} +’ to the RUN at line 2"},
	{name: "version control in the context", path: "/app/.git/", debris: true, gone: true,
		files:      map[string]string{"main": "main", ".git/a": big("a"), ".git/b": big("b")},
		dockerfile: "COPY . /app\n", want: "add ‘**/.git’ to .dockerignore"},
	{name: "version control of a clone", path: "/src/.git/", debris: true, gone: true,
		dockerfile: "RUN mkdir -p /src/.git/objects && " + fill + "/src/.git/objects/a && " + fill +
			"/src/.git/index && echo main >/src/main\n",
		want: "append ‘&& rm -rf /src/.git’ to the RUN at line 2"},
	{name: "a core dump", path: "/core", debris: true, gone: true,
		dockerfile: "RUN " + fill + "/core && echo made >/made\n",
		want:       "append ‘&& rm -f /core’ to the RUN at line 2"},
	{name: "a secret", path: "/root/.ssh/id_rsa", debris: true,
		files:      map[string]string{"id_rsa": big("key")},
		dockerfile: "COPY id_rsa /root/.ssh/id_rsa\nRUN wc -c </root/.ssh/id_rsa >/size\nRUN rm /root/.ssh/id_rsa\n",
		want:       "everyone who has the image can read it: use RUN --mount=type=secret,id=id_rsa,target=/root/.ssh/id_rsa at line 3 instead of the COPY at line 2"},
	{name: "what an earlier stage has", path: "/src/",
		files:      map[string]string{"src/a": big("a"), "src/b": big("b")},
		dockerfile: "COPY src /src\nRUN cat /src/* | wc -c >/app\nFROM first\nRUN rm -rf /src\n",
		want:       "use ‘FROM docker.io/library/busybox:latest’, ‘COPY --from=first /app /app’ instead of ‘FROM first’"},
}

// TestRemedyOfDuplicates checks that the remedy replaces a copy of a file by a link, so that the
// image contains the bytes once.
func TestRemedyOfDuplicates(t *testing.T) {
	l := newRemedyLab(t)
	l.write("context/f", big("f"))
	dockerfile := "FROM busybox\nCOPY f /usr/bin/f\nRUN echo between >/between\nCOPY f /opt/g\n"
	l.build("before", dockerfile)
	_, text := l.analyze("before")
	remedy := printed(t, text[strings.Index(text, "\nduplicates:"):],
		"2 × 300kB: /opt/g, /usr/bin/f", false)
	rest, ok := strings.CutPrefix(remedy, "if a link will do there, use ‘")
	run, at, _ := strings.Cut(rest, "’ instead of the COPY at ")
	if !ok {
		t.Fatalf("remedy %q", remedy)
	}
	e := &editor{t: t, lines: strings.Split(strings.TrimSuffix(dockerfile, "\n"), "\n")}
	e.change(at, func(string) string { return run })
	l.build("after", e.text())
	if _, text := l.analyze("after"); strings.Contains(text, "/opt/g") &&
		strings.Contains(text, "duplicates:") {
		t.Errorf("they are duplicates still:\n%s", text)
	}
	out, err := l.layerbuild("run", "--root=state", "after", "cat", "/opt/g")
	if err != nil || string(out) != big("f") {
		t.Errorf("/opt/g is %d bytes: %v", len(out), err)
	}
}

// remedyLab is a directory for builds, with its own state.
type remedyLab struct {
	t    *testing.T
	dir  string
	args []string // arguments for each build
}

// newRemedyLab makes a remedyLab with a base image that has a shell.
func newRemedyLab(t *testing.T) *remedyLab {
	t.Helper()
	if os.Getuid() != 0 && !userns() {
		t.Skip("neither root nor user namespaces")
	}
	base, err := busybox()
	if errors.Is(err, imagetest.ErrNoBusybox) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "layerbuild-remedies-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if os.Getuid() != 0 {
			exec.Command("unshare", "--map-root-user", "--map-auto", "rm", "-rf",
				"--one-file-system", dir).Run()
		}
		os.RemoveAll(dir)
	})
	if err := base.WriteLayout(filepath.Join(dir, "base"),
		"docker.io/library/busybox:latest"); err != nil {
		t.Fatal(err)
	}
	return &remedyLab{t: t, dir: dir, args: []string{"--build-context",
		"docker.io/library/busybox:latest=oci-layout://" + dir + "/base"}}
}

func (l *remedyLab) layerbuild(args ...string) ([]byte, error) {
	l.t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Dir = l.dir
	cmd.Env = append(os.Environ(), "CONTAINERS_REGISTRIES_CONF=/dev/null")
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%v: %w\n%s", args, err, exit.Stderr)
	}
	return out, err
}

func (l *remedyLab) build(name, dockerfile string, more ...string) {
	l.t.Helper()
	l.write("Dockerfile", dockerfile)
	args := append([]string{"build", "--root=../state", "-q", "-t", name, "-f", "../Dockerfile"},
		l.args...)
	args = append(append(args, more...), ".")
	cmd := exec.Command(binary, args...)
	cmd.Dir = filepath.Join(l.dir, "context")
	cmd.Env = append(os.Environ(), "CONTAINERS_REGISTRIES_CONF=/dev/null")
	if out, err := cmd.CombinedOutput(); err != nil {
		l.t.Fatalf("build %s: %v\n%s\n%s", name, err, dockerfile, out)
	}
}

func (l *remedyLab) write(name, data string) {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		l.t.Fatal(err)
	}
}

// files returns an image's files, one per line. It omits directories, since an edit may create or
// change a directory by writing a file in it.
func (l *remedyLab) files(name string) []string {
	l.t.Helper()
	img, err := imagetest.Open(filepath.Join(l.dir, "state/oci"), name)
	if err != nil {
		l.t.Fatal(err)
	}
	tree, err := img.Tree()
	if err != nil {
		l.t.Fatal(err)
	}
	var list []string
	for _, e := range tree {
		if line := e.String(); !strings.HasPrefix(line, "dir ") {
			list = append(list, line)
		}
	}
	return list
}

// report has the fields of analyze's JSON that a test needs.
type report struct {
	Findings []struct {
		Path   string
		Bytes  int64
		Remedy string
	}
	Debris []struct {
		Path, Remedy string
		Bytes        int64
	}
}

func (l *remedyLab) analyze(name string) (r report, text string) {
	l.t.Helper()
	out, err := l.layerbuild("analyze", "--root=state", "--format=json", name)
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	out, err = l.layerbuild("analyze", "--root=state", "--top=100", name)
	if err != nil {
		l.t.Fatal(err)
	}
	return r, string(out)
}

// below returns the sum of the wasted bytes at and below a path.
func (r report) below(path string, debris bool) (n int64) {
	hit := func(p string) bool {
		return p == path || strings.HasSuffix(path, "/") && strings.HasPrefix(p, path)
	}
	for _, f := range r.Findings {
		if hit(f.Path) && !debris {
			n += f.Bytes
		}
	}
	for _, d := range r.Debris {
		if hit(d.Path) && debris {
			n += d.Bytes
		}
	}
	return n
}

// TestRemedies applies each kind of remedy literally to a Dockerfile. The editor knows only the
// fixed wording of remedies. The new image must have the same files without the wasted bytes.
func TestRemedies(t *testing.T) {
	served := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, big("file"))
	}))
	t.Cleanup(served.Close)
	for _, c := range remedyCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newRemedyLab(t)
			l.args = append(l.args, "--build-arg", "URL="+served.URL)
			l.write("context/.dockerignore", ".dockerignore\n")
			for name, data := range c.files {
				l.write("context/"+name, data)
			}
			if strings.Contains(c.dockerfile, "tree.tar") {
				if out, err := exec.Command("tar", "-C", filepath.Join(l.dir, "context"), "-cf",
					filepath.Join(l.dir, "context/tree.tar"), "tree").CombinedOutput(); err != nil {
					t.Fatalf("tar: %v\n%s", err, out)
				}
			}
			dockerfile := "FROM busybox\n" + c.dockerfile
			switch {
			case strings.Contains(c.dockerfile, "--from=0"):
				dockerfile = strings.Replace(dockerfile, "FROM busybox\n",
					"FROM busybox\nRUN mkdir /out\nRUN "+fill+"/out/a\nRUN "+fill+"/out/b\n", 1)
			case strings.Contains(c.dockerfile, "--from=build"):
				dockerfile = "FROM busybox AS build\nRUN mkdir /out\nRUN " + fill + "/out/a\nRUN " +
					fill + "/out/b\n" + dockerfile
			case strings.Contains(c.dockerfile, "FROM first"):
				dockerfile = strings.Replace(dockerfile, "FROM busybox", "FROM busybox AS first", 1)
			}
			l.build("before", dockerfile)
			before, text := l.analyze("before")
			if before.below(c.path, c.debris) < 300_000-1000 {
				t.Fatalf("%d bytes are wasted below %s:\n%s",
					before.below(c.path, c.debris), c.path, text)
			}
			remedy := printed(t, text, c.path, c.debris)
			t.Log(remedy)
			if !strings.HasPrefix(remedy, c.want) {
				t.Errorf("remedy %q\nwant   %q…", remedy, c.want)
			}
			e := &editor{t: t, lines: strings.Split(strings.TrimSuffix(dockerfile, "\n"), "\n")}
			e.do(remedy)
			if e.ignore != "" {
				l.write("context/.dockerignore", ".dockerignore\n"+e.ignore)
			}
			if e.secret != "" {
				e.args = append(e.args, "--secret", "id="+e.secret+",src="+e.secret)
			}
			l.build("after", e.text(), e.args...)
			after, text := l.analyze("after")
			if left := after.below(c.path, c.debris); left > 0 {
				t.Errorf("%d bytes are still wasted below %s with\n%s\n%s", left,
					c.path, e.text(), text)
			}
			want := l.files("before")
			if c.gone {
				want = slices.DeleteFunc(want, func(line string) bool {
					return unwanted(line, c.path)
				})
			}
			if got := l.files("after"); !slices.Equal(got, want) {
				t.Errorf("with\n%s\nthe files are\n%s\nwant\n%s", e.text(),
					strings.Join(diffLines(got, want), "\n"),
					strings.Join(diffLines(want, got), "\n"))
			}
		})
	}
}

// unwanted reports whether a line of a tree is debris at or below a path.
func unwanted(line, path string) bool {
	name := strings.TrimPrefix(path, "/")
	fields := strings.Fields(line)
	if strings.HasSuffix(name, "/") {
		return strings.HasPrefix(fields[1], name) && !strings.HasSuffix(fields[1], ".py")
	}
	return fields[1] == name
}

func diffLines(a, b []string) (only []string) {
	for _, line := range a {
		if !slices.Contains(b, line) {
			only = append(only, line[:min(len(line), 200)])
		}
	}
	return only
}

// printed returns the remedy for a path in the text of a report: the text after the path and an
// arrow, without the ends of the lines.
func printed(t *testing.T, text, path string, debris bool) string {
	t.Helper()
	if at := strings.Index(text, "\ndebris:"); at >= 0 {
		text = map[bool]string{false: text[:at], true: text[at:]}[debris]
	}
	_, after, ok := strings.Cut(text, "  "+path)
	_, remedy, arrow := strings.Cut(after, "→ ")
	remedy = strings.ReplaceAll(remedy, "\n"+strings.Repeat(" ", 12), " ")
	remedy, _, line := strings.Cut(remedy, "\n")
	if !ok || !arrow || !line {
		t.Fatalf("no remedy for %s in\n%s", path, text)
	}
	return remedy
}

// editor applies a remedy to a Dockerfile. Lines keep their numbers until the end.
type editor struct {
	t              *testing.T
	lines          []string
	ignore, secret string
	args           []string
}

func (e *editor) text() string {
	var list []string
	for _, l := range e.lines {
		if l != "" {
			list = append(list, l)
		}
	}
	return strings.Join(list, "\n") + "\n"
}

var edits = []struct {
	words *regexp.Regexp
	do    func(e *editor, m []string)
}{
	{regexp.MustCompile(`^use RUN (--mount=type=secret,id=([^,]*)\S*) at (.*) instead of the (?:COPY|ADD) at (.*), with --secret .*$`), func(e *editor, m []string) {
		e.flag(m[1], m[3])
		e.drop(m[4])
		e.secret = m[2]
	}},
	{regexp.MustCompile(`^use RUN (--mount=\S+) at (.*) instead of the (?:COPY|ADD) at (.*)$`),
		func(e *editor, m []string) { e.flag(m[1], m[2]); e.drop(m[3]) }},
	{regexp.MustCompile(`^use RUN (--mount=\S+) at (.*)$`),
		func(e *editor, m []string) { e.flag(m[1], m[2]) }},
	{regexp.MustCompile(`^use (‘FROM .*’) instead of ‘(FROM [^’]*)’, because .*$`),
		func(e *editor, m []string) {
			e.lines[slices.Index(e.lines, m[2])] = strings.Join(quoted(m[1]), "\n")
		}},
	{regexp.MustCompile(`^leave out the (?:COPY|ADD|RUN) at (.*)$`),
		func(e *editor, m []string) { e.drop(m[1]) }},
	{regexp.MustCompile(`^leave out ‘(.*)’ at (.*)$`), func(e *editor, m []string) {
		e.change(m[2], func(s string) string {
			for _, part := range []string{m[1] + " && ", " && " + m[1], m[1] + "; ", "; " + m[1]} {
				if before, after, ok := strings.Cut(s, part); ok {
					return before + after
				}
			}
			e.t.Fatalf("no ‘%s’ to leave out of %q", m[1], s)
			return ""
		})
	}},
	{regexp.MustCompile(`^write ‘(.*)’ instead of ‘(.*)’ at (.*)$`), func(e *editor, m []string) {
		e.change(m[3], func(s string) string {
			if !strings.Contains(s, m[2]) {
				e.t.Fatalf("no ‘%s’ in %q", m[2], s)
			}
			return strings.Replace(s, m[2], m[1], 1)
		})
	}},
	{regexp.MustCompile(`^add (--.*) to the (COPY|ADD) at (.*)$`), func(e *editor, m []string) {
		e.change(m[3], func(s string) string { return strings.Replace(s, m[2], m[2]+" "+m[1], 1) })
	}},
	{regexp.MustCompile(`^add ‘(.*)’ to \.dockerignore.*$`),
		func(e *editor, m []string) { e.ignore += m[1] + "\n" }},
	{regexp.MustCompile(`^begin the RUN at (.*) with ‘(.*)’$`), func(e *editor, m []string) {
		e.change(m[1], func(s string) string {
			p := regexp.MustCompile(`^RUN( --\S+)* `).FindString(s)
			return p + m[2] + " " + strings.TrimPrefix(s, p)
		})
	}},
	{regexp.MustCompile(`^append ‘(.*)’ to the RUN at (.*)$`), func(e *editor, m []string) {
		e.change(m[2], func(s string) string { return s + " " + m[1] })
	}},
	{regexp.MustCompile(
		`^join the RUNs of ([^,]*(?:, [^,]*)*? and line \d+|[^,]*)(?:, so that .*)?$`),
		func(e *editor, m []string) {
			var all []string
			list := e.at(m[1])
			for _, at := range list {
				all = append(all, strings.TrimPrefix(e.lines[at[0]], "RUN "))
				e.lines[at[0]] = ""
			}
			e.lines[list[len(list)-1][0]] = "RUN " + strings.Join(all, " && ")
		}},
	{regexp.MustCompile(`^move the (?:COPY|ADD) at (.*) to a stage of its own: (.*)$`),
		func(e *editor, m []string) {
			at := e.at(m[1])[0]
			from := at[0]
			for !strings.HasPrefix(e.lines[from], "FROM ") {
				from--
			}
			moved := strings.Join(append(quoted(m[2]), e.lines[at[0]:at[1]+1]...), "\n")
			e.drop(m[1])
			e.lines[from] = moved + "\n" + e.lines[from]
		}},
}

func quoted(s string) (list []string) {
	for _, m := range regexp.MustCompile(`‘([^’]*)’`).FindAllStringSubmatch(s, -1) {
		list = append(list, m[1])
	}
	return list
}

func (e *editor) do(remedy string) {
	e.t.Helper()
	remedy = strings.TrimPrefix(remedy, "everyone who has the image can read it: ")
	// "; " separates edits, and may also occur in quotes.
	depth, start := 0, 0
	var parts []string
	for i, c := range remedy {
		switch {
		case c == '‘':
			depth++
		case c == '’':
			depth--
		case c == ';' && depth == 0:
			parts = append(parts, strings.TrimSpace(remedy[start:i]))
			start = i + 1
		}
	}
	for _, part := range append(parts, strings.TrimSpace(remedy[start:])) {
		known := slices.ContainsFunc(edits, func(edit struct {
			words *regexp.Regexp
			do    func(e *editor, m []string)
		}) bool {
			m := edit.words.FindStringSubmatch(part)
			if m != nil {
				edit.do(e, m)
			}
			return m != nil
		})
		if !known {
			e.t.Fatalf("nothing to do by %q", part)
		}
	}
}

var lineWords = regexp.MustCompile(`lines? (\d+)(?:-(\d+))?`)

// at reads "line 3, lines 4-6 and line 8": the first and the last line of each, from 0.
func (e *editor) at(s string) (list [][2]int) {
	e.t.Helper()
	for _, m := range lineWords.FindAllStringSubmatch(s, -1) {
		first, _ := strconv.Atoi(m[1])
		last, err := strconv.Atoi(m[2])
		if err != nil {
			last = first
		}
		list = append(list, [2]int{first - 1, last - 1})
	}
	if len(list) == 0 {
		e.t.Fatalf("no line in %q", s)
	}
	return list
}

func (e *editor) drop(s string) {
	e.t.Helper()
	for _, at := range e.at(s) {
		for i := at[0]; i <= at[1]; i++ {
			e.lines[i] = ""
		}
	}
}

func (e *editor) flag(flag, s string) {
	e.t.Helper()
	for _, at := range e.at(s) {
		e.lines[at[0]] = strings.Replace(e.lines[at[0]], "RUN", "RUN "+flag, 1)
	}
}

func (e *editor) change(s string, f func(string) string) {
	e.t.Helper()
	at := e.at(s)[0]
	e.lines[at[1]] = f(e.lines[at[1]])
}
