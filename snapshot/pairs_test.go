package snapshot_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/fstree"
	"github.com/layerbuild/layerbuild/internal/mount"
	"github.com/layerbuild/layerbuild/internal/mount/mounttest"
	"github.com/layerbuild/layerbuild/snapshot"
)

// foreignMarks make files and attributes that one of the drivers interprets as a mark, and that a
// command can make.
var foreignMarks = map[string]func(dir string) error{
	"user.fuseoverlayfs.opaque": setMark("user.fuseoverlayfs.opaque", "y"),
	"user.overlay.opaque":       setMark("user.overlay.opaque", "y"),
	"user.overlay.opaque=x":     setMark("user.overlay.opaque", "x"),
	"trusted.overlay.opaque":    setMark("trusted.overlay.opaque", "y"),
	"user.overlay.redirect":     setMark("user.overlay.redirect", "/other"),
	"user.overlay.metacopy": func(dir string) error {
		return unix.Setxattr(dir+"/own", "user.overlay.metacopy", nil, 0)
	},
	"user.overlay.whiteout": func(dir string) error {
		return unix.Setxattr(dir+"/own", "user.overlay.whiteout", nil, 0)
	},
	"a file .wh.old": func(dir string) error {
		return os.WriteFile(dir+"/.wh.old", nil, 0o644)
	},
	"a file .wh..wh..opq": func(dir string) error {
		return os.WriteFile(dir+"/.wh..wh..opq", nil, 0o644)
	},
}

func setMark(name, value string) func(string) error {
	return func(dir string) error { return unix.Setxattr(dir, name, []byte(value), 0) }
}

// TestPairsOfDrivers reads with each driver the snapshots of each other driver, with all
// foreignMarks. Both drivers must show the same tree, unless the reader does not have the snapshot.
func TestPairsOfDrivers(t *testing.T) {
	mounttest.Need(t)
	var drivers []string
	for _, r := range snapshot.Probe(t.TempDir(), snapshot.Options{UserNS: mounttest.UserNS()}) {
		if r.OK {
			drivers = append(drivers, r.Name)
		}
	}
	for _, maker := range drivers {
		for mark, set := range foreignMarks {
			root := mounttest.TempDir(t)
			want, err := makeMarked(t, openDriver(t, root, maker), set)
			if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) ||
				errors.Is(err, unix.EACCES) || errors.Is(err, unix.EINVAL) {
				continue // the driver does not let a command make it
			}
			if err != nil {
				t.Errorf("%s, %s: %v", maker, mark, err)
				continue
			}
			for _, reader := range drivers {
				s := openDriver(t, root, reader)
				if _, err := s.Stat(t.Context(), "marked"); errors.Is(err, snapshot.ErrNotExist) &&
					reader != maker {
					continue
				}
				if got := show(t, s, "marked"); got != want {
					t.Errorf("%s, made by %s, read by %s (-want +got)\n%s", mark, maker,
						reader, cmp.Diff(want, got))
				}
			}
		}
	}
}

func TestPairsOfDriversInUserNamespace(t *testing.T) {
	mounttest.Again(t, mounttest.Range, "TestPairsOfDrivers")
}

func openDriver(t *testing.T, root, driver string) *snapshot.Store {
	t.Helper()
	s, err := snapshot.Open(t.Context(), root,
		snapshot.Options{Driver: driver, UserNS: mounttest.UserNS()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// makeMarked commits two snapshots, of which the upper one has a mark in a directory of the lower
// one, and returns the tree that is visible to a step on the upper one.
func makeMarked(t *testing.T, s *snapshot.Store, set func(dir string) error) (string, error) {
	t.Helper()
	var parent snapshot.ID
	var seen string
	for _, step := range []struct {
		id   snapshot.ID
		make func(dir string) error
	}{
		{"base", func(dir string) error {
			return fstree.Make(dir, "file d/old 0644 old\nfile other/f 0644 f\n")
		}},
		{"marked", func(dir string) error {
			return errors.Join(os.WriteFile(filepath.Join(dir, "d/own"), nil, 0o644),
				set(filepath.Join(dir, "d")))
		}},
	} {
		a, err := s.Prepare(t.Context(), parent)
		if err != nil {
			return "", err
		}
		defer a.Discard()
		err = inside(t, a.Mounts(), func(dir string) error {
			if err := step.make(dir); err != nil {
				return err
			}
			seen, err = fstree.Print(dir, fstree.Show{})
			return err
		})
		if err != nil {
			return "", err
		}
		if err := a.Commit(t.Context(), step.id); err != nil {
			return "", err
		}
		parent = step.id
	}
	return seen, nil
}

func show(t *testing.T, s *snapshot.Store, id snapshot.ID) (tree string) {
	t.Helper()
	mounts, err := s.View(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	err = inside(t, mounts, func(dir string) (err error) {
		tree, err = fstree.Print(dir, fstree.Show{})
		return err
	})
	if err != nil {
		tree += err.Error()
	}
	return tree
}

func inside(t *testing.T, mounts []mount.Mount, f func(dir string) error) (err error) {
	dir := t.TempDir()
	if err := mount.All(mounts, dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH)) }()
	return f(dir)
}
