package source

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
	"github.com/layerbuild/layerbuild/internal/fstree"
)

// makeTree makes a directory from fstree's notation. It skips the test if the machine does not
// permit that.
func makeTree(t testing.TB, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := fstree.Make(dir, text); err != nil {
		if errors.Is(err, os.ErrPermission) {
			t.Skipf("make the tree: %v", err)
		}
		t.Fatal(err)
	}
	return dir
}

func openTree(t testing.TB, dir string, o TreeOptions) *Tree {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	tree, err := NewTree(f, o)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// show formats a Match: "target < path" for a file, "* < path: entries" for a directory's contents.
func show(m *Match) string {
	var b strings.Builder
	for _, it := range m.Items {
		if !it.Contents {
			b.WriteString(it.Target + " < " + it.Path + "\n")
			continue
		}
		b.WriteString("* < " + it.Path + ":")
		for e := range it.Entries.All() {
			b.WriteString(" " + e.Path)
		}
		b.WriteString("\n")
	}
	if len(m.Unmatched) > 0 {
		b.WriteString("unmatched: " + strings.Join(m.Unmatched, " ") + "\n")
	}
	return b.String()
}

const matchTree = `
file a.txt A
file b.txt B
file b.md B
dir d
file d/1.txt 1
file d/2.md 2
dir d/sub
file d/sub/3.txt 3
dir empty
dir dd
file dd/1.txt 1
file [x].txt X
file q?.txt Q
file back\\slash S
link l -> a.txt
link abs -> /d/1.txt
link up -> ../../../a.txt
link dirlink -> d
link dangling -> nowhere
link loop -> loop
link outside -> /etc/passwd
dir links
link links/in -> ../d/1.txt
link links/bad -> /nowhere
fifo pipe 0600
`

func TestMatch(t *testing.T) {
	dir := makeTree(t, strings.ReplaceAll(matchTree, `back\\slash`, `"back\\slash"`))
	tests := []struct {
		name     string
		patterns string
		exclude  string
		parents  bool
		want     string
		wantErr  string
	}{
		{name: "file", patterns: "a.txt", want: "a.txt < a.txt\n"},
		{name: "absolute", patterns: "/a.txt", want: "a.txt < a.txt\n"},
		{name: "dots stop at the root", patterns: "../../a.txt d/../b.txt",
			want: "a.txt < a.txt\nb.txt < b.txt\n"},
		{name: "slash behind a file", patterns: "a.txt/", want: "a.txt < a.txt\n"},
		{name: "directory", patterns: "d", want: "* < d: 1.txt 2.md sub sub/3.txt\n"},
		{name: "directory with slash", patterns: "d/ d/.",
			want: "* < d: 1.txt 2.md sub sub/3.txt\n* < d: 1.txt 2.md sub sub/3.txt\n"},
		{name: "empty directory", patterns: "empty", want: "* < empty:\n"},
		{name: "missing", patterns: "a.txt none", wantErr: `"/none": not found`},
		{name: "below a file", patterns: "a.txt/x", wantErr: `"/a.txt/x": not found`},
		{name: "fifo", patterns: "pipe", want: "pipe < pipe\n"},

		{name: "link", patterns: "l", want: "l < a.txt\n"},
		{name: "absolute link", patterns: "abs", want: "abs < d/1.txt\n"},
		{name: "link that goes up too far", patterns: "up", want: "up < a.txt\n"},
		{name: "link to a directory", patterns: "dirlink",
			want: "* < d: 1.txt 2.md sub sub/3.txt\n"},
		{name: "through a link", patterns: "dirlink/sub/3.txt", want: "3.txt < d/sub/3.txt\n"},
		{name: "dangling", patterns: "dangling",
			wantErr: `"/dangling": not found (it is a link to "nowhere", which does not exist)`},
		{name: "loop", patterns: "loop",
			wantErr: "resolve loop: too many levels of symbolic links"},
		{name: "link to the host", patterns: "outside",
			wantErr: `"/outside": not found (it is a link to "/etc/passwd", which does not exist)`},
		{name: "links inside stay", patterns: "links", want: "* < links: bad in\n"},

		{name: "star", patterns: "*.txt",
			want: "[x].txt < [x].txt\na.txt < a.txt\nb.txt < b.txt\nq?.txt < q?.txt\n"},
		{name: "question mark", patterns: "b.m?", want: "b.md < b.md\n"},
		{name: "class", patterns: "[ab].txt", want: "a.txt < a.txt\nb.txt < b.txt\n"},
		{name: "escaped bracket", patterns: "[[]x].txt", want: "[x].txt < [x].txt\n"},
		{name: "escaped question mark", patterns: `q\?.txt`, want: "q?.txt < q?.txt\n"},
		{name: "escape beside a wildcard", patterns: `q\?.t*`, want: "q?.txt < q?.txt\n"},
		{name: "backslash in a name", patterns: `back\slash`, want: "back\\slash < back\\slash\n"},
		{name: "directories", patterns: "d?", want: "* < dd: 1.txt\n"},
		{name: "middle", patterns: "d*/1.txt", want: "1.txt < d/1.txt\n1.txt < dd/1.txt\n"},
		{name: "middle and end", patterns: "*/s*/*.txt", want: "3.txt < d/sub/3.txt\n"},
		{name: "no link in the middle", patterns: "dirl*/1.txt", want: "unmatched: dirl*/1.txt\n"},
		{name: "link before", patterns: "dirlink/*.txt", want: "1.txt < d/1.txt\n"},
		{name: "matched link", patterns: "links/i*", want: "in < d/1.txt\n"},
		{name: "matched dangling link", patterns: "links/b*",
			wantErr: `"/links/bad": not found (it is a link to "/nowhere", which does not exist)`},
		{name: "nothing", patterns: "z* a.txt", want: "a.txt < a.txt\nunmatched: z*\n"},
		{name: "nothing at all", patterns: "z*", want: "unmatched: z*\n"},
		{name: "below what is not there", patterns: "none/*", want: "unmatched: none/*\n"},
		{name: "two stars are one", patterns: "**/3.txt", want: "unmatched: **/3.txt\n"},
		{name: "bad", patterns: "a[", wantErr: `source "a[": syntax error in pattern`},

		{name: "exclude", patterns: "d", exclude: "*.md", want: "* < d: 1.txt sub sub/3.txt\n"},
		{name: "exclude below", patterns: "d", exclude: "**/*.txt", want: "* < d: 2.md sub\n"},
		{name: "exclude a directory", patterns: "d", exclude: "sub", want: "* < d: 1.txt 2.md\n"},
		{name: "exclude but", patterns: "d", exclude: "* !sub/3.txt",
			want: "* < d: sub sub/3.txt\n"},
		{name: "exclude all", patterns: "d", exclude: "*", want: "* < d:\n"},
		{name: "exclude what was matched", patterns: "*.txt", exclude: "a* q*",
			want: "[x].txt < [x].txt\nb.txt < b.txt\n"},
		{name: "exclude what was named", patterns: "a.txt b.txt", exclude: "a.txt",
			want: "b.txt < b.txt\n"},
		{name: "exclude by path", patterns: "d/1.txt d/2.md", exclude: "d/*.md",
			want: "1.txt < d/1.txt\n"},

		{name: "parents", parents: true, patterns: "d/sub/3.txt",
			want: "* < .: d d/sub d/sub/3.txt\n"},
		{name: "parents of a directory", parents: true, patterns: "d/sub",
			want: "* < .: d d/sub d/sub/3.txt\n"},
		{name: "parents dot", parents: true, patterns: "./d/sub/.",
			want: "* < .: d d/sub d/sub/3.txt\n"},
		{name: "parents pivot", parents: true, patterns: "./d/./sub/3.txt",
			want: "* < d: sub sub/3.txt\n"},
		{name: "parents first pivot", parents: true, patterns: "/d/./sub/./3.txt",
			want: "* < d: sub sub/3.txt\n"},
		{name: "parents wildcard", parents: true, patterns: "d*/*.txt",
			want: "* < .: d d/1.txt dd dd/1.txt\n"},
		{name: "parents two stars", parents: true, patterns: "d/**/3.txt",
			want: "* < .: d d/sub d/sub/3.txt\n"},
		{name: "parents two stars for none", parents: true, patterns: "**/1.txt",
			want: "* < .: d d/1.txt dd dd/1.txt\n"},
		{name: "parents wildcard before the pivot", parents: true, patterns: "d*/./*.txt",
			want: "* < d: 1.txt\n* < dd: 1.txt\n* < d: 1.txt\n"},
		{name: "parents link", parents: true, patterns: "links/in",
			want: "* < .: links links/in\n"},
		{name: "parents pivot behind a link", parents: true, patterns: "dirlink/./sub/3.txt",
			want: "* < d: sub sub/3.txt\n"},
		{name: "parents of everything in", parents: true, patterns: "d/./",
			want: "* < d: 1.txt 2.md sub sub/3.txt\n"},
		{name: "parents exclude", parents: true, patterns: "d", exclude: "**/*.txt",
			want: "* < .: d d/2.md d/sub\n"},
		{name: "parents exclude all", parents: true, patterns: "a.txt",
			exclude: "a.txt", want: "* < .:\n"},
		{name: "parents missing", parents: true, patterns: "d/none",
			wantErr: `"/d/none": not found`},
		{name: "parents missing before the pivot", parents: true, patterns: "none/./*",
			wantErr: `"/none": not found`},
		{name: "parents nothing", parents: true, patterns: "d/z*",
			want: "* < .:\nunmatched: d/z*\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tree := openTree(t, dir, TreeOptions{})
			checkMatch(t, tree, Query{Patterns: strings.Fields(tt.patterns),
				Exclude: strings.Fields(tt.exclude), Parents: tt.parents}, tt.want, tt.wantErr)
		})
	}
}

