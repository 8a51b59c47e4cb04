package analyze

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/layerbuild/layerbuild/internal/unpack"
)

// Pruning describes the entries that can be dropped from an image's layers without changing its
// file system.
type Pruning struct {
	// Layers holds for each layer which of its entries are dropped, by their index in its Table;
	// nil for an unchanged layer.
	Layers [][]bool
	// Dirs holds for each layer the directories that it must list because it implied them only
	// by entries that are dropped.
	Dirs [][]string
	// Bytes is the size of the dropped content. Entries and Whiteouts are the numbers of dropped
	// entries.
	Bytes     int64
	Entries   int
	Whiteouts int
}

// Plan finds entries that can be dropped from layers for which may returns true. It reads the
// tables twice.
//
// An entry is dropped if its result is not visible: the file is dead and a later entry has the same
// name. A whiteout is dropped if it hides nothing once those entries are dropped. All names of a
// live unit are kept, and so are symbolic links on the way to other entries.
func Plan(ctx context.Context, layers []LayerInput, may func(layer int) bool) (*Pruning, error) {
	was := newBuilder()
	was.needed = map[int32]bool{}
	made := make([][]int32, len(layers)) // by layer and ordinal: the entry's file; -1: none
	err := tables(ctx, layers, func(i int, t *Table) error {
		if may(i) {
			made[i] = make([]int32, t.Entries)
			was.seen = func(ordinal int, file int32, _ bool) { made[i][ordinal] = file }
		}
		defer func() { was.seen = nil }()
		return was.apply(t, &Layer{})
	})
	if err != nil {
		return nil, err
	}
	stays := was.stays()
	p := was.plan(made, stays)
	if err := p.whiteouts(ctx, layers, was); !errors.Is(err, ErrDiffers) {
		return p, err
	}
	// An entry needs a directory or a link that was to be dropped. They have no bytes: keep all
	// of them.
	p = was.plan(made, func(f int32) bool { return was.t.files[f].Unit < 0 || stays(f) })
	return p, p.whiteouts(ctx, layers, was)
}

// plan drops the entries whose files do not stay. made has the file of each entry, by layer and
// ordinal.
func (b *builder) plan(made [][]int32, stays func(int32) bool) *Pruning {
	p := &Pruning{Layers: make([][]bool, len(made)), Dirs: make([][]string, len(made))}
	nodes := b.nodesOf()
	implied := make([][]int32, len(made)) // by layer
	for f := range b.t.files {
		if file := &b.t.files[f]; file.Implied && nodes[f] != root {
			implied[file.Layer] = append(implied[file.Layer], int32(f))
		}
	}
	needed := b.parents(made, stays, nodes)
	// the number (from 1) of the last layer that keeps an entry below the node
	above := make([]int32, len(b.t.nodes))
	for i, files := range made {
		if files == nil {
			continue
		}
		drop := make([]bool, len(files))
		for k, f := range files {
			if drop[k] = f >= 0 && !stays(f) && !needed[f]; drop[k] || f < 0 {
				continue
			}
			for n := b.t.nodes[nodes[f]].parent; n >= 0 &&
				above[n] != int32(i)+1; n = b.t.nodes[n].parent {
				above[n] = int32(i) + 1
			}
		}
		for k, f := range files {
			if drop[k] = drop[k] && above[nodes[f]] != int32(i)+1; !drop[k] {
				continue
			}
			p.Entries++
			if file := &b.t.files[f]; file.Unit >= 0 && !file.Hardlink {
				p.Bytes += b.units[file.Unit].Bytes
			}
		}
		p.Layers[i] = drop
		for _, f := range implied[i] {
			if file := &b.t.files[f]; above[nodes[f]] != int32(i)+1 &&
				b.lasts(file) && !b.listed(file) {
				p.Dirs[i] = append(p.Dirs[i], strings.TrimPrefix(b.t.Path(&b.t.nodes[nodes[f]]),
					"/"))
			}
		}
	}
	return p
}

