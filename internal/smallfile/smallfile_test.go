package smallfile

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	for _, size := range []int{0, 1, 1023, 1024, 1025, 2048, 5000, 1 << 20} {
		path := filepath.Join(dir, "file")
		want := bytes.Repeat([]byte("x"), size)
		if err := os.WriteFile(path, want, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("Read of %d bytes: %d, %v", size, len(got), err)
		}
	}
	if got, err := Read("/proc/self/stat"); err != nil || len(got) == 0 {
		t.Errorf("Read of a file whose size is not known: %q, %v", got, err)
	}
}

func TestErrors(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "none")} {
		_, err := Read(path)
		_, want := os.ReadFile(path)
		if err == nil || err.Error() != want.Error() ||
			errors.Is(err, fs.ErrNotExist) != errors.Is(want, fs.ErrNotExist) {
			t.Errorf("Read(%s): %v, want %v", path, err, want)
		}
	}
}

// TestBootID checks that the id is a UUID without the file's newline.
func TestBootID(t *testing.T) {
	uuid := regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	if id, err := BootID(); err != nil || !uuid.MatchString(id) {
		t.Errorf("BootID: %q, %v, want a UUID", id, err)
	}
}

func BenchmarkRead(b *testing.B) {
	path := filepath.Join(b.TempDir(), "file")
	if err := os.WriteFile(path, make([]byte, 300), 0o600); err != nil {
		b.Fatal(err)
	}
	b.Run("smallfile", func(b *testing.B) {
		for b.Loop() {
			Read(path)
		}
	})
	b.Run("os", func(b *testing.B) {
		for b.Loop() {
			os.ReadFile(path)
		}
	})
}

// TestFifo reads a fifo that no one writes to, without waiting for a writer.
func TestFifo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if data, err := Read(path); len(data) > 0 {
		t.Errorf("a fifo has %q, %v", data, err)
	}
}
