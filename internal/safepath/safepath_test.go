package safepath

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tree returns a root directory, with a file outside of it that must not be reachable.
func tree(t testing.TB) (fd int, dir string) {
	t.Helper()
	top := t.TempDir()
	dir = filepath.Join(top, "root")
	steps := []error{
		os.MkdirAll(filepath.Join(dir, "a/b"), 0o755),
		os.WriteFile(filepath.Join(top, "secret"), []byte("outside"), 0o644),
		os.WriteFile(filepath.Join(dir, "secret"), []byte("inside"), 0o644),
		os.WriteFile(filepath.Join(dir, "a/f"), []byte("f"), 0o644),
		os.Symlink("../../../../secret", filepath.Join(dir, "a/up")),
		os.Symlink("/secret", filepath.Join(dir, "abs")),
		os.Symlink("a/b", filepath.Join(dir, "dirlink")),
		os.Symlink("/made/here", filepath.Join(dir, "nowhere")),
		os.Symlink("loop", filepath.Join(dir, "loop")),
		os.Symlink(top, filepath.Join(dir, "out")),
	}
	if err := errors.Join(steps...); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd, dir
}

func read(fd int) string {
	defer unix.Close(fd)
	buf := make([]byte, 100)
	n, _ := unix.Read(fd, buf)
	return string(buf[:max(n, 0)])
}

func TestInRoot(t *testing.T) {
	root, _ := tree(t)
	for name, want := range map[string]string{
		"secret": "inside", "/secret": "inside", "../secret": "inside", "a/../../secret": "inside",
		"a/up": "inside", "abs": "inside", "dirlink/../f": "f",
	} {
		fd, err := InRoot(root, name, unix.O_RDONLY, 0)
		if err != nil {
			t.Errorf("InRoot(%q): %v", name, err)
			continue
		}
		if got := read(fd); got != want {
			t.Errorf("InRoot(%q) reads %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string]error{"out/secret": unix.ENOENT, "nope": unix.ENOENT,
		"loop": unix.ELOOP, "a/f/x": unix.ENOTDIR} {
		if fd, err := InRoot(root, name, unix.O_RDONLY, 0); !errors.Is(err, want) {
			t.Errorf("InRoot(%q): got %d, %v, want %v", name, fd, err, want)
		}
	}
	_, err := InRoot(root, "", unix.O_PATH, 0)
	if err != nil {
		t.Errorf(`InRoot(""): %v`, err)
	}
	if pe, ok := errors.AsType[*fs.PathError](func() error {
		_, err := InRoot(root, "nope", unix.O_RDONLY, 0)
		return err
	}()); !ok || pe.Path != "nope" {
		t.Errorf("the error does not name the path")
	}
}

// TestResolveParts compares the resolution of one part after the other with the kernel's.
func TestResolveParts(t *testing.T) {
	root, dir := tree(t)
	if err := errors.Join(os.Symlink("../dirlink", filepath.Join(dir, "a/b/back")),
		os.Symlink("../turn", filepath.Join(dir, "turn"))); err != nil {
		t.Fatal(err)
	}
	names := []string{".", "..", "/", "a", "a/", "a/.", "a/..", "a/../a/b/", "a//b", "secret",
		"secret/", "secret/x", "a/f/..", "a/up", "a/up/", "abs", "dirlink", "dirlink/", "dirlink/..",
		"dirlink/../f", "a/b/back", "a/b/back/../f", "nowhere", "nowhere/", "loop", "loop/x", "out",
		"out/secret", "turn", "turn/x", "nope", "nope/..", "../../a", "new", "dirlink/new"}
	for _, flags := range []uint64{unix.O_RDONLY, unix.O_PATH, unix.O_PATH | unix.O_NOFOLLOW,
		unix.O_PATH | unix.O_DIRECTORY, unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW,
		unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL} {
		for _, resolve := range []uint64{unix.RESOLVE_IN_ROOT, unix.RESOLVE_BENEATH,
			unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS} {
			for _, name := range names {
				how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolve}
				if flags&unix.O_CREAT != 0 {
					how.Mode = 0o600
				}
				want, wantErr := result(dir, func() (fd int, err error) {
					// EAGAIN: any rename or mount on the machine, also of another program, may
					// have been at the same time as a ".."
					for range 100_000 {
						if fd, err = unix.Openat2(root, name, &how); err != unix.EAGAIN {
							break
						}
					}
					return fd, err
				})
				got, err := result(dir, func() (int, error) {
					return resolveParts(root, name, how)
				})
				if got != want || err != wantErr {
					t.Errorf("%q, flags %#x, resolve %#x: %s, %v, want %s, %v", name, flags,
						resolve, got, err, want, wantErr)
				}
			}
		}
	}
}

// result returns the path of the file that open opens, and removes a file that it made.
func result(dir string, open func() (int, error)) (string, error) {
	fd, err := open()
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	path, err := os.Readlink(filepath.Join("/proc/self/fd", strconv.Itoa(fd)))
	if base := filepath.Base(path); base == "new" || base == "nope" {
		os.Remove(path)
	}
	return strings.TrimPrefix(path, dir), err
}

// Magic links of /proc, which may refer to any file, are not followed.
func TestInRootMagicLinks(t *testing.T) {
	proc, err := unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip(err)
	}
	defer unix.Close(proc)
	for _, name := range []string{"self/root/etc", "self/cwd", "self/exe"} {
		if fd, err := InRoot(proc, name, unix.O_PATH, 0); !errors.Is(err, unix.ELOOP) {
			t.Errorf("InRoot(/proc, %q): got %d, %v", name, fd, err)
		}
	}
}

