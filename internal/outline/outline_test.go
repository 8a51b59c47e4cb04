package outline

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/diff"
	"github.com/layerbuild/layerbuild/internal/fstree"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/mount/mounttest"
)

// layer makes a layer of lines: a path that ends in a slash is a directory, "PATH -> TARGET" is a
// symbolic link, "PATH => TARGET" a hard link, "PATH | N" a fifo, and "PATH TEXT" a file. The
// entries have different times.
func layer(lines ...string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i, line := range lines {
		h := &tar.Header{Typeflag: tar.TypeReg, Mode: 0o640, ModTime: time.Unix(int64(1000+i), 0)}
		name, text, _ := strings.Cut(line, " ")
		h.Name = name
		switch {
		case strings.HasSuffix(name, "/"):
			h.Typeflag, h.Mode, text = tar.TypeDir, 0o750, ""
		case strings.HasPrefix(text, "-> "):
			h.Typeflag, h.Linkname, text = tar.TypeSymlink, text[3:], ""
		case strings.HasPrefix(text, "=> "):
			h.Typeflag, h.Linkname, text = tar.TypeLink, text[3:], ""
		case strings.HasPrefix(text, "|"):
			h.Typeflag, text = tar.TypeFifo, ""
		}
		h.Size = int64(len(text))
		w.WriteHeader(h)
		w.Write([]byte(text))
	}
	w.Close()
	return b.Bytes()
}

