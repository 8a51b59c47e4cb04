package hostfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDescriptor(t *testing.T) {
	dir := t.TempDir()
	for name, to := range map[string]string{"link": "/dev/fd/7", "relative": "link", "loop": "loop",
		"other": "/etc/passwd"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]int{
		"/dev/fd/3": 3, "/dev/fd/./12": 12, "/proc/self/fd/0": 0, "/proc/thread-self/fd/4": 4,
		"/dev/stdin": 0, "/dev/stderr": 2,
		"/proc/self/task/1/fd/5": 5, fmt.Sprintf("/proc/%d/fd/6", os.Getpid()): 6, dir + "/link": 7,
		dir + "/relative": 7,
		"/proc/1/fd/3":    -1, "/dev/fd": -1, "/dev/fd/": -1, "/dev/fd/x": -1, "/dev/fd/3/x": -1,
		"/dev/fd/-1": -1, "/dev/fd/99999999999": -1,
		"": -1, "x": -1, dir + "/loop": -1, dir + "/other": -1, dir + "/none": -1, "/dev/null": -1,
	} {
		got, ok := Descriptor(name)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("Descriptor(%q) = %d, want %d", name, got, want)
		}
	}
}

// TestOpen opens pipes and files as a user who may not open them by name.
func TestOpen(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	private := filepath.Join(t.TempDir(), "private")
	if err := os.WriteFile(private, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(private)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	path := func(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }
	tests := []struct {
		name  string
		path  string
		flags int
		want  error
	}{
		{"a pipe to read from", path(r), os.O_RDONLY, nil},
		{"a pipe to read from, without waiting", path(r), os.O_RDONLY | unix.O_NONBLOCK, nil},
		{"a pipe to write to", path(w), os.O_WRONLY, nil},
		{"a file", path(f), os.O_RDONLY, nil},
		{"a file by its name", private, os.O_RDONLY, fs.ErrPermission},
		{"the wrong end of a pipe", path(w), os.O_RDONLY, fs.ErrPermission},
		{"a file that is open for reading", path(f), os.O_WRONLY, fs.ErrPermission},
		{"no descriptor", "/proc/self/fd/999", os.O_RDONLY, fs.ErrNotExist},
	}
	// Only this thread changes its user, and it ends with the goroutine.
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534); errno != 0 {
			t.Errorf("setresuid: %v", errno)
			return
		}
		for _, test := range tests {
			f, err := Open(test.path, test.flags)
			if !errors.Is(err, test.want) || test.want == nil && err != nil {
				t.Errorf("%s: %v, want %v", test.name, err, test.want)
			}
			if err == nil {
				f.Close()
			}
		}
	}()
	<-done
	if _, err := w.Write([]byte("x")); err != nil {
		t.Errorf("the pipe was closed with its duplicate: %v", err)
	}
}

// A file that a descriptor has open is not emptied, and writing continues at the descriptor's
// offset.
func TestOpenKeepsLog(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	f, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	link := log + ".link"
	if err := os.Symlink(fmt.Sprintf("/dev/fd/%d", f.Fd()), link); err != nil {
		t.Fatal(err)
	}
	const flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	fmt.Fprint(f, "before ")
	for _, name := range []string{fmt.Sprintf("/proc/self/fd/%d", f.Fd()), link} {
		out, err := Open(name, flags)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(out, "text ")
		out.Close()
		fmt.Fprint(f, "after ")
	}
	if got, err := os.ReadFile(log); err != nil || string(got) != "before text after text after " {
		t.Errorf("the log has %q, %v", got, err)
	}
	for range 2 {
		out, err := Open(log, flags)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(out, "new")
		out.Close()
	}
	if got, err := os.ReadFile(log); err != nil || string(got) != "new" {
		t.Errorf("the file has %q, %v, after it was opened by its name", got, err)
	}
}
