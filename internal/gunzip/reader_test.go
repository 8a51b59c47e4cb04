package gunzip

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	kflate "github.com/klauspost/compress/flate"
	kgzip "github.com/klauspost/compress/gzip"
)

// read decompresses data, from a reader that wrap may make slower.
func read(data []byte, wrap func(io.Reader) io.Reader) ([]byte, error) {
	var r io.Reader = bytes.NewReader(data)
	if wrap != nil {
		r = wrap(r)
	}
	z := new(Reader)
	if err := z.Reset(r); err != nil {
		return nil, err
	}
	var got []byte
	buf := make([]byte, 100_000)
	for {
		n, err := z.Read(buf)
		got = append(got, buf[:n]...)
		if err == io.EOF {
			return got, nil
		}
		if err != nil {
			return got, err
		}
	}
}

// contents are of kinds that compressors encode differently.
func contents() map[string][]byte {
	rng := rand.New(rand.NewPCG(1, 2))
	random := make([]byte, 300_000)
	for i := range random {
		random[i] = byte(rng.Uint32())
	}
	var words strings.Builder
	for range 60_000 {
		fmt.Fprintf(&words, "%d the quick %x\n", rng.IntN(1000), rng.IntN(1<<20))
	}
	skewed := make([]byte, 400_000) // gives codes of many lengths, up to 15 bits
	for i := range skewed {
		for skewed[i] < 250 && rng.IntN(3) > 0 {
			skewed[i]++
		}
	}
	var far []byte // matches at all distances up to 32,768, and runs
	for i := 0; len(far) < 500_000; i++ {
		far = append(far, random[:1+rng.IntN(40)]...)
		if n := 1 + rng.IntN(min(32768, len(far))); i%3 == 0 {
			far = append(far, far[len(far)-n:][:min(n, 300)]...)
		} else {
			far = append(far, bytes.Repeat(far[len(far)-1-i%min(9, len(far)):], 30)...)
		}
	}
	return map[string][]byte{
		"nothing": nil, "a byte": {7}, "a run": make([]byte, 1<<20), "random": random,
		"words": []byte(words.String()), "skewed": skewed, "far": far,
		"mixed": append(append(bytes.Clone(random[:70_000]), words.String()...), skewed...),
	}
}

// compressors return the compressed form of data.
func compressors() map[string]func(io.Writer) io.WriteCloser {
	list := map[string]func(io.Writer) io.WriteCloser{}
	for level := flate.HuffmanOnly; level <= 9; level++ {
		list[fmt.Sprintf("compress/gzip %d", level)] = func(w io.Writer) io.WriteCloser {
			z, _ := gzip.NewWriterLevel(w, level)
			return z
		}
		list[fmt.Sprintf("klauspost %d", level)] = func(w io.Writer) io.WriteCloser {
			z, _ := kgzip.NewWriterLevel(w, level)
			return z
		}
	}
	return list
}

func compress(t testing.TB, data []byte, with func(io.Writer) io.WriteCloser) []byte {
	t.Helper()
	var b bytes.Buffer
	z := with(&b)
	for len(data) > 0 { // several blocks, also small ones
		n := min(len(data), 70_000)
		if _, err := z.Write(data[:n]); err != nil {
			t.Fatal(err)
		}
		data = data[n:]
		if f, ok := z.(interface{ Flush() error }); ok && len(data)%3 == 0 {
			if err := f.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func standard(t testing.TB, data []byte) []byte {
	return compress(t, data, func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) })
}

func TestContents(t *testing.T) {
	for name, want := range contents() {
		for by, with := range compressors() {
			data := compress(t, want, with)
			got, err := read(data, nil)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s, %s: %d bytes and error %v, want %d, or they differ", name, by,
					len(got), err, len(want))
			}
		}
	}
}

// The result does not depend on how much each call of the source's Read returns.
func TestPieces(t *testing.T) {
	want := contents()["mixed"]
	data := standard(t, want)
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"bytes":           iotest.OneByteReader,
		"halves":          iotest.HalfReader,
		"error with data": iotest.DataErrReader,
		"7 bytes":         func(r io.Reader) io.Reader { return &pieces{r, 7} },
		"17 bytes":        func(r io.Reader) io.Reader { return &pieces{r, 17} },
	} {
		got, err := read(data, wrap)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes and error %v, want %d, or they differ", name, len(got), err,
				len(want))
		}
	}
}

type pieces struct {
	r io.Reader
	n int
}

