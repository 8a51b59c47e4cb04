package diff

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/fstree"
	"github.com/layerbuild/layerbuild/internal/mount/mounttest"
	"github.com/layerbuild/layerbuild/internal/unpack"
)

// describe returns a layer's entries in the notation of fstree, with a line "- NAME" for a
// whiteout.
func describe(t testing.TB, layer []byte) string {
	t.Helper()
	var b strings.Builder
	for e, err := range Entries(bytes.NewReader(layer)) {
		if err != nil {
			t.Fatal(err)
		}
		f := fstree.Entry{Path: e.Path, Mode: e.Mode, HasMode: true, UID: fstree.Unset,
			GID: fstree.Unset, MTime: fstree.Unset, Xattrs: e.Xattrs}
		i := strings.LastIndexByte(e.Path, '/')
		if base := e.Path[i+1:]; strings.HasPrefix(base, unpack.WhiteoutPrefix) {
			fmt.Fprintf(&b, "- %s\n", e.Path)
			continue
		}
		switch e.Type {
		case unpack.TypeDir:
			f.Type = fstree.Dir
		case unpack.TypeFile:
			f.Type = fstree.File
			var c bytes.Buffer
			if _, err := c.ReadFrom(e.Content); err != nil {
				t.Fatal(err)
			}
			f.Content = c.String()
		case unpack.TypeSymlink:
			f.Type, f.Target, f.HasMode = fstree.Link, e.Link, false
		case unpack.TypeHardlink:
			f.Type, f.Target, f.HasMode = fstree.Hardlink, e.Link, false
		case unpack.TypeChar:
			f.Type, f.Major, f.Minor = fstree.Char, e.Major, e.Minor
		case unpack.TypeBlock:
			f.Type, f.Major, f.Minor = fstree.Block, e.Major, e.Minor
		case unpack.TypeFifo:
			f.Type = fstree.Fifo
		}
		b.WriteString(short(f.String() + "\n"))
	}
	return b.String()
}

// short shortens a long line but keeps it comparable.
func short(line string) string {
	if len(line) < 400 {
		return line
	}
	return fmt.Sprintf("%s… (%d bytes, %x)\n", line[:300], len(line), sha256.Sum256([]byte(line)))
}

func write(t testing.TB, tree Tree, o Options) []byte {
	t.Helper()
	var b bytes.Buffer
	stats, err := Write(context.Background(), &b, tree, o)
	if err != nil {
		t.Fatal(err)
	}
	if stats.Size != int64(b.Len()) {
		t.Errorf("Stats.Size = %d, want %d", stats.Size, b.Len())
	}
	return b.Bytes()
}

