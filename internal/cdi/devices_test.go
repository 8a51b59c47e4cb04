package cdi

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// write writes files to new directories, which are the first elements of the files' names, and
// returns the directories 1 and 2.
func write(t *testing.T, files map[string]string) []string {
	t.Helper()
	top := t.TempDir()
	dirs := []string{filepath.Join(top, "1"), filepath.Join(top, "2")}
	for name, text := range files {
		path := filepath.Join(top, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dirs
}

// kind returns a specification of a kind. Each device has a variable with its name.
func kind(kind string, devices ...string) string {
	text := "cdiVersion: 1.1.0\nkind: " + kind + "\ndevices:\n"
	for _, d := range devices {
		name, class, _ := strings.Cut(d, " ")
		text += "- name: " + name + "\n  containerEdits: {env: [" + strings.ToUpper(name) + "=1]}\n"
		if class != "" {
			text += "  annotations: {org.mobyproject.buildkit.device.class: " + class + "}\n"
		}
	}
	return text
}

// classAll and autoAllow are lines of a specification.
const (
	classAll  = "annotations: {org.mobyproject.buildkit.device.class: all}\n"
	autoAllow = "annotations: {org.mobyproject.buildkit.device.autoallow: true}\n"
)

var machine = map[string]string{
	"1/multi.yaml": kind("v1.com/multi", "foo", "bar", "baz class1", "qux class2"),
	"1/class.yaml": kind("v1.com/class", "foo class1", "bar class1"),
	"1/all.yaml":   kind("v1.com/all", "a", "b class2") + classAll,
	"1/auto.yaml":  kind("v2.com/auto", "a", "b") + autoAllow,
	"1/like.yaml":  kind("v3.com/c", "d v1.com/none"),
	"1/notes.txt":  "no specification",
	"1/d.yaml/x":   "in a directory",
}

// TestFind finds devices by the names that RUN --device accepts.
func TestFind(t *testing.T) {
	d := Read(write(t, machine))
	if len(d.faults) > 0 {
		t.Error(d.faults)
	}
	for name, want := range map[string]string{
		"v1.com/multi=foo": "v1.com/multi=foo",
		"v1.com/multi":     "v1.com/multi=bar", // the first in the order of names
		"v1.com/multi=":    "v1.com/multi=bar",
		"v1.com/multi=*":   "v1.com/multi=bar v1.com/multi=baz v1.com/multi=foo v1.com/multi=qux",
		"class1":           "v1.com/class=bar v1.com/class=foo v1.com/multi=baz",
		"class2":           "v1.com/all=b v1.com/multi=qux", // the device's annotation
		"all":              "v1.com/all=a",                  // the specification's annotation
		"v1.com/none":      "v3.com/c=d",                    // a class, since there is no such kind
		"v1.com/none=*":    "",
		"v1.com/multi=x":   "",
		"v1.com/mult=*":    "",
		"multi":            "",
		"":                 "",
		"=":                "",
		"*":                "",
		"/=*":              "",
	} {
		if got := strings.Join(d.find(name), " "); got != want {
			t.Errorf("find(%q) = %q, want %q", name, got, want)
		}
	}
}

// TestResolve checks which requests a permission covers.
func TestResolve(t *testing.T) {
	d := Read(write(t, machine))
	names := func(list ...string) Permission { return Permission{Names: list} }
	for _, tt := range []struct {
		name     string
		requests string // separated by spaces; required with !
		p        Permission
		want     string
		err      string
	}{
		{"all", "v1.com/multi=foo class1", Permission{All: true},
			"v1.com/multi=foo v1.com/class=bar v1.com/class=foo v1.com/multi=baz", ""},
		{"one device twice", "v1.com/multi=foo v1.com/multi=foo", Permission{All: true},
			"v1.com/multi=foo", ""},
		{"nothing", "v1.com/multi=foo!", Permission{}, "", "device v1.com/multi=foo is requested by " +
			"the build but not allowed; add --allow device=v1.com/multi=foo"},
		{"an optional device", "v1.com/multi=foo", Permission{}, "", "but not allowed"},
		{"two", "v1.com/class=*", Permission{}, "", "devices v1.com/class=bar, v1.com/class=foo are " +
			"requested by the build but not allowed; add --allow device=v1.com/class=bar " +
			"--allow device=v1.com/class=foo"},
		{"the name", "v1.com/multi=foo", names("v1.com/multi=foo"), "v1.com/multi=foo", ""},
		{"another name", "v1.com/multi=foo", names("v1.com/multi=bar"), "", "not allowed"},
		{"one of two", "v1.com/class=*", names("v1.com/class=bar"), "",
			"device v1.com/class=foo is requested"},
		{"a kind is its first device", "v1.com/multi", names("v1.com/multi"), "v1.com/multi=bar", ""},
		{"a kind is not all devices", "v1.com/multi=foo", names("v1.com/multi"), "", "not allowed"},
		{"the wildcard", "v1.com/multi=foo", names("v1.com/multi=*"), "v1.com/multi=foo", ""},
		{"the class", "v1.com/class=foo", names("class1"), "v1.com/class=foo", ""},
		{"a permission for nothing", "v1.com/multi=foo", names("x", "v1.com/multi=foo"),
			"v1.com/multi=foo", ""},
		{"the specification", "v2.com/auto=*", Permission{}, "v2.com/auto=a v2.com/auto=b", ""},
		{"an alias", "gpu", Permission{Aliases: map[string]string{"gpu": "v1.com/multi=qux"}},
			"v1.com/multi=qux", ""},
		{"a device with an alias", "v1.com/multi=qux",
			Permission{Aliases: map[string]string{"gpu": "v1.com/multi=qux"}}, "", "not allowed"},
		{"an alias of nothing", "gpu!", Permission{Aliases: map[string]string{"gpu": "x"}}, "",
			`required device "gpu" is not registered: it is an alias of x, and no specification in `},
		{"a missing device", "v1.com/multi=fooo", Permission{}, "", ""},
		{"a missing device that is required", "v1.com/multi=fooo!", Permission{All: true}, "",
			`required device "v1.com/multi=fooo" is not registered: no specification in ` +
				strings.Join(d.dirs, " or ") + " has it (did you mean v1.com/multi=foo?)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var requests []Request
			for _, r := range strings.Fields(tt.requests) {
				name, required := strings.CutSuffix(r, "!")
				requests = append(requests, Request{name, required})
			}
			got, err := d.Resolve(requests, tt.p)
			if (err == nil) != (tt.err == "") ||
				err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("error %v, want %q", err, tt.err)
			}
			if err == nil && strings.Join(got.Names, " ") != tt.want {
				t.Errorf("devices %q, want %q", got.Names, tt.want)
			}
		})
	}
	got, err := d.Resolve([]Request{{Name: "nothing"}}, Permission{})
	want := []string{`device "nothing" is not registered: no specification in ` +
		strings.Join(d.dirs, " or ") + " has it"}
	if err != nil || cmp.Diff(want, got.Missing) != "" || len(got.Names) > 0 {
		t.Errorf("a missing device: %+v, %v", got, err)
	}
}

