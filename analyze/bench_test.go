package analyze

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"runtime"
	"testing"
)

// large are the tables of an image of 100 layers with 5,000 entries each. Every layer rewrites some
// files of the layer below and removes others.
func large(b testing.TB, layers, each int) ([]LayerInput, []Instruction) {
	var in []LayerInput
	var ins []Instruction
	for l := range layers {
		var w tableWriter
		for d := range each / 50 {
			dir := fmt.Sprintf("usr/lib/module%03d/package-%d", d, l/2)
			w.add(&Entry{Path: dir, Type: Dir, Mode: 0o755})
			if l%2 == 1 && d%10 == 0 {
				w.add(&Entry{Path: dir + "/source-0", Type: Gone})
			}
			for f := range 49 {
				e := Entry{Path: fmt.Sprintf("%s/source-%d.file", dir, f), Type: Regular,
					Mode: 0o644, Size: int64(f * 100), Time: int64(l) * 1e9}
				e.Content[0], e.Content[1], e.Content[2] = byte(f), byte(d), byte(l/4)
				w.add(&e)
			}
		}
		table := &w.table
		in = append(in, LayerInput{Table: func(context.Context) (*Table, error) {
			return table, nil
		}})
		ins = append(ins, Instruction{Text: fmt.Sprint("RUN ", l), Layer: l})
	}
	return in, ins
}

// BenchmarkImage analyzes an image without reading its layers. The reported live memory is the
// memory that a browser or a page needs.
func BenchmarkImage(b *testing.B) {
	layers, ins := large(b, 100, 5000)
	n := 0
	for _, l := range layers {
		t, _ := l.Table(context.Background())
		n += t.Entries
	}
	var r *Report
	for b.Loop() {
		var err error
		if r, err = Image(context.Background(),
			Input{Layers: layers, Instructions: ins}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.HeapAlloc)/1e6, "live-MB")
	runtime.KeepAlive(r)
}

// BenchmarkView computes the views that a browser needs for each layer that the user selects.
func BenchmarkView(b *testing.B) {
	layers, ins := large(b, 100, 5000)
	r, err := Image(context.Background(), Input{Layers: layers, Instructions: ins})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		r.Tree.Final(r.Units)
	}
}

func BenchmarkScan(b *testing.B) {
	for _, length := range []int{100, 10_000, 1 << 20} {
		b.Run(fmt.Sprint(length), func(b *testing.B) {
			var items []item
			for i := range max(1, min(20_000, 64<<20/length)) {
				items = append(items, file(fmt.Sprintf("usr/share/d%d/f%d", i/100, i),
					size('x', length)))
			}
			layer := pack(b, items)
			b.SetBytes(int64(len(layer)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Scan(context.Background(), bytes.NewReader(layer)); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(items))*float64(b.N)/b.Elapsed().Seconds(), "files/s")
		})
	}
}

func BenchmarkRewrite(b *testing.B) {
	var items []item
	for i := range 2000 {
		items = append(items, file(fmt.Sprintf("f%d", i), size('x', 20_000)))
	}
	layer := pack(b, items)
	drop := make([]bool, len(items))
	for i := range drop {
		drop[i] = i%2 == 0
	}
	b.SetBytes(int64(len(layer)))
	for b.Loop() {
		if err := Rewrite(context.Background(), bytes.NewReader(layer), drop, nil,
			io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}

// TestLarge checks that half a million entries in 100 layers take seconds and a bounded amount of
// memory.
func TestLarge(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a few seconds")
	}
	layers, ins := large(t, 100, 5000)
	r, err := Image(context.Background(), Input{Layers: layers, Instructions: ins})
	if err != nil {
		t.Fatal(err)
	}
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	runtime.KeepAlive(layers)
	if r.Total.Units != 490_000 || m.HeapAlloc > 500e6 {
		t.Errorf("%d units, %d MB", r.Total.Units, m.HeapAlloc/1e6)
	}
	if err := Same(context.Background(), layers, layers); err != nil {
		t.Error(err)
	}
}

// BenchmarkWhiteouts reads and analyzes an image of 20,000 files of which another layer removes
// 1,600.
func BenchmarkWhiteouts(b *testing.B) {
	var files, gone []item
	for i := range 20_000 {
		files = append(files, file(fmt.Sprintf("usr/share/d%03d/f%05d", i/100, i), size('x', 4000)))
		if i%100 < 8 {
			gone = append(gone, whiteout(files[i].path))
		}
	}
	layers := [][]byte{pack(b, files), pack(b, gone)}
	b.SetBytes(int64(len(layers[0]) + len(layers[1])))
	for b.Loop() {
		r, err := Image(context.Background(), input(0, layers...))
		if err != nil {
			b.Fatal(err)
		}
		if r.Total.DeadUnits != 1600 {
			b.Fatalf("%d units are dead", r.Total.DeadUnits)
		}
	}
}