func (p *pieces) Read(b []byte) (int, error) { return p.r.Read(b[:min(len(b), p.n)]) }

// All content is returned although the source neither ends nor returns more bytes.
func TestNoWait(t *testing.T) {
	for name, want := range contents() {
		data := standard(t, want)
		r, w := io.Pipe()
		go func() { _, _ = w.Write(data) }()
		z := new(Reader)
		if err := z.Reset(r); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(z, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: error %v, or the content differs", name, err)
		}
		r.Close()
	}
}

func TestMembers(t *testing.T) {
	a, b := []byte("first"), contents()["words"]
	var data []byte
	var want []byte
	for i := range 20 {
		part := a
		if i%2 == 1 {
			part = b[:i*1000]
		}
		data, want = append(data, standard(t, part)...), append(want, part...)
	}
	got, err := read(data, nil)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes and error %v, want %d, or they differ", len(got), err, len(want))
	}
	if _, err := read(append(data, "bytes that are no member"...), nil); err != ErrHeader {
		t.Errorf("error %v for bytes after the last member, want %v", err, ErrHeader)
	}
	// A match of the second member leads into the first one.
	reach := member(func(w *bitWriter) {
		w.bits(0b011, 3)     // last block, fixed codes
		w.code(0b0000001, 7) // length 3
		w.code(0b00100, 5)   // distance 5, and an extra bit
		w.bits(0, 1)
		w.code(0, 7)
	}, nil)
	if _, err := read(append(standard(t, a), reach...), nil); err != ErrCorrupt {
		t.Errorf("error %v for a match in another member, want %v", err, ErrCorrupt)
	}
}

func TestHeaders(t *testing.T) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Name, z.Comment, z.Extra = strings.Repeat("n", 2000), "comment", make([]byte, 65535)
	z.ModTime = time.Unix(1, 0)
	if _, err := z.Write([]byte("content")); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	long := b.Bytes()
	plain := standard(t, []byte("content"))
	withSum := append(bytes.Clone(plain[:10]), 0, 0)
	withSum[3] |= 2
	binary.LittleEndian.PutUint16(withSum[10:], uint16(crc32.ChecksumIEEE(withSum[:10])))
	withSum = append(withSum, plain[10:]...)
	badSum := bytes.Clone(withSum)
	badSum[10] ^= 1
	change := func(at int, to byte) []byte {
		c := bytes.Clone(plain)
		c[at] = to
		return c
	}
	for name, tt := range map[string]struct {
		data []byte
		err  error
	}{
		"plain":               {plain, nil},
		"all fields":          {long, nil},
		"header's sum":        {withSum, nil},
		"header's sum, wrong": {badSum, ErrHeader},
		"first magic byte":    {change(0, 0x1e), ErrHeader},
		"second magic byte":   {change(1, 0), ErrHeader},
		"method":              {change(2, 7), ErrHeader},
		"checksum":            {change(len(plain)-8, plain[len(plain)-8]^1), ErrChecksum},
		"size":                {change(len(plain)-1, 1), ErrChecksum},
		"nothing":             {nil, io.EOF},
	} {
		got, err := read(tt.data, nil)
		if err != tt.err || err == nil && string(got) != "content" {
			t.Errorf("%s: %q and error %v, want %v", name, got, err, tt.err)
		}
	}
}

// Each prefix of a stream is an error, after the content that it has.
func TestTruncated(t *testing.T) {
	want := contents()["mixed"][60_000:90_000]
	for by, with := range compressors() {
		data := compress(t, want, with)
		for n := 1; n < len(data); n += 1 + n/50 {
			got, err := read(data[:n], nil)
			if err != io.ErrUnexpectedEOF || !bytes.HasPrefix(want, got) {
				t.Fatalf("%s, %d of %d bytes: %d bytes and error %v, want ErrUnexpectedEOF", by, n,
					len(data), len(got), err)
			}
		}
	}
}

// An error of the source is returned as it is, wherever it occurs.
func TestSourceError(t *testing.T) {
	data := standard(t, []byte("some content"))
	for _, want := range []error{errors.New("network"), io.ErrUnexpectedEOF} {
		for n := range len(data) + 1 {
			_, err := read(data[:n], func(r io.Reader) io.Reader {
				return io.MultiReader(r, iotest.ErrReader(want))
			})
			if err != want {
				t.Fatalf("after %d of %d bytes: error %v, want %v", n, len(data), err, want)
			}
		}
	}
	if _, err := read(data, func(io.Reader) io.Reader { return idle{} }); err != io.ErrNoProgress {
		t.Errorf("error %v for a source without data, want ErrNoProgress", err)
	}
}

