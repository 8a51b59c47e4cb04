package state

import (
	"context"

	"github.com/layerbuild/layerbuild/internal/cache"
)

// A lazy snapshot is made when it is first needed. Its record has two more facts: the snapshot that it will be made on,
// and the options that its layer was sealed with.
const (
	LazyParent = "on"
	LazySealed = "sealed"
)

// LazyLayer returns the layer that the lazy snapshot of a record is unpacked from, and reports whether the record is one of
// a lazy snapshot and the store has the layer.
func (s *State) LazyLayer(rec cache.Record) (cache.Layer, bool) {
	name, ok := rec.Meta[LazySealed]
	if !ok {
		return cache.Layer{}, false
	}
	l, ok := s.Cache.Sealed(rec.Snapshot, name)
	if !ok {
		return l, false
	}
	there, err := s.Store.Exists(context.Background(), l.Descriptor)
	return l, there && err == nil
}
