package layers

import (
	"context"
	"sync"

	"github.com/layerbuild/layerbuild/internal/memo"
	"github.com/layerbuild/layerbuild/snapshot"
)

// Lazy holds snapshots that are made when they are first needed. The zero value holds none. It is
// safe for concurrent use.
type Lazy struct {
	mu   sync.Mutex
	make map[snapshot.ID]func(context.Context) error
	made memo.Map[snapshot.ID, struct{}]
}

// Add adds a snapshot and the function that makes it.
func (z *Lazy) Add(id snapshot.ID, make func(context.Context) error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.make == nil {
		z.make = map[snapshot.ID]func(context.Context) error{}
	}
	z.make[id] = make
}

// Materialize makes an added snapshot, once. It does nothing for other snapshots, which exist
// already.
func (z *Lazy) Materialize(ctx context.Context, id snapshot.ID) error {
	z.mu.Lock()
	do := z.make[id]
	z.mu.Unlock()
	if do == nil {
		return nil
	}
	_, err := z.made.Do(ctx, id, func() (struct{}, error) { return struct{}{}, do(ctx) })
	return err
}
