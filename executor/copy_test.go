package executor

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// old is the time of the files of a source.
var old = time.Unix(1500000000, 987654321)

// source returns a source directory with the entries.
func source(t testing.TB, entries ...string) *os.File {
	t.Helper()
	dir := t.TempDir()
	// Tests in a user namespace may run as another user, who does not own the directories above.
	var dirs []string
	for _, e := range entries {
		f := strings.Fields(e)
		name := filepath.Join(dir, f[1])
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		var mode uint32
		if len(f) > 2 {
			fmt.Sscanf(f[2], "%o", &mode)
		}
		var err error
		switch f[0] {
		case "dir":
			err = os.MkdirAll(name, 0o755)
			dirs = append(dirs, name)
		case "file":
			err = os.WriteFile(name, []byte(strings.Join(f[3:], " ")), 0o644)
		case "link":
			err = os.Symlink(f[2], name)
		case "hard":
			err = os.Link(filepath.Join(dir, f[2]), name)
		case "fifo":
			err = unix.Mkfifo(name, mode)
		case "sock":
			err = unix.Mknod(name, unix.S_IFSOCK|0o755, 0)
		default:
			t.Fatalf("entry %q", e)
		}
		if err == nil && mode != 0 {
			err = unix.Chmod(name, mode)
		}
		ts := []unix.Timespec{unix.NsecToTimespec(old.UnixNano()),
			unix.NsecToTimespec(old.UnixNano())}
		if err == nil {
			err = unix.UtimesNanoAt(unix.AT_FDCWD, name, ts, unix.AT_SYMLINK_NOFOLLOW)
		}
		if err != nil {
			t.Fatalf("%s: %v", e, err)
		}
	}
	for _, d := range slices.Backward(dirs) {
		os.Chtimes(d, old, old)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// tree lists an image, one entry a line. "old" stands for the time of a source's file.
func (im *image) tree() []string {
	im.t.Helper()
	var all []string
	inodes := map[uint64]string{}
	err := filepath.Walk(im.dir, func(name string, fi os.FileInfo, err error) error {
		if err != nil || name == im.dir {
			return err
		}
		st := fi.Sys().(*syscall.Stat_t)
		rel, _ := filepath.Rel(im.dir, name)
		line := ""
		switch fi.Mode() & os.ModeType {
		case os.ModeDir:
			line = fmt.Sprintf("dir %s %04o", rel, st.Mode&0o7777)
		case 0:
			if first, ok := inodes[st.Ino]; ok {
				line = fmt.Sprintf("hard %s %s", rel, first)
				break
			}
			inodes[st.Ino] = rel
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			line = fmt.Sprintf("file %s %04o %s", rel, st.Mode&0o7777, b)
		case os.ModeSymlink:
			to, _ := os.Readlink(name)
			line = fmt.Sprintf("link %s %s", rel, to)
		case os.ModeNamedPipe:
			line = fmt.Sprintf("fifo %s %04o", rel, st.Mode&0o7777)
		default:
			line = fmt.Sprintf("%s %s", fi.Mode().Type(), rel)
		}
		if st.Uid != 0 || st.Gid != 0 {
			line += fmt.Sprintf(" %d:%d", st.Uid, st.Gid)
		}
		if fi.ModTime().Equal(old) {
			line += " old"
		}
		all = append(all, line)
		return nil
	})
	if err != nil {
		im.t.Fatal(err)
	}
	return all
}

func one(dir *os.File, it Item) []Source { return []Source{{Dir: dir, Items: []Item{it}}} }

func TestCopy(t *testing.T) {
	type test struct {
		name  string
		image func(*image)
		src   []string
		copy  Copy
		item  Item
		want  []string
		err   string
	}
	tests := []test{
		{name: "file to a name", src: []string{"file a 0640 x"}, copy: Copy{Dest: "/b"},
			item: Item{Path: "a"},
			want: []string{"file b 0640 x old"}},
		{name: "file into a directory by its slash", src: []string{"file a 0644 x"},
			copy: Copy{Dest: "/d/e/"}, item: Item{Path: "a"},
			want: []string{"dir d 0755", "dir d/e 0755", "file d/e/a 0644 x old"}},
		{name: "file into a directory that exists", image: func(im *image) { im.mkdir("d") },
			src: []string{"file s/a 0644 x"}, copy: Copy{Dest: "/d"}, item: Item{Path: "s/a"},
			want: []string{"dir d 0755", "file d/a 0644 x old"}},
		{name: "file into a directory behind a link",
			image: func(im *image) { im.mkdir("real"); im.link("/real", "l") },
			src:   []string{"file a 0644 x"}, copy: Copy{Dest: "/l"}, item: Item{Path: "a"},
			want: []string{"link l /real", "dir real 0755", "file real/a 0644 x old"}},
		{name: "parents behind a link that leads nowhere",
			image: func(im *image) { im.link("/not/yet", "l") }, src: []string{"file a 0644 x"},
			copy: Copy{Dest: "/l/b"}, item: Item{Path: "a"},
			want: []string{"link l /not/yet", "dir not 0755", "dir not/yet 0755",
				"file not/yet/b 0644 x old"}},
		{name: "file over a link to a file",
			image: func(im *image) { im.write("t", "old", 0o600); im.link("t", "l") },
			src:   []string{"file a 0644 x"}, copy: Copy{Dest: "/l"}, item: Item{Path: "a"},
			want: []string{"link l t", "file t 0644 x old"}},
		{name: "file over a link in a directory",
			image: func(im *image) {
				im.write("t", "keep", 0o600)
				im.mkdir("d")
				im.link("../t", "d/a")
			}, src: []string{"file a 0644 x"}, copy: Copy{Dest: "/d/"}, item: Item{Path: "a"},
			want: []string{"dir d 0755", "file d/a 0644 x old", "file t 0600 keep"}},
		{name: "links lead nowhere but into the image",
			image: func(im *image) { im.link("../../../../../../etc", "l") },
			src:   []string{"file a 0644 x"}, copy: Copy{Dest: "/l/a"}, item: Item{Path: "a"},
			want: []string{"dir etc 0755", "file etc/a 0644 x old",
				"link l ../../../../../../etc"}},
		{name: "file over a file with another name",
			image: func(im *image) {
				im.write("t", "keep", 0o600)
				os.Link(im.path("t"), im.path("u"))
			}, src: []string{"file a 0644 x"}, copy: Copy{Dest: "/t"}, item: Item{Path: "a"},
			want: []string{"file t 0644 x old", "file u 0600 keep"}},
		{name: "file over a directory", image: func(im *image) { im.mkdir("d/a") },
			src: []string{"file a 0644 x"}, copy: Copy{Dest: "/d/"}, item: Item{Path: "a"},
			err: "cannot replace to directory /d/a with file"},
		{name: "below a file", image: func(im *image) { im.write("f", "", 0o644) },
			src: []string{"file a 0644 x"}, copy: Copy{Dest: "/f/"}, item: Item{Path: "a"},
			err: "cannot copy to non-directory: /f"},
		{name: "contents of a directory", src: []string{"dir s 0700", "dir s/d 0750",
			"file s/d/f 0600 x", "file s/g 0644 y"}, copy: Copy{Dest: "/app"},
			item: Item{Path: "s", Contents: true},
			want: []string{"dir app 0755 old", "dir app/d 0750 old", "file app/d/f 0600 x old",
				"file app/g 0644 y old"}},
		{name: "contents into a directory that exists",
			image: func(im *image) {
				im.mkdir("app/d")
				im.write("app/d/k", "k", 0o644)
				os.Chmod(im.path("app"), 0o711)
			},
			src:  []string{"dir s 0700", "dir s/d 0750", "file s/d/f 0600 x"},
			copy: Copy{Dest: "/app/"}, item: Item{Path: "s", Contents: true},
			want: []string{"dir app 0711 old", "dir app/d 0750 old", "file app/d/f 0600 x old",
				"file app/d/k 0644 k"}},
		{name: "the whole source", src: []string{"file f 0644 x"}, copy: Copy{Dest: "/"},
			item: Item{Path: ".", Contents: true},
			want: []string{"file f 0644 x old"}},
		{name: "a directory over a file", image: func(im *image) {
			im.mkdir("app")
			im.write("app/d", "", 0o644)
		}, src: []string{"dir s", "dir s/d 0755"}, copy: Copy{Dest: "/app"},
			item: Item{Path: "s", Contents: true},
			err:  "cannot copy to non-directory: /app/d"},
		{name: "a directory over a link", image: func(im *image) {
			im.mkdir("usr/bin")
			im.link("usr/bin", "bin")
		}, src: []string{"dir s", "dir s/bin 0755"}, copy: Copy{Dest: "/"},
			item: Item{Path: "s", Contents: true},
			err:  "cannot copy to non-directory: /bin"},
		{name: "contents over a file", image: func(im *image) { im.write("app", "", 0o644) },
			src: []string{"dir s"}, copy: Copy{Dest: "/app"}, item: Item{Path: "s", Contents: true},
			err: "cannot copy to non-directory: /app"},
		{name: "only what is listed, with the directories above it",
			src: []string{"dir s 0750", "dir s/d 0700", "dir s/d/e 0711", "file s/d/e/f 0644 x",
				"file s/d/no 0644 n", "file s/g-h 0644 y", "dir s/g 0755", "file s/g/i 0644 z"},
			copy: Copy{Dest: "/a"}, item: Item{Path: "s", Contents: true,
				Entries: []Entry{{Path: "d/e/f"}, {Path: "g"}, {Path: "g-h"}, {Path: "g/i"}}},
			want: []string{"dir a 0755 old", "dir a/d 0700 old", "dir a/d/e 0711 old",
				"file a/d/e/f 0644 x old", "dir a/g 0755 old", "file a/g/i 0644 z old",
				"file a/g-h 0644 y old"}},
		{name: "nothing is listed", src: []string{"dir s", "file s/f 0644 x"},
			copy: Copy{Dest: "/a"}, item: Item{Path: "s", Contents: true, Entries: []Entry{}},
			want: []string{"dir a 0755 old"}},
		{name: "links, hard links and special files",
			src: []string{"dir s", "link s/l /etc/passwd", "file s/h1 0644 x", "hard s/h2 s/h1",
				"dir s/z", "hard s/z/h3 s/h1", "fifo s/p 0640", "sock s/so 0755"},
			copy: Copy{Dest: "/a"}, item: Item{Path: "s", Contents: true},
			want: []string{"dir a 0755 old", "file a/h1 0644 x old", "hard a/h2 a/h1 old",
				"link a/l /etc/passwd old", "fifo a/p 0640 old", "dir a/z 0755 old",
				"hard a/z/h3 a/h1 old"}},
		{name: "special bits", src: []string{"dir s", "file s/su 4755 x", "file s/sg 2755 x",
			"dir s/st 1777", "dir s/sgd 2770", "file s/sgd/f 0644 x"}, copy: Copy{Dest: "/a"},
			item: Item{Path: "s", Contents: true},
			want: []string{"dir a 0755 old", "file a/sg 2755 x old", "dir a/sgd 2770 old",
				"file a/sgd/f 0644 x old", "dir a/st 1777 old", "file a/su 4755 x old"}},
		{name: "octal chmod, of parents too", src: []string{"file a 0644 x"},
			copy: Copy{Dest: "/p/q/", Chmod: "4711"}, item: Item{Path: "a"},
			want: []string{"dir p 0711", "dir p/q 0711", "file p/q/a 4711 x old"}},
		{name: "symbolic chmod", src: []string{"dir s 0700", "dir s/d 0700", "file s/d/f 0600 x",
			"file s/x 0700 x"}, copy: Copy{Dest: "/a", Chmod: "go=u,go-w,a+X"},
			item: Item{Path: "s", Contents: true},
			want: []string{"dir a 0755 old", "dir a/d 0755 old", "file a/d/f 0644 x old",
				"file a/x 0755 x old"}},
		{name: "parents as in the source", src: []string{"dir x 0755", "dir x/y 0700",
			"file x/y/f 0644 x"}, copy: Copy{Dest: "/d"},
			item: Item{Path: "x/y/f", Target: "x/y/f"},
			want: []string{"dir d 0755", "dir d/x 0755 old", "dir d/x/y 0700 old",
				"file d/x/y/f 0644 x old"}},
		{name: "parents from a pivot", src: []string{"dir x 0755", "dir x/y 0700", "dir x/y/z 0711",
			"file x/y/z/f 0644 x"}, copy: Copy{Dest: "/d"},
			item: Item{Path: "x/y/z", Target: "y/z"},
			want: []string{"dir d 0755", "dir d/y 0700 old", "dir d/y/z 0711 old",
				"file d/y/z/f 0644 x old"}},
		{name: "another name", src: []string{"file x/f 0644 x"}, copy: Copy{Dest: "/d"},
			item: Item{Path: "x/f", Target: "g"},
			want: []string{"dir d 0755", "file d/g 0644 x old"}},
		{name: "a directory itself", src: []string{"dir x 0700", "file x/f 0644 x"},
			copy: Copy{Dest: "/d"}, item: Item{Path: "x"},
			want: []string{"dir d 0700 old", "file d/f 0644 x old"}},
		{name: "a missing source", src: nil, copy: Copy{Dest: "/d"}, item: Item{Path: "nope/f"},
			err: "copy nope/f: no such file or directory"},
		{name: "a source behind a link", src: []string{"link l /etc"}, copy: Copy{Dest: "/d"},
			item: Item{Path: "l/passwd"}, err: "copy l/passwd: too many levels of symbolic links"},
		{name: "a bad mode", src: []string{"file a 0644 x"}, copy: Copy{Dest: "/d", Chmod: "64a"},
			item: Item{Path: "a"}, err: "invalid chmod parameter: '64a'. it should be octal string and between 0 and 07777"},
		{name: "another size than was digested", src: []string{"file a 0644 x"},
			copy: Copy{Dest: "/d"}, item: Item{Path: "a",
				Entries: []Entry{{Path: ".", Size: 2, MtimeNs: old.UnixNano()}}},
			err: `"a" changed while it was being copied`},
		{name: "another time than was digested", src: []string{"dir s", "file s/a 0644 x"},
			copy: Copy{Dest: "/d"}, item: Item{Path: "s", Contents: true,
				Entries: []Entry{{Path: "a", Size: 1, MtimeNs: 1}}},
			err: `"s/a" changed while it was being copied`},
		{name: "as it was digested", src: []string{"file a 0644 x"}, copy: Copy{Dest: "/d"},
			item: Item{Path: "a", Entries: []Entry{{Path: ".", Size: 1, MtimeNs: old.UnixNano()}}},
			want: []string{"file d 0644 x old"}},
		{name: "paths that systems are sensitive about", src: []string{"file a 0644 x"},
			copy: Copy{Dest: "/etc/hosts"}, item: Item{Path: "a"},
			want: []string{"dir etc 0755", "file etc/hosts 0644 x old"}},
		{name: "proc is a directory like others", src: []string{"file a 0644 x"},
			copy: Copy{Dest: "/proc/self/root/"}, item: Item{Path: "a"},
			want: []string{"dir proc 0755", "dir proc/self 0755", "dir proc/self/root 0755",
				"file proc/self/root/a 0644 x old"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			im := newImage(t)
			if tt.image != nil {
				tt.image(im)
			}
			c := tt.copy
			c.Sources = one(source(t, tt.src...), tt.item)
			_, err := im.run(&c)
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Errorf("got %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, im.tree()); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestCopyOwner(t *testing.T) {
	im := newImage(t)
	if singleID {
		t.Skip("there is one id only")
	}
	im.mkdir("etc")
	im.write("etc/passwd", "app:x:1000:2000::/:\n", 0o644)
	im.write("etc/group", "staff:x:50:\n", 0o644)
	src := source(t, "dir s 0755", "dir s/d 0755", "file s/d/f 4755 x", "link s/l d")
	for _, name := range []string{"s/d", "s/d/f"} {
		if err := os.Chown(filepath.Join(src.Name(), name), 7, 8); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Chmod(filepath.Join(src.Name(), "s/d/f"), 0o4755); err != nil {
		t.Fatal(err)
	}
	type test struct {
		c    Copy
		own  string // of the parents and the top
		file string
	}
	for _, tt := range []test{
		{Copy{}, "0:0", "0:0"},
		{Copy{KeepOwner: true}, "0:0", "7:8"},
		{Copy{Chown: "app"}, "1000:2000", "1000:2000"},
		{Copy{Chown: "5"}, "5:5", "5:5"},
		{Copy{Chown: "5:6", KeepOwner: true}, "5:6", "5:6"},
		{Copy{Chown: "app:staff"}, "1000:50", "1000:50"},
		{Copy{Chown: ":staff"}, "0:50", "0:50"},
		{Copy{Chown: "nobody:nogroup"}, "0:0", "0:0"},
	} {
		os.RemoveAll(im.path("p"))
		tt.c.Dest = "/p/q"
		tt.c.Sources = one(src, Item{Path: "s", Contents: true})
		res, err := Run(t.Context(), im.spec(&tt.c), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if unknown := strings.HasPrefix(tt.c.Chown, "nobody"); unknown != (len(res.Warnings) == 1) {
			t.Errorf("chown %q: warnings %q", tt.c.Chown, res.Warnings)
		}
		for name, want := range map[string]string{"p": tt.own, "p/q": tt.own, "p/q/d": tt.file,
			"p/q/d/f": tt.file} {
			var st unix.Stat_t
			if err := unix.Lstat(im.path(name), &st); err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprintf("%d:%d", st.Uid, st.Gid); got != want {
				t.Errorf("chown %q: %s belongs to %s, want %s", tt.c.Chown, name, got, want)
			}
			if name == "p/q/d/f" && st.Mode&0o7777 != 0o4755 {
				t.Errorf("chown %q: mode %o", tt.c.Chown, st.Mode)
			}
		}
	}
}

func TestCopyOwnerWithOneID(t *testing.T) {
	im := newImage(t)
	if !singleID {
		t.Skip("there are many ids")
	}
	c := &Copy{Dest: "/p/q", Chown: "5:6",
		Sources: one(source(t, "file a 0644 x"), Item{Path: "a"})}
	res, err := Run(t.Context(), im.spec(c), nil, nil)
	if err != nil || res.OwnersLost != 2 || res.FirstOwner != "p: 5:6" {
		t.Errorf("got %+v, %v", res, err)
	}
}

func TestCopyAttributes(t *testing.T) {
	im := newImage(t)
	src := source(t, "dir s 0755", "file s/f 0755 x", "dir s/d 0755")
	name := filepath.Join(src.Name(), "s/f")
	// CAP_NET_BIND_SERVICE, version 2
	capability := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	set := map[string][]byte{"user.mine": []byte("m"), "user.overlay.opaque": []byte("y"),
		"security.capability": capability}
	for attr, value := range set {
		if err := unix.Setxattr(name, attr, value, 0); err != nil {
			t.Skipf("%s can't be set here: %v", attr, err)
		}
	}
	if err := unix.Setxattr(filepath.Join(src.Name(), "s/d"), "user.mine",
		[]byte("d"), 0); err != nil {
		t.Fatal(err)
	}
	im.mustRun(&Copy{Dest: "/a", Sources: one(src, Item{Path: "s", Contents: true})})
	buf := make([]byte, 100)
	for attr, want := range set {
		n, err := unix.Getxattr(im.path("a/f"), attr, buf)
		if attr == "user.overlay.opaque" {
			if err != unix.ENODATA {
				t.Errorf("%s was copied: %v", attr, err)
			}
			continue
		}
		if err != nil || !bytes.Equal(buf[:n], want) {
			t.Errorf("%s: got %q, %v", attr, buf[:max(n, 0)], err)
		}
	}
	if n, err := unix.Getxattr(im.path("a/d"), "user.mine", buf); err != nil ||
		string(buf[:n]) != "d" {
		t.Errorf("a directory's: %v", err)
	}
}

func TestCopyContents(t *testing.T) {
	im := newImage(t)
	src := source(t)
	rnd := make([]byte, 3<<20+17)
	for i := range rnd {
		rnd[i] = byte(i * i >> 7)
	}
	files := map[string][]byte{"big": rnd, "empty": nil, "edge": rnd[:largeFile],
		"odd": rnd[:300<<10+1]}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(src.Name(), name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	sparse, err := os.Create(filepath.Join(src.Name(), "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	sparse.WriteAt([]byte("middle"), 5<<20)
	sparse.Truncate(64 << 20)
	sparse.Close()
	im.mustRun(&Copy{Dest: "/", Sources: one(src, Item{Path: ".", Contents: true})})
	for name, want := range files {
		if got, err := os.ReadFile(im.path(name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s differs: %v", name, err)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(im.path("sparse"), &st); err != nil || st.Size != 64<<20 ||
		st.Blocks*512 > 1<<20 {
		t.Errorf("sparse: size %d, %d blocks, %v", st.Size, st.Blocks, err)
	}
	got := make([]byte, 6)
	f, _ := os.Open(im.path("sparse"))
	defer f.Close()
	if _, err := f.ReadAt(got, 5<<20); err != nil || string(got) != "middle" {
		t.Errorf("sparse: got %q, %v", got, err)
	}
}

func TestCopyInline(t *testing.T) {
	im := newImage(t)
	epoch := int64(1234567)
	s := im.spec(&Copy{Dest: "/d/", Chmod: "u+x",
		Inline: []File{{Name: "a", Data: []byte("A")}, {Name: "b", Mode: 0o600}}})
	s.Epoch = &epoch
	if _, err := Run(t.Context(), s, nil, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"dir d 0755", "file d/a 0744 A", "file d/b 0700 "},
		im.tree()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for _, name := range []string{"d/a", "d/b"} {
		if fi, err := os.Stat(im.path(name)); err != nil || fi.ModTime().Unix() != epoch {
			t.Errorf("%s: time %v, %v", name, fi.ModTime(), err)
		}
	}
	im.mustRun(&Copy{Dest: "/name", Inline: []File{{Name: "EOF", Data: []byte("x")}}})
	if b, _ := os.ReadFile(im.path("name")); string(b) != "x" {
		t.Errorf("got %q", b)
	}
}

// archive returns a tar archive compressed with gzip.
func archive(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	w := tar.NewWriter(z)
	for _, h := range headers {
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		body := h.Linkname
		if h.Typeflag == tar.TypeReg {
			h.Linkname, h.Size = "", int64(len(body))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			w.Write([]byte(body))
		}
	}
	w.Close()
	z.Close()
	return buf.Bytes()
}

func TestAddArchive(t *testing.T) {
	im := newImage(t)
	im.mkdir("real")
	im.link("real", "lib")
	src := source(t)
	own := 3
	if singleID {
		own = 0
	}
	write := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(src.Name(), name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a.bin", archive(t, tar.Header{Name: "lib/", Typeflag: tar.TypeDir, Mode: 0o755},
		tar.Header{Name: "lib/f", Typeflag: tar.TypeReg, Linkname: "x", Uid: own,
			Gid: own, Mode: 0o4755},
		tar.Header{Name: "../../out", Typeflag: tar.TypeReg, Linkname: "o"},
		tar.Header{Name: ".wh.x", Typeflag: tar.TypeReg, Linkname: "w"}))
	var gz bytes.Buffer
	z := gzip.NewWriter(&gz)
	z.Write([]byte("only text"))
	z.Close()
	write("text.tar.gz", gz.Bytes())
	src2 := []Source{{Dir: src, Items: []Item{{Path: "a.bin"}, {Path: "text.tar.gz"}}}}
	im.mustRun(&Copy{Dest: "/", Unpack: true, Sources: src2})
	who := ""
	if own != 0 {
		who = " 3:3"
	}
	want := []string{"file .wh.x 0644 w", "link lib real", "file out 0644 o", "dir real 0755",
		"file real/f 4755 x" + who}
	got := im.tree()
	if len(got) == len(want)+1 && strings.HasPrefix(got[len(got)-1],
		"file text.tar.gz 0644 \x1f\x8b") {
		got = got[:len(got)-1]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if own != 0 {
		im.mustRun(&Copy{Dest: "/new", Unpack: true, Chown: "5:6",
			Sources: one(src, Item{Path: "a.bin"})})
		for _, name := range []string{"new", "new/lib/f"} {
			var st unix.Stat_t
			if err := unix.Stat(im.path(name), &st); err != nil || st.Uid != 5 || st.Gid != 6 {
				t.Errorf("%s: owner %d:%d, %v", name, st.Uid, st.Gid, err)
			}
		}
	}
	write("bad.tar.gz", archive(t, tar.Header{Name: "f", Typeflag: tar.TypeReg,
		Linkname: strings.Repeat("x", 100000)})[:150])
	if _, err := im.run(&Copy{Dest: "/", Unpack: true,
		Sources: one(src, Item{Path: "bad.tar.gz"})}); err == nil ||
		!strings.HasPrefix(err.Error(), "unpack bad.tar.gz: ") {
		t.Errorf("got %v", err)
	}
}

func TestMkdir(t *testing.T) {
	im := newImage(t)
	im.mkdir("etc")
	im.write("etc/passwd", "app:x:1000:2000::/:\n", 0o644)
	im.mkdir("there")
	im.link("/there", "l")
	im.write("f", "", 0o644)
	epoch := int64(99)
	run := func(path, user string) error {
		s := im.spec(&Mkdir{Path: path, User: user})
		s.Epoch = &epoch
		_, err := Run(t.Context(), s, nil, nil)
		return err
	}
	user, owner := "app", [2]uint32{1000, 2000}
	if singleID {
		owner = [2]uint32{}
	}
	for _, path := range []string{"/", "/l/new/sub", "/x"} {
		if err := run(path, user); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	for name, want := range map[string][2]uint32{"there": {}, "there/new": owner,
		"there/new/sub": owner, "x": owner} {
		var st unix.Stat_t
		if err := unix.Lstat(im.path(name), &st); err != nil || [2]uint32{st.Uid, st.Gid} != want ||
			st.Mode&0o7777 != 0o755 {
			t.Errorf("%s: %d:%d %o, %v", name, st.Uid, st.Gid, st.Mode, err)
		}
		if made := want == owner && name != "there"; made && name != "there/new" &&
			st.Mtim.Sec != epoch {
			t.Errorf("%s: time %d", name, st.Mtim.Sec)
		}
	}
	if err := run("/f/x", ""); err == nil ||
		err.Error() != "make the directory /f/x: not a directory" {
		t.Errorf("got %v", err)
	}
	if !singleID {
		if err := run("/n", "7"); err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if unix.Stat(im.path("n"), &st); st.Uid != 7 || st.Gid != 7 {
			t.Errorf("a number without a group: got %d:%d", st.Uid, st.Gid)
		}
	}
}
