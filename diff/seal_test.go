package diff

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"

	"github.com/layerbuild/layerbuild/internal/fstree"
	"github.com/layerbuild/layerbuild/internal/goldentest"
	"github.com/layerbuild/layerbuild/internal/mount/mounttest"
	"github.com/layerbuild/layerbuild/internal/unpack"
)

// memory is an Ingester that stores blobs in memory.
type memory struct {
	bytes.Buffer
	fail error // error of a write after a megabyte
}

func (m *memory) Write(p []byte) (int, error) {
	if m.fail != nil && m.Len() > 1<<20 {
		return 0, m.fail
	}
	return m.Buffer.Write(p)
}

func (m *memory) Ingest(_ context.Context, mediaType string,
	write func(io.Writer) error) (ocispec.Descriptor, error) {
	if err := write(m); err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(m.Bytes()),
		Size: int64(m.Len())}, nil
}

func sealed(t testing.TB, tree Tree, o Options) (Layer, []byte) {
	t.Helper()
	var m memory
	layer, err := Seal(context.Background(), &m, tree, o)
	if err != nil {
		t.Fatal(err)
	}
	return layer, m.Bytes()
}

// states are the states from which golden layers are made: a tree, and changes to it on an overlay.
var states = []struct{ name, before, upper, after string }{
	{
		name:  "first",
		after: "dir bin 0755 root:root @1\nfile bin/sh 0755 root:root @2 #!/bin/true\nlink bin/l 0777 root:root @3 -> sh\nhardlink bin/h => bin/sh\ndir tmp 1777 root:root @4\nfile big 0644 12:34 @5 [user.k=v] content\ndir bin 0755 root:root @1",
	},
	{
		name:   "changes",
		before: "file File1 0644 root:root @1 one\nfile File2 0644 root:root @1 two\nfile File3 0644 root:root @1 three\ndir d 0755 root:root @1\nfile d/a 0644 root:root @1\nfile d/b 0644 root:root @1\ndir d 0755 root:root @1",
		upper:  "file File1 0644 root:root @2 ONE\nwhiteout File2\nfile File4 4755 root:root @2 four\ndir d 0755 root:root @2\nopaque d\nfile d/c 0644 root:root @2\ndir d 0755 root:root @2",
		after:  "file File1 0644 root:root @2 ONE\nfile File3 0644 root:root @1 three\nfile File4 4755 root:root @2 four\ndir d 0755 root:root @2\nfile d/c 0644 root:root @2\ndir d 0755 root:root @2",
	},
	{
		name:  "odd names",
		after: "dir \"sp ace\" 0755 root:root @1\nfile \"sp ace/\\xff\\xfe\" 0644 root:root @1\nfile ünï 0644 root:root @1\ndir " + long + " 0755 root:root @1\nfile " + long + "/" + strings.Repeat("x", 101) + " 0644 root:root @99999999999 z\nlink l 0777 root:root @1 -> " + long + "/" + long + "\nfile ids 0644 65535:65535 @1\n" + dirs(long),
	},
}

var long = strings.Repeat("long/", 20) + "end"

// dirs returns the lines for a directory and all directories above it.
func dirs(path string) string {
	lines := ""
	for i, c := range path + "/" {
		if c == '/' {
			lines += "dir " + path[:i] + " 0755 root:root @1\n"
		}
	}
	return lines
}

// TestGolden compares the bytes of layers with golden files: as an overlay and as plain trees, with
// any number of cores, as root and in a user namespace.
func TestGolden(t *testing.T) {
	if os.Geteuid() != 0 || mounttest.Current() == mounttest.Single {
		t.Skip("owners need root or a user namespace with many ids")
	}
	const file = "golden.txt"
	var got strings.Builder
	for _, s := range states {
		top := mounttest.TempDir(t)
		make := fstree.Make
		if mounttest.UserNS() {
			make = fstree.MakeUser
		}
		dir := func(name, text string) string {
			d := mkdir(t, filepath.Join(top, name))
			if err := make(d, text); err != nil {
				t.Fatal(err)
			}
			return d
		}
		before, after := dir("before", s.before), dir("after", s.after)
		trees := map[string]Tree{"full": {Dir: after, Lower: []string{before}, Full: true}}
		if s.upper != "" {
			trees["overlay"] = Tree{Dir: dir("upper", s.upper), Lower: []string{before},
				UserXattr: mounttest.UserNS()}
		} else {
			trees["overlay"] = Tree{Dir: after, UserXattr: mounttest.UserNS()}
		}
		for _, compression := range []string{"none", "gzip", "zstd"} {
			var first Layer
			for _, procs := range []int{1, 2} {
				old := runtime.GOMAXPROCS(procs)
				for driver, tree := range trees {
					layer, blob := sealed(t, tree, Options{Compression: compression})
					if first.DiffID == "" {
						first = layer
						fmt.Fprintf(&got, "%s %s %s %s\n", s.name, compression, layer.DiffID,
							layer.Descriptor.Digest)
						checkStream(t, blob)
					}
					if d := cmp.Diff(first, layer); d != "" {
						t.Errorf("%s, %s, %s, %d cores: layer differs:\n%s", s.name,
							compression, driver, procs, d)
					}
				}
				runtime.GOMAXPROCS(old)
			}
		}
	}
	goldentest.Compare(t, file, got.String())
}