// idle never returns data.
type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

// A stream with a wrong bit is an error, or has the same content.
func TestDamaged(t *testing.T) {
	want := contents()["mixed"][65_000:75_000]
	for by, with := range compressors() {
		data := compress(t, want, with)
		for bit := 80; bit < 8*len(data); bit += 1 + bit/300 {
			damaged := bytes.Clone(data)
			damaged[bit/8] ^= 1 << (bit % 8)
			if got, err := read(damaged, nil); err == nil && !bytes.Equal(got, want) {
				t.Fatalf("%s: bit %d: no error and other content", by, bit)
			}
		}
	}
}

// bitWriter writes the parts of a deflate stream.
type bitWriter struct {
	b []byte
	n int
}

// bits writes a number, the lowest bit first.
func (w *bitWriter) bits(v, n int) {
	for i := range n {
		if w.n%8 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[w.n/8] |= byte(v >> i & 1 << (w.n % 8))
		w.n++
	}
}

// code writes a code, the highest bit first.
func (w *bitWriter) code(v, n int) {
	for i := range n {
		w.bits(v>>(n-1-i)&1, 1)
	}
}

// member returns a member with the given deflate stream and content.
func member(write func(*bitWriter), content []byte) []byte {
	w := &bitWriter{b: []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}, n: 80}
	write(w)
	b := binary.LittleEndian.AppendUint32(w.b, crc32.ChecksumIEEE(content))
	return binary.LittleEndian.AppendUint32(b, uint32(len(content)))
}

// lengths writes the header of a last block with dynamic codes, in which each length of a code is
// written as it is.
func (w *bitWriter) lengths(literals, distances []uint8) {
	w.bits(0b101, 3)
	w.bits(len(literals)-257, 5)
	w.bits(len(distances)-1, 5)
	w.bits(15, 4)
	for _, symbol := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15} {
		if symbol < 16 {
			w.bits(4, 3) // sixteen codes of four bits
		} else {
			w.bits(0, 3)
		}
	}
	for _, l := range append(bytes.Clone(literals), distances...) {
		w.code(int(l), 4)
	}
}

