package analyze

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// pruned removes dead bytes from the layers above the base.
func pruned(t fataler, base int, layers [][]byte) ([][]byte, *Pruning) {
	t.Helper()
	in := input(base, layers...)
	p, err := Plan(context.Background(), in.Layers, func(i int) bool { return i >= base })
	if err != nil {
		t.Fatal(err)
	}
	out := slices.Clone(layers)
	for i, drop := range p.Layers {
		if drop == nil {
			continue
		}
		if i < base {
			t.Fatal("a layer of the base changes")
		}
		var b bytes.Buffer
		if err := Rewrite(context.Background(), bytes.NewReader(layers[i]), drop,
			p.Dirs[i], &b); err != nil {
			t.Fatal(err)
		}
		out[i] = b.Bytes()
	}
	if err := Same(context.Background(), in.Layers, input(base, out...).Layers); err != nil {
		t.Fatal(err)
	}
	return out, p
}

// unpacked reads a layer with archive/tar, not with the reader of this program.
func unpacked(t fataler, layer []byte) (items []item) {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(layer)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return items
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		i := item{path: path.Clean(h.Name), mode: h.Mode, uid: h.Uid, time: h.ModTime.Unix(),
			xattr: h.PAXRecords["SCHILY.xattr.user.x"]}
		d, base := path.Split(i.path)
		switch name, marked := strings.CutPrefix(base, ".wh."); {
		case base == ".wh..wh..opq":
			i = item{kind: 'o', path: strings.TrimSuffix(d, "/")}
		case marked:
			i = item{kind: 'w', path: d + name}
		default:
			i.kind = map[byte]byte{tar.TypeReg: 'f', tar.TypeDir: 'd', tar.TypeLink: 'l',
				tar.TypeSymlink: 's', tar.TypeFifo: 'p'}[h.Typeflag]
			i.data = string(data)
			if i.kind == 'l' || i.kind == 's' {
				i.data = h.Linkname
			}
		}
		items = append(items, i)
	}
}

// flat returns the final tree of the naive count, one line per path, with a number for each group
// of hard links.
func flat(layers [][]item) []string {
	n := &naive{now: map[string]*naiveFile{}}
	for k, items := range layers {
		n.layer(k, items)
	}
	paths := make([]string, 0, len(n.now))
	for p := range n.now {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	groups := map[*naiveUnit]int{}
	var lines []string
	for _, p := range paths {
		f := n.now[p]
		if f.unit != nil && groups[f.unit] == 0 {
			groups[f.unit] = len(groups) + 1
		}
		i := f.item
		lines = append(lines, fmt.Sprintf("%s %c %04o %d %d %q %q %d", p, i.kind, i.mode, i.uid,
			i.time, i.data, i.xattr, groups[f.unit]))
	}
	return lines
}

// TestPruneChangesNothing checks that removing the dead bytes of random images leaves their file
// systems unchanged, and that no dead bytes remain.
func TestPruneChangesNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		layers := drawImage(rt)
		base := rapid.IntRange(0, len(layers)).Draw(rt, "base")
		var packed [][]byte
		for _, items := range layers {
			packed = append(packed, pack(t, items))
		}
		before := analyzed(rt, base, packed...)
		out, p := pruned(rt, base, packed)
		var again [][]item
		for _, layer := range out {
			again = append(again, unpacked(rt, layer))
		}
		if got, want := flat(again), flat(layers); !slices.Equal(got, want) {
			rt.Fatalf("pruned\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		for i := range out {
			if err := disorder(again[i]); err != "" && disorder(layers[i]) == "" {
				rt.Fatalf("layer %d: %s", i, err)
			}
		}
		after := analyzed(rt, base, out...)
		if before.Total.Live != after.Total.Live || before.Total.Dead-after.Total.Dead != p.Bytes {
			rt.Fatalf("before %+v, after %+v, %d bytes said to go", before.Total,
				after.Total, p.Bytes)
		}
		for i, l := range after.Layers {
			if i >= base && l.Dead > 0 && !replacesDirectory(layers) {
				rt.Fatalf("layer %d has %d dead bytes left", i, l.Dead)
			}
		}
		if _, second := pruned(rt, base, out); second.Bytes > 0 && !replacesDirectory(layers) {
			rt.Fatalf("a second time %d bytes more go", second.Bytes)
		}
	})
}