// parents returns the directories that contain kept entries of their layer, including those that a
// later layer removes. Without a directory's entry, an unpacker would create the directory when it
// extracts an entry below it, and so change the time of the directory above.
func (b *builder) parents(made [][]int32, stays func(int32) bool, nodes []int32) []bool {
	needed := make([]bool, len(b.t.files))
	// the number (from 1) of the last layer that was counted at the node
	seen := make([]int32, len(b.t.nodes))
	for i, files := range made {
		for _, f := range files {
			if f < 0 || !stays(f) {
				continue
			}
			for n := b.t.nodes[nodes[f]].parent; n >= 0 &&
				seen[n] != int32(i)+1; n = b.t.nodes[n].parent {
				seen[n] = int32(i) + 1
				// The directory that the layer found or made at n.
				dir := int32(0)
				for k := b.t.nodes[n].first; k != 0; k = b.t.files[k-1].next {
					file := &b.t.files[k-1]
					if file.Layer > int32(i) {
						break
					}
					if dir = 0; file.Type == Dir {
						dir = k
					}
				}
				if dir != 0 {
					needed[dir-1] = true
				}
			}
		}
	}
	return needed
}

// listed reports whether the layer has an entry for a directory that it first implied.
func (b *builder) listed(f *File) bool {
	if f.next == 0 {
		return false
	}
	next := &b.t.files[f.next-1]
	return next.Layer == f.Layer && !next.Implied
}

// lasts reports whether a directory has not been removed or replaced since.
func (b *builder) lasts(f *File) bool {
	for next := f.next; next != 0; next = b.t.files[next-1].next {
		if b.t.files[next-1].Type != Dir {
			return false
		}
	}
	return true
}

// nodesOf returns the node of each file.
func (b *builder) nodesOf() []int32 {
	nodes := make([]int32, len(b.t.files))
	for n := range b.t.nodes {
		for i := b.t.nodes[n].first; i != 0; i = b.t.files[i-1].next {
			nodes[i-1] = int32(n)
		}
	}
	return nodes
}

// stays returns a function that reports which files must stay.
func (b *builder) stays() func(f int32) bool {
	keep := make([]bool, len(b.units)) // units that stay although they are dead
	hides := make([]bool, len(b.t.files))
	for i := range b.t.nodes {
		b.hiding(&b.t.nodes[i], hides)
	}
	for f := range b.t.files {
		if u := b.t.files[f].Unit; u >= 0 && (hides[f] || b.needed[int32(f)]) {
			keep[u] = true
		}
	}
	return func(f int32) bool {
		file := &b.t.files[f]
		switch {
		case hides[f] || b.needed[f]:
			return true
		case file.Unit >= 0:
			return keep[file.Unit] || !b.units[file.Unit].Dead()
		case file.Type == Dir:
			return b.lasts(file)
		}
		return file.next == 0
	}
}

// hiding marks files that replaced a directory and were later replaced by another one: without
// them the first directory's content would become visible in the second.
func (b *builder) hiding(n *Node, hides []bool) {
	before := Gone
	for i := n.first; i != 0; i = b.t.files[i-1].next {
		f := &b.t.files[i-1]
		if before == Dir && f.Type != Dir && f.Type != Gone {
			for later := f.next; later != 0; later = b.t.files[later-1].next {
				if b.t.files[later-1].Type == Dir {
					hides[i-1] = true
				}
			}
		}
		before = f.Type
	}
}

// whiteouts applies the layers again, without the dropped entries, and finds the marks that then
// hide nothing. The result must be the same as before.
func (p *Pruning) whiteouts(ctx context.Context, layers []LayerInput, was *builder) error {
	is := newBuilder()
	err := tables(ctx, layers, func(i int, t *Table) error {
		is.skip, is.seen, is.dirs = nil, nil, p.Dirs[i]
		if drop := p.Layers[i]; drop != nil {
			is.skip = func(ordinal int) bool { return drop[ordinal] }
			var idle []int
			is.seen = func(ordinal int, file int32, hides bool) {
				if file < 0 && !hides {
					idle = append(idle, ordinal)
				}
			}
			if err := is.apply(t, &Layer{}); err != nil {
				return err
			}
			for _, k := range idle {
				drop[k] = true
			}
			p.Entries += len(idle)
			p.Whiteouts += len(idle)
			if !slices.Contains(drop, true) {
				p.Layers[i], p.Dirs[i] = nil, nil
			}
			return nil
		}
		return is.apply(t, &Layer{})
	})
	if err != nil {
		return err
	}
	return same(was, is)
}

