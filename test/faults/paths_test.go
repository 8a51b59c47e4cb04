package faults

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/test/lab"
)

func dir(path string) imagetest.Entry {
	return imagetest.Entry{Path: path, Header: &tar.Header{Typeflag: tar.TypeDir, Mode: 0o755}}
}

func file(path, text string) imagetest.Entry {
	return imagetest.Entry{Path: path, Header: &tar.Header{Typeflag: tar.TypeReg, Mode: 0o644},
		Data: []byte(text)}
}

func link(path, target string) imagetest.Entry {
	return imagetest.Entry{Path: path, Header: &tar.Header{Typeflag: tar.TypeSymlink,
		Linkname: target}}
}

func hardlink(path, target string) imagetest.Entry {
	return imagetest.Entry{Path: path, Header: &tar.Header{Typeflag: tar.TypeLink,
		Linkname: target}}
}

func device(path string, major, minor int64) imagetest.Entry {
	return imagetest.Entry{Path: path, Header: &tar.Header{Typeflag: tar.TypeChar, Mode: 0o666,
		Devmajor: major, Devminor: minor}}
}

// marked adds an extended attribute.
func marked(e imagetest.Entry, name, value string) imagetest.Entry {
	h := *e.Header
	h.PAXRecords = map[string]string{"SCHILY.xattr." + name: value}
	e.Header = &h
	return e
}

// hostile has layers that try to change files outside of the image, and layers with entries that
// are not allowed. OUT is a directory of the machine.
var hostile = []struct {
	name   string
	layers [][]imagetest.Entry
	err    string // of a build on the layers; "": they are accepted, and want is in the image
	want   string // "path=content", or "!path" for a path that must not exist
}{
	{"dot dot", [][]imagetest.Entry{{file("../../../../../../../..OUT/new", "x"),
		file("a/../../b", "in")}}, "", "b=in"},
	{"absolute", [][]imagetest.Entry{{file("/OUT/new", "x"), file("/b", "in")}}, "", "b=in"},
	{"through a link of the same layer", [][]imagetest.Entry{{link("l", "OUT"), file("l/new", "x"),
		file("b", "in")}}, "", "b=in"},
	{"through a relative link", [][]imagetest.Entry{{link("l", "../../../../../../..OUT"),
		file("l/secret", "x"), file("b", "in")}}, "", "b=in"},
	{"through a link of an earlier layer",
		[][]imagetest.Entry{{link("l", "OUT")}, {file("l/new", "x"), file("b", "in")}}, "", "b=in"},
	{"through a link to a link", [][]imagetest.Entry{{link("k", "OUT"), link("l", "k")},
		{file("l/d/new", "x"), file("b", "in")}}, "", "b=in"},
	{"hard link to itself", [][]imagetest.Entry{{file("h", "old")},
		{hardlink("h", "h"), file("b", "in")}}, "", "h=old"},
	{"hard link to outside", [][]imagetest.Entry{{hardlink("h", "OUT/secret"), file("b", "in")}},
		"h", ""},
	{"hard link to outside by dots", [][]imagetest.Entry{{hardlink("h",
		"../../../../../../..OUT/secret")}}, "h", ""},
	{"hard link through a link", [][]imagetest.Entry{{link("l", "OUT"), hardlink("h", "l/secret")}},
		"h", ""},
	{"hard link to the root", [][]imagetest.Entry{{hardlink("h", ".")}},
		"hard link to the root", ""},
	{"the root is a link", [][]imagetest.Entry{{link(".", "OUT"), file("new", "x")}},
		"the root is not a directory", ""},
	{"the root is a file", [][]imagetest.Entry{{file(".", "x")}},
		"the root is not a directory", ""},
	{"bare whiteout", [][]imagetest.Entry{{file("a", "x")}, {file(".wh.", "")}}, "whiteout", ""},
	{"whiteout of the parent", [][]imagetest.Entry{{file("a", "x")}, {file("d/.wh...", "")}},
		"whiteout", ""},
	{"whiteout of itself", [][]imagetest.Entry{{file("a", "x")}, {file(".wh..", "")}}, "whiteout",
		""},
	{"whiteout through a link", [][]imagetest.Entry{{link("l", "OUT"), file("b", "in")},
		{file("l/.wh.secret", "")}}, "", "b=in"},
	{"opaque through a link", [][]imagetest.Entry{{link("l", "OUT"), file("b", "in")},
		{file("l/.wh..wh..opq", "")}}, "", "b=in"},
	{"a name below a whiteout", [][]imagetest.Entry{{file("a", "x")}, {file(".wh.a/b", "x")}},
		"whiteout", ""},
	{"whiteout device", [][]imagetest.Entry{{file("d/a", "in")}, {dir("d"), device("d/a", 0, 0)}},
		"", "d/a=in"},
	{"opaque mark", [][]imagetest.Entry{{file("d/a", "in")},
		{marked(dir("d"), "trusted.overlay.opaque", "y")}}, "", "d/a=in"},
	{"opaque mark of users", [][]imagetest.Entry{{file("d/a", "in")},
		{marked(dir("d"), "user.overlay.opaque", "y")}}, "", "d/a=in"},
	{"opaque mark of fuse-overlayfs", [][]imagetest.Entry{{file("d/a", "in")},
		{marked(dir("d"), "user.fuseoverlayfs.opaque", "y")}}, "", "d/a=in"},
	{"redirect", [][]imagetest.Entry{{file("s/a", "x"), file("b", "in")},
		{marked(dir("d"), "trusted.overlay.redirect", "/s")}}, "", "!d/a"},
	{"redirect of users", [][]imagetest.Entry{{file("s/a", "x"), file("b", "in")},
		{marked(dir("d"), "user.overlay.redirect", "/s")}}, "", "!d/a"},
	{"metacopy", [][]imagetest.Entry{{file("b", "x")},
		{marked(file("b", "in"), "trusted.overlay.metacopy", "")}}, "", "b=in"},
	{"whiteout by attribute", [][]imagetest.Entry{{file("b", "in")},
		{marked(dir("."), "trusted.overlay.opaque", "x"),
			marked(file("c", ""), "trusted.overlay.whiteout", "")}}, "", "b=in"},
	{"whiteout by attribute of users", [][]imagetest.Entry{{file("c", "in")},
		{marked(file("c", "two"), "user.overlay.whiteout", "y")}}, "", "c=two"},
	{"a hard link through a loop of links", [][]imagetest.Entry{{dir("a"), file("a/b", "x")},
		{link("a", "../a"), hardlink("c", "a/b")}}, "hard link to \"a/b\"", ""},
	{"a file below a loop of links", [][]imagetest.Entry{{file("b", "x")},
		{link("a", "../a"), file("a/f", "x")}}, "a/f", ""},
	{"a hard link below a loop of links", [][]imagetest.Entry{{dir("d")},
		{link("d/a", "../d/a"), hardlink("c", "d/a/f")}}, "hard link to \"d/a/f\"", ""},
	{"a link where a directory is", [][]imagetest.Entry{{dir("d"), file("d/x", "x")},
		{link("d", "OUT"), file("d/new", "x"), file("b", "in")}}, "", "b=in"},
}

