package imageanalysis

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/image"
	"github.com/layerbuild/layerbuild/internal/imagetest"
	"github.com/layerbuild/layerbuild/internal/rounds"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestPruneRandomImages prunes images of random layers. A reader that shares no code with the
// program must find the same files afterwards, layers of the base must be unchanged, and entries
// must be in an order that every unpacker accepts.
func TestPruneRandomImages(t *testing.T) {
	rounds.Run(t, "prune-image", rounds.Options{Fixed: 100, Fresh: 20, Long: 5_000},
		func(t *testing.T, seed uint64) {
			g := &layerMaker{r: rand.New(rand.NewPCG(seed, 1)), files: map[string]byte{}}
			s, st, images := newImageStore(t)
			var layers [][]byte
			for range 1 + g.r.IntN(6) {
				layers = append(layers, g.layer(t))
			}
			root := s.layers(layers)
			if err := s.Tag(t.Context(), "app", root); err != nil {
				t.Fatal(err)
			}
			img, err := images.Resolve(t.Context(), "app", image.ResolveOptions{Any: true})
			if err != nil {
				t.Fatal(err)
			}
			before, err := Analyze(t.Context(), st, images, img, Options{Base: noBase})
			if err != nil {
				t.Fatal(err)
			}
			if total, live := s.count("app"); before.Total.Bytes != total ||
				before.Total.Live != live {
				t.Errorf("%d bytes, %d live; counted by hand %d, %d", before.Total.Bytes,
					before.Total.Live, total, live)
			}
			res, err := Prune(t.Context(), st, images, img, PruneOptions{Base: noBase})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Tag(t.Context(), "pruned", res.Manifest); err != nil {
				t.Fatal(err)
			}
			if total, live := s.count("pruned"); total != before.Total.Bytes-res.Bytes ||
				live != before.Total.Live {
				t.Errorf("%d bytes, %d live are left of %d, %d, of which %d went", total, live,
					before.Total.Bytes, before.Total.Live, res.Bytes)
			}
			want, got := s.tree("app"), s.tree("pruned")
			// A directory that was implied may be listed now.
			got = slices.DeleteFunc(got, func(line string) bool {
				return strings.HasPrefix(line, "dir ") && strings.HasSuffix(line, " 0755") &&
					!slices.Contains(want, line)
			})
			if !slices.Equal(got, want) {
				t.Errorf("pruned\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			s.orders("pruned")
			if t.Failed() {
				for i := range layers {
					for _, name := range []string{"app", "pruned"} {
						entries, err := s.open(name).Layer(i)
						t.Logf("%s, layer %d: %v\n%s", name, i, err, imagetest.Lines(entries))
					}
				}
			}
		})
}

// layers stores an image with tars as its layers.
func (s imageStore) layers(tars [][]byte) ocispec.Descriptor {
	s.t.Helper()
	c := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
		RootFS: ocispec.RootFS{Type: "layers"}}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest}
	for i, data := range tars {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digest.FromBytes(data))
		c.History = append(c.History, ocispec.History{CreatedBy: fmt.Sprint("RUN ", i)})
		m.Layers = append(m.Layers, s.blob(ocispec.MediaTypeImageLayer, data))
	}
	m.Config = s.json(ocispec.MediaTypeImageConfig, c)
	return s.json(m.MediaType, m)
}

func (s imageStore) open(name string) *imagetest.Image {
	s.t.Helper()
	img, err := imagetest.Open(filepath.Clean(s.Dir()), name)
	if err != nil {
		s.t.Fatal(err)
	}
	return img
}

func (s imageStore) tree(name string) (lines []string) {
	s.t.Helper()
	tree, err := s.open(name).Tree()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range tree {
		lines = append(lines, e.String())
	}
	return lines
}

