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
	return s.SealedLayer(ctx, rec.Snapshot, rec.Lazy.Sealed)
}

// SealedLayer returns the layer that was made from a source (cache.Sealed), and reports whether
// there is one and the store has its blob. format is the text of a layers.Format.
func (s *State) SealedLayer(ctx context.Context, source, format string) (cache.Layer, bool) {
	l, ok := s.Cache.Sealed(source, format)
	if !ok {
		return l, false
	}
	there, err := s.Store.Exists(ctx, l.Descriptor)
	return l, there && err == nil
}
