package source

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// private lists the private copies in a match: the path in the tree, and mode and content of the
// copy.
func private(t *testing.T, m *Match) []string {
	t.Helper()
	var all []string
	for _, it := range m.Items {
		for e := range it.Entries.All() {
			if e.Frozen == 0 {
				continue
			}
			name := filepath.Join(m.Frozen.Name(), fmt.Sprint(e.Frozen))
			info, err := os.Lstat(name)
			if err != nil {
				t.Fatal(err)
			}
			line := fmt.Sprintf("%s %04o ", filepath.Join(it.Path, e.Path), info.Mode().Perm())
			switch info.Mode().Type() {
			case 0:
				b, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				line += string(b)
			case fs.ModeSymlink:
				to, _ := os.Readlink(name)
				line = fmt.Sprintf("%s -> %s", filepath.Join(it.Path, e.Path), to)
			default:
				line += "dir"
			}
			if info.ModTime().UnixNano() != e.MtimeNs && info.Mode().Type() == 0 {
				t.Errorf("%s: time %v, want that of the entry", e.Path, info.ModTime())
			}
			all = append(all, line)
		}
	}
	return all
}

// A file that a copy has found changed, and every file that has changed since the first Match, has
// a private copy from then on.
func TestFrozen(t *testing.T) {
	dir := makeTree(t,
		"file a A\nfile b B\nfile c C\nlink l -> x\ndir d\nfile d/f F\nfile h H\nhardlink h2 => h\n")
	age()
	tree := openTree(t, dir, TreeOptions{TempDir: func() (string, error) {
		return t.TempDir(), nil
	}})
	first := matchAll(t, tree)
	if got := private(t, first); got != nil || first.Items[0].Entries.Frozen() {
		t.Fatalf("private copies %q before anything has changed", got)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("b", "B2")
	write("d/new", "N")
	write("h", "H2")
	if err := os.Remove(filepath.Join(dir, "l")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("y", filepath.Join(dir, "l")); err != nil {
		t.Fatal(err)
	}
	// as reported by a copy that found a file which was removed since
	tree.Changed("a", false)
	second := matchAll(t, tree)
	want := []string{"a 0644 A", "b 0644 B2", "d 0755 dir", "d/new 0644 N", "h 0644 H2",
		"h2 0644 H2", "l -> y"}
	if got := private(t, second); !slices.Equal(got, want) {
		t.Errorf("private copies %q, want %q", got, want)
	}
	if second.Digest == first.Digest {
		t.Error("the digest is that of the files before")
	}
	var numbers []uint32
	for e := range second.Items[0].Entries.All() {
		if strings.HasPrefix(e.Path, "h") {
			numbers = append(numbers, e.Frozen)
		}
	}
	if numbers[0] != numbers[1] {
		t.Errorf("two names of a file have the copies %d", numbers)
	}
	// The private copies stay the same when the originals change. Other files do not.
	write("b", "B3")
	write("a", "A3")
	third := matchAll(t, tree)
	if third.Digest != second.Digest {
		t.Error("a file with a private copy was read again")
	}
	if fresh := matchAll(t, openTree(t, dir, TreeOptions{})).Digest; fresh == third.Digest {
		t.Error("the files have not changed: nothing was tested")
	}
	temp := third.Frozen.Name()
	if err := tree.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(temp); !os.IsNotExist(err) {
		t.Errorf("private copies are left behind: %v", err)
	}
}

// The digest of a private copy is that of a file with the same content, mode and attributes.
func TestFrozenDigest(t *testing.T) {
	dir := makeTree(t, "file a A\nfile s 4755 S\nlink l -> x\ndir d 0711\n")
	for _, name := range []string{"a", "d"} {
		if err := unix.Setxattr(filepath.Join(dir, name), "user.k", []byte("v"), 0); err != nil {
			t.Log("without attributes:", err)
		}
	}
	want := matchAll(t, openTree(t, dir, TreeOptions{})).Digest
	tree := openTree(t, dir, TreeOptions{TempDir: func() (string, error) {
		return t.TempDir(), nil
	}})
	matchAll(t, tree)
	for _, name := range []string{"a", "s", "l", "d"} {
		tree.Changed(name, false)
	}
	m := matchAll(t, tree)
	if m.Digest != want {
		t.Errorf("digest %s, want %s", m.Digest, want)
	}
	if got := private(t, m); len(got) != 4 {
		t.Errorf("private copies %q, want four", got)
	}
	if err := tree.Close(); err != nil {
		t.Fatal(err)
	}
}

// A file that changes on every read results in an error with its name. A file that only grows does
// not.
func TestFreezeInconsistent(t *testing.T) {
	for _, grows := range []bool{false, true} {
		dir := makeTree(t, "file d/f F\n")
		tree := openTree(t, dir, TreeOptions{TempDir: func() (string, error) {
			return t.TempDir(), nil
		}})
		matchAll(t, tree)
		tree.Changed("d/f", false)
		n := 0
		tree.freezer.between = func() {
			n++
			text := fmt.Appendf(nil, "%d", n%10)
			if grows {
				text = []byte("F" + strings.Repeat("x", n))
			}
			if err := os.WriteFile(filepath.Join(dir, "d/f"), text, 0o644); err != nil {
				t.Error(err)
			}
		}
		m, err := tree.Match(t.Context(), Query{Patterns: []string{"."}})
		switch {
		case grows && err != nil:
			t.Errorf("a file that grows: %v", err)
		case grows:
			if got := private(t, m); !slices.Contains(got, "d/f 0644 F") {
				t.Errorf("private copies %q, want what was there at first", got)
			}
		case err == nil || err.Error() != `"d/f" keeps changing while it is being read`:
			t.Errorf("error %v, want one that names d/f", err)
		}
		if err := tree.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFreezeReplaced checks that a name whose type has changed since its stat is not frozen. Its
// record would have the wrong type, and the content of a directory would be missing.
func TestFreezeReplaced(t *testing.T) {
	dir := makeTree(t, "file file A\nlink link -> x\ndir dir 0755\n")
	kinds := map[string]uint16{"file": unix.S_IFREG, "link": unix.S_IFLNK, "dir": unix.S_IFDIR}
	tree := openTree(t, dir, TreeOptions{TempDir: func() (string, error) {
		return t.TempDir(), nil
	}})
	m, err := tree.newMatching(t.Context(), Query{})
	if err != nil {
		t.Fatal(err)
	}
	for name, is := range kinds {
		for was, kind := range kinds {
			m.st = unix.Statx_t{Mode: kind | 0o755}
			frozen, err := m.freeze(tree.fd(), append([]byte(name), 0), rootOf(name))
			if is == kind && (err != nil || m.st.Mode&unix.S_IFMT != kind) {
				t.Errorf("%s: %v", name, err)
			}
			if is != kind && (err != errReplaced || frozen != nil) {
				t.Errorf("%s in place of %s: error %v, want that it was replaced", name, was, err)
			}
		}
	}
	if err := tree.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestFrozenLinks checks that names of a file are links of each other in the digest only if both
// are copied from the original, or both from the same private copy.
func TestFrozenLinks(t *testing.T) {
	digest := func(text string) string {
		return string(matchAll(t, openTree(t, makeTree(t, text), TreeOptions{})).Digest)
	}
	dir := makeTree(t, "file a A\nhardlink b => a\nhardlink c => a\n")
	time.Sleep(50 * time.Millisecond) // the files are older than the first Match
	tree := openTree(t, dir, TreeOptions{TempDir: func() (string, error) {
		return t.TempDir(), nil
	}})
	check := func(when, text string) {
		t.Helper()
		if got, want := string(matchAll(t, tree).Digest), digest(text); got != want {
			t.Errorf("%s: digest %s, want that of %q, %s", when, got, text, want)
		}
	}
	check("at first", "file a A\nhardlink b => a\nhardlink c => a\n")
	tree.Changed("b", false)
	check("when b has a private copy", "file a A\nfile b A\nhardlink c => a\n")
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("B"), 0o644); err != nil {
		t.Fatal(err)
	}
	check("when the file has changed", "file a B\nfile b A\nhardlink c => b\n")
	if err := tree.Close(); err != nil {
		t.Fatal(err)
	}
}
