package subprocess

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// alive reports whether a process exists and has not ended.
func alive(pid int) bool {
	out, err := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && !strings.HasPrefix(strings.TrimSpace(string(out)), "Z")
}

// TestCancel checks that Run returns when the context ends, although a child of the program holds
// the output open, and that Command ends the child too.
func TestCancel(t *testing.T) {
	for name, command := range map[string]func(context.Context, string, ...string) *exec.Cmd{
		"Command": Command, "Interactive": Interactive,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			cmd := command(ctx, "sh", "-c", "sleep 1000 & echo $!; wait")
			out := &firstWrite{ch: make(chan struct{})}
			cmd.Stdout = out
			why := errors.New("why")
			go func() { <-out.ch; cancel(why) }()
			if err := Run(ctx, cmd); !errors.Is(err, why) {
				t.Errorf("Run = %v, want the cause of the context", err)
			}
			child, err := strconv.Atoi(strings.TrimSpace(out.text.String()))
			if err != nil {
				t.Fatal(err)
			}
			defer syscall.Kill(child, syscall.SIGKILL)
			for deadline := time.Now().Add(10 * time.Second); name == "Command" && alive(child); {
				if time.Now().After(deadline) {
					t.Fatal("the program's child was not ended")
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
}

// firstWrite closes ch at the first Write.
type firstWrite struct {
	text bytes.Buffer
	ch   chan struct{}
	done bool
}

func (w *firstWrite) Write(p []byte) (int, error) {
	n, err := w.text.Write(p)
	if !w.done {
		w.done = true
		close(w.ch)
	}
	return n, err
}

func TestRun(t *testing.T) {
	if err := Run(t.Context(), Command(t.Context(), "true")); err != nil {
		t.Error(err)
	}
	if _, ok := errors.AsType[*exec.ExitError](Run(t.Context(),
		Command(t.Context(), "false"))); !ok {
		t.Error("false did not fail")
	}
}
