package diff

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
)

// links records the files that have several names. A layer contains such a file's content under the
// first name, in the order of the walk, and the others as hard links to it. Readers differ in how
// they treat a hard link to a file that is not in the same layer, so if a file gets a new name, its
// old names are written too.
type links struct {
	groups map[file]*group
	// scanned has, for each layer that was scanned, the names of its files that have several. The
	// key is the number of a layer of the old state, or newState.
	scanned map[int]map[file][]string
	// divided counts the files whose names were divided between equal files (see regrouped).
	divided int
}

// file identifies a file in one of the trees.
type file struct{ dev, ino uint64 }

func fileOf(st *dirfd.Stat) file { return file{dirfd.Dev(st), st.Ino} }

type group struct {
	first string // the name that has the content; "": none, the file is unchanged
	left  uint32 // number of names that the walk has not reached yet
}

func (l *links) init() {
	l.groups = map[file]*group{}
	l.scanned = map[int]map[file][]string{}
}

// seen reports whether the walk has reached another name of the file, and returns the name with its
// content.
func (l *links) seen(st *dirfd.Stat) (first string, known bool) {
	g := l.groups[fileOf(st)]
	if g == nil {
		return "", false
	}
	if g.left--; g.left == 0 {
		delete(l.groups, fileOf(st))
	}
	return g.first, true
}

// remember records at a file's first name whether the file is written.
func (l *links) remember(st *dirfd.Stat, path []byte, changed bool) {
	g := &group{left: st.Nlink - 1}
	if changed {
		g.first = string(path)
	}
	l.groups[fileOf(st)] = g
}

// newState is the key of the new state in links.scanned.
const newState = -1

// scan returns the names of all files in a tree that have several.
func (w *walker) scan(layer int) (map[file][]string, error) {
	if m := w.links.scanned[layer]; m != nil {
		return m, nil
	}
	d := w.top
	if layer != newState {
		d = w.old[slices.IndexFunc(w.old, func(d lowerDir) bool { return d.layer == layer })]
	}
	fd, err := d.open()
	if err != nil {
		return nil, err
	}
	defer d.release(fd)
	m := map[file][]string{}
	if err := w.scanDir(m, fd, ""); err != nil {
		return nil, fmt.Errorf("look for hard links: %w", err)
	}
	w.links.scanned[layer] = m
	return m, nil
}

func (w *walker) scanDir(m map[file][]string, dir int, path string) error {
	fd, err := dirfd.OpenDir(dir, []byte(".\x00"))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var names dirfd.Names
	if err := names.Read(fd); err != nil {
		return err
	}
	names.Sort()
	var st dirfd.Stat
	for _, e := range names.Entries {
		name := path + string(names.Name(e))
		if _, skipped := w.skip[name]; skipped || reserved(names.Name(e)) {
			continue
		}
		if err := dirfd.Lstat(fd, names.CName(e), &st); err != nil {
			return err
		}
		if dirfd.Type(&st) == unix.S_IFDIR {
			sub, err := dirfd.OpenDir(fd, names.CName(e))
			if err != nil {
				return err
			}
			err = w.scanDir(m, sub, name+"/")
			unix.Close(sub)
			if err != nil {
				return err
			}
		} else if st.Nlink > 1 {
			m[fileOf(&st)] = append(m[fileOf(&st)], name)
		}
	}
	return nil
}

// regrouped reports whether an otherwise unchanged file must be written again because its set of
// names has changed: one of its names is new or belonged to another file, or one of its old names
// now belongs to another file that stays in the layer below. A removed name gets a whiteout, and
// the other names are kept.
//
// If a file's names were divided between several equal files, one of them can stay in the layer
// below, and the others are written. A file with a new name cannot stay. Of those that can, the one
// with the first name stays; on an overlay, the one that is still in the layer below does. That is
// the only case in which the drivers' layers may differ, although they produce the same tree: the
// two states do not contain which of the equal files is the old one, and overlay has broken the
// link (see the package comment).
func (w *walker) regrouped(path string, st *dirfd.Stat, in lowerDir,
	was *dirfd.Stat) (bool, error) {
	now := []string{path}
	if st.Nlink > 1 {
		all, err := w.scan(newState)
		if err != nil {
			return false, err
		}
		now = all[fileOf(st)]
	}
	if kept, err := w.namesOf(now, was); err != nil || !kept {
		return true, err
	}
	if int(was.Nlink) == len(now) {
		return false, nil
	}
	before, err := w.scan(in.layer)
	if err != nil {
		return false, err
	}
	for _, name := range before[fileOf(was)] {
		if slices.Contains(now, name) {
			continue
		}
		if split, err := w.divided(name, now, was); split || err != nil {
			return split, err
		}
	}
	return false, nil
}

// namesOf reports whether, in the old state, all the given names belonged to the file was.
func (w *walker) namesOf(names []string, was *dirfd.Stat) (bool, error) {
	for _, name := range names {
		p, err := w.old.find(w.marks, name)
		if err != nil {
			return false, err
		}
		p.close()
		if !p.found || fileOf(&p.st) != fileOf(was) {
			return false, nil
		}
	}
	return true, nil
}

// divided reports whether name, which the file had in the old state and has lost, now is a separate
// file that stays in the layer below.
func (w *walker) divided(name string, now []string, was *dirfd.Stat) (bool, error) {
	before, err := w.old.find(w.marks, name)
	if err != nil {
		return false, err
	}
	defer before.close()
	if !before.found || fileOf(&before.st) != fileOf(was) {
		return false, nil // already hidden by another layer
	}
	state := merged{w.top}
	if !w.full {
		state = append(state, w.old...)
	}
	after, err := state.find(w.marks, name)
	if err != nil {
		return false, err
	}
	defer after.close()
	if !after.found || dirfd.Type(&after.st) == unix.S_IFDIR {
		return false, nil
	}
	if after.in.layer != newState {
		w.links.divided++
		return true, nil // still in the layer below
	}
	dir, err := after.in.open()
	if err != nil {
		return false, err
	}
	defer after.in.release(dir)
	same, err := w.sameAs(dir, after.name, &after.st, before.in, before.name, &before.st)
	if err != nil || !same {
		return false, err // written because it has changed
	}
	if after.st.Nlink > 1 {
		all, err := w.scan(newState)
		if err != nil {
			return false, err
		}
		if kept, err := w.namesOf(all[fileOf(&after.st)], was); err != nil || !kept {
			return false, err // written because it has new names
		}
	}
	w.links.divided++
	first := slices.MinFunc(now, walkOrder)
	return walkOrder(name, first) < 0, nil
}

// walkOrder compares paths in the order of a walk: "a/b" is before "a.b".
func walkOrder(a, b string) int {
	return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
}