func mustMake(t testing.TB, dir, text string) string {
	t.Helper()
	if err := fstree.Make(dir, text); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestWriteUpper makes overlay directories by hand, the upper one and those below, and compares the
// layers that are written for them.
func TestWriteUpper(t *testing.T) {
	needRoot(t)
	const file = " 0644 root:root @100 "
	const dir = " 0755 root:root @100"
	for _, test := range []struct {
		name, upper, want string
		lower             []string // top first
		opaque            string
	}{
		{
			name: "edit, delete, add",
			lower: []string{"file File1" + file + "one\nfile File2" + file +
				"two\nfile File3" + file + "three"},
			upper: "file File1" + file + "ONE\nwhiteout File2\nfile File4" + file + "four",
			want:  "- .wh.File2\nfile File1 0644 ONE\nfile File4 0644 four\n",
		},
		{
			name: "parents of what has changed are listed, others are not",
			lower: []string{"dir a" + dir + "\ndir a/b" + dir + "\ndir c" + dir +
				"\nfile c/f" + file},
			upper: "dir a" + dir + "\ndir a/b" + dir + "\nfile a/b/f" + file + "\ndir a/b" + dir +
				"\ndir c" + dir + "\nfile c/f" + file,
			want: "dir a 0755\ndir a/b 0755\nfile a/b/f 0644\n",
		},
		{
			name: "copied up and not changed",
			lower: []string{"dir d" + dir + "\nfile d/f" + file +
				"x\nlink d/l 0777 root:root @100 -> f\nfifo d/p" + file},
			upper: "dir d" + dir + "\nfile d/f" + file +
				"x\nlink d/l 0777 root:root @100 -> f\nfifo d/p" + file + "\ndir d" + dir,
			want: "",
		},
		{
			name:  "same size and time, other content",
			lower: []string{"file f" + file + "x"},
			upper: "file f" + file + "y",
			want:  "file f 0644 y\n",
		},
		{
			name: "mode, owner, time, attribute",
			lower: []string{"file a" + file + "\nfile b" + file + "\nfile c" + file + "\nfile d" +
				file + "\nfile e" + file},
			upper: "file a 0600 root:root @100\nfile b 0644 root:1 @100\nfile c 0644 root:root @101\nfile d 0644 root:root @100 [user.k=v]\nfile e" + file,
			want:  "file a 0600\nfile b 0644\nfile c 0644\nfile d 0644 [user.k=v]\n",
		},
		{
			name:  "directory replaced",
			lower: []string{"dir d" + dir + "\nfile d/old1" + file + "\nfile d/old2" + file},
			upper: "dir d" + dir + "\nopaque d\nfile d/new" + file + "\ndir d" + dir,
			want:  "dir d 0755\n- d/.wh..wh..opq\nfile d/new 0644\n",
		},
		{
			name:  "all names removed one by one are the same as a directory replaced",
			lower: []string{"dir d" + dir + "\nfile d/old1" + file + "\nfile d/old2" + file},
			upper: "dir d" + dir + "\nwhiteout d/old1\nwhiteout d/old2\nfile d/new" +
				file + "\ndir d" + dir,
			want: "dir d 0755\n- d/.wh..wh..opq\nfile d/new 0644\n",
		},
		{
			name: "directory replaced by one that has some of the same",
			lower: []string{"dir d" + dir + "\nfile d/a" + file + "\nfile d/b" + file +
				"\nfile d/c" + file},
			upper: "dir d" + dir + "\nopaque d\nfile d/a" + file + "\nfile d/b" +
				file + "new\ndir d" + dir,
			want: "dir d 0755\n- d/.wh.c\nfile d/b 0644 new\n",
		},
		{
			name: "what is below an opaque directory hides as well",
			lower: []string{"dir d" + dir + "\ndir d/s" + dir + "\ndir d/s/t" + dir +
				"\nfile d/s/x" + file + "\nfile d/s/t/y" + file + "\nfile d/s/t/z" + file},
			upper: "dir d" + dir + "\nopaque d\ndir d/s" + dir + "\ndir d/s/t" + dir +
				"\nfile d/s/t/y" + file + "\ndir d/s/t" + dir + "\ndir d/s" + dir + "\ndir d" + dir,
			want: "dir d 0755\ndir d/s 0755\n- d/s/.wh.x\ndir d/s/t 0755\n- d/s/t/.wh.z\n",
		},
		{
			name: "a directory below an opaque one whose names are all removed",
			lower: []string{"dir d" + dir + "\ndir d/s" + dir + "\ndir d/s/t" + dir +
				"\nfile d/s/t/y" + file + "\nfile d/s/t/z" + file},
			upper: "dir d" + dir + "\nopaque d\ndir d/s" + dir + "\ndir d/s/t" + dir +
				"\nfile d/s/t/new" + file + "\ndir d/s/t" + dir + "\ndir d/s" +
				dir + "\ndir d" + dir,
			want: "dir d 0755\ndir d/s 0755\ndir d/s/t 0755\n- d/s/t/.wh..wh..opq\nfile d/s/t/new 0644\n",
		},
		{
			name: "a directory below an opaque one, and an opaque one in the layers below",
			lower: []string{
				"dir d" + dir + "\nopaque d\ndir d/s" + dir + "\nfile d/s/middle" + file +
					"\ndir d/s" + dir + "\ndir d" + dir,
				"dir d" + dir + "\ndir d/s" + dir + "\nfile d/s/bottom" + file,
			},
			upper: "dir d" + dir + "\nopaque d\ndir d/s" + dir + "\ndir d" + dir,
			want:  "dir d 0755\ndir d/s 0755\n- d/s/.wh.middle\n",
		},
		{
			name:  "marks of other drivers mean nothing",
			lower: []string{"dir d" + dir + "\nfile d/a" + file + "\nfile d/b" + file},
			upper: "dir d 0755 root:root @100 [user.fuseoverlayfs.opaque=y] [user.overlay.opaque=y]\nfile d/new" + file + "\ndir d" + dir,
			want:  "dir d 0755\nfile d/new 0644\n",
		},
		{
			name:  "the only name of a directory removed",
			lower: []string{"dir d" + dir + "\nfile d/a" + file},
			upper: "dir d" + dir + "\nwhiteout d/a\ndir d" + dir,
			want:  "dir d 0755\n- d/.wh.a\n",
		},
		{
			name:  "whiteout of nothing, whiteout below a new directory",
			lower: []string{"file f" + file},
			upper: "whiteout x\ndir n" + dir + "\nwhiteout n/x",
			want:  "dir n 0755\n",
		},
		{
			name: "types replaced",
			lower: []string{"dir d" + dir + "\nfile d/x" + file + "\nfile f" +
				file + "\nlink l -> d"},
			upper: "file d" + file + "\ndir f" + dir + "\nfile f/y" + file + "\ndir f" + dir +
				"\ndir l" + dir + "\nfile l/z" + file,
			want: "file d 0644\ndir f 0755\nfile f/y 0644\ndir l 0755\nfile l/z 0644\n",
		},
		{
			name: "several lower directories, an opaque and a removed one among them",
			lower: []string{
				"whiteout gone\ndir d" + dir + "\nopaque d\nfile d/middle" + file,
				"file gone" + file + "\ndir d" + dir + "\nfile d/bottom" + file,
			},
			upper: "file gone" + file + "\ndir d" + dir + "\nwhiteout d/bottom\nfile d/middle" +
				file + "\ndir d" + dir,
			want: "file gone 0644\n",
		},
		{
			name:  "new hard link to an old file",
			lower: []string{"file old" + file + "text"},
			upper: "file old" + file + "text\nhardlink new => old",
			want:  "file new 0644 text\nhardlink old => new\n",
		},
		{
			name:  "hard links copied up together and not changed",
			lower: []string{"file a" + file + "text\nhardlink b => a"},
			upper: "file a" + file + "text\nhardlink b => a",
			want:  "",
		},
		{
			name:  "a hard link broken",
			lower: []string{"file a" + file + "text\nhardlink b => a"},
			upper: "file a" + file + "text",
			want:  "file a 0644 text\n",
		},
		{
			name:  "names divided between two files, of which one has a new name",
			lower: []string{"file a" + file + "text\nhardlink b => a"},
			upper: "file a" + file + "text\nhardlink c => a\nfile b" + file + "text",
			want:  "file a 0644 text\nhardlink c => a\n",
		},
		{
			name: "names divided between three equal files",
			lower: []string{"file a" + file +
				"text\nhardlink b => a\nhardlink c => a\nhardlink d => a"},
			upper: "file a" + file + "text\nfile b" + file +
				"text\nhardlink d => b\nfile c" + file + "text",
			want: "file b 0644 text\nfile c 0644 text\nhardlink d => b\n",
		},
		{
			name:  "one of two hard links removed",
			lower: []string{"file a" + file + "text\nhardlink b => a"},
			upper: "file a" + file + "text\nwhiteout b",
			want:  "- .wh.b\n",
		},
		{
			name:  "two equal files linked",
			lower: []string{"file a" + file + "text\nfile b" + file + "text"},
			upper: "file a" + file + "text\nhardlink b => a",
			want:  "file a 0644 text\nhardlink b => a\n",
		},
		{
			name:  "devices, fifo, socket",
			lower: []string{"socket was" + file + "\nfile s" + file},
			upper: "char c 0620 root:root @100 1:3\nblock b 0660 root:root @100 8:1\nfifo p 0600 root:root @100\nsocket s" + file + "\nwhiteout was",
			want:  "- .wh.s\nblock b 0660 8:1\nchar c 0620 1:3\nfifo p 0600\n",
		},
		{
			name:  "attributes of the host and of overlay",
			lower: []string{""},
			upper: "file f" + file + "\ndir d 0755 root:root @100 [trusted.overlay.impure=y] [trusted.x=y] [user.overlay.opaque=y]",
			want:  "dir d 0755\nfile f 0644\n",
		},
		{
			name:  "whiteouts as files with an attribute",
			lower: []string{"dir d" + dir + "\nfile d/a" + file + "\nfile d/b" + file},
			upper: "dir d 0755 root:root @100 [trusted.overlay.opaque=x]\nfile d/a 0644 [trusted.overlay.whiteout=y]\ndir d" + dir,
			want:  "dir d 0755\n- d/.wh.a\n",
		},
		{
			name:  "reserved names",
			lower: []string{"file x" + file},
			upper: "file .wh.x" + file + "\nfile y" + file,
			want:  "file y 0644\n",
		},
		{
			name:  "the root",
			lower: []string{"dir . 0755 root:root @100"},
			upper: "dir . 0700 root:root @100",
			want:  "dir . 0700\n",
		},
		{
			name:  "order",
			lower: nil,
			upper: "file a.b" + file + "\ndir a" + dir + "\nfile a/z" + file + "\nfile a-b" +
				file + "\nfile B" + file,
			want: "file B 0644\ndir a 0755\nfile a/z 0644\nfile a-b 0644\nfile a.b 0644\n",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			top := t.TempDir()
			tree := Tree{Dir: mustMake(t, mkdir(t, top+"/upper"), test.upper)}
			for i, text := range test.lower {
				tree.Lower = append(tree.Lower, mustMake(t,
					mkdir(t, fmt.Sprintf("%s/%d", top, i)), text))
			}
			got := describe(t, write(t, tree, Options{}))
			if d := cmp.Diff(test.want, got); d != "" {
				t.Errorf("layer differs (-want +got):\n%s", d)
			}
		})
	}
}

