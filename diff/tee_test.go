package diff

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

type failing struct{ after int }

var errFull = errors.New("full")

func (w *failing) Write(p []byte) (int, error) {
	if w.after -= len(p); w.after < 0 {
		return 0, errFull
	}
	return len(p), nil
}

// TestSealTee checks that the tee gets the tar stream of small and of large layers, and that its
// error ends the sealing.
func TestSealTee(t *testing.T) {
	defer goleak.VerifyNone(t)
	for _, size := range []int{0, 1000, 64 << 10, 5 << 20} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "f"),
			bytes.Repeat([]byte("tee "), size/4), 0o644); err != nil {
			t.Fatal(err)
		}
		tree := Tree{Dir: dir}
		var tee bytes.Buffer
		layer, _ := sealed(t, tree, Options{Tee: &tee})
		if want := write(t, tree, Options{}); !bytes.Equal(tee.Bytes(), want) ||
			layer.Size != int64(len(want)) {
			t.Errorf("size %d: the tee has %d bytes, want %d", size, tee.Len(), len(want))
		}
		if _, err := Seal(t.Context(), &memory{}, tree,
			Options{Tee: &failing{after: size / 2}}); !errors.Is(err, errFull) {
			t.Errorf("size %d: Seal = %v, want the tee's error", size, err)
		}
	}
}
