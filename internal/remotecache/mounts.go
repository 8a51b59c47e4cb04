package remotecache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/units"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// mountPrefix begins the names of the documents of cache mounts. The number is the version of the
// format.
const mountPrefix = "layerbuild-mount-1-"

// Mount identifies a cache mount that builds on several machines share.
type Mount struct {
	// Name distinguishes the mount from others, and is the same on all machines.
	Name     string
	ID       string // for people
	Platform string
}

// document returns the name of the document of a mount.
func (m Mount) document() string {
	sum := sha256.Sum256([]byte(m.key()))
	return mountPrefix + hex.EncodeToString(sum[:])
}

// key returns the key of the record of a mount. A step cannot have it, since the keys of steps are
// hashes.
func (m Mount) key() cache.Key {
	return cache.Key(fmt.Sprintf("mount %s %s %s", m.Name, m.Platform, m.ID))
}

// text returns the text that 'layerbuild cache ls' shows.
func (m Mount) text() string { return "cache mount " + m.ID + " for " + m.Platform }

// MountCopy is the copy of a cache mount: an archive in the format of a layer.
type MountCopy struct {
	Descriptor ocispec.Descriptor
	DiffID     digest.Digest
}

// PlaceName returns the name of the cache.
func (s *Shared) PlaceName() string { return s.place.Name() }

// IsReadOnly reports whether nothing is written to the cache.
func (s *Shared) IsReadOnly() bool { return s.place.ReadOnly }

// FetchMount calls unpack with the archive of a cache mount, which has at most limit bytes, and
// reports whether there is one that can be used. unpack returns the digest of the uncompressed
// archive. A copy that cannot be used is a warning: the mount then begins as it does without the
// cache, and unpack may have made files.
func (s *Shared) FetchMount(ctx context.Context, m Mount, limit int64,
	unpack func(context.Context, io.Reader) (digest.Digest, error)) bool {
	found, err := mountCopy(s.read(ctx, m.document()), m)
	if err == nil && found == nil {
		return false
	}
	id := s.id + event.ID(" fetch "+m.document())
	name := fmt.Sprintf("restoring cache mount %s from %s", m.ID, s.PlaceName())
	s.sink(event.Start{ID: id, Name: name, Time: time.Now()})
	note := ""
	if err == nil && found.Layer.Descriptor.Size > limit {
		err = fmt.Errorf("its size is %s, which is more than %s",
			units.Size(found.Layer.Descriptor.Size), units.Size(limit))
	}
	if err == nil {
		// Other fields of the descriptor, such as addresses, are not used.
		d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerZstd,
			Digest: found.Layer.Descriptor.Digest, Size: found.Layer.Descriptor.Size}
		var content digest.Digest
		err = found.From.Read(ctx, d, image.UnpackOptions{ID: id, Sink: s.sink},
			func(r io.Reader) (err error) {
				content, err = unpack(ctx, r)
				return err
			})
		if err == nil && content != found.Layer.DiffID {
			err = errors.New("its content has another digest")
		}
		note = units.Size(d.Size)
	}
	if err == nil {
		s.refreshMount(ctx, m, found.Record)
	} else {
		note = "it is not used"
		if ctx.Err() == nil {
			s.sink(event.Warning{Message: fmt.Sprintf("cache mount %s is not restored from %s: %v",
				m.ID, s.PlaceName(), err), Time: time.Now()})
		}
	}
	s.sink(event.Done{ID: id, Note: note, Time: time.Now()})
	return err == nil
}

// mountCopy returns the record among those of a document that a mount may be restored from; nil if
// there are none. read has left out those without a signature of the key of the cache, which covers
// the key of the record and so the mount.
func mountCopy(list []Found, m Mount) (*Found, error) {
	if len(list) == 0 {
		return nil, nil
	}
	for _, r := range list {
		if r.Key == m.key() && r.Layer != nil && r.From != nil {
			return &r, nil
		}
	}
	return nil, errors.New("its document is that of another cache mount")
}

// refreshMount writes the record of a mount again if it is old, so that it does not look unused.
func (s *Shared) refreshMount(ctx context.Context, m Mount, r Record) {
	if s.place.ReadOnly || r.isFresh() {
		return
	}
	r.Written = time.Now().UTC()
	// The document stays as it is after an error, and errors of writing are reported by SaveMount.
	_ = s.put(ctx, m.document(), []Record{r}, true)
}

// SaveMount writes the copy of a cache mount that seal makes, in place of an earlier one, and
// reports whether it is written. It returns an error of seal. Other errors are warnings, and the
// following mounts are not written.
func (s *Shared) SaveMount(ctx context.Context, m Mount,
	seal func() (MountCopy, error)) (bool, error) {
	s.mu.Lock()
	off := s.unwritable || s.noMounts
	s.mu.Unlock()
	if off || s.place.ReadOnly {
		return false, nil
	}
	id := s.id + event.ID(" save "+m.document())
	name := fmt.Sprintf("saving cache mount %s to %s", m.ID, s.PlaceName())
	s.sink(event.Start{ID: id, Name: name, Time: time.Now()})
	note := "not saved"
	defer func() { s.sink(event.Done{ID: id, Note: note, Time: time.Now()}) }()
	c, err := seal()
	if err != nil {
		return false, err
	}
	if err := s.writeMount(ctx, m, c); err != nil {
		if ctx.Err() == nil {
			s.fail(&s.noMounts, fmt.Errorf("cache mounts are not saved to %s: %w", s.PlaceName(),
				err))
		}
		return false, nil
	}
	note = units.Size(c.Descriptor.Size)
	return true, nil
}

func (s *Shared) writeMount(ctx context.Context, m Mount, c MountCopy) error {
	if err := s.store.Send(ctx, c.Descriptor); err != nil {
		return err
	}
	now := time.Now().UTC()
	r := Record{Key: m.key(), Created: now, Written: now, Step: shortened(m.text()),
		Layer: &Layer{Descriptor: c.Descriptor, DiffID: c.DiffID}}
	if s.place.Key != nil {
		r.Signature = s.place.Key.sign(r)
	}
	return s.put(ctx, m.document(), []Record{r}, true)
}
