package examples

import (
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

const rootfs = "debian-base/rootfs.tar.zst"

// TestExamples builds all examples into one state directory, as a reader of their READMEs would.
func TestExamples(t *testing.T) {
	lab.Root(t)
	dir := filepath.Join(lab.Top(), "examples")
	if _, err := os.Stat(filepath.Join(dir, rootfs)); err != nil {
		t.Skipf("%v: `make rootfs` makes it", err)
	}
	l := lab.New(t)
	l.Dir = dir
	l.Run("build", "-t", "debian-base", "debian-base")
	for _, e := range []struct {
		name string
		test func(*testing.T, *lab.Lab)
	}{
		{"debian-base", debianBase}, {"whiteouts", whiteouts}, {"shared-layers", sharedLayers},
		{"python-app", pythonApp}, {"multistage-go", multistageGo},
	} {
		if !t.Run(e.name, func(t *testing.T) { e.test(t, l) }) && e.name == "debian-base" {
			t.Fatal("the other examples are based on it")
		}
	}
}

func debianBase(t *testing.T, l *lab.Lab) {
	img := l.Image("debian-base")
	if len(img.Manifest.Layers) != 1 {
		t.Errorf("%d layers, want 1", len(img.Manifest.Layers))
	}
	if !slices.Equal(img.Config.Config.Cmd, []string{"bash"}) {
		t.Errorf("CMD %q", img.Config.Config.Cmd)
	}
	if out := l.Run("run", "debian-base", "cat",
		"/etc/os-release"); !strings.Contains(out, "ID=debian") {
		t.Errorf("/etc/os-release: %s", out)
	}
	// The layer has the entries that mmdebstrap packed. tar lists both with numeric owners. The
	// lists are sorted before they are compared.
	list := func(args ...string) string {
		return lab.Output(t, "sh", "-c", `"$@" | sed 's|\./||; /^d.* $/d' | LC_ALL=C sort -k6`,
			"sh",
			args[0], args[1], args[2], args[3])
	}
	want := list("tar", "--numeric-owner", "-tvf", filepath.Join(l.Dir, rootfs))
	plain, err := img.Tar(0)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "layer.tar")
	if err := os.WriteFile(path, plain, 0o644); err != nil {
		t.Fatal(err)
	}
	got := list("tar", "--numeric-owner", "-tvf", path)
	compareListings(t, got, want)
}

// compareListings compares two listings of tar -tv. Which of several names of one file has the
// content depends on the machine, so links between files are compared by their number only.
func compareListings(t *testing.T, got, want string) {
	t.Helper()
	parse := func(text string) (map[string]string, int) {
		all, links := map[string]string{}, 0
		for line := range strings.Lines(text) {
			f := strings.Fields(line)
			if len(f) < 6 {
				continue
			}
			name := strings.TrimSuffix(strings.Join(f[5:], " "), "/")
			if to := strings.Index(name, " link to "); to >= 0 {
				links++
				continue
			}
			size := f[2]
			if f[0][0] == '-' {
				size = "" // the content may be under another name
			}
			all[name] = f[0] + " " + f[1] + " " + size
		}
		return all, links
	}
	g, gl := parse(got)
	w, wl := parse(want)
	if gl != wl {
		t.Errorf("%d hard links, want %d", gl, wl)
	}
	bad := 0
	for name, line := range w {
		if g[name] != line && !(gl > 0 && g[name] == "") {
			t.Errorf("%s: %q, want %q", name, g[name], line)
			if bad++; bad > 20 {
				t.Fatal("and more")
			}
		}
	}
	if len(g) != len(w) {
		t.Errorf("%d entries, want %d", len(g), len(w))
	}
}

func whiteouts(t *testing.T, l *lab.Lab) {
	l.Run("build", "-t", "whiteouts", "whiteouts")
	info, err := os.Stat(filepath.Join(l.Dir, "whiteouts/File1"))
	if err != nil {
		t.Fatal(err)
	}
	// git gives the files of a checkout the modes that the umask permits.
	want := fmt.Sprintf("whiteout File2\nfile File1 %04o \"one\\nedited\\n\"\n"+
		"file File4 0644 \"four\\n\"\n", info.Mode().Perm())
	if got := l.Layer("whiteouts", -1); got != want {
		t.Errorf("the RUN's layer holds\n%swant\n%s", got, want)
	}
}

