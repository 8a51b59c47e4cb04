package export

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/stagedir"
	"github.com/layerbuild/layerbuild/internal/unpack"
)

// local exports the files of an image to a directory. Existing files are kept unless the image
// has the same path.
type local struct {
	env  Env
	spec Spec
}

func (l *local) Export(ctx context.Context, img *Image, sink event.Sink) error {
	return report(l.spec, "export files to "+l.spec.Dest, sink, func(j *job) (string, error) {
		if err := l.export(ctx, img.Trees, j); err != nil {
			return "", fmt.Errorf("export files to %s: %w", l.spec.Dest, err)
		}
		return "", nil
	})
}

func (l *local) export(ctx context.Context, trees []Tree, j *job) error {
	if len(trees) == 0 {
		return errNoTrees
	}
	split := len(trees) > 1
	if l.spec.Split != nil {
		split = *l.spec.Split
	}
	dirs, err := platformDirs(trees)
	if err != nil {
		return err
	}
	if !split && len(trees) > 1 {
		if err := disjoint(ctx, trees); err != nil {
			return err
		}
	}
	names := make([]string, len(trees))
	if split {
		names = dirs
	}
	if trees, err = attested(ctx, trees, l.spec, split); err != nil {
		return err
	}
	j.begin("write files", 0)
	left := &leftOut{counts: map[string]int{}, first: map[string]string{}}
	m := transfer{local: l, trees: trees, names: names, keep: map[string]bool{}, left: left, job: j}
	if err := m.run(ctx); err != nil {
		return err
	}
	left.warn(j)
	return nil
}

// transfer is an export of trees to the directory of a local.
type transfer struct {
	local  *local
	trees  []Tree
	names  []string // the directory of each tree at the destination, "" for the destination itself
	stages []stage
	// keep holds the directories whose owner, mode and time are not set: those that existed
	// before, and those without an entry in the tree.
	keep map[string]bool
	left *leftOut
	job  *job
}

// stage is a temporary directory on the file system of the destination, or of a mount below the
// destination: files cannot be renamed from one mount to another.
type stage struct {
	dir       *stagedir.Dir
	path      string   // path of the mount below the destination
	elsewhere []string // directories below path that have stages of their own
}

