package imagetest

import (
	"archive/tar"
	"bytes"
	"testing"
	"time"
)

// Tar returns an archive of entries, in their order. An entry's Path and Data replace the name and
// the size in its header. A header without a time gets one in 2020.
func Tar(t testing.TB, entries ...Entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := *e.Header
		h.Name, h.Size = e.Path, int64(len(e.Data))
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1_600_000_000, 0)
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.Data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TarFile returns an entry with a header and content.
func TarFile(h tar.Header, data string) Entry {
	return Entry{Path: h.Name, Header: &h, Data: []byte(data)}
}
