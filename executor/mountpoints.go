package executor

import (
	"os"
	"path/filepath"
	"slices"

	"github.com/layerbuild/layerbuild/internal/mount"
)

// MakeMountPoints makes a directory for Spec.MountPoints, if it is not there. It may be called by several processes at
// once.
func MakeMountPoints(dir string) error {
	if _, err := os.Lstat(dir); err == nil {
		return nil
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+"-")
	if err != nil {
		return err
	}
	err = fillMountPoints(tmp)
	if err == nil {
		err = os.Rename(tmp, dir)
	}
	if err == nil {
		return nil
	}
	os.RemoveAll(tmp)
	if _, lerr := os.Lstat(dir); lerr == nil {
		return nil // somebody else has made it
	}
	return err
}

func fillMountPoints(top string) error {
	for _, name := range []string{"", "proc", "dev", "sys", "etc"} {
		dir := filepath.Join(top, name)
		if name != "" {
			if err := os.Mkdir(dir, 0o755); err != nil {
				return err
			}
		}
		if err := os.Chmod(dir, 0o755); err != nil {
			return err
		}
	}
	for _, name := range []string{"etc/hosts", "etc/resolv.conf"} {
		file := filepath.Join(top, name)
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			return err
		}
		if err := os.Chmod(file, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// maxLowerPoints is how many directories an overlay may have to get one more: those of mount(2) are at their limit
// somewhere.
const maxLowerPoints = 100

// rootMounts are the root's, with the mount points below them. They are the lowest directory and in no snapshot: so they
// are in no layer either, unless something is made in them, which is a difference to a directory that is not there.
func (b *sandbox) rootMounts() []mount.Mount {
	root := b.spec.Root
	if b.spec.MountPoints == "" || len(root) != 1 || root[0].Type != mount.Overlay || len(root[0].Lower) > maxLowerPoints {
		return root
	}
	m := root[0]
	m.Lower = append(slices.Clone(m.Lower), b.spec.MountPoints)
	return []mount.Mount{m}
}
