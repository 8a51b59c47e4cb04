package layers

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/layerbuild/layerbuild/diff"
	"github.com/layerbuild/layerbuild/internal/blocks"
	"github.com/layerbuild/layerbuild/internal/state"
)

// counted counts the blocks that are found.
type counted struct {
	*Blocks
	asked, found atomic.Int64
}

func (c *counted) Find(k blocks.Key) (blocks.Piece, bool) {
	p, ok := c.Blocks.Find(k)
	c.asked.Add(1)
	if ok {
		c.found.Add(1)
	}
	return p, ok
}

// TestBlocks edits one of many files. The layer of the new tree takes most of its blocks from the
// layer of the old one, and has the same bytes as without it, also if the old blob, the table or
// the secret is missing or damaged.
func TestBlocks(t *testing.T) {
	tree := t.TempDir()
	r := rand.New(rand.NewPCG(1, 1))
	write := func(i int) {
		data := make([]byte, 20_000)
		for j := range data {
			data[j] = "etaoin shrdlu, "[r.IntN(15)]
		}
		if err := os.WriteFile(filepath.Join(tree, fmt.Sprint(i)), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 500 {
		write(i)
	}
	root := t.TempDir()
	seal := func(o diff.Options) (diff.Layer, *counted) {
		t.Helper()
		st, err := state.Open(t.Context(), state.Options{Root: root, Driver: "copy"})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		c := &counted{Blocks: NewBlocks(st)}
		defer c.Close()
		o.Blocks = c
		l, err := diff.Seal(t.Context(), st.Store, diff.Tree{Dir: tree}, o)
		if err != nil {
			t.Fatal(err)
		}
		return l, c
	}
	for _, compression := range []string{"gzip", "zstd"} {
		o := diff.Options{Compression: compression}
		blob := func(l diff.Layer) string {
			return filepath.Join(root, "oci/blobs/sha256", l.Descriptor.Digest.Encoded())
		}
		first, c := seal(o)
		if c.found.Load() > 0 {
			t.Errorf("%s: %d blocks were found before there was a layer", compression,
				c.found.Load())
		}
		if _, c := seal(o); c.found.Load() != c.asked.Load() {
			t.Errorf("%s, unchanged: %d of %d blocks were found", compression, c.found.Load(),
				c.asked.Load())
		}
		write(250)
		want, c := seal(o)
		if n, found := c.asked.Load(), c.found.Load(); found < n-2 || found == n {
			t.Errorf("%s, one file edited: %d of %d blocks were found", compression, found, n)
		}
		for name, damage := range map[string]func() error{
			"no table": func() error {
				return os.RemoveAll(filepath.Join(root, "cache/blocks"))
			},
			"no earlier blob": func() error { return os.Remove(blob(first)) },
			"a damaged blob":  func() error { return os.Truncate(blob(want), 100) },
			"a fifo instead of a blob": func() error {
				return errors.Join(os.Remove(blob(want)), syscall.Mkfifo(blob(want), 0o600))
			},
			"a damaged table": func() error {
				return os.WriteFile(filepath.Join(root, "cache/blocks",
					want.Descriptor.Digest.Encoded()), []byte("damaged"), 0o644)
			},
			"no secret": func() error { return os.Remove(filepath.Join(root, "cache/secret")) },
			"a damaged secret": func() error {
				return os.WriteFile(filepath.Join(root, "cache/secret"), []byte("damaged"), 0o600)
			},
		} {
			if err := damage(); err != nil {
				t.Fatal(err)
			}
			got, _ := seal(o)
			if got.Descriptor.Digest != want.Descriptor.Digest || got.DiffID != want.DiffID {
				t.Errorf("%s, %s: the layer is %v, want %v", compression, name, got, want)
			}
			if first, _ = seal(o); first.Descriptor.Digest != want.Descriptor.Digest {
				t.Errorf("%s, after %s: the layer is %v, want %v", compression, name, first, want)
			}
		}
	}
	if fi, err := os.Stat(filepath.Join(root, "cache/secret")); err != nil ||
		fi.Mode() != 0o600 || fi.Size() != blocks.SecretSize {
		t.Errorf("the secret is %v, %v", fi, err)
	}
}

// BenchmarkBlocks seals the layer of a tree of text files again after one of its files has changed.
// It reports the share of the blocks that the earlier layer has.
func BenchmarkBlocks(b *testing.B) {
	for _, n := range []int{2000, 50_000} {
		tree := b.TempDir()
		r := rand.New(rand.NewPCG(2, 2))
		name := func(i int) string { return filepath.Join(tree, fmt.Sprint(i/100), fmt.Sprint(i)) }
		write := func(path string) {
			var text []byte
			for range 500 + r.IntN(5000) {
				text = append(text, "etaoin shrdlu, "[r.IntN(15)])
			}
			if err := os.WriteFile(path, text, 0o644); err != nil {
				b.Fatal(err)
			}
		}
		for i := range n {
			if i%100 == 0 {
				if err := os.Mkdir(filepath.Dir(name(i)), 0o755); err != nil {
					b.Fatal(err)
				}
			}
			write(name(i))
		}
		st, err := state.Open(b.Context(), state.Options{Root: b.TempDir(), Driver: "copy"})
		if err != nil {
			b.Fatal(err)
		}
		defer st.Close()
		seal := func(o diff.Options, earlier bool) *counted {
			c := &counted{Blocks: NewBlocks(st)}
			defer c.Close()
			if earlier {
				o.Blocks = c
			}
			if _, err := diff.Seal(b.Context(), st.Store, diff.Tree{Dir: tree}, o); err != nil {
				b.Fatal(err)
			}
			return c
		}
		for _, compression := range []string{"gzip", "zstd"} {
			o := diff.Options{Compression: compression}
			seal(o, true)
			for _, change := range []struct {
				name string
				do   func(i int)
			}{
				{"all", nil},
				{"edit", func(i int) { write(name(i)) }},
				{"new", func(i int) { write(name(i) + "new") }},
				{"delete", func(i int) { os.Remove(name(i)) }},
			} {
				b.Run(fmt.Sprint(n, "/", compression, "/", change.name), func(b *testing.B) {
					asked, found := int64(0), int64(0)
					for i := 0; b.Loop(); i++ {
						if change.do != nil {
							b.StopTimer()
							change.do((n/2 + i*37) % n)
							b.StartTimer()
						}
						c := seal(o, change.do != nil)
						asked, found = asked+c.asked.Load(), found+c.found.Load()
					}
					if asked > 0 {
						b.ReportMetric(100*float64(found)/float64(asked), "%hits")
					}
				})
			}
		}
	}
}
