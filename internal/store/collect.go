package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/layerbuild/layerbuild/internal/atomicfile"
	"github.com/layerbuild/layerbuild/internal/ocidoc"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// walk visits a descriptor and all descriptors to which it refers, each digest once. doc is nil for
// a leaf, and for a document that is not in the store or cannot be read.
func (s *Store) walk(ctx context.Context, d ocispec.Descriptor, seen map[digest.Digest]bool,
	visit func(ocispec.Descriptor, *ocidoc.Document)) {
	if seen[d.Digest] || ctx.Err() != nil {
		return
	}
	seen[d.Digest] = true
	var doc *ocidoc.Document
	if ocidoc.RefersToOthers(d.MediaType) {
		if data, err := s.read(d); err == nil {
			doc, _ = ocidoc.Parse(data)
		}
	}
	visit(d, doc)
	if doc == nil {
		return
	}
	for _, c := range doc.Children() {
		s.walk(ctx, c, seen, visit)
	}
}

// Usage is the size of an image.
type Usage struct {
	Size    int64           // bytes of all its blobs, each counted once
	Missing int             // number of its blobs that are not in the store
	Blobs   []digest.Digest // its blobs in the store
}

// Usage returns the total size of the blobs to which an image refers.
func (s *Store) Usage(ctx context.Context, d ocispec.Descriptor) (Usage, error) {
	var u Usage
	if err := s.lease(ctx, d.Digest, true); err != nil {
		return u, err
	}
	var err error
	s.walk(ctx, d, map[digest.Digest]bool{}, func(d ocispec.Descriptor, _ *ocidoc.Document) {
		ok, err1 := s.exists(d)
		err = errors.Join(err, err1)
		if !ok {
			u.Missing++
			return
		}
		u.Size += d.Size
		u.Blobs = append(u.Blobs, d.Digest)
	})
	return u, errors.Join(err, ctx.Err())
}

// Verify reads all blobs of an image that the store has. It returns a *BlobError for a damaged
// blob.
func (s *Store) Verify(ctx context.Context, root ocispec.Descriptor) error {
	if err := s.lease(ctx, root.Digest, true); err != nil {
		return err
	}
	var all []ocispec.Descriptor
	s.walk(ctx, root, map[digest.Digest]bool{},
		func(d ocispec.Descriptor, _ *ocidoc.Document) { all = append(all, d) })
	for _, d := range all {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, err := s.fetch(d)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, r)
		if err = errors.Join(err, r.Close()); err != nil {
			return err
		}
	}
	return nil
}

// LeadsTo reports whether an image refers to a blob, even if the store does not have the blob.
func (s *Store) LeadsTo(ctx context.Context, root ocispec.Descriptor, blob digest.Digest) bool {
	found := false
	s.walk(ctx, root, map[digest.Digest]bool{},
		func(d ocispec.Descriptor, _ *ocidoc.Document) { found = found || d.Digest == blob })
	return found
}

// Graph returns all blobs to which an image refers, including missing ones, and which of them are
// configurations. It returns an error only if ctx has ended, or if the image cannot be leased.
func (s *Store) Graph(ctx context.Context,
	root ocispec.Descriptor) (blobs, configs []ocispec.Descriptor, err error) {
	if err := s.lease(ctx, root.Digest, true); err != nil {
		return nil, nil, err
	}
	s.walk(ctx, root, map[digest.Digest]bool{}, func(d ocispec.Descriptor, doc *ocidoc.Document) {
		blobs = append(blobs, d)
		if doc != nil && doc.Config != nil {
			configs = append(configs, *doc.Config)
		}
	})
	return blobs, configs, context.Cause(ctx)
}

// Blobs returns the blobs with their sizes.
func (s *Store) Blobs() (map[digest.Digest]int64, error) {
	all := map[digest.Digest]int64{}
	err := filepath.WalkDir(filepath.Join(s.dir, "blobs"),
		func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return skipMissing(err)
			}
			if fi, err := e.Info(); err == nil {
				all[digest.Digest(filepath.Base(filepath.Dir(path))+":"+e.Name())] = fi.Size()
			}
			return nil
		})
	if err != nil {
		return nil, fmt.Errorf("list blobs: %w", err)
	}
	return all, nil
}

