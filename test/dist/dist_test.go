package dist

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	root   = "../.."
	module = "../../scripts/dist"
)

// commitTime is the time of the commit that is distributed.
const commitTime = "2026-01-02T03:04:05Z"

// TestModule runs the unit tests of scripts/dist, which is not a part of this module.
func TestModule(t *testing.T) {
	cmd := exec.Command(goOrSkip(t), "test", "./...")
	cmd.Dir = module
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestTwice makes the files of a release in two directories: as another user, with another umask,
// time zone and language, and, if it makes those of all architectures, with an empty build cache.
// All bytes must be equal. It runs only if LAYERBUILD_DIST is set.
func TestTwice(t *testing.T) {
	if os.Getenv("LAYERBUILD_DIST") == "" {
		t.Skip("LAYERBUILD_DIST is not set: the test makes a release twice, which takes minutes")
	}
	goCommand := goOrSkip(t)
	archs, cache := runtime.GOARCH, os.Getenv("GOCACHE")
	if os.Getenv("LAYERBUILD_DIST") == "all" {
		archs, cache = "amd64,arm64", filepath.Join(t.TempDir(), "cache")
	}
	first := filepath.Join(t.TempDir(), "source")
	tagged(t, first)
	second := filepath.Join(t.TempDir(), "another directory")
	git(t, ".", "clone", "-q", first, second)

	made := [2]string{filepath.Join(t.TempDir(), "dist"), filepath.Join(t.TempDir(), "dist")}
	distribute(t, goCommand, first, made[0], archs, "umask 022", nil, "TZ=UTC")
	distribute(t, goCommand, second, made[1], archs, "umask 077", anotherUser(), "TZ=Asia/Tokyo",
		"LANG=de_DE.UTF-8", "USER=other", "LOGNAME=other", "GOFLAGS=-mod=mod", "GOAMD64=v2",
		"SOURCE_DATE_EPOCH=1", "GOCACHE="+cache, "TMPDIR="+t.TempDir())

	names := fileNames(t, made[0])
	if got := fileNames(t, made[1]); !slices.Equal(got, names) {
		t.Fatalf("the second run made %q, want %q", got, names)
	}
	for _, name := range names {
		a, b := read(t, filepath.Join(made[0], name)), read(t, filepath.Join(made[1], name))
		if !bytes.Equal(a, b) {
			t.Errorf("%s: %d bytes and %d bytes, which differ", name, len(a), len(b))
		}
	}
	base := "layerbuild-1.2.3-linux-" + runtime.GOARCH
	for _, want := range []string{"SHA256SUMS", base + ".tar.gz", base + ".spdx.json",
		"layerbuild_1.2.3_" + runtime.GOARCH + ".deb", "layerbuild-1.2.3-inplace.oci.tar"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is missing in %q", want, names)
		}
	}
	t.Run("sums", func(t *testing.T) { checkSums(t, made[0], names) })
	t.Run("archive", func(t *testing.T) { checkArchive(t, filepath.Join(made[0], base)) })
	t.Run("deb", func(t *testing.T) {
		checkDeb(t, filepath.Join(made[0], "layerbuild_1.2.3_"+runtime.GOARCH+".deb"))
	})
	t.Run("rpm", func(t *testing.T) {
		checkRPM(t, filepath.Join(made[0], "layerbuild-1.2.3-1."+rpmArch[runtime.GOARCH]+".rpm"))
	})
	t.Run("sbom", func(t *testing.T) { checkSBOM(t, filepath.Join(made[0], base+".spdx.json")) })
	t.Run("inplace", func(t *testing.T) {
		checkInPlace(t, filepath.Join(made[0], "layerbuild-1.2.3-inplace.oci.tar"))
	})
	t.Run("release", func(t *testing.T) { refusals(t, goCommand, first) })
}

