package runverb

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/layerbuild/layerbuild/test/lab"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { lab.Main(m) }

// newLab returns a lab with the image img, for root or a user. The image is unpacked: a run verb
// that unpacks it prints progress, on a terminal with escape sequences, if that takes more than a
// moment.
func newLab(t *testing.T, rootless bool) *lab.Lab {
	t.Helper()
	l := lab.New(t)
	l.Busybox()
	l.Write("Dockerfile", "FROM busybox\nCMD true\n")
	if rootless {
		l.As(lab.User(t, true))
	}
	l.Run("build", "-t", "img", ".")
	l.Run("run", "img", "true")
	return l
}

// running is a run verb that was started.
type running struct {
	t   *testing.T
	cmd *exec.Cmd
	out *bufio.Reader
	tty *os.File // the test's side of its terminal; nil: it has none
}

// start runs a command and waits until it has printed "ready". If tty is set, it runs on a
// terminal, in a session of its own.
func start(t *testing.T, l *lab.Lab, tty bool, args ...string) *running {
	t.Helper()
	if tty {
		args = append([]string{"-t"}, args...)
	}
	r := &running{t: t, cmd: l.Command("run", args...)}
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r.cmd.Stderr = os.Stderr
	if tty {
		var theirs *os.File
		r.tty, theirs = terminal(t)
		defer theirs.Close()
		r.cmd.Stdin, r.cmd.Stdout, r.cmd.Stderr = theirs, theirs, theirs
		r.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		r.out = bufio.NewReader(r.tty)
	} else {
		out, err := r.cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		r.out = bufio.NewReader(out)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.cmd.Process.Kill() })
	for {
		line, err := r.out.ReadString('\n')
		if strings.TrimSpace(line) == "ready" {
			return r
		}
		if err != nil {
			r.cmd.Wait()
			t.Fatalf("%q: %v before it was ready", r.cmd.Args, err)
		}
	}
}

// wait returns the exit status and the rest of the output.
func (r *running) wait() (int, string) {
	r.t.Helper()
	rest, _ := io.ReadAll(r.out) // a terminal ends with EIO
	r.cmd.Wait()
	if r.tty != nil {
		r.tty.Close()
	}
	return r.cmd.ProcessState.ExitCode(), strings.ReplaceAll(string(rest), "\r\n", "\n")
}