// count returns the bytes of an image's files, and the bytes of visible files. It uses a plain
// algorithm: a map from each path to its visible file.
func (s imageStore) count(name string) (total, live int64) {
	s.t.Helper()
	img := s.open(name)
	shown := map[string]*int64{}
	drop := func(p string, self bool) {
		for q := range shown {
			if strings.HasPrefix(q, p+"/") || self && q == p {
				delete(shown, q)
			}
		}
	}
	for i := range img.Manifest.Layers {
		entries, err := img.Layer(i)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, e := range entries {
			if kind := e.Kind(); kind == "whiteout" || kind == "opaque" {
				drop(e.Name(), kind == "whiteout")
			}
		}
		for _, e := range entries {
			switch e.Kind() {
			case "whiteout", "opaque":
				continue
			case "dir":
				delete(shown, e.Path)
				continue
			case "hardlink":
				unit := shown[e.Header.Linkname]
				drop(e.Path, true)
				shown[e.Path] = unit
				continue
			}
			drop(e.Path, true)
			for d := path.Dir(e.Path); d != "."; d = path.Dir(d) {
				delete(shown, d) // it was not a directory before
			}
			size := int64(0)
			if e.Kind() == "file" {
				size = int64(len(e.Data))
			}
			total += size
			shown[e.Path] = &size
		}
	}
	seen := map[*int64]bool{}
	for _, unit := range shown {
		if !seen[unit] {
			seen[unit] = true
			live += *unit
		}
	}
	return total, live
}

// orders checks the order of entries in each layer of an image.
func (s imageStore) orders(name string) {
	s.t.Helper()
	img := s.open(name)
	for i := range img.Manifest.Layers {
		entries, err := img.Layer(i)
		if err != nil {
			s.t.Fatal(err)
		}
		at := map[string]int{}
		for k, e := range entries {
			if kind := e.Kind(); kind != "whiteout" && kind != "opaque" {
				at[e.Path] = k
			}
		}
		for k, e := range entries {
			marks := e.Kind() == "whiteout" || e.Kind() == "opaque" // these may come first
			if p, ok := at[path.Dir(e.Path)]; ok && p > k && !marks {
				s.t.Errorf("layer %d: %s comes before its directory", i, e.Path)
			}
			if p, ok := at[strings.Trim(e.Header.Linkname, "/")]; ok &&
				e.Kind() == "hardlink" && p > k {
				s.t.Errorf("layer %d: %s comes before %s", i, e.Path, e.Header.Linkname)
			}
			if p, ok := at[e.Name()]; ok && e.Kind() == "whiteout" && p < k {
				s.t.Errorf("layer %d: the whiteout of %s comes after its entry", i, e.Name())
			}
		}
	}
}

// layerMaker makes layers like a tool that changes a tree: it only links to, hides or replaces
// existing files.
type layerMaker struct {
	r     *rand.Rand
	files map[string]byte // the files of the tree, by their type flags
}

func (g *layerMaker) path() string {
	var parts []string
	for range 1 + g.r.IntN(3) {
		parts = append(parts, string(rune('a'+g.r.IntN(3))))
	}
	return strings.Join(parts, "/")
}

// drop removes a path and everything below it from files.
func (g *layerMaker) drop(p string) {
	for name := range g.files {
		if name == p || strings.HasPrefix(name, p+"/") {
			delete(g.files, name)
		}
	}
}

