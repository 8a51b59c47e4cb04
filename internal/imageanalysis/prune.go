package imageanalysis

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/layerbuild/layerbuild/analyze"
	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/ocidoc"
	"github.com/layerbuild/layerbuild/internal/ocijson"
	"github.com/layerbuild/layerbuild/internal/state"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// PruneOptions determine how dead bytes are removed from an image.
type PruneOptions struct {
	// Base is as in Options. The base's layers are not changed.
	Base string
	// Level is the compressor's level for rewritten layers; 0: the default level of other tools.
	Level int
	// DryRun stores nothing. It is for finding out how many bytes would be saved, also after
	// compression.
	DryRun bool
}

// Pruned is an image without its dead bytes.
type Pruned struct {
	// Manifest and Config belong to the new image. If nothing was removed, they are those of the
	// old image.
	Manifest ocispec.Descriptor
	Config   ocispec.Descriptor
	Base     analyze.Base
	Layers   []PrunedLayer // the layers that changed
	// Bytes is the size of the removed content. Compressed is the sum by which the blobs became
	// smaller.
	Bytes      int64
	Compressed int64
	Entries    int
	Whiteouts  int
}

// PrunedLayer is a layer that changed.
type PrunedLayer struct {
	Layer         int
	Instruction   string
	Before, After int64 // bytes of the blob
}

// Prune removes the dead bytes from the layers of an image, except those of its base. The number of
// layers, the history and the configuration do not change. Before Prune returns, it reads the new
// layers again and compares their file system with that of the old layers. The new image is in the
// store, without a name.
func Prune(ctx context.Context, s *state.State, images *image.Resolver, img *image.Image,
	o PruneOptions) (*Pruned, error) {
	p := &pruning{s: s, images: images, img: img, dryRun: o.DryRun, level: o.Level}
	res, err := p.run(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("remove dead bytes from %s: %w", img.Name, err)
	}
	return res, nil
}

type pruning struct {
	s      *state.State
	images *image.Resolver
	img    *image.Image
	dryRun bool
	level  int

	plan   *analyze.Pruning
	layers []prunedLayer
}

// prunedLayer is a layer of the new image.
type prunedLayer struct {
	descriptor ocispec.Descriptor
	diffID     digest.Digest
	table      *analyze.Table // nil: the layer is unchanged
}

func (p *pruning) run(ctx context.Context, o PruneOptions) (*Pruned, error) {
	in, err := analyzeInput(ctx, p.s, p.images, p.img, Options{Base: o.Base})
	if err != nil {
		return nil, err
	}
	instruction := make([]analyze.Instruction, len(in.Layers))
	for _, ins := range in.Instructions {
		if ins.Layer >= 0 {
			instruction[ins.Layer] = ins
		}
	}
	own := func(i int) bool { return instruction[i].Owner != analyze.BaseImage }
	if p.plan, err = analyze.Plan(ctx, in.Layers, own); err != nil {
		return nil, err
	}
	res := &Pruned{Manifest: p.img.Descriptor, Config: p.img.Manifest.Config, Base: in.Base,
		Bytes: p.plan.Bytes, Entries: p.plan.Entries, Whiteouts: p.plan.Whiteouts}
	if !p.dryRun {
		if err := p.images.Ensure(ctx, p.img, image.UnpackOptions{}); err != nil {
			return nil, err
		}
	}
	if p.plan.Entries == 0 {
		return res, nil
	}
	if err := p.rewrite(ctx); err != nil {
		return nil, err
	}
	if err := p.verify(ctx, in.Layers); err != nil {
		return nil, err
	}
	for i, l := range p.layers {
		if l.table != nil {
			before := p.img.Manifest.Layers[i].Size
			res.Layers = append(res.Layers, PrunedLayer{Layer: i, Instruction: instruction[i].Text,
				Before: before, After: l.descriptor.Size})
			res.Compressed += before - l.descriptor.Size
		}
	}
	if p.dryRun {
		return res, nil
	}
	return res, p.write(ctx, res)
}

