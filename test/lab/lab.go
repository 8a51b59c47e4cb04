package lab

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/internal/registrytest"
)

// Lab is a state directory, a registry with busybox in it, and the program to use them.
type Lab struct {
	State    string   // the program's --root
	Dir      string   // the working directory of commands; a new directory
	Env      []string // added to the environment
	Prefix   []string // arguments before the program, to become another user
	Registry *registrytest.Registry

	t   testing.TB
	top string
	bin string // a copy of the program that another user can execute; "": Binary
}

// New makes a Lab. At the end of the test the Lab is removed, and the test fails if a mount was
// left behind.
func New(t testing.TB) *Lab {
	t.Helper()
	top, err := os.MkdirTemp("", "layerbuild-lab-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(t, top) })
	if err := os.Chmod(top, 0o755); err != nil {
		t.Fatal(err)
	}
	l := &Lab{State: filepath.Join(top, "state"), Dir: filepath.Join(top, "dir"),
		Registry: registrytest.New(t), t: t, top: top}
	if err := os.Mkdir(l.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(top, "registries.conf")
	text := fmt.Sprintf("[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = %q\ninsecure = true\n", l.Registry.Host)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	// Compare each layer with the file system after its step.
	l.Env = []string{"LAYERBUILD_CHECK_LAYERS=1", "CONTAINERS_REGISTRIES_CONF=" + conf,
		"HOME=" + top, "PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin"}
	return l
}

var busybox = sync.OnceValues(imagetest.Busybox)

// Busybox adds busybox:latest to the registry. It skips the test if the machine has no busybox.
func (l *Lab) Busybox() {
	l.t.Helper()
	made, err := busybox()
	if err != nil {
		l.t.Skip(err)
	}
	l.Registry.Add("library/busybox", "latest", made)
}

// Command returns a command, made by Exec, that runs the program with arguments after "VERB --root
// STATE".
func (l *Lab) Command(verb string, args ...string) *exec.Cmd {
	l.t.Helper()
	bin := l.bin
	if bin == "" {
		bin = Binary(l.t)
	}
	line := append(append([]string{}, l.Prefix...), bin, verb, "--root="+l.State)
	line = append(line, args...)
	cmd := Exec(l.t, line[0], line[1:]...)
	cmd.Dir = l.Dir
	cmd.Env = append(os.Environ(), l.Env...)
	return cmd
}

// For returns a copy of the lab for a subtest t, to which failures and commands then belong.
func (l *Lab) For(t testing.TB) *Lab {
	other := *l
	other.t = t
	return &other
}

// As makes the program run as another user from now on; see User. The user becomes the owner of the
// files in Dir.
func (l *Lab) As(user string) {
	l.t.Helper()
	raw, err := os.ReadFile(Binary(l.t))
	if err != nil {
		l.t.Fatal(err)
	}
	// The repository may be in a directory that the user cannot enter.
	l.bin = filepath.Join(l.top, "layerbuild")
	if err := os.WriteFile(l.bin, raw, 0o755); err != nil {
		l.t.Fatal(err)
	}
	tmp := filepath.Join(l.top, "tmp")
	if err := os.Mkdir(tmp, 0o755); err != nil {
		l.t.Fatal(err)
	}
	Output(l.t, "chown", "-R", user+":", l.top)
	l.Env = append(l.Env, "TMPDIR="+tmp, "USER="+user, "LOGNAME="+user)
	l.Prefix = []string{"runuser", "-u", user, "--"}
}

// Fuse makes /dev/fuse usable for the user that As has named, and skips the test if fuse-overlayfs
// is not installed. On some machines only root may open /dev/fuse; the program then gets its own
// node in a separate mount namespace.
func (l *Lab) Fuse() {
	l.t.Helper()
	Need(l.t, "fuse-overlayfs", "unshare", "mount")
	info, err := os.Stat("/dev/fuse")
	if err != nil {
		l.t.Skip(err)
	}
	if len(l.Prefix) == 0 || info.Mode().Perm()&0o006 == 0o006 {
		return
	}
	node := filepath.Join(l.top, "fuse")
	Output(l.t, "mknod", "--mode=0666", node, "c", "10", "229")
	script := `mount --bind "$0" /dev/fuse && exec "$@"`
	l.Prefix = append([]string{"unshare", "--mount", "sh", "-c", script, node}, l.Prefix...)
}

// User makes an unprivileged user, with or without a range of subordinate ids, and returns its
// name. The user is not removed: the next run uses it again.
func User(t testing.TB, ranges bool) string {
	t.Helper()
	Root(t)
	Need(t, "useradd", "runuser", "newuidmap")
	name := "layerbuild-single"
	if ranges {
		name = "layerbuild-test"
	}
	if exec.Command("id", "-u", name).Run() != nil {
		Output(t, "useradd", "--system", "--create-home", "--home-dir", "/var/lib/"+name,
			"--shell", "/bin/sh", name)
	}
	for _, kind := range []string{"uid", "gid"} {
		raw, err := os.ReadFile("/etc/sub" + kind)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		start, has := 100000, false
		for line := range strings.Lines(string(raw)) {
			f := strings.Split(strings.TrimSpace(line), ":")
			if len(f) != 3 {
				continue
			}
			has = has || f[0] == name
			first, _ := strconv.Atoi(f[1])
			count, _ := strconv.Atoi(f[2])
			start = max(start, first+count)
		}
		if ranges && !has {
			Output(t, "usermod", "--add-sub"+kind+"s",
				fmt.Sprintf("%d-%d", start, start+65535), name)
		}
		if !ranges && has {
			t.Skipf("%s has subordinate ids", name)
		}
	}
	if err := exec.Command("runuser", "-u", name, "--", "unshare", "--user",
		"true").Run(); err != nil {
		t.Skip("this kernel gives unprivileged users no user namespaces")
	}
	return name
}

// Run runs a verb and returns its standard output; a failure ends the test.
func (l *Lab) Run(verb string, args ...string) string {
	l.t.Helper()
	cmd := l.Command(verb, args...)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Run(); err != nil {
		l.t.Fatalf("layerbuild %s %s: %v\n%s%s", verb, strings.Join(args, " "), err,
			out.Bytes(), log.Bytes())
	}
	return out.String()
}

// Image reads an image from the state directory.
func (l *Lab) Image(name string) *imagetest.Image {
	l.t.Helper()
	img, err := imagetest.Open(filepath.Join(l.State, "oci"), name)
	if err != nil {
		l.t.Fatal(err)
	}
	return img
}

// Write writes files below Dir: name, content, name, content.
func (l *Lab) Write(files ...string) {
	l.t.Helper()
	for i := 0; i < len(files); i += 2 {
		path := filepath.Join(l.Dir, files[i])
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			l.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(files[i+1]), 0o644); err != nil {
			l.t.Fatal(err)
		}
		// The mode must not depend on the umask of the process.
		if err := os.Chmod(path, 0o644); err != nil {
			l.t.Fatal(err)
		}
	}
}

// Layer prints one layer of an image in imagetest's notation.
func (l *Lab) Layer(name string, n int) string {
	l.t.Helper()
	entries, err := l.Image(name).Layer(n)
	if err != nil {
		l.t.Fatal(err)
	}
	return imagetest.Lines(entries)
}

// Root skips the test unless it runs as root.
func Root(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
}

// Need skips the test unless the machine has all the commands.
func Need(t testing.TB, commands ...string) {
	t.Helper()
	for _, c := range commands {
		if _, err := exec.LookPath(c); err != nil {
			t.Skipf("%s is not installed", c)
		}
	}
}

// Output runs a command of the machine and returns its output. A failure ends the test.
func Output(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := Exec(t, name, args...)
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, log.Bytes())
	}
	return string(out)
}