// TestStreams reads streams that compressors do not write, and compares with the standard library.
func TestStreams(t *testing.T) {
	// abc has codes for the literals a, b and the end: 0, 10, 11.
	abc := make([]uint8, 257)
	abc['a'], abc['b'], abc[256] = 1, 2, 2
	onlyEnd := make([]uint8, 257)
	onlyEnd[256] = 1
	incomplete := bytes.Clone(abc)
	incomplete['b'] = 3
	oversubscribed := bytes.Clone(abc)
	oversubscribed['c'] = 2
	matches := make([]uint8, 286) // a: 0, end: 10, length 3: 110, length 258: 111
	matches['a'], matches[256], matches[257], matches[285] = 1, 2, 3, 3
	deep := make([]uint8, 257) // lengths 1 to 15, the last one twice
	for i := range 15 {
		deep['a'+i] = uint8(i + 1)
	}
	deep[256] = 15
	for name, tt := range map[string]struct {
		write func(*bitWriter)
		want  string
		err   error
	}{
		"reserved type of block": {func(w *bitWriter) { w.bits(0b111, 3) }, "", ErrCorrupt},
		"stored, wrong length": {func(w *bitWriter) {
			w.bits(0b001, 8)
			w.bits(1, 16)
			w.bits(0, 16)
		}, "", ErrCorrupt},
		"stored, empty": {func(w *bitWriter) {
			w.bits(0b001, 8)
			w.bits(0, 16)
			w.bits(0xffff, 16)
		}, "", nil},
		"literals": {func(w *bitWriter) {
			w.lengths(abc, []uint8{0})
			w.code(0b0, 1)
			w.code(0b10, 2)
			w.code(0b11, 2)
		}, "ab", nil},
		"only the end": {func(w *bitWriter) {
			w.lengths(onlyEnd, []uint8{0})
			w.code(0, 1)
		}, "", nil},
		"only the end, another code": {func(w *bitWriter) {
			w.lengths(onlyEnd, []uint8{0})
			w.code(1, 1)
		}, "", ErrCorrupt},
		"no codes": {func(w *bitWriter) {
			w.lengths(make([]uint8, 257), []uint8{0})
		}, "", ErrCorrupt},
		"incomplete": {func(w *bitWriter) {
			w.lengths(incomplete, []uint8{0})
		}, "", ErrCorrupt},
		"oversubscribed": {func(w *bitWriter) {
			w.lengths(oversubscribed, []uint8{0})
		}, "", ErrCorrupt},
		"too many distances": {func(w *bitWriter) {
			w.lengths(abc, make([]uint8, 31))
		}, "", ErrCorrupt},
		"codes of 15 bits": {func(w *bitWriter) {
			w.lengths(deep, []uint8{0})
			w.code(0b111111111111110, 15)
			w.code(0b0, 1)
			w.code(0b111111111111111, 15)
		}, "oa", nil},
		"run": {func(w *bitWriter) {
			w.lengths(matches, []uint8{1})
			w.code(0b0, 1)
			w.code(0b111, 3)
			w.code(0, 1)
			w.code(0b10, 2)
		}, strings.Repeat("a", 259), nil},
		"match without distances": {func(w *bitWriter) {
			w.lengths(matches, []uint8{0})
			w.code(0b0, 1)
			w.code(0b110, 3)
			w.code(0b0, 1)
		}, "", ErrCorrupt},
		"distance without a code": {func(w *bitWriter) {
			w.lengths(matches, []uint8{1})
			w.code(0b0, 1)
			w.code(0b110, 3)
			w.code(0b1, 1)
		}, "", ErrCorrupt},
		"match before the beginning": {func(w *bitWriter) {
			w.lengths(matches, []uint8{0, 1})
			w.code(0b0, 1)
			w.code(0b110, 3)
			w.code(0b0, 1)
		}, "", ErrCorrupt},
		"fixed literal 286": {func(w *bitWriter) {
			w.bits(0b011, 3)
			w.code(0b11000110, 8)
		}, "", ErrCorrupt},
		"fixed distance 30": {func(w *bitWriter) {
			w.bits(0b011, 3)
			w.code(0b10010001, 8) // a
			w.code(0b0000001, 7)
			w.code(0b11110, 5)
		}, "", ErrCorrupt},
	} {
		// Once near the end of the input, and once with much input after it.
		for _, rest := range []int{0, 100} {
			data := append(member(tt.write, []byte(tt.want)), make([]byte, rest)...)
			got, err := read(data, nil)
			wantErr := tt.err
			if rest > 0 && wantErr == nil {
				wantErr = ErrHeader
			}
			if err != wantErr || tt.err == nil && string(got) != tt.want {
				t.Errorf("%s, then %d bytes: %q and error %v, want %q, %v", name, rest, got, err,
					tt.want, wantErr)
			}
			z, err := gzip.NewReader(bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			z.Multistream(false)
			if _, err := io.ReadAll(z); (err == nil) != (tt.err == nil) {
				t.Errorf("%s: the standard library returns %v, want %v", name, err, tt.err)
			}
		}
	}
}

// TestReadAfterReset checks that a Reader without a header returns the error of Reset, and not the
// content of the stream that it read before.
func TestReadAfterReset(t *testing.T) {
	var z Reader
	if err := z.Reset(bytes.NewReader(standard(t, []byte("earlier")))); err != nil {
		t.Fatal(err)
	}
	stored := member(func(w *bitWriter) {
		w.bits(1, 8)
		w.b = append(w.b, 1, 0, 0xfe, 0xff, 'x')
	}, []byte("x"))
	bad := append([]byte("no header:"), stored[10:]...)
	for want, data := range map[error][]byte{ErrHeader: bad, io.EOF: nil} {
		if err := z.Reset(bytes.NewReader(data)); err != want {
			t.Errorf("Reset: error %v, want %v", err, want)
		}
		if n, err := z.Read(make([]byte, 10)); n != 0 || err != want {
			t.Errorf("Read = %d, %v, want 0, %v", n, err, want)
		}
	}
}

// compare reads data with this package and with the standard library: both accept it, with the same
// content, or both return an error.
func compare(t *testing.T, data []byte, wrap func(io.Reader) io.Reader) {
	t.Helper()
	got, err := read(data, wrap)
	var want []byte
	z, wantErr := gzip.NewReader(bytes.NewReader(data))
	if wantErr == nil {
		want, wantErr = io.ReadAll(z)
	}
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("error %v, the standard library returns %v", err, wantErr)
	}
	if err == nil && !bytes.Equal(got, want) {
		t.Fatal("the content differs from the standard library's")
	}
	if !bytes.HasPrefix(got, want) && !bytes.HasPrefix(want, got) {
		t.Fatalf("content before the errors %v and %v differs", err, wantErr)
	}
}

