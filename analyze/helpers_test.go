package analyze

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"path"
	"strings"
	"testing"
	"time"
)

// item is one entry of a layer in a test.
type item struct {
	// one of f d l s p w o: file, directory, hard link, symbolic link, pipe, whiteout, opaque mark
	kind   byte
	path   string
	data   string // a link's target
	mode   int64
	uid    int
	time   int64
	xattr  string
	device bool
}

func file(path, data string) item   { return item{kind: 'f', path: path, data: data, mode: 0o644} }
func dir(path string) item          { return item{kind: 'd', path: path, mode: 0o755} }
func link(path, target string) item { return item{kind: 'l', path: path, data: target} }
func symlink(path, to string) item  { return item{kind: 's', path: path, data: to} }
func whiteout(path string) item     { return item{kind: 'w', path: path} }
func opaque(path string) item       { return item{kind: 'o', path: path} }
func (i item) chmod(m int64) item   { i.mode = m; return i }
func (i item) chown(uid int) item   { i.uid = uid; return i }
func (i item) at(sec int64) item    { i.time = sec; return i }
func (i item) attr(v string) item   { i.xattr = v; return i }

// size returns a file's content: n bytes, all of them c.
func size(c byte, n int) string { return strings.Repeat(string(c), n) }

const mb = 1 << 20

func (i item) header() (*tar.Header, string) {
	h := &tar.Header{Name: i.path, Mode: i.mode, Uid: i.uid, ModTime: time.Unix(i.time, 0),
		Format: tar.FormatPAX}
	d, base := path.Split(i.path)
	switch i.kind {
	case 'f':
		h.Typeflag, h.Size = tar.TypeReg, int64(len(i.data))
		if i.xattr != "" {
			h.PAXRecords = map[string]string{"SCHILY.xattr.user.x": i.xattr}
		}
		return h, i.data
	case 'd':
		h.Typeflag, h.Name = tar.TypeDir, i.path+"/"
	case 'l':
		h.Typeflag, h.Linkname = tar.TypeLink, i.data
	case 's':
		h.Typeflag, h.Linkname = tar.TypeSymlink, i.data
	case 'p':
		h.Typeflag = tar.TypeFifo
	case 'w':
		h.Typeflag, h.Name = tar.TypeReg, d+".wh."+base
	case 'o':
		h.Typeflag, h.Name = tar.TypeReg, i.path+"/.wh..wh..opq"
	}
	return h, ""
}

func pack(t testing.TB, items []item) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, i := range items {
		h, data := i.header()
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type fataler interface {
	Helper()
	Fatal(...any)
}

// input returns an image of layers, of which the first base ones are the base's.
func input(base int, layers ...[]byte) Input {
	in := Input{Image: "test"}
	for i, data := range layers {
		ins := Instruction{Text: fmt.Sprintf("RUN step %d", i), Line: i + 2,
			EndLine: i + 2, Layer: i}
		if i < base {
			ins.Owner, ins.Line, ins.EndLine = BaseImage, 0, 0
		}
		in.Instructions = append(in.Instructions, ins)
		in.Layers = append(in.Layers, LayerInput{
			Digest: fmt.Sprintf("layer%d", i), Compressed: int64(len(data)) / 2,
			Table: func(ctx context.Context) (*Table, error) {
				return Scan(ctx, bytes.NewReader(data))
			},
		})
	}
	return in
}

func analyzed(t fataler, base int, layers ...[]byte) *Report {
	t.Helper()
	r, err := Image(context.Background(), input(base, layers...))
	if err != nil {
		t.Fatal(err)
	}
	return r
}