// CollectOptions select the blobs and files that Collect keeps.
type CollectOptions struct {
	// Live has the blobs that are kept; nil: the blobs to which an image refers.
	Live map[digest.Digest]bool
	// Roots are kept with all blobs to which they refer, as are images with a name. If Live is set,
	// only Live is used.
	Roots []ocispec.Descriptor
	// Grace is the age below which blobs and temporary files are kept, since another process may be
	// about to refer to them. Zero keeps none of them, which is correct if Live has all leased
	// blobs.
	Grace time.Duration
	// Owners are the owners whose temporary files are kept. It must contain Options.Owner if other
	// goroutines may use this store meanwhile.
	Owners map[string]bool
	// DryRun only counts.
	DryRun bool
	// Removed, if it is not nil, is called for each blob before it is removed, or would be.
	Removed func(digest.Digest)
}

// Collected counts the blobs and files that Collect has removed, or would remove.
type Collected struct {
	Blobs int
	Files int // temporary files that a killed process left
	Bytes int64
}

// Trash has files that Collect has renamed and that must still be removed, which takes long for
// large files.
type Trash []string

// Remove removes the files.
func (t Trash) Remove() error {
	var errs []error
	for _, path := range t {
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Collect removes the blobs to which no name and no root refers, and temporary files of killed
// processes.
func (s *Store) Collect(ctx context.Context, o CollectOptions) (Collected, error) {
	c, trash, err := s.CollectLater(ctx, o)
	return c, errors.Join(err, trash.Remove())
}

// CollectLater is like Collect, but only renames the files. The caller removes them, also after an
// error.
func (s *Store) CollectLater(ctx context.Context,
	o CollectOptions) (c Collected, trash Trash, err error) {
	// Names cannot change meanwhile. A blob that becomes reachable meanwhile was either just
	// written (Grace) or already reachable.
	held, err := s.lock(ctx)
	if err != nil {
		return c, nil, fmt.Errorf("collect blobs: %w", err)
	}
	defer held.Close()
	live := o.Live
	if live == nil {
		ix, err := s.lockedIndex(ctx)
		if err != nil {
			return c, nil, fmt.Errorf("collect blobs: %w", err)
		}
		live = map[digest.Digest]bool{}
		for _, d := range slices.Concat(ix.manifests, o.Roots) {
			s.walk(ctx, d, live, func(ocispec.Descriptor, *ocidoc.Document) {})
		}
	}
	if err := ctx.Err(); err != nil {
		return c, nil, fmt.Errorf("collect blobs: %w", err)
	}
	before := time.Now().Add(-o.Grace)
	// remove removes the old files below dir for which unused returns true.
	remove := func(dir string, count *int, unused func(path, name string) bool) error {
		return filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return skipMissing(err)
			}
			if !unused(path, e.Name()) {
				return ctx.Err()
			}
			fi, err := e.Info()
			if err != nil {
				return skipMissing(err)
			}
			if o.Grace > 0 && fi.ModTime().After(before) {
				return nil
			}
			if !o.DryRun {
				err := s.moveToTrash(path, &trash)
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
			*count++
			c.Bytes += fi.Size()
			return nil
		})
	}
	// Collect temporary files first, since renamed blobs become temporary files.
	if err := remove(s.tmp(), &c.Files, func(_, name string) bool {
		return !o.Owners[atomicfile.OwnerOf(tempPrefix, name)]
	}); err != nil {
		return c, trash, fmt.Errorf("collect temporary files: %w", err)
	}
	if err := remove(filepath.Join(s.dir, "blobs"), &c.Blobs, func(path, name string) bool {
		d := digest.Digest(filepath.Base(filepath.Dir(path)) + ":" + name)
		// the store does not remove files that are not blobs
		if live[d] || d.Validate() != nil {
			return false
		}
		if o.Removed != nil {
			o.Removed(d)
		}
		return true
	}); err != nil {
		return c, trash, fmt.Errorf("collect blobs: %w", err)
	}
	return c, trash, nil
}

// moveToTrash renames a file so that it is a temporary file of this process, and appends it to
// trash. It removes a file that cannot be renamed, as on a full disk.
func (s *Store) moveToTrash(path string, trash *Trash) error {
	to := filepath.Join(s.tmp(), s.tempPrefix()+rand.Text())
	err := os.Rename(path, to)
	if err == nil {
		*trash = append(*trash, to)
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(path); err != nil {
			return err
		}
	}
	return os.Remove(path)
}

// skipMissing lets a walk continue if another process removes a file that it visits.
func skipMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