// refusals checks that a release needs a clean tree and a tag.
func refusals(t *testing.T, goCommand, source string) {
	t.Helper()
	refused := func(want string) {
		t.Helper()
		out := filepath.Join(t.TempDir(), "dist")
		cmd := distCommand(goCommand, source, out, "amd64", "inplace", "umask 022")
		text, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(text), want) {
			t.Errorf("err %v, want one with %q:\n%s", err, want, text)
		}
	}
	readme := filepath.Join(source, "README.md")
	if err := os.WriteFile(readme, append(read(t, readme), '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
	refused("the tree has changes that are not committed")
	git(t, source, "commit", "-qam", "later")
	refused("the commit has no tag vX.Y.Z")
	git(t, source, "tag", "v2x")
	refused("the commit has no tag vX.Y.Z")
}

// goOrSkip returns the go command. The test is skipped without it or without the modules.
func goOrSkip(t *testing.T) string {
	t.Helper()
	name := os.Getenv("GO")
	if name == "" {
		name = "go"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skip("no go command")
	}
	cmd := exec.Command(path, "mod", "download")
	cmd.Dir = module
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("the modules of scripts/dist cannot be fetched: %v\n%s", err, out)
	}
	return path
}

// tagged copies the source as it is here, with changes that are not committed, to a new repository
// with one commit, which has the tag v1.2.3.
func tagged(t *testing.T, to string) {
	t.Helper()
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Skip("not a git repository")
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		from := filepath.Join(root, name)
		info, err := os.Lstat(from)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed, and not committed
		} else if err != nil {
			t.Fatal(err)
		}
		dest := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
			t.Fatal(err)
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			target, lerr := os.Readlink(from)
			err = errors.Join(lerr, os.Symlink(target, dest))
		} else {
			err = os.WriteFile(dest, read(t, from), info.Mode().Perm()|0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	git(t, to, "init", "-q")
	git(t, to, "add", "-A", "-f")
	git(t, to, "commit", "-q", "-m", "all")
	git(t, to, "tag", "v1.2.3")
}

func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com",
		"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com",
		"GIT_AUTHOR_DATE="+commitTime, "GIT_COMMITTER_DATE="+commitTime,
		"GIT_CONFIG_GLOBAL=/dev/null")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %q: %v\n%s", args, err, out)
	}
}

// distCommand returns the command that makes a release. It compiles scripts/dist in the usual
// environment, since only the environment in which that runs matters.
func distCommand(goCommand, source, out, archs, image, before string) *exec.Cmd {
	return exec.Command("sh", "-c", before+` && cd "$1/scripts/dist" && `+
		`env -u GOFLAGS -u GOAMD64 -u GOCACHE ${USUAL_GOCACHE:+GOCACHE="$USUAL_GOCACHE"} `+
		`"$2" build -buildvcs=false -o "$3.program" . && `+
		`exec "$3.program" -release -go "$2" -out "$3" -arch "$4" -images "$5" `+
		`-build-flags "$(sed -n 's/^BUILD_FLAGS = //p' ../../Makefile)"`,
		"sh", source, goCommand, out, archs, image)
}

func distribute(t *testing.T, goCommand, source, out, archs, before string,
	attr *syscall.SysProcAttr, env ...string) {
	t.Helper()
	cmd := distCommand(goCommand, source, out, archs, "inplace", before)
	cmd.SysProcAttr = attr
	cmd.Env = append(os.Environ(), "USUAL_GOCACHE="+os.Getenv("GOCACHE"))
	cmd.Env = append(cmd.Env, env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
}

// anotherUser makes root another user, in a user namespace: it has the files of root and is none.
func anotherUser() *syscall.SysProcAttr {
	if os.Getuid() != 0 {
		return nil
	}
	return &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 1234, HostID: 0, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 1234, HostID: 0, Size: 1}}}
}