// FuzzReader reads streams that need not be valid. The header is added, and the trailer where the
// standard library can read the stream: the fuzzer cannot guess checksums.
func FuzzReader(f *testing.F) {
	for _, content := range contents() {
		content = content[:min(len(content), 3000)]
		data := standard(f, content)
		f.Add(data[10:len(data)-8], uint8(0))
		f.Add(data[10:len(data)-8], uint8(5))
	}
	f.Fuzz(func(t *testing.T, body []byte, piece uint8) {
		var content bytes.Buffer
		src := bytes.NewReader(body)
		// At most 256 KiB: a bomb needs no comparison.
		_, err := io.Copy(&content, io.LimitReader(flate.NewReader(src), 256<<10))
		if content.Len() == 256<<10 {
			t.Skip("the content is longer than what is compared")
		}
		end := len(body)
		if err == nil {
			end -= src.Len()
		}
		data := member(func(w *bitWriter) { w.b = append(w.b, body[:end]...) }, content.Bytes())
		compare(t, data, func(r io.Reader) io.Reader {
			if piece == 0 {
				return r
			}
			return &pieces{r, int(piece)}
		})
	})
}

// FuzzRoundTrip compresses content with several compressors and reads it again.
func FuzzRoundTrip(f *testing.F) {
	for _, content := range contents() {
		f.Add(content[:min(len(content), 5000)], uint8(1), 3)
	}
	f.Fuzz(func(t *testing.T, content []byte, piece uint8, level int) {
		content = bytes.Repeat(content, 1+int(piece)/32)
		level = max(-2, min(level, 9))
		std, _ := gzip.NewWriterLevel(io.Discard, level)
		klauspost, _ := kgzip.NewWriterLevel(io.Discard, level)
		stateless := func(w io.Writer) io.WriteCloser { return &statelessWriter{w: w} }
		for _, with := range []func(io.Writer) io.WriteCloser{
			func(w io.Writer) io.WriteCloser { std.Reset(w); return std },
			func(w io.Writer) io.WriteCloser { klauspost.Reset(w); return klauspost },
			stateless,
		} {
			got, err := read(compress(t, content, with), func(r io.Reader) io.Reader {
				return &pieces{r, 1 + int(piece)}
			})
			if err != nil || !bytes.Equal(got, content) {
				t.Fatalf("%d bytes and error %v, want %d, or they differ", len(got), err,
					len(content))
			}
		}
	})
}

// statelessWriter writes blocks that do not refer to earlier ones.
type statelessWriter struct {
	w       io.Writer
	content []byte
}

func (s *statelessWriter) Write(p []byte) (int, error) {
	s.content = append(s.content, p...)
	return len(p), nil
}

func (s *statelessWriter) Close() error {
	var b bytes.Buffer
	if err := kflate.StatelessDeflate(&b, s.content, true, nil); err != nil {
		return err
	}
	_, err := s.w.Write(member(func(w *bitWriter) { w.b = append(w.b, b.Bytes()...) }, s.content))
	return err
}

var benchFile = flag.String("gzip", "", "a gzip file for BenchmarkRead")

// BenchmarkRead reads the file of the flag -gzip, or 1.6 MB of numbers, words and random bytes.
func BenchmarkRead(b *testing.B) {
	data := standard(b, contents()["mixed"])
	if *benchFile != "" {
		var err error
		if data, err = os.ReadFile(*benchFile); err != nil {
			b.Fatal(err)
		}
	}
	type reader interface {
		io.Reader
		Reset(io.Reader) error
	}
	for _, tt := range []struct {
		name string
		z    reader
	}{{"gunzip", new(Reader)}, {"klauspost", new(kgzip.Reader)}, {"std", new(gzip.Reader)}} {
		b.Run(tt.name, func(b *testing.B) {
			buf := make([]byte, 256<<10)
			size := 0
			for b.Loop() {
				size = 0
				if err := tt.z.Reset(bufio.NewReader(bytes.NewReader(data))); err != nil {
					b.Fatal(err)
				}
				for {
					n, err := tt.z.Read(buf)
					size += n
					if err == io.EOF {
						break
					}
					if err != nil {
						b.Fatal(err)
					}
				}
			}
			b.SetBytes(int64(size))
		})
	}
}
