package differential

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/diff"
	"github.com/layerbuild/layerbuild/internal/layercheck"
)

// entries returns a line for each entry of a layer, by path, and the paths in the order of the
// layer.
func entries(layer []byte) (lines map[string]string, order []string) {
	lines = map[string]string{}
	for e, err := range diff.Entries(bytes.NewReader(layer)) {
		if err != nil {
			order = append(order, "error")
			lines["error"] = err.Error()
			break
		}
		sum := sha256.New()
		io.Copy(sum, e.Content)
		line := fmt.Sprintf("%q type %q mode %04o owner %d:%d time %d", e.Path, e.Type, e.Mode,
			e.UID, e.GID, e.ModTime.Unix())
		if e.Link != "" {
			line += fmt.Sprintf(" to %q", e.Link)
		}
		if e.Size > 0 {
			line += fmt.Sprintf(" %d bytes %x", e.Size, sum.Sum(nil)[:4])
		}
		if e.Major|e.Minor != 0 {
			line += fmt.Sprintf(" %d:%d", e.Major, e.Minor)
		}
		for _, name := range slices.Sorted(maps.Keys(e.Xattrs)) {
			line += fmt.Sprintf(" %s=%q", name, e.Xattrs[name])
		}
		lines[e.Path] = line
		order = append(order, e.Path)
	}
	return lines, order
}

func describe(layer []byte) string {
	lines, order := entries(layer)
	var b strings.Builder
	for _, p := range order {
		fmt.Fprintln(&b, lines[p])
	}
	return b.String()
}

// differing compares two layers. Entries of files that had several names, and the directories above
// them, may differ.
func differing(a, b []byte, linked map[string]bool) []string {
	x, _ := entries(a)
	y, _ := entries(b)
	var paths []string
	for p := range x {
		if x[p] != y[p] {
			paths = append(paths, p)
		}
	}
	for p := range y {
		if _, ok := x[p]; !ok {
			paths = append(paths, p)
		}
	}
	excused := map[string]bool{}
	for _, p := range paths {
		if linked[p] {
			for excused[p] = true; strings.Contains(p, "/"); excused[p] = true {
				p = p[:strings.LastIndexByte(p, '/')]
			}
		}
	}
	var lines []string
	for _, p := range slices.Sorted(slices.Values(paths)) {
		if !excused[p] {
			lines = append(lines, "- "+x[p], "+ "+y[p])
		}
	}
	return lines
}

// linkedNames returns the names of files with several names.
func linkedNames(dir string) (map[string]bool, error) {
	linked := map[string]bool{}
	return linked, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		if st.Nlink > 1 {
			rel, err := filepath.Rel(dir, p)
			linked[rel] = true
			return err
		}
		return nil
	})
}

// superfluous returns the entries that can be removed from a layer without changing the resulting
// state. It does not return directories above other entries, nor names of a file that has several
// in the layer: if a file has a new name, all its names are in the layer.
func (r *round) superfluous(layer []byte, before, after *layercheck.Tree) []string {
	r.t.Helper()
	linked, above := map[string]bool{}, map[string]bool{}
	var names []string
	for e, err := range diff.Entries(bytes.NewReader(layer)) {
		r.check(err)
		if e.Type == tar.TypeLink {
			linked[e.Path], linked[e.Link] = true, true
		}
		names = append(names, e.Path)
		above[path.Dir(e.Path)] = true
	}
	var found []string
	for _, name := range names {
		if linked[name] || above[name] {
			continue
		}
		tree := before.Clone()
		if tree.Apply(bytes.NewReader(r.without(layer, name))) != nil {
			continue
		}
		lines, err := layercheck.Compare(tree, after, layercheck.Options{})
		r.check(err)
		if len(lines) == 0 {
			found = append(found, name)
		}
	}
	return found
}

// without returns a layer without one entry.
func (r *round) without(layer []byte, name string) []byte {
	r.t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for tr := tar.NewReader(bytes.NewReader(layer)); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		r.check(err)
		if strings.TrimSuffix(h.Name, "/") == name {
			continue
		}
		r.check(w.WriteHeader(h))
		_, err = io.Copy(w, tr)
		r.check(err)
	}
	r.check(w.Close())
	return b.Bytes()
}