// terminal returns both sides of a new terminal.
func terminal(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	if err := unix.IoctlSetPointerInt(int(ours.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(ours.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("/dev/pts/%d", n)
	if err := os.Chmod(name, 0o666); err != nil { // the user opens the terminal, too
		t.Fatal(err)
	}
	if theirs, err = os.OpenFile(name, os.O_RDWR|syscall.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}

// program returns the process of layerbuild itself, and not the process of the command that changes
// the user.
func (r *running) program() int {
	pid := r.cmd.Process.Pid
	for {
		comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
		if strings.TrimSpace(string(comm)) != "runuser" {
			return pid
		}
		kids, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		if _, err := fmt.Sscan(string(kids), &pid); err != nil {
			return pid
		}
	}
}

func each(t *testing.T, f func(t *testing.T, l *lab.Lab, tty bool)) {
	for _, rootless := range []bool{false, true} {
		name := map[bool]string{false: "root", true: "user"}[rootless]
		t.Run(name, func(t *testing.T) {
			lab.Root(t)
			l := newLab(t, rootless)
			t.Run("pipes", func(t *testing.T) { f(t, l, false) })
			t.Run("terminal", func(t *testing.T) { f(t, l, true) })
		})
	}
}

var signals = map[string]syscall.Signal{
	"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP, "QUIT": syscall.SIGQUIT,
	"USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2,
}

// TestSignals checks that the command gets the signals that layerbuild gets. Without a handler they
// end it, since it is not process 1.
func TestSignals(t *testing.T) {
	each(t, func(t *testing.T, l *lab.Lab, tty bool) {
		for name, s := range signals {
			r := start(t, l, tty, "img", "sh", "-c",
				fmt.Sprintf(
					"trap 'echo got %s; exit 7' %s; echo ready; while :; do sleep 0.02; done", name,
					name))
			syscall.Kill(r.program(), s)
			if code, out := r.wait(); code != 7 || out != "got "+name+"\n" {
				t.Errorf("SIG%s with a handler: status %d, %q", name, code, out)
			}
			r = start(t, l, tty, "img", "yes", "ready") // not a shell: busybox's ignores SIGQUIT
			syscall.Kill(r.program(), s)
			if code, _ := r.wait(); code != 128+int(s) {
				t.Errorf("SIG%s without a handler: status %d, want %d", name, code, 128+int(s))
			}
		}
	})
}

// TestSignalsSeveral checks that a command that continues after a signal gets the next ones, and
// that its own status is returned.
func TestSignalsSeveral(t *testing.T) {
	each(t, func(t *testing.T, l *lab.Lab, tty bool) {
		// The handlers only count: when busybox's shell runs one handler inside another, the output
		// of the outer one is lost.
		r := start(t, l, tty, "img", "sh", "-c", `n=0 i=0; trap 'n=$((n+1))' TERM INT; echo ready
			while :; do if [ $i -lt $n ]; then i=$((i+1)); echo $i; [ $i = 4 ] && exit 44; fi; sleep 0.02; done`)
		for i, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT,
			syscall.SIGTERM, syscall.SIGINT} {
			syscall.Kill(r.program(), s)
			if i == 3 {
				break
			}
			if line, err := r.out.ReadString('\n'); strings.TrimSpace(line) != fmt.Sprint(i+1) {
				t.Errorf("after signal %d: got %q, %v", i+1, line, err)
			}
		}
		if code, out := r.wait(); code != 44 || out != "4\n" {
			t.Errorf("status %d, %q", code, out)
		}
	})
}

// TestKilled checks that the processes of the command end with layerbuild, even if layerbuild is
// killed.
func TestKilled(t *testing.T) {
	each(t, func(t *testing.T, l *lab.Lab, tty bool) {
		r := start(t, l, tty, "img", "sh", "-c",
			"trap '' TERM INT HUP; (while :; do sleep 0.02; done) & echo ready; sleep 1000")
		syscall.Kill(r.program(), syscall.SIGKILL)
		r.wait() // the pipes end when all of its processes have ended
	})
}

// TestKeys checks that ^C on the container's terminal is sent to the container, and that on another
// terminal layerbuild gets the signal and passes it on.
func TestKeys(t *testing.T) {
	lab.Root(t)
	l := newLab(t, false)
	r := start(t, l, true, "img", "sh", "-c",
		"trap 'echo key; exit 6' INT; echo ready; while :; do sleep 0.02; done")
	r.tty.WriteString("\x03")
	if code, out := r.wait(); code != 6 || !strings.Contains(out, "key\n") {
		t.Errorf("status %d, %q", code, out)
	}
}

// TestHangup checks that a program ends when its terminal is closed, unless nohup(1) has started
// it.
func TestHangup(t *testing.T) {
	lab.Root(t)
	l := newLab(t, false)
	l.Prefix = []string{"nohup"}
	r := start(t, l, false, "img", "sh", "-c",
		"trap 'exit 3' USR1; echo ready; while :; do sleep 0.02; done")
	syscall.Kill(r.cmd.Process.Pid, syscall.SIGHUP)
	syscall.Kill(r.cmd.Process.Pid, syscall.SIGUSR1)
	if code, _ := r.wait(); code != 3 {
		t.Errorf("status %d: SIGHUP was not ignored", code)
	}
}

// TestStatus checks that the exit statuses are the same as those of docker run.
func TestStatus(t *testing.T) {
	lab.Root(t)
	for _, rootless := range []bool{false, true} {
		l := newLab(t, rootless)
		for _, test := range []struct {
			args []string
			want int
			says string
		}{
			{[]string{"img", "true"}, 0, ""},
			{[]string{"img", "sh", "-c", "exit 42"}, 42, ""},
			{[]string{"img", "sh", "-c", "kill -9 $$"}, 137, ""},
			{[]string{"img", "no-such-command"}, 127,
				`layerbuild run: exec: "no-such-command": executable file not found in $PATH`},
			{[]string{"img", "/no/such"}, 127,
				`layerbuild run: exec: "/no/such": no such file in the image`},
			{[]string{"img", "/etc"}, 126, `layerbuild run: exec: "/etc": permission denied`},
			{[]string{"--entrypoint", "", "img", "/bin"}, 126, "permission denied"},
			{[]string{"no-such-image:1"}, 125, "no-such-image"},
			{[]string{"--no-such-flag", "img"}, 125, "no-such-flag"},
			{[]string{"--network", "nonsense", "img"}, 125, "nonsense"},
			{[]string{}, 125, "an image is expected"},
			{[]string{"-u", "nobody-of-this-name", "img", "true"}, 125, "unable to find user"},
			{[]string{"-w", "/bin/busybox/x", "img", "true"}, 125, "working directory"},
		} {
			cmd := l.Command("run", test.args...)
			var log bytes.Buffer
			cmd.Stderr = &log
			err := cmd.Run()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if got := cmd.ProcessState.ExitCode(); got != test.want ||
				!strings.Contains(log.String(), test.says) || test.says == "" && log.Len() > 0 {
				t.Errorf("run %q: status %d, want %d: %s", test.args, got, test.want, log.String())
			}
		}
	}
}

// TestPipeline checks that a command gets SIGPIPE if its output is no longer read, as it would
// outside of a container.
func TestPipeline(t *testing.T) {
	lab.Root(t)
	l := newLab(t, false)
	cmd := l.Command("run", "img", "yes")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	io.ReadFull(out, make([]byte, 2))
	out.Close()
	cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 128+int(syscall.SIGPIPE) {
		t.Errorf("status %d", got)
	}
}

// TestTimeout checks that timeout(1) can end layerbuild with SIGTERM, and with SIGKILL if the
// command ignores SIGTERM.
func TestTimeout(t *testing.T) {
	lab.Root(t)
	lab.Need(t, "timeout")
	l := newLab(t, false)
	l.Prefix = []string{"timeout", "--preserve-status", "--kill-after=1", "8"}
	for script, want := range map[string]int{"trap 'exit 8' TERM; while :; do sleep 0.02; done": 8,
		"sleep 1000": 143, "trap '' TERM; sleep 1000": 137} {
		t.Run(fmt.Sprint(want), func(t *testing.T) {
			t.Parallel()
			cmd := l.Command("run", "img", "sh", "-c", script)
			cmd.Run()
			code := cmd.ProcessState.ExitCode()
			if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
				code = 128 + int(ws.Signal())
			}
			if code != want {
				t.Errorf("%s: status %d, want %d", script, code, want)
			}
		})
	}
}
