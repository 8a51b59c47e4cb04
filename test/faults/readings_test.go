package faults

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/test/lab"
)

// oneFile is a tar of one file.
func oneFile(t *testing.T, h tar.Header, content string) []byte {
	t.Helper()
	h.Typeflag, h.Mode = tar.TypeReg, 0o644
	return imagetest.Tar(t, imagetest.TarFile(h, content))
}

// patched changes the first header of a tar and its checksum.
func patched(data []byte, at int, with string) []byte {
	data = slices.Clone(data)
	copy(data[at:], with)
	copy(data[148:], "        ")
	sum := 0
	for _, c := range data[:512] {
		sum += int(c)
	}
	copy(data[148:], fmt.Sprintf("%06o\x00 ", sum))
	return data
}

// TestReadings builds on layers, and unpacks archives by ADD, that readers of tar understand
// differently. If they are accepted, the image must have the files that archive/tar reads.
func TestReadings(t *testing.T) {
	lab.Root(t)
	const record = 1024 // a header and its data, both short
	long := strings.Repeat("n", 120)
	plain := oneFile(t, tar.Header{Name: "plain"}, "plain")
	inner := string(oneFile(t, tar.Header{Name: "smuggled"}, "seen by some")[:record])
	pathIn := oneFile(t, tar.Header{Name: "p\u00e4th"}, "x")[:record]
	longIn := oneFile(t, tar.Header{Name: long, Format: tar.FormatGNU}, "x")[:record]
	// sparse makes the records of a sparse file, which tar.Writer does not write.
	sparse := func(records map[string]string) []byte {
		renamed := map[string]string{}
		for k, v := range records {
			renamed["GNUxsparse."+k] = v
		}
		content := "1\n1000\n3\n" + strings.Repeat("\x00", 503) + "abc"
		data := oneFile(t, tar.Header{Name: "made-up", PAXRecords: renamed}, content)
		return bytes.ReplaceAll(data, []byte("GNUxsparse."), []byte("GNU.sparse."))
	}
	for _, tt := range []struct {
		name string
		data []byte
		err  string
	}{
		{"a file with a slash", patched(oneFile(t, tar.Header{Name: "p"}, inner), 0, "p/"),
			"ends in a slash"},
		{"two PAX headers", slices.Concat(pathIn,
			oneFile(t, tar.Header{Name: "plain", Uid: 5, PAXRecords: map[string]string{"A.b": "c"}},
				"x")), ""},
		{"a GNU name and a PAX path", slices.Concat(longIn,
			oneFile(t, tar.Header{Name: "p\u00e4th"}, "x")), "ambiguous"},
		{"a sparse file of version 1.0", sparse(map[string]string{"major": "1", "minor": "0",
			"name": "sparse", "realsize": "2000"}), ""},
		{"a sparse file of version 1.1", sparse(map[string]string{"major": "1", "minor": "1",
			"name": "sparse", "realsize": "2000"}), "ambiguous"},
		{"a sparse file without a map", sparse(map[string]string{"name": "sparse",
			"realsize": "2000"}), "ambiguous"},
		{"a prefix in a GNU header", patched(oneFile(t,
			tar.Header{Name: "f", Format: tar.FormatGNU}, "x"), 345, "prefix"), ""},
	} {
		data := slices.Concat(tt.data[:len(tt.data)-1024], plain)
		for _, as := range []string{"layer", "archive"} {
			t.Run(as+"/"+tt.name, func(t *testing.T) {
				l := lab.New(t)
				base := filepath.Join(t.TempDir(), "base")
				layout(t, base, ocispec.MediaTypeImageLayerGzip, func(w io.Writer) error {
					content := data
					if as == "archive" {
						content = make([]byte, 1024)
					}
					_, err := w.Write(content)
					return err
				})
				lines := "FROM base\nLABEL a=b\n"
				if as == "archive" {
					l.Write("a.tar", string(data))
					lines += "ADD a.tar /\n"
				}
				l.Write("Dockerfile", lines)
				cmd := build(l, "--driver=copy", "--build-context=base=oci-layout://"+base, "-o",
					"out")
				if tt.err != "" {
					refused(t, cmd, tt.err)
					return
				}
				if r := run(t, cmd); r.status != 0 {
					t.Fatalf("status %d\n%s", r.status, tail(r.log))
				}
				entries, err := imagetest.ReadTar(bytes.NewReader(data))
				if err != nil {
					t.Fatal(err)
				}
				want := map[string]string{}
				for _, e := range entries {
					want[e.Path] = string(e.Data)
				}
				if got := contents(t, filepath.Join(l.Dir, "out")); !maps.Equal(got, want) {
					t.Errorf("the image has %q, archive/tar sees %q", got, want)
				}
			})
		}
	}
}

// contents returns the content of all files below a directory.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		raw, err := os.ReadFile(filepath.Join(dir, name))
		all[name] = string(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
