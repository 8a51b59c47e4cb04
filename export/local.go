package export

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/stagedir"
	"github.com/layerbuild/layerbuild/internal/unpack"
)

// local exports the files of an image to a directory. What is there stays, unless the image has it too.
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
	j.begin("write files", 0)
	left := &leftOut{counts: map[string]int{}, first: map[string]string{}}
	err = inStage(l.spec.Dest, func(stage *stagedir.Dir) error {
		keep := map[string]bool{}
		for i, t := range trees {
			dir := ""
			if split {
				dir = dirs[i]
			}
			if err := l.unpack(ctx, t, stage.Path(), dir, keep, left, j); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		return stage.Commit(stagedir.Options{
			Keep:         func(path string) bool { return keep[path] },
			OnOwnerError: left.owner, OnSkip: left.skip,
		})
	})
	if err != nil {
		return err
	}
	left.warn(j)
	return nil
}

// disjoint returns an error if two platforms have the same path, unless it is a directory in both.
func disjoint(ctx context.Context, trees []Tree) error {
	seen := map[string]entryOf{}
	for _, t := range trees {
		err := readTree(ctx, t, func(r io.Reader) error {
			for tr := tar.NewReader(r); ; {
				h, err := tr.Next()
				if err == io.EOF {
					return nil
				}
				if err != nil {
					return err
				}
				name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
				if _, err := shared(seen, name, entryOf{platformDir(t.Platform), h.Typeflag == tar.TypeDir}); err != nil {
					return err
				}
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// unpack writes a tree to the directory dir of top. In keep it notes the directories whose owner, mode and time are not
// the image's: the user's own directory, and those that the tree has no entry for.
func (l *local) unpack(ctx context.Context, t Tree, top, dir string, keep map[string]bool, left *leftOut, j *job) error {
	if err := os.MkdirAll(filepath.Join(top, dir), 0o777); err != nil {
		return err
	}
	root, err := os.Open(filepath.Join(top, dir))
	if err != nil {
		return err
	}
	defer root.Close()
	o := unpack.Options{SkipRoot: true, OnSkip: left.skip, OnOwnerError: left.owner}
	if !l.env.KeepOwners {
		o.Owner = &unpack.Owner{UID: os.Geteuid(), GID: os.Getegid()}
	}
	keep[dir] = true
	return readTree(ctx, t, func(r io.Reader) error {
		stats, err := unpack.Tar(ctx, counting{ctx: ctx, move: r.Read, job: j}, int(root.Fd()), o)
		for _, path := range stats.Implied {
			keep[filepath.Join(dir, path)] = true
		}
		return err
	})
}

// leftOut counts what this system does not let us make.
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

// maxLeftOut is how many kinds of things that were left out a warning names.
const maxLeftOut = 5

func (l *leftOut) warn(j *job) {
	if len(l.order) == 0 {
		return
	}
	var said []string
	for i, what := range l.order {
		if i == maxLeftOut {
			said = append(said, fmt.Sprintf("%d more kinds", len(l.order)-i))
			break
		}
		said = append(said, fmt.Sprintf("%s %d times (first %s)", what, l.counts[what], l.first[what]))
	}
	j.sink(event.Warning{ID: j.id, Time: time.Now(),
		Message: "some of what the image has could not be made here and was left out: " + strings.Join(said, "; ")})
}
