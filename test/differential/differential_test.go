package differential

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/diff"
	"github.com/layerbuild/layerbuild/internal/layercheck"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/mount/mounttest"
	"github.com/layerbuild/layerbuild/internal/rounds"
	"github.com/layerbuild/layerbuild/snapshot"
)

func TestMain(m *testing.M) { os.Exit(mounttest.Main(m)) }

// Each test makes random trees and random changes on a driver, in one to four snapshots on top of
// one another. It applies the layer of each snapshot to the state before and compares the result
// with the state that the step saw: once applied to a listing (layercheck), and once unpacked by
// package diff into a snapshot of the same driver. On overlays it also compares the layer, byte for
// byte, with the layer of two plain copies of the same states.
//
// A failed round prints its seed and the entries that differ.

func TestOverlay(t *testing.T) { run(t, mount.Overlay, mounttest.TempDir(t), 60, 20) }
func TestCopy(t *testing.T)    { run(t, "copy", mounttest.TempDir(t), 40, 10) }
func TestFuse(t *testing.T)    { run(t, mount.FuseOverlay, mounttest.TempDir(t), 20, 5) }
func TestBtrfs(t *testing.T) {
	run(t, "btrfs", mounttest.LoopMount(t, 1<<30, "mkfs.btrfs", "-q"), 30, 10)
}

// TestMerging merges the chains on which the steps are made.
func TestMerging(t *testing.T) { run(t, merging, mounttest.TempDir(t), 30, 10) }

func TestMergingInUserNamespace(t *testing.T) {
	mounttest.Again(t, mounttest.Range, "TestMerging$")
}

func TestOverlayInUserNamespace(t *testing.T) { mounttest.Again(t, mounttest.Range, "TestOverlay") }
func TestFuseInUserNamespace(t *testing.T)    { mounttest.Again(t, mounttest.Range, "TestFuse") }

// TestOverlayWithSingleID has no ledger of its own: the user may not write it.
func TestOverlayWithSingleID(t *testing.T) {
	t.Setenv("LAYERBUILD_FAULTS", "")
	mounttest.Again(t, mounttest.Single, "TestOverlay")
}

// found returns the seeds that once found a fault, on any driver:
//
//	1   user.fuseoverlayfs.opaque counted as a mark on the kernel's overlay
//	3   a directory below an opaque one was compared as if it were merged, and deleted files
//	    came back; whiteouts of other builders' layers that hide nothing were listed as names that
//	    cannot be found
//	9   whiteouts that fuse-overlayfs had left were listed in the same way
//	93  an unchanged name of a file whose other names were changed was written again
func found() []uint64 { return []uint64{1, 3, 9, 93} }

// merging is the driver overlay with chains that are merged as soon as possible.
const merging = "merging"

// run runs the rounds of one driver in the directory top.
func run(t *testing.T, driver, top string, fixed, fresh int) {
	mounttest.Need(t)
	s := site{driver: driver, top: top, userNS: mounttest.UserNS()}
	if err := os.Chmod(top, 0o711); err != nil { // for fuse-overlayfs and single ids
		t.Fatal(err)
	}
	o := snapshot.Options{Driver: driver, UserNS: s.userNS}
	if driver == merging {
		o.Driver, o.MergeAfter = mount.Overlay, 2
	}
	store, err := snapshot.Open(t.Context(), filepath.Join(top, "store"), o)
	if err != nil {
		t.Skip(err)
	}
	s.store, s.view = store, store
	if driver == merging { // the results are read from chains that are not merged
		o.MergeAfter = 1000
		if s.view, err = snapshot.Open(t.Context(), filepath.Join(top, "store"), o); err != nil {
			t.Fatal(err)
		}
	}
	if driver == mount.FuseOverlay {
		// The kernel's overlay can read these snapshots, too, and is faster. They are in a separate
		// directory.
		if o, err := snapshot.Open(t.Context(), filepath.Join(top, "store", "fuse"),
			snapshot.Options{Driver: mount.Overlay, UserNS: s.userNS}); err == nil {
			s.view = o
		}
	}
	s.mnt = filepath.Join(top, "mnt")
	if err := os.Mkdir(s.mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	ledger := "diff-" + driver
	if s.userNS {
		ledger += "-" + string(mounttest.Current())
	}
	long := 20_000
	switch driver { // both tests run as root, and again in a user namespace
	case mount.FuseOverlay:
		long = 10_000
	case merging:
		long = 2000
	}
	rounds.Run(t, ledger, rounds.Options{Fixed: fixed, Fresh: fresh, Long: long, Found: found()},
		func(t *testing.T, seed uint64) {
			r := round{t: t, site: &s, seed: seed, rnd: rand.New(rand.NewPCG(seed, 0))}
			r.run()
		})
	if driver == merging && s.merged == 0 {
		t.Error("no chain was merged")
	}
	t.Log(s.merged, "chains were merged")
}

// site holds the directories and the store for the rounds of a driver.
type site struct {
	driver string
	userNS bool
	top    string
	mnt    string // an empty directory
	store  *snapshot.Store
	view   *snapshot.Store // the store to read from, by the faster driver
	merged int             // number of chains that were merged
}

type round struct {
	*site
	t    *testing.T
	seed uint64
	rnd  *rand.Rand
	log  []string
	made []snapshot.ID
	// divided is set if the current step has divided names of a file among equal files.
	divided bool
}

func (r *round) check(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatalf("%v\nchanges:\n%s", err, strings.Join(r.log, "\n"))
	}
}

