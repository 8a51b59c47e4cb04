package layercheck

import (
	"archive/tar"
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/layerbuild/layerbuild/internal/fstree"
	"github.com/layerbuild/layerbuild/internal/imagetest"
)

// listed makes a tree from fstree's notation and lists it.
func listed(t *testing.T, text string) *Tree {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := fstree.Make(dir, text); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	tree, err := List(f, false)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// archive returns a layer with these headers; the content of each regular file is its name.
func archive(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var entries []imagetest.Entry
	for _, h := range headers {
		h.Uid, h.Gid = os.Getuid(), os.Getgid()
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(100, 0)
		}
		content := ""
		if h.Typeflag == tar.TypeReg && !strings.Contains(h.Name, ".wh.") {
			content = h.Name
		}
		entries = append(entries, imagetest.TarFile(h, content))
	}
	return imagetest.Tar(t, entries...)
}

func reg(name string) tar.Header {
	return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}
}
func dir(name string) tar.Header {
	return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}
}
func hard(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to, Mode: 0o644}
}

const (
	parent = "dir d 0755 @100\nfile d/a 0644 @100 d/a\nfile d/b 0644 @100 d/b\ndir d/s 0755 @100\nfile d/s/x 0644 @100 d/s/x\n"
	again  = "dir d 0755 @100\n"
)

func TestApplyAndCompare(t *testing.T) {
	for _, test := range []struct {
		name  string
		layer []tar.Header
		step  string
		want  []string
	}{
		{"nothing", nil, parent + again, nil},
		{"a whiteout", []tar.Header{dir("d/"), reg("d/.wh.a")},
			"dir d 0755 @100\nfile d/b 0644 @100 d/b\ndir d/s 0755 @100\nfile d/s/x 0644 @100 d/s/x\n" + again, nil},
		{"an opaque directory, the mark last",
			[]tar.Header{dir("d/"), reg("d/a"), reg("d/.wh..wh..opq")},
			"dir d 0755 @100\nfile d/a 0644 @100 d/a\n" + again, nil},
		{"a removed file comes back", []tar.Header{dir("d/"), dir("d/s/")},
			"dir d 0755 @100\nfile d/a 0644 @100 d/a\nfile d/b 0644 @100 d/b\ndir d/s 0755 @100\n" +
				again,
			[]string{`"d/s/x": the image has it (a file), the step does not`}},
		{"a file is missing", nil, parent + "file n 0644 @100 n\n" + again,
			[]string{`"n": the step has it (a file), the image does not`}},
		{"content", []tar.Header{dir("d/"), reg("d/a")},
			"dir d 0755 @100\nfile d/a 0644 @100 xxx\nfile d/b 0644 @100 d/b\ndir d/s 0755 @100\nfile d/s/x 0644 @100 d/s/x\n" + again,
			[]string{`"d/a": the image has other content`}},
		{"mode, time", nil,
			"dir d 0755 @100\nfile d/a 0600 @100 d/a\nfile d/b 0644 @101 d/b\ndir d/s 0755 @100\nfile d/s/x 0644 @100 d/s/x\n" + again,
			[]string{`"d/a": the image has mode 0644, the step 0600`,
				`"d/b": the image has time 100, the step 101`}},
		{"type", nil,
			"dir d 0755 @100\nlink d/a 0777 -> b\nfile d/b 0644 @100 d/b\ndir d/s 0755 @100\nfile d/s/x 0644 @100 d/s/x\n" + again,
			[]string{`"d/a": the image has a file, the step a symbolic link`}},
		{"links", []tar.Header{reg("l"), hard("m", "l")},
			parent + "file l 0644 @100 l\nhardlink m => l\n" + again, nil},
		{"links that are none for the step", []tar.Header{reg("l"), hard("m", "l")},
			parent + "file l 0644 @100 l\nfile m 0644 @100 l\n" + again,
			[]string{`"m": in the image it is one file with "l", for the step it is another`}},
		{"a directory over a file", []tar.Header{dir("d/"), dir("d/a/"), reg("d/a/n")},
			"dir d 0755 @100\ndir d/a 0755 @100\nfile d/a/n 0644 @100 d/a/n\nfile d/b 0644 @100 d/b\ndir d/s 0755 @100\nfile d/s/x 0644 @100 d/s/x\ndir d/a 0755 @100\n" + again, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			image := listed(t, parent+again)
			if err := image.Apply(bytes.NewReader(archive(t, test.layer...))); err != nil {
				t.Fatal(err)
			}
			got, err := Compare(image, listed(t, test.step), Options{})
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(test.want, got); d != "" {
				t.Errorf("differences (-want +got):\n%s", d)
			}
		})
	}
}

// TestApplyRefuses checks that layers that no change can produce are refused.
func TestApplyRefuses(t *testing.T) {
	for _, test := range []struct {
		layer []tar.Header
		want  string
	}{
		{[]tar.Header{reg(".wh.x")}, "removes nothing"},
		{[]tar.Header{reg("x"), reg("x")}, "two entries"},
		{[]tar.Header{{Typeflag: tar.TypeSymlink, Name: "x/", Linkname: "y"}}, "ends in a slash"},
		{[]tar.Header{reg("x/y")}, "is in no directory"},
		{[]tar.Header{reg("d/../x")}, "not a clean path"},
		{[]tar.Header{hard("x", "y")}, "which is not a file"},
	} {
		err := listed(t, parent).Apply(bytes.NewReader(archive(t, test.layer...)))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got the error %v, want one with %q", err, test.want)
		}
	}
}

// TestEpoch compares times that are limited to SOURCE_DATE_EPOCH.
func TestEpoch(t *testing.T) {
	epoch := int64(50)
	for _, test := range []struct {
		epoch *int64
		want  int
	}{{nil, 1}, {&epoch, 0}} {
		got, err := Compare(listed(t, "file f 0644 @100 f\n"), listed(t, "file f 0644 @200 f\n"),
			Options{Epoch: test.epoch})
		if err != nil || len(got) != test.want {
			t.Errorf("with epoch %v: %q, %v, want %d differences", test.epoch, got, err, test.want)
		}
	}
}
