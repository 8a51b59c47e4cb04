package image

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAmbiguousArchive checks that archives are refused whose files different readers interpret
// differently.
func TestAmbiguousArchive(t *testing.T) {
	file := func(name string, records map[string]string) tar.Header {
		return tar.Header{Typeflag: tar.TypeReg, Name: name, Size: 4, PAXRecords: records}
	}
	// A map without holes: archive/tar reads the four bytes.
	sparse := map[string]string{"GNUxsparse.size": "4", "GNUxsparse.numblocks": "1",
		"GNUxsparse.map": "0,4"}
	for _, tt := range []struct {
		name    string
		members []tar.Header
		err     string // "": accepted
	}{
		{"plain", []tar.Header{file("manifest.json", nil), file("a", nil)}, ""},
		// the digest identifies the blob
		{"a blob twice", []tar.Header{file("a", nil), file("a", nil)}, ""},
		{"sparse", []tar.Header{file("manifest.json", sparse)}, "a sparse file"},
		{"slash", []tar.Header{file("\u00e4/manifest.jsonX", nil)}, "ends in a slash"},
		{"two manifests", []tar.Header{file("manifest.json", nil), file("manifest.json", nil)},
			"twice"},
		{"two indexes", []tar.Header{file("index.json", nil), file("./index.json", nil)}, "twice"},
		{"a link over an index", []tar.Header{file("index.json", nil),
			{Typeflag: tar.TypeSymlink, Name: "index.json", Linkname: "a"}}, "twice"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			for _, h := range tt.members {
				if err := w.WriteHeader(&h); err != nil {
					t.Fatal(err)
				}
				w.Write([]byte("data")[:h.Size])
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			// tar.Writer does not write these records.
			data := bytes.ReplaceAll(b.Bytes(), []byte("GNUxsparse."), []byte("GNU.sparse."))
			data = bytes.ReplaceAll(data, []byte("jsonX\n"), []byte("json/\n"))
			path := filepath.Join(t.TempDir(), "a.tar")
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			_, err = indexArchive(t.Context(), f)
			if tt.err == "" && err != nil {
				t.Error(err)
			}
			if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("got the error %v, want one with %q", err, tt.err)
			}
		})
	}
}
