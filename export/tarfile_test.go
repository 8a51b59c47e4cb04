package export

import (
	"archive/tar"
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// countingWriter counts the bytes written, and keeps the first ones.
type countingWriter struct {
	n     int64
	first bytes.Buffer
}

func (w *countingWriter) Write(p []byte) (int, error) {
	if keep := 64<<10 - w.first.Len(); keep > 0 {
		w.first.Write(p[:min(len(p), keep)])
	}
	w.n += int64(len(p))
	return len(p), nil
}

// The contents of a large file begin at a multiple of the block size wherever its entry begins,
// and the header that a reader sees is the same.
func TestTarAligned(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w countingWriter
		a := newTarFile(&w)
		for range rapid.IntRange(0, 20).Draw(t, "small entries") {
			h := fileHeader("small", rapid.Int64Range(0, 3000).Draw(t, "small size"))
			if err := a.file(h, func(w io.Writer) error {
				_, err := w.Write(make([]byte, h.Size))
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
		// A name of more than 100 bytes, and a size above 8 GiB, need extended headers anyway.
		name := "blobs/" + strings.Repeat("x", rapid.IntRange(1, 300).Draw(t, "name"))
		size := rapid.SampledFrom([]int64{alignedSize, alignedSize + 1, 5 << 30, 8 << 30,
			1 << 40}).Draw(t, "size")
		h := fileHeader(name, size)
		at := a.pos
		if err := a.header(h); err != nil {
			t.Fatal(err)
		}
		if a.pos%fsBlock != 0 {
			t.Fatalf("contents begin at %d", a.pos)
		}
		if grown := a.pos - at; grown > 2*tarBlock+2*fsBlock {
			t.Errorf("the header has %d bytes", grown)
		}
		if err := a.buf.Flush(); err != nil {
			t.Fatal(err)
		}
		if w.n != a.pos {
			t.Errorf("pos = %d after %d bytes", a.pos, w.n)
		}
		r := tar.NewReader(&w.first)
		for {
			got, err := r.Next()
			if err != nil {
				t.Fatal(err)
			}
			if got.Name == "small" {
				continue
			}
			if got.Name != name || got.Size != size || got.Mode != 0o444 ||
				!got.ModTime.Equal(time.Unix(0, 0)) || got.Typeflag != tar.TypeReg {
				t.Errorf("the header is %+v", got)
			}
			return
		}
	})
}

// Small entries have no padding: such archives are as archive/tar writes them.
func TestTarFile(t *testing.T) {
	var want, got bytes.Buffer
	tw, a := tar.NewWriter(&want), newTarFile(&got)
	for _, size := range []int64{0, 1, 511, 512, 513, 100_000, alignedSize - 1} {
		data := bytes.Repeat([]byte{'x'}, int(size))
		h := fileHeader("f", size)
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := a.file(h, func(w io.Writer) error {
			_, err := w.Write(data)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Error("the archive differs from that of archive/tar")
	}
}
