package sbom

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/layerbuild/layerbuild/internal/unpack"
)

const (
	// maxMemory is the size from which a file is copied to a temporary file.
	maxMemory = 32 << 20
	// maxLinks limits the hard links of a layer that are resolved, and maxLinkNames the bytes of
	// their names.
	maxLinks     = 100_000
	maxLinkNames = 32 << 20
	// maxPath is the limit of Linux for a path. No program finds a file with a longer one.
	maxPath = 4096
)

// scan reads one layer. Of the layer's entries it keeps the files that a cataloger reads, and the
// paths that hide or replace files of lower layers in which something was found.
type scan struct {
	lower *merger
	found map[string]*evidence

	gone     map[string]bool // whiteouts
	opaque   map[string]bool // directories whose lower content is hidden
	replaced map[string]bool // entries that are not directories, and directories in place of files

	links   []hardlink
	names   int                 // bytes of the names of links
	targets map[string][]string // by path of the target: links whose content is not known yet
	buf     []byte
	weight  int // of found, also of what was replaced
}

type hardlink struct{ path, target string }

func newScan(lower *merger) *scan {
	return &scan{lower: lower, found: map[string]*evidence{}, gone: map[string]bool{},
		opaque: map[string]bool{}, replaced: map[string]bool{}}
}

// hides reports whether the layer removes or replaces the file of a lower layer at a path.
func (s *scan) hides(at string) bool {
	if len(s.gone)+len(s.opaque)+len(s.replaced) == 0 {
		return false
	}
	if s.gone[at] || s.replaced[at] {
		return true
	}
	for dir := parent(at); ; dir = parent(dir) {
		if s.gone[dir] || s.opaque[dir] || s.replaced[dir] {
			return true
		}
		if dir == "." {
			return false
		}
	}
}

// read reads the layer.
func (s *scan) read(ctx context.Context, r io.Reader) error {
	return eachEntry(ctx, r, func(t *unpack.Reader, h *unpack.Header) error {
		at := unpack.CleanName(h.Name)
		if len(at) > maxPath || len(h.Link) > maxPath || s.mark(at) {
			return nil
		}
		delete(s.found, at) // a later entry replaces an earlier one
		if h.Type == unpack.TypeDir {
			if s.lower.files[at] != nil {
				s.replaced[at] = true
			}
			return nil
		}
		if s.lower.concerns(at) {
			s.replaced[at] = true
		}
		switch h.Type {
		case unpack.TypeFile:
			return s.file(t, h.Size, at)
		case unpack.TypeHardlink:
			if s.names += len(at) + len(h.Link); len(s.links) < maxLinks && s.names < maxLinkNames {
				s.links = append(s.links, hardlink{at, unpack.CleanName(h.Link)})
			}
		case unpack.TypeSymlink:
			if in(docDir, at) {
				return s.add(&evidence{path: at, set: at, link: string(h.Link)})
			}
		}
		return nil
	})
}

// eachEntry calls do for each entry of a layer.
func eachEntry(ctx context.Context, r io.Reader,
	do func(*unpack.Reader, *unpack.Header) error) error {
	z, _, err := unpack.Decompress(r)
	if err != nil {
		return err
	}
	defer z.Close()
	a := unpack.ReadAhead(ctx, z, unpack.AheadOptions{})
	defer a.Stop()
	t := unpack.NewReader(a)
	for {
		h, err := t.Next()
		if err == io.EOF {
			return a.Drain()
		}
		if err == nil {
			err = context.Cause(ctx)
		}
		if err == nil {
			err = do(t, h)
		}
		if err != nil {
			return err
		}
	}
}

// mark handles the names that have a special meaning in a layer (OCI image spec v1.1.1, layer.md,
// "Whiteouts").
func (s *scan) mark(at string) bool {
	if !strings.Contains(at, unpack.WhiteoutPrefix) {
		return false
	}
	dir, base := path.Split(at)
	for part := range strings.SplitSeq(dir, "/") {
		if strings.HasPrefix(part, unpack.WhiteoutPrefix) {
			return true
		}
	}
	name, ok := strings.CutPrefix(base, unpack.WhiteoutPrefix)
	if !ok {
		return false
	}
	if base == unpack.OpaqueName {
		if dir = path.Clean(dir); s.lower.concerns(dir) {
			s.opaque[dir] = true
		}
		return true
	}
	if gone := dir + name; s.lower.concerns(gone) {
		s.gone[gone] = true
	}
	return true
}