func (g *layerMaker) layer(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	put := func(h *tar.Header, data []byte) {
		h.Size = int64(len(data))
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	for range g.r.IntN(4) { // marks, which apply to the layers below
		p := g.path()
		switch {
		case g.files[p] == tar.TypeDir && g.r.IntN(2) == 0:
			put(&tar.Header{Typeflag: tar.TypeReg, Name: p + "/.wh..wh..opq"}, nil)
			g.drop(p)
			g.files[p] = tar.TypeDir
		case g.files[p] != 0 || g.r.IntN(8) == 0:
			put(&tar.Header{Typeflag: tar.TypeReg, Name: path.Dir(p) + "/.wh." + path.Base(p)}, nil)
			g.drop(p)
		}
	}
	listed := map[string]bool{}
	var here []string // files of this layer
	for range g.r.IntN(9) {
		p := g.path()
		if listed[p] || anyBelow(listed, p) || !g.parents(p, listed, put) {
			continue
		}
		listed[p] = true
		h := &tar.Header{Name: p, Mode: int64(0o600 + g.r.IntN(0o100)), Uid: g.r.IntN(2) * 1000,
			ModTime: time.Unix(int64(g.r.IntN(3)), 0)}
		if g.r.IntN(4) == 0 {
			h.PAXRecords = map[string]string{"SCHILY.xattr.user.x": fmt.Sprint(g.r.IntN(2))}
		}
		var data []byte
		switch n := g.r.IntN(12); {
		case n < 3:
			h.Typeflag = tar.TypeDir
			h.Name += "/"
		case n == 3:
			// to a path that no entry passes through
			h.Typeflag, h.Linkname = tar.TypeSymlink, []string{"nowhere", "/x"}[g.r.IntN(2)]
		case n == 4:
			h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, 1, 3
		case n == 5:
			h.Typeflag = tar.TypeFifo
		case n == 6 && len(here) > 0:
			h.Typeflag, h.Linkname, h.PAXRecords = tar.TypeLink, here[g.r.IntN(len(here))], nil
			if h.Linkname == p || g.files[h.Linkname] != tar.TypeReg {
				continue
			}
		case n == 7:
			g.take(p, tar.TypeReg)
			here = append(here, p)
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
			b.Write(sparseEntry(p, int64(1+g.r.IntN(3))<<16, []byte("tail")))
			continue
		default:
			h.Typeflag = tar.TypeReg
			data = bytes.Repeat([]byte{byte('0' + g.r.IntN(3))}, g.r.IntN(3)*700)
			here = append(here, p)
		}
		g.take(p, h.Typeflag)
		put(h, data)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// take records a file at a path.
func (g *layerMaker) take(p string, flag byte) {
	if flag != tar.TypeDir || g.files[p] != tar.TypeDir {
		g.drop(p)
	}
	if flag == tar.TypeLink {
		flag = tar.TypeReg
	}
	g.files[p] = flag
}

// parents makes the directories above a path, with entries for most of them. It returns false if
// this layer has another file there.
func (g *layerMaker) parents(p string, listed map[string]bool, put func(*tar.Header, []byte)) bool {
	var dirs []string
	for d := path.Dir(p); d != "."; d = path.Dir(d) {
		dirs = append(dirs, d)
		if g.files[d] != tar.TypeDir && listed[d] {
			return false
		}
	}
	for _, d := range slices.Backward(dirs) {
		if g.files[d] != tar.TypeDir || g.r.IntN(3) > 0 && !listed[d] && !anyBelow(listed, d) {
			if g.files[d] == 0 && g.r.IntN(3) == 0 {
				g.files[d] = tar.TypeDir // the directory is implied
				listed[d] = true
				continue
			}
			g.take(d, tar.TypeDir)
			listed[d] = true
			put(&tar.Header{Typeflag: tar.TypeDir, Name: d + "/", Mode: 0o755}, nil)
		}
	}
	return true
}

// anyBelow reports whether anything below a directory is listed.
func anyBelow(listed map[string]bool, dir string) bool {
	for p := range listed {
		if strings.HasPrefix(p, dir+"/") {
			return true
		}
	}
	return false
}

// sparseEntry returns an entry, in GNU's old format, for a sparse file with data at its end.
func sparseEntry(name string, size int64, data []byte) []byte {
	number := func(n int64) []byte {
		b := make([]byte, 12)
		b[0] = 0x80
		binary.BigEndian.PutUint64(b[4:], uint64(n))
		return b
	}
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	copy(h[124:], fmt.Sprintf("%011o\x00%011o\x00", len(data), 0))
	h[156] = tar.TypeGNUSparse
	copy(h[257:], "ustar  \x00")
	copy(h[386:], number(size-int64(len(data))))
	copy(h[398:], number(int64(len(data))))
	copy(h[483:], number(size))
	copy(h[148:], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	b := append(h, data...)
	return append(b, make([]byte, -len(b)&511)...)
}
