package volume

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestRacy(t *testing.T) {
	const now = int64(1_700_000_000_500_000_000)
	fs := Volume{fine: 25 * time.Millisecond, coarse: 2500 * time.Millisecond}
	tests := []struct {
		ctime int64
		want  bool
	}{
		{now, true},
		{now + 1, true}, // the clock is wrong
		{now - 10e6, true},
		{now - 26e6, false},
		{now - 500e6, true}, // a whole second: the file system may have no finer times
		{now - 2500e6, true},
		{now - 3500e6, false},
	}
	for _, tt := range tests {
		if got := fs.Racy(tt.ctime, now); got != tt.want {
			t.Errorf("Racy(now%+d) = %v, want %v", tt.ctime-now, got, tt.want)
		}
	}
}

// A stamp changes with each change of the content, and is settled only when the next change gets
// another one.
func TestStamp(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	stamp := func() (string, bool) {
		t.Helper()
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		return Stamp(f)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a")
	first, settled := stamp()
	if first == "" {
		t.Skip("the test's directory is on a file system that is not trusted")
	}
	if settled {
		t.Error("a file that was just written is settled")
	}
	for try := 0; !settled; try++ {
		if try == 100 {
			t.Fatal("the file is not settled after five seconds")
		}
		time.Sleep(50 * time.Millisecond)
		var now string
		if now, settled = stamp(); now != first {
			t.Fatalf("stamp %q, then %q without a change", first, now)
		}
	}
	// The same size and mtime, as a program can set them.
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	write("b")
	if err := os.Chtimes(path, fi.ModTime(), fi.ModTime()); err != nil {
		t.Fatal(err)
	}
	if now, _ := stamp(); now == first {
		t.Errorf("stamp %q before and after a change", now)
	}
	d, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if got, _ := Stamp(d); got != "" {
		t.Errorf("stamp %q of a directory", got)
	}
}

// The times of files in /proc say nothing about their content.
func TestStampUntrusted(t *testing.T) {
	f, err := os.Open("/proc/version")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, settled := Stamp(f); got != "" || settled {
		t.Errorf("Stamp = %q, %v", got, settled)
	}
}