// file reads a regular file if a cataloger wants it.
func (s *scan) file(r io.Reader, size int64, at string) error {
	var head [headSize]byte
	n, err := io.ReadFull(r, head[:min(size, headSize)])
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return err
	}
	if int64(n) < min(size, headSize) {
		return io.ErrUnexpectedEOF
	}
	c := catalogerOf(at, head[:n])
	if c == nil {
		return nil
	}
	limit := cmp.Or(c.limit, maxDescription)
	if size > limit {
		if !c.quiet {
			s.lower.warn("/%s was not read: it has %d bytes, and at most %d are read", at, size,
				limit)
		}
		return nil
	}
	body := &content{path: at, size: size}
	done, err := s.load(body, io.MultiReader(bytes.NewReader(head[:n]), r))
	if err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	defer done()
	return s.catalog(c, body)
}

// load reads the content of a file into memory, or a large one into a temporary file, which done
// removes.
func (s *scan) load(c *content, r io.Reader) (done func(), err error) {
	if c.size <= maxMemory {
		if int64(cap(s.buf)) < c.size {
			s.buf = make([]byte, c.size)
		}
		c.data = s.buf[:c.size]
		c.ReaderAt = bytes.NewReader(c.data)
		_, err := io.ReadFull(r, c.data)
		return func() {}, err
	}
	in, n, done, err := spool(io.LimitReader(r, c.size), 0)
	if err == nil && n < c.size {
		done()
		err = io.ErrUnexpectedEOF
	}
	c.ReaderAt = in
	return done, err
}

// spool returns the content of a stream and its size. It is in memory if it has at most that many
// bytes, otherwise in a temporary file, which done removes.
func spool(r io.Reader, memory int64) (in io.ReaderAt, size int64, done func(), err error) {
	var head bytes.Buffer
	switch n, err := io.CopyN(&head, r, memory+1); {
	case err == io.EOF && n <= memory:
		return bytes.NewReader(head.Bytes()), n, func() {}, nil
	case err != nil && err != io.EOF:
		return nil, 0, nil, err
	}
	f, err := os.CreateTemp("", "layerbuild-sbom-")
	if err != nil {
		return nil, 0, nil, err
	}
	done = func() { f.Close() } // it was only read
	if err = os.Remove(f.Name()); err == nil {
		size, err = io.Copy(f, io.MultiReader(&head, r))
	}
	if err != nil {
		done()
		return nil, 0, nil, err
	}
	return f, size, done, nil
}

// catalog adds the findings of a file.
func (s *scan) catalog(c *cataloger, body *content) error {
	f, err := c.read(body)
	if err != nil && !errors.Is(err, errNotPackage) && !c.quiet {
		s.lower.warn("/%s: %v", body.path, err)
	}
	if len(f.packages) == 0 && len(f.licenses) == 0 && f.distro == nil {
		return nil
	}
	e := &evidence{path: body.path, set: c.set, findings: f}
	if e.set == "" {
		e.set = e.path
	}
	return s.add(e)
}

// add adds a file with findings.
func (s *scan) add(e *evidence) error {
	s.found[e.path] = e
	if s.weight += e.weight(); s.weight+s.lower.weight > maxWeight {
		return errTooMany
	}
	return nil
}

// resolveLinks gives hard links the findings of their targets. It reports whether there are links
// to files of the layer whose names gave no reason to read them.
func (s *scan) resolveLinks() (more bool, err error) {
	s.targets = map[string][]string{}
	for _, l := range s.links {
		e := s.found[l.target]
		if e == nil && !s.hides(l.target) {
			e = s.lower.files[l.target]
		}
		switch byName := catalogerOf(l.path, nil); {
		case e != nil && byName == catalogerOf(l.target, nil):
			err = s.link(e, l.path)
		case byName != nil:
			s.targets[l.target] = append(s.targets[l.target], l.path)
		}
		if err != nil {
			return false, err
		}
	}
	return len(s.targets) > 0, nil
}

// link adds the findings of a file for another name of it.
func (s *scan) link(e *evidence, at string) error {
	linked := *e
	if linked.path = at; e.set == e.path {
		linked.set = at
	}
	return s.add(&linked)
}

// readTargets reads the layer again for the targets that resolveLinks has found. A target is read
// as the first of its names. The others get its findings if they have the same cataloger.
func (s *scan) readTargets(ctx context.Context, r io.Reader) error {
	return eachEntry(ctx, r, func(t *unpack.Reader, h *unpack.Header) error {
		list := s.targets[unpack.CleanName(h.Name)]
		if h.Type != unpack.TypeFile || len(list) == 0 {
			return nil
		}
		first, others := list[0], list[1:]
		delete(s.found, first)
		if err := s.file(t, h.Size, first); err != nil {
			return err
		}
		for _, at := range others {
			e := s.found[first]
			if e == nil || catalogerOf(at, nil) != catalogerOf(first, nil) {
				continue
			}
			if err := s.link(e, at); err != nil {
				return err
			}
		}
		return nil
	})
}