// TestSameName checks which of two devices with one name is used.
func TestSameName(t *testing.T) {
	one := func(v string) string {
		return strings.Replace(kind("v/c", "d", "e"), "D=1", v, 1)
	}
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  string // the variable of the device
		fault string
	}{
		{"a later directory", map[string]string{"1/a.yaml": one("D=1"), "2/a.yaml": one("D=2")},
			"D=2", ""},
		{"one directory", map[string]string{"1/a.yaml": one("D=1"), "1/b.json": strings.ReplaceAll(
			`{'cdiVersion': '0.3.0', 'kind': 'v/c', 'devices': [{'name': 'd', 'containerEdits':
			{'env': ['D=2']}}]}`, "'", `"`)}, "", "device v/c=d is both in "},
		{"three", map[string]string{"1/a.yaml": one("D=1"), "1/b.yaml": one("D=2"),
			"1/c.yaml": one("D=3")}, "", "device v/c=d is both in "},
		{"a later directory, and two before it", map[string]string{"1/a.yaml": one("D=1"),
			"1/b.yaml": one("D=2"), "2/a.yaml": one("D=3")}, "D=3", ""},
		{"two in the later directory", map[string]string{"1/a.yaml": one("D=1"),
			"2/a.yaml": one("D=2"), "2/b.yaml": one("D=3")}, "", "device v/c=d is both in "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := Read(write(t, tt.files))
			r, err := d.Resolve([]Request{{"v/c=d", true}}, Permission{All: true})
			if tt.fault != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fault) {
					t.Errorf("error %v, want %q", err, tt.fault)
				}
				return
			}
			if err != nil || strings.Join(r.Edits.Env, " ") != tt.want {
				t.Errorf("%+v, %v, want %s", r, err, tt.want)
			}
		})
	}
}

