package subprocess

import (
	"context"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// grace is the time in which a program must end after SIGTERM.
const grace = 5 * time.Second

// Command returns a command in a session of its own, so that it can be ended together with the
// programs that it starts, and cannot prompt on a terminal. They get SIGTERM when ctx ends. A
// program that does not end then is killed, and Wait does not wait for the programs that it
// started.
//
// The program also gets SIGTERM when the thread that starts it ends (PR_SET_PDEATHSIG, prctl(2)),
// as it does when this program is killed. The signal is not SIGKILL, after which git would leave
// its own children running. The caller must lock the goroutine to its thread until Wait returns;
// Run does.
func Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = grace
	return cmd
}

// Interactive is like Command for a program that may prompt on the terminal. It stays in the
// session of this program, and only the program itself gets the signal, not the programs that it
// has started.
func Interactive(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Second
	return cmd
}

// Run runs a command that was made with ctx. When ctx has ended it returns ctx's cause, and
// otherwise the error of cmd.Run.
func Run(ctx context.Context, cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Run()
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
