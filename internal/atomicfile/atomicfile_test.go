package atomicfile

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

var errStop = errors.New("stop")

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	text := func(s string, err error) func(io.Writer) error {
		return func(w io.Writer) error {
			io.WriteString(w, s)
			return err
		}
	}
	check := func(want string, mode os.FileMode) {
		t.Helper()
		got, err := os.ReadFile(path)
		if err != nil && want != "" || string(got) != want {
			t.Errorf("the file holds %q (%v), want %q", got, err, want)
		}
		if fi, err := os.Stat(path); err == nil && fi.Mode() != mode {
			t.Errorf("mode %v, want %v", fi.Mode(), mode)
		}
		if names, _ := os.ReadDir(dir); len(names) > 1 {
			t.Errorf("there is more than the file: %v", names)
		}
	}
	if err := Write(path, 0o600, text("half", errStop)); err != errStop {
		t.Errorf("Write = %v, want %v", err, errStop)
	}
	check("", 0)
	if err := Write(path, 0o600, text("one", nil)); err != nil {
		t.Fatal(err)
	}
	check("one", 0o600)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, 0o600, text("half", errStop)); err != errStop {
		t.Errorf("Write = %v, want %v", err, errStop)
	}
	check("one", 0o640)
	if err := WriteFile(path, []byte("two"), 0o600); err != nil {
		t.Fatal(err)
	}
	check("two", 0o640)
}

// TestCreateNamed makes a file with a name in /proc, which does not support O_TMPFILE.
func TestCreateNamed(t *testing.T) {
	temp := filepath.Join(t.TempDir(), "temp")
	f, named, err := create("/proc", temp, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := os.Stat(temp); err != nil || !named {
		t.Errorf("create: named is %v, %v", named, err)
	}
}

// TestDescriptor checks that Write does not replace a file that is open as a descriptor of the
// process.
func TestDescriptor(t *testing.T) {
	for path, want := range map[string]bool{"/dev/stdout": true, "/dev/fd/3": true,
		"/proc/self/fd/3": true, "/dev/shm/x": false, "f": false} {
		if got := isDescriptor(path); got != want {
			t.Errorf("isDescriptor(%s) = %v", path, got)
		}
	}
}