// TestFaults names the files that are not valid when a device is missing, and only then.
func TestFaults(t *testing.T) {
	dirs := write(t, map[string]string{"1/good.yaml": kind("v/c", "d"), "1/bad.json": "{",
		"1/bad.yaml": "kind: [", "1/other.yml": kind("v/c", "e"),
		"2/large.yaml": strings.Repeat("#", maxSize+1)})
	if err := os.Symlink("gone", filepath.Join(dirs[1], "link.json")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dirs[1], "pipe.json"), 0o644); err != nil {
		t.Fatal(err)
	}
	d := Read(dirs)
	var got []string
	for _, fault := range d.faults {
		got = append(got, strings.ReplaceAll(fault.Error(), filepath.Dir(dirs[0]), ""))
	}
	want := []string{"/1/bad.json: line 1: the text ends within a value",
		"/1/bad.yaml: line 1: did not find expected node content",
		"/1/other.yml is not read: a specification is named *.json or *.yaml",
		"/2/large.yaml: larger than 4 MiB", "stat /2/link.json: no such file or directory",
		"/2/pipe.json: not a regular file"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if r, err := d.Resolve([]Request{{"v/c=d", true}}, Permission{All: true}); err != nil ||
		len(r.Names) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	_, err := d.Resolve([]Request{{"v/c=e", true}}, Permission{})
	if err == nil || !strings.Contains(err.Error(), "other.yml is not read") ||
		!strings.HasSuffix(err.Error(), "; and 3 more faults") {
		t.Errorf("error %v", err)
	}
	if err := os.WriteFile(filepath.Join(dirs[0], "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if d := Read([]string{filepath.Join(dirs[0], "file")}); len(d.faults) != 1 {
		t.Errorf("a file in place of a directory: %v", d.faults)
	}
	if d := Read([]string{filepath.Join(dirs[0], "none")}); len(d.faults) > 0 {
		t.Errorf("no directory: %v", d.faults)
	}
}

// TestEdits combines the edits of devices and their specifications.
func TestEdits(t *testing.T) {
	d := Read(write(t, map[string]string{"1/a.yaml": `
cdiVersion: 0.7.0
kind: v/c
containerEdits:
  env: [ALL=1]
  additionalGids: [0, 5]
  hooks:
  - {hookName: createContainer, path: /a}
  - {hookName: prestart, path: /b, args: [b, c], env: [D=1], timeout: 3}
devices:
- name: a
  containerEdits:
    env: [A=1]
    deviceNodes: [{path: /dev/a, hostPath: /dev/zero, permissions: rwm}]
- name: b
  containerEdits:
    additionalGids: [5, 6]
    mounts: [{hostPath: /h, containerPath: /c, options: [ro, bind]}]
    hooks:
    - {hookName: createContainer, path: /e}
    - {hookName: createRuntime, path: /f}
`}))
	r, err := d.Resolve([]Request{{Name: "v/c=a"}, {Name: "v/c=b"}}, Permission{All: true})
	if err != nil {
		t.Fatal(err)
	}
	seconds := 3
	want := &Resolved{Names: []string{"v/c=a", "v/c=b"}, Edits: Edits{
		Env:    []string{"ALL=1", "A=1"},
		Nodes:  []Node{{Path: "/dev/a", HostPath: "/dev/zero", Permissions: "rwm"}},
		Mounts: []Mount{{HostPath: "/h", ContainerPath: "/c", Options: []string{"ro", "bind"}}},
		Groups: []uint32{5, 6},
		Hooks: []Hook{
			{Name: "prestart", Path: "/b", Args: []string{"b", "c"}, Env: []string{"D=1"},
				Timeout: &seconds},
			{Name: "createRuntime", Path: "/f"},
			{Name: "createContainer", Path: "/a"}, {Name: "createContainer", Path: "/e"},
		},
	}}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestUnsupported requests devices that need what a build cannot do. Each is an error that names
// it, also if the device is optional.
func TestUnsupported(t *testing.T) {
	for edits, want := range map[string]string{
		"hooks: [{hookName: startContainer, path: /usr/bin/h}]": "has the hook startContainer " +
			"(/usr/bin/h), and layerbuild runs only prestart, createRuntime, createContainer hooks",
		"hooks: [{hookName: poststop, path: /h}]":                 "has the hook poststop (/h), ",
		"hooks: [{hookName: prestart, path: bin/h}]":              "has the hook prestart (bin/h), and its path is not",
		"intelRdt: {closID: x}":                                   "has intelRdt, ",
		"netDevices: [{hostInterfaceName: eth0, name: e}]":        "has the net device eth0, ",
		"deviceNodes: [{path: /dev/a, permissions: r}]":           "has the device node /dev/a with the permissions r, ",
		"deviceNodes: [{path: /dev/a, permissions: wm}]":          "with the permissions wm, ",
		"deviceNodes: [{path: dev/a}]":                            "has the device node dev/a, and its paths are not absolute",
		"deviceNodes: [{path: /dev/a, hostPath: b}]":              "has the device node /dev/a, and its paths",
		"mounts: [{hostPath: h, containerPath: /c}]":              "has a mount of h at /c, and these paths",
		"mounts: [{hostPath: /h, containerPath: c}]":              "has a mount of /h at c, and these paths",
		"mounts: [{hostPath: /h, containerPath: /.}]":             "has a mount at /, ",
		"mounts: [{hostPath: t, containerPath: /c}]":              "has a mount of t at /c",
		"mounts: [{hostPath: /, containerPath: /c, type: tmpfs}]": "has a mount of the type tmpfs at /c, ",
		"mounts: [{hostPath: /h, containerPath: /c, options: [bind, rslave]}]": "has a mount at /c with " +
			"the option rslave, ",
	} {
		for _, level := range []string{"device", "specification"} {
			text := head + "    " + edits + "\n"
			if level == "specification" {
				text = head + "    env: [A=1]\ncontainerEdits:\n  " + edits + "\n"
			}
			d := Read(write(t, map[string]string{"1/a.yaml": text}))
			_, err := d.Resolve([]Request{{Name: "v.com/c=d"}}, Permission{All: true})
			if err == nil || !strings.Contains(err.Error(), want) ||
				!strings.HasPrefix(err.Error(), "device v.com/c=d cannot be used: "+d.dirs[0]) {
				t.Errorf("%s, edits of the %s: error %v, want %q", edits, level, err, want)
			}
		}
	}
}

// TestNodes checks which permissions close a node.
func TestNodes(t *testing.T) {
	for permissions, closed := range map[string]bool{"": false, "rw": false, "mwr": false,
		"none": true, "m": true} {
		n := Node{Path: "/dev/a", Permissions: permissions}
		if err := n.supported(); err != nil || n.Closed() != closed {
			t.Errorf("permissions %q: closed %v, %v", permissions, n.Closed(), err)
		}
	}
}

// TestFlags reads the options of mounts. The last one counts.
func TestFlags(t *testing.T) {
	for options, want := range map[string]Flags{
		"": {}, "bind": {}, "rbind rprivate nodev": {Recursive: true},
		"ro nosuid noexec":              {ReadOnly: true, NoSuid: true, NoExec: true},
		"ro nosuid noexec rw suid exec": {},
	} {
		m := Mount{HostPath: "/h", ContainerPath: "/c", Options: strings.Fields(options)}
		if got, err := m.Flags(); err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", options, got, err, want)
		}
	}
}
