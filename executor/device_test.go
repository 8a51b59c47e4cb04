package executor

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func ptr[T any](v T) *T { return &v }

// device is a mount of a device at a path.
func device(target string, d Device) Mount { return Mount{Target: target, Source: d} }

// TestDevice gives nodes to commands. In a user namespace they are those of the host.
func TestDevice(t *testing.T) {
	im := newBusybox(t)
	dir := t.TempDir()
	pipe, file := filepath.Join(dir, "pipe"), filepath.Join(dir, "file")
	link := filepath.Join(dir, "link")
	for _, err := range []error{unix.Mkfifo(pipe, 0o640), os.Chmod(pipe, 0o640),
		os.WriteFile(file, nil, 0o644), os.Symlink("/dev/zero", link)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	const read = "[ $(head -c 3 /dev/x | wc -c) = 3 ]"
	for _, tt := range []struct {
		name   string
		script string
		d      Device
		err    string // as root
		userNS string // the error in a user namespace; "": the same
	}{
		{"the host's", read + " && [ -c /dev/x ]", Device{Host: "/dev/zero"}, "", ""},
		{"with a type", read, Device{Host: "/dev/zero", Type: "c"}, "", ""},
		{"with its number", read, Device{Host: "/dev/zero", Type: "c", Major: 1, Minor: 5}, "", ""},
		{"with another number", read, Device{Host: "/dev/null", Type: "c", Major: 1, Minor: 5}, "",
			"a node cannot be made without root, and /dev/null of the host is another device: its " +
				"number is 1:3"},
		{"without one of the host", read, Device{Host: "/none", Type: "c", Major: 1, Minor: 5}, "",
			"a node cannot be made without root; open /none of the host: no such file"},
		{"closed", "[ -c /dev/x ] && ! head -c 1 /dev/x && ! echo >/dev/x",
			Device{Host: "/dev/zero", Closed: true}, "", ""},
		{"a fifo", "[ $(stat -c %F-%a /dev/x) = fifo-600 ] && (echo a >/dev/x & [ $(cat /dev/x) = a ])",
			Device{Host: "/dev/x", Type: "p", Mode: ptr(uint32(0o600))}, "", ""},
		{"a fifo like the host's", "[ $(stat -c %F-%a /dev/x) = fifo-640 ]", Device{Host: pipe}, "", ""},
		{"a missing node", "true", Device{Host: "/none"}, "look at /none of the host: no such file", ""},
		{"a missing node with a type", "true", Device{Host: "/none", Type: "c"},
			"look at /none of the host: no such file", ""},
		{"a file", "true", Device{Host: file}, file + " of the host is not a device node", ""},
		{"a link", "true", Device{Host: link}, link + " of the host is not a device node", ""},
		{"another type", "true", Device{Host: "/dev/zero", Type: "b"},
			"/dev/zero of the host is not of the type b", ""},
		{"an unknown type", "true", Device{Host: "/dev/zero", Type: "s"}, "not a device node", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := shell(tt.script)
			p.Mounts = []Mount{device("/dev/x", tt.d)}
			out, err := im.run(p)
			want := tt.err
			if userNS && tt.userNS != "" {
				want = tt.userNS
			}
			if (err == nil) != (want == "") ||
				err != nil && (!strings.Contains(err.Error(), want) ||
					!strings.HasPrefix(err.Error(), "device /dev/x: ")) {
				t.Errorf("error %v, want %q\n%s", err, want, out)
			}
		})
	}
	if _, err := os.Stat(im.path("dev")); err == nil {
		t.Error("the image has a directory /dev")
	}
}

// TestDeviceInImage mounts a node in a directory of the image, and leaves nothing there.
func TestDeviceInImage(t *testing.T) {
	im := newBusybox(t)
	p := shell("[ -c /opt/new/x ] && head -c 1 /opt/new/x >/dev/null")
	p.Mounts = []Mount{device("/opt/new/x", Device{Host: "/dev/zero"})}
	im.mustRun(p)
	if _, err := os.Stat(im.path("opt")); err == nil {
		t.Error("the image has a directory /opt")
	}
}

