package executor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// hook returns a hook that runs a shell script of the host.
func hook(script string, args ...string) Hook {
	return Hook{Path: "/bin/sh", Args: append([]string{"sh", "-euc", script, "sh"}, args...),
		Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}}
}

// bothWays calls f for a step on a thread and for one in a child.
func bothWays(t *testing.T, f func(t *testing.T, run func(im *image, p *Process) (string, error))) {
	for name, child := range map[string]bool{"thread": false, "child": true} {
		t.Run(name, func(t *testing.T) {
			f(t, func(im *image, p *Process) (string, error) {
				s := im.spec(p)
				s.child = child
				var out bytes.Buffer
				_, err := Run(t.Context(), s, &out, &out)
				return out.String(), err
			})
		})
	}
}

// TestHook runs hooks that read the state and change the root, in their order, before the command.
func TestHook(t *testing.T) {
	bothWays(t, func(t *testing.T, run func(*image, *Process) (string, error)) {
		im := newBusybox(t)
		dir := t.TempDir()
		lib := filepath.Join(dir, "lib.so.1.2")
		if err := os.WriteFile(lib, []byte("library"), 0o644); err != nil {
			t.Fatal(err)
		}
		p := shell("cat /opt/lib/lib.so /opt/order && ! ps | grep '[s]leep 100' && " +
			"test ! -e /config.json && test ! -e /state.json && pwd")
		p.Mounts = []Mount{{Target: "/opt/lib/lib.so.1.2", ReadOnly: true,
			Source: Bind{Source: lib}}}
		const root = `root=$(sed 's/.*"bundle":"\([^"]*\)".*/\1/')/root; `
		p.Hooks = []Hook{
			hook(`cat >"$1/state"; cat config.json >"$1/config"; pwd >"$1/pwd"`, dir),
			hook(root + `ln -s lib.so.1.2 $root/opt/lib/lib.so; echo one >$root/opt/order; ` +
				`test "$(cat $root/opt/lib/lib.so)" = library`),
			hook(root+`echo "$1" >>$root/opt/order; echo to the log; sleep 100 &`,
				"two words"),
		}
		out, err := run(im, p)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if !strings.HasPrefix(out, "to the log\nlibraryone\ntwo words\n") ||
			!strings.HasSuffix(out, "\n/\n") {
			t.Errorf("output %q", out)
		}
		var state struct {
			OCIVersion, ID, Status, Bundle string
			PID                            int
		}
		decode(t, filepath.Join(dir, "state"), &state)
		if state.Status != "creating" || state.ID == "" || state.PID <= 0 ||
			state.OCIVersion == "" {
			t.Errorf("state %+v", state)
		}
		if pwd := content(t, filepath.Join(dir, "pwd")); strings.TrimSpace(pwd) != state.Bundle {
			t.Errorf("the working directory is %q, and the bundle %q", pwd, state.Bundle)
		}
		var config struct{ Root struct{ Path string } }
		decode(t, filepath.Join(dir, "config"), &config)
		if config.Root.Path != "root" {
			t.Errorf("config %+v", config)
		}
		// The links stay in the image, and the mount point does not.
		if got := content(t, im.path("opt/order")); got != "one\ntwo words\n" {
			t.Errorf("the file of the hooks has %q", got)
		}
		if _, err := os.Lstat(im.path("opt/lib/lib.so")); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(im.path("opt/lib/lib.so.1.2")); !os.IsNotExist(err) {
			t.Errorf("the mount point is in the image: %v", err)
		}
	})
}

func content(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func decode(t *testing.T, name string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(content(t, name)), v); err != nil {
		t.Fatalf("%v: %s", err, content(t, name))
	}
}

// TestHookFiles runs hooks that find the host's files, in a directory that the step's root could be
// mounted on, too.
func TestHookFiles(t *testing.T) {
	bothWays(t, func(t *testing.T, run func(*image, *Process) (string, error)) {
		dir, err := os.MkdirTemp("/mnt", "hook")
		if err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		program := filepath.Join(dir, "hook")
		if err := os.WriteFile(program, []byte("#!/bin/sh\nls -d /sys/kernel $0\n"),
			0o755); err != nil {
			t.Fatal(err)
		}
		p := shell("true")
		p.Hooks = []Hook{{Path: program, Env: []string{"PATH=/usr/bin:/bin"}}}
		out, err := run(newBusybox(t), p)
		if want := program + "\n/sys/kernel\n"; err != nil || out != want {
			t.Errorf("output %q, %v, want %q", out, err, want)
		}
	})
}

// TestHookFails runs hooks that fail. The command does not run.
func TestHookFails(t *testing.T) {
	bothWays(t, func(t *testing.T, run func(*image, *Process) (string, error)) {
		for name, tt := range map[string]struct {
			hook Hook
			want string
		}{
			"output":        {hook("yes | head -c 1000000; exit 4"), "hook /bin/sh of a device: it failed with status 4"},
			"status":        {hook("echo why >&2; exit 3"), "hook /bin/sh of a device: it failed with status 3"},
			"signal":        {hook("kill -TERM $$"), "hook /bin/sh of a device: it was ended by signal 15"},
			"missing":       {Hook{Path: "/none/x"}, "hook /none/x of a device: execve: no such file or directory"},
			"no permission": {Hook{Path: "/etc/passwd"}, "hook /etc/passwd of a device: execve: permission denied"},
			"late": {Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "exec /bin/sleep 1000"},
				Timeout: time.Second / 10}, "hook /bin/sh of a device: it did not end within 100ms"},
		} {
			im := newBusybox(t)
			p := shell("echo the command ran")
			p.Hooks = []Hook{{Path: "/bin/true", Timeout: time.Hour}, tt.hook}
			out, err := run(im, p)
			if err == nil || err.Error() != tt.want {
				t.Errorf("%s: error %v, want %q", name, err, tt.want)
			}
			if strings.Contains(out, "ran") || name == "status" && out != "why\n" {
				t.Errorf("%s: output %q", name, out)
			}
		}
	})
}

// TestHookCanceled cancels a step while a hook runs.
func TestHookCanceled(t *testing.T) {
	im := newBusybox(t)
	for _, child := range []bool{false, true} {
		p := shell("true")
		p.Hooks = []Hook{hook("echo started; sleep 1000")}
		s := im.spec(p)
		s.child = child
		ctx, cancel := context.WithCancel(t.Context())
		_, err := Run(ctx, s, nil, writerFunc(func(b []byte) (int, error) {
			cancel()
			return len(b), nil
		}))
		if !errors.Is(err, context.Canceled) {
			t.Errorf("child %v: error %v", child, err)
		}
		cancel()
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
