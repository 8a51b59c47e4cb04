package executor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// withArgument returns all processes of the machine that have an argument.
func withArgument(t *testing.T, arg string) (found []string) {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		line, _ := os.ReadFile(name)
		for _, a := range bytes.Split(line, []byte{0}) {
			if string(a) == arg {
				found = append(found, name)
			}
		}
	}
	return found
}

// No process of a step runs after Run has returned, whether the step succeeds or fails.
func TestNothingOutlivesAStep(t *testing.T) {
	im := newBusybox(t)
	im.link("busybox", "bin/setsid")
	im.link("busybox", "bin/nohup")
	for i, script := range []string{
		"sleep 1000 %s & echo started",
		"(setsid sh -c 'trap \"\" TERM HUP INT QUIT; while :; do sleep 0.01; done' %s </dev/null >/dev/null 2>&1 &); echo started",
		"nohup sleep 1000 %s >/dev/null 2>&1 & echo started; exit 3",
		"(setsid setsid sh -c 'exec </dev/null >/dev/null 2>&1; cd /; sleep 1000' %s &) ; echo started; kill -9 $$",
		"sh -c 'kill -STOP $$' %s & echo started",
		"i=0; while [ $i -lt 50 ]; do (sleep 1000 %s &); i=$((i+1)); done; echo started",
	} {
		token := fmt.Sprintf("100%d%d", os.Getpid(), i) // sleep adds its arguments, sh ignores them
		out, err := im.run(shell(fmt.Sprintf(script, token)))
		if _, ok := errors.AsType[*ExitError](err); err != nil && !ok {
			t.Errorf("%s: %v", script, err)
		}
		if !strings.HasPrefix(out, "started\n") {
			t.Errorf("%s: got %q", script, out)
		}
		if left := withArgument(t, token); len(left) > 0 {
			t.Errorf("%s: still runs: %q", script, left)
		}
	}
}

// A canceled step ends, even if all its processes are stopped or start further processes in a loop.
func TestCancelOddProcesses(t *testing.T) {
	im := newBusybox(t)
	for i, script := range []string{
		"echo started; kill -STOP $$",
		"trap '' TERM INT HUP QUIT; echo started; while :; do (sleep 0.001 &); done",
		"echo started; exec >&- 2>&-; while :; do sleep 0.01; done",
		"echo started; exec cat /dev/zero",
	} {
		token := fmt.Sprintf("200%d%d", os.Getpid(), i)
		ctx, cancel := context.WithCancel(t.Context())
		r, w := io.Pipe()
		go func() {
			r.Read(make([]byte, 8))
			cancel()
			io.Copy(io.Discard, r)
		}()
		p := &Process{Args: []string{"/bin/sh", "-c", script, token}, Env: []string{path1}}
		_, err := Run(ctx, im.spec(p), w, w)
		w.Close()
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v", script, err)
		}
		if left := withArgument(t, token); len(left) > 0 {
			t.Errorf("%s: still runs: %q", script, left)
		}
	}
}

// counter counts the bytes written to it.
type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) { c.n += int64(len(p)); return len(p), nil }

// A large output arrives completely, and is not kept in memory.
func TestOutputFlood(t *testing.T) {
	im := newBusybox(t)
	var out, errs counter
	_, err := Run(t.Context(),
		im.spec(shell("head -c 100000000 /dev/zero & head -c 50000000 /dev/zero >&2; wait")), &out,
		&errs)
	if err != nil || out.n != 100000000 || errs.n != 50000000 {
		t.Errorf("got %d and %d bytes, %v", out.n, errs.n, err)
	}
}

// A command starts with an empty standard input, with outputs that it may close, and with the
// default action for SIGPIPE. It does not inherit the limits and the umask of the user who builds.
func TestOrdinaryWorld(t *testing.T) {
	im := newBusybox(t)
	im.link("busybox", "bin/yes")
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	for _, test := range []struct{ script, want string }{
		{"cat; read x || echo end", "end\n"},
		{"exec >&-; echo lost 2>/dev/null; echo $? >&2", "1\n"},
		{"exec >&- 2>&- <&-; true", ""},
		{"(yes; echo $? >&2) | head -n 1", "y\n141\n"},
		{"umask; echo x >/f; mkdir /d; stat -c %a /f /d", "0022\n644\n755\n"},
		{"(sleep 0.01; echo late) & wait; echo end", "late\nend\n"},
		{"kill -CHLD $$; kill -CONT $$; echo here", "here\n"},
	} {
		if got, err := im.run(shell(test.script)); err != nil || got != test.want {
			t.Errorf("%s: got %q, %v, want %q", test.script, got, err, test.want)
		}
	}
}
