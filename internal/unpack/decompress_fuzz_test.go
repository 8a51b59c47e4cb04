package unpack

import (
	"bytes"
	"compress/gzip"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// FuzzDecompress checks that every stream ends, with an error or without, and that the content is
// the same when the stream arrives byte by byte.
func FuzzDecompress(f *testing.F) {
	text := bytes.Repeat([]byte("some text "), 100)
	for _, compress := range []func(io.Writer) (io.WriteCloser, error){
		func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
		func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
		func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) },
	} {
		var b bytes.Buffer
		w, err := compress(&b)
		if err != nil {
			f.Fatal(err)
		}
		w.Write(text)
		w.Close()
		f.Add(b.Bytes())
		f.Add(append(b.Bytes(), b.Bytes()...))
		f.Add(b.Bytes()[:b.Len()/2])
	}
	f.Add([]byte("BZh91AY&SY"))
	f.Add([]byte("\x50\x2a\x4d\x18\x04\x00\x00\x00skip\x28\xb5\x2f\xfd"))
	f.Add([]byte("\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4\x46\x02\x00\x21\x01\x28"))
	const most = 16 << 20 // limit of the content: a few bytes can expand to gigabytes
	read := func(r io.Reader) ([]byte, error) {
		z, _, err := Decompress(r)
		if err != nil {
			return nil, err
		}
		defer z.Close()
		return io.ReadAll(io.LimitReader(z, most))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		want, err := read(bytes.NewReader(data))
		if err != nil {
			return
		}
		got, err := read(oneByte{bytes.NewReader(data)})
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("byte by byte: %d bytes, %v, want %d", len(got), err, len(want))
		}
	})
}

type oneByte struct{ r io.Reader }

func (o oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(1, len(p))]) }