func TestGoldenInUserNamespace(t *testing.T) { mounttest.Again(t, mounttest.Range, "TestGolden") }

// checkStream reads a blob with the standard library and, if it is installed, with GNU tar, and
// compares the entries with the result of Entries.
func checkStream(t *testing.T, blob []byte) {
	t.Helper()
	z, _, err := unpack.Decompress(bytes.NewReader(blob))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	var ours, standard []string
	for e, err := range Entries(bytes.NewReader(data)) {
		if err != nil {
			t.Fatal(err)
		}
		ours = append(ours, fmt.Sprintf("%c %s %s %o %d:%d %d %d", e.Type, e.Path, e.Link, e.Mode,
			e.UID, e.GID, e.Size, e.ModTime.Unix()))
	}
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Clean(h.Name)
		if strings.HasSuffix(h.Name, "/") != (h.Typeflag == tar.TypeDir) ||
			strings.HasPrefix(h.Name, "/") {
			t.Errorf("name %q of type %c", h.Name, h.Typeflag)
		}
		standard = append(standard, fmt.Sprintf("%c %s %s %o %d:%d %d %d", h.Typeflag, name,
			h.Linkname, h.Mode, h.Uid, h.Gid, h.Size, h.ModTime.Unix()))
	}
	if d := cmp.Diff(standard, ours); d != "" {
		t.Errorf("archive/tar reads other entries (-its +ours):\n%s", d)
	}
	gnu, err := exec.LookPath("tar")
	if err != nil {
		return
	}
	cmd := exec.Command(gnu, "-t", "--quoting-style=literal")
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("tar: %v\n%s", err, out)
	}
	var theirs []string
	for line := range strings.Lines(string(out)) {
		theirs = append(theirs, strings.TrimRight(line, "/\n"))
	}
	for i, e := range standard {
		if i >= len(theirs) || !strings.Contains(e, theirs[i]) {
			t.Errorf("tar lists %q, want %q", theirs, standard)
			break
		}
	}
}

// TestSealLarge seals layers of many chunks, with every compression and with sparse files.
func TestSealLarge(t *testing.T) {
	defer goleak.VerifyNone(t)
	dir := t.TempDir()
	content := make([]byte, 5<<20+3)
	for i := range content {
		content[i] = byte(i * i >> 7)
	}
	if err := os.WriteFile(filepath.Join(dir, "big"), content, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("data"), 3<<20); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(6<<20 + 1); err != nil {
		t.Fatal(err)
	}
	for i := range 2000 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("small", i)),
			content[:i], 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree := Tree{Dir: dir}
	plain := write(t, tree, Options{})
	for _, compression := range []string{"gzip", "zstd", "none"} {
		layer, blob := sealed(t, tree, Options{Compression: compression})
		if want := digest.FromBytes(plain); layer.DiffID != want ||
			layer.Size != int64(len(plain)) || layer.Entries < 2002 {
			t.Errorf("%s: layer is %+v, want diffID %s, size %d", compression,
				layer, want, len(plain))
		}
		z, c, err := unpack.Decompress(bytes.NewReader(blob))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(z)
		z.Close()
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s (%s): the blob holds %d other bytes, %v", compression, c, len(got), err)
		}
	}
}