// TestDeviceOwner checks the owner and mode of new nodes.
func TestDeviceOwner(t *testing.T) {
	if singleID {
		t.Skip("there is one id")
	}
	im := newBusybox(t)
	for _, tt := range []struct {
		user string
		d    Device
		want string
	}{
		{"", Device{Type: "p"}, "0:0 666"},
		{"7:8", Device{Type: "p"}, "7:8 666"},
		{"7:8", Device{Type: "p", UID: ptr(uint32(0)), Mode: ptr(uint32(0o20))}, "0:8 20"},
		{"7:8", Device{Type: "p", GID: ptr(uint32(3)), Mode: ptr(uint32(0o100640))}, "7:3 640"},
	} {
		p := shell("stat -c '%u:%g %a' /dev/x")
		p.User, p.Mounts = tt.user, []Mount{device("/dev/x", tt.d)}
		if got := strings.TrimSpace(im.mustRun(p)); got != tt.want {
			t.Errorf("user %q, %+v: %s, want %s", tt.user, tt.d, got, tt.want)
		}
	}
}

// TestHostNode checks that a command in a user namespace cannot change the host's node, and that
// there is a warning if the node has another owner or mode than requested.
func TestHostNode(t *testing.T) {
	if !userNS {
		t.Skip("root makes nodes")
	}
	im := newBusybox(t)
	p := shell("! chmod 0 /dev/x && ! chown 1 /dev/x && echo x >/dev/x")
	p.Mounts = []Mount{device("/dev/x", Device{Host: "/dev/zero", Mode: ptr(uint32(0o600))})}
	var out bytes.Buffer
	r, err := Run(t.Context(), im.spec(p), &out, &out)
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	if !slices.ContainsFunc(r.Warnings, func(w string) bool {
		return strings.HasPrefix(w, "the device node /dev/zero has the owner and mode that it has")
	}) {
		t.Errorf("warnings %q", r.Warnings)
	}
}

// TestGroups gives further groups to a command.
func TestGroups(t *testing.T) {
	im := newBusybox(t)
	p := shell("id -G")
	p.Groups = []uint32{42, 42}
	out, err := im.run(p)
	switch {
	case singleID:
		if err == nil || !strings.Contains(err.Error(), "there is no group 42 in this") {
			t.Errorf("error %v", err)
		}
		return
	case err != nil || strings.TrimSpace(out) != "0 42":
		t.Errorf("groups %q, %v", out, err)
	}
	p.Groups = []uint32{1 << 30}
	if _, err := im.run(p); (err != nil) != userNS {
		t.Errorf("error %v of a group without mapping", err)
	}
}

// TestGroupNames gives groups to a command that the image's group file has.
func TestGroupNames(t *testing.T) {
	im := newBusybox(t)
	if singleID {
		t.Skip("there is one id only")
	}
	im.mkdir("etc")
	im.write("etc/group", "root:x:0:\naudio:x:29:\nvideo:x:44:\nbad:x:many:\n", 0o644)
	p := shell("id -G")
	p.Groups, p.GroupNames = []uint32{42, 44}, []string{"video", "audio"}
	if out := im.mustRun(p); out != "0 29 42 44\n" {
		t.Errorf("groups %q", out)
	}
	for _, name := range []string{"bad", "render"} {
		p.GroupNames = []string{"audio", name}
		if _, err := im.run(p); err == nil || !strings.Contains(err.Error(),
			"unable to find group "+name) {
			t.Errorf("group %s: error %v", name, err)
		}
	}
}

// TestMountOptions mounts a directory of the host with options.
func TestMountOptions(t *testing.T) {
	im := newBusybox(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "tool"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for script, m := range map[string]Mount{
		"/m/tool && touch /m/new && ! grep -E ' /m .*(nosuid|noexec)' /proc/mounts": {},
		"! /m/tool && grep ' /m .*noexec' /proc/mounts":                             {NoExec: true},
		"/m/tool && grep ' /m .*nosuid' /proc/mounts":                               {NoSuid: true},
		"! touch /m/other && /m/tool":                                               {ReadOnly: true},
	} {
		for _, single := range []bool{false, true} {
			p := shell(script)
			m.Target, m.Source = "/m", Bind{Source: dir, Single: single}
			p.Mounts = []Mount{m}
			im.mustRun(p)
		}
	}
}

// TestSingle leaves out the file systems below a directory of the host.
func TestSingle(t *testing.T) {
	if userNS {
		t.Skip("the mounts of the host are locked together")
	}
	if fi, err := os.Stat("/dev/pts/ptmx"); err != nil || fi.Mode()&os.ModeCharDevice == 0 {
		t.Skip("/dev/pts is not mounted")
	}
	im := newBusybox(t)
	for _, single := range []bool{false, true} {
		p := shell("ls /m/pts")
		p.Mounts = []Mount{{Target: "/m", Source: Bind{Source: "/dev", Single: single}}}
		if got := im.mustRun(p); strings.Contains(got, "ptmx") == single {
			t.Errorf("single %v: /dev/pts has %q", single, got)
		}
	}
}
