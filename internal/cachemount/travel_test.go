package cachemount

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/lock"
	"github.com/layerbuild/layerbuild/parser"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// copies is a Copies that has a copy of one cache, or fails.
type copies struct {
	fetched int
	content string // of the file n; "": there is no copy
	place   string
	err     error
}

func (c *copies) Selects(id string) bool { return id == "id" }

func (c *copies) Fetch(_ context.Context, m Copy, dir string) (string, error) {
	c.fetched++
	if c.content != "" {
		if err := os.WriteFile(filepath.Join(dir, "n"), []byte(c.content), 0o644); err != nil {
			return "", err
		}
	}
	return c.place, c.err
}

// travelling returns a Store with copies, and a mount of a cache of linux/amd64.
func travelling(t *testing.T, top string, c *copies) (*Store, Mount) {
	t.Helper()
	s, mount := store(t, top, false)
	s.Copies = c
	m := mount(parser.SharingShared)
	m.Platform = "linux/amd64"
	return s, m
}

func TestFetched(t *testing.T) {
	for _, tt := range []struct {
		name, platform, id string
		c                  copies
		empty              bool
		fetched            int
		want               string
	}{
		{"a copy", "linux/amd64", "id", copies{content: "copy", place: "p"}, false, 1, "copy"},
		{"no copy", "linux/amd64", "id", copies{}, false, 1, "1"},
		{"a part of a copy", "linux/amd64", "id", copies{content: "part"}, false, 1, "1"},
		{"another id", "linux/amd64", "other", copies{content: "copy", place: "p"}, false, 0, "1"},
		{"no platform", "", "id", copies{content: "copy", place: "p"}, false, 0, "1"},
		{"--no-cache", "linux/amd64", "id", copies{content: "copy", place: "p"}, true, 0, "1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, m := travelling(t, t.TempDir(), &tt.c)
			m.Platform, m.ID, s.Empty = tt.platform, tt.id, tt.empty
			for range 2 {
				if got := content(t, s, m); got != tt.want || tt.c.fetched != tt.fetched {
					t.Errorf("content %q, fetched %d times; want %q, %d", got, tt.c.fetched,
						tt.want, tt.fetched)
				}
			}
		})
	}
}

func TestFetchCanceled(t *testing.T) {
	stop := errors.New("stop")
	c := &copies{content: "part", err: stop}
	s, m := travelling(t, t.TempDir(), c)
	l, err := s.Lock(t.Context(), []Mount{m})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Files(t.Context(), 0, m); !errors.Is(err, stop) {
		t.Errorf("Files: %v, want the error of Fetch", err)
	}
	l.Close()
	c.content, c.err = "copy", nil
	c.place = "p"
	if got := content(t, s, m); got != "copy" {
		t.Errorf("content %q after a fetch that was canceled", got)
	}
}

// TestFetchIntoEmpty checks that a cache whose files were all removed, or never made, is fetched,
// once in a build, unless another command uses it.
func TestFetchIntoEmpty(t *testing.T) {
	top := t.TempDir()
	before, m := travelling(t, top, nil)
	before.Copies = nil
	content(t, before, m)
	files := filepath.Join(top, m.Name, "fs")
	if err := os.Remove(filepath.Join(files, "n")); err != nil {
		t.Fatal(err)
	}
	user, err := before.Lock(t.Context(), []Mount{m})
	if err != nil {
		t.Fatal(err)
	}
	c := &copies{content: "copy", place: "p"}
	s, _ := travelling(t, top, c)
	l, err := s.Lock(t.Context(), []Mount{m})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Files(t.Context(), 0, m); err != nil || c.fetched != 0 {
		t.Errorf("fetched %d times while another command uses the cache; %v", c.fetched, err)
	}
	user.Close()
	l.Close()
	again, _ := travelling(t, top, c)
	if got := content(t, again, m); got != "copy" || c.fetched != 1 {
		t.Errorf("content %q, fetched %d times", got, c.fetched)
	}
}

// memory is an Ingester.
type memory struct{ bytes.Buffer }

func (m *memory) Ingest(_ context.Context, mediaType string,
	write func(io.Writer) error) (ocispec.Descriptor, error) {
	m.Reset()
	err := write(m)
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(m.Bytes()),
		Size: int64(m.Len())}, err
}

// hold returns the Hold of the only cache that s has used.
func hold(t *testing.T, s *Store) *Hold {
	t.Helper()
	used := s.Used()
	if len(used) != 1 {
		t.Fatalf("used: %v, want one cache", used)
	}
	h, err := s.Hold(t.Context(), used[0])
	if err != nil {
		t.Fatal(err)
	}
	if h != nil {
		t.Cleanup(func() { h.Close() })
	}
	return h
}

