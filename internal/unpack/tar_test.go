package unpack

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
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/fstree"
)

// stream makes a tar stream of entries in fstree's notation. Whiteouts are files with their names.
func stream(t testing.TB, text string) []byte {
	t.Helper()
	entries, err := fstree.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{
			Name: e.Path, Mode: int64(e.Mode), Uid: max(e.UID, 0), Gid: max(e.GID, 0),
			Size:    int64(len(e.Content)),
			ModTime: time.Unix(max(e.MTime, 0), 0), Linkname: e.Target, Devmajor: int64(e.Major),
			Devminor: int64(e.Minor),
		}
		if os.Geteuid() != 0 && e.UID == fstree.Unset {
			h.Uid, h.Gid = os.Geteuid(), os.Getegid()
		}
		if !e.HasMode {
			h.Mode = map[fstree.Type]int64{fstree.Dir: 0o755, fstree.Link: 0o777}[e.Type]
			if h.Mode == 0 {
				h.Mode = 0o644
			}
		}
		for k, v := range e.Xattrs {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords["SCHILY.xattr."+k] = v
		}
		h.Typeflag = map[fstree.Type]byte{
			fstree.Dir: tar.TypeDir, fstree.File: tar.TypeReg, fstree.Link: tar.TypeSymlink,
			fstree.Hardlink: tar.TypeLink,
			fstree.Char:     tar.TypeChar, fstree.Block: tar.TypeBlock, fstree.Fifo: tar.TypeFifo,
		}[e.Type]
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, e.Content)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func openDir(t testing.TB, dir string) int {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func apply(t testing.TB, dir string, data []byte, o Options) (Stats, error) {
	t.Helper()
	return Tar(context.Background(), bytes.NewReader(data), openDir(t, dir), o)
}

func print(t testing.TB, dir string) string {
	t.Helper()
	s, err := fstree.Print(dir, fstree.Show{Xattrs: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("owners, devices and trusted attributes need root")
	}
}

// mine returns options with which an unprivileged user can set the owner.
func mine(o Options) Options {
	if os.Geteuid() != 0 && o.Owner == nil {
		o.Owner = &Owner{os.Geteuid(), os.Getegid()}
	}
	return o
}

func TestTar(t *testing.T) {
	for _, test := range []struct {
		name, before, stream, want string
		o                          Options
	}{
		{
			name:   "all that needs no privilege",
			stream: "dir d 0750\nfile d/f 0640 hello\nlink d/l -> ../x\nhardlink h => d/f\nfifo p 0600\nfile empty 0600\nfile s 6755 x",
			want:   "dir d 0750\nfile d/f 0640 hello\nlink d/l -> ../x\nfile empty 0600\nhardlink h => d/f\nfifo p 0600\nfile s 6755 x\n",
		},
		{
			name:   "missing parents",
			stream: "file a/b/c 0600 x\ndir a 0700",
			want:   "dir a 0700\ndir a/b 0755\nfile a/b/c 0600 x\n",
		},
		{
			name:   "a directory that its owner may not write",
			stream: "dir d 0500\nfile d/f 0600 x\ndir d/e 0500\nfile d/e/g 0600",
			want:   "dir d 0500\ndir d/e 0500\nfile d/e/g 0600\nfile d/f 0600 x\n",
		},
		{
			name:   "the last of a name counts",
			before: "file a 0600 before\ndir d 0755\nfile d/old 0600\nlink l -> d",
			stream: "file a 0644 1\nfile a 0600 2\nfile d/new 0600\nfile l 0600 file\nlink b -> 1\nlink b -> 2",
			want:   "file a 0600 2\nlink b -> 2\ndir d 0755\nfile d/new 0600\nfile d/old 0600\nfile l 0600 file\n",
		},
		{
			name:   "a directory becomes a file and a file a directory",
			before: "dir d 0755\nfile d/x 0600\ndir d/e 0755\nfile d/e/y 0600\nfile f 0600",
			stream: "file d 0600 now\ndir f 0700\nfile f/in 0600\nfile g 0600\nfile g/h 0600",
			want:   "file d 0600 now\ndir f 0700\nfile f/in 0600\ndir g 0755\nfile g/h 0600\n",
		},
		{
			name:   "a file that others are linked to is replaced, not written",
			stream: "file a 0600 one\nhardlink b => a\nfile a 0600 two\nhardlink b => b",
			want:   "file a 0600 two\nfile b 0600 one\n",
		},
		{
			name:   "a hard link over a directory that the link before was found in",
			stream: "file a 0600 x\ndir d 0755\nfile d/t 0600 y\ndir e 0755\nhardlink e/1 => d/t\nhardlink e => a",
			want:   "file a 0600 x\ndir d 0755\nfile d/t 0600 y\nhardlink e => a\n",
		},
		{
			name:   "hard links through a link that is replaced between them",
			before: "dir d 0755\nfile d/t 0600 one\ndir e 0755\nfile e/t 0600 two\nlink l -> d",
			stream: "hardlink a => l/t\nlink l -> e\nhardlink b => l/t",
			want:   "file a 0600 one\nfile b 0600 two\ndir d 0755\nhardlink d/t => a\ndir e 0755\nhardlink e/t => b\nlink l -> e\n",
		},
		{
			name:   "hard links to a directory that a whiteout removes between them",
			before: "dir d 0755\nfile d/t 0600 one",
			stream: "hardlink a => d/t\nfile .wh.d 0000\nfile d/t 0600 two\nhardlink b => d/t",
			want:   "file a 0600 one\nfile b 0600 two\ndir d 0755\nhardlink d/t => b\n",
			o:      Options{Whiteouts: Delete},
		},
		{
			name:   "hard links through a link that a whiteout removes between them",
			before: "dir d 0755\nfile d/t 0600 one\nlink l -> d",
			stream: "hardlink a => l/t\nfile .wh.l 0000\nfile l/t 0600 two\nhardlink b => l/t",
			want:   "file a 0600 one\nfile b 0600 two\ndir d 0755\nhardlink d/t => a\ndir l 0755\nhardlink l/t => b\n",
			o:      Options{Whiteouts: Delete},
		},
		{
			name:   "names stay inside",
			stream: "file ../../out 0600 1\nfile /abs 0600 2\nfile a/../../b 0600 3\nfile ./c/./d//e 0600 4\nhardlink h => ../../abs\nlink l -> ../../..",
			want:   "file abs 0600 2\nfile b 0600 3\ndir c 0755\ndir c/d 0755\nfile c/d/e 0600 4\nhardlink h => abs\nlink l -> ../../..\nfile out 0600 1\n",
		},
		{
			name:   "a name through a link is resolved inside the root",
			stream: "dir real 0755\nlink l -> /real\nfile l/f 0600 x\nlink up -> ../../../../real\nfile up/g 0600\nlink dangling -> /made\nfile dangling/h 0600",
			want:   "link dangling -> /made\nlink l -> /real\ndir made 0755\nfile made/h 0600\ndir real 0755\nfile real/f 0600 x\nfile real/g 0600\nlink up -> ../../../../real\n",
		},
		{
			name:   "a directory replaces a link",
			before: "dir real 0755\nlink l -> real",
			stream: "dir l 0700\nfile l/f 0600",
			want:   "dir l 0700\nfile l/f 0600\ndir real 0755\n",
		},
		{
			name:   "unless links to directories are followed",
			before: "dir usr/lib 0755\nlink lib -> /usr/lib\nlink gone -> nowhere",
			stream: "dir lib 0700\nfile lib/f 0600\ndir gone 0700",
			want:   "dir gone 0700\nlink lib -> /usr/lib\ndir usr 0755\ndir usr/lib 0755\nfile usr/lib/f 0600\n",
			o:      Options{FollowDirLinks: true},
		},
		{
			name:   "whiteouts are names",
			stream: "file .wh.a 0600\ndir d 0755\nfile d/.wh..wh..opq 0600",
			want:   "file .wh.a 0600\ndir d 0755\nfile d/.wh..wh..opq 0600\n",
		},
		{
			name:   "modes by choice",
			stream: "dir d 0755\nfile d/f 4755",
			want:   "dir d 0700\nfile d/f 0600\n",
			o: Options{Chmod: func(_ uint32, dir bool) uint32 {
				if dir {
					return 0o700
				}
				return 0o600
			}},
		},
		{
			name:   "attributes of users, and nobody else's",
			stream: "file f 0600 [user.k=v] [user.overlay.opaque=y] [trusted.overlay.opaque=y] [security.selinux=x] [trusted.z=1]\ndir d 0755 [user.k=\"\\x00\\n\"] [user.overlay.redirect=/]",
			want:   "dir d 0755 [user.k=\"\\x00\\n\"]\nfile f 0600 [user.k=v]\n",
		},
		{
			name:   "delete",
			before: "file a 0600\nfile b 0600\ndir d 0755\nfile d/x 0600\ndir o 0755\nfile o/old 0600\ndir o/deep 0755\nfile o/deep/y 0600",
			stream: "file .wh.a 0000\nfile .wh.d 0000\nfile o/deep/kept 0600\nfile o/.wh..wh..opq 0000\nfile o/new 0600\nfile .wh.nothing 0000\nfile no/.wh.where 0000",
			want:   "file b 0600\ndir o 0755\ndir o/deep 0755\nfile o/deep/kept 0600\nfile o/new 0600\n",
			o:      Options{Whiteouts: Delete},
		},
		{
			name:   "what the stream made is not deleted, whatever the order",
			before: "file a 0600 old\ndir d 0755\nfile d/old 0600\ndir e 0755\nfile e/old 0600",
			stream: "file a 0600 new\nfile .wh.a 0000\ndir d 0755\nfile d/new 0600\nfile .wh.d 0000\nfile .wh.e 0000\ndir e 0755\nfile e/new 0600",
			want:   "file a 0600 new\ndir d 0755\nfile d/new 0600\ndir e 0755\nfile e/new 0600\n",
			o:      Options{Whiteouts: Delete},
		},
		{
			name:   "attributes that a directory has no more",
			before: "dir d 0755 [user.old=1] [user.both=1]",
			stream: "dir d 0700 [user.both=2]",
			want:   "dir d 0700 [user.both=2]\n",
			o:      Options{Whiteouts: Delete},
		},
		{
			name:   "a name that the stream has, but does not make",
			before: "file a 0600\nfile c 0600\ndir d/e 0755\ndir f/g 0755",
			stream: "char a 0600 0:0\nfile .wh.a 0000\nhardlink c => c\nfile .wh.c 0000\n" +
				"char d/e/f 0600 0:0\nfile .wh.d 0000\nchar n/c 0600 0:0\n" +
				"hardlink f/g/h => f/g/h\nfile .wh.f 0000\nhardlink n/h => n/h",
			want: "",
			o:    Options{Whiteouts: Delete, OnWhiteoutDevice: func(string) {}},
		},
		{
			name:   "what aufs left",
			stream: "dir .wh..wh.plnk 0700\nfile .wh..wh.plnk/1.2 0600\nfile .wh..wh.aufs 0600\nfile a 0600",
			want:   "file a 0600\n",
			o:      Options{Whiteouts: Delete},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			top := t.TempDir()
			dir := filepath.Join(top, "a", "root")
			if err := fstree.Make(top,
				"dir a/root 0755\nfile a/out 0600 sentinel\nfile out 0600 sentinel"); err != nil {
				t.Fatal(err)
			}
			if err := fstree.Make(dir, test.before); err != nil {
				t.Fatal(err)
			}
			if _, err := apply(t, dir, stream(t, test.stream), mine(test.o)); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(test.want, print(t, dir)); d != "" {
				t.Errorf("tree differs (-want +got):\n%s", d)
			}
			chmodAll(dir)
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			if got := print(t, top); got !=
				"dir a 0755\nfile a/out 0600 sentinel\nfile out 0600 sentinel\n" {
				t.Errorf("outside the root is\n%s", got)
			}
		})
	}
}

func TestTarAsRoot(t *testing.T) {
	needRoot(t)
	for _, test := range []struct {
		name, before, stream, want string
		o                          Options
		implied                    []Implied
	}{
		{
			name:    "owners, setuid, capabilities, times, devices",
			stream:  "dir d 2755 5:6 @7\nfile d/s 4755 8:9 @10 [security.capability=\"\\x01\\x00\\x00\\x02\\x00\\x20\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\"]\nlink d/l 0777 1:2 @3 -> s\nchar d/c 0600 4:5 @6 240:1\nblock d/b 0660 0:6 @9 240:2\nfile d/r 0644 0:0 @1",
			want:    "dir d 2755 5:6 @7\nblock d/b 0660 root:6 @9 240:2\nchar d/c 0600 4:5 @6 240:1\nlink d/l 1:2 @3 -> s\nfile d/r 0644 root:root @1\nfile d/s 4755 8:9 @10 [security.capability=\"\\x01\\x00\\x00\\x02\\x00 \\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\"]\n",
			implied: []Implied{{Path: "."}},
		},
		{
			name:    "overlay",
			stream:  "file .wh.a 0000\nfile d/.wh..wh..opq 0000\ndir d 0755 root:root @1\nfile d/f 0600 root:root @1\nfile d/.wh.f 0000\nfile .wh.e 0000\ndir e 0755 root:root @1\ndir g 0755 root:root @1\nfile .wh.g 0000\nfile .wh.h 0000\nfile h/i 0600 root:root @2",
			want:    "whiteout a\ndir d 0755 root:root @1\nopaque d\nfile d/f 0600 root:root @1\ndir e 0755 root:root @1\nopaque e\ndir g 0755 root:root @1\nopaque g\ndir h 0755 root:root\nopaque h\nfile h/i 0600 root:root @2\n",
			o:       Options{Whiteouts: Overlay},
			implied: []Implied{{Path: "."}, {Path: "h", New: true}},
		},
		{
			name:    "in place: times of directories that the stream does not list",
			before:  "dir a 0755 root:root @5\nfile a/f 0600 root:root @5\ndir c 0755 root:root @9",
			stream:  "file .wh.a 0000\nfile c/new 0600 root:root @1\nlink a 0777 0:0 @1 -> c",
			want:    "link a root:root @1 -> c\ndir c 0755 root:root @9\nfile c/new 0600 root:root @1\n",
			o:       Options{Whiteouts: Delete},
			implied: []Implied{{Path: "."}},
		},
		{
			name: "in place: times of directories with two paths",
			before: "dir d 0755 root:root @5\nlink a 0777 0:0 @1 -> d\ndir e 0755 root:root @6\n" +
				"link b 0777 0:0 @1 -> e\ndir f 0755 root:root @7\nlink z 0777 0:0 @1 -> f",
			stream: "file d/x 0600 0:0 @1\nfile a/y 0600 0:0 @1\nfile b/x 0600 0:0 @1\n" +
				"dir e 0700 0:0 @8\nfile z/x 0600 0:0 @1\nfile f/y 0600 0:0 @1",
			want: "link a root:root @1 -> d\nlink b root:root @1 -> e\n" +
				"dir d 0755 root:root @5\nfile d/x 0600 root:root @1\nfile d/y 0600 root:root @1\n" +
				"dir e 0700 root:root @8\nfile e/x 0600 root:root @1\n" +
				"dir f 0755 root:root @7\nfile f/x 0600 root:root @1\nfile f/y 0600 root:root @1\n" +
				"link z root:root @1 -> f\n",
			o:       Options{Whiteouts: Delete},
			implied: []Implied{{Path: "."}},
		},
		{
			name: "overlay: names that the stream has, but does not make",
			stream: "char a 0600 0:0\nfile .wh.a 0000\nhardlink c => c\nfile .wh.c 0000\n" +
				"char d/e/f 0600 0:0\nfile .wh.d 0000\nchar n/c 0600 0:0\n" +
				"hardlink f/g/h => f/g/h\nfile .wh.f 0000\nhardlink n/h => n/h",
			want:    "whiteout a\nwhiteout c\nwhiteout d\nwhiteout f\n",
			o:       Options{Whiteouts: Overlay, OnWhiteoutDevice: func(string) {}},
			implied: []Implied{{Path: "."}},
		},
		{
			name: "overlay: directories that only marks need",
			// b is used later, c becomes a whiteout, d is made later, and e and f are files.
			stream: "file a/x/.wh.y 0000\nfile b/.wh.y 0000\nfile b/f 0600 root:root @1\n" +
				"file c/x/.wh.y 0000\nfile .wh.c 0000\nfile d/.wh..wh..opq 0000\n" +
				"dir d 0755 root:root @1\nfile e 0600 root:root @1\nfile e/.wh.y 0000\n" +
				"file .wh.f 0000\nfile f/.wh.y 0000\nfile f/x/.wh..wh..opq 0000",
			want: "dir a 0755 root:root\ndir a/x 0755 root:root\nwhiteout a/x/y\n" +
				"dir b 0755 root:root\nfile b/f 0600 root:root @1\nwhiteout b/y\nwhiteout c\n" +
				"dir d 0755 root:root @1\nopaque d\nfile e 0600 root:root @1\nwhiteout f\n",
			o: Options{Whiteouts: Overlay},
			implied: []Implied{{Path: "."}, {Path: "a", Bare: true}, {Path: "a/x", Bare: true},
				{Path: "b"}},
		},
		{
			name: "overlay: new directories",
			// The directories a/x and b/y/z of the layers below are removed by opaque marks.
			stream: "file a/.wh..wh..opq 0000\nfile a/x/f 0600 root:root @1\n" +
				"dir b 0755 root:root @1\nfile b/x/f 0600 root:root @1\nfile b/y/z/.wh.f 0000\n" +
				"file .wh.b 0000\nfile b/y/z/f 0600 root:root @1\n" +
				"file c 0600 root:root @1\nfile c/f 0600 root:root @1",
			want: "dir a 0755 root:root\nopaque a\ndir a/x 0755 root:root\n" +
				"file a/x/f 0600 root:root @1\ndir b 0755 root:root @1\nopaque b\n" +
				"dir b/x 0755 root:root\nfile b/x/f 0600 root:root @1\ndir b/y 0755 root:root\n" +
				"dir b/y/z 0755 root:root\nfile b/y/z/f 0600 root:root @1\n" +
				"dir c 0755 root:root\nopaque c\nfile c/f 0600 root:root @1\n",
			o: Options{Whiteouts: Overlay},
			implied: []Implied{{Path: "."}, {Path: "a"}, {Path: "a/x", New: true}, {Path: "b/x"},
				{Path: "b/y", New: true}, {Path: "b/y/z", New: true}, {Path: "c", New: true}},
		},
		{
			name:    "the root",
			stream:  "dir . 0711 3:4 @5",
			want:    "dir . 0711 3:4 @5\n",
			o:       Options{Whiteouts: Overlay},
			implied: nil,
		},
		{
			name:    "the root left alone",
			before:  "dir . 0700 root:root @9",
			stream:  "dir ./ 0711 3:4 @5",
			want:    "dir . 0700 root:root @9\n",
			o:       Options{SkipRoot: true},
			implied: []Implied{{Path: "."}},
		},
		{
			name:    "one owner for all",
			stream:  "file a/f 0600 5:6 @1\nlink l 0777 7:8 @1 -> x",
			want:    "dir a 0755 1:2\nfile a/f 0600 1:2 @1\nlink l 1:2 @1 -> x\n",
			o:       Options{Owner: &Owner{1, 2}},
			implied: []Implied{{Path: "."}, {Path: "a"}},
		},
		{
			name:    "a directory that hands its group on",
			before:  "dir d 2755 0:50 @1",
			stream:  "dir d/e 0755 root:root @2\nfile d/e/f 0644 root:root @3\nfile d/g 0644 root:root @4\ndir d 2755 0:50 @1",
			want:    "dir d 2755 root:50 @1\ndir d/e 0755 root:root @2\nfile d/e/f 0644 root:root @3\nfile d/g 0644 root:root @4\n",
			implied: []Implied{{Path: "."}},
		},
		{
			name:    "device 0:0 would be a whiteout",
			stream:  "file f 0600 root:root @1",
			want:    "file f 0600 root:root @1\n",
			o:       Options{Whiteouts: Overlay},
			implied: []Implied{{Path: "."}},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := fstree.Make(dir, test.before); err != nil {
				t.Fatal(err)
			}
			stats, err := apply(t, dir, stream(t, test.stream), test.o)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(stats.Implied, test.implied) {
				t.Errorf("Implied = %+v, want %+v", stats.Implied, test.implied)
			}
			got, err := fstree.Print(dir, fstree.Show{Owners: true, Times: true, Xattrs: true,
				Root: strings.HasPrefix(test.want, "dir . ")})
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range stats.Implied { // their times are the current time
				if fi, err := os.Stat(filepath.Join(dir, p.Path)); err == nil {
					got = strings.ReplaceAll(got, fmt.Sprintf("dir %s 0755 root:root @%d", p.Path,
						fi.ModTime().Unix()), "dir "+p.Path+" 0755 root:root")
					got = strings.ReplaceAll(got, fmt.Sprintf("dir %s 0755 1:2 @%d", p.Path,
						fi.ModTime().Unix()), "dir "+p.Path+" 0755 1:2")
				}
			}
			if d := cmp.Diff(test.want, got); d != "" {
				t.Errorf("tree differs (-want +got):\n%s", d)
			}
		})
	}
}

