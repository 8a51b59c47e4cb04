package outline

import (
	"archive/tar"
	"bytes"
	"io"
	"strings"
	"testing"
)

// TestPack packs an outline and unpacks it.
func TestPack(t *testing.T) {
	b := built(t)
	var packed, tree bytes.Buffer
	if err := b.Pack(&packed); err != nil {
		t.Fatal(err)
	}
	if err := b.Write(&tree); err != nil {
		t.Fatal(err)
	}
	list, r, err := Unpack(bytes.NewReader(packed.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(list, b.List()) || !bytes.Equal(got, tree.Bytes()) || len(list) == 0 {
		t.Errorf("list %q, want %q; the tree is equal: %v", list, b.List(),
			bytes.Equal(got, tree.Bytes()))
	}
	// Every beginning of it is refused, or its tree ends early.
	for n := range packed.Len() - 1024 {
		_, r, err := Unpack(bytes.NewReader(packed.Bytes()[:n]))
		if err != nil {
			continue
		}
		if got, err := io.ReadAll(r); err == nil && len(got) == tree.Len() && n < 1024+tree.Len() {
			t.Errorf("the first %d bytes have a whole tree", n)
		}
	}
}

// built returns the outline of a layer with a directory, a link and two files.
func built(t testing.TB) *Builder {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, h := range []*tar.Header{
		{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "d/file", Typeflag: tar.TypeReg, Mode: 0o644, Size: 3},
		{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "d"},
		{Name: "other", Typeflag: tar.TypeReg, Mode: 0o600},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, strings.Repeat("x", int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var r Reader
	l, _, err := r.Read(t.Context(), &layer)
	if err != nil {
		t.Fatal(err)
	}
	b := &Builder{}
	if err := b.Add(l); err != nil {
		t.Fatal(err)
	}
	return b
}

// FuzzUnpack reads damaged packed outlines.
func FuzzUnpack(f *testing.F) {
	var packed bytes.Buffer
	if err := built(f).Pack(&packed); err != nil {
		f.Fatal(err)
	}
	f.Add(packed.Bytes())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		list, tree, err := Unpack(bytes.NewReader(data))
		if err != nil {
			return
		}
		if _, err := Parse(list); err != nil {
			t.Errorf("the list cannot be parsed: %v", err)
		}
		if n, err := io.Copy(io.Discard, tree); err == nil && n > maxPacked {
			t.Errorf("the tree has %d bytes", n)
		}
	})
}
