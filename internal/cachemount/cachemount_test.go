package cachemount

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/lock/locktest"
	"github.com/layerbuild/layerbuild/parser"
)

// store returns a Store in a directory, and a mount whose Fill counts its calls and writes their
// number to the file n.
func store(t *testing.T, top string, empty bool) (*Store, func(sharing parser.Sharing) Mount) {
	t.Helper()
	calls := 0
	name, err := Name("id", nil)
	if err != nil {
		t.Fatal(err)
	}
	return &Store{Top: func() (string, error) { return top, nil }, Empty: empty},
		func(sharing parser.Sharing) Mount {
			return Mount{Name: name, ID: "id", Sharing: sharing,
				Fill: func(_ context.Context, dir string) error {
					calls++
					return os.WriteFile(filepath.Join(dir, "n"), []byte{byte('0' + calls)}, 0o644)
				}}
		}
}

// content locks a mount, reads its file and releases the lock.
func content(t *testing.T, s *Store, m Mount) string {
	t.Helper()
	l, err := s.Lock(t.Context(), []Mount{m})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir, err := l.Files(t.Context(), 0, m)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "n"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestFilledOnce(t *testing.T) {
	s, mount := store(t, t.TempDir(), false)
	for _, sharing := range []parser.Sharing{parser.SharingShared, parser.SharingLocked,
		parser.SharingPrivate} {
		if got := content(t, s, mount(sharing)); got != "1" {
			t.Errorf("%v: content %q, want that of the first Fill", sharing, got)
		}
	}
}

func TestPrivateHasDirectoriesOfItsOwn(t *testing.T) {
	s, mount := store(t, t.TempDir(), false)
	first, err := s.Lock(t.Context(), []Mount{mount(parser.SharingPrivate)})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := s.Lock(t.Context(), []Mount{mount(parser.SharingPrivate)})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if first.dirs[0] == second.dirs[0] {
		t.Errorf("two commands use %s at once", first.dirs[0])
	}
}

func TestLockedWaits(t *testing.T) {
	s, mount := store(t, t.TempDir(), false)
	// the stricter of the two modes is used
	first, err := s.Lock(t.Context(), []Mount{mount(parser.SharingLocked),
		mount(parser.SharingShared)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if l, err := s.Lock(ctx, []Mount{mount(parser.SharingShared)}); err == nil {
		l.Close()
		t.Error("a command gets a cache that another has locked")
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	content(t, s, mount(parser.SharingShared))
}

// TestCanceled cancels the calls that wait for another command, and checks that the cache can be
// used afterwards.
func TestCanceled(t *testing.T) {
	for name, test := range map[string]struct {
		sharing parser.Sharing
		file    string // the locked file of the cache
	}{
		"a shared cache":                 {parser.SharingShared, "lock"},
		"a locked cache":                 {parser.SharingLocked, "lock"},
		"a cache that another one fills": {parser.SharingShared, "fill"},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			s, mount := store(t, top, false)
			m := mount(test.sharing)
			dir := filepath.Join(top, m.Name)
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			locktest.Canceled(t, filepath.Join(dir, test.file), func(ctx context.Context) error {
				l, err := s.Lock(ctx, []Mount{m})
				if err != nil {
					return err
				}
				_, err = l.Files(ctx, 0, m)
				return errors.Join(err, l.Close())
			})
			if got := content(t, s, mount(parser.SharingLocked)); got != "1" {
				t.Errorf("content %q, want that of the first Fill", got)
			}
		})
	}
}

// TestLeaseFails checks that a cache that cannot be leased is not used.
func TestLeaseFails(t *testing.T) {
	top := t.TempDir()
	s, mount := store(t, top, false)
	failed := errors.New("not leased")
	s.Lease = func(context.Context, string) error { return failed }
	if _, err := s.Lock(t.Context(),
		[]Mount{mount(parser.SharingShared)}); !errors.Is(err, failed) {
		t.Errorf("Lock = %v, want the error of Lease", err)
	}
	if left, err := os.ReadDir(top); err != nil || len(left) > 0 {
		t.Errorf("there is %v, %v", left, err)
	}
}

// TestEmpty checks that --no-cache empties a cache once in a build, and that a command of another
// build that uses the cache keeps its files.
func TestEmpty(t *testing.T) {
	top := t.TempDir()
	before, mount := store(t, top, false)
	content(t, before, mount(parser.SharingShared))
	used, err := before.Lock(t.Context(), []Mount{mount(parser.SharingShared)})
	if err != nil {
		t.Fatal(err)
	}
	old, err := used.Files(t.Context(), 0, mount(parser.SharingShared))
	if err != nil {
		t.Fatal(err)
	}
	s, _ := store(t, top, true)
	for range 2 {
		if got := content(t, s, mount(parser.SharingShared)); got != "2" {
			t.Errorf("content %q, want that of the second Fill", got)
		}
	}
	if data, err := os.ReadFile(filepath.Join(old, "n")); string(data) != "1" {
		t.Errorf("the files in use are %q, %v", data, err)
	}
	used.Close()
	next, _ := store(t, top, true)
	if got := content(t, next, mount(parser.SharingLocked)); got != "3" {
		t.Errorf("content %q, want that of the third Fill", got)
	}
	if left, err := filepath.Glob(old + "*"); err != nil || len(left) != 1 {
		t.Errorf("%q are left, %v, want one directory of files", left, err)
	}
}

func TestFillFails(t *testing.T) {
	s, mount := store(t, t.TempDir(), false)
	bad := mount(parser.SharingShared)
	want := errors.New("no")
	bad.Fill = func(context.Context, string) error { return want }
	l, err := s.Lock(t.Context(), []Mount{bad})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Files(t.Context(), 0, bad); !errors.Is(err, want) {
		t.Errorf("Files: %v, want the error of Fill", err)
	}
	l.Close()
	if got := content(t, s, mount(parser.SharingShared)); got != "1" {
		t.Errorf("content %q after a Fill that failed", got)
	}
}