// TestTarLongNames unpacks names that are longer than the limit of one system call (PATH_MAX).
func TestTarLongNames(t *testing.T) {
	a, b := strings.Repeat(strings.Repeat("a", 200)+"/", 25),
		strings.Repeat(strings.Repeat("b", 200)+"/", 25)
	dir := t.TempDir()
	_, err := apply(t, dir, stream(t, "file "+a+"d/f 0600 x\nhardlink "+b+"g => "+a+"d/f\n"+
		"link "+a+"l -> d\nfile "+a+"l/h 0600 y\nhardlink "+b+"i => "+a+"l/h\n"+
		"hardlink f => "+b+"g\nhardlink h => "+b+"i"), mine(Options{}))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"f": "x", "h": "y"} {
		var st unix.Stat_t
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err := errors.Join(err, unix.Stat(filepath.Join(dir, name), &st)); err != nil ||
			string(got) != want || st.Nlink != 3 {
			t.Errorf("%s is %q with %d names, %v, want %q with 3", name, got, st.Nlink, err, want)
		}
	}
}

func TestTarErrors(t *testing.T) {
	for _, test := range []struct {
		name, stream string
		o            Options
		is           error
		text         string
	}{
		{name: "the root as a file", stream: "file a/.. 0600", is: ErrFormat},
		{name: "whiteout of nothing", stream: "file .wh. 0000",
			o: Options{Whiteouts: Delete}, is: ErrFormat},
		{name: "whiteout of .", stream: "file a/.wh.. 0000",
			o: Options{Whiteouts: Delete}, is: ErrFormat},
		{name: "whiteout of ..", stream: "file a/.wh... 0000",
			o: Options{Whiteouts: Delete}, is: ErrFormat},
		{name: "a name below a whiteout", stream: "file .wh.a/b 0000",
			o: Options{Whiteouts: Overlay}, is: ErrFormat},
		{name: "hard link to nothing", stream: "hardlink a => b", is: unix.ENOENT, text: `"b"`},
		{name: "hard link to a directory", stream: "dir d\nhardlink a => d", is: unix.EPERM},
		{name: "hard link to the root", stream: "hardlink a => .", is: ErrFormat},
		{name: "hard link to a file below", stream: "hardlink a => b",
			o: Options{Whiteouts: Overlay}, is: ErrNeedsParent},
		{name: "name through a link to somewhere below", stream: "link l -> usr/lib\nfile l/f 0600",
			o: Options{Whiteouts: Overlay}, is: ErrNeedsParent},
		{name: "opaque root", stream: "file .wh..wh..opq 0000",
			o: Options{Whiteouts: Overlay}, is: ErrNeedsParent},
		{name: "link loop", stream: "link a -> b\nlink b -> a\nfile a/x 0600", is: unix.ELOOP},
		{name: "long name", stream: "file " + strings.Repeat("x", 256) + " 0600",
			is: unix.ENAMETOOLONG},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := apply(t, t.TempDir(), stream(t, test.stream), mine(test.o))
			if !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("Tar = %v, want %v with %q", err, test.is, test.text)
			}
		})
	}
}