// Top returns the top directory of the repository.
func Top() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// built is the directory of the program that was built; "" if there is none. Only build and, after
// all tests, Main use it.
var built string

var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "layerbuild-bin-")
	if err != nil {
		return "", err
	}
	built = dir
	bin := filepath.Join(dir, "layerbuild")
	cmd := exec.Command("go", "build", "-trimpath", "-o", bin, "./cmd/layerbuild")
	cmd.Dir = Top()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return bin, os.Chmod(dir, 0o755)
})

// Binary returns the path of the program: $LAYERBUILD, or a program that it builds. Main removes
// that.
func Binary(t testing.TB) string {
	t.Helper()
	if bin := os.Getenv("LAYERBUILD"); bin != "" {
		return bin
	}
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// Main runs a package's tests, removes the program that Binary has built, and calls after: func
// TestMain(m *testing.M) { lab.Main(m) }.
func Main(m *testing.M, after ...func()) {
	// Tests compare modes, and a user of Debian 13 has the umask 002.
	syscall.Umask(0o022)
	if signal.Ignored(syscall.SIGHUP) { // nohup(1)
		// A program inherits ignored signals, but not handled ones.
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
	code := m.Run()
	for _, f := range after {
		f()
	}
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

func remove(t testing.TB, dir string) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mounts, []byte(dir+"/")) {
		t.Errorf("a mount was left behind below %s (%v)", dir, err)
		return
	}
	if os.Getuid() != 0 {
		// The user owns files of its subordinate ids only inside a user namespace.
		exec.Command("unshare", "--map-root-user", "--map-auto", "rm", "-rf",
			"--one-file-system", dir).Run()
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Log("clean up:", err)
	}
}