// run writes all files to the stages, and then moves them to the destination.
func (m *transfer) run(ctx context.Context) (err error) {
	defer func() {
		for _, s := range m.stages {
			err = errors.Join(err, s.dir.Close())
		}
	}()
	dir, err := stagedir.New(m.local.spec.Dest)
	if err != nil {
		return err
	}
	m.stages = append(m.stages, stage{dir: dir})
	for i := 0; i < len(m.stages); i++ {
		if err := m.fill(ctx, i); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// A directory's time is set after its content is complete.
	for _, s := range slices.Backward(m.stages) {
		err := s.dir.Commit(stagedir.Options{
			Keep:      func(name string) bool { return m.keep[filepath.Join(s.path, name)] },
			Elsewhere: s.elsewhere, OnOwnerError: m.left.owner, OnSkip: m.left.skip,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// fill writes the files of a stage, and adds the stages of mounts in it.
func (m *transfer) fill(ctx context.Context, i int) error {
	s := &m.stages[i]
	for i, t := range m.trees {
		name := m.names[i]
		if s.path != "" {
			t, name = below(t, name, s.path), ""
		}
		if err := m.unpack(ctx, t, s, name); err != nil {
			return err
		}
	}
	var err error
	if s.elsewhere, err = s.dir.Check(); err != nil {
		return err
	}
	for _, name := range s.elsewhere {
		path := filepath.Join(s.path, name)
		dir, err := stagedir.NewAt(filepath.Join(m.local.spec.Dest, path))
		if err != nil {
			return err
		}
		m.stages = append(m.stages, stage{dir: dir, path: path})
	}
	return nil
}

// unpack writes a tree to the directory name of a stage.
func (m *transfer) unpack(ctx context.Context, t Tree, s *stage, name string) error {
	dir := filepath.Join(s.dir.Path(), name)
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	root, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	o := unpack.Options{SkipRoot: true, OnSkip: m.left.skip, OnOwnerError: m.left.owner}
	if !m.local.env.KeepOwners {
		o.Owner = &unpack.Owner{UID: os.Geteuid(), GID: os.Getegid()}
	}
	if s.path == "" {
		m.keep[name] = true
	}
	return readTree(ctx, t, func(r io.Reader) error {
		stats, err := unpack.Tar(ctx, counting{ctx: ctx, move: r.Read, job: m.job}, int(root.Fd()),
			o)
		for _, d := range stats.Implied {
			if d.Path != "." {
				m.keep[filepath.Join(s.path, name, d.Path)] = true
			}
		}
		return err
	})
}

// eachEntry calls do for each entry of a tree, in the order of its tar.
func eachEntry(ctx context.Context, t Tree, do func(*tar.Header, io.Reader) error) error {
	return readTree(ctx, t, func(r io.Reader) error {
		for tr := tar.NewReader(r); ; {
			h, err := tr.Next()
			if err == io.EOF {
				return nil
			}
			if err == nil {
				err = do(h, tr)
			}
			if err != nil {
				return err
			}
		}
	})
}

// below returns the part of a tree that lies in the directory dir of the destination. name is the
// directory of the whole tree.
func below(t Tree, name, dir string) Tree {
	inside := func(p string) (string, bool) {
		return strings.CutPrefix(strings.TrimPrefix(path.Join(name, path.Clean("/"+p)), "/"),
			dir+"/")
	}
	write := func(ctx context.Context, w io.Writer) error {
		tw := tar.NewWriter(w)
		err := eachEntry(ctx, t, func(h *tar.Header, content io.Reader) error {
			rel, ok := inside(h.Name)
			if !ok {
				return nil
			}
			if h.Typeflag == tar.TypeLink {
				target, ok := inside(h.Linkname)
				if !ok {
					return fmt.Errorf("/%s is a hard link to /%s, which is on another file "+
						"system at the destination", h.Name, h.Linkname)
				}
				h.Linkname = target
			}
			h.Name, h.Format = rel, tar.FormatUnknown
			if err := tw.WriteHeader(h); err != nil {
				return err
			}
			_, err := io.Copy(tw, content)
			return err
		})
		if err != nil {
			return err
		}
		return tw.Close()
	}
	return Tree{Platform: t.Platform, Tar: write}
}

// disjoint returns an error if two platforms have the same path, unless it is a directory in both.
func disjoint(ctx context.Context, trees []Tree) error {
	seen := map[string]entryOf{}
	for _, t := range trees {
		err := eachEntry(ctx, t, func(h *tar.Header, _ io.Reader) error {
			name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
			_, err := shared(seen, name,
				entryOf{platformDir(t.Platform), h.Typeflag == tar.TypeDir})
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// leftOut counts files and attributes that this system does not permit to create.
type leftOut struct {
	order  []string
	counts map[string]int
	first  map[string]string
}

func (l *leftOut) skip(path, what string, err error) { l.add(what, path, err) }

func (l *leftOut) owner(path string, uid, gid int, err error) {
	l.add(fmt.Sprintf("owner %d:%d", uid, gid), path, err)
}

func (l *leftOut) add(what, path string, err error) {
	if l.counts[what] == 0 {
		l.order = append(l.order, what)
		l.first[what] = fmt.Sprintf("%s: %v", path, err)
	}
	l.counts[what]++
}

// maxLeftOut is the number of kinds that a warning names.
const maxLeftOut = 5

func (l *leftOut) warn(j *job) {
	if len(l.order) == 0 {
		return
	}
	var parts []string
	for i, what := range l.order {
		if i == maxLeftOut {
			parts = append(parts, fmt.Sprintf("%d more kinds", len(l.order)-i))
			break
		}
		parts = append(parts, fmt.Sprintf("%s %d times (first %s)", what,
			l.counts[what], l.first[what]))
	}
	j.sink(event.Warning{ID: j.id, Time: time.Now(),
		Message: "some files or attributes of the image could not be created and were left out: " +
			strings.Join(parts, "; ")})
}