func mkdir(t testing.TB, dir string) string {
	t.Helper()
	// whatever the umask
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 || mounttest.UserNS() {
		t.Skip("whiteouts, owners and trusted attributes need root")
	}
}

// TestWriteUnrecorded writes attributes whose names a PAX record cannot hold. They are left out,
// with a warning for files that are in the layer, and do not count as changes.
func TestWriteUnrecorded(t *testing.T) {
	needRoot(t)
	top := t.TempDir()
	tree := Tree{Dir: mkdir(t, top+"/u"), Lower: []string{mustMake(t, mkdir(t, top+"/l"),
		"file same 0644 root:root @5 x")}}
	mustMake(t, tree.Dir, "file same 0644 root:root @5 x\nfile f 0644\ndir d\nfifo p 0644")
	for _, name := range []string{"same", "f", "d", "."} {
		if err := unix.Lsetxattr(tree.Dir+"/"+name, "user.a=b", []byte("v"), 0); err != nil {
			t.Skip(err)
		}
	}
	if err := unix.Chmod(tree.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var warned []string
	layer := write(t, tree, Options{Warn: func(path, _ string) { warned = append(warned, path) }})
	if got, want := describe(t, layer),
		"dir . 0700\ndir d 0755\nfile f 0644\nfifo p 0644\n"; got != want {
		t.Errorf("layer is\n%swant\n%s", got, want)
	}
	if want := []string{".", "d", "f"}; !slices.Equal(warned, want) {
		t.Errorf("warned of %q, want %q", warned, want)
	}
}

// TestWriteFullWhiteout writes files that a command can make on a driver that stores whole trees: a
// device that overlay would interpret as a whiteout, and names that a layer would interpret as
// whiteouts.
func TestWriteFullWhiteout(t *testing.T) {
	needRoot(t)
	dir := mustMake(t, mkdir(t, t.TempDir()+"/t"),
		"whiteout x\nfile .wh.y 0644\nfile d/.wh..wh..opq 0644\nfile z 0644")
	var warned []string
	layer := write(t, Tree{Dir: dir, Full: true},
		Options{Warn: func(path, _ string) { warned = append(warned, path) }})
	if got, want := describe(t, layer), "dir d 0755\nfile z 0644\n"; got != want {
		t.Errorf("layer is\n%swant\n%s", got, want)
	}
	if want := []string{".wh.y", "x", "d/.wh..wh..opq"}; !slices.Equal(warned, want) {
		t.Errorf("warned of %q, want %q", warned, want)
	}
}

// TestWarnOnce writes a first state with files that no layer can hold, and a second state in which
// everything else has changed. Only the first layer has warnings about these files. New ones in the
// second state have their own warnings.
func TestWarnOnce(t *testing.T) {
	needRoot(t)
	attribute := func(dir string, names ...string) {
		for _, name := range names {
			if err := unix.Lsetxattr(dir+"/"+name, "user.a=b", []byte("v"), 0); err != nil {
				t.Skip(err)
			}
		}
	}
	const state = "dir d 0755 root:root @5\nfile d/.wh.f 0644 root:root @5 x\nfile f 0644 root:root @5 %s\nfifo p %s root:root @5\n%sdir d 0755 root:root @5\n"
	for _, full := range []bool{false, true} {
		top := t.TempDir()
		first := mustMake(t, mkdir(t, top+"/1"),
			fmt.Sprintf(state, "x", "0644", "file d/other 0644 root:root @5\n"))
		second := "dir d 0755 root:root @5\nfile d/new 0644 root:root @5\nfile .wh.new 0644\nfile f 0644 root:root @5 y\nfifo p 0600 root:root @5\ndir d 0755 root:root @5\n"
		want := []string{".wh.new", "d/new"}
		if full {
			whiteout := "char x 0000 root:root @5 0:0\n"
			mustMake(t, first, whiteout)
			second = fmt.Sprintf(state, "y", "0600", "file d/new 0644 root:root @5\n"+
				"file .wh.new 0644\ndir d 0755 root:root @5\n") + whiteout
		}
		tree := Tree{Dir: mustMake(t, mkdir(t, top+"/2"), second),
			Lower: []string{first}, Full: full}
		attribute(first, ".", "d", "f")
		attribute(tree.Dir, ".", "d", "f", "d/new")
		if err := unix.Chmod(tree.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		var warned []string
		o := Options{Warn: func(path, _ string) { warned = append(warned, path) }}
		write(t, Tree{Dir: first, Full: full}, o)
		if len(warned) < 3 {
			t.Errorf("full=%t: the first layer warned of %q only", full, warned)
		}
		warned = nil
		write(t, tree, o)
		if !slices.Equal(warned, want) {
			t.Errorf("full=%t: warned of %q, want %q", full, warned, want)
		}
	}
}

// TestWriteWhatNoLayerHolds removes and replaces files that no layer can hold. A machine that
// unpacked the old state from layers does not have these files, and must write the same layer.
func TestWriteWhatNoLayerHolds(t *testing.T) {
	needRoot(t)
	for _, test := range []struct{ name, kind, base string }{
		{"socket", "socket %s 0755", "s"}, {"reserved name", "file %s 0644 x", ".wh.s"},
		{"reserved directory", "dir %s 0755", ".wh.s"},
		{"reserved device", "char %s 0644 1:3", ".wh.s"},
		{"mark of a removed file", "whiteout %s", "s"},
	} {
		for _, next := range []string{"", "file d/s 0644 root:root @7 new",
			"dir d/s 0755 root:root @7", "file d/b 0644 root:root @7 other", "gone"} {
			t.Run(test.name+" "+next, func(t *testing.T) {
				const state = "dir e 0755 root:root @5\ndir d 0755 root:root @5\n"
				thing := fmt.Sprintf(test.kind, "d/"+test.base) + "\n" +
					fmt.Sprintf(test.kind, "e/"+test.base) + "\n"
				after := "dir e 0755 root:root @5\n"
				if next != "gone" {
					after += "dir d 0755 root:root @5\n" + next + "\ndir d 0755 root:root @5\n"
				}
				marks := "whiteout e/" + test.base + "\n"
				switch {
				case next == "gone":
					marks += "whiteout d\n"
				case !strings.HasPrefix(next, "file d/"+test.base) &&
					!strings.HasPrefix(next, "dir d/"+test.base):
					marks += "whiteout d/" + test.base + "\n"
				}
				top := t.TempDir()
				make := func(name, text string) string {
					return mustMake(t, mkdir(t, top+"/"+name), text)
				}
				local := make("local", "file d/a 0644 root:root @5 a\n"+thing+state)
				other := make("other", "file d/a 0644 root:root @5 a\n"+state)
				bare := make("bare", "file d/a 0644 root:root @5 a\n"+state)
				if next == "gone" {
					bare = other
				}
				kept := "file d/a 0644 root:root @5 a\n"
				if next == "gone" {
					kept = ""
				}
				whole := make("whole", kept+after)
				var warned []string
				o := Options{Warn: func(path, problem string) {
					warned = append(warned, path+": "+problem)
				}}
				want := describe(t, write(t, Tree{Dir: whole, Lower: []string{bare}, Full: true},
					o))
				for what, tree := range map[string]Tree{
					"copies here": {Dir: whole, Lower: []string{local}, Full: true},
					"overlay here": {Dir: make("upper", after+marks+after),
						Lower: []string{local}},
					"overlay on another": {Dir: make("upper2",
						after+strings.ReplaceAll(marks, "whiteout e/"+test.base+"\n", "")+after),
						Lower: []string{other}},
				} {
					if got := describe(t, write(t, tree, o)); got != want {
						t.Errorf("%s: layer is\n%swant\n%s", what, got, want)
					}
				}
				if len(warned) > 0 {
					t.Errorf("warned of what is not there any more: %q", warned)
				}
			})
		}
	}
}

func TestWriteOptions(t *testing.T) {
	needRoot(t)
	top := t.TempDir()
	lower := mustMake(t, mkdir(t, top+"/l"),
		"file etc/hosts 0644 root:root @5 a\nfile gone 0644\ndir etc 0755 root:root @5")
	upper := mustMake(t, mkdir(t, top+"/u"),
		"file etc/hosts 0644 root:root @6 b\nwhiteout gone\nfile .wh.q 0644\nfile new 0644 root:root @2000000000\ndir proc\nfile proc/x\ndir etc 0755 root:root @5")
	var warned []string
	var table []string
	epoch := int64(1000)
	layer := write(t, Tree{Dir: upper, Lower: []string{lower}}, Options{
		Epoch: &epoch, SkipPaths: []string{"etc/hosts", "gone", "proc"},
		Warn: func(path, _ string) { warned = append(warned, path) },
		Table: func(e Entry) {
			table = append(table, fmt.Sprintf("%s %d", e.Path, e.ModTime.Unix()))
		},
	})
	if got, want := describe(t, layer), "file new 0644\n"; got != want {
		t.Errorf("layer is\n%swant\n%s", got, want)
	}
	if want := []string{".wh.q"}; !slices.Equal(warned, want) {
		t.Errorf("warned of %q, want %q", warned, want)
	}
	if want := []string{"new 1000"}; !slices.Equal(table, want) {
		t.Errorf("table is %q, want %q", table, want)
	}
}
