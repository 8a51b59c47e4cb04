package main_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/registrytest"
	"golang.org/x/sys/unix"
)

// login runs the login verb on a terminal of its own.
type login struct {
	*testing.T
	cmd      *exec.Cmd
	terminal *os.File
	theirs   *os.File
	shown    bytes.Buffer // what the terminal has shown
}

func startLogin(t *testing.T, config string, args ...string) *login {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { ours.Close() })
	if err := unix.IoctlSetPointerInt(int(ours.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(ours.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { theirs.Close() })
	l := &login{T: t, cmd: exec.Command(binary, append([]string{"login"}, args...)...),
		terminal: ours, theirs: theirs}
	l.cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+config, "HOME="+config, "REGISTRY_AUTH_FILE=",
		"XDG_RUNTIME_DIR=")
	l.cmd.Stdin, l.cmd.Stdout, l.cmd.Stderr = theirs, theirs, theirs
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.cmd.Process.Kill() })
	return l
}

// expect reads until the terminal has shown a text.
func (l *login) expect(text string) {
	l.Helper()
	buf := make([]byte, 1024)
	l.terminal.SetReadDeadline(time.Now().Add(time.Minute))
	for !strings.Contains(l.shown.String(), text) {
		n, err := l.terminal.Read(buf)
		l.shown.Write(buf[:n])
		if err != nil {
			l.Fatalf("%v before %q:\n%s", err, text, l.shown.String())
		}
	}
}

// echoes reports whether the terminal shows what is typed.
func (l *login) echoes() bool {
	l.Helper()
	state, err := unix.IoctlGetTermios(int(l.theirs.Fd()), unix.TCGETS)
	if err != nil {
		l.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

// silent waits until the terminal does not show what is typed.
func (l *login) silent() {
	l.Helper()
	for deadline := time.Now().Add(time.Minute); l.echoes(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			l.Fatal("the terminal would show the password")
		}
	}
}

// TestLoginTerminal asks a terminal for credentials, which does not show the password.
func TestLoginTerminal(t *testing.T) {
	r, stop := registrytest.Start()
	defer stop()
	r.Auth("me", "secret")
	config := t.TempDir()
	l := startLogin(t, config, r.Host)
	l.expect("User name for " + r.Host + ": ")
	io.WriteString(l.terminal, "me\n")
	l.expect("Password: ")
	l.silent()
	io.WriteString(l.terminal, "secret\n")
	l.expect("Login Succeeded")
	if err := l.cmd.Wait(); err != nil {
		t.Error(err)
	}
	if strings.Contains(l.shown.String(), "secret") || !l.echoes() {
		t.Errorf("the terminal shows the password, or has lost its state:\n%s", l.shown.String())
	}
	data, err := os.ReadFile(filepath.Join(config, "config.json"))
	if err != nil || !bytes.Contains(data, []byte(`"bWU6c2VjcmV0"`)) {
		t.Errorf("config.json: %s, %v", data, err)
	}

	// Stored credentials that the registry refuses are asked for again.
	r.Auth("me", "changed")
	l = startLogin(t, config, r.Host)
	l.expect("refuses the stored credentials of me")
	l.expect("User name for ")
	io.WriteString(l.terminal, "me\n")
	l.expect("Password: ")
	l.silent()

	// An interrupt leaves the terminal as it was.
	if err := l.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err = l.cmd.Wait()
	if l.cmd.ProcessState.ExitCode() != 130 || !l.echoes() {
		t.Errorf("after an interrupt: %v, the terminal shows what is typed: %t", err, l.echoes())
	}
}