// run makes the snapshots of a round, and removes them.
func (r *round) run() {
	defer func() {
		for i := len(r.made) - 1; i >= 0; i-- {
			if err := r.store.Remove(r.t.Context(), r.made[i]); err != nil {
				r.t.Error(err)
			}
		}
	}()
	parent, before := snapshot.ID(""), layercheck.Empty()
	steps := 1 + r.pick(4)
	if r.driver == merging {
		steps = 3 + r.pick(6)
	}
	for i := range steps {
		n := 1 + r.pick(14)
		if i == 0 {
			n = 12
		}
		parent, before = r.step(i, parent, before, n)
	}
}

func (r *round) pick(n int) int { return r.rnd.IntN(n) }

// step makes a snapshot with n changes on parent, compares the states and layers, and returns its
// results. before is the listing of parent.
func (r *round) step(i int, parent snapshot.ID, before *layercheck.Tree,
	n int) (snapshot.ID, *layercheck.Tree) {
	ctx := r.t.Context()
	r.log = append(r.log, fmt.Sprintf("-- step %d", i))
	r.divided = false
	if r.driver == merging && parent != "" {
		r.check(r.store.Merge(ctx, parent))
		if r.store.Merged(parent) {
			r.merged++
		}
	}
	a, err := r.store.Prepare(ctx, parent)
	r.check(err)
	defer func() { r.check(a.Discard()) }()
	var saw *layercheck.Tree
	r.mounted(a.Mounts(), func() {
		if i == 0 {
			r.grow(r.mnt)
		}
		r.change(r.mnt, n)
		if r.driver != mount.FuseOverlay {
			saw = r.list(r.mnt)
		}
	})
	if r.driver == mount.FuseOverlay && r.one(3) {
		// fuse-overlayfs confuses the names of one file while they are changed. After a new mount
		// it usually shows the state on the disk.
		r.mounted(a.Mounts(), func() { saw = r.list(r.mnt) })
	}
	id := snapshot.ID(fmt.Sprintf("s%d-%d", r.seed, i))
	r.check(a.Commit(ctx, id))
	r.made = append(r.made, id)
	layer := r.layer(a.Changes())

	// Inode numbers of links are valid only for one mount: in a user namespace, overlay shows two
	// numbers for a file that was copied up for linking, until it is mounted again. fuse-overlayfs
	// shows one file for several names although it has copied up one of them.
	view := r.viewed(id)
	if saw != nil {
		r.same("the snapshot is not what the step saw", layer, view, saw,
			layercheck.Options{SkipLinked: r.userNS || r.driver == mount.FuseOverlay})
	}
	if r.divided || r.one(4) {
		if list := r.superfluous(layer, before, view); len(list) > 0 {
			r.t.Fatalf("the layer has entries that it does not need: %q\n%s", list, r.story(layer))
		}
	}
	if err := before.Apply(bytes.NewReader(layer)); err != nil {
		r.t.Fatalf("%v\n%s", err, r.story(layer))
	}
	r.same("the layer applied to the state before is not the snapshot", layer, before, view,
		layercheck.Options{})
	r.same("the layer unpacked on the state before is not the snapshot", layer,
		r.unpacked(i, parent, layer), view, layercheck.Options{})
	if r.one(2) {
		layer := r.foreign(layer)
		r.same("the layer as others write it, unpacked, is not the snapshot", layer,
			r.unpacked(i, parent, layer), view, layercheck.Options{})
	}
	if r.store.Layered() {
		r.compareCopies(parent, id, layer)
	}
	return id, view
}

// same fails the round if two trees differ.
func (r *round) same(what string, layer []byte, image, step *layercheck.Tree,
	o layercheck.Options) {
	r.t.Helper()
	lines, err := layercheck.Compare(image, step, o)
	r.check(err)
	if len(lines) > 0 {
		r.t.Fatalf("%s:\n%s\n%s", what, strings.Join(lines, "\n"), r.story(layer))
	}
}

// story lists the steps of a round.
func (r *round) story(layer []byte) string {
	return fmt.Sprintf("layer:\n%s\nchanges:\n%s", describe(layer), strings.Join(r.log, "\n"))
}

