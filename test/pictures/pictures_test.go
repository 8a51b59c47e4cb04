package pictures

import (
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/ui"
	"github.com/layerbuild/layerbuild/internal/vttest"
	"github.com/layerbuild/layerbuild/test/lab"
)

var dir = flag.String("pictures", "", "write the pictures to this directory")

func TestMain(m *testing.M) { lab.Main(m) }

const rows = 60

// A scene is a run of the program on a terminal.
type scene struct {
	name, title string
	columns     uint16
	files       []string // of the working directory: names and contents
	before      []string // the arguments of a run before it that is not shown
	args        []string
	// until returns whether the picture is taken now; nil: when the program has ended.
	until func(screen string) bool
	want  []string // texts in the picture
}

const twoStages = `FROM busybox AS server
WORKDIR /src
COPY server .
RUN for f in *.c; do echo compile $f; sleep 0.7; done; cat *.c >/server

FROM busybox AS pages
WORKDIR /src
COPY pages .
RUN for f in *.md; do echo render $f; sleep 0.8; done; cat *.md >/index.html

FROM busybox
COPY --from=server /server /bin/server
COPY --from=pages /index.html /srv/
CMD ["server"]
`

var scenes = []scene{
	{name: "build", title: "A build with two stages that run at the same time",
		columns: 100, files: []string{"Dockerfile", twoStages, "server/main.c", "1\n", "server/http.c", "2\n",
			"server/store.c", "3\n", "server/auth.c", "4\n", "pages/index.md", "1\n",
			"pages/guide.md", "2\n", "pages/news.md", "3\n", "pages/about.md", "4\n"},
		args: []string{"build", "-t", "shop", "."},
		until: func(screen string) bool {
			return strings.Count(screen, "compile ") > 3 && strings.Count(screen, "render ") > 3
		},
		want: []string{"RUN for f in *.c", "compile", "render"}},
	{name: "error", title: "A step that fails, with the lines of the Dockerfile",
		columns: 100, files: []string{"Dockerfile", "FROM busybox\nWORKDIR /app\nCOPY config.ini .\n" +
			"RUN grep -q '^port=' config.ini || { echo 'config.ini: no port' >&2; exit 3; }\n" +
			"CMD [\"httpd\", \"-f\"]\n", "config.ini", "host=example.com\n"},
		args: []string{"build", "-t", "shop", "."},
		want: []string{"config.ini: no port", "exit code: 3", "Dockerfile:4"}},
	{name: "waste", title: "The report about an image with 4 MB that no container sees",
		columns: 134, files: []string{"Dockerfile", "FROM busybox\nCOPY app.tar /tmp/\n" +
			"RUN mkdir /app && tar -xf /tmp/app.tar -C /app\n" +
			"RUN cat /app/src/* | sha256sum >/app/built\nRUN rm -r /tmp/app.tar /app/src\n"},
		before: []string{"build", "-t", "shop", "."},
		args:   []string{"analyze", "shop"},
		want:   []string{"app.tar", "RUN rm -r"}},
}

// TestPictures makes the pictures, of each theme.
func TestPictures(t *testing.T) {
	lab.Root(t)
	out := *dir
	if out == "" {
		out = t.TempDir()
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, s := range scenes {
		t.Run(s.name, func(t *testing.T) {
			lines := s.run(t)
			for _, th := range themes {
				save(t, filepath.Join(out, s.name+"-"+th.name+".svg"),
					terminal(th, lines, int(s.columns), s.title), s.want)
			}
		})
	}
}

// TestChart makes the chart of the benchmarks.
func TestChart(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(lab.Top(), "docs/BENCHMARKS.md"))
	if err != nil {
		t.Fatal(err)
	}
	all, err := benchmarks(string(page))
	if err != nil {
		t.Fatal(err)
	}
	out := *dir
	if out == "" {
		out = t.TempDir()
	}
	tools := []string{"layerbuild", "docker-buildkit", "buildah"}
	all = slices.DeleteFunc(all, func(b benchmark) bool {
		return slices.ContainsFunc(tools, func(tool string) bool { return b.of(tool).wall == 0 })
	})
	for _, th := range themes {
		save(t, filepath.Join(out, "benchmarks-"+th.name+".svg"), chart(th, all, tools),
			append(tools, all[0].name, " ×"))
	}
}