func TestSealErrors(t *testing.T) {
	defer goleak.VerifyNone(t)
	dir := t.TempDir()
	noise := make([]byte, 8<<20)
	for i, x := 0, uint32(1); i < len(noise); i++ {
		x = x*1664525 + 1013904223
		noise[i] = byte(x >> 24)
	}
	if err := os.WriteFile(filepath.Join(dir, "noise"), noise, 0o644); err != nil {
		t.Fatal(err)
	}
	full := errors.New("disk full")
	if _, err := Seal(context.Background(), &memory{fail: full}, Tree{Dir: dir},
		Options{}); !errors.Is(err, full) {
		t.Errorf("Seal = %v, want %v", err, full)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Seal(ctx, &memory{}, Tree{Dir: dir},
		Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Seal = %v, want %v", err, context.Canceled)
	}
	if _, err := Seal(context.Background(), &memory{}, Tree{Dir: dir + "/none"},
		Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Seal = %v, want %v", err, os.ErrNotExist)
	}
	if _, err := Seal(context.Background(), &memory{}, Tree{Dir: dir},
		Options{Compression: "lzma"}); err == nil {
		t.Error("lzma was taken")
	}
	if _, err := Seal(context.Background(), &memory{}, Tree{Dir: dir},
		Options{Level: 99}); err == nil {
		t.Error("gzip level 99 was taken")
	}
}

func TestApply(t *testing.T) {
	defer goleak.VerifyNone(t)
	needRoot(t)
	top := t.TempDir()
	const text = "dir d 0755 root:root @1\nfile d/f 4755 3:4 @2 content\nhardlink d/g => d/f\nlink l root:root @3 -> d\n"
	tree := Tree{Dir: mustMake(t, mkdir(t, top+"/from"), text+"dir d 0755 root:root @1")}
	for _, compression := range []string{"gzip", "zstd", "none"} {
		layer, blob := sealed(t, tree, Options{Compression: compression})
		// Bytes after the archive's end are part of the blob.
		to := mkdir(t, filepath.Join(top, compression))
		applied, err := Apply(context.Background(), bytes.NewReader(blob), to, ApplyOptions{})
		if err != nil {
			t.Fatal(err)
		}
		want := Applied{DiffID: layer.DiffID, Size: layer.Size, Entries: layer.Entries,
			Implied: []unpack.Implied{{Path: "."}}}
		if d := cmp.Diff(want, applied); d != "" {
			t.Errorf("%s: Applied differs (-want +got):\n%s", compression, d)
		}
		if got, err := DiffID(t.Context(), bytes.NewReader(blob)); got != layer.DiffID {
			t.Errorf("%s: DiffID = %s, %v, want %s", compression, got, err, layer.DiffID)
		}
		got, err := fstree.Print(to, fstree.Show{Owners: true, Times: true})
		if err != nil || got != text {
			t.Errorf("%s: tree is\n%s%v", compression, got, err)
		}
		if compression == "none" {
			continue
		}
		if _, err := Apply(context.Background(), bytes.NewReader(blob[:len(blob)-6]),
			mkdir(t, to+"2"), ApplyOptions{}); err == nil {
			t.Errorf("%s: a blob that was cut is applied without error", compression)
		}
		if _, err := DiffID(t.Context(), bytes.NewReader(blob[:len(blob)-6])); err == nil {
			t.Errorf("%s: a blob that was cut has a diffID", compression)
		}
	}
}

func TestApplyReadsToTheEnd(t *testing.T) {
	data := append(write(t, Tree{Dir: t.TempDir()}, Options{}), bytes.Repeat([]byte{0}, 3<<20)...)
	applied, err := Apply(context.Background(), bytes.NewReader(data), t.TempDir(), ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if want := digest.NewDigestFromBytes(digest.SHA256, sum(data)); applied.DiffID != want ||
		applied.Size != int64(len(data)) {
		t.Errorf("Apply = %+v, want %s of %d bytes", applied, want, len(data))
	}
	if got, err := DiffID(t.Context(), bytes.NewReader(data)); got != applied.DiffID {
		t.Errorf("DiffID = %s, %v, want %s", got, err, applied.DiffID)
	}
	if _, err := DiffID(t.Context(), strings.NewReader("no tar\n")); err == nil {
		t.Error("a text has a diffID")
	}
}

func sum(b []byte) []byte {
	s := sha256.Sum256(b)
	return s[:]
}

// broken returns an error in the middle of a stream.
type broken struct{ left int }

var errBroken = errors.New("connection reset")

func (b *broken) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errBroken
	}
	n := min(len(p), b.left)
	clear(p[:n])
	b.left -= n
	return n, nil
}

func TestApplyPassesErrorsOn(t *testing.T) {
	defer goleak.VerifyNone(t)
	header := write(t, Tree{Dir: mustMake(t, t.TempDir(), "file f 0644 x")}, Options{})
	copy(header[124:], "77777777777") // a file of 8 GB
	for _, at := range []int{0, 100 << 10, 1 << 20, 5 << 20} {
		h := bytes.Clone(header[:512])
		fixChecksum(h)
		r := io.MultiReader(bytes.NewReader(h), &broken{at})
		o := ApplyOptions{OnOwnerError: func(string, int, int, error) {}}
		if _, err := Apply(context.Background(), r, t.TempDir(), o); !errors.Is(err, errBroken) {
			t.Errorf("after %d bytes: Apply = %v, want %v", at, err, errBroken)
		}
	}
}

