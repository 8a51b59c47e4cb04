package faults

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// whole reports whether the long form of a test is requested.
func whole() bool { return os.Getenv("LAYERBUILD_FAULTS") == "1" }

// maxMemory is the maximum memory of the program for any input.
const maxMemory = 256 << 20

// hung returns the time after which a command counts as hung. Each takes less than a tenth of it on
// an idle machine. The whole tests have larger inputs, such as five million entries.
func hung() time.Duration {
	if whole() {
		return 30 * time.Minute
	}
	return 2 * time.Minute
}

// result is the result of a command.
type result struct {
	status int    // 128 + the signal for a command that was ended by a signal
	stdout string // the first megabytes of standard output
	log    string // standard error
	peak   int64  // peak memory of the command or one of its children
}

// run runs a command to its end. The test fails when the command does not end, ends by a signal or
// panics, or when it uses more than maxMemory.
func run(t testing.TB, cmd *exec.Cmd) result {
	t.Helper()
	r := watch(t, cmd)
	if r.peak > maxMemory {
		t.Errorf("%s: used %d MiB of memory, more than %d MiB", strings.Join(cmd.Args, " "),
			r.peak>>20, maxMemory>>20)
	}
	if r.status >= 128 || strings.Contains(r.log, "goroutine ") {
		t.Errorf("%s: status %d\n%s", strings.Join(cmd.Args, " "), r.status, r.log)
	}
	return r
}

// watch is like run, but does not check memory and status.
func watch(t testing.TB, cmd *exec.Cmd) result {
	t.Helper()
	return watchFor(t, cmd, hung())
}

// watchFor is like watch, with a given time after which the command counts as hung.
func watchFor(t testing.TB, cmd *exec.Cmd, limit time.Duration) result {
	t.Helper()
	stdout, log := &head{most: 4 << 20}, &head{most: 4 << 20}
	if cmd.Stdout == nil {
		cmd.Stdout = stdout
	}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := lab.Watch(cmd, limit)
	ctx, cancel := context.WithCancel(context.Background())
	peaks := make(chan int64)
	go func() { peaks <- poll(ctx, cmd.Process.Pid) }()
	cmd.Wait()
	hang := stop()
	cancel()
	r := result{stdout: stdout.String(), log: log.String(), peak: <-peaks}
	if hang != "" {
		t.Fatalf("%s: %s%s", strings.Join(cmd.Args, " "), hang, r.log)
	}
	state := cmd.ProcessState
	r.status = state.ExitCode()
	if ws := state.Sys().(syscall.WaitStatus); ws.Signaled() {
		r.status = 128 + int(ws.Signal())
	}
	// The kernel counts the parent's memory at the start of the child as the child's. So the figure
	// is used only if the parent is small.
	if own := highWater(os.Getpid()); own < maxMemory/2 {
		r.peak = max(r.peak, state.SysUsage().(*syscall.Rusage).Maxrss<<10)
	}
	return r
}

// poll returns the largest observed memory of a process or one of its children.
func poll(ctx context.Context, pid int) int64 {
	var most int64
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, p := range append(children(pid), pid) {
			most = max(most, highWater(p))
		}
		select {
		case <-ctx.Done():
			return most
		case <-tick.C:
		}
	}
}

func children(pid int) []int {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil
	}
	var all []int
	for f := range strings.FieldsSeq(string(raw)) {
		if n, err := strconv.Atoi(f); err == nil {
			all = append(all, n)
		}
	}
	return all
}

// highWater returns VmHWM of a process, 0 for one that has ended.
func highWater(pid int) int64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, after, ok := strings.Cut(string(raw), "\nVmHWM:")
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(strings.Fields(after)[0], 10, 64)
	if err != nil {
		return 0
	}
	return n << 10
}

// head keeps the beginning of the data written to it.
type head struct {
	kept bytes.Buffer // not embedded: its ReadFrom would keep everything
	most int
}

func (h *head) Write(p []byte) (int, error) {
	h.kept.Write(p[:min(len(p), max(0, h.most-h.kept.Len()))])
	return len(p), nil
}

func (h *head) String() string { return h.kept.String() }

// refused runs a command that must fail cleanly, with a message that contains want.
func refused(t testing.TB, cmd *exec.Cmd, want string) {
	t.Helper()
	if r := run(t, cmd); r.status == 0 || !strings.Contains(r.log, want) {
		t.Errorf("%s: status %d, want a failure with %q\n%s", strings.Join(cmd.Args[1:], " "),
			r.status, want, tail(r.log))
	}
}

// accepted runs a command that must succeed, and returns its output.
func accepted(t testing.TB, cmd *exec.Cmd) result {
	t.Helper()
	r := run(t, cmd)
	if r.status != 0 {
		t.Fatalf("%s: status %d\n%s", strings.Join(cmd.Args[1:], " "), r.status, tail(r.log))
	}
	return r
}

func tail(s string) string { return s[max(0, len(s)-4000):] }

// build returns a command that builds l's Dockerfile without a name.
func build(l *lab.Lab, args ...string) *exec.Cmd {
	return l.Command("build", append(append([]string{"--progress=plain"}, args...), ".")...)
}

// clean fails the test if a build has left a mount, a process or an incomplete file behind.
func clean(t testing.TB, l *lab.Lab) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mounts, []byte(l.State+"/")) {
		t.Errorf("a mount was left behind below %s (%v)", l.State, err)
	}
	for _, p := range processes(l.State) {
		t.Errorf("a process was left behind: %s", p)
	}
}

// processes returns the processes whose command line contains s.
func processes(s string) []string {
	var all []string
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if line := string(bytes.ReplaceAll(raw, []byte{0}, []byte{' '})); err == nil &&
			strings.Contains(line, s) {
			all = append(all, f+": "+line)
		}
	}
	return all
}