// Same returns an error if two images do not have the same file system: paths, contents, modes,
// owners, attributes, times and groups of links. The error names the first difference.
func Same(ctx context.Context, a, b []LayerInput) error {
	var built [2]*builder
	for i, layers := range [][]LayerInput{a, b} {
		built[i] = newBuilder()
		if err := tables(ctx, layers, func(_ int, t *Table) error {
			return built[i].apply(t, &Layer{})
		}); err != nil {
			return err
		}
	}
	return same(built[0], built[1])
}

// ErrDiffers is wrapped by errors about two file systems that are not the same.
var ErrDiffers = errors.New("the file systems differ")

func same(a, b *builder) error {
	c := comparison{a: a, b: b, units: map[int32]int32{}, back: map[int32]int32{}}
	if err := c.node(root, root); err != nil {
		return fmt.Errorf("%w: /%s: %w", ErrDiffers, strings.Join(c.path, "/"), err)
	}
	return nil
}

type comparison struct {
	a, b  *builder
	units map[int32]int32 // the unit of b for a unit of a
	back  map[int32]int32
	path  []string // names to the current node; after an error, to the node that differs
}

func (c *comparison) node(n, m int32) error {
	f, g := c.a.cur(n), c.b.cur(m)
	if err := c.file(f, g); err != nil || f.Type != Dir {
		return err
	}
	some := 0
	for i := c.a.t.nodes[n].child; i != 0; i = c.a.t.nodes[i].next {
		if c.a.cur(i) == nil {
			continue
		}
		some++
		name := c.a.t.nodes[i].Name
		c.path = append(c.path, name)
		k, ok := c.b.index[nodeKey{m, name}]
		if !ok || c.b.cur(k) == nil {
			return errors.New("it is missing")
		}
		if err := c.node(i, k); err != nil {
			return err
		}
		c.path = c.path[:len(c.path)-1]
	}
	for i := c.b.t.nodes[m].child; i != 0; i = c.b.t.nodes[i].next {
		if c.b.cur(i) != nil {
			some--
		}
	}
	if some != 0 {
		return fmt.Errorf("it has %d entries more", -some)
	}
	return nil
}

func (c *comparison) file(f, g *File) error {
	switch {
	case f.Type != g.Type:
		return fmt.Errorf("%s, not %s", g.Type, f.Type)
	case g.Implied && !f.Implied:
		return errors.New("a directory that no layer lists any more")
	case f.Mode != g.Mode || f.UID != g.UID || f.GID != g.GID:
		return fmt.Errorf("%04o %d:%d, not %04o %d:%d", g.Mode, g.UID, g.GID, f.Mode, f.UID, f.GID)
	case c.a.t.attrs[f.attrs] != c.b.t.attrs[g.attrs]:
		return errors.New("other attributes")
	case f.Time != g.Time && !f.Implied: // an unpacker sets it to the current time
		return fmt.Errorf("time %s, not %s", g.ModTime(), f.ModTime())
	case f.Link != g.Link && !f.Hardlink && !g.Hardlink:
		return fmt.Errorf("-> %q, not %q", g.Link, f.Link)
	case f.Unit < 0 && g.Unit < 0:
		return nil
	case f.Unit < 0 || g.Unit < 0:
		return errors.New("content on one side only")
	}
	u, v := &c.a.units[f.Unit], &c.b.units[g.Unit]
	if u.Bytes != v.Bytes || u.Content != v.Content {
		return errors.New("other content")
	}
	to, ok := c.units[f.Unit]
	from, back := c.back[g.Unit]
	if ok != back || ok && (to != g.Unit || from != f.Unit) {
		return errors.New("other hard links")
	}
	c.units[f.Unit], c.back[g.Unit] = g.Unit, f.Unit
	return nil
}

// Rewrite copies a layer's tar without some of its entries. r may be compressed; drop has a value
// for each entry of the layer's Table. Entries that stay are copied byte for byte. Entries for dirs
// follow at the end: each comes after its parent there, and after a whiteout of the same name,
// which some unpackers apply in the order of the tar.
func Rewrite(ctx context.Context, r io.Reader, drop []bool, dirs []string, w io.Writer) error {
	z, _, err := unpack.Decompress(r)
	if err != nil {
		return fmt.Errorf("read layer: %w", err)
	}
	defer z.Close()
	a := unpack.ReadAhead(ctx, z, unpack.AheadOptions{})
	defer a.Stop()
	b := &blocks{from: a}
	if err := (&rewriter{r: unpack.NewReader(b), in: b, out: w, drop: drop,
		dirs: dirs}).run(); err != nil {
		return fmt.Errorf("rewrite layer: %w", err)
	}
	if err := a.Drain(); err != nil {
		return fmt.Errorf("read layer: %w", err)
	}
	return nil
}

