package diff

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
)

// FuzzApply checks that a layer changes nothing outside of the directory that it is applied to, and
// that the returned diffID is the digest of its bytes.
func FuzzApply(f *testing.F) {
	for _, names := range [][]string{{"a", "b/c", "b/.wh.c"}, {"../x", "/y", "l/z"},
		{".wh..wh..opq", "d/.wh..wh..opq"}, {".wh.", "."}} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "l", Linkname: "../outside"})
		for _, n := range names {
			w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: n, Mode: 0o644})
		}
		w.Close()
		f.Add(b.Bytes(), true)
		f.Add(b.Bytes(), false)
	}
	f.Fuzz(func(t *testing.T, data []byte, full bool) {
		top := t.TempDir()
		dir, outside := filepath.Join(top, "dir"), filepath.Join(top, "outside")
		for _, d := range []string{dir, outside} {
			if err := os.Mkdir(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		skip := func(string, string, error) {}
		got, err := Apply(context.Background(), bytes.NewReader(data), dir, ApplyOptions{
			Full: full, UserXattr: os.Geteuid() != 0, OnSkip: skip,
			OnOwnerError: func(string, int, int, error) {},
		})
		if left, _ := os.ReadDir(outside); len(left) > 0 {
			t.Errorf("outside there is %v", left)
		}
		if left, _ := os.ReadDir(top); len(left) != 2 {
			t.Errorf("beside the directory there is %v", left)
		}
		if err == nil && got.Size == int64(len(data)) && got.DiffID != digest.FromBytes(data) {
			t.Errorf("the layer is said to be %s", got.DiffID)
		}
	})
}
