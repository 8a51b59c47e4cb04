package source

import (
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/layerbuild/layerbuild/internal/fstree"
	"github.com/layerbuild/layerbuild/internal/pattern"
)

func TestReadIgnore(t *testing.T) {
	const text = "\ufeff# comment\n\n  a/b/../c  \n/abs/path\n! /back\n" +
		" #not a comment\n**/*.go/\n.\n"
	got, err := ReadIgnore(".dockerignore", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"a/c", "abs/path", "!back", "#not a comment", "**/*.go", "."}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ReadIgnore (-want +got):\n%s", diff)
	}
	for text, want := range map[string]string{
		"a\n[":    `read .dockerignore: pattern "[": syntax error in pattern`,
		"!":       `read .dockerignore: illegal exclusion pattern: "!"`,
		"a\x00":   `read .dockerignore: pattern "a\x00": no name has a zero byte in it (is the file UTF-16?)`,
		"a\n !  ": `read .dockerignore: illegal exclusion pattern: "!"`,
	} {
		if _, err := ReadIgnore(".dockerignore", strings.NewReader(text)); err == nil ||
			err.Error() != want {
			t.Errorf("ReadIgnore(%q) error = %v, want %s", text, err, want)
		}
	}
}

// TestIgnore checks each rule of the documentation of ignore files
// (https://docs.docker.com/build/concepts/context/#dockerignore-files), and further cases.
func TestIgnore(t *testing.T) {
	tree := strings.Fields(`README.md README-secret.md temp tempa tempo.txt a/temp1/x a/b/temp2 a/tempfile a/b/c/temp3
		foo/bar bar/foo/bar x.go a/x.go a/b/x.go dir/f dir/sub/f node_modules/p/index.js node_modules/.keep Dockerfile .dockerignore
		.git/config src/main.c src/main.o src/lib/a.o docs/a.md docs/b/README.md name[1].txt`)
	tests := []struct {
		name, ignore string
		gone         string // names, or prefixes ending in a slash
	}{
		{"nothing", "", ""},
		{"one level down", "*/temp*", "a/temp1/ a/tempfile"},
		{"two levels down", "*/*/temp*", "a/b/temp2"},
		{"question mark", "temp?", "tempa"},
		{"leading slash is nothing", "/foo/bar", "foo/bar"},
		{"no slash is not any level", "foo/bar", "foo/bar"},
		{"star at one level", "*.go", "x.go"},
		{"two stars at any level", "**/*.go", "x.go a/x.go a/b/x.go"},
		{"two stars in the middle", "a/**/x.go", "a/x.go a/b/x.go"},
		{"two stars at the end", "dir/**", "dir/f dir/sub/"},
		{"directory", "dir", "dir/"},
		{"directory with slash", "dir/", "dir/"},
		{"dots", "a/../dir/./sub", "dir/sub/"},
		{"exception", "*.md\n!README.md", "README-secret.md"},
		{"exceptions in order", "*.md\n!README*.md\nREADME-secret.md", "README-secret.md"},
		{"exceptions in another order", "*.md\nREADME-secret.md\n!README*.md", ""},
		{"exception of a directory", "*\n!dir",
			"README.md README-secret.md temp tempa tempo.txt a/ foo/ bar/ x.go node_modules/ Dockerfile .dockerignore .git/ src/ docs/ name[1].txt"},
		{"exception below", "node_modules\n!node_modules/.keep", "node_modules/p/"},
		{"exception with two stars", "docs\n!**/README.md", "docs/a.md"},
		{"exception with a directory ignored again", "dir\n!dir/sub\ndir/sub/f", "dir/f dir/sub/f"},
		{"everything but", "**\n!src/**/*.c",
			"README.md README-secret.md temp tempa tempo.txt a/ foo/ bar/ x.go dir/ node_modules/ Dockerfile .dockerignore .git/ src/main.o src/lib/ docs/ name[1].txt"},
		{"build files", "Dockerfile\n.dockerignore\n.git", "Dockerfile .dockerignore .git/"},
		{"class", "tem[a-p]", "temp"},
		{"negated class", "temp[^b-z]", "tempa"},
		{"escaped", `name\[1].txt`, "name[1].txt"},
		{"the root cannot be ignored", ".", ""},
		{"outside", "../x.go\n..", ""},
		{"case counts", "readme.md", ""},
		{"dot is a dot", "xxgo\nx.g", ""},
	}
	var text strings.Builder
	for _, name := range tree {
		text.WriteString("file " + name + " x\n")
	}
	dir := makeTree(t, text.String())
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			lines, err := ReadIgnore("x", strings.NewReader(tt.ignore))
			if err != nil {
				t.Fatal(err)
			}
			gone := strings.Fields(tt.gone)
			want := slices.DeleteFunc(slices.Clone(tree), func(name string) bool {
				return slices.ContainsFunc(gone, func(g string) bool {
					return name == g || strings.HasSuffix(g, "/") && strings.HasPrefix(name, g)
				})
			})
			slices.Sort(want)
			got := filesIn(t, openTree(t, dir, TreeOptions{Ignore: lines}))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("kept (-want +got):\n%s", diff)
			}
		})
	}
}

// filesIn lists the files of a tree, without directories.
func filesIn(t *testing.T, tree *Tree) []string {
	t.Helper()
	m, err := tree.Match(t.Context(), Query{Patterns: []string{"."}})
	if err != nil {
		t.Fatal(err)
	}
	files := []string{}
	for e := range m.Items[0].Entries.All() {
		if e.Mode&0o170000 != 0o040000 {
			files = append(files, e.Path)
		}
	}
	slices.Sort(files)
	return files
}

