package imagetest

import (
	"archive/tar"
	"strings"
	"testing"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

func file(path, data string) Entry {
	return Entry{Path: path, Header: &tar.Header{Typeflag: tar.TypeReg, Mode: 0o644},
		Data: []byte(data)}
}

func dir(path string) Entry {
	return Entry{Path: path, Header: &tar.Header{Typeflag: tar.TypeDir, Mode: 0o755}}
}

// TestTree writes an image, reads it, and checks the tree of its layers.
func TestTree(t *testing.T) {
	made, err := Make(dockerspec.DockerOCIImageConfig{},
		[]Entry{dir("a"), file("a/old", "1"), file("a/keep", "2"), dir("b"), file("b/x", "3"),
			file("gone", "4"), file("c", "was a file")},
		[]Entry{dir("a"), file("a/.wh.old", ""), dir("b"), file("b/.wh..wh..opq", ""),
			file("b/y", "5"), file(".wh.gone", ""), dir("c"), file("c/in", "6"),
			{Path: "l", Header: &tar.Header{Typeflag: tar.TypeSymlink, Linkname: "a/keep"}},
			{Path: "h", Header: &tar.Header{Typeflag: tar.TypeLink, Linkname: "b/y"}}},
	)
	if err != nil {
		t.Fatal(err)
	}
	at := t.TempDir()
	if err := made.WriteLayout(at, "img:latest"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "img", "docker.io/library/img:latest"} {
		img, err := Open(at, name)
		if err != nil {
			t.Fatalf("Open(%q): %v", name, err)
		}
		tree, err := img.Tree()
		if err != nil {
			t.Fatal(err)
		}
		want := `dir a 0755
file a/keep 0644 "2"
dir b 0755
file b/y 0644 "5"
dir c 0755
file c/in 0644 "6"
hardlink h => b/y
link l -> a/keep
`
		if got := Lines(tree); got != want {
			t.Errorf("Tree() =\n%swant\n%s", got, want)
		}
		layer, err := img.Layer(-1)
		if err != nil {
			t.Fatal(err)
		}
		if got := Lines(layer); !strings.Contains(got, "whiteout a/old\n") ||
			!strings.Contains(got, "opaque b\n") {
			t.Errorf("Layer(-1) = %s", got)
		}
	}
	if _, err := Open(at, "other"); err == nil ||
		!strings.Contains(err.Error(), `no image "other"`) {
		t.Errorf("Open of a name that does not exist: %v", err)
	}
	if names, err := Names(at); err != nil || len(names) != 1 || names[0] != "img:latest" {
		t.Errorf("Names() = %q, %v", names, err)
	}
}