func sharedLayers(t *testing.T, l *lab.Lab) {
	shared := lab.New(t)
	shared.Dir = l.Dir
	shared.Run("build", "-t", "debian-base", "debian-base")
	base := du(t, shared.State)
	shared.Run("build", "-t", "a", "-f", "shared-layers/a.Dockerfile", "shared-layers")
	shared.Run("build", "-t", "b", "-f", "shared-layers/b.Dockerfile", "shared-layers")
	blobs := map[string]bool{}
	for _, name := range []string{"a", "b"} {
		layers := shared.Image(name).Manifest.Layers
		if len(layers) != 3 {
			t.Errorf("%s has %d layers, want 3", name, len(layers))
		}
		for _, d := range layers {
			blobs[d.Digest.String()] = true
		}
	}
	if len(blobs) != 4 {
		t.Errorf("the two images have %d different layers, want 4", len(blobs))
	}
	if grown := du(t, shared.State) - base; grown > 1<<20 {
		t.Errorf("the two images take %d bytes beside their base's %d", grown, base)
	}
	if out := shared.Run("run", "b", "cat", "/common",
		"/own"); out != "in both images\nonly in b\n" {
		t.Errorf("image b prints %q", out)
	}
}

// du returns the disk space of the files in a directory, each counted once.
func du(t *testing.T, dir string) (sum int64) {
	t.Helper()
	seen := map[uint64]bool{}
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		if !seen[st.Ino] {
			seen[st.Ino] = true
			sum += st.Blocks * 512
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

func pythonApp(t *testing.T, l *lab.Lab) {
	l.Run("build", "-t", "python-app", "python-app")
	config := l.Image("python-app").Config.Config
	if _, ok := config.ExposedPorts["80/tcp"]; !ok || !slices.Contains(config.Env, "NAME=World") ||
		config.WorkingDir != "/app" {
		t.Errorf("config: %+v", config)
	}
	if got := l.Layer("python-app", 2); got == "" || strings.Contains(got, "Dockerfile") {
		t.Errorf("the ADD's layer holds\n%s", got)
	}
	port := freePort(t)
	cmd := l.Command("run", "python-app", "python3", "app.py", port)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	page := fetch(t, "http://127.0.0.1:"+port+"/")
	if !strings.Contains(page, "Hello World!") || !strings.Contains(page, "<b>Visits:</b> 1") {
		t.Errorf("the page is %q", page)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the container still runs after SIGTERM")
		cmd.Process.Kill()
	}
	if conn, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
		conn.Close()
		t.Error("the app still answers after the container has ended")
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return fmt.Sprint(ln.Addr().(*net.TCPAddr).Port)
}

func fetch(t *testing.T, url string) string {
	t.Helper()
	var last error
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(
		50 * time.Millisecond) {
		res, err := http.Get(url)
		if err != nil {
			last = err
			continue
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s %v", url, res.Status, err)
		}
		return string(body)
	}
	t.Fatal(last)
	return ""
}

func multistageGo(t *testing.T, l *lab.Lab) {
	root := strings.TrimSpace(lab.Output(t, "go", "env", "GOROOT"))
	if info, err := os.Lstat(filepath.Join(root, "src")); err != nil || !info.IsDir() {
		t.Skipf("%s is not a complete toolchain", root)
	}
	l.Run("build", "-t", "golang", "-f", "multistage-go/golang.Dockerfile", root)
	l.Run("build", "-t", "hello", "multistage-go")
	img := l.Image("hello")
	if len(img.Manifest.Layers) != 1 {
		t.Errorf("%d layers, want 1", len(img.Manifest.Layers))
	}
	entries, err := img.Layer(0)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 || entries[0].Path != "hello" || entries[0].Header.Mode != 0o755 {
		t.Errorf("the layer holds %v", entries)
	}
	if out := l.Run("run", "hello", "you"); !strings.HasPrefix(out, "Hello you, from linux/") {
		t.Errorf("hello prints %q", out)
	}
}
