package store

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"fmt"
)

// fakeStamps makes stamps of ctime. Stamp returns settled.
type fakeStamps struct {
	settled bool
	saved   map[digest.Digest]string
}

func (s *fakeStamps) Stamp(f *os.File) (string, bool) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", false
	}
	return fmt.Sprint(st.Ino, st.Size, st.Ctim.Nano()), s.settled
}

func (s *fakeStamps) Load(d digest.Digest) string        { return s.saved[d] }
func (s *fakeStamps) Save(d digest.Digest, stamp string) { s.saved[d] = stamp }

// later is another process's store of the same layout.
func later(t *testing.T, s *Store) *Store {
	t.Helper()
	other, err := Open(t.Context(), s.Dir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	other.o.Stamps = s.o.Stamps
	return other
}

func unchanged(t *testing.T, s *Store, d ocispec.Descriptor) bool {
	t.Helper()
	r, err := s.Fetch(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	f, ok := r.(*blobReader).Unchanged()
	if !ok {
		return false
	}
	got, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	if digest.FromBytes(got) != d.Digest {
		t.Errorf("the file of %s has other content", d.Digest)
	}
	return true
}

func readThrough(t *testing.T, s *Store, d ocispec.Descriptor) error {
	t.Helper()
	r, err := s.Fetch(t.Context(), d)
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.Copy(io.Discard, r)
	return err
}

// A blob need not be read again by the process that wrote it, and by others once it was verified,
// until its file changes in any way.
func TestUnchanged(t *testing.T) {
	s := openTest(t)
	stamps := &fakeStamps{settled: true, saved: map[digest.Digest]string{}}
	s.o.Stamps = stamps
	content := bytes.Repeat([]byte("x"), minStamped)
	d := put(t, s, "", content)
	if !unchanged(t, s, d) {
		t.Error("the writer has to read its blob")
	}
	other := later(t, s)
	if unchanged(t, other, d) {
		t.Error("another process trusts a blob that nobody has verified")
	}
	stamps.settled = false
	if err := readThrough(t, other, d); err != nil {
		t.Fatal(err)
	}
	if unchanged(t, other, d) {
		t.Error("a file that was changed a moment ago is trusted")
	}
	stamps.settled = true
	if err := readThrough(t, other, d); err != nil {
		t.Fatal(err)
	}
	if !unchanged(t, later(t, s), d) {
		t.Error("a verified blob has to be read")
	}

	t.Run("reading ends it", func(t *testing.T) {
		r, err := other.Fetch(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := r.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if _, ok := r.(*blobReader).Unchanged(); ok {
			t.Error("the file is offered although its offset has moved")
		}
	})
	t.Run("changed while it is open", func(t *testing.T) {
		r, err := other.Fetch(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, ok := r.(*blobReader).Unchanged(); !ok {
			t.Fatal("not offered")
		}
		damage(t, s.Path(d.Digest))
		if _, ok := r.(*blobReader).Unchanged(); ok {
			t.Error("the change was not seen")
		}
	})
	for _, s := range []*Store{s, other, later(t, s)} {
		if _, err := os.Lstat(s.Path(d.Digest)); err == nil && unchanged(t, s, d) {
			t.Error("a damaged blob is trusted")
		}
	}
	if err := readThrough(t, s, d); !errors.Is(err, ErrDamaged) {
		t.Errorf("error %v, want ErrDamaged", err)
	}
	// The blob is made again: the old stamps are not those of the new file.
	if again := put(t, s, "", content); again.Digest != d.Digest || !unchanged(t, s, d) {
		t.Error("the new blob is not trusted by its writer")
	}
	if unchanged(t, later(t, s), d) {
		t.Error("the stamp of the old file counts for the new one")
	}
}

// damage changes a byte of a file and keeps its size and its mtime.
func damage(t *testing.T, path string) {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(30 * time.Millisecond) // another ctime, also before Linux 6.13
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("y"), 100); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, fi.ModTime(), fi.ModTime()); err != nil {
		t.Fatal(err)
	}
}

// Small blobs, and stores without stamps, are read as ever.
func TestUnchangedNot(t *testing.T) {
	s := openTest(t)
	d := put(t, s, "", make([]byte, minStamped))
	if unchanged(t, s, d) {
		t.Error("offered without stamps")
	}
	s.o.Stamps = &fakeStamps{settled: true, saved: map[digest.Digest]string{}}
	small := put(t, s, "", make([]byte, minStamped-1))
	if unchanged(t, s, small) {
		t.Error("a small blob is offered")
	}
}