func fileNames(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func checkSums(t *testing.T, dir string, names []string) {
	var want strings.Builder
	for _, name := range names {
		if name != "SHA256SUMS" {
			fmt.Fprintf(&want, "%x  %s\n", sha256.Sum256(read(t, filepath.Join(dir, name))), name)
		}
	}
	if got := string(read(t, filepath.Join(dir, "SHA256SUMS"))); got != want.String() {
		t.Errorf("SHA256SUMS is\n%swant\n%s", got, want.String())
	}
}

// entries reads a tar whose entries must have root as owner, the time of the commit, and modes that
// do not depend on the umask.
func entries(t *testing.T, r io.Reader) map[string][]byte {
	t.Helper()
	at, err := time.Parse(time.RFC3339, commitTime)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return files
		} else if err != nil {
			t.Fatal(err)
		}
		mode := int64(0o644)
		if h.Typeflag == tar.TypeDir || filepath.Base(h.Name) == "layerbuild" &&
			!strings.Contains(h.Name, "completion") {
			mode = 0o755
		}
		if !h.ModTime.Equal(at) || h.Uid != 0 || h.Gid != 0 || h.Mode != mode {
			t.Errorf("%s: time %v, owner %d:%d, mode %o; want %v, 0:0, %o", h.Name, h.ModTime,
				h.Uid, h.Gid, h.Mode, at, mode)
		}
		if files[h.Name], err = io.ReadAll(tr); err != nil {
			t.Fatal(err)
		}
	}
}

