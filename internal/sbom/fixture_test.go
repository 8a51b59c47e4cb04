package sbom

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// entry is an entry of a test's layer: a regular file, or a link if link is set, or a whiteout
// according to its path.
type entry struct {
	path, content string
	link          string // "-> target" or "= target", for a symbolic or a hard link
}

// layerOf returns a layer with the entries, compressed with gzip.
func layerOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, e := range entries {
		h := &tar.Header{Name: e.path, Mode: 0o644, Size: int64(len(e.content))}
		switch {
		case strings.HasPrefix(e.link, "-> "):
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.link[3:]
		case strings.HasPrefix(e.link, "= "):
			h.Typeflag, h.Linkname = tar.TypeLink, e.link[2:]
		case strings.HasSuffix(e.path, "/"):
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// imageOf returns an image of the layers. The instruction of layer n is "RUN n", at line n.
func imageOf(layers ...[]byte) Layers {
	img := Layers{Name: "docker.io/library/app:1", Digest: digest.FromString("manifest"),
		Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
		Created:  time.Unix(1700000000, 0), Tool: "1.0"}
	for i, data := range layers {
		img.Layers = append(img.Layers, Layer{
			DiffID: digest.FromString(fmt.Sprint("tar", i)), Digest: digest.FromBytes(data),
			Origin: Origin{Instruction: fmt.Sprintf("RUN %d", i+1), Line: i + 1},
			Read: func(_ context.Context, use func(io.Reader) error) error {
				return use(bytes.NewReader(data))
			},
		})
	}
	return img
}

// scanned returns the document of an image and fails the test if there are warnings.
func scanned(t testing.TB, layers ...[]byte) *Document {
	t.Helper()
	d, err := Scan(t.Context(), imageOf(layers...))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range d.Warnings {
		t.Errorf("warning: %s", w)
	}
	return d
}

// lines returns the packages of a document, one a line: the package URL, the number of the layer
// and the paths.
func lines(d *Document) string {
	var b strings.Builder
	for _, p := range d.Packages {
		fmt.Fprintf(&b, "%d %s", p.Layer()+1, p.PURL)
		for _, l := range p.Found {
			b.WriteString(" " + l.Path)
			if l.Layer != p.Layer() {
				fmt.Fprintf(&b, "@%d", l.Layer+1)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// equal compares lines with the lines of a text, whose indentation is ignored.
func equal(t testing.TB, got, want string) {
	t.Helper()
	var b strings.Builder
	for line := range strings.Lines(want) {
		if line = strings.TrimSpace(line); line != "" {
			b.WriteString(line + "\n")
		}
	}
	if got != b.String() {
		t.Errorf("got:\n%s\nwant:\n%s", got, b.String())
	}
}

// fixture returns a file of testdata; one whose name ends with .gz is decompressed.
func fixture(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(name, ".gz") {
		return data
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err == nil {
		data, err = io.ReadAll(z)
	}
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// read returns what the cataloger of a path finds in data.
func read(t testing.TB, at string, data []byte) (findings, error) {
	t.Helper()
	c := catalogerOf(at, data[:min(len(data), headSize)])
	if c == nil {
		t.Fatalf("no cataloger reads %s", at)
	}
	return c.read(&content{path: at, size: int64(len(data)), data: data,
		ReaderAt: bytes.NewReader(data)})
}

func decode(t testing.TB, data []byte) (v any) {
	t.Helper()
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// written returns what a method of a document writes.
func written(t testing.TB, write func(io.Writer) error) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
