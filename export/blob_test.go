package export

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/internal/event"
)

// blobFile is a blob in a file. It is copied by the kernel; reading it fails, unless the file
// changes during the copy.
type blobFile struct {
	file    *os.File
	changes bool // during the copy
	asked   int
}

func (b *blobFile) Read(p []byte) (int, error) {
	if !b.changes {
		return 0, errors.New("read through the program")
	}
	return b.file.Read(p)
}

func (b *blobFile) Unchanged() (*os.File, bool) {
	b.asked++
	return b.file, !b.changes || b.asked == 1
}

func TestCopyBlob(t *testing.T) {
	content := []byte(strings.Repeat("0123456789abcdef", 100_000))
	src := filepath.Join(t.TempDir(), "src")
	if err := os.WriteFile(src, content, 0o644); err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	size := int64(len(content))
	tests := []struct {
		name    string
		ctx     context.Context
		changes bool
		toFile  bool
		size    int64
		err     string
	}{
		{"file to file", context.Background(), false, true, size, ""},
		{"file to pipe", context.Background(), false, false, size, "read through the program"},
		{"changed during the copy", context.Background(), true, true, size, ""},
		{"shorter than its size", context.Background(), false, true, size + 1,
			"read through the program"},
		{"shorter than its size when it is read", context.Background(), true, true, size + 1,
			"it has 1600000 bytes, not 1600001"},
		{"cancelled", cancelled, false, true, size, "context canceled"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			from, err := os.Open(src)
			if err != nil {
				t.Fatal(err)
			}
			defer from.Close()
			dst := filepath.Join(t.TempDir(), "dst")
			to, err := os.Create(dst)
			if err != nil {
				t.Fatal(err)
			}
			defer to.Close()
			if _, err := to.WriteString("head"); err != nil {
				t.Fatal(err)
			}
			w := io.Writer(to)
			if !tt.toFile {
				w = io.Discard
			}
			j := &job{sink: event.Discard}
			err = copyBlob(tt.ctx, w, &blobFile{file: from, changes: tt.changes}, tt.size,
				make([]byte, 1000), j)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(dst)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, append([]byte("head"), content...)) {
				t.Error("the copy differs")
			}
			if j.part.Current != size {
				t.Errorf("progress %d, want %d", j.part.Current, size)
			}
		})
	}
}