// fuzzTree is the tree for the patterns of FuzzIgnore.
const fuzzTree = "file a/a/a x\nfile a/a/b x\nfile a/b x\nfile a/.c x\nfile b/a/c/d x\nfile b/ab x\nfile c x\nfile ab x\nfile a.b x\n" +
	"file é/ü x\nfile \"[\" x\nfile \"a b\" x\nlink l -> a\ndir e/e\n"

// FuzzIgnore compares the walk, which skips whole directories, with matching each single name.
func FuzzIgnore(f *testing.F) {
	for _, s := range []string{
		"a", "*", "**", "a/**\n!a/b", "*\n!b/a/c", "**/a\n!**/b", "!a\na", "a*\n!a?", "[ab]", "\\[",
		"a\n!a/a\na/a/b", "**/*.b\n!a.b", "b/*/c\n!b/a/c/d",
		"é", "?/?", "a b", "*\n!*/*\n*/a", "**/c/**", "e/*", "a**b", "!**", "*\n!a\n!/b/",
		"**/a/**/b\n", "*/**\n!**/d", "[^a]/**\n![b]/**",
	} {
		f.Add(s)
	}
	dir := f.TempDir()
	if err := fstree.Make(dir, fuzzTree); err != nil {
		f.Fatal(err)
	}
	var names []string
	if err := filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
		if rel, _ := filepath.Rel(dir, name); rel != "." {
			names = append(names, rel)
		}
		return err
	}); err != nil {
		f.Fatal(err)
	}
	root, err := os.Open(dir)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		lines, err := ReadIgnore("x", strings.NewReader(text))
		if err != nil {
			return
		}
		tree, err := NewTree(root, TreeOptions{Ignore: lines})
		if err != nil {
			t.Fatal(err)
		}
		m, err := tree.Match(t.Context(), Query{Patterns: []string{"."}})
		if err != nil {
			t.Fatal(err)
		}
		got := []string{}
		for e := range m.Items[0].Entries.All() {
			got = append(got, e.Path)
		}
		slices.Sort(got)
		want := naive(t, lines, names)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", lines, diff)
		}
		for _, name := range names {
			if !selectedByAny(t, lines, name) && !slices.Contains(got, name) {
				t.Errorf("%q: %s is not in the tree though no pattern matches it or a directory "+
					"it is in", lines, name)
			}
		}
	})
}

// naive matches each name separately, and returns the names that are not selected, with their
// directories.
func naive(t *testing.T, lines, names []string) []string {
	t.Helper()
	m, err := pattern.New(lines)
	if err != nil {
		t.Fatal(err)
	}
	if m == nil {
		return slices.Sorted(slices.Values(names))
	}
	keep := map[string]bool{}
	for _, name := range names {
		gone, _ := m.Path(name)
		for p := name; !gone && p != "."; p = path.Dir(p) {
			keep[p] = true
		}
	}
	return slices.AppendSeq([]string{}, slices.Values(slices.Sorted(maps.Keys(keep))))
}

// selectedByAny reports whether any pattern, taken alone, matches name or a directory that contains
// it.
func selectedByAny(t *testing.T, lines []string, name string) bool {
	t.Helper()
	for _, l := range lines {
		if strings.HasPrefix(l, "!") {
			continue
		}
		m, err := pattern.New([]string{l})
		if err != nil {
			t.Fatal(err)
		}
		if ok, _ := m.Path(name); ok {
			return true
		}
	}
	return false
}

// FuzzMatch checks that Match does not panic and finds only files of the tree.
func FuzzMatch(f *testing.F) {
	for _, s := range []string{"a", "*", "a/*", "../*", "[a-c]", "a/./b", "**/d", "\\*", "é/*",
		"l/a", "/", "", ".", "a/../b", "*/*/*", "[", "a\x00b", "!a"} {
		f.Add(s, false, "")
		f.Add(s, true, "a/b")
	}
	dir := f.TempDir()
	if err := fstree.Make(dir, fuzzTree+
		"link evil -> ../../../../../../etc\nlink loop -> loop\n"); err != nil {
		f.Fatal(err)
	}
	root, err := os.Open(dir)
	if err != nil {
		f.Fatal(err)
	}
	tree, err := NewTree(root, TreeOptions{Immutable: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, pattern string, parents bool, exclude string) {
		q := Query{Patterns: []string{pattern}, Parents: parents, Exclude: []string{exclude}}
		m, err := tree.Match(t.Context(), q)
		if err != nil {
			return
		}
		for _, it := range m.Items {
			for e := range it.Entries.All() {
				p := path.Join(it.Path, e.Path)
				info, err := os.Lstat(filepath.Join(dir, p))
				if err != nil || !fs.ValidPath(p) {
					t.Errorf("Match(%+v) found %q: %v", q, p, err)
				} else if info.Mode().IsRegular() && info.Size() != e.Size {
					t.Errorf("Match(%+v): %q has %d bytes, want %d", q, p, e.Size, info.Size())
				}
			}
			if strings.Contains(it.Target, "/") || it.Target == ".." || it.Target == "." {
				t.Errorf("Match(%+v): target %q", q, it.Target)
			}
		}
		again, err := tree.Match(t.Context(), q)
		if err != nil || again.Digest != m.Digest {
			t.Errorf("Match(%+v) again = %v, %v, want the same digest", q, again, err)
		}
	})
}