// checkMatch compares what Match finds with a text in the notation of show, or its error.
func checkMatch(t *testing.T, tree *Tree, q Query, want, wantErr string) {
	t.Helper()
	m, err := tree.Match(t.Context(), q)
	if wantErr != "" {
		if err == nil || err.Error() != wantErr {
			t.Fatalf("Match error = %v, want %s", err, wantErr)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, show(m)); diff != "" {
		t.Errorf("Match (-want +got):\n%s", diff)
	}
}

func TestMatchIgnored(t *testing.T) {
	dir := makeTree(t, `
file a A
file b B
link to-b -> b
link c -> a
dir keep
file keep/x x
dir gone
file gone/x x
dir gone/back
file gone/back/y y
file gone/back/z z
dir dist
`)
	tests := []struct {
		name, ignore, patterns string
		parents                bool
		want, wantErr          string
	}{
		{name: "all", ignore: "b gone dist", patterns: ".", want: "* < .: a c keep keep/x to-b\n"},
		{name: "taken back", ignore: "gone !gone/back/y", patterns: ".",
			want: "* < .: a b c dist gone gone/back gone/back/y keep keep/x to-b\n"},
		{name: "taken back, directory named", ignore: "gone !gone/back/y", patterns: "gone",
			want: "* < gone: back back/y\n"},
		{name: "taken back, directory below named", ignore: "gone !gone/back/y",
			patterns: "gone/back", want: "* < gone/back: y\n"},
		{name: "taken back, matched", ignore: "gone !gone/back/y", patterns: "g*",
			want: "* < gone: back back/y\n"},
		{name: "file", ignore: "b", patterns: "b",
			wantErr: `"/b": not found (it is excluded by .dockerignore: b)`},
		{name: "the last pattern that counts", ignore: "* !b ?", patterns: "b",
			wantErr: `"/b": not found (it is excluded by .dockerignore: ?)`},
		{name: "link to it", ignore: "b", patterns: "to-b",
			wantErr: `"/to-b": not found (it is excluded by .dockerignore: b)`},
		{name: "link itself", ignore: "c", patterns: "c",
			wantErr: `"/c": not found (it is excluded by .dockerignore: c)`},
		{name: "in a directory", ignore: "gone", patterns: "gone/back/y",
			wantErr: `"/gone/back/y": not found (it is excluded by .dockerignore: gone)`},
		{name: "directory", ignore: "gone", patterns: "gone",
			wantErr: `"/gone": not found (it is excluded by .dockerignore: gone)`},
		{name: "empty directory", ignore: "dist", patterns: "dist",
			wantErr: `"/dist": not found (it is excluded by .dockerignore: dist)`},
		{name: "wildcard", ignore: "b", patterns: "?", want: "a < a\nc < a\n"},
		{name: "wildcard that only matches what is ignored", ignore: "b", patterns: "b*",
			want: "unmatched: b*\n"},
		{name: "wildcard below", ignore: "gone", patterns: "*/x", want: "x < keep/x\n"},
		{name: "parents", ignore: "gone !gone/back", patterns: "**/y", parents: true,
			want: "* < .: gone gone/back gone/back/y\n"},
		{name: "parents, ignored", ignore: "gone", patterns: "gone/x", parents: true,
			wantErr: `"/gone/x": not found (it is excluded by .dockerignore: gone)`},
		{name: "everything", ignore: "*", patterns: ".", want: "* < .:\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tree := openTree(t, dir, TreeOptions{Ignore: strings.Fields(tt.ignore)})
			checkMatch(t, tree, Query{Patterns: strings.Fields(tt.patterns), Parents: tt.parents},
				tt.want, tt.wantErr)
		})
	}
}

