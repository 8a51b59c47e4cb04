package remotecache

import (
	"context"
	"io"
	"time"

	digest "github.com/opencontainers/go-digest"
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

// LeaseTime is the time after which a lease ends if the machine that has it does not renew it.
const LeaseTime = time.Minute
