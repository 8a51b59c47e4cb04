package mounttest

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Kind is the kind of namespaces in which a test process runs.
type Kind string

const (
	// Root has the machine's ids and a mount namespace of its own.
	Root Kind = "root"
	// Range is a user namespace with many ids, as with /etc/subuid.
	Range Kind = "userns"
	// Single is a user namespace with a single id, made for an unprivileged user.
	Single Kind = "single-id"
	// None is used if no namespace could be made. Mounts cannot be tested.
	None Kind = "none"
)

const variable = "LAYERBUILD_MOUNTTEST"

// unprivileged is the id of the user for Single if the tests run as root.
const unprivileged = 12345

// Main runs a package's tests in a new mount namespace, and a new user namespace when not root.
// Call it from TestMain.
func Main(m *testing.M) int {
	unix.Umask(0o022) // tests compare modes, and a user of Debian 13 has the umask 002
	if Current() != "" {
		if err := enter(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}
	kind := Root
	if os.Geteuid() != 0 {
		kind = Single
	}
	// PDEATHSIG is sent when the thread that started the process ends.
	runtime.LockOSThread()
	cmd := command(kind, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return max(1, exit.ExitCode())
	}
	if err != nil {
		// No namespaces can be made here. Tests that need them skip.
		os.Setenv(variable, string(None))
		return m.Run()
	}
	return 0
}

// Current returns the kind of namespaces in which this process runs.
func Current() Kind { return Kind(os.Getenv(variable)) }

// UserNS reports whether this process runs in a user namespace.
func UserNS() bool { return Current() == Range || Current() == Single }

// Need skips a test that cannot mount anything here.
func Need(t testing.TB) {
	t.Helper()
	if Current() == None {
		t.Skip("needs root, or user namespaces for everybody")
	}
}

// TempDir is like t.TempDir, on a file system in memory, for tests that make thousands of files.
func TempDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if Current() == None || unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755") != nil {
		return dir
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// Again runs the top-level test of that name once more, in another kind of namespaces, and skips
// the test if the namespaces are not available.
func Again(t *testing.T, kind Kind, test string) {
	t.Helper()
	if Current() != Root {
		t.Skip("needs root")
	}
	// Use the same time limit as here: a long run has none.
	cmd := command(kind, "-test.run=^"+test+"$", "-test.v",
		"-test.timeout="+flag.Lookup("test.timeout").Value.String())
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.Process == nil {
		t.Skipf("cannot run as %s: %v", kind, err)
	}
	if err != nil {
		t.Errorf("as %s: %v\n%s", kind, err, out)
		return
	}
	if !strings.Contains(string(out), "\n=== RUN ") && !strings.HasPrefix(string(out), "=== RUN ") {
		t.Errorf("as %s: no test matches %s", kind, test)
	}
	// Show the skips and the progress of that run here.
	for line := range strings.Lines(string(out)) {
		switch _, text, found := strings.Cut(line, ".go:"); {
		case found && strings.Contains(text, "rounds are recorded in"):
			_, text, _ = strings.Cut(text, ": ")
			t.Log(strings.TrimSpace(text))
		case strings.Contains(line, "SKIP"),
			testing.Verbose() && strings.HasPrefix(line, "    --- ") &&
				!strings.Contains(line, "/seed="):
			t.Logf("as %s: %s", kind, strings.TrimSpace(line))
		}
	}
}

func command(kind Kind, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), variable+"="+string(kind))
	attr := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	switch kind {
	case Range:
		attr.Cloneflags |= unix.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: 0, Size: 65536}}
		attr.GidMappings = attr.UidMappings
		attr.GidMappingsEnableSetgroups = true
	case Single:
		attr.Cloneflags |= unix.CLONE_NEWUSER
		uid, gid := os.Geteuid(), os.Getegid()
		if uid == 0 {
			uid, gid = unprivileged, unprivileged
		}
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
		attr.Credential = &syscall.Credential{Uid: 0, Gid: 0, NoSetGroups: true}
	}
	cmd.SysProcAttr = attr
	return cmd
}

// enter makes the mounts private: with a shared root, mounts made here would appear on the host.
func enter() error {
	if Current() == None {
		return nil
	}
	// The execve that gave this process capabilities has cleared the setting.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	return nil
}