// TestCopied saves a cache: after it was made, not after it was fetched or saved, and again when it
// has changed.
func TestCopied(t *testing.T) {
	top := t.TempDir()
	c := &copies{}
	s, m := travelling(t, top, c)
	content(t, s, m)
	h := hold(t, s)
	if h.IsCopied("p") || h.Tree.Entries != 1 || h.Copy != (Copy{m.Name, "id", "linux/amd64"}) {
		t.Errorf("a new cache: %+v", h)
	}
	var archive memory
	layer, err := h.Seal(t.Context(), &archive)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(h.Close(), h.SetCopied("p")); err != nil {
		t.Fatal(err)
	}
	h = hold(t, s)
	if !h.IsCopied("p") || h.IsCopied("q") {
		t.Error("it is not noted where the cache was saved")
	}
	h.Close()
	if err := os.WriteFile(filepath.Join(top, m.Name, "fs", "more"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if h = hold(t, s); h.IsCopied("p") {
		t.Error("a changed cache counts as saved")
	}

	other, err := os.MkdirTemp(top, "unpacked")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Unpack(t.Context(), bytes.NewReader(archive.Bytes()), other, 1<<20)
	if err != nil || got != layer.DiffID || below(t, other) != "n" {
		t.Errorf("Unpack = %s, %v, want %s and one file", got, err, layer.DiffID)
	}
	second, _ := travelling(t, t.TempDir(), &copies{content: "copy", place: "p"})
	content(t, second, m)
	if h := hold(t, second); !h.IsCopied("p") || h.IsCopied("q") {
		t.Error("a fetched cache does not count as saved")
	}
}

// TestHoldInUse checks that a cache is not read while a command of another build uses it, and that
// no command uses it while it is read.
func TestHoldInUse(t *testing.T) {
	top := t.TempDir()
	s, m := travelling(t, top, &copies{})
	content(t, s, m)
	user, err := s.Lock(t.Context(), []Mount{m})
	if err != nil {
		t.Fatal(err)
	}
	if h := hold(t, s); h != nil {
		t.Error("a cache that a command uses is read")
	}
	user.Close()
	h := hold(t, s)
	if _, err := lock.Try(filepath.Join(top, m.Name, "lock"), false); !errors.Is(err,
		lock.ErrHeld) {
		t.Errorf("a command can use a cache that is read: %v", err)
	}
	if err := errors.Join(h.Close(), h.Close()); err != nil {
		t.Error(err)
	}
}

// TestPlatforms checks that the platforms of all commands that have used the files are known, also
// of those of builds without copies, until the files are removed.
func TestPlatforms(t *testing.T) {
	top := t.TempDir()
	earlier, m := travelling(t, top, nil)
	earlier.Copies = nil
	arm := m
	arm.Platform = "linux/arm64"
	content(t, earlier, arm)
	if used := earlier.Used(); len(used) > 0 {
		t.Errorf("used: %v", used)
	}
	s, _ := travelling(t, top, &copies{})
	content(t, s, m)
	content(t, s, m)
	h := hold(t, s)
	if want := []string{"linux/arm64", "linux/amd64"}; !slices.Equal(h.Platforms, want) {
		t.Errorf("platforms %q, want %q", h.Platforms, want)
	}
	h.Close()
	empty, _ := store(t, top, true)
	content(t, empty, m)
	if h := hold(t, s); !slices.Equal(h.Platforms, []string{"linux/amd64"}) {
		t.Errorf("platforms %q of new files", h.Platforms)
	}
}

// TestPrivateCopies checks that all directories of a private cache begin with the copy, and that
// one of them is saved.
func TestPrivateCopies(t *testing.T) {
	c := &copies{content: "copy", place: "p"}
	s, m := travelling(t, t.TempDir(), c)
	m.Sharing = parser.SharingPrivate
	for n := 1; n <= 2; n++ {
		l, err := s.Lock(t.Context(), []Mount{m})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if _, err := l.Files(t.Context(), 0, m); err != nil || c.fetched != n {
			t.Errorf("fetched %d times, %v", c.fetched, err)
		}
	}
	if used := s.Used(); len(used) != 1 {
		t.Errorf("used: %v", used)
	}
}

// TestDescribe changes a tree, and checks whether its digest changes.
func TestDescribe(t *testing.T) {
	at := time.Unix(1_000_000, 0)
	for _, tt := range []struct {
		name    string
		change  func(dir string) error
		changes bool
	}{
		{"nothing", func(string) error { return nil }, false},
		{"a read file", func(d string) error {
			return os.Chtimes(d+"/a", time.Now(), at)
		}, false},
		{"the time of a directory", func(d string) error {
			return os.Chtimes(d+"/dir", at, at.Add(time.Hour))
		}, false},
		{"a temporary file", func(d string) error {
			return errors.Join(os.WriteFile(d+"/t", nil, 0o644), os.Remove(d+"/t"))
		}, false},
		{"the time of a file", func(d string) error {
			return os.Chtimes(d+"/a", at, at.Add(1))
		}, true},
		{"a size", func(d string) error {
			return errors.Join(os.WriteFile(d+"/a", []byte("xy"), 0), os.Chtimes(d+"/a", at, at))
		}, true},
		{"a mode", func(d string) error { return os.Chmod(d+"/a", 0o600) }, true},
		{"the mode of the top", func(d string) error { return os.Chmod(d, 0o700) }, true},
		{"a new name", func(d string) error { return os.Rename(d+"/a", d+"/c") }, true},
		{"another directory", func(d string) error { return os.Rename(d+"/a", d+"/dir/a") }, true},
		{"a new directory", func(d string) error { return os.Mkdir(d+"/e", 0o755) }, true},
		{"a removed file", func(d string) error { return os.Remove(d + "/dir/b") }, true},
		{"another type", func(d string) error {
			return errors.Join(os.Remove(d+"/dir/b"), os.Mkdir(d+"/dir/b", 0o644))
		}, true},
		{"a copy in place of a hard link", func(d string) error {
			return errors.Join(os.Remove(d+"/hard"), os.WriteFile(d+"/hard", []byte("x"), 0o644),
				os.Chtimes(d+"/hard", at, at))
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(dir+"/a", []byte("x"), 0o644),
				os.Chtimes(dir+"/a", at, at), os.Mkdir(dir+"/dir", 0o755),
				os.WriteFile(dir+"/dir/b", make([]byte, 513), 0o644),
				os.Link(dir+"/a", dir+"/hard"), os.Symlink("a", dir+"/link")); err != nil {
				t.Fatal(err)
			}
			before, err := describe(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			if want := int64(512*6 + 512 + 1024); before.Entries != 5 || before.Size != want {
				t.Errorf("%+v, want 5 entries and %d bytes", before, want)
			}
			if err := tt.change(dir); err != nil {
				t.Fatal(err)
			}
			after, err := describe(t.Context(), dir)
			if err != nil || (before.Digest != after.Digest) != tt.changes {
				t.Errorf("the digests differ: %t, want %t; %v", before.Digest != after.Digest,
					tt.changes, err)
			}
		})
	}
}

// archive returns a tar, or the beginning of one.
func archive(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		h.Mode = 0o755
		data := []byte(nil)
		if h.Typeflag == tar.TypeReg {
			data = []byte("in")
			h.Size = int64(len(data))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestHostileArchives unpacks archives that someone has put into a cache.
func TestHostileArchives(t *testing.T) {
	file := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }
	link := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
	}
	hard := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}
	}
	device := func(kind byte, major, minor int64) tar.Header {
		return tar.Header{Typeflag: kind, Name: "d", Devmajor: major, Devminor: minor}
	}
	marked := func(h tar.Header, name, value string) tar.Header {
		h.PAXRecords = map[string]string{"SCHILY.xattr." + name: value}
		return h
	}
	for _, tt := range []struct {
		name string
		list []tar.Header
		err  string // a part of the error; "": none
		want string // the names in the directory: links lead to places in it; "*": any
	}{
		{"up", []tar.Header{file("../../out/new")}, "", "out out/new"},
		{"absolute", []tar.Header{file("OUT/new")}, "", "*"},
		{"a file through a link", []tar.Header{link("l", "OUT"), file("l/new")}, "", "*"},
		{"a file through a link upwards", []tar.Header{link("l", "../../out"), file("l/new")}, "",
			"l out out/new"},
		{"a file in place of a link", []tar.Header{link("l", "OUT/secret"), file("l")}, "", "l"},
		{"a hard link outside", []tar.Header{hard("l", "OUT/secret")}, "l", ""},
		{"a hard link upwards", []tar.Header{hard("l", "../../out/secret")}, "l", ""},
		{"a hard link through a link", []tar.Header{link("l", "OUT"), hard("h", "l/secret")}, "h",
			"l"},
		{"a hard link to a link", []tar.Header{link("l", "OUT/secret"), hard("h", "l")}, "", "h l"},
		{"a link", []tar.Header{link("l", "OUT/secret")}, "", "l"},
		{"the top is a link", []tar.Header{link(".", "OUT")}, "not a directory", ""},
		{"the top is a file", []tar.Header{file(".")}, "not a directory", ""},
		{"a whiteout", []tar.Header{file("a"), file(".wh.a")}, "", ".wh.a a"},
		{"a whiteout upwards", []tar.Header{file(".wh..."), file("a")}, "", ".wh... a"},
		{"an opaque mark", []tar.Header{file("a"), file(".wh..wh..opq")}, "", ".wh..wh..opq a"},
		{"a whiteout device", []tar.Header{device(tar.TypeChar, 0, 0)}, "a device", ""},
		{"a character device", []tar.Header{device(tar.TypeChar, 1, 3)}, "a device", ""},
		{"a block device", []tar.Header{device(tar.TypeBlock, 8, 0)}, "a device", ""},
		{"a fifo", []tar.Header{device(tar.TypeFifo, 0, 0)}, "", "d"},
		{"an attribute of the kernel", []tar.Header{marked(file("a"), "trusted.x", "y"),
			marked(file("b"), "security.selinux", "y"),
			marked(file("c"), "trusted.overlay.opaque", "y")}, "", "a b c"},
		{"an owner that does not exist", []tar.Header{{Typeflag: tar.TypeReg, Name: "a",
			Uid: 1 << 20, Gid: 1 << 20}}, "", "a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			top := t.TempDir()
			out, dir := filepath.Join(top, "out"), filepath.Join(top, "caches", "in")
			secret := filepath.Join(out, "secret")
			if err := errors.Join(os.MkdirAll(out, 0o755), os.MkdirAll(dir, 0o755),
				os.WriteFile(secret, []byte("secret"), 0o600)); err != nil {
				t.Fatal(err)
			}
			for i := range tt.list {
				h := &tt.list[i]
				h.Name = strings.ReplaceAll(h.Name, "OUT", out)
				h.Linkname = strings.ReplaceAll(h.Linkname, "OUT", out)
			}
			data := archive(t, tt.list...)
			got, err := Unpack(t.Context(), bytes.NewReader(data), dir, int64(len(data)))
			if (err == nil) != (tt.err == "") ||
				err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("Unpack: %v, want %q", err, tt.err)
			}
			if err == nil && got != digest.FromBytes(data) {
				t.Errorf("digest %s", got)
			}
			if names := below(t, dir); tt.want != "*" && names != tt.want {
				t.Errorf("in the directory: %q, want %q", names, tt.want)
			}
			if names := below(t, out); names != "secret" {
				t.Errorf("outside: %q", names)
			}
			if data, err := os.ReadFile(secret); err != nil || string(data) != "secret" {
				t.Errorf("the file outside is %q, %v", data, err)
			}
			if fi, err := os.Stat(secret); err != nil || fi.Mode() != 0o600 {
				t.Errorf("the file outside is %v, %v", fi, err)
			}
		})
	}
}

