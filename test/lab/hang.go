package lab

import (
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
)

// limit returns the time after which a command counts as hung. Each command of a test takes less
// than a tenth of it. The long tests of make faults have larger inputs.
func limit() time.Duration {
	if os.Getenv("LAYERBUILD_FAULTS") == "1" {
		return 35 * time.Minute
	}
	return 10 * time.Minute
}

// Exec is like exec.Command, for tests. The command gets a process group of its own. When it still
// runs after ten minutes, the test fails with a description of what its processes were doing, and
// they are killed. They are also killed when the test ends.
func Exec(t testing.TB, name string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), limit())
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		if ctx.Err() == context.DeadlineExceeded {
			t.Errorf("%s: still running after %v\n%s", cmd, limit(), kill(cmd, true))
		} else {
			kill(cmd, false)
		}
		return nil
	}
	// A process that left the group may hold the output open.
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// Watch watches a command of Exec, or another one that was started in a process group of its own.
// When it still runs after limit, its processes are killed. The function that Watch returns ends
// the watch; it is called after Wait. It returns "", or for a command that was killed a description
// of what its processes were doing.
func Watch(cmd *exec.Cmd, limit time.Duration) (stop func() string) {
	report := make(chan string, 1)
	timer := time.AfterFunc(limit, func() {
		report <- fmt.Sprintf("still running after %v\n%s", limit, kill(cmd, true))
	})
	return func() string {
		if timer.Stop() {
			return ""
		}
		return <-report
	}
}

// kill kills a command's process group and the processes that it has started, and describes what
// they were doing. If quit is set, a Go program prints its goroutines first.
func kill(cmd *exec.Cmd, quit bool) string {
	group := -cmd.Process.Pid
	var b strings.Builder
	for _, pid := range tree(cmd.Process.Pid) {
		b.WriteString(describe(pid))
		if p, err := os.FindProcess(pid); err == nil { // a process that has left the group
			defer p.Kill()
		}
	}
	if quit && syscall.Kill(group, syscall.SIGQUIT) == nil {
		for i := 0; i < 20 && syscall.Kill(group, 0) == nil; i++ {
			time.Sleep(100 * time.Millisecond)
		}
	}
	_ = syscall.Kill(group, syscall.SIGKILL)
	return b.String()
}

// tree lists a process and its descendants, parents first.
func tree(pid int) []int {
	pids := []int{pid}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range tasks {
		raw, _ := os.ReadFile(file)
		for f := range strings.FieldsSeq(string(raw)) {
			if n, err := strconv.Atoi(f); err == nil {
				pids = append(pids, tree(n)...)
			}
		}
	}
	return pids
}

// describe returns the current system calls of a process's threads.
func describe(pid int) string {
	read := func(file string) string {
		raw, err := os.ReadFile(file)
		if err != nil {
			return err.Error()
		}
		return strings.TrimSpace(strings.ReplaceAll(string(raw), "\x00", " "))
	}
	dir := fmt.Sprintf("/proc/%d/", pid)
	var b strings.Builder
	fmt.Fprintf(&b, "process %d: %s\n", pid, read(dir+"cmdline"))
	tasks, _ := filepath.Glob(dir + "task/*")
	for _, task := range tasks {
		fmt.Fprintf(&b, "  thread %s (%s): wchan %s, syscall %s\n",
			filepath.Base(task), read(task+"/comm"), read(task+"/wchan"), read(task+"/syscall"))
	}
	return b.String()
}