func TestTarWhiteoutDevice(t *testing.T) {
	needRoot(t)
	data := stream(t, "char c 0600 root:root @1 0:0\nfile f 0600")
	if _, err := apply(t, t.TempDir(), data, Options{}); err == nil {
		t.Error("a device 0:0 was taken")
	}
	dir := t.TempDir()
	var skipped []string
	if _, err := apply(t, dir, data, Options{OnSkip: func(path, what string, _ error) {
		skipped = append(skipped, path+": "+what)
	}}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"c: device 0:0"}; !slices.Equal(skipped, want) {
		t.Errorf("skipped %q, want %q", skipped, want)
	}
	if got := print(t, dir); got != "file f 0600\n" {
		t.Errorf("tree is %s", got)
	}
}

func TestTarWithoutPrivilege(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("as root every owner can be had")
	}
	data := stream(t, "file a 0600 12345:12345\nchar c 0600 1:3\ndir d 0755 12345:12345")
	if _, err := apply(t, t.TempDir(), data, Options{}); !errors.Is(err, unix.EPERM) ||
		!strings.Contains(err.Error(), `"a"`) {
		t.Errorf("Tar = %v, want EPERM for a", err)
	}
	var owners, skipped []string
	_, err := apply(t, t.TempDir(), data, Options{
		OnOwnerError: func(path string, uid, gid int, _ error) { owners = append(owners, path) },
		OnSkip:       func(path, what string, _ error) { skipped = append(skipped, path) },
	})
	if err != nil || !slices.Equal(owners, []string{"a", "d"}) ||
		!slices.Equal(skipped, []string{"c"}) {
		t.Errorf("Tar = %v, owners %q, skipped %q", err, owners, skipped)
	}
}

