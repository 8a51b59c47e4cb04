package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A disk is the file system with the state and the contexts. On a file system that other programs
// use, making files right after a mass delete may be many times slower than usual, and so the next
// run would be slower.
type disk struct {
	dir  string
	what string // description for the report
	undo []func() error
}

// fsKinds are the kinds of file systems. With none, the directory of the options is used as it is.
var fsKinds = []string{"ext4", "tmpfs", "none"}

// newDisk makes a file system of one of fsKinds, or of a kind that the user may mount if kind is
// empty.
func newDisk(ctx context.Context, o options, kind string) (d *disk, err error) {
	if kind == "" {
		kind = "none"
		if os.Getuid() == 0 {
			kind = "ext4"
		}
	}
	top, err := os.MkdirTemp(o.dir, "layerbuild-bench-")
	if err != nil {
		return nil, err
	}
	d = &disk{dir: filepath.Join(top, "fs"),
		undo: []func() error{func() error { return remove(top) }}}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if err := os.Mkdir(d.dir, 0o755); err != nil {
		return d, err
	}
	switch kind {
	case "none":
		d.what = strings.TrimSpace(output(ctx, "stat", "-f", "-c", "%T", d.dir)) +
			", a directory of the machine's own"
		return d, nil
	case "tmpfs":
		d.what = "tmpfs"
		return d, d.mount(ctx, "-t", "tmpfs", "-o", "size=80%", "layerbuild-bench", d.dir)
	case "ext4":
		return d, d.ext4(ctx, filepath.Join(top, "ext4.img"), o.size)
	}
	panic("unreachable")
}

// ext4 makes a file system with a journal in a file of the requested size, or a smaller one that
// fits.
func (d *disk) ext4(ctx context.Context, image, size string) error {
	if err := command(ctx, "truncate", "--size="+size, image); err != nil {
		return err
	}
	_, avail, _ := strings.Cut(output(ctx, "df", "--block-size=1", "--output=avail",
		filepath.Dir(image)), "\n")
	if n, err := strconv.ParseInt(strings.TrimSpace(avail), 10, 64); err == nil {
		if err := command(ctx, "truncate", fmt.Sprintf("--size=<%d", n/10*9), image); err != nil {
			return err
		}
	}
	// Make an inode for each 8 KiB: the largest contexts have a million files.
	if err := command(ctx, "mkfs.ext4", "-q", "-F", "-i", "8192", image); err != nil {
		return err
	}
	// Without direct I/O all data would be in the page cache twice.
	d.what = "ext4 with a journal in a file on " +
		strings.TrimSpace(output(ctx, "stat", "-f", "-c", "%T", filepath.Dir(image))) +
		", by a loop device with direct I/O"
	loop := strings.TrimSpace(output(ctx, "losetup", "--find", "--show", "--direct-io=on", image))
	if loop == "" {
		d.what = strings.TrimSuffix(d.what, " with direct I/O")
		if loop = strings.TrimSpace(output(ctx, "losetup", "--find", "--show", image)); loop == "" {
			return errors.New("no loop device: try -fs tmpfs")
		}
	}
	d.undo = append(d.undo, func() error {
		return command(context.Background(), "losetup", "--detach", loop)
	})
	return d.mount(ctx, "-t", "ext4", "-o", "noinit_itable", loop, d.dir)
}

func (d *disk) mount(ctx context.Context, args ...string) error {
	if err := command(ctx, "mount", args...); err != nil {
		return err
	}
	d.undo = append(d.undo, func() error { return unmount(d.dir) })
	return nil
}

// settle syncs the file system and discards freed blocks, so that no tool spends time on the data
// of another.
func (d *disk) settle(ctx context.Context) {
	output(ctx, "sync", "--file-system", d.dir)
	if len(d.undo) > 1 {
		output(ctx, "fstrim", d.dir)
	}
}

// close undoes all steps, the last one first. It stops at the first step that cannot be undone.
func (d *disk) close() error {
	for i, undo := range slices.Backward(d.undo) {
		if err := undo(); err != nil {
			return err
		}
		d.undo = d.undo[:i]
	}
	return nil
}

// unmount unmounts a directory and all mounts below it.
func unmount(dir string) error {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var all []string
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) > 4 &&
			(f[4] == dir || strings.HasPrefix(f[4], dir+"/")) {
			all = append(all, f[4])
		}
	}
	for _, at := range slices.Backward(all) {
		if err := command(context.Background(), "umount", at); err != nil {
			return err
		}
	}
	return nil
}

// remove unmounts everything below a tree, and removes the tree.
func remove(dir string) error {
	if err := unmount(dir); err != nil {
		return err
	}
	if os.Getuid() == 0 {
		return command(context.Background(), "rm", "-rf", "--one-file-system", dir)
	}
	// Files of subordinate ids can only be removed in a user namespace.
	if command(context.Background(), "unshare", "--map-root-user", "--map-auto", "rm", "-rf",
		"--one-file-system", dir) == nil {
		return nil
	}
	return command(context.Background(), "unshare", "--map-root-user", "rm", "-rf",
		"--one-file-system", dir)
}

// command runs a command of the machine. The error contains its output.
func command(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// output returns the output of a command, and "" if it fails.
func output(ctx context.Context, name string, args ...string) string {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return ""
	}
	return string(out)
}