func fixChecksum(h []byte) {
	copy(h[148:], "        ")
	n := 0
	for _, c := range h {
		n += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", n))
}

func TestInherit(t *testing.T) {
	needRoot(t)
	top := t.TempDir()
	lower := mustMake(t, mkdir(t, top+"/lower"),
		"dir . 0711 1:2 @3\ndir tmp 1777 5:6 @7 [user.k=v]\nfile tmp/x 0600\nlink lib -> usr/lib\ndir tmp/deep 0700 8:9 @10\ndir hidden 0700 1:1 @1\ndir hidden/sub 0700 1:1 @1\ndir tmp 1777 5:6 @7")
	tree := Tree{Dir: mkdir(t, top+"/upper"), Lower: []string{lower}}
	layer := tarOf(t, "tmp/deep/new", "void/.wh.a", "void/deep/.wh.b", "fresh/f", "fresh/.wh.gone",
		"tmp/.wh.x", "hidden/.wh..wh..opq", "hidden/.wh.other", "hidden/sub/f")
	applied, err := Apply(context.Background(), bytes.NewReader(layer), tree.Dir, ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if want := []unpack.Implied{{Path: "."}, {Path: "fresh"}, {Path: "hidden"},
		{Path: "hidden/sub", New: true}, {Path: "tmp"}, {Path: "tmp/deep"},
		{Path: "void", Bare: true}, {Path: "void/deep", Bare: true}}; !slices.Equal(applied.Implied,
		want) {
		t.Errorf("Implied = %+v, want %+v", applied.Implied, want)
	}
	if err := Inherit(t.Context(), tree, applied); err != nil {
		t.Fatal(err)
	}
	got, err := fstree.Print(tree.Dir, fstree.Show{Owners: true, Xattrs: true, Root: true})
	if err != nil {
		t.Fatal(err)
	}
	want := "dir . 0711 1:2\ndir fresh 0755 root:root\nfile fresh/f 0644 root:root\ndir hidden 0700 1:1\nopaque hidden\ndir hidden/sub 0755 root:root\nfile hidden/sub/f 0644 root:root\ndir tmp 1777 5:6 [user.k=v]\ndir tmp/deep 0700 8:9\nfile tmp/deep/new 0644 root:root\nwhiteout tmp/x\n"
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("tree differs (-want +got):\n%s", d)
	}
	// A whiteout in a directory that a later entry has replaced.
	replaced := Tree{Dir: mkdir(t, top+"/replaced"), Lower: []string{lower}}
	applied, err = Apply(context.Background(), bytes.NewReader(tarOf(t, "tmp/.wh.x",
		"tmp/deep/.wh.y", "tmp")), replaced.Dir, ApplyOptions{})
	if err == nil {
		err = Inherit(t.Context(), replaced, applied)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, err = fstree.Print(replaced.Dir, fstree.Show{}); err != nil ||
		got != "file tmp 0644\n" {
		t.Errorf("a directory that was replaced is\n%s%v", got, err)
	}
	// Without a parent no whiteout hides a file.
	alone := Tree{Dir: mkdir(t, top+"/alone")}
	applied, err = Apply(context.Background(), bytes.NewReader(tarOf(t, ".wh.a", "d/.wh.b", "d/f")),
		alone.Dir, ApplyOptions{})
	if err == nil {
		err = Inherit(t.Context(), alone, applied)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, err = fstree.Print(alone.Dir, fstree.Show{}); err != nil ||
		got != "dir d 0755\nfile d/f 0644\n" {
		t.Errorf("a layer on nothing is\n%s%v", got, err)
	}
	through := Tree{Dir: mkdir(t, top+"/through"), Lower: []string{lower}}
	applied, err = Apply(context.Background(), bytes.NewReader(tarOf(t, "lib/x/y")),
		through.Dir, ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := Inherit(t.Context(), through, applied); !errors.Is(err, ErrNeedsParent) {
		t.Errorf("Inherit = %v, want %v", err, ErrNeedsParent)
	}
}

// tarOf returns a layer of empty files without entries for directories, like those of some
// builders.
func tarOf(t *testing.T, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, n := range names {
		if err := w.WriteHeader(&tar.Header{Name: n, Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	return b.Bytes()
}

// FuzzEntries reads random input, and writes the entries that it has read as a new archive.
func FuzzEntries(f *testing.F) {
	f.Add(write(f, Tree{Dir: mustMake(f, f.TempDir(),
		"dir d 0755\nfile d/f 0644 content\nlink l -> d\nhardlink h => d/f\nfifo p 0600")},
		Options{}))
	f.Add(make([]byte, 1024))
	f.Fuzz(func(t *testing.T, data []byte) {
		for e, err := range Entries(bytes.NewReader(data)) {
			if err != nil {
				return
			}
			if e.Path == "" || strings.HasPrefix(e.Path, "/") ||
				slices.Contains(strings.Split(e.Path, "/"), "..") {
				t.Errorf("path %q", e.Path)
			}
			n, err := io.Copy(io.Discard, io.LimitReader(e.Content, 1<<20))
			if err == nil && n != min(e.Size, 1<<20) {
				t.Errorf("%q has %d bytes, says %d", e.Path, n, e.Size)
			}
		}
	})
}