// below lists the names below a directory.
func below(t *testing.T, dir string) string {
	t.Helper()
	var names []string
	if err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if path != dir {
			names = append(names, path[len(dir)+1:])
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, " ")
}

// TestUnpackBroken unpacks archives that are too large, cut off or no archives.
func TestUnpackBroken(t *testing.T) {
	whole := archive(t, tar.Header{Typeflag: tar.TypeReg, Name: "a"})
	for _, tt := range []struct {
		name, err string
		data      []byte
		limit     int64
	}{
		{"whole", "", whole, int64(len(whole))},
		{"too large", fmt.Sprintf("more than %d bytes", len(whole)-1), whole, int64(len(whole)) - 1},
		{"cut off", "unexpected EOF", whole[:512], 1 << 20},
		{"no tar", "", []byte(strings.Repeat("no tar", 1000)), 1 << 20},
		{"no zstd", "", []byte("\x28\xb5\x2f\xfdno zstd"), 1 << 20},
		{"something behind the end", "more than", append(slices.Clone(whole),
			make([]byte, 1<<20)...), 1 << 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Unpack(t.Context(), bytes.NewReader(tt.data), t.TempDir(), tt.limit)
			if (err == nil) != (tt.name == "whole") ||
				err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("Unpack: %v, want %q", err, tt.err)
			}
		})
	}
}

// TestDevice checks that a device node in a cache is found: an archive with it could not be
// unpacked.
func TestDevice(t *testing.T) {
	dir := t.TempDir()
	if tree, err := describe(t.Context(), dir); err != nil || tree.Device != "" {
		t.Errorf("a directory without devices: %+v, %v", tree, err)
	}
	const null = 1<<8 | 3
	if err := syscall.Mknod(filepath.Join(dir, "null"), syscall.S_IFCHR|0o600, null); err != nil {
		t.Skip("making a device needs root: ", err)
	}
	if tree, err := describe(t.Context(), dir); err != nil || tree.Device != "null" {
		t.Errorf("a directory with a device: %+v, %v", tree, err)
	}
}
