package image

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// BenchmarkUnpackLayers pulls and unpacks six layers at once, two of each compression. MB counts
// the bytes of the files.
func BenchmarkUnpackLayers(b *testing.B) {
	const layers, files = 6, 300
	rnd := rand.New(rand.NewPCG(1, 2))
	var texts []string
	total := 0
	for l := range layers {
		var text strings.Builder
		for f := range files {
			content := strings.Repeat(fmt.Sprintf("%x", rnd.Uint64()), 1+rnd.IntN(1000))
			total += len(content)
			fmt.Fprintf(&text, "file l%d-f%04d 0644 %s\n", l, f, content)
		}
		texts = append(texts, text.String())
	}
	m := imageOf(b, texts...)
	o := newOrigin(b)
	o.tag("base:1", m)
	b.SetBytes(int64(total))
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		s := newState(b)
		b.StartTimer()
		img, err := s.Resolve(b.Context(), o.host+"/base:1", ResolveOptions{})
		if err != nil {
			b.Fatal(err)
		}
		if _, cached, err := s.Unpack(b.Context(), img, UnpackOptions{}); err != nil || cached {
			b.Fatal(cached, err)
		}
	}
	b.ReportMetric(layers*files*float64(b.N)/b.Elapsed().Seconds(), "files/s")
}