// rewrite writes the layers that change.
func (p *pruning) rewrite(ctx context.Context) error {
	p.layers = make([]prunedLayer, len(p.img.Manifest.Layers))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(2, runtime.GOMAXPROCS(0)))
	for i, d := range p.img.Manifest.Layers {
		p.layers[i] = prunedLayer{descriptor: d, diffID: p.img.Config.RootFS.DiffIDs[i]}
		if p.plan.Layers[i] == nil {
			continue
		}
		g.Go(func() (err error) {
			if err = p.layer(ctx, i); err != nil {
				return fmt.Errorf("layer %s: %w", d.Digest, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// Default levels for rewritten layers. Other tools usually compress with these levels, and a layer
// must not grow when files are removed.
const (
	pruneGzipLevel = 6
	pruneZstdLevel = 3
)

// layer writes one layer again. It makes the new layer's table from the tar that it writes.
func (p *pruning) layer(ctx context.Context, i int) error {
	mediaType := p.img.Manifest.Layers[i].MediaType
	make := func(blob io.Writer) error {
		c, err := compressorOf(mediaType, p.level, blob)
		if err != nil {
			return err
		}
		hash := sha256.New()
		scan, scanned := io.Pipe()
		var g errgroup.Group
		g.Go(func() (err error) {
			p.layers[i].table, err = analyze.Scan(ctx, scan)
			scan.CloseWithError(err)
			return err
		})
		err = p.images.Read(ctx, p.img, i, func(r io.Reader) error {
			return analyze.Rewrite(ctx, r, p.plan.Layers[i], p.plan.Dirs[i],
				io.MultiWriter(c, hash, scanned))
		})
		scanned.CloseWithError(err)
		if scanErr := g.Wait(); err == nil {
			err = scanErr
		}
		if err != nil {
			return err
		}
		p.layers[i].diffID = digest.NewDigest(digest.SHA256, hash)
		return c.Close()
	}
	if p.dryRun {
		var n count
		err := make(&n)
		p.layers[i].descriptor.Size = int64(n)
		return err
	}
	d, err := p.s.Store.Ingest(ctx, mediaType, make)
	if err != nil {
		return err
	}
	p.layers[i].descriptor = d
	return putTable(p.s, d.Digest, p.layers[i].table)
}

type count int64

func (n *count) Write(p []byte) (int, error) { *n += count(len(p)); return len(p), nil }

type plainWriter struct{ io.Writer }

func (plainWriter) Close() error { return nil }

// compressorOf returns a compressor for a media type. Its output for a tar does not depend on the
// number of cores.
func compressorOf(mediaType string, level int, w io.Writer) (io.WriteCloser, error) {
	switch ocidoc.Compression(mediaType) {
	case "gzip":
		return gzip.NewWriterLevel(w, cmp.Or(level, pruneGzipLevel))
	case "zstd":
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1),
			zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(cmp.Or(level, pruneZstdLevel))))
	}
	return plainWriter{w}, nil
}

// verify compares the file system of the new layers with that of the old ones.
func (p *pruning) verify(ctx context.Context, old []analyze.LayerInput) error {
	now := slices.Clone(old)
	for i, l := range p.layers {
		if l.table != nil {
			now[i].Table = func(context.Context) (*analyze.Table, error) { return l.table, nil }
		}
	}
	return analyze.Same(ctx, old, now)
}

// write writes the configuration and the manifest. It keeps fields that this program does not know.
func (p *pruning) write(ctx context.Context, res *Pruned) error {
	config, err := p.document(ctx, p.img.Manifest.Config)
	if err != nil {
		return err
	}
	manifest, err := p.document(ctx, p.img.Descriptor)
	if err != nil {
		return err
	}
	rootfs := p.img.Config.RootFS
	rootfs.DiffIDs = nil
	var layers []ocispec.Descriptor
	for i, l := range p.layers {
		rootfs.DiffIDs = append(rootfs.DiffIDs, l.diffID)
		d := p.img.Manifest.Layers[i]
		if l.descriptor.Digest != d.Digest {
			d = image.Rewritten(d, l.descriptor)
		}
		layers = append(layers, d)
	}
	if config["rootfs"], err = json.Marshal(rootfs); err != nil {
		return err
	}
	c, err := p.s.Store.WriteJSON(ctx, p.img.Manifest.Config.MediaType, config)
	if err != nil {
		return err
	}
	if err := copyRecord(p.s, p.img.Manifest.Config.Digest, c.Digest); err != nil {
		return err
	}
	res.Config = image.Rewritten(p.img.Manifest.Config, c)
	for key, v := range map[string]any{"config": res.Config, "layers": layers} {
		if manifest[key], err = json.Marshal(v); err != nil {
			return err
		}
	}
	m, err := p.s.Store.WriteJSON(ctx, p.img.Descriptor.MediaType, manifest)
	res.Manifest.Digest, res.Manifest.Size, res.Manifest.Data = m.Digest, m.Size, nil
	return err
}

func (p *pruning) document(ctx context.Context,
	d ocispec.Descriptor) (map[string]json.RawMessage, error) {
	data, err := p.s.Store.Read(ctx, d)
	if err != nil {
		return nil, err
	}
	var doc map[string]json.RawMessage
	if err := ocijson.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", d.Digest, err)
	}
	return doc, nil
}

// copyRecord stores the record of one configuration for the configuration that was made from it.
func copyRecord(s *state.State, from, to digest.Digest) error {
	data, err := s.ReadKept(state.Builds, from)
	if err != nil {
		return nil // the image was not built here
	}
	return s.Keep(state.Builds, to, data)
}
