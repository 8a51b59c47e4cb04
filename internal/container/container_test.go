package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/executor/archive"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/internal/mount/mounttest"
	"github.com/layerbuild/layerbuild/internal/state"
)

func TestMain(m *testing.M) {
	executor.Main(archive.Unpack)
	os.Exit(mounttest.Main(m))
}

// fixture is a state and an image with a shell in a layout.
type fixture struct {
	*testing.T
	state  *state.State
	images *image.Resolver
	layout string
	events []string
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	mounttest.Need(t)
	made, err := imagetest.Busybox()
	if errors.Is(err, imagetest.ErrNoBusybox) {
		t.Skip(err)
	}
	f := &fixture{T: t, layout: filepath.Join(t.TempDir(), "layout")}
	if err == nil {
		err = made.WriteLayout(f.layout, "box")
	}
	if err == nil {
		f.state, err = state.Open(t.Context(), state.Options{Root: t.TempDir(), Driver: "copy"})
	}
	if err != nil {
		t.Fatal(err)
	}
	f.images = image.New(image.Options{Store: f.state.Store, Cache: f.state.Cache,
		Snapshots: f.state.Snapshots})
	t.Cleanup(func() {
		if left := f.active(); len(left) > 0 {
			t.Errorf("snapshots left: %q", left)
		}
		if err := errors.Join(f.images.Close(), f.state.Close()); err != nil {
			t.Error(err)
		}
	})
	return f
}

// image finds the image in the layout.
func (f *fixture) image() *image.Image {
	f.Helper()
	img, err := f.images.Resolve(f.Context(), "oci-layout://"+f.layout,
		image.ResolveOptions{Any: true})
	if err != nil {
		f.Fatal(err)
	}
	return img
}

// active lists the snapshots that are being written.
func (f *fixture) active() []string {
	f.Helper()
	list, err := filepath.Glob(filepath.Join(f.state.Root, "snapshots", "*", "tmp", "*"))
	if err != nil {
		f.Fatal(err)
	}
	return list
}

// sink keeps the events of a New.
func (f *fixture) sink(e event.Event) {
	switch e := e.(type) {
	case event.Start:
		f.events = append(f.events, "start "+e.Name)
	case event.Done:
		f.events = append(f.events, fmt.Sprintf("done %v %v", e.Cached, e.Err != nil))
	}
}

// open makes a container.
func (f *fixture) open() *Container {
	f.Helper()
	c, err := New(f.Context(), f.state, f.images, f.image(), f.sink)
	if err != nil {
		f.Fatal(err)
	}
	return c
}

// run runs a script, and returns its output on both streams and the error.
func (f *fixture) run(c *Container, script string) (stdout, stderr string, err error) {
	f.Helper()
	var out, errOut bytes.Buffer
	err = c.Run(f.Context(), &executor.Process{Args: []string{"/bin/sh", "-c", script}}, &out,
		&errOut)
	return out.String(), errOut.String(), err
}