func TestMatchSkipsSockets(t *testing.T) {
	dir := makeTree(t, "dir d\nsocket d/s\nfile d/f\n")
	m, err := openTree(t, dir, TreeOptions{}).Match(t.Context(),
		Query{Patterns: []string{"d", "d/s", "d/*"}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := show(m), "* < d: f\nf < d/f\n"; got != want {
		t.Errorf("Match = %q, want %q", got, want)
	}
}

// digestOf returns the digest of all files in a tree made from text.
func digestOf(t *testing.T, text string, q Query) string {
	t.Helper()
	if q.Patterns == nil {
		q.Patterns = []string{"."}
	}
	m, err := openTree(t, makeTree(t, text), TreeOptions{}).Match(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return m.Digest.String()
}

func TestDigest(t *testing.T) {
	const base = "file f 0644 @100 hello\nlink l -> f\ndir d 0755\nfile d/g 0600 world\n"
	want := digestOf(t, base, Query{})
	if got := digestOf(t, strings.ReplaceAll(base, "@100", "@200"), Query{}); got != want {
		t.Error("the digest depends on times")
	}
	seen := map[string]string{want: "base"}
	for name, text := range map[string]string{
		"content":   strings.ReplaceAll(base, "hello", "hellO"),
		"mode":      strings.ReplaceAll(base, "0644", "0640"),
		"setuid":    strings.ReplaceAll(base, "0644", "4644"),
		"directory": strings.ReplaceAll(base, "0755", "0750"),
		"link":      strings.ReplaceAll(base, "-> f", "-> d"),
		"name":      strings.ReplaceAll(base, "d/g", "d/h"),
		"place":     strings.ReplaceAll(base, "d/g", "g"),
		"type":      strings.ReplaceAll(base, "file d/g 0600 world", "fifo d/g 0600"),
		"one more":  base + "dir e\n",
		"hard link": base + "hardlink h => f\n",
		"same file": base + "file h 0644 hello\n",
	} {
		got := digestOf(t, text, Query{})
		if other, ok := seen[got]; ok {
			t.Errorf("%s and %s have the same digest", name, other)
		}
		seen[got] = name
	}
	// The name of a file is part of the digest, but the path of the tree is not.
	if digestOf(t, base, Query{Patterns: []string{"f"}}) == digestOf(t, base,
		Query{Patterns: []string{"l"}}) {
		t.Error("the target's name is not in the digest")
	}
	if digestOf(t, "file f x", Query{Patterns: []string{"f"}}) != digestOf(t, "dir d\nfile d/f x",
		Query{Patterns: []string{"d/f"}}) {
		t.Error("the source's place is in the digest")
	}
}

func TestDigestXattrs(t *testing.T) {
	base := digestOf(t, "file f 0644 hello", Query{})
	one := digestOf(t, "file f 0644 [user.a=1] hello", Query{})
	two := digestOf(t, "file f 0644 [user.a=2] hello", Query{})
	dir := digestOf(t, "dir d 0755 [user.a=1]", Query{})
	if base == one || one == two {
		t.Error("a file's extended attributes are not in the digest")
	}
	if dir == digestOf(t, "dir d 0755", Query{}) {
		t.Error("a directory's extended attributes are not in the digest")
	}
}

func TestDigestOwners(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can make files of others")
	}
	a, b := "file f 0644 0:0 x", "file f 0644 7:8 x"
	if digestOf(t, a, Query{}) != digestOf(t, b, Query{}) {
		t.Error("owners are in the digest though they are not copied")
	}
	if digestOf(t, a, Query{KeepOwner: true}) == digestOf(t, b, Query{KeepOwner: true}) {
		t.Error("owners are not in the digest though they are copied")
	}
}

// The digest is part of cache keys: with another value for the same files, the next build of every
// user runs all steps.
func TestDigestGolden(t *testing.T) {
	got := digestOf(t, "dir d 0755\nfile d/f 0644 hello\nlink l -> d/f\nfifo p 0600\n", Query{})
	const want = "sha256:75793edad76f19e11ca0ac846f1b5ef011484fd4570059a0ce40b7908067c827"
	if got != want {
		t.Errorf("digest = %s, want %s", got, want)
	}
}

func TestUnreadable(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root reads everything")
	}
	dir := makeTree(t, "dir d\nfile d/secret 0000 x\ndir e\nfile e/x\n")
	if err := os.Chmod(filepath.Join(dir, "e"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(filepath.Join(dir, "e"), 0o700) })
	for _, name := range []string{"d", "e", "d/secret", "d/s*"} {
		_, err := openTree(t, dir, TreeOptions{}).Match(t.Context(),
			Query{Patterns: []string{name}})
		if !errors.Is(err, os.ErrPermission) ||
			!strings.Contains(err.Error(), strings.TrimSuffix(name, "*")) {
			t.Errorf("Match(%q) error = %v, want permission denied and the name", name, err)
		}
	}
	// Ignored files need not be readable.
	tree := openTree(t, dir, TreeOptions{Ignore: []string{"**/secret", "e"}})
	if _, err := tree.Match(t.Context(), Query{Patterns: []string{"."}}); err != nil {
		t.Error(err)
	}
}

// A fifo is never opened, even if it replaces a file that was found before.
func TestFifoDoesNotHang(t *testing.T) {
	dir := makeTree(t, "file f x\nfifo p\n")
	tree := openTree(t, dir, TreeOptions{})
	done := make(chan error, 1)
	go func() {
		_, err := tree.Match(context.Background(), Query{Patterns: []string{".", "p", "*"}})
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Match hangs")
	}

	tree = openTree(t, dir, TreeOptions{}) // it does not know the digest of f
	m, err := tree.newMatching(t.Context(), Query{})
	if err != nil {
		t.Fatal(err)
	}
	if err := dirfd.Lstat(tree.fd(), []byte("f\x00"), &m.st); err != nil {
		t.Fatal(err)
	}
	_, _, err = m.fileSum(tree.fd(), []byte("p\x00"), m)
	if err != errReplaced {
		t.Errorf("read a fifo for a file: %v, want an error", err)
	}
}

// No file outside a tree is read, even if links change while the tree is read.
func TestHostileLinks(t *testing.T) {
	outside := makeTree(t, "file secret TOP\n")
	dir := makeTree(t, "dir d\nfile d/secret fine\n")
	if err := os.Symlink(outside, filepath.Join(dir, "evil")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../../../../../../../../"+outside,
		filepath.Join(dir, "evil2")); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"evil", "evil/secret", "evil/*", "evil2/secret"} {
		m, err := openTree(t, dir, TreeOptions{}).Match(t.Context(), Query{Patterns: []string{p}})
		if err == nil && len(m.Items) > 0 || err != nil && !errors.Is(err, ErrNotFound) {
			t.Errorf("Match(%q) = %v, %v, want not found", p, m, err)
		}
	}

	// Swap a directory and a link that leads out, again and again, while the tree is read.
	stop := make(chan struct{})
	swapped := make(chan struct{})
	go func() {
		defer close(swapped)
		d, evil := filepath.Join(dir, "d"), filepath.Join(dir, "evil")
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, d, unix.AT_FDCWD, evil, unix.RENAME_EXCHANGE)
			}
		}
	}()
	fine := digestOf(t, "dir d\nfile d/secret fine\n", Query{Patterns: []string{"d/secret"}})
	for range 300 {
		m, err := openTree(t, dir, TreeOptions{}).Match(t.Context(),
			Query{Patterns: []string{"d/secret"}})
		if err == nil && m.Digest.String() != fine {
			t.Fatal("Match read a file outside the tree")
		}
	}
	close(stop)
	<-swapped
}

func TestMatchCancelled(t *testing.T) {
	dir := makeTree(t, "dir d\n")
	for i := range 600 {
		if err := os.WriteFile(filepath.Join(dir, "d", fmt.Sprintf("%0*d", i%200+10, i)),
			nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := openTree(t, dir, TreeOptions{}).Match(ctx,
		Query{Patterns: []string{"."}}); !errors.Is(err, context.Canceled) {
		t.Errorf("Match error = %v, want canceled", err)
	}
}