// writeDirs writes entries for directories, with the owner, mode and time that unpackers give to a
// directory without an entry.
func writeDirs(w io.Writer, dirs []string) error {
	tw := tar.NewWriter(w)
	for _, dir := range slices.Sorted(slices.Values(dirs)) {
		h := &tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755,
			ModTime: time.Unix(0, 0)}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
	}
	return nil // no Close: the archive continues
}

// blocks returns a tar one block at a time, so that the reader takes no block before it needs it,
// and keeps the blocks that the reader has taken.
type blocks struct {
	from  *unpack.Ahead
	chunk []byte
	taken []byte
	// forget is set to discard blocks instead of keeping them.
	forget bool
}

// Chunk implements unpack.Chunker.
func (b *blocks) Chunk() ([]byte, error) {
	if len(b.chunk) == 0 {
		var err error
		if b.chunk, err = b.from.Chunk(); err != nil {
			return nil, err
		}
	}
	n := min(512, len(b.chunk))
	c := b.chunk[:n]
	b.chunk = b.chunk[n:]
	if !b.forget {
		b.taken = append(b.taken, c...)
	}
	return c, nil
}

// Read is never called. unpack.NewReader requires an io.Reader.
func (b *blocks) Read([]byte) (int, error) { panic("unreachable") }

type rewriter struct {
	r    *unpack.Reader
	in   *blocks
	out  io.Writer
	drop []bool
	dirs []string
}

// flushAt is the number of bytes that are collected before they are written.
const flushAt = 32 << 10

func (w *rewriter) run() error {
	marks := scanner{} // decides which entries a table has
	for {
		h, err := w.r.Next()
		if err == io.EOF {
			if err := writeDirs(w.out, w.dirs); err != nil {
				return err
			}
			_, err = w.out.Write(make([]byte, 1024)) // the end of an archive
			return err
		}
		if err != nil {
			return err
		}
		before := marks.w.table.Entries
		marks.e = Entry{Path: unpack.CleanName(h.Name)}
		marks.w.table.data = marks.w.table.data[:0]
		handled, err := marks.mark()
		if err != nil {
			return err
		}
		if !handled {
			marks.w.table.Entries++
		}
		gone := false
		if marks.w.table.Entries > before {
			if before >= len(w.drop) {
				return errors.New("it has more entries than its table")
			}
			gone = w.drop[before]
		}
		if err := w.entry(gone); err != nil {
			return fmt.Errorf("%s: %w", marks.e.Path, err)
		}
	}
}

// entry copies or drops an entry whose headers the reader has read.
func (w *rewriter) entry(gone bool) error {
	if gone {
		w.in.taken = globals(w.in.taken)
	}
	if err := w.flush(); err != nil {
		return err
	}
	w.in.forget = gone
	defer func() { w.in.forget = false }()
	for {
		_, _, err := w.r.Data()
		if err == io.EOF {
			return w.flush()
		}
		if err != nil {
			return err
		}
		if len(w.in.taken) >= flushAt {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
}

// flush writes the collected bytes. It skips empty writes: a pipe turns an empty write into an
// empty read, and many readers give up after a hundred of those (io.ErrNoProgress).
func (w *rewriter) flush() error {
	if len(w.in.taken) == 0 {
		return nil
	}
	_, err := w.out.Write(w.in.taken)
	w.in.taken = w.in.taken[:0]
	return err
}

// globals returns the headers that also apply to later entries (pax(1p), typeflag g).
func globals(headers []byte) []byte {
	kept := headers[:0]
	for at := 0; at+512 <= len(headers); {
		size, ok := unpack.SpecialSize(headers[at : at+512])
		if !ok || size > int64(len(headers)) {
			break
		}
		end := at + 512 + int((size+511)&^511)
		if end > len(headers) {
			break
		}
		if headers[at+156] == 'g' {
			kept = append(kept, headers[at:end]...)
		}
		at = end
	}
	return kept
}
