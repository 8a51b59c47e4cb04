package source

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// age waits for the next tick of the file system's clock, so that no file of the tree is racy.
func age() { time.Sleep(60 * time.Millisecond) }

func matchAll(t *testing.T, tree *Tree) *Match {
	t.Helper()
	m, err := tree.Match(t.Context(), Query{Patterns: []string{"."}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// known returns the number of files in a tree's index.
func known(tree *Tree) int { return tree.index.len() - len(tree.index.instead) }

// read returns the number of files that were read.
func read(tree *Tree) int { return tree.index.learned }

func TestIndex(t *testing.T) {
	dir := makeTree(t,
		"file a A\nfile b B\nfile empty\ndir d\nfile d/c C\nlink l -> a\nfifo p 0600\n")
	age()
	file := filepath.Join(t.TempDir(), "sub", "index")
	first := openTree(t, dir, TreeOptions{IndexFile: file})
	want := matchAll(t, first).Digest
	if n := known(first); n != 5 {
		t.Fatalf("%d records after the first match, want 5: four files and a directory", n)
	}
	before, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}

	second := openTree(t, dir, TreeOptions{IndexFile: file})
	if got := matchAll(t, second).Digest; got != want {
		t.Errorf("digest with an index %s, want %s", got, want)
	}
	if n := read(second); n != 0 {
		t.Errorf("%d files were read again", n)
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(file); err != nil || !os.SameFile(before, after) {
		t.Error("an index in which nothing is new was written again")
	}

	// Changed files are read again, and no others.
	for name, change := range map[string]func(string) error{
		"content":          func(p string) error { return os.WriteFile(p, []byte("Z"), 0o644) },
		"content and time": func(p string) error { return rewrite(p, "Y") },
		"replaced":         func(p string) error { return replace(p, "X") },
		"mode":             func(p string) error { return os.Chmod(p, 0o600) },
		"extended attribute": func(p string) error {
			return unix.Setxattr(p, "user.x", []byte("1"), 0)
		},
	} {
		age()
		tree := openTree(t, dir, TreeOptions{IndexFile: file})
		was := matchAll(t, tree).Digest
		age()
		if err := change(filepath.Join(dir, "b")); err != nil {
			t.Skipf("%s: %v", name, err)
		}
		age()
		tree = openTree(t, dir, TreeOptions{IndexFile: file})
		got := matchAll(t, tree).Digest
		if got == was {
			t.Errorf("%s: the change was not seen", name)
		}
		if fresh := matchAll(t, openTree(t, dir, TreeOptions{})).Digest; got != fresh {
			t.Errorf("%s: digest with an index %s, without %s", name, got, fresh)
		}
		if n := read(tree); n != 1 {
			t.Errorf("%s: %d files were read, want 1", name, n)
		}
	}
}

// rewrite changes a file's content and restores its time.
func rewrite(p, text string) error {
	info, err := os.Stat(p)
	if err != nil {
		return err
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Chtimes(p, info.ModTime(), info.ModTime())
}

// replace replaces a file by another one of the same size and time.
func replace(p, text string) error {
	info, err := os.Stat(p)
	if err != nil {
		return err
	}
	tmp := p + ".new"
	if err := os.WriteFile(tmp, []byte(text), info.Mode()); err != nil {
		return err
	}
	if err := os.Chtimes(tmp, info.ModTime(), info.ModTime()); err != nil {
		return err
	}
	return os.Rename(tmp, p)
}

// A file that is changed within one tick of the clock after it was read has the same result of
// stat(2). The test changes files again and again. If it finds an old digest, the index has stored
// the digest of a file that was too young.
func TestIndexRacy(t *testing.T) {
	dir := makeTree(t, "file f 0\n")
	file := filepath.Join(t.TempDir(), "index")
	seen := map[string]int{}
	for i := range 500 {
		if err := rewrite(filepath.Join(dir, "f"), fmt.Sprintf("%03d", i)); err != nil {
			t.Fatal(err)
		}
		d := string(matchAll(t, openTree(t, dir, TreeOptions{IndexFile: file})).Digest)
		if k, ok := seen[d]; ok {
			t.Fatalf("change %d was not seen: the file is taken for what it was at %d", i, k)
		}
		seen[d] = i
	}
}

// A damaged index is treated as a missing one.
func TestIndexDamaged(t *testing.T) {
	dir := makeTree(t, "file a A\nfile b B\n")
	age()
	file := filepath.Join(t.TempDir(), "index")
	want := matchAll(t, openTree(t, dir, TreeOptions{IndexFile: file})).Digest
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x40
		for _, b := range [][]byte{bad, good[:i], append(bytes.Clone(good), good[:i+1]...)} {
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			tree := openTree(t, dir, TreeOptions{IndexFile: file})
			if n := known(tree); n != 0 {
				t.Fatalf("damaged at %d: %d records taken", i, n)
			}
			tree.dir.Close()
		}
	}
	if got := matchAll(t, openTree(t, dir, TreeOptions{IndexFile: file})).Digest; got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
	if b, _ := os.ReadFile(file); !bytes.Equal(b, good) {
		t.Error("the damaged index was not replaced by a good one")
	}
	// An index that cannot be written is not an error.
	if got := matchAll(t, openTree(t, dir,
		TreeOptions{IndexFile: "/proc/none/index"})).Digest; got != want {
		t.Errorf("digest %s, want %s", got, want)
	}
}

// Records of files that were not found are kept for a while, because the files may be in other
// parts of the context, and are then dropped.
func TestIndexForgets(t *testing.T) {
	dir := makeTree(t, "file a A\nfile b B\n")
	file := filepath.Join(t.TempDir(), "index")
	age()
	matchAll(t, openTree(t, dir, TreeOptions{IndexFile: file}))
	if err := os.Remove(filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	for i := range maxAge + 2 {
		if err := os.WriteFile(filepath.Join(dir, "a"), fmt.Append(nil, i), 0o644); err != nil {
			t.Fatal(err)
		}
		age()
		tree := openTree(t, dir, TreeOptions{IndexFile: file})
		n := known(tree)
		if want := i <= maxAge; want != (n == 2) {
			t.Fatalf("%d records after %d rewrites", n, i)
		}
		matchAll(t, tree)
	}
}

// Edited, replaced, new and removed files leave the index in the order of the files, so that the
// next build needs no table.
func TestIndexInOrder(t *testing.T) {
	dir := makeTree(t, "dir d\nfile d/a A\nfile d/b B\nfile d/c C\nfile d/e E\nfile z Z\n")
	file := filepath.Join(t.TempDir(), "index")
	age()
	matchAll(t, openTree(t, dir, TreeOptions{IndexFile: file}))
	for name, change := range map[string]func() error{
		"nothing":  func() error { return nil },
		"edited":   func() error { return rewrite(filepath.Join(dir, "d/b"), "b") },
		"replaced": func() error { return replace(filepath.Join(dir, "d/b"), "3") },
		"new": func() error {
			return os.WriteFile(filepath.Join(dir, "d/bb"), []byte("new"), 0o644)
		},
		"gone": func() error { return os.Remove(filepath.Join(dir, "d/c")) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		age()
		matchAll(t, openTree(t, dir, TreeOptions{IndexFile: file}))
		tree := openTree(t, dir, TreeOptions{IndexFile: file})
		got, want := matchAll(t, tree).Digest, matchAll(t, openTree(t, dir, TreeOptions{})).Digest
		if got != want {
			t.Errorf("%s: digest with an index %s, without %s", name, got, want)
		}
		if n := read(tree); n != 0 || tree.index.table != nil {
			t.Errorf("%s: %d files were read again, or a table was made", name, n)
		}
	}
}

// Several builds share an index, and several steps of a build a tree.
func TestIndexConcurrent(t *testing.T) {
	dir := makeTree(t, "dir d\n")
	for i := range 200 {
		if err := os.WriteFile(filepath.Join(dir, "d", fmt.Sprint(i)),
			fmt.Append(nil, i), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	age()
	file := filepath.Join(t.TempDir(), "index")
	want := matchAll(t, openTree(t, dir, TreeOptions{})).Digest
	var wg sync.WaitGroup
	for range 4 {
		tree := openTree(t, dir, TreeOptions{IndexFile: file})
		for k := range 4 {
			wg.Go(func() {
				q := Query{Patterns: []string{"."}}
				if k%2 == 1 {
					q.Patterns = []string{"d/1*"}
				}
				m, err := tree.Match(t.Context(), q)
				if err != nil || k%2 == 0 && m.Digest != want {
					t.Errorf("Match = %v, %v, want %s", m, err, want)
				}
			})
		}
	}
	wg.Wait()
	tree := openTree(t, dir, TreeOptions{IndexFile: file})
	matchAll(t, tree)
	if n := read(tree); n != 0 {
		t.Errorf("%d files were read again", n)
	}
}

func TestImmutable(t *testing.T) {
	dir := makeTree(t, "file a A\nfile b B\n")
	tree := openTree(t, dir, TreeOptions{Immutable: true})
	matchAll(t, tree)
	matchAll(t, tree)
	if n := read(tree); n != 2 {
		t.Errorf("%d files were read, want 2, each once", n)
	}
}
