package runmount

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/internal/cachemount"
	"github.com/layerbuild/layerbuild/internal/layers"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/secret"
	"github.com/layerbuild/layerbuild/parser"
	"github.com/layerbuild/layerbuild/snapshot"
)

var errBroken = errors.New("broken")

// snapshots shows snapshots as data, and makes real ones.
type snapshots struct {
	*snapshot.Store
	calls []string
}

func (s *snapshots) View(_ context.Context, id snapshot.ID) ([]mount.Mount, error) {
	s.calls = append(s.calls, "view "+string(id))
	if id == "broken" {
		return nil, errBroken
	}
	return []mount.Mount{{Type: mount.Bind, Source: "view of " + string(id)}}, nil
}

func (s *snapshots) Prepare(ctx context.Context, id snapshot.ID) (*snapshot.Active, error) {
	s.calls = append(s.calls, "prepare "+string(id))
	return s.Store.Prepare(ctx, id)
}

// fixture is a Mounter and its snapshots.
type fixture struct {
	*testing.T
	*Mounter
	root      string // of the snapshots
	snapshots *snapshots
	temp      string
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{T: t, root: t.TempDir(), temp: t.TempDir()}
	store, err := snapshot.Open(t.Context(), f.root, snapshot.Options{Driver: "copy"})
	if err != nil {
		t.Fatal(err)
	}
	active, err := store.Prepare(t.Context(), "")
	if err == nil {
		err = active.Commit(t.Context(), "one")
	}
	if err != nil {
		t.Fatal(err)
	}
	caches := t.TempDir()
	f.snapshots = &snapshots{Store: store}
	f.Mounter = &Mounter{Snapshots: f.snapshots, Lazy: &layers.Lazy{}, Secrets: &secret.Store{},
		Caches:  &cachemount.Store{Top: func() (string, error) { return caches, nil }},
		TempDir: func(pattern string) (string, error) { return os.MkdirTemp(f.temp, pattern) }}
	return f
}

// active lists the snapshots that are being written.
func (f *fixture) active() []string {
	f.Helper()
	list, err := filepath.Glob(filepath.Join(f.root, "*", "tmp", "*"))
	if err != nil {
		f.Fatal(err)
	}
	return list
}

// bind returns a bind mount of a snapshot.
func bind(id snapshot.ID, readOnly bool) Mount {
	return Mount{RunMount: parser.RunMount{Type: parser.MountBind, Target: "/b", ReadOnly: readOnly},
		Snapshot: func(context.Context) (snapshot.ID, string, error) {
			if id == "" {
				return "", "", errBroken
			}
			return id, "/sub", nil
		}}
}

// cache returns a mount of the cache of that name. Fill writes a file.
func cache(name string, sharing parser.Sharing) Mount {
	return Mount{RunMount: parser.RunMount{Type: parser.MountCache, ID: name, Target: "/" + name,
		Sharing: sharing},
		Cache: func() (string, error) { return name, nil },
		Fill: func(_ context.Context, dir string) error {
			return os.WriteFile(filepath.Join(dir, "filled"), []byte(name), 0o644)
		}}
}