func TestBenchmarks(t *testing.T) {
	all, err := benchmarks("x\n## Each case\n\n### A\nText.\n\n" +
		"|  | wall (least to most) | CPU | × wall |\n" +
		"| --- | --- | --- | --- |\n| layerbuild | 10.2 ms (9.9 ms to 13.0 ms) | 1 ms |  |\n" +
		"| buildah | 1.5 s (1 s to 2 s) | 1 ms | 140.2 |\n### B\n| layerbuild, gzip | 3 s (1 s) | 1 s |\n" +
		"## Next\n### C\n| layerbuild | 1 s | 1 s |\n| x | 1 s | 1 s |\n")
	if err != nil || len(all) != 1 || all[0].name != "A" || len(all[0].results) != 2 ||
		all[0].of("buildah") != (result{"buildah", 1500 * time.Millisecond, "140.2"}) ||
		all[0].of("x") != (result{}) {
		t.Errorf("%+v, %v", all, err)
	}
	for _, text := range []string{"", "\n## Each case\n### A\n| x | 1 s | 1 s |\n"} {
		if _, err := benchmarks(text); err == nil {
			t.Errorf("no error for %q", text)
		}
	}
}

// run runs the scene and returns the lines on the terminal.
func (s scene) run(t *testing.T) [][]vttest.Run {
	l := lab.New(t)
	l.Busybox()
	l.Write(append([]string{"app.tar", ""}, s.files...)...)
	if s.name == "waste" {
		l.Write("app/src/code", strings.Repeat("text of the program\n", 100_000))
		lab.Output(t, "tar", "-C", filepath.Join(l.Dir, "app"), "-cf",
			filepath.Join(l.Dir, "app.tar"), "src")
	}
	if s.before != nil {
		l.Run(s.before[0], s.before[1:]...)
	}
	master, slave, err := openPTY(s.columns, rows)
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	cmd := l.Command(s.args[0], s.args[1:]...)
	cmd.Env = append(cmd.Env, "TERM=xterm-256color", "CI=", "NO_COLOR=", "GITHUB_ACTIONS=",
		"BUILDKIT_COLORS=", "LAYERBUILD_PROGRESS=", "BUILDKIT_PROGRESS=")
	onTerminal(cmd, slave)
	screen := vttest.New(t, int(s.columns), rows, ui.RuneWidth)
	shown := strings.Join(s.args, " ")
	shown, _ = strings.CutPrefix(shown, "build ")
	if _, err := io.WriteString(screen, "\x1b[1m$ layerbuild "+shown+"\x1b[0m\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := slave.Close(); err != nil {
		t.Fatal(err)
	}
	shot := s.watch(t, master, screen)
	_ = cmd.Wait() // the build of one scene fails
	if shot == nil {
		if s.until != nil {
			t.Fatalf("the moment of the picture did not come\n%s", screen.All())
		}
		shot = screen.Runs()
	}
	return shot
}

// watch writes the output to the screen until the program has ended. It returns the lines at the
// moment of until, nil if it did not come.
func (s scene) watch(t *testing.T, master *os.File, screen *vttest.Terminal) [][]vttest.Run {
	var shot [][]vttest.Run
	buf := make([]byte, 64<<10)
	for {
		n, err := master.Read(buf)
		if _, err := screen.Write(buf[:n]); err != nil {
			t.Fatal(err)
		}
		if shot == nil && s.until != nil && s.until(screen.Screen()) {
			shot = screen.Runs()
		}
		if errors.Is(err, unix.EIO) { // no process has the other end
			return shot
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// save writes a picture, which must be an XML file with the texts want.
func save(t *testing.T, path, svg string, want []string) {
	t.Helper()
	var text strings.Builder
	dec := xml.NewDecoder(strings.NewReader(svg))
	for {
		token, err := dec.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if data, ok := token.(xml.CharData); ok {
			text.Write(data)
		}
	}
	for _, w := range want {
		if !strings.Contains(text.String(), w) {
			t.Errorf("%s has no %q:\n%s", path, w, text.String())
		}
	}
	if strings.Contains(text.String(), "layerbuild-lab-") {
		t.Errorf("%s names a temporary directory:\n%s", path, text.String())
	}
	if err := os.WriteFile(path, []byte(svg), 0o644); err != nil {
		t.Fatal(err)
	}
}
