package hostfile

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOpenRegular opens files of all types. None is waited for.
func TestOpenRegular(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(at("file"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(at("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("fifo", at("link")); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", at("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, tt := range []struct{ name, err string }{
		{at("file"), ""},
		{at("fifo"), "fifo: it is a fifo"},
		{at("link"), "link: it is a fifo"},
		{at("socket"), "no such device or address"},
		{at("missing"), "no such file or directory"},
		{dir, "is a directory"},
		{"/dev/null", "/dev/null: it is not a regular file"},
	} {
		data, err := ReadRegular(tt.name)
		if tt.err == "" {
			if string(data) != "text" || err != nil {
				t.Errorf("%s: %q, %v", tt.name, data, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.err)
		}
	}
}
