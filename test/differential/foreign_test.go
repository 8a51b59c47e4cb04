package differential

import (
	"archive/tar"
	"bytes"
	"io"
	"path"
	"strings"
)

// foreign rewrites a layer as other builders might write it: with whiteouts of names that are in no
// layer and of names that the layer itself makes, and with whiteouts after the entries of their
// directory. The result has the same effect.
func (r *round) foreign(layer []byte) []byte {
	r.t.Helper()
	var b, last bytes.Buffer
	w, late := tar.NewWriter(&b), tar.NewWriter(&last)
	put := func(to *tar.Writer, h *tar.Header, content io.Reader) {
		r.check(to.WriteHeader(h))
		if content != nil {
			_, err := io.Copy(to, content)
			r.check(err)
		}
	}
	whiteout := func(dir, base string) {
		to := w
		if r.one(3) {
			to = late
		}
		put(to, &tar.Header{Typeflag: tar.TypeReg, Name: path.Join(dir, ".wh."+base), Mode: 0o600},
			nil)
	}
	for tr := tar.NewReader(bytes.NewReader(layer)); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		r.check(err)
		dir, base := path.Split(strings.TrimSuffix(h.Name, "/"))
		switch {
		case strings.HasPrefix(base, ".wh."):
			if r.one(3) {
				put(late, h, nil)
				continue
			}
		case h.Typeflag != tar.TypeDir && r.one(4):
			whiteout(dir, base)
		}
		put(w, h, tr)
		if h.Typeflag == tar.TypeDir && r.one(3) {
			whiteout(h.Name, "nothing")
		}
	}
	r.check(late.Flush())
	r.check(w.Flush())
	b.Write(last.Bytes())
	b.Write(make([]byte, 1024))
	return b.Bytes()
}