func TestTarHoles(t *testing.T) {
	content := make([]byte, 3<<20)
	copy(content[1<<20:], "in the middle")
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, n := range []int{len(content), 2<<20 + 17, 1<<20 + 5} {
		w.WriteHeader(&tar.Header{Name: fmt.Sprint(n), Mode: 0o600, Size: int64(n),
			Uid: os.Geteuid(), Gid: os.Getegid()})
		w.Write(content[:n])
	}
	w.Close()
	dir := t.TempDir()
	if _, err := apply(t, dir, b.Bytes(), Options{}); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{len(content), 2<<20 + 17, 1<<20 + 5} {
		p := filepath.Join(dir, fmt.Sprint(n))
		got, err := os.ReadFile(p)
		if err != nil || !bytes.Equal(got, content[:n]) {
			t.Errorf("%d: content differs, %v", n, err)
		}
		var st unix.Stat_t
		if err := unix.Stat(p, &st); err != nil || st.Blocks*512 > 256<<10 {
			t.Errorf("%d: %d bytes on disk, %v", n, st.Blocks*512, err)
		}
	}
}

func TestTarCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Tar(ctx, bytes.NewReader(stream(t, "file a 0600")), openDir(t, t.TempDir()),
		mine(Options{})); !errors.Is(err, context.Canceled) {
		t.Errorf("Tar = %v, want %v", err, context.Canceled)
	}
}
