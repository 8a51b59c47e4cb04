package source

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/giturl"
	"github.com/layerbuild/layerbuild/internal/unpack"
)

// This file finds the times that SOURCE_DATE_EPOCH takes from a source: that of a commit, the
// Last-Modified of a server, or the newest time of a regular file. BuildKit uses the same times,
// but has none for a directory of the client.

// ModTime returns the time of the context. For a git repository it is the commit's time, for a
// download the server's Last-Modified. In all other cases it is the newest time of a regular file
// that is not ignored. It returns false if there is no such file.
func (c *Context) ModTime(ctx context.Context) (time.Time, bool, error) {
	if !c.modTime.IsZero() {
		return c.modTime, true, nil
	}
	return c.tree.newest(ctx)
}

// newest returns the newest time of a regular file, and false if there is none. It reads no file.
func (t *Tree) newest(ctx context.Context) (time.Time, bool, error) {
	select {
	case t.turn <- struct{}{}:
	case <-ctx.Done():
		return time.Time{}, false, context.Cause(ctx)
	}
	defer func() { <-t.turn }()
	items, err := t.list(ctx)
	if err != nil {
		return time.Time{}, false, err
	}
	var max newestTime
	for _, it := range items {
		for e := range it.Entries.All() {
			if e.Mode&unix.S_IFMT == unix.S_IFREG {
				max.add(time.Unix(0, e.MtimeNs))
			}
		}
	}
	return max.Time, max.found, nil
}

// newestTime is the maximum of times.
type newestTime struct {
	time.Time
	found bool
}

func (n *newestTime) add(t time.Time) {
	if !n.found || t.After(n.Time) {
		n.Time, n.found = t, true
	}
}

// ModTime returns the server's Last-Modified. Without one it is the newest time of a regular file
// in the file, if that is a tar archive. It returns false if there is neither. Only if an earlier
// build has recorded the server's answer, the file is not downloaded.
func (d *Download) ModTime(ctx context.Context) (time.Time, bool, error) {
	if d.body == nil && d.mtime.Unix() == 0 {
		var err error
		if d.body, err = d.Fetch(ctx); err != nil {
			return time.Time{}, false, err
		}
	}
	if d.mtime.Unix() != 0 {
		return d.mtime, true, nil
	}
	f, err := os.Open(filepath.Join(d.body.temp, d.name()))
	if err != nil {
		return time.Time{}, false, err
	}
	defer f.Close()
	t, ok, err := newestInArchive(f)
	if err != nil {
		err = fmt.Errorf("read %s: %w", d.url.Redacted(), err)
	}
	return t, ok, err
}

// newestInArchive returns the newest time of a regular file in a tar archive, which may be
// compressed. It returns false for an archive without one, and for any other file.
func newestInArchive(r io.Reader) (time.Time, bool, error) {
	plain, _, err := unpack.Decompress(r)
	if err != nil {
		return time.Time{}, false, err
	}
	defer plain.Close()
	in := bufio.NewReader(plain)
	if head, _ := in.Peek(1024); !unpack.IsTar(head) {
		return time.Time{}, false, nil
	}
	var max newestTime
	for tr := unpack.NewReader(in); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return max.Time, max.found, nil
		}
		if err != nil {
			return time.Time{}, false, err
		}
		if h.Type == unpack.TypeFile {
			max.add(time.Unix(h.Sec, h.Nsec))
		}
	}
}

// ModTime returns the time of the commit. It fetches the commit.
func (r *Repository) ModTime(ctx context.Context) (time.Time, bool, error) {
	f, err := r.Fetch(ctx)
	if err != nil {
		return time.Time{}, false, err
	}
	return r.committed, true, f.Close()
}

// readCommitTime sets r.committed to the time of the commit that was checked out.
func (r *Repository) readCommitTime(ctx context.Context, g *git) error {
	out, err := g.run(ctx, "log", "-1", "--format=%ct", "HEAD")
	if err != nil {
		return err
	}
	sec, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	if err != nil {
		return fmt.Errorf("git %s: the commit's time: %w", giturl.Redact(r.URL.Remote), err)
	}
	r.committed = time.Unix(sec, 0)
	return nil
}