// checkArchive unpacks PATH.tar.gz and runs the program in it.
func checkArchive(t *testing.T, path string) {
	z, err := gzip.NewReader(bytes.NewReader(read(t, path+".tar.gz")))
	if err != nil {
		t.Fatal(err)
	}
	if !z.ModTime.IsZero() || z.Name != "" {
		t.Errorf("the gzip header has the time %v and the name %q", z.ModTime, z.Name)
	}
	files := entries(t, z)
	top := filepath.Base(path) + "/"
	for _, name := range []string{"layerbuild", "README.md", "CHANGELOG.md", "COPYRIGHT",
		"man/layerbuild.1", "man/layerbuild.5", "man/layerbuild-build.1",
		"completions/bash/layerbuild", "completions/zsh/_layerbuild",
		"completions/fish/layerbuild.fish"} {
		if len(files[top+name]) == 0 {
			t.Errorf("%s is missing or empty", name)
		}
	}
	if page := string(files[top+"man/layerbuild.1"]); !strings.Contains(page,
		`"2026-01-02" "layerbuild v1.2.3"`) {
		t.Errorf("man page without the version and the date of the commit: %.200s", page)
	}
	for _, want := range []string{"the Go standard library, go", "github.com/moby/buildkit v",
		"Apache License"} {
		if !strings.Contains(string(files[top+"COPYRIGHT"]), want) {
			t.Errorf("COPYRIGHT without %q", want)
		}
	}
	program := filepath.Join(t.TempDir(), "layerbuild")
	if err := os.WriteFile(program, files[top+"layerbuild"], 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(program, "--version", "--format", "json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	if got["version"] != "v1.2.3" || got["date"] != commitTime || got["modified"] != nil ||
		got["commit"] == nil {
		t.Errorf("--version: %s, want v1.2.3 of %s", out, commitTime)
	}
}

// checkDeb reads a Debian package with dpkg-deb.
func checkDeb(t *testing.T, path string) {
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("no dpkg-deb")
	}
	dpkg := func(args ...string) []byte {
		t.Helper()
		out, err := exec.Command("dpkg-deb", args...).Output()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for field, want := range map[string]string{"Package": "layerbuild", "Version": "1.2.3",
		"Architecture": runtime.GOARCH, "Depends": "uidmap"} {
		if got := strings.TrimSpace(string(dpkg("-f", path, field))); got != want {
			t.Errorf("%s: %q, want %q", field, got, want)
		}
	}
	files := entries(t, bytes.NewReader(dpkg("--fsys-tarfile", path)))
	for _, name := range []string{"usr/bin/layerbuild", "usr/share/man/man1/layerbuild.1.gz",
		"usr/share/man/man5/layerbuild.5.gz", "usr/share/bash-completion/completions/layerbuild",
		"usr/share/zsh/vendor-completions/_layerbuild",
		"usr/share/fish/vendor_completions.d/layerbuild.fish",
		"usr/share/doc/layerbuild/copyright"} {
		if len(files["./"+name]) == 0 {
			t.Errorf("%s is missing or empty", name)
		}
	}
	entries(t, bytes.NewReader(dpkg("--ctrl-tarfile", path)))
}

// rpmArch has RPM's name for each architecture.
var rpmArch = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

// Tags of the header of an RPM package.
const (
	rpmName     = 1000
	rpmVersion  = 1001
	rpmArchTag  = 1022
	rpmRequires = 1049
	rpmBases    = 1117 // the names of the files, without their directories
)

// checkRPM reads the header of an RPM package, which follows the one with the signature.
func checkRPM(t *testing.T, path string) {
	data := read(t, path)
	magic := []byte{0x8e, 0xad, 0xe8, 1, 0, 0, 0, 0}
	at := bytes.LastIndex(data[:min(len(data), 1<<16)], magic)
	if at < 0 {
		t.Fatal("there is no header")
	}
	data = data[at+len(magic):]
	entries := int(binary.BigEndian.Uint32(data))
	index, values := data[8:8+16*entries], data[8+16*entries:]
	texts := func(tag uint32) []string {
		for e := index; len(e) > 0; e = e[16:] {
			if binary.BigEndian.Uint32(e) == tag {
				text := string(values[binary.BigEndian.Uint32(e[8:]):])
				n := int(binary.BigEndian.Uint32(e[12:]))
				return strings.SplitN(text, "\x00", n+1)[:n]
			}
		}
		return nil
	}
	for tag, want := range map[uint32]string{rpmName: "layerbuild", rpmVersion: "1.2.3",
		rpmArchTag: rpmArch[runtime.GOARCH]} {
		if got := texts(tag); len(got) != 1 || got[0] != want {
			t.Errorf("the tag %d is %q, want %s", tag, got, want)
		}
	}
	if got := texts(rpmRequires); !slices.Contains(got, "/usr/bin/newuidmap") {
		t.Errorf("the package requires %q, want newuidmap", got)
	}
	for _, name := range []string{"layerbuild", "layerbuild.1.gz", "_layerbuild"} {
		if got := texts(rpmBases); !slices.Contains(got, name) {
			t.Errorf("%s is not among the files %q", name, got)
		}
	}
}

// checkSBOM checks that the list has the program itself and what is linked into it.
func checkSBOM(t *testing.T, path string) {
	var doc struct {
		CreationInfo struct{ Created string }
		Packages     []struct{ Name, VersionInfo string }
	}
	if err := json.Unmarshal(read(t, path), &doc); err != nil {
		t.Fatal(err)
	}
	versions := map[string]string{}
	for _, p := range doc.Packages {
		versions[p.Name] = p.VersionInfo
	}
	if doc.CreationInfo.Created != commitTime {
		t.Errorf("created %s, want %s", doc.CreationInfo.Created, commitTime)
	}
	if versions["github.com/layerbuild/layerbuild"] != "v1.2.3" ||
		versions["github.com/moby/buildkit"] == "" {
		t.Errorf("the list lacks layerbuild v1.2.3 or buildkit: %v", versions)
	}
}

// checkInPlace checks that each file of the image is below /layerbuild.
func checkInPlace(t *testing.T, path string) {
	blobs := map[string][]byte{}
	tr := tar.NewReader(bytes.NewReader(read(t, path)))
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if blobs[h.Name], err = io.ReadAll(tr); err != nil {
			t.Fatal(err)
		}
	}
	names := map[string]bool{}
	for _, blob := range blobs {
		z, err := gzip.NewReader(bytes.NewReader(blob))
		if err != nil {
			continue // a document
		}
		for layer := tar.NewReader(z); ; {
			h, err := layer.Next()
			if err != nil {
				break
			}
			names[strings.Trim(h.Name, "/")] = true
		}
	}
	want := []string{"layerbuild", "layerbuild/ca-certificates.crt", "layerbuild/executor",
		"layerbuild/layerbuild"}
	if got := slices.Sorted(maps.Keys(names)); !slices.Equal(got, want) {
		t.Errorf("the image has %q, want %q", got, want)
	}
}
