package analyze

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestCases compares reports of small images with waste that was computed by hand. docs/WASTE.md
// explains the computation.
func TestCases(t *testing.T) {
	ten := size('x', 10*mb)
	for _, c := range []struct {
		name        string
		base        int
		layers      [][]item
		total, dead int64
		own         int64    // dead bytes that are not the base's
		findings    []string // path bytes units reason creator>killer
		duplicates  int64
	}{
		{
			name: "rm -rf of a directory",
			layers: [][]item{{dir("d"), file("d/a", size('a', 3*mb)), file("d/b", size('b', 2*mb)),
				dir("d/e"), file("d/e/c", size('c', mb)), file("kept", "1")}, {whiteout("d")}},
			total: 6*mb + 1, dead: 6 * mb, own: 6 * mb,
			findings: []string{"/d/ 6291456 3 deleted 0>1"},
		},
		{
			name: "rm -rf of a directory deeper down",
			layers: [][]item{{file("usr/s/d/a", size('a', 3*mb)),
				file("usr/s/d/b", size('b', 2*mb))}, {whiteout("usr/s/d")}},
			total: 5 * mb, dead: 5 * mb, own: 5 * mb,
			findings: []string{"/usr/s/d/ 5242880 2 deleted 0>1"},
		},
		{
			name: "an opaque directory",
			layers: [][]item{{dir("v/d"), file("v/d/a", size('a', 4*mb)),
				file("v/d/b", size('b', mb))}, {dir("v/d"), opaque("v/d"),
				file("v/d/new", size('n', mb))}},
			total: 6 * mb, dead: 5 * mb, own: 5 * mb,
			findings: []string{"/v/d/ 5242880 2 hidden-by-opaque 0>1"},
		},
		{
			name: "an opaque mark after the layer's own file",
			layers: [][]item{{file("v/d/a", size('a', 4*mb))},
				{dir("v/d"), file("v/d/new", size('n', mb)), opaque("v/d")}},
			total: 5 * mb, dead: 4 * mb, own: 4 * mb,
			findings: []string{"/v/d/a 4194304 1 hidden-by-opaque 0>1"},
		},
		{
			name: "a directory replaced by a file",
			layers: [][]item{{dir("v/d"), file("v/d/a", size('a', 4*mb)),
				file("v/d/b", size('b', mb))}, {file("v/d", "now a file")}},
			total: 5*mb + 10, dead: 5 * mb, own: 5 * mb,
			findings: []string{"/v/d/ 5242880 2 directory-replaced 0>1"},
		},
		{
			name: "a directory replaced by a file, with a whiteout beside it",
			layers: [][]item{{dir("v/d"), file("v/d/a", size('a', 4*mb))},
				{whiteout("v/d"), file("v/d", "now a file")}},
			total: 4*mb + 10, dead: 4 * mb, own: 4 * mb,
			findings: []string{"/v/d/a 4194304 1 directory-replaced 0>1"},
		},
		{
			name: "a whiteout of an unknown path before a real one",
			layers: [][]item{{file("a", size('a', 2*mb)), file("b", size('b', mb))},
				{whiteout("0/never"), whiteout("never"), whiteout("a")}},
			total: 3 * mb, dead: 2 * mb, own: 2 * mb,
			findings: []string{"/a 2097152 1 deleted 0>1"},
		},
		{
			name:   "rm of one file",
			layers: [][]item{{file("a", ten), file("b", "1")}, {whiteout("a")}},
			total:  10*mb + 1, dead: 10 * mb, own: 10 * mb,
			findings: []string{"/a 10485760 1 deleted 0>1"},
		},
		{
			name:   "chmod of a 10 MB file",
			layers: [][]item{{file("a", ten)}, {file("a", ten).chmod(0o755)}},
			total:  20 * mb, dead: 10 * mb, own: 10 * mb,
			findings: []string{"/a 10485760 1 rewritten-metadata 0>1"},
		},
		{
			name:   "a copied-up hard link",
			layers: [][]item{{file("a", ten), link("b", "a")}, {file("a", ten).chmod(0o600)}},
			total:  20 * mb, dead: 0, // b keeps the content visible that the first layer has
			duplicates: 10 * mb,
		},
		{
			name:   "both names of a link group",
			layers: [][]item{{file("a", ten), link("b", "a")}, {whiteout("a")}, {whiteout("b")}},
			total:  10 * mb, dead: 10 * mb, own: 10 * mb,
			findings: []string{"/a 10485760 1 deleted 0>2"},
		},
		{
			name:   "rm, then the same file again",
			layers: [][]item{{file("a", ten)}, {whiteout("a")}, {file("a", ten)}},
			total:  20 * mb, dead: 10 * mb, own: 10 * mb,
			findings: []string{"/a 10485760 1 deleted 0>1"},
		},
		{
			name:   "rm and the same file again in one layer",
			layers: [][]item{{file("a", ten)}, {whiteout("a"), file("a", ten)}},
			total:  20 * mb, dead: 10 * mb, own: 10 * mb,
			findings: []string{"/a 10485760 1 rewritten-unchanged 0>1"},
		},
		{
			name:   "touch",
			layers: [][]item{{file("a", ten)}, {file("a", ten).at(1)}},
			total:  20 * mb, dead: 10 * mb, own: 10 * mb,
			findings: []string{"/a 10485760 1 rewritten-time 0>1"},
		},
		{
			name:   "setfattr",
			layers: [][]item{{file("a", ten)}, {file("a", ten).at(1).attr("v")}},
			total:  20 * mb, dead: 10 * mb, own: 10 * mb,
			findings: []string{"/a 10485760 1 rewritten-metadata 0>1"},
		},
		{
			name:   "a file grown from 1 byte to 10 MB",
			layers: [][]item{{file("a", "1")}, {file("a", ten)}},
			total:  10*mb + 1, dead: 1, own: 1,
			findings: []string{"/a 1 1 overwritten 0>1"},
		},
		{
			name:   "a file shrunk from 10 MB to 1 byte",
			layers: [][]item{{file("a", ten)}, {file("a", "1")}},
			total:  10*mb + 1, dead: 10 * mb, own: 10 * mb,
			findings: []string{"/a 10485760 1 overwritten 0>1"},
		},
		{
			name: "three copies of one path in three layers",
			layers: [][]item{{file("a", size('a', 3*mb))}, {file("a", size('b', 2*mb))},
				{file("a", size('c', mb))}},
			total: 6 * mb, dead: 5 * mb, own: 5 * mb,
			findings: []string{"/a 3145728 1 overwritten 0>1", "/a 2097152 1 overwritten 1>2"},
		},
		{
			name: "waste only inside a two-layer base", base: 2,
			layers: [][]item{{file("a", ten)}, {whiteout("a")}, {file("b", "1")}},
			total:  10*mb + 1, dead: 10 * mb, own: 0,
			findings: []string{"/a 10485760 1 deleted 0>1"},
		},
		{
			name: "what the base has, removed above", base: 1,
			layers: [][]item{{file("a", ten)}, {whiteout("a")}},
			total:  10 * mb, dead: 10 * mb, own: 0,
			findings: []string{"/a 10485760 1 deleted 0>1"},
		},
		{
			name:   "the same bytes at two live paths",
			layers: [][]item{{file("a", ten)}, {file("b", ten)}},
			total:  20 * mb, dead: 0,
			duplicates: 10 * mb,
		},
		{
			name:   "a path twice in one layer",
			layers: [][]item{{file("a", size('a', 2*mb)), file("a", size('b', mb))}},
			total:  3 * mb, dead: 2 * mb, own: 2 * mb,
			findings: []string{"/a 2097152 1 overwritten 0>0"},
		},
		{
			name: "through a link to a directory",
			layers: [][]item{{dir("usr/lib"), file("usr/lib/a", size('a', mb)),
				symlink("lib", "usr/lib")}, {file("lib/a", size('b', mb))}},
			total: 2 * mb, dead: mb, own: mb,
			findings: []string{"/usr/lib/a 1048576 1 overwritten 0>1"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var layers [][]byte
			for _, items := range c.layers {
				layers = append(layers, pack(t, items))
			}
			r := analyzed(t, c.base, layers...)
			if r.Total.Bytes != c.total || r.Total.Dead != c.dead || r.Own().Dead != c.own ||
				r.DuplicateBytes != c.duplicates {
				t.Errorf("total %d, dead %d, own %d, duplicates %d; want %d, %d, %d, %d",
					r.Total.Bytes, r.Total.Dead, r.Own().Dead, r.DuplicateBytes, c.total,
					c.dead, c.own, c.duplicates)
			}
			var got []string
			for _, f := range r.Findings {
				got = append(got, fmt.Sprintf("%s %d %d %s %d>%d", f.Path, f.Bytes, f.Units,
					f.Reason, f.Creator, f.Killer))
			}
			if !slices.Equal(got, c.findings) {
				t.Errorf("findings\n%s\nwant\n%s", strings.Join(got, "\n"),
					strings.Join(c.findings, "\n"))
			}
		})
	}
}
