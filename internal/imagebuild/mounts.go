package imagebuild

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/layerbuild/layerbuild/internal/cachemount"
	"github.com/layerbuild/layerbuild/internal/remotecache"
	"github.com/layerbuild/layerbuild/internal/units"
	digest "github.com/opencontainers/go-digest"
)

// copiesMounts reports whether cache mounts are copied from and to shared caches.
func (b *builder) copiesMounts() bool {
	m := &b.opts.Cache.Mounts
	return len(b.opts.Cache.Shared) > 0 && (m.All || len(m.IDs) > 0)
}

// mountCopies are the copies of cache mounts in the shared caches of a build.
type mountCopies struct{ b *builder }

// Selects implements cachemount.Copies.
func (m mountCopies) Selects(id string) bool {
	o := &m.b.opts.Cache.Mounts
	return o.All || slices.Contains(o.IDs, id)
}

// Fetch implements cachemount.Copies. The first of the caches that has a copy is used. If it cannot
// be used, the mount begins without a copy.
func (m mountCopies) Fetch(ctx context.Context, c cachemount.Copy, dir string) (string, error) {
	for _, s := range m.b.shared {
		tried, limit := false, m.b.opts.Cache.Mounts.Limit
		ok := s.FetchMount(ctx, mountOf(c), limit,
			func(ctx context.Context, r io.Reader) (digest.Digest, error) {
				tried = true
				return cachemount.Unpack(ctx, r, dir, limit)
			})
		switch {
		case ok:
			return s.PlaceName(), nil
		case ctx.Err() != nil:
			return "", context.Cause(ctx)
		case tried:
			return "", nil
		}
	}
	return "", nil
}

func mountOf(c cachemount.Copy) remotecache.Mount {
	return remotecache.Mount{Name: c.Name, ID: c.ID, Platform: c.Platform}
}

// warnUnknownMounts warns about ids that were selected although no step of any build has a cache
// mount with the id. All steps have been expanded.
func (a *batch) warnUnknownMounts() {
	var known []string
	for _, b := range a.running() {
		for _, p := range b.plans {
			for _, c := range p.plan.Outline().Caches {
				known = append(known, c.Name)
			}
		}
	}
	slices.Sort(known)
	known = slices.Compact(known)
	warned := map[string]bool{}
	for _, b := range a.running() {
		for _, id := range b.opts.Cache.Mounts.IDs {
			if slices.Contains(known, id) || warned[id] || !b.copiesMounts() {
				continue
			}
			warned[id] = true
			text := fmt.Sprintf("--cache-mounts: no RUN has a cache mount with the id %q", id)
			if len(known) > 0 {
				text += "; the ids are " + strings.Join(known, ", ")
			}
			warn(b.opts.Sink, text)
		}
	}
}

// saveMounts copies the cache mounts that the build has used to the shared caches, if they have
// changed. An error is a warning.
func (b *builder) saveMounts(ctx context.Context) {
	if !b.copiesMounts() {
		return
	}
	warned := map[string]bool{} // a mount that is used on two platforms is not saved for either
	for _, c := range b.cacheMounts.Used() {
		if err := b.saveMount(ctx, c); err != nil && ctx.Err() == nil && !warned[c.Name] {
			warned[c.Name] = true
			warn(b.opts.Sink, fmt.Sprintf("cache mount %s is not saved: %v", c.ID, err))
		}
	}
}

func (b *builder) saveMount(ctx context.Context, c cachemount.Copy) error {
	if !b.opts.Cache.writesShared() {
		return nil
	}
	h, err := b.cacheMounts.Hold(ctx, c)
	if h == nil || err != nil {
		return err // nil: the build that uses it saves it
	}
	defer h.Close()
	var to []*remotecache.Shared
	for _, s := range b.shared {
		if !s.IsReadOnly() && !h.IsCopied(s.PlaceName()) {
			to = append(to, s)
		}
	}
	// A mount without files is not saved: its commands have failed before they wrote any.
	if len(to) == 0 || h.Tree.Entries == 0 {
		return nil
	}
	limit := b.opts.Cache.Mounts.Limit
	switch {
	case limited(h.Tree.Size, limit) != nil:
		return limited(h.Tree.Size, limit)
	case len(h.Platforms) > 1:
		return fmt.Errorf("commands for %s have used it: give it an id with $TARGETARCH for each",
			strings.Join(h.Platforms, " and "))
	case h.Tree.Device != "":
		return fmt.Errorf("%s is a device", h.Tree.Device)
	}
	seal := sync.OnceValues(func() (remotecache.MountCopy, error) {
		layer, err := h.Seal(ctx, b.all.state.Store)
		err = cmp.Or(err, h.Close()) // other builds need not wait until it is sent
		if err == nil {
			err = limited(max(layer.Size, layer.Descriptor.Size), limit)
		}
		return remotecache.MountCopy{Descriptor: layer.Descriptor, DiffID: layer.DiffID}, err
	})
	for _, s := range to {
		saved, err := s.SaveMount(ctx, mountOf(c), seal)
		if err == nil && saved {
			err = h.SetCopied(s.PlaceName())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// limited returns an error for the size of a mount that is not saved.
func limited(size, limit int64) error {
	if size <= limit {
		return nil
	}
	return fmt.Errorf("its size is %s, and the limit is %s; set --cache-mounts-limit",
		units.Size(size), units.Size(limit))
}
