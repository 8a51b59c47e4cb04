package job

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/internal/cdi"
	"github.com/layerbuild/layerbuild/parser"
)

// specDir returns a directory with a specification: kind v.com/c, with the given devices.
func specDir(t *testing.T, devices string) string {
	t.Helper()
	dir := t.TempDir()
	text := "cdiVersion: 1.0.0\nkind: v.com/c\ndevices:\n" + devices
	if err := os.WriteFile(filepath.Join(dir, "s.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// requesting returns a RUN that requests devices.
func requesting(names ...string) *parser.Run {
	run := &parser.Run{Args: []string{"true"}, Env: []string{"A=1", "B=2"}}
	for _, name := range names {
		run.Devices = append(run.Devices, parser.RunDevice{Name: name})
	}
	return run
}

// TestDevices runs a RUN and looks at the devices of the process that the executor gets.
func TestDevices(t *testing.T) {
	s := newSite(t)
	mode, uid := uint32(0o660), uint32(7)
	s.Options.Devices = DeviceOptions{Allowed: cdi.Permission{All: true}, Dirs: []string{
		specDir(t, `
- name: a
  containerEdits:
    env: [B=3, C=4]
    additionalGids: [44]
    deviceNodes:
    - {path: /dev/x}
    - {path: /dev/y, hostPath: /dev/z, type: u, major: 1, minor: 2, fileMode: 0660, uid: 7,
       permissions: none}
    mounts:
    - {hostPath: /h, containerPath: /f/, options: [ro, nosuid, bind]}
    - {hostPath: /i, containerPath: /j, options: [rbind, noexec]}
    hooks:
    - {hookName: createContainer, path: /k, args: [k, l], env: [M=1], timeout: 5}
    - {hookName: prestart, path: /n}
`)}}
	run := requesting("v.com/c=a", "v.com/none")
	run.Files = []parser.RunFile{{Path: "/f", Data: []byte("x")}, {Path: "/g", Data: []byte("y")}}
	if err := s.loaded(run).Run(t.Context(), s.active(), s); err != nil {
		t.Fatal(err)
	}
	p := s.ran[0].(*executor.Process)
	want := &executor.Process{Env: []string{"A=1", "B=3", "C=4"}, Groups: []uint32{44},
		Mounts: []executor.Mount{
			{Target: "/g", ReadOnly: true, Source: executor.Data{Data: []byte("y")}},
			{Target: "/dev/x", Source: executor.Device{Host: "/dev/x"}},
			{Target: "/dev/y", Source: executor.Device{Host: "/dev/z", Type: "c", Major: 1, Minor: 2,
				Mode: &mode, UID: &uid, Closed: true}},
			{Target: "/f/", ReadOnly: true, NoSuid: true,
				Source: executor.Bind{Source: "/h", Single: true}},
			{Target: "/j", NoExec: true, Source: executor.Bind{Source: "/i"}},
		},
		Hooks: []executor.Hook{{Path: "/n"}, {Path: "/k", Args: []string{"k", "l"},
			Env: []string{"M=1"}, Timeout: 5 * time.Second}}}
	got := &executor.Process{Env: p.Env, Groups: p.Groups, Mounts: p.Mounts, Hooks: p.Hooks}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(executor.Process{})); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if run.Env[1] != "B=2" {
		t.Errorf("the variables of the instruction are %q", run.Env)
	}
	if len(s.lines) != 1 ||
		!strings.HasPrefix(s.lines[0], `device "v.com/none" is not registered`) ||
		!strings.HasSuffix(s.lines[0], "; the command runs without it") {
		t.Errorf("the messages are %q", s.lines)
	}
}

// TestDeviceKey compares keys: they have the devices that a command gets, whatever their names in
// the instruction, and what the specifications say about them.
func TestDeviceKey(t *testing.T) {
	one := "- {name: a, containerEdits: {env: [A=1]}}\n"
	key := func(spec string, names ...string) string {
		s := newSite(t)
		s.Options.Devices = DeviceOptions{Dirs: []string{specDir(t, spec)},
			Allowed: cdi.Permission{All: true, Aliases: map[string]string{"alias": "v.com/c=a"}}}
		return string(s.job(requesting(names...)).Key)
	}
	base := key(one, "v.com/c=a")
	for name, tt := range map[string]struct {
		key  string
		same bool
	}{
		"again":               {key(one, "v.com/c=a"), true},
		"the first":           {key(one, "v.com/c"), true},
		"an alias":            {key(one, "alias"), true},
		"one that is missing": {key(one, "v.com/c=a", "v.com/c=b"), true},
		"another device in the specification": {key(one+
			"- {name: b, containerEdits: {env: [A=1]}}\n", "v.com/c=a"), true},
		"an annotation": {key("- {name: a, annotations: {a: b}, containerEdits: {env: [A=1]}}\n",
			"v.com/c=a"), true},
		"no device": {key(one), false},
		"another name with the same edits": {key(one+
			"- {name: b, containerEdits: {env: [A=1]}}\n", "v.com/c=b"), false},
		"another value": {key("- {name: a, containerEdits: {env: [A=2]}}\n", "v.com/c=a"), false},
		"a group": {key("- {name: a, containerEdits: {env: [A=1], additionalGids: [1]}}\n",
			"v.com/c=a"), false},
		"a mount": {key("- {name: a, containerEdits: {env: [A=1], mounts: [{hostPath: /a, "+
			"containerPath: /b}]}}\n", "v.com/c=a"), false},
		"a hook": {key("- {name: a, containerEdits: {env: [A=1], hooks: [{hookName: prestart, "+
			"path: /a}]}}\n", "v.com/c=a"), false},
		"a node": {key("- {name: a, containerEdits: {env: [A=1], deviceNodes: [{path: /dev/a}]}}\n",
			"v.com/c=a"), false},
	} {
		if (tt.key == base) != tt.same || tt.key == "" {
			t.Errorf("%s: the same key: %v, want %v", name, tt.key == base, tt.same)
		}
	}
	if key(one, "v.com/c=b") != key(one) {
		t.Error("a missing device changes the key")
	}
}
