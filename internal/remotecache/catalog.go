package remotecache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/ocijson"
	"github.com/layerbuild/layerbuild/internal/sorting"
	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// Catalog is a Store whose documents can be listed and deleted.
type Catalog interface {
	Store
	// List calls f with the names of all documents, in no order, until f returns an error.
	List(ctx context.Context, f func(name string) error) error
	// Delete deletes a document. The error wraps ErrNoDocument if there is none.
	Delete(ctx context.Context, name string) error
	// Sweep deletes the blobs that were sent before a time and that used does not report, and
	// returns their number and size. It does nothing if the store itself deletes blobs to which no
	// document refers, as registries do.
	Sweep(ctx context.Context, before time.Time, used func(digest.Digest) bool) (n int, bytes int64,
		err error)
}

// Leaser is a Store in which one machine at a time can have a lease, so that machines do not do the
// same work at once.
type Leaser interface {
	// Lease takes the lease with a name, unless another machine has it: it returns nil then. The
	// lease ends when the closer is closed or, if the machine fails, at most LeaseTime after its
	// last sign of life, by the clock of the server.
	Lease(ctx context.Context, name string) (io.Closer, error)
}

// HintStore is a Store that limits the number of documents or of requests. Only hints and blobs are
// written to it: a build finds the results of the last build with its name, and no others.
type HintStore interface {
	Store
	// HintsOnly does nothing.
	HintsOnly()
}

// LeaseTime is the time after which a lease ends if the machine that has it does not renew it.
const LeaseTime = time.Minute

// isDocument reports whether a name is that of a document of a Shared.
func isDocument(name string) bool { return strings.HasPrefix(name, "layerbuild-") }

// Listed is a document of a Catalog.
type Listed struct {
	Name string
	// Hint is set if the document is a copy of others.
	Hint bool
	// Document is the content. It is empty if Err is set.
	Document Document
	// Err is the reason for which the document cannot be read.
	Err error
}

// Size returns the size of the layers of the document, in bytes.
func (l *Listed) Size() int64 { return tally{}.add(l) }

// SizeOf returns the size of the layers of documents, each counted once, in bytes.
func SizeOf(list []Listed) (size int64) {
	t := tally{}
	for i := range list {
		size += t.add(&list[i])
	}
	return size
}

// tally holds the blobs that were counted.
type tally map[digest.Digest]bool

// add adds the layers of a document, and returns the size of those that were not counted before.
func (t tally) add(l *Listed) (size int64) {
	for _, r := range l.Document.Records {
		if r.Layer != nil && !t[r.Layer.Descriptor.Digest] {
			t[r.Layer.Descriptor.Digest] = true
			size += max(r.Layer.Descriptor.Size, 0)
		}
	}
	return size
}

// hasAll reports whether all layers of a document were counted.
func (t tally) hasAll(l *Listed) bool {
	for _, r := range l.Document.Records {
		if r.Layer != nil && !t[r.Layer.Descriptor.Digest] {
			return false
		}
	}
	return true
}

// readers is the number of documents that ReadAll reads at the same time.
const readers = 8

// ReadAll reads all documents of a catalog. The one that was written last comes first.
func ReadAll(ctx context.Context, c Catalog) ([]Listed, error) {
	var list []*Listed
	if err := c.List(ctx, func(name string) error {
		list = append(list, &Listed{Name: name, Hint: strings.HasPrefix(name, hintPrefix)})
		return nil
	}); err != nil {
		return nil, err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for _, l := range list {
		g.Go(func() error {
			data, _, err := c.Get(gctx, l.Name)
			if err == nil {
				err = ocijson.Unmarshal(data, &l.Document)
			}
			if gctx.Err() != nil {
				return context.Cause(gctx)
			}
			if l.Err = err; err != nil {
				l.Document = Document{}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	out := make([]Listed, 0, len(list))
	for _, l := range list {
		if !errors.Is(l.Err, ErrNoDocument) { // another machine has deleted it
			out = append(out, *l)
		}
	}
	sorting.Func(out, func(a, b Listed) int {
		return cmp.Or(b.Document.Written.Compare(a.Document.Written), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

// PruneOptions determine which documents Prune deletes.
type PruneOptions struct {
	// Before is the time before which the documents to delete were written; zero: the time does
	// not count.
	Before time.Time
	// Keep is the size of layers to keep, of the documents that were written last; negative: the
	// size does not count.
	Keep int64
	// DryRun is set if nothing is deleted.
	DryRun bool
}

// Pruned is the result of Prune.
type Pruned struct {
	Documents []Listed // that were deleted
	// Freed is the size of the layers to which no document refers any more. Registries delete them
	// when they collect garbage.
	Freed int64
	// Blobs and Bytes are the blobs that Prune itself has deleted.
	Blobs int
	Bytes int64
}

// sweepAge is the age from which Prune deletes blobs to which no document refers. A build that is
// running may be about to write a document that refers to younger ones.
const sweepAge = 48 * time.Hour

// Prune deletes documents of a catalog, and hints that refer to their layers. It keeps documents
// that cannot be read.
func Prune(ctx context.Context, c Catalog, o PruneOptions) (p Pruned, err error) {
	all, err := ReadAll(ctx, c)
	if err != nil {
		return p, err
	}
	var before, kept int64
	every, used, unread := tally{}, tally{}, false
	prune := func(l *Listed) error {
		p.Documents = append(p.Documents, *l)
		if o.DryRun {
			return nil
		}
		if err := c.Delete(ctx, l.Name); err != nil && !errors.Is(err, ErrNoDocument) {
			return fmt.Errorf("delete %s: %w", l.Name, err)
		}
		return nil
	}
	for i := range all {
		l := &all[i]
		before += every.add(l)
		switch {
		case l.Err != nil:
			unread = true
		case l.Hint:
		case l.Document.Written.Before(o.Before), // or else the last ones are kept
			o.Keep >= 0 && kept+l.Size() > o.Keep:
			if err := prune(l); err != nil {
				return p, err
			}
		default:
			kept += used.add(l)
		}
	}
	for i := range all {
		if l := &all[i]; l.Hint && !used.hasAll(l) {
			if err := prune(l); err != nil {
				return p, err
			}
		}
	}
	p.Freed = before - kept
	if o.DryRun || unread {
		return p, nil // an unreadable document may refer to any blob
	}
	p.Blobs, p.Bytes, err = c.Sweep(ctx, time.Now().Add(-sweepAge),
		func(d digest.Digest) bool { return used[d] })
	return p, err
}