// TestContainers makes two containers of an image. The image is unpacked once, and neither a
// container nor the image gets the changes of another container.
func TestContainers(t *testing.T) {
	f := newFixture(t)
	first, second := f.open(), f.open()
	name := f.image().Name
	if want := []string{"start unpack " + name, "done false false", "start unpack " + name,
		"done true false"}; !slices.Equal(f.events, want) {
		t.Errorf("events %q, want %q", f.events, want)
	}
	for _, tt := range []struct {
		c              *Container
		script         string
		stdout, stderr string
	}{
		{first, "echo one > /file; echo out; echo err >&2", "out\n", "err\n"},
		{second, "cat /file 2>/dev/null || echo none", "none\n", ""},
		{first, "cat /file; rm /etc/passwd", "one\n", ""},
		{second, "cat /etc/passwd > /dev/null && echo two > /file && cat /file", "two\n", ""},
		{first, "ls /etc/passwd 2>/dev/null || cat /file", "one\n", ""},
	} {
		stdout, stderr, err := f.run(tt.c, tt.script)
		if err != nil || stdout != tt.stdout || stderr != tt.stderr {
			t.Errorf("%s: output %q, %q, error %v, want %q, %q", tt.script, stdout, stderr, err,
				tt.stdout, tt.stderr)
		}
	}
	if n := len(f.active()); n != 2 {
		t.Errorf("%d snapshots are being written, want 2", n)
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if stdout, _, err := f.run(second, "cat /file"); stdout != "two\n" || err != nil {
		t.Errorf("after the end of another container: %q, %v", stdout, err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	third := f.open()
	defer third.Close()
	if stdout, _, err := f.run(third, "ls -d /file /etc/passwd 2>/dev/null"); stdout !=
		"/etc/passwd\n" {
		t.Errorf("the next container has %q, %v", stdout, err)
	}
}

// TestExitStatus runs a command that fails, and one that does not exist.
func TestExitStatus(t *testing.T) {
	f := newFixture(t)
	c := f.open()
	defer c.Close()
	_, _, err := f.run(c, "exit 7")
	if exit, ok := errors.AsType[*executor.ExitError](err); !ok || exit.Code != 7 {
		t.Errorf("exit 7: error %v", err)
	}
	if err := c.Run(t.Context(), &executor.Process{Args: []string{"/none"}}, io.Discard,
		io.Discard); err == nil {
		t.Error("a command that does not exist: no error")
	}
	if stdout, _, err := f.run(c, "echo still here"); stdout != "still here\n" || err != nil {
		t.Errorf("after a command that failed: %q, %v", stdout, err)
	}
}

// TestRunCanceled ends the context while a command runs. The command ends, and the container can be
// closed.
func TestRunCanceled(t *testing.T) {
	f := newFixture(t)
	c := f.open()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error)
	go func() {
		err := c.Run(ctx, &executor.Process{Args: []string{"/bin/sh", "-c",
			"echo begun; while true; do sleep 1000; done"}}, w, io.Discard)
		w.Close()
		done <- err
	}()
	begun := make([]byte, 6)
	if _, err := io.ReadFull(r, begun); string(begun) != "begun\n" {
		t.Errorf("the command prints %q, %v", begun, err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// TestNewFails makes containers of an image that cannot be unpacked, and with a context that has
// ended: nothing is left.
func TestNewFails(t *testing.T) {
	f := newFixture(t)
	img := f.image()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if c, err := New(ctx, f.state, f.images, img, f.sink); c != nil ||
		!errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v, %v", c, err)
	}
	blob := filepath.Join(f.layout, "blobs/sha256", img.Manifest.Layers[0].Digest.Encoded())
	if err := os.Truncate(blob, 100); err != nil {
		t.Fatal(err)
	}
	c, err := New(t.Context(), f.state, f.images, img, f.sink)
	if c != nil || err == nil || !strings.Contains(err.Error(), "layer") {
		t.Errorf("a damaged layer: %v, %v", c, err)
	}
	if want := slices.Repeat([]string{"start unpack " + img.Name, "done false true"},
		2); !slices.Equal(f.events, want) {
		t.Errorf("events %q, want %q", f.events, want)
	}
}

// TestRootless runs TestContainers and TestOverlay in user namespaces.
func TestRootless(t *testing.T) {
	for _, kind := range []mounttest.Kind{mounttest.Range, mounttest.Single} {
		for _, test := range []string{"TestContainers", "TestOverlay"} {
			t.Run(string(kind)+" "+test, func(t *testing.T) { mounttest.Again(t, kind, test) })
		}
	}
}

// TestOverlay changes a directory of the host in a container. Close removes the changes.
func TestOverlay(t *testing.T) {
	f := newFixture(t)
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "in"), []byte("input\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c := f.open()
	tree, err := c.Overlay(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := c.Run(t.Context(), &executor.Process{Args: []string{"/bin/sh", "-c",
		"cat /host/in; echo changed >/host/in; echo >/host/new; cat /host/in"},
		Mounts: []executor.Mount{{Target: "/host", Source: tree}}}, &out, &out); err != nil ||
		out.String() != "input\nchanged\n" {
		t.Errorf("output %q, %v", out.String(), err)
	}
	if _, err := c.Overlay(t.Context(), host+"/none"); err == nil {
		t.Error("a directory that does not exist: no error")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	data, err := os.ReadFile(filepath.Join(host, "in"))
	if entries, eerr := os.ReadDir(host); string(data) != "input\n" || len(entries) != 1 ||
		errors.Join(err, eerr) != nil {
		t.Errorf("the directory has %d files, and in is %q, %v", len(entries), data, err)
	}
}