// TestSecrets adds secrets and agents that exist and that do not.
func TestSecrets(t *testing.T) {
	t.Setenv("RUNMOUNT_SECRET", "from the environment")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("from a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	mode, uid, gid := uint32(0o440), uint32(7), uint32(8)
	for _, tt := range []struct {
		name string
		m    parser.RunMount
		want []executor.Mount
		env  []string
		err  string
	}{
		{"a file", parser.RunMount{Type: parser.MountSecret, ID: "file", Target: "/s"},
			[]executor.Mount{{Target: "/s", ReadOnly: true,
				Source: executor.Data{Data: []byte("from a file"), Mode: 0o400}}}, nil, ""},
		{"an owner and a mode", parser.RunMount{Type: parser.MountSecret, ID: "env", Target: "/s",
			Mode: &mode, UID: &uid, GID: &gid}, []executor.Mount{{Target: "/s", ReadOnly: true,
			Source: executor.Data{Data: []byte("from the environment"), Mode: 0o440, UID: 7,
				GID: 8}}}, nil, ""},
		{"a variable", parser.RunMount{Type: parser.MountSecret, ID: "file", Env: "V"}, nil,
			[]string{"V=from a file"}, ""},
		{"a variable and a file", parser.RunMount{Type: parser.MountSecret, ID: "file", Env: "V",
			Target: "/s"}, []executor.Mount{{Target: "/s", ReadOnly: true,
			Source: executor.Data{Data: []byte("from a file"), Mode: 0o400}}},
			[]string{"V=from a file"}, ""},
		{"no secret", parser.RunMount{Type: parser.MountSecret, ID: "none", Target: "/s", Env: "V"},
			nil, nil, ""},
		{"a required secret", parser.RunMount{Type: parser.MountSecret, ID: "none", Target: "/s",
			Required: true}, nil, nil,
			"mount secret at /s: secret none: not found; give it with --secret id=none,src=FILE"},
		{"a required variable", parser.RunMount{Type: parser.MountSecret, ID: "none", Env: "V",
			Required: true}, nil, nil,
			"mount secret none: secret none: not found; give it with --secret id=none,src=FILE"},
		{"a file that is missing", parser.RunMount{Type: parser.MountSecret, ID: "gone", Target: "/s"},
			nil, nil, "mount secret at /s: secret gone: "},
		{"a tmpfs", parser.RunMount{Type: parser.MountTmpfs, Target: "/t", Size: 5},
			[]executor.Mount{{Target: "/t", Source: executor.Tmpfs{Size: 5}}}, nil, ""},
		{"no agent", parser.RunMount{Type: parser.MountSSH, ID: "none"}, nil, nil, ""},
		{"a required agent", parser.RunMount{Type: parser.MountSSH, ID: "none", Required: true}, nil,
			nil, "mount ssh none: ssh agent none: not found; give it with --ssh none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			f.Secrets.Secrets = []secret.Secret{{ID: "file", File: file},
				{ID: "env", Env: "RUNMOUNT_SECRET"}, {ID: "gone", File: file + ".gone"}}
			var p executor.Process
			release, err := f.Add(t.Context(), &p, []Mount{{RunMount: tt.m}})
			if (err == nil) != (tt.err == "") ||
				err != nil && !strings.HasPrefix(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, p.Mounts); diff != "" || !slices.Equal(p.Env, tt.env) {
				t.Errorf("variables %q, mounts %s", p.Env, diff)
			}
			if err := release(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestBind adds bind mounts of snapshots. A writable one is a snapshot of its own, which release
// removes.
func TestBind(t *testing.T) {
	f := newFixture(t)
	made := 0
	f.Lazy.Add("one", func(context.Context) error { made++; return nil })
	p := executor.Process{Mounts: []executor.Mount{{Target: "/earlier"}}}
	release, err := f.Add(t.Context(), &p, []Mount{bind("one", true), bind("one", false)})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"view one", "prepare one"}; !slices.Equal(f.snapshots.calls, want) ||
		made != 1 || len(f.active()) != 1 {
		t.Errorf("calls %q, want %q; the lazy snapshot was made %d times; active: %q",
			f.snapshots.calls, want, made, f.active())
	}
	if len(p.Mounts) != 3 || p.Mounts[0].Target != "/earlier" {
		t.Fatalf("mounts %+v", p.Mounts)
	}
	want := executor.Mount{Target: "/b", ReadOnly: true, Source: executor.Tree{Path: "/sub",
		Mounts: []mount.Mount{{Type: mount.Bind, Source: "view of one"}}}}
	if diff := cmp.Diff(want, p.Mounts[1]); diff != "" {
		t.Errorf("read-only: %s", diff)
	}
	tree, ok := p.Mounts[2].Source.(executor.Tree)
	if !ok || p.Mounts[2].ReadOnly || tree.Path != "/sub" || len(tree.Mounts) != 1 ||
		!strings.HasPrefix(tree.Mounts[0].Source, f.active()[0]) {
		t.Errorf("writable: %+v", p.Mounts[2])
	}
	if err := release(); err != nil || len(f.active()) > 0 {
		t.Errorf("release: %v; active: %q", err, f.active())
	}
}

// TestAddFails checks the error of a mount that cannot be added, and that release removes what was
// set up for the mounts before it.
func TestAddFails(t *testing.T) {
	for _, tt := range []struct {
		name string
		m    Mount
		set  func(*fixture)
		want error
		text string
	}{
		{"no snapshot", bind("", true), nil, errBroken, "mount bind at /b: broken"},
		{"a snapshot that cannot be viewed", bind("broken", true), nil, errBroken,
			"mount bind at /b: broken"},
		{"a missing snapshot", bind("gone", false), nil, snapshot.ErrNotExist, "mount bind at /b: "},
		{"a lazy snapshot", bind("lazy", false), func(f *fixture) {
			f.Lazy.Add("lazy", func(context.Context) error { return errBroken })
		}, errBroken, "mount bind at /b: broken"},
		{"a socket", Mount{RunMount: parser.RunMount{Type: parser.MountSSH, ID: "default"}},
			func(f *fixture) {
				f.TempDir = func(string) (string, error) { return "", errBroken }
			}, errBroken, "mount ssh default: broken"},
		{"a socket in a directory that is missing",
			Mount{RunMount: parser.RunMount{Type: parser.MountSSH, ID: "default", Target: "/a"}},
			func(f *fixture) {
				f.TempDir = func(string) (string, error) { return "/none", nil }
			}, os.ErrNotExist, "mount ssh at /a: ssh agent default: "},
		{"a cache without a name", Mount{RunMount: parser.RunMount{Type: parser.MountCache, ID: "x",
			Target: "/x"}, Cache: func() (string, error) { return "", errBroken }}, nil, errBroken,
			"mount cache at /x: broken"},
		{"a cache that cannot be filled", Mount{RunMount: parser.RunMount{Type: parser.MountCache,
			ID: "x", Target: "/x"}, Cache: func() (string, error) { return "x", nil },
			Fill: func(context.Context, string) error { return errBroken }}, nil, errBroken,
			"mount cache at /x: "},
		{"no directory for caches", cache("x", parser.SharingShared), func(f *fixture) {
			f.Caches.Top = func() (string, error) { return "", errBroken }
		}, errBroken, "broken"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			f.Secrets.Agents = []secret.Agent{{ID: "default", Socket: "/none"}}
			if tt.set != nil {
				tt.set(f)
			}
			list := []Mount{bind("one", false), cache("other", parser.SharingLocked), tt.m}
			if tt.name == "no directory for caches" {
				list = list[2:]
			}
			release, err := f.Add(t.Context(), &executor.Process{}, list)
			if err == nil || !errors.Is(err, tt.want) || !strings.HasPrefix(err.Error(), tt.text) {
				t.Errorf("error %v, want %q and %v", err, tt.text, tt.want)
			}
			if err := release(); err != nil || len(f.active()) > 0 {
				t.Errorf("release: %v; active: %q", err, f.active())
			}
			if len(list) == 1 {
				return
			}
			// the cache is not locked any more
			again, err := f.Add(t.Context(), &executor.Process{}, list[1:2])
			if err != nil {
				t.Error(err)
			}
			if err := again(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCaches adds caches among other mounts. They are filled once, and locked until release.
func TestCaches(t *testing.T) {
	f := newFixture(t)
	readOnly, owned := cache("a", parser.SharingLocked), cache("b", parser.SharingShared)
	mode := uint32(0o700)
	readOnly.ReadOnly, owned.Mode, owned.Fill = true, &mode, nil
	list := []Mount{bind("one", true), owned, readOnly, {RunMount: parser.RunMount{
		Type: parser.MountTmpfs, Target: "/t"}}}
	var p executor.Process
	release, err := f.Add(t.Context(), &p, list)
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	dirs := map[string]string{}
	for _, m := range p.Mounts {
		order = append(order, fmt.Sprint(m.Target, " ", m.ReadOnly))
		if b, ok := m.Source.(executor.Bind); ok {
			dirs[m.Target] = b.Source
		}
	}
	if want := []string{"/b true", "/b false", "/a true", "/t false"}; !slices.Equal(order, want) {
		t.Errorf("mounts %q, want %q", order, want)
	}
	if data, err := os.ReadFile(filepath.Join(dirs["/a"], "filled")); string(data) != "a" {
		t.Errorf("the cache a has %q, %v", data, err)
	}
	if fi, err := os.Stat(dirs["/b"]); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("the cache b is %v, %v", fi, err)
	}
	if fi, err := os.Stat(dirs["/a"]); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("the cache a is %v, %v", fi, err)
	}

	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	waiting, err := f.Add(ctx, &executor.Process{}, []Mount{cache("a", parser.SharingLocked)})
	if !errors.Is(err, stop) {
		t.Errorf("a locked cache is used by two commands: error %v, want the cause", err)
	}
	shared, err := f.Add(t.Context(), &executor.Process{},
		[]Mount{cache("b", parser.SharingShared)})
	if err != nil {
		t.Errorf("a shared cache cannot be used by two commands: %v", err)
	}
	if err := errors.Join(waiting(), shared(), release()); err != nil {
		t.Error(err)
	}
	var again executor.Process
	release, err = f.Add(t.Context(), &again, []Mount{cache("a", parser.SharingLocked)})
	if err != nil {
		t.Fatal(err)
	}
	if b, ok := again.Mounts[0].Source.(executor.Bind); !ok || b.Source != dirs["/a"] {
		t.Errorf("the next command uses %+v, want %s", again.Mounts[0], dirs["/a"])
	}
	if err := release(); err != nil {
		t.Error(err)
	}
}

// agent listens like an ssh agent, and answers with what it gets.
func agent(t *testing.T) string {
	t.Helper()
	// the path of a socket has at most 108 bytes, and that of t.TempDir may be longer
	dir, err := os.MkdirTemp("", "agent-")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
		os.RemoveAll(dir)
	})
	return l.Addr().String()
}

// TestAgents adds the sockets of two agents. The command reaches the agents through them until
// release.
func TestAgents(t *testing.T) {
	f := newFixture(t)
	f.temp = filepath.Dir(agent(t))
	f.Secrets.Agents = []secret.Agent{{ID: "default", Socket: agent(t)}}
	mode, uid, gid := uint32(0o666), uint32(os.Geteuid()), uint32(os.Getegid())
	own := parser.RunMount{Type: parser.MountSSH, ID: "default", UID: &uid, GID: &gid}
	open := own
	open.Target, open.Mode = "/agent", &mode
	var p executor.Process
	release, err := f.Add(t.Context(), &p, []Mount{{RunMount: own}, {RunMount: open}})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0",
		"SSH_AUTH_SOCK=/agent"}; !slices.Equal(p.Env, want) || len(p.Mounts) != 2 ||
		p.Mounts[0].Target != "/run/buildkit/ssh_agent.0" || p.Mounts[1].Target != "/agent" {
		t.Fatalf("variables %q, want %q; mounts %+v", p.Env, want, p.Mounts)
	}
	var sockets []string
	var left net.Conn
	for i, want := range []os.FileMode{0o600, 0o666} {
		path := p.Mounts[i].Source.(executor.Bind).Source
		sockets = append(sockets, path)
		if fi, err := os.Stat(path); err != nil || fi.Mode() != want|os.ModeSocket ||
			p.Mounts[i].ReadOnly {
			t.Errorf("socket %d is %v, %v, want the mode %v", i, fi, err, want)
		}
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		if left != nil {
			left.Close()
		}
		left = c
		answer := make([]byte, 4)
		if _, err := io.WriteString(c, "ping"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, answer); string(answer) != "ping" {
			t.Errorf("socket %d answers %q, %v", i, answer, err)
		}
	}
	if err := release(); err != nil {
		t.Error(err)
	}
	if n, err := left.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes come through a released socket", n)
	}
	for i, path := range sockets {
		if c, err := net.Dial("unix", path); err == nil {
			c.Close()
			t.Errorf("socket %d can be used after release", i)
		}
	}
}

// TestRelease checks the order in which mounts are released, and that all errors are returned.
func TestRelease(t *testing.T) {
	other := errors.New("other")
	var order []string
	undo := func(name string, err error) func() error {
		return func() error { order = append(order, name); return err }
	}
	a := &adding{undo: []func() error{undo("first", errBroken), undo("second", nil),
		undo("third", other)}}
	err := a.release()
	if !errors.Is(err, errBroken) || !errors.Is(err, other) ||
		!slices.Equal(order, []string{"third", "second", "first"}) {
		t.Errorf("released %q, error %v", order, err)
	}
}
