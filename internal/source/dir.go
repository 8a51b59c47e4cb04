package source

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/fileentry"
	"github.com/layerbuild/layerbuild/internal/pattern"
)

// walk lists the files below a directory.
type walk struct {
	m       *matching
	include *pattern.Matcher // nil: everything
	item    Item
	path    []byte // the path of the current file, in the tree
	skip    int    // the length of the part of path before the part relative to base
	depth   int
	pending []pendingDir
}

// inherited holds the results of matching patterns with a directory; they apply to its content as
// well.
type inherited struct{ ignore, exclude, include pattern.Matched }

// pendingDir is a directory that is not selected itself. It becomes an entry when the first file
// in it is selected.
type pendingDir struct {
	path   []byte
	entry  fileentry.Entry
	record []byte
}

// newWalk returns a walk below the directory base.
func (m *matching) newWalk(base string, include *pattern.Matcher) *walk {
	w := &walk{m: m, include: include, item: Item{Path: base, Contents: true}}
	if base != "." {
		w.path = append(append(w.path, base...), '/')
		w.skip = len(w.path)
	}
	return w
}

// full returns the path of the current file, for messages.
func (w *walk) full() string {
	if len(w.path) <= w.skip {
		return w.item.Path
	}
	return string(w.path)
}

func (w *walk) rel() []byte { return w.path[w.skip:] }

// view returns a string that shares the bytes of b. It is for functions that do not keep the
// string, since the bytes will change.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// directory walks an open directory.
func (w *walk) directory(fd int, in *inherited) error {
	m := w.m
	if len(m.lists) == w.depth {
		m.lists = append(m.lists, new(dirfd.Names))
	}
	list := m.lists[w.depth]
	// ENOENT: it was removed after it was opened
	if err := readNames(list, fd); err != nil && err != unix.ENOENT {
		return fmt.Errorf("read directory %q: %w", w.full(), err)
	}
	w.depth++
	n := len(w.path)
	for _, e := range list.Entries {
		if err := m.tick(); err != nil {
			return err
		}
		w.path = w.path[:n]
		if n > w.skip {
			w.path = append(w.path, '/')
		}
		w.path = append(w.path, list.Name(e)...)
		if err := w.name(fd, list.CName(e), e, in); err != nil {
			return err
		}
	}
	w.path = w.path[:n]
	w.depth--
	return nil
}

// name handles one name in a directory.
func (w *walk) name(fd int, name []byte, d dirfd.Dirent, in *inherited) error {
	if w.depth == 1 && w.skip == 0 && w.m.t.own.holds(view(w.path)) {
		w.m.t.own.tell(".")
		return nil
	}
	var own inherited
	kept, deeper := true, true
	if w.m.t.ignore != nil || w.m.exclude != nil || w.include != nil {
		kept, deeper = w.filter(in, &own)
	}
	if !kept && (!deeper || d.Type != unix.DT_DIR && d.Type != unix.DT_UNKNOWN) {
		return nil
	}
	if w.m.vanished(w) {
		return nil
	}
	for range maxReplaced {
		err := w.take(fd, name, d, kept, &own)
		if err != errReplaced {
			return err
		}
		d.Type = unix.DT_UNKNOWN
	}
	return fmt.Errorf("read %q: %w", w.full(), errReplaced)
}

// take adds the file with a name, or the directory with its content, if it is selected. It
// returns errReplaced if the name was replaced meanwhile.
func (w *walk) take(fd int, name []byte, d dirfd.Dirent, kept bool, own *inherited) error {
	st := &w.m.st
	switch {
	case d.Type == unix.DT_DIR:
		return w.sub(fd, name, kept, own)
	case d.Type == unix.DT_REG && w.m.t.index.unknown(d.Ino) && !w.m.list && !w.m.t.freezer.live():
		// the file will be opened in any case: fstat is called then
		*st = unix.Statx_t{Mode: unix.S_IFREG}
	default:
		if err := dirfd.Lstat(fd, name, st); err != nil {
			if err == unix.ENOENT {
				return nil // removed since the directory was read
			}
			return fmt.Errorf("stat %q: %w", w.full(), err)
		}
	}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return w.sub(fd, name, kept, own)
	case !kept:
		return nil
	case st.Mode&unix.S_IFMT == unix.S_IFSOCK:
		w.m.socket(w)
		return nil
	}
	w.emit()
	e, err := w.m.entry(fd, name, w.rel(), w)
	if err != nil {
		return err
	}
	w.item.Entries.add(w.rel(), e)
	return nil
}

// filter reports whether the current path is selected and, if it is not, whether a path below it
// can be.
func (w *walk) filter(in, own *inherited) (kept, deeper bool) {
	kept, deeper = true, true
	full, rel := view(w.path), view(w.rel())
	if x := w.m.t.ignore; x != nil {
		var gone bool
		if gone, own.ignore = x.Match(full, in.ignore); gone {
			kept, deeper = false, x.TakesBackBelow(full)
		}
	}
	if x := w.m.exclude; x != nil {
		var gone bool
		if gone, own.exclude = x.Match(rel, in.exclude); gone {
			kept, deeper = false, deeper && x.TakesBackBelow(rel)
		}
	}
	if x := w.include; x != nil {
		var wanted bool
		if wanted, own.include = x.Match(rel, in.include); !wanted {
			kept, deeper = false, deeper && x.SelectsBelow(rel)
		}
	}
	return kept, deeper
}

// sub adds a directory and its content. It returns errReplaced if name is not a directory.
func (w *walk) sub(fd int, name []byte, kept bool, own *inherited) error {
	m := w.m
	sub, err := openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		if !kept && errors.Is(err, unix.EACCES) {
			return nil // no selected file in it could be read
		}
		return m.unreadable(w.full(), err)
	}
	defer unix.Close(sub)
	if err := dirfd.Fstat(sub, &m.st); err != nil {
		return fmt.Errorf("stat %q: %w", w.full(), err)
	}
	if m.t.own.is(&m.st) {
		m.t.own.tell(w.full())
		return nil
	}
	frozen, err := m.frozen(fd, name, w)
	if err != nil {
		return err
	}
	var x sum
	if frozen != nil {
		x = frozen.sum
	} else if x, err = m.directorySum(sub, w); err != nil {
		return err
	}
	before := len(w.pending)
	if kept {
		w.emit()
		begin := len(m.rec)
		m.rec = m.appendDirectory(m.rec, w.rel(), x)
		w.item.Entries.add(w.rel(), m.described(frozen, x.xattrs, m.rec[begin:]))
		m.flushFull()
	} else {
		record := m.appendDirectory(nil, w.rel(), x)
		w.pending = append(w.pending, pendingDir{bytes.Clone(w.rel()),
			m.described(frozen, x.xattrs, record), record})
	}
	if err := w.directory(sub, own); err != nil {
		return err
	}
	if len(w.pending) > before {
		w.pending = w.pending[:before]
	}
	return nil
}

// emit makes entries for the pending directories above a selected file.
func (w *walk) emit() {
	for _, p := range w.pending {
		w.item.Entries.add(p.path, p.entry)
		w.m.rec = append(w.m.rec, p.record...)
	}
	w.pending = w.pending[:0]
}
