package executor

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/executor/copyfs"
	"github.com/layerbuild/layerbuild/executor/copyfs/copyfstest"
	"golang.org/x/sys/unix"
)

func one(dir *os.File, it copyfs.Item) []copyfs.Source {
	return []copyfs.Source{{Dir: dir, Items: []copyfs.Item{it}}}
}

func TestCopy(t *testing.T) {
	for _, tt := range copyfstest.Cases {
		t.Run(tt.Name, func(t *testing.T) {
			im := newImage(t)
			copyfstest.Make(t, im.dir, tt.Image...)
			c := tt.Copy
			c.Sources = one(copyfstest.Source(t, tt.Source...), tt.Item)
			_, err := im.run(&c)
			tt.Check(t, im.dir, err)
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
	src := copyfstest.Source(t, "dir s 0755", "dir s/d 0755", "file s/d/f 4755 x", "link s/l d")
	for _, name := range []string{"s/d", "s/d/f"} {
		if err := os.Chown(filepath.Join(src.Name(), name), 7, 8); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Chmod(filepath.Join(src.Name(), "s/d/f"), 0o4755); err != nil {
		t.Fatal(err)
	}
	type test struct {
		c    copyfs.Copy
		own  string // owners of the parents and the top
		file string
	}
	for _, tt := range []test{
		{copyfs.Copy{}, "0:0", "0:0"},
		{copyfs.Copy{KeepOwner: true}, "0:0", "7:8"},
		{copyfs.Copy{Chown: "app"}, "1000:2000", "1000:2000"},
		{copyfs.Copy{Chown: "5"}, "5:5", "5:5"},
		{copyfs.Copy{Chown: "5:6", KeepOwner: true}, "5:6", "5:6"},
		{copyfs.Copy{Chown: "app:staff"}, "1000:50", "1000:50"},
		{copyfs.Copy{Chown: ":staff"}, "0:50", "0:50"},
		{copyfs.Copy{Chown: "nobody:nogroup"}, "0:0", "0:0"},
	} {
		os.RemoveAll(im.path("p"))
		tt.c.Dest = "/p/q"
		tt.c.Sources = one(src, copyfs.Item{Path: "s", Contents: true})
		res, err := Run(t.Context(), im.spec(&tt.c), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if unknown := strings.HasPrefix(tt.c.Chown,
			"nobody"); unknown != (len(res.Files.Warnings) == 1) {
			t.Errorf("chown %q: warnings %q", tt.c.Chown, res.Files.Warnings)
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
	c := &copyfs.Copy{Dest: "/p/q", Chown: "5:6",
		Sources: one(copyfstest.Source(t, "file a 0644 x"), copyfs.Item{Path: "a"})}
	res, err := Run(t.Context(), im.spec(c), nil, nil)
	if err != nil || res.Files.OwnersLost != 2 || res.Files.FirstOwner != "p: 5:6" {
		t.Errorf("got %+v, %v", res, err)
	}
}

func TestCopyAttributes(t *testing.T) {
	im := newImage(t)
	src := copyfstest.Source(t, "dir s 0755", "file s/f 0755 x", "dir s/d 0755")
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
	im.mustRun(&copyfs.Copy{Dest: "/a", Sources: one(src, copyfs.Item{Path: "s", Contents: true})})
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

func TestCopyInline(t *testing.T) {
	im := newImage(t)
	epoch := int64(1234567)
	s := im.spec(&copyfs.Copy{Dest: "/d/", Chmod: "u+x",
		Inline: []copyfs.File{{Name: "a", Data: []byte("A")}, {Name: "b", Mode: 0o600}}})
	s.Epoch = &epoch
	if _, err := Run(t.Context(), s, nil, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"dir d 0755", "file d/a 0744 A", "file d/b 0700 "},
		copyfstest.List(t, im.dir)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for _, name := range []string{"d/a", "d/b"} {
		if fi, err := os.Stat(im.path(name)); err != nil || fi.ModTime().Unix() != epoch {
			t.Errorf("%s: time %v, %v", name, fi.ModTime(), err)
		}
	}
	im.mustRun(&copyfs.Copy{Dest: "/name", Inline: []copyfs.File{{Name: "EOF", Data: []byte("x")}}})
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
	src := copyfstest.Source(t)
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
	src2 := []copyfs.Source{{Dir: src, Items: []copyfs.Item{{Path: "a.bin"},
		{Path: "text.tar.gz"}}}}
	im.mustRun(&copyfs.Copy{Dest: "/", Unpack: true, Sources: src2})
	who := ""
	if own != 0 {
		who = " 3:3"
	}
	want := []string{"file .wh.x 0644 w", "link lib real", "file out 0644 o", "dir real 0755",
		"file real/f 4755 x" + who}
	got := copyfstest.List(t, im.dir)
	if len(got) == len(want)+1 && strings.HasPrefix(got[len(got)-1],
		"file text.tar.gz 0644 \x1f\x8b") {
		got = got[:len(got)-1]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if own != 0 {
		im.mustRun(&copyfs.Copy{Dest: "/new", Unpack: true, Chown: "5:6",
			Sources: one(src, copyfs.Item{Path: "a.bin"})})
		for _, name := range []string{"new", "new/lib/f"} {
			var st unix.Stat_t
			if err := unix.Stat(im.path(name), &st); err != nil || st.Uid != 5 || st.Gid != 6 {
				t.Errorf("%s: owner %d:%d, %v", name, st.Uid, st.Gid, err)
			}
		}
	}
	write("bad.tar.gz", archive(t, tar.Header{Name: "f", Typeflag: tar.TypeReg,
		Linkname: strings.Repeat("x", 100000)})[:150])
	if _, err := im.run(&copyfs.Copy{Dest: "/", Unpack: true,
		Sources: one(src, copyfs.Item{Path: "bad.tar.gz"})}); err == nil ||
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
