package state

import (
	"context"

	"github.com/layerbuild/layerbuild/internal/cache"
)

// LazyLayer returns the layer from which the lazy snapshot of a record is unpacked. It reports
// whether the record is for a lazy snapshot and the store has the layer.
func (s *State) LazyLayer(ctx context.Context, rec cache.Record) (cache.Layer, bool) {
	if rec.Lazy == nil {
		return cache.Layer{}, false
	}
	l, ok := s.Cache.Sealed(rec.Snapshot, rec.Lazy.Sealed)
	if !ok {
		return l, false
	}
	there, err := s.Store.Exists(ctx, l.Descriptor)
	return l, there && err == nil
}