// disorder describes the first order of entries that some unpackers refuse, or "" if there is none:
// an entry before its parent directory, a hard link before its target, or a whiteout after an entry
// of the same name.
func disorder(items []item) string {
	at := map[string]int{}
	for k, i := range items {
		if i.kind != 'w' && i.kind != 'o' {
			at[i.path] = k
		}
	}
	for k, i := range items {
		if p, ok := at[path.Dir(i.path)]; ok && p > k {
			return i.path + " comes before its directory"
		}
		if p, ok := at[i.data]; i.kind == 'l' && ok && p > k {
			return i.path + " comes before " + i.data
		}
		if p, ok := at[i.path]; i.kind == 'w' && ok && p < k {
			return "the whiteout of " + i.path + " comes after its entry"
		}
	}
	return ""
}

// replacesDirectory reports whether a file that is not a directory may have replaced a directory
// and was replaced by one again. Such files are not pruned.
func replacesDirectory(layers [][]item) bool {
	kinds := map[string]string{}
	for _, items := range layers {
		for _, i := range items {
			for _, d := range above(i.path) {
				kinds[d] += "d"
			}
			kinds[i.path] += string(i.kind)
		}
	}
	for _, k := range kinds {
		if strings.Contains(k, "d") && strings.ContainsAny(k, "flp") {
			return true
		}
	}
	return false
}

func lines(items []item) (list []string) {
	for _, i := range items {
		list = append(list, fmt.Sprintf("%c %s", i.kind, i.path))
	}
	return list
}

func TestPrune(t *testing.T) {
	for _, c := range []struct {
		name   string
		base   int
		layers [][]item
		want   []string // one string per layer, its entries joined by commas
	}{
		{
			"what was deleted goes, and the whiteout with it", 0,
			[][]item{{file("a", "aaa"), file("b", "b")}, {whiteout("a")}},
			[]string{"f b", ""},
		},
		{
			"a whiteout of what the base has stays", 1,
			[][]item{{file("a", "aaa")}, {whiteout("a"), whiteout("never")}, {file("c", "c")}},
			[]string{"f a", "w a", "f c"},
		},
		{
			"a deleted directory goes whole", 0,
			[][]item{{dir("d"), file("d/x", "x"), symlink("d/s", "x"), link("d/y", "d/x")},
				{whiteout("d")}},
			[]string{"", ""},
		},
		{
			"the names of a live file stay, and so does what hides one", 0,
			[][]item{{file("a", "a"), link("b", "a")}, {whiteout("a")}},
			[]string{"f a,l b", "w a"},
		},
		{
			"chmod", 0,
			[][]item{{dir("d"), file("d/a", "a")}, {dir("d"), file("d/a", "a").chmod(0o755)}},
			[]string{"d d", "d d,f d/a"},
		},
		{
			"a file that stood for a while where a directory is", 1,
			[][]item{{dir("d"), file("d/x", "x")}, {file("d", "ddd")},
				{dir("d"), file("d/y", "y")}},
			[]string{"d d,f d/x", "f d", "d d,f d/y"},
		},
		{
			"a directory above a later entry that stays", 0,
			[][]item{{dir("d"), dir("d/e"), file("x", "x")},
				{dir("d/e/f"), file("d/e/f/a", "a"), link("keep", "d/e/f/a")}, {whiteout("d/e")}},
			[]string{"d d,d d/e,f x", "d d/e/f,f d/e/f/a,l keep", "w d/e"},
		},
		{
			"an opaque mark over the base stays", 1,
			[][]item{{dir("d"), file("d/x", "x")}, {dir("d"), opaque("d"), file("d/y", "y")},
				{dir("d"), opaque("d"), file("d/z", "z")}},
			[]string{"d d,f d/x", "d d,o d", "d d,f d/z"},
		},
		{
			"directories that only removed entries name come after their parents", 0,
			[][]item{{file("a/b/c/x", "x"), dir("a"), file("z", "z"), file("k/l/y", "y")},
				{whiteout("a/b/c/x"), whiteout("k/l/y")}},
			[]string{"d a,f z,d a/b,d a/b/c,d k,d k/l", ""},
		},
		{
			"a directory that only removed entries name comes after its whiteout", 1,
			[][]item{{file("d", "base")}, {whiteout("d"), file("d/x", "x")}, {whiteout("d/x")}},
			[]string{"f d", "w d,d d", ""},
		},
		{
			"a link in the path of a kept entry stays", 0,
			[][]item{{dir("usr"), dir("usr/lib"), symlink("lib", "usr/lib")},
				{file("lib/a", "a")}, {whiteout("lib")}},
			[]string{"d usr,d usr/lib,s lib", "f lib/a", "w lib"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var layers [][]byte
			for _, items := range c.layers {
				layers = append(layers, pack(t, items))
			}
			out, _ := pruned(t, c.base, layers)
			for i, layer := range out {
				if got := strings.Join(lines(unpacked(t, layer)), ","); got != c.want[i] {
					t.Errorf("layer %d: %q, want %q", i, got, c.want[i])
				}
			}
		})
	}
}

