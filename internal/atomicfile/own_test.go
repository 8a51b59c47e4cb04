package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestOwn replaces a file in directories in all states that may occur.
func TestOwn(t *testing.T) {
	made := func(path string, perm os.FileMode) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			path := filepath.Join(dir, path)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte("old"), perm); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := []struct {
		name string
		make func(t *testing.T, dir string)
	}{
		{"nothing", func(*testing.T, string) {}},
		{"a file", made("kind/key/file", 0o640)},
		{"a directory in its place", made("kind/key/file/below", 0o644)},
		{"a file in the place of its directory", made("kind/key", 0o644)},
		{"a file in the place of the directory above", made("kind", 0o644)},
		{"what a killed process has left", made("kind/key/file.new", 0o644)},
		{"a directory where the temporary file is made", made("kind/key/file.new/below", 0o644)},
	}
	owns := []struct {
		name string
		own  func(dir string) Own
		perm os.FileMode
	}{
		{"elsewhere", func(dir string) Own {
			return Own{Dir: filepath.Join(dir, "tmp"), Prefix: "p-", Perm: 0o644}
		}, 0o644},
		{"beside it", func(string) Own { return Own{Prefix: "p-"} }, 0o600},
		{"locked", func(string) Own { return Own{Locked: true, Perm: 0o604, Sync: true} }, 0o604},
	}
	for _, b := range before {
		for _, o := range owns {
			t.Run(b.name+"/"+o.name, func(t *testing.T) {
				dir := t.TempDir()
				b.make(t, dir)
				path := filepath.Join(dir, "kind", "key", "file")
				own := o.own(dir)
				if own.Dir == "" && b.name == "a file in the place of the directory above" ||
					own.Dir == "" && b.name == "a file in the place of its directory" {
					if err := own.ReplaceFile(path, []byte("new")); err == nil {
						t.Error("no error: the temporary file has no directory")
					}
					return
				}
				if err := own.ReplaceFile(path, []byte("new")); err != nil {
					t.Fatal(err)
				}
				if got, err := os.ReadFile(path); err != nil || string(got) != "new" {
					t.Errorf("the file has %q, %v", got, err)
				}
				if fi, err := os.Stat(path); err != nil || fi.Mode() != o.perm {
					t.Errorf("its mode is %v, want %v (%v)", fi.Mode(), o.perm, err)
				}
				failed := errors.New("failed")
				if err := own.Replace(path, func(f *os.File) error {
					f.WriteString("half")
					return failed
				}); !errors.Is(err, failed) {
					t.Errorf("a failed write returns %v", err)
				}
				if got, err := os.ReadFile(path); err != nil || string(got) != "new" {
					t.Errorf("after a failed write the file has %q, %v", got, err)
				}
				for _, place := range []string{filepath.Dir(path), filepath.Join(dir, "tmp")} {
					list, _ := os.ReadDir(place)
					for _, e := range list {
						// A file with the suffix .new is removed only by the process that holds the
						// lock.
						if e.Name() != "file" && (own.Locked || e.Name() != "file.new") {
							t.Errorf("%s is left in %s", e.Name(), place)
						}
					}
				}
			})
		}
	}
}

// TestPlace checks that an error other than damage is returned, and that nothing is removed then.
func TestPlace(t *testing.T) {
	dir := t.TempDir()
	to := filepath.Join(dir, "to")
	if err := os.WriteFile(to, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Place(filepath.Join(dir, "missing"), to); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a file to rename: %v", err)
	}
	if got, err := os.ReadFile(to); err != nil || string(got) != "old" {
		t.Errorf("the file has %q, %v", got, err)
	}
}

func TestOwnerOf(t *testing.T) {
	for name, want := range map[string]string{
		OwnedPrefix("new-", "17") + "4": "17",
		OwnedPrefix("new-", "") + "4":   "",
		"new-17":                        "", // no owner, only a unique part
		"new-17-a-b":                    "17",
		"blob-17-4":                     "", // of another kind
		"":                              "",
	} {
		if got := OwnerOf("new-", name); got != want {
			t.Errorf("OwnerOf(new-, %q) = %q, want %q", name, got, want)
		}
	}
}