// unpacked unpacks layers as an image's are unpacked for an overlay, and returns a directory that
// shows them, and what is there.
func unpacked(t *testing.T, layers ...[]byte) (dir string, list []fstree.Entry, err error) {
	t.Helper()
	top, options := mounttest.TempDir(t), []string{"ro"}
	if mounttest.UserNS() {
		options = append(options, "userxattr")
	}
	empty := filepath.Join(top, "empty")
	for _, dir := range []string{empty, filepath.Join(top, "merged")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	lower := []string{empty}
	for i, l := range layers {
		dir := filepath.Join(top, fmt.Sprint(i))
		lower = append([]string{dir}, lower...)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		o := diff.ApplyOptions{UserXattr: mounttest.UserNS(),
			OnSkip: func(string, string, error) {}}
		applied, err := diff.Apply(t.Context(), bytes.NewReader(l), dir, o)
		if err == nil {
			err = diff.Inherit(t.Context(), diff.Tree{Dir: dir, Lower: lower[1:],
				UserXattr: o.UserXattr}, applied)
		}
		if err != nil {
			return "", nil, err
		}
	}
	dir = filepath.Join(top, "merged")
	if len(lower) == 1 {
		return dir, nil, nil
	}
	if err := mount.All([]mount.Mount{{Type: mount.Overlay, Lower: lower,
		Options: options}}, dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	text, err := fstree.Print(dir, fstree.Show{Owners: true, Times: true, Xattrs: true})
	if err == nil {
		list, err = fstree.Parse(text)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir, list, nil
}

// outlined returns the outline of layers.
func outlined(t *testing.T, layers ...[]byte) (*Builder, error) {
	t.Helper()
	var b Builder
	var r Reader
	for _, l := range layers {
		got, diffID, err := r.Read(t.Context(), bytes.NewReader(l))
		if err != nil {
			return nil, err
		}
		if want := digest.FromBytes(l); diffID != want && !bytes.HasPrefix(l, make([]byte, 512)) {
			t.Errorf("diffID %s, want %s", diffID, want)
		}
		if err := b.Add(got); err != nil {
			return nil, err
		}
	}
	return &b, b.Check()
}

// packed returns the tar of an outline.
func packed(t *testing.T, b *Builder) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := b.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// compare checks that an outline has the directories, symbolic links and users of the unpacked
// layers, and a list of all other files.
func compare(t *testing.T, outline *Builder, layers ...[]byte) {
	t.Helper()
	_, full, err := unpacked(t, layers...)
	if err != nil {
		t.Fatalf("layers with an outline cannot be unpacked: %v", err)
	}
	_, got, err := unpacked(t, packed(t, outline))
	if err != nil {
		t.Fatal(err)
	}
	var missing []string
	full = slices.DeleteFunc(full, func(e fstree.Entry) bool {
		if e.Type == fstree.Dir || e.Type == fstree.Link || slices.Contains(users, e.Path) {
			return false
		}
		missing = append(missing, e.Path)
		return true
	})
	if a, b := fstree.Format(got), fstree.Format(full); a != b {
		t.Errorf("the outline has\n%s\nunpacked there is\n%s", a, b)
	}
	f, err := Parse(outline.List())
	if err != nil {
		t.Fatal(err)
	}
	listed := slices.Sorted(maps.Keys(f.all("")))
	slices.Sort(missing)
	if !slices.Equal(listed, missing) {
		t.Errorf("the outline lists %q, and lacks %q", listed, missing)
	}
}

// all returns the paths of files.
func (f *Files) all(at string) map[string]bool {
	m := map[string]bool{}
	for name := range f.files {
		m[filepath.Join(at, name)] = true
	}
	for name, sub := range f.dirs {
		maps.Copy(m, sub.all(filepath.Join(at, name)))
	}
	return m
}

func TestBuilder(t *testing.T) {
	base := layer("./", "etc/", "etc/passwd root", "etc/hosts x", "usr/", "usr/bin/", "usr/bin/a 1",
		"usr/bin/b => usr/bin/a", "bin -> usr/bin", "run/", "run/f |")
	for _, test := range []struct {
		name   string
		layers [][]byte
		none   string // part of the error
	}{
		{"one layer", [][]byte{base}, ""},
		{"no layer", nil, ""},
		{"a file", [][]byte{base, layer("usr/", "usr/bin/", "usr/bin/a 2")}, ""},
		{"a parent without an entry", [][]byte{base, layer("usr/bin/c 2")}, ""},
		{"whiteouts", [][]byte{base, layer("usr/bin/.wh.a", ".wh.run", ".wh.none")}, ""},
		{"opaque", [][]byte{base, layer("usr/", "usr/.wh..wh..opq", "usr/lib/")}, ""},
		{"a directory again", [][]byte{base, layer(".wh.run", "usr/"), layer("run/")}, ""},
		{"a link in place of a directory", [][]byte{base, layer("run -> etc")}, ""},
		{"a file in place of a link", [][]byte{base, layer("bin x")}, ""},
		{"a directory in place of a file", [][]byte{base, layer("etc/hosts/")}, ""},
		{"other users", [][]byte{base, layer("etc/passwd x", "etc/group y")}, ""},
		{"two entries", [][]byte{layer("a 1", "a 2", "d/", "d/e/", "d/")}, ""},

		{"no parent", [][]byte{layer("a/b 1")}, `"a" is not in a layer`},
		{"through a link", [][]byte{base, layer("bin/c x")}, `"bin" is not in a layer`},
		{"users are a link", [][]byte{layer("etc/", "etc/group -> x")}, `"etc/group" is not a`},
		{"users are a hard link", [][]byte{layer("etc/", "x 1", "etc/group => x")}, `"etc/group"`},
		{"a link to a lower file", [][]byte{base, layer("c => usr/bin/a")}, "another layer"},
		{"removed and made", [][]byte{base, layer(".wh.run", "run/")}, "removed and made"},
		{"made and removed", [][]byte{base, layer("usr/", "usr/x 1", ".wh.usr")}, "of its layer"},
		{"late opaque mark", [][]byte{base, layer("usr/", "usr/x 1", "usr/.wh..wh..opq")},
			"follows"},
		{"two types", [][]byte{layer("a 1", "a/")}, "another file"},
		{"a directory over a link", [][]byte{base, layer("bin/")}, "another file"},
		{"opaque root", [][]byte{base, layer(".wh..wh..opq")}, "hides all"},
		{"opaque mark alone", [][]byte{base, layer("usr/.wh..wh..opq")}, "without an entry"},
		{"late opaque mark, an implied directory", [][]byte{base,
			layer("usr/", "usr/bin/x 1", "usr/.wh..wh..opq")}, "follows"},
		{"another name of a link", [][]byte{layer("a -> b", "c => a")}, "another name"},
		{"another name of the users", [][]byte{layer("etc/", "etc/passwd 1", "x => etc/passwd")},
			"another name"},
		{"the users are elsewhere", [][]byte{layer("usr/", "usr/passwd 1", "etc -> usr")},
			`"etc" is not a directory`},
		{"a link in place of a directory with a whiteout", [][]byte{base,
			layer("run/.wh.f", "run -> etc")}, "takes the place"},
		{"strange mark", [][]byte{layer(".wh..wh.x")}, "is not a whiteout"},
	} {
		t.Run(test.name, func(t *testing.T) {
			out, err := outlined(t, test.layers...)
			if test.none != "" {
				if !errors.Is(err, ErrNone) || !strings.Contains(fmt.Sprint(err), test.none) {
					t.Errorf("error %v, want %q", err, test.none)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			compare(t, out, test.layers...)
		})
	}
}

// TestLimits checks that layers that need much memory have no outline.
func TestLimits(t *testing.T) {
	const each = 1000
	many := make([]string, each)
	for i := range many {
		many[i] = fmt.Sprintf("f%d -> %s", i, strings.Repeat("x", 4000))
	}
	l := layer(many...)
	fits := maxMemory / (each * (entryMemory + 4004))
	var r Reader
	for i := range fits + 1 {
		_, diffID, err := r.Read(t.Context(), bytes.NewReader(l))
		if want := i == fits; errors.Is(err, ErrNone) != want || diffID != digest.FromBytes(l) {
			t.Errorf("layer %d: %s, %v", i, diffID, err)
		}
	}
	many = slices.Repeat([]string{"etc/passwd " + strings.Repeat("x", maxUsers)},
		maxMemory/maxUsers)
	for _, layers := range [][][]byte{
		{layer("etc/", "etc/passwd "+strings.Repeat("x", maxUsers+1))}, // one that is too large
		{layer(append([]string{"etc/"}, many...)...)},
	} {
		if _, err := outlined(t, layers...); !errors.Is(err, ErrNone) {
			t.Errorf("many users: error %v, want %v", err, ErrNone)
		}
	}
}

// TestTimes checks that layers with times that file systems limit have no outline.
func TestTimes(t *testing.T) {
	for sec, want := range map[int64]bool{-1: false, 0: true, maxTime: true, maxTime + 1: false} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "d", Format: tar.FormatPAX,
			ModTime: time.Unix(sec, 0)})
		w.Close()
		if _, err := outlined(t, b.Bytes()); (err == nil) != want {
			t.Errorf("time %d: error %v", sec, err)
		}
	}
}

// FuzzBuilder makes two layers of arbitrary entries with few names. If they have an outline,
// unpacking them succeeds, and the outline shows the result.
func FuzzBuilder(f *testing.F) {
	f.Add([]byte("\x05\x04\x00\x05\x41\x00\x00\x81\x00"), []byte("\x06\x04\x00\x05\x41\x00"))
	f.Add([]byte("\x05\x10\x00\x00\x11\x00"), []byte("\x07\x11\x00\x08\x11\x00\x05\x10\x00"))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		layers := [][]byte{arbitrary(first), arbitrary(second)}
		out, err := outlined(t, layers...)
		if errors.Is(err, ErrNone) {
			return
		}
		if err != nil {
			if _, _, unpacking := unpacked(t, layers...); unpacking == nil {
				t.Errorf("layers that can be unpacked: %v", err)
			}
			return
		}
		compare(t, out, layers...)
	})
}

// arbitrary makes a layer of bytes: three for each entry, its type, path and link.
func arbitrary(data []byte) []byte {
	name := func(b byte) string {
		parts := []string{"", "a", "b", "etc"}
		p := filepath.Join(parts[b>>6], parts[b>>4&3], parts[b>>2&3],
			[]string{"a", "passwd", "c", "."}[b&3])
		return p
	}
	var lines []string
	for len(data) >= 3 && len(lines) < 50 {
		path, link := name(data[1]), name(data[2])
		dir, base := filepath.Split(path)
		lines = append(lines, []string{path + " text", path + " -> " + link, path + " => " + link,
			path + "/", path + "/", path + "/", dir + ".wh." + base, dir + ".wh..wh..opq",
			path + " |"}[data[0]%9])
		data = data[3:]
	}
	return layer(lines...)
}
