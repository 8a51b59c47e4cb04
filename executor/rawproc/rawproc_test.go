package rawproc

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// wait waits for a process and returns its status.
func wait(t *testing.T, pid int) unix.WaitStatus {
	t.Helper()
	var ws unix.WaitStatus
	for {
		if _, err := unix.Wait4(pid, &ws, 0, nil); err != unix.EINTR {
			if err != nil {
				t.Fatal(err)
			}
			return ws
		}
	}
}

// program copies this test's program, and returns the copy and a descriptor that is open for
// writing it.
func program(t *testing.T) (path string, open *os.File) {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "program")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.Write(self); err != nil {
		t.Fatal(err)
	}
	return path, f
}

// TestMain makes the copy of the program exit with 7.
func TestMain(m *testing.M) {
	if os.Getenv("RAWPROC_EXIT") != "" {
		os.Exit(7)
	}
	os.Exit(m.Run())
}

// A process whose execve fails continues, and Failed has the error.
func TestExecveFails(t *testing.T) {
	fails := map[string]unix.Errno{"/no/such/file": unix.ENOENT}
	busy, _ := program(t)
	cmd := exec.Command(busy)
	cmd.Env = []string{"RAWPROC_EXIT=1"}
	if err := cmd.Run(); errors.Is(err, unix.ETXTBSY) { // Linux 6.11 and 6.12 may execute the file
		fails[busy] = unix.ETXTBSY
	}
	for path, want := range fails {
		var p Process
		p.Close(3, uintptr(^uint32(0)))
		p.Execve("execute", path, []string{path}, nil)
		p.Try(unix.SYS_EXIT_GROUP, 5)
		pid, err := p.Start(unix.CLONE_VFORK)
		if err != nil {
			t.Fatal(err)
		}
		what, e := p.Failed()
		if ws := wait(t, pid); what != "execute" || e != want || ws.ExitStatus() != 5 {
			t.Errorf("%s: status %d, %q: %v, want %v", path, ws.ExitStatus(), what, e, want)
		}
	}
}

func TestExecve(t *testing.T) {
	path, f := program(t)
	f.Close()
	var p Process
	p.Close(3, uintptr(^uint32(0)))
	p.Execve("execute", path, []string{path}, []string{"RAWPROC_EXIT=1"})
	p.Exit()
	Settle() // a process of another test may have a copy of f
	pid, err := p.Start(unix.CLONE_VFORK)
	if err != nil {
		t.Fatal(err)
	}
	what, e := p.Failed()
	if ws := wait(t, pid); e != 0 || ws.ExitStatus() != 7 {
		t.Errorf("status %d, %q: %v", ws.ExitStatus(), what, e)
	}
}

// slow returns a process that closes its descriptors when there is a byte in a pipe, and then waits
// for a signal.
func slow(pipe int) *Process {
	p := &Process{}
	p.Try(unix.SYS_READ, uintptr(pipe), Pointer(p, new(byte)), 1)
	p.Close(3, uintptr(^uint32(0)))
	forever := unix.NsecToTimespec(int64(time.Hour))
	p.Try(unix.SYS_NANOSLEEP, Pointer(p, &forever), 0)
	p.Exit()
	return p
}

func end(t *testing.T, p *Process, pid int) {
	unix.Kill(pid, unix.SIGKILL)
	wait(t, pid)
	p.Ended()
}

// A process has a copy of a descriptor that is open for writing. Settle waits until it is closed.
func TestSettle(t *testing.T) {
	path, f := program(t)
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer out.Close()
	p := slow(int(in.Fd()))
	pid, err := p.Start(0)
	if err != nil {
		t.Fatal(err)
	}
	defer end(t, p, pid)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if len(forks.open()) != 1 {
		t.Fatal("the process has closed its descriptors")
	}
	time.AfterFunc(50*time.Millisecond, func() { out.Write([]byte{1}) })
	Settle()
	cmd := exec.Command(path)
	cmd.Env = []string{"RAWPROC_EXIT=1"}
	if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("execute a file after Settle: %v", err)
	}
	if n := len(forks.open()); n != 0 {
		t.Errorf("%d processes are still recorded", n)
	}
}

// Settle does not wait for a process that ended without closing its descriptors.
func TestSettleAfterAProcessThatFailed(t *testing.T) {
	p := &Process{}
	p.Must("fail", unix.SYS_CLOSE, ^uintptr(0))
	p.Close(3, uintptr(^uint32(0)))
	p.Exit()
	pid, err := p.Start(0)
	if err != nil {
		t.Fatal(err)
	}
	wait(t, pid)
	p.Ended()
	Settle()
	if what, e := p.Failed(); what != "fail" || e != unix.EBADF {
		t.Errorf("failed: %q, %v", what, e)
	}
	if e := p.Errno(1); e != 0 {
		t.Errorf("the error of a call that was not made is %v", e)
	}
}