// TestMarkThroughLink checks that a mark below a link of its own layer is refused, because its
// effect depends on the order of the entries. A link of a lower layer is followed, and a mark
// before the link applies to the lower layers.
func TestMarkThroughLink(t *testing.T) {
	below := []item{dir("d"), file("d/gone", "x"), file("d/kept", "y")}
	for _, tt := range []struct {
		name   string
		layers [][]item
		fails  bool
	}{
		{"a whiteout", [][]item{below, {symlink("a", "/d"), whiteout("a/gone")}}, true},
		{"an opaque mark", [][]item{below, {symlink("a", "/d"), opaque("a")}}, true},
		{"a whiteout deeper", [][]item{{dir("d"), dir("d/e"), file("d/e/f", "x")},
			{symlink("a", "d"), whiteout("a/e/f")}}, true},
		{"a link of a lower layer", [][]item{append(slices.Clone(below), symlink("a", "/d")),
			{whiteout("a/gone")}}, false},
		{"a mark before the link", [][]item{append(slices.Clone(below), dir("a"),
			file("a/gone", "z")), {opaque("a"), symlink("a", "/d")}}, false},
		{"a whiteout beside the link", [][]item{below, {symlink("a", "/d"), whiteout("d/gone")}},
			false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var layers [][]byte
			for _, l := range tt.layers {
				layers = append(layers, pack(t, l))
			}
			_, err := Plan(t.Context(), input(0, layers...).Layers, func(int) bool { return true })
			if (err != nil) != tt.fails || err != nil &&
				!strings.Contains(err.Error(), "symbolic link") {
				t.Errorf("Plan: error %v, want one: %v", err, tt.fails)
			}
		})
	}
}

// TestLinkToRemoved checks that a layer with a hard link to a file that a mark of the same layer
// removes is an error: the result depends on the order in which an unpacker handles them.
func TestLinkToRemoved(t *testing.T) {
	below := pack(t, []item{dir("d"), file("d/f", "f")})
	for name, layer := range map[string][]item{
		"a whiteout of the file":      {whiteout("d/f"), link("keep", "d/f")},
		"a whiteout of its directory": {link("keep", "d/f"), whiteout("d")},
		"an opaque mark":              {opaque("d"), link("keep", "d/f")},
	} {
		_, err := Image(t.Context(), input(0, below, pack(t, layer)))
		if err == nil || !strings.Contains(err.Error(),
			"/keep is a hard link to /d/f, which a mark") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	both := []item{whiteout("d"), dir("d"), file("d/f", "new"), link("keep", "d/f")}
	if _, err := Image(t.Context(), input(0, below, pack(t, both))); err != nil {
		t.Errorf("the target is in the layer too: %v", err)
	}
}