func TestNoLinks(t *testing.T) {
	root, _ := tree(t)
	fd, err := NoLinks(root, "a/f", unix.O_RDONLY, 0)
	if err != nil || read(fd) != "f" {
		t.Errorf("got %v", err)
	}
	for name, want := range map[string]error{"dirlink/x": unix.ELOOP, "abs": unix.ELOOP,
		"../secret": unix.EXDEV, "/secret": unix.EXDEV} {
		if fd, err := NoLinks(root, name, unix.O_RDONLY, 0); !errors.Is(err, want) {
			t.Errorf("NoLinks(%q): got %d, %v, want %v", name, fd, err, want)
		}
	}
	fd, err = NoLinks(root, "abs", unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
		t.Errorf("the link itself: %o, %v", st.Mode, err)
	}
}

func TestMkdirAll(t *testing.T) {
	tests := []struct {
		name string
		made []string
		at   string // the resulting directory
		err  error
	}{
		{"x/y/z", []string{"x", "y", "z"}, "x/y/z", nil},
		{"/x2/", []string{"x2"}, "x2", nil},
		{"a/b", nil, "a/b", nil},
		{"dirlink/n", []string{"n"}, "a/b/n", nil},
		{"nowhere/n", []string{"made", "here", "n"}, "made/here/n", nil},
		{"dirlink/../m", []string{"m"}, "a/m", nil},
		{"../../q", []string{"q"}, "q", nil},
		{"", nil, ".", nil},
		{"/", nil, ".", nil},
		{"a/f/n", nil, "", unix.ENOTDIR},
		{"a/f", nil, "", unix.ENOTDIR},
		{"loop/n", nil, "", unix.ELOOP},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root, dir := tree(t)
			var made []string
			fd, err := MkdirAll(root, tt.name, 0o755, func(parent int, base string) error {
				made = append(made, base)
				var st unix.Stat_t
				return unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW)
			})
			if !errors.Is(err, tt.err) {
				t.Fatalf("got %v, want %v", err, tt.err)
			}
			if err != nil {
				return
			}
			defer unix.Close(fd)
			if strings.Join(made, " ") != strings.Join(tt.made, " ") {
				t.Errorf("made %q, want %q", made, tt.made)
			}
			var got, want unix.Stat_t
			if err := unix.Fstat(fd, &got); err != nil {
				t.Fatal(err)
			}
			if err := unix.Stat(filepath.Join(dir, tt.at), &want); err != nil ||
				got.Ino != want.Ino {
				t.Errorf("%s is not where it should be: %v", tt.at, err)
			}
		})
	}
}

// TestLinkLongPath links a file whose path is longer than PATH_MAX.
func TestLinkLongPath(t *testing.T) {
	root, _ := tree(t)
	name := strings.Repeat("n", 200)
	dir, path := root, ""
	for range 40 {
		if err := unix.Mkdirat(dir, name, 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := NoLinks(dir, name, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(next)
		dir, path = next, path+name+"/"
	}
	fd, err := unix.Openat(dir, "f", unix.O_CREAT|unix.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	for _, at := range []int{root, dir} {
		if err := Link(root, path+"f", at, "g"); err != nil {
			t.Fatal(err)
		}
	}
	var st unix.Stat_t
	if err := unix.Fstatat(root, "g", &st, 0); err != nil || st.Nlink != 3 {
		t.Errorf("the file has %d names, %v, want 3", st.Nlink, err)
	}
	for _, open := range []func(int, string, int, uint32) (int, error){InRoot, NoLinks} {
		fd, err := open(root, path+"g", unix.O_PATH, 0)
		if err != nil {
			t.Fatal(err)
		}
		var same unix.Stat_t
		if err := unix.Fstat(fd, &same); err != nil || same.Ino != st.Ino {
			t.Errorf("opened %d, %v, want %d", same.Ino, err, st.Ino)
		}
		unix.Close(fd)
		if _, err := open(root, path+strings.Repeat("x", 256), unix.O_PATH, 0); !errors.Is(err,
			unix.ENAMETOOLONG) {
			t.Errorf("a long name below: %v", err)
		}
	}
	// A single name cannot be split, so the kernel returns the error.
	if err := Link(root, strings.Repeat("x", 5000), dir, "h"); err != unix.ENAMETOOLONG {
		t.Errorf("a long name: %v", err)
	}
}

func TestMkdirAllStops(t *testing.T) {
	root, _ := tree(t)
	stop := errors.New("stop")
	if _, err := MkdirAll(root, "p/q", 0o755,
		func(int, string) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}

// FuzzMkdirAll checks that nothing outside the root changes, for any name.
func FuzzMkdirAll(f *testing.F) {
	for _, name := range []string{"a/b/c", "../x", "nowhere/../../y", "out/x", "/dirlink/./z//",
		"loop", "a\x00b", "...", strings.Repeat("d/", 100)} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		root, dir := tree(t)
		fd, err := MkdirAll(root, name, 0o755, nil)
		if err == nil {
			unix.Close(fd)
		}
		ents, err := os.ReadDir(filepath.Dir(dir))
		if err != nil || len(ents) != 2 {
			t.Errorf("MkdirAll(%q) made something outside: %v, %v", name, ents, err)
		}
	})
}

func BenchmarkInRoot(b *testing.B) {
	root, _ := tree(b)
	b.ReportAllocs()
	for b.Loop() {
		fd, err := InRoot(root, "dirlink/../f", unix.O_RDONLY, 0)
		if err != nil {
			b.Fatal(err)
		}
		unix.Close(fd)
	}
}
