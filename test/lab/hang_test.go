package lab

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestWatch kills a command that hangs, with the processes that it has started, and checks that the
// report names the place where they hang.
func TestWatch(t *testing.T) {
	Need(t, "mkfifo", "setsid")
	fifo := filepath.Join(t.TempDir(), "fifo")
	Output(t, "mkfifo", fifo)
	for _, script := range []string{
		`echo begun; : >"$0"; echo ended`,
		`echo begun; sh -c ': >"$0"; true' "$0"; echo ended`,
		`echo begun; setsid sh -c ': >"$0"; true' "$0"; echo ended`,
	} {
		cmd := Exec(t, "sh", "-c", script, fifo)
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		stop := Watch(cmd, 500*time.Millisecond)
		err := cmd.Wait()
		report := stop()
		if err == nil || out.String() != "begun\n" {
			t.Errorf("%s: %v, output %q", script, err, &out)
		}
		last := report[strings.LastIndex(report, "process "):]
		for _, want := range []string{fifo, "sh -c", "wchan", "syscall"} {
			if !strings.Contains(last, want) {
				t.Errorf("%s: the report has no %q:\n%s", script, want, report)
			}
		}
		if pids := pgrep(fifo); pids != "" {
			t.Errorf("%s: left behind: %s", script, pids)
		}
	}
}

// TestWatchDone checks that there is no description of a command that ends.
func TestWatchDone(t *testing.T) {
	cmd := Exec(t, "true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := Watch(cmd, time.Hour)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if report := stop(); report != "" {
		t.Error(report)
	}
}

// TestExecEnds kills a command that the test has left running.
func TestExecEnds(t *testing.T) {
	var cmd *exec.Cmd
	t.Run("inner", func(t *testing.T) {
		cmd = Exec(t, "sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })()
	_ = cmd.Wait()
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
		t.Errorf("sleep ended with %v", cmd.ProcessState)
	}
}

// pgrep lists the processes that have text in their command line.
func pgrep(text string) string {
	var all strings.Builder
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		if raw, _ := os.ReadFile(file); bytes.Contains(raw, []byte(text)) {
			all.Write(raw)
		}
	}
	return all.String()
}
