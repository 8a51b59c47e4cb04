package cache

import (
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// BenchmarkWarmBuild performs the look-ups of an unchanged rebuild of ten steps: it opens the
// cache, looks up the base image's chain and each step and marks them as used, and looks up each
// sealed layer.
func BenchmarkWarmBuild(b *testing.B) {
	dir := b.TempDir()
	c := openTest(b, dir, "boot")
	base := digest.FromString("base")
	if err := c.PutChain(b.Context(), base, "base"); err != nil {
		b.Fatal(err)
	}
	layer := Layer{Descriptor: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip,
		Digest: digest.FromString("d"), Size: 7}, DiffID: digest.FromString("i"), Size: 9}
	var keys []Key
	for i := range 10 {
		k := Key(digest.FromString(fmt.Sprint(i)))
		if err := c.Put(b.Context(), k,
			Record{Snapshot: string(k), ContentKey: Key(base)}); err != nil {
			b.Fatal(err)
		}
		if err := c.PutSealed(b.Context(), string(k), "gzip", layer); err != nil {
			b.Fatal(err)
		}
		keys = append(keys, k)
	}
	b.ReportAllocs()
	for b.Loop() {
		c := openTest(b, dir, "boot")
		if _, ok := c.Chain(base); !ok {
			b.Fatal("no base")
		}
		for _, k := range keys {
			r, ok := c.Get(k)
			if !ok {
				b.Fatal("no step")
			}
			if _, ok := c.Sealed(r.Snapshot, "gzip"); !ok {
				b.Fatal("no layer")
			}
			c.Touch(k)
		}
	}
}

// BenchmarkAll reads all records, as prune does.
func BenchmarkAll(b *testing.B) {
	c := openTest(b, b.TempDir(), "boot")
	const n = 2000
	for i := range n {
		if err := c.Put(b.Context(), Key(fmt.Sprint(i)), Record{Snapshot: "s"}); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		found := 0
		for _, err := range c.All(Steps) {
			if err != nil {
				b.Fatal(err)
			}
			found++
		}
		if found != n {
			b.Fatalf("%d records", found)
		}
	}
	b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
