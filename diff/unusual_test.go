package diff

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/fstree"
	"github.com/layerbuild/layerbuild/internal/rounds"
)

// TestUnusualLayers makes layers as no builder writes them: names without entries for their
// directories, whiteouts below files, in new directories and beside entries of the same name, in
// any order. Each is unpacked twice on the layers below it: into a directory of its own that is
// mounted over theirs, and in place. Both show the same files.
func TestUnusualLayers(t *testing.T) {
	needRoot(t)
	rounds.Run(t, "unusual-layers", rounds.Options{Fixed: 300, Fresh: 100, Long: 20_000},
		func(t *testing.T, seed uint64) {
			r := rand.New(rand.NewPCG(seed, 0))
			var list [][]tar.Header
			for range 2 + r.IntN(2) {
				list = append(list, unusualLayer(r, 1+r.IntN(6*(1+2*int(seed%2)))))
			}
			compareUnusual(t, list)
		})
}

// unusualLayer returns n random entries.
func unusualLayer(r *rand.Rand, n int) []tar.Header {
	var list []tar.Header
	for i := range n {
		parts := make([]string, 1+r.IntN(4))
		for j := range parts {
			parts[j] = string("aabbc"[r.IntN(5)])
		}
		h := tar.Header{Typeflag: tar.TypeReg, Mode: int64(0o600 + r.IntN(64)),
			Uid: 1 + r.IntN(9), ModTime: time.Unix(int64(1+r.IntN(1000)), 0)}
		if r.IntN(4) == 0 {
			h.PAXRecords = map[string]string{"SCHILY.xattr.user." + string("kl"[r.IntN(2)]): "v"}
		}
		last := &parts[len(parts)-1]
		switch r.IntN(8) {
		case 0, 1:
			h.Typeflag = tar.TypeDir
		case 2:
			*last = ".wh.." + "wh..opq"
		case 3, 4, 5:
			*last = ".wh." + *last
		case 6:
			switch {
			case i > 0 && r.IntN(4) == 0:
				h.Typeflag, h.Linkname = tar.TypeSymlink, string("abc"[r.IntN(3)])
			case i > 0 && r.IntN(2) == 0:
				h.Typeflag, h.Linkname = tar.TypeLink, list[r.IntN(i)].Name
			}
		}
		h.Name = strings.Join(parts, "/")
		if r.IntN(30) == 0 {
			h.Typeflag, h.Name = tar.TypeDir, "./"
		}
		list = append(list, h)
	}
	return list
}

// compareUnusual unpacks layers in both ways and compares what each way shows after each layer.
func compareUnusual(t *testing.T, layers [][]tar.Header) {
	t.Helper()
	top := t.TempDir()
	whole := mkdir(t, filepath.Join(top, "whole"))
	if err := unix.Chmod(whole, 0o755); err != nil {
		t.Fatal(err)
	}
	var lower []string // the lowest layer last
	var text []string
	for n, list := range layers {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range list {
			text = append(text, fmt.Sprintf("layer %d: %c %s", n, h.Typeflag, h.Name))
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
		}
		w.Close()
		apply := func(dir string, full bool) (Applied, error) {
			return Apply(context.Background(), bytes.NewReader(b.Bytes()), dir,
				ApplyOptions{Full: full})
		}
		_, failed := apply(whole, true)
		own := mkdir(t, filepath.Join(top, fmt.Sprint(n)))
		tree := Tree{Dir: own, Lower: slices.Clone(lower)}
		applied, err := apply(own, false)
		if err == nil {
			err = Inherit(t.Context(), tree, applied)
		}
		if errors.Is(err, ErrNeedsParent) {
			return // the caller then unpacks it in place
		}
		if err != nil || failed != nil {
			if err == nil || failed == nil {
				t.Fatalf("%s\nin place: %v\non its own: %v", strings.Join(text, "\n"), failed, err)
			}
			return
		}
		lower = append([]string{own}, lower...)
		if d := cmp.Diff(listing(t, whole), mountedAs(t, top, lower)); d != "" {
			t.Fatalf("%s\nin place (-) and on its own (+):\n%s", strings.Join(text, "\n"), d)
		}
	}
}

// mountedAs returns the files of directories that are mounted over one another.
func mountedAs(t *testing.T, top string, lower []string) string {
	t.Helper()
	dir := mkdir(t, filepath.Join(top, "mounted"))
	empty := mkdir(t, filepath.Join(top, "empty")) // one directory alone cannot be mounted
	if err := unix.Mount("overlay", dir, "overlay", unix.MS_RDONLY,
		"lowerdir="+strings.Join(append(slices.Clone(lower), empty), ":")); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, 0)
	return listing(t, dir)
}

// times matches the times of this test's run.
var times = regexp.MustCompile(`@\d{9,}(\.\d+)?`)

// listing returns the notation of the files in a directory.
func listing(t *testing.T, dir string) string {
	t.Helper()
	text, err := fstree.Print(dir, fstree.Show{Owners: true, Times: true, Xattrs: true,
		Plain: true, Root: true})
	if err != nil {
		t.Fatal(err)
	}
	return times.ReplaceAllString(text, "@now")
}
