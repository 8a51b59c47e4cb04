package layers

import (
	"context"
	"os"
	"sync"

	"github.com/layerbuild/layerbuild/internal/blocks"
	"github.com/layerbuild/layerbuild/internal/memo"
	"github.com/layerbuild/layerbuild/internal/state"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Blocks finds compressed blocks in the layers of a state (diff.Blocks). It reads the state when
// the first block is looked up: layers of one block need none of it.
type Blocks struct {
	state *state.State
	load  func()
	keys  *blocks.Keys // nil: blocks are not looked up

	pieces map[blocks.Key]place
	files  memo.Map[digest.Digest, *os.File] // nil: the blob cannot be opened

	mu   sync.Mutex
	open []*os.File // those of files
}

// place is the position of a compressed block.
type place struct {
	blocks.Entry
	blob   digest.Digest
	offset int64
}

// NewBlocks returns the blocks of a state. The caller closes it when nothing is sealed any more.
func NewBlocks(s *state.State) *Blocks {
	b := &Blocks{state: s, pieces: map[blocks.Key]place{}}
	b.load = sync.OnceFunc(b.read)
	return b
}

// maxPieces limits the memory that the blocks of earlier layers take: about 100 bytes each. The
// blocks of the layers that were written last are looked up, about 20 GB of them.
const maxPieces = 20_000

// read reads the tables of layers. Without them, all blocks are compressed again: errors are not
// reported.
func (b *Blocks) read() {
	secret, err := b.state.Secret()
	if err != nil {
		return
	}
	if b.keys, err = blocks.NewKeys(secret); err != nil {
		return
	}
	for _, d := range b.state.Kept(state.Blocks) {
		data, err := b.state.ReadKept(state.Blocks, d)
		if err != nil {
			continue
		}
		table, err := blocks.DecodeTable(data)
		if err != nil {
			continue
		}
		offset := table.Offset
		for _, e := range table.Entries {
			if _, ok := b.pieces[e.Key]; !ok {
				b.pieces[e.Key] = place{e, d, offset}
			}
			offset += int64(e.Size)
		}
		if len(b.pieces) >= maxPieces {
			break
		}
	}
}

// Keys returns the Keys with the secret of the state; nil if it cannot be read.
func (b *Blocks) Keys() *blocks.Keys {
	b.load()
	return b.keys
}

// Find returns the compressed form of a block.
func (b *Blocks) Find(k blocks.Key) (blocks.Piece, bool) {
	p, ok := b.pieces[k]
	if !ok {
		return blocks.Piece{}, false
	}
	// the context never ends: opening a blob does not wait for anything
	f, _ := b.files.Do(context.Background(), p.blob,
		func() (*os.File, error) { return b.openBlob(p.blob), nil })
	return blocks.Piece{Entry: p.Entry, File: f, Offset: p.offset}, f != nil
}

// openBlob opens a blob, which Close closes; nil if it cannot be opened.
func (b *Blocks) openBlob(d digest.Digest) *os.File {
	f, err := b.state.Store.OpenBlob(d)
	if err != nil {
		return nil // the blocks are compressed again
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open = append(b.open, f)
	return f
}

// Keep keeps the table of a layer. Without it, later builds compress the same blocks again: errors
// are not reported.
func (b *Blocks) Keep(d ocispec.Descriptor, t blocks.Table) {
	_ = b.state.Keep(state.Blocks, d.Digest, t.Encode())
}

// Close closes the blobs.
func (b *Blocks) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.open {
		f.Close()
	}
	b.open = nil
	return nil
}
