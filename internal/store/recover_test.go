package store

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// damages are kinds of damage to a file of the layout.
var damages = map[string]func(path string) error{
	"garbage": func(p string) error { return os.WriteFile(p, []byte("{garbage"), 0o644) },
	"digest": func(p string) error {
		return os.WriteFile(p, []byte(`{"manifests":[{"digest":"x"}]}`), 0o644)
	},
	"empty":   func(p string) error { return os.Truncate(p, 0) },
	"missing": os.Remove,
	"directory": func(p string) error {
		return errors.Join(os.Remove(p), os.MkdirAll(filepath.Join(p, "x"), 0o755))
	},
	"link": func(p string) error {
		return errors.Join(os.Remove(p), os.Symlink(filepath.Base(p), p))
	},
	"bit": flip,
}

// flip changes a bit of a name, and restores the times of the file.
func flip(path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text := strings.ReplaceAll(string(data), "library/two:", "library/twn:")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Chtimes(path, time.Time{}, fi.ModTime())
}

// TestIndexDamaged damages index.json, its copy, and the version before the last change. A name is
// lost only if all files that contain it are damaged. An image is never lost: it gets a name, and
// Collect keeps it.
func TestIndexDamaged(t *testing.T) {
	for kind, damage := range damages {
		for _, test := range []struct {
			index, copy, old bool // damaged
			want             string
		}{
			{index: true, want: "one two three"},
			{copy: true, want: "one two three"},
			{old: true, want: "one two three"},
			{copy: true, old: true, want: "one two three"},
			{index: true, old: true, want: "one two three"},
			{index: true, copy: true, want: "one two recovered"},
			{index: true, copy: true, old: true, want: "recovered recovered recovered"},
		} {
			if kind == "bit" && test.index && test.copy {
				continue // there is no copy with which a valid index.json could be compared
			}
			t.Run(kind+" "+test.want, func(t *testing.T) {
				s := openTest(t)
				images := map[string]ocispec.Descriptor{}
				for _, name := range []string{"one", "two", "three"} {
					images[name] = putImage(t, s, name)
					if err := s.Tag(t.Context(), name, images[name]); err != nil {
						t.Fatal(err)
					}
				}
				for path, is := range map[string]bool{s.index(): test.index,
					s.indexCopy(): test.copy, s.oldIndex(): test.old} {
					if !is {
						continue
					}
					if err := damage(path); err != nil {
						t.Fatal(err)
					}
				}
				var warned []string
				s, err := Open(t.Context(), s.dir, Options{})
				if err != nil {
					t.Fatal(err)
				}
				s.o.Warn = func(m string) { warned = append(warned, m) }
				checkNames(t, s, images, test.want)
				if want := map[bool]int{true: 1}[test.index]; len(warned) != want {
					t.Errorf("warnings: %q, want %d", warned, want)
				}
				if err := s.Tag(t.Context(), "four", images["one"]); err != nil {
					t.Error(err)
				}
				if _, err := s.Untag(t.Context(), "four"); err != nil {
					t.Error(err)
				}
				// the blobs to which no manifest refers
				if c, err := s.Collect(t.Context(), CollectOptions{}); err != nil || c.Blobs != 3 {
					t.Errorf("Collect = %+v, %v", c, err)
				}
				again, err := Open(t.Context(), s.dir, Options{})
				if err != nil {
					t.Fatal(err)
				}
				checkNames(t, again, images, test.want)
			})
		}
	}
}

// checkNames compares the names that refer to the images one, two and three.
func checkNames(t *testing.T, s *Store, images map[string]ocispec.Descriptor, want string) {
	t.Helper()
	list, err := s.Names(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, image := range []string{"one", "two", "three"} {
		i := slices.IndexFunc(list, func(e Entry) bool {
			return e.Descriptor.Digest == images[image].Digest
		})
		if i < 0 {
			t.Errorf("no name leads to the image %s", image)
			continue
		}
		name := strings.TrimSuffix(strings.TrimPrefix(list[i].Name, "docker.io/library/"),
			":latest")
		if strings.HasPrefix(name, recoveredName) {
			name = "recovered"
		}
		got = append(got, name)
		if u, err := s.Usage(t.Context(), list[i].Descriptor); err != nil || u.Missing > 0 {
			t.Errorf("of %s %d blobs are missing (%v)", image, u.Missing, err)
		}
	}
	if got := strings.Join(got, " "); got != want || len(list) != len(images) {
		t.Errorf("the names are %s, %d in all, want %s", got, len(list), want)
	}
}

// TestIndexOfOthers writes an index.json of the same size, as other tools do: the store must accept
// it.
func TestIndexOfOthers(t *testing.T) {
	s := openTest(t)
	if err := s.Tag(t.Context(), "two", putImage(t, s, "two")); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(s.index())
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(s.index())
	if err != nil {
		t.Fatal(err)
	}
	for name, write := range map[string]func(text string) error{
		"twn": func(text string) error { // as skopeo does
			return errors.Join(os.WriteFile(s.index()+".new", []byte(text), 0o644),
				os.Rename(s.index()+".new", s.index()))
		},
		"tww": func(text string) error { // in place
			return errors.Join(os.WriteFile(s.index(), []byte(text), 0o644),
				os.Chtimes(s.index(), time.Time{}, fi.ModTime().Add(time.Millisecond)))
		},
	} {
		if err := write(strings.ReplaceAll(string(data), "library/two:",
			"library/"+name+":")); err != nil {
			t.Fatal(err)
		}
		s, err := Open(t.Context(), s.dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		s.o.Warn = func(m string) { t.Error(m) }
		if _, err := s.Resolve(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
}

// TestNewLayoutIsNotLost checks that a layout that another tool has made, or a new one, is not
// reported as lost.
func TestNewLayoutIsNotLost(t *testing.T) {
	s := openTest(t)
	s.o.Warn = func(m string) { t.Error(m) }
	if list, err := s.Names(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("Names = %v, %v", list, err)
	}
	if _, err := os.Lstat(s.index()); err != nil {
		t.Error(err)
	}
}

// TestIndexTime checks that index.json has another time than a file that another tool makes right
// afterwards, although the kernel's clock for files may not have ticked in between.
func TestIndexTime(t *testing.T) {
	s := openTest(t)
	d := putImage(t, s, "one")
	for range 100 {
		before := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(before, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := s.Tag(t.Context(), "one", d); err != nil {
			t.Fatal(err)
		}
		after := before + "2"
		if err := os.WriteFile(after, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(s.index())
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{before, after} {
			other, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if other.ModTime().Equal(fi.ModTime()) {
				t.Fatalf("index.json has the time of another file, %v", fi.ModTime())
			}
		}
	}
}