// mounted performs mounts at r.mnt while do runs.
func (r *round) mounted(mounts []mount.Mount, do func()) {
	r.t.Helper()
	r.check(mount.All(mounts, r.mnt))
	defer func() { r.check(unix.Unmount(r.mnt, 0)) }()
	do()
	if r.driver == mount.FuseOverlay {
		fd, err := unix.Open(r.mnt, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		r.check(err)
		r.check(errors.Join(unix.Syncfs(fd), unix.Close(fd)))
	}
}

// list lists a directory. It returns nil for a directory that fuse-overlayfs cannot show: it lists
// names that cannot be found, or returns ENOMEM. The files on the disk are compared nevertheless.
func (r *round) list(dir string) *layercheck.Tree {
	r.t.Helper()
	f, err := os.Open(dir)
	r.check(err)
	defer f.Close()
	tree, err := layercheck.List(f, false)
	if err == nil {
		err = tree.Load()
	}
	if r.driver == mount.FuseOverlay && (errors.Is(err, unix.ENOENT) ||
		errors.Is(err, unix.ENOMEM)) {
		r.t.Log(err)
		return nil
	}
	r.check(err)
	return tree
}

// viewed lists a committed snapshot.
func (r *round) viewed(id snapshot.ID) *layercheck.Tree {
	r.t.Helper()
	mounts, err := r.view.View(r.t.Context(), id)
	r.check(err)
	f, err := mount.Open(mounts)
	r.check(err)
	defer f.Close()
	tree, err := layercheck.List(f, false)
	r.check(err)
	r.check(tree.Load())
	return tree
}

func (r *round) layer(c snapshot.Changes) []byte {
	r.t.Helper()
	var b bytes.Buffer
	_, err := diff.Write(r.t.Context(), &b,
		diff.Tree{Dir: c.Dir, Lower: c.Lower, Full: c.Full, UserXattr: c.UserXattr}, diff.Options{})
	r.check(err)
	return b.Bytes()
}

// unpacked unpacks a layer like one of a base image, on parent, and lists the new snapshot.
func (r *round) unpacked(i int, parent snapshot.ID, layer []byte) *layercheck.Tree {
	r.t.Helper()
	ctx := r.t.Context()
	id := snapshot.ID(fmt.Sprintf("u%d-%d", r.seed, i))
	on := parent
	if r.store.Layered() {
		on = ""
	}
	a, err := r.view.Prepare(ctx, on)
	r.check(err)
	defer func() { r.check(a.Discard()) }()
	o := diff.ApplyOptions{Full: !r.store.Layered(), UserXattr: a.Changes().UserXattr}
	applied, err := diff.Apply(ctx, bytes.NewReader(layer), a.Upper(), o)
	r.check(err)
	ownRoot := true
	for _, d := range applied.Implied {
		ownRoot = ownRoot && d.Path != "."
	}
	if r.store.Layered() {
		lower, err := r.view.Dirs(ctx, parent)
		r.check(err)
		r.check(diff.Inherit(ctx, diff.Tree{Dir: a.Upper(), Lower: lower,
			UserXattr: o.UserXattr}, applied))
	}
	r.check(a.CommitOn(ctx, id, parent, ownRoot))
	defer func() { r.check(r.store.Remove(ctx, id)) }()
	return r.viewed(id)
}

// compareCopies fails the round if the layer of plain copies of two snapshots differs. A difference
// is accepted only for files of which one of several names was changed: overlay breaks such links
// (docs/ARCHITECTURE.md).
func (r *round) compareCopies(parent, id snapshot.ID, layer []byte) {
	r.t.Helper()
	dirs := [2]string{filepath.Join(r.top, "before"), filepath.Join(r.top, "after")}
	defer func() {
		for _, dir := range dirs {
			r.check(os.RemoveAll(dir))
		}
	}()
	for i, id := range []snapshot.ID{parent, id} {
		mounts, err := r.view.View(r.t.Context(), id)
		r.check(err)
		r.mountedByKernel(mounts, func() { r.check(copyTree(r.mnt, dirs[i])) })
	}
	full := r.layer(snapshot.Changes{Dir: dirs[1], Lower: dirs[:1], Full: true})
	if bytes.Equal(layer, full) {
		return
	}
	linked, err := linkedNames(dirs[0])
	r.check(err)
	if lines := differing(layer, full, linked); len(lines) > 0 {
		r.t.Fatalf("the layer of copies of the same states differs (-%s +copies):\n%s\n%s",
			r.driver, strings.Join(lines, "\n"), r.story(layer))
	}
}

func (r *round) mountedByKernel(mounts []mount.Mount, do func()) {
	r.t.Helper()
	r.check(mount.All(mounts, r.mnt))
	defer func() { r.check(unix.Unmount(r.mnt, 0)) }()
	do()
}