// TestHostileLayers builds on each of these, with the drivers that make snapshots in different
// ways.
func TestHostileLayers(t *testing.T) {
	lab.Root(t)
	for _, driver := range []string{"overlay", "copy"} {
		for _, tt := range hostile {
			t.Run(driver+"/"+tt.name, func(t *testing.T) {
				l := lab.New(t)
				l.Busybox()
				out := t.TempDir()
				secret := filepath.Join(out, "secret")
				if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
					t.Fatal(err)
				}
				made, err := imagetest.Make(dockerspec.DockerOCIImageConfig{},
					placed(tt.layers, out)...)
				if err != nil {
					t.Fatal(err)
				}
				l.Registry.Add("hostile", "1", made)
				l.Write("Dockerfile", "FROM "+l.Registry.Host+
					"/hostile:1\nRUN --mount=from=busybox,source=/bin,target=/bin true\nCOPY --from=busybox /bin/sh /copied\n")
				cmd := build(l, "--driver="+driver, "-o", "out")
				if tt.err != "" {
					refused(t, cmd, tt.err)
				} else if r := run(t, cmd); r.status == 0 {
					check(t, filepath.Join(l.Dir, "out"), tt.want)
				} else if !strings.Contains(r.log, "unpack") {
					t.Errorf("status %d\n%s", r.status, tail(r.log))
				}
				names, err := os.ReadDir(out)
				if err != nil || len(names) != 1 {
					t.Errorf("outside of the image there is %v, %v", names, err)
				}
				if raw, err := os.ReadFile(secret); err != nil || string(raw) != "secret" {
					t.Errorf("the file outside is %q, %v", raw, err)
				}
				clean(t, l)
			})
		}
	}
}

// TestHostileArchives unpacks the same layers, one after the other, by ADD.
func TestHostileArchives(t *testing.T) {
	lab.Root(t)
	for _, tt := range hostile {
		t.Run(tt.name, func(t *testing.T) {
			l := lab.New(t)
			out := t.TempDir()
			secret := filepath.Join(out, "secret")
			if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
				t.Fatal(err)
			}
			lines := "FROM scratch\n"
			for i, entries := range placed(tt.layers, out) {
				name := string(rune('a'+i)) + ".tar"
				l.Write(name, string(imagetest.Tar(t, entries...)))
				lines += "ADD " + name + " /\nADD " + name + " /to/\n"
			}
			l.Write("Dockerfile", lines)
			run(t, build(l, "-o", "out"))
			names, err := os.ReadDir(out)
			if err != nil || len(names) != 1 {
				t.Errorf("outside of the image there is %v, %v", names, err)
			}
			if raw, err := os.ReadFile(secret); err != nil || string(raw) != "secret" {
				t.Errorf("the file outside is %q, %v", raw, err)
			}
			clean(t, l)
		})
	}
}

func placed(layers [][]imagetest.Entry, out string) [][]imagetest.Entry {
	var all [][]imagetest.Entry
	for _, entries := range layers {
		var placed []imagetest.Entry
		for _, e := range entries {
			h := *e.Header
			h.Linkname = strings.ReplaceAll(h.Linkname, "OUT", out)
			placed = append(placed, imagetest.Entry{
				Path:   strings.ReplaceAll(strings.ReplaceAll(e.Path, "/OUT", out), "OUT", out),
				Header: &h, Data: e.Data})
		}
		all = append(all, placed)
	}
	return all
}

// check looks for "path=content" or "!path" below a directory.
func check(t *testing.T, root, want string) {
	t.Helper()
	if name, ok := strings.CutPrefix(want, "!"); ok {
		if _, err := os.Lstat(filepath.Join(root, name)); err == nil {
			t.Errorf("%s is in the image", name)
		}
		return
	}
	name, content, _ := strings.Cut(want, "=")
	if raw, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(raw) != content {
		t.Errorf("%s in the image is %q, %v, want %q", name, raw, err, content)
	}
}
