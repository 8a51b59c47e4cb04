package executor

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// againVar is set in the processes of TestInChild and TestRootless.
const againVar = "LAYERBUILD_EXECUTOR_TEST_AGAIN"

// childVar makes steps run in a child even if a thread is enough.
const childVar = "LAYERBUILD_EXECUTOR_TEST_CHILD"

// TestInChild runs all tests again in a child process, as on older kernels.
func TestInChild(t *testing.T) {
	if os.Getenv(againVar) != "" {
		t.Skip("this is another run already")
	}
	if testing.Short() {
		t.Skip("short")
	}
	cmd := exec.Command("/proc/self/exe", again()...)
	cmd.Env = append(os.Environ(), againVar+"=1", childVar+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, failed(out))
	}
}

// failed returns the output of failed tests in a run's output (-test.v), and its end.
func failed(out []byte) string {
	var said strings.Builder
	lines := strings.SplitAfter(string(out), "\n")
	from := 0 // where the output of the current test begins
	for i, line := range lines {
		switch {
		case strings.HasPrefix(line, "=== RUN") && !strings.Contains(line, "/"):
			from = i
		case strings.HasPrefix(line, "--- FAIL"), strings.HasPrefix(line, "panic:"),
			strings.HasPrefix(line, "fatal error:"):
			said.WriteString(strings.Join(lines[from:i], ""))
			from = i
		case strings.HasPrefix(line, "--- "):
			from = i + 1
		}
	}
	// the end, and messages after a failed test's name
	said.WriteString(strings.Join(lines[from:], ""))
	return said.String()
}

// again returns the arguments for another run of this test program.
func again() []string {
	args := []string{"-test.v"}
	for _, a := range os.Args[1:] {
		if strings.HasPrefix(a, "-test.run=") && !strings.Contains(a, "Rootless") &&
			!strings.Contains(a, "InChild") {
			args = append(args, a)
		}
	}
	return args
}

// TestRootless runs all tests again in user namespaces: one with many ids and one with a single
// one.
func TestRootless(t *testing.T) {
	if os.Getenv(againVar) != "" {
		t.Skip("this is rootless")
	}
	if testing.Short() {
		t.Skip("short")
	}
	many := []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 65536}}
	one := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	oneGroup := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	for _, tt := range []struct {
		name       string
		uids, gids []syscall.SysProcIDMap
		root       bool // needs root
	}{{"range", many, many, true}, {"single id", one, oneGroup, false}} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.root && os.Getuid() != 0 {
				t.Skip("mapping a range of ids takes root")
			}
			tmp := t.TempDir()
			for _, dir := range []string{tmp, tmp + "/.."} { // accessible to the range's user
				if err := os.Chmod(dir, 0o777); err != nil {
					t.Fatal(err)
				}
			}
			data, err := os.ReadFile("/proc/self/exe")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(tmp+"/executor.test", data, 0o755); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(tmp+"/executor.test", again()...)
			cmd.Dir = "/"
			cmd.Env = []string{againVar + "=1", "TMPDIR=" + tmp, "PATH=" + os.Getenv("PATH")}
			cmd.SysProcAttr = &syscall.SysProcAttr{
				Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
				UidMappings: tt.uids, GidMappings: tt.gids, GidMappingsEnableSetgroups: tt.root,
				Credential: &syscall.Credential{NoSetGroups: true},
			}
			out, err := cmd.CombinedOutput()
			if _, ok := err.(*exec.ExitError); err != nil && !ok {
				t.Skipf("no user namespaces here: %v", err)
			}
			if err != nil {
				t.Errorf("%v\n%s", err, failed(out))
			}
			t.Logf("%d passed, %d skipped", strings.Count(string(out), "--- PASS"),
				strings.Count(string(out), "--- SKIP"))
		})
	}
}
