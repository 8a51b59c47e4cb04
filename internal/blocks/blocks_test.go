package blocks

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	kgzip "github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"
)

var formats = []Format{{"gzip", 1}, {"gzip", 3}, {"gzip", 6}, {"gzip", 9}, {"zstd", 1}, {"zstd", 3},
	{"zstd", 11}}

// sample returns n bytes, of which parts are random, parts repeat earlier ones, and parts are
// zeros.
func sample(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	out := make([]byte, 0, n+100000)
	for len(out) < n {
		size := 1 + r.IntN(60000)
		switch r.IntN(4) {
		case 0:
			for range size {
				out = append(out, byte(r.Uint32()))
			}
		case 1:
			out = append(out, make([]byte, size)...)
		case 2:
			for range size {
				out = append(out, "etaoin shrdlu"[r.IntN(13)])
			}
		default:
			from := r.IntN(len(out) + 1)
			out = append(out, out[from:min(len(out), from+size)]...)
		}
	}
	return out[:n]
}

// deflate compresses data, which is written in pieces of the given size (0: at once).
func deflate(t testing.TB, o Options, data []byte, size int) ([]byte, Table) {
	t.Helper()
	var out bytes.Buffer
	w, err := NewWriter(t.Context(), &out, o)
	if err != nil {
		t.Fatal(err)
	}
	for p := data; len(p) > 0; {
		n := len(p)
		if size > 0 {
			n = min(n, size)
		}
		if m, err := w.Write(p[:n]); err != nil || m != n {
			t.Fatalf("Write = %d, %v", m, err)
		}
		p = p[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w.Abandon() // has no effect
	return out.Bytes(), w.Table()
}

func inflate(t testing.TB, f Format, data []byte) []byte {
	t.Helper()
	var r io.Reader
	var err error
	if f.Compression == "gzip" {
		r, err = gzip.NewReader(bytes.NewReader(data))
	} else {
		r, err = zstd.NewReader(bytes.NewReader(data))
	}
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestRoundTrip compresses streams of many sizes and reads them with other decoders.
func TestRoundTrip(t *testing.T) {
	sizes := []int{0, 1, 511, 512, 70 << 10, 80 << 10, gzipLimits.min - 1, gzipLimits.min,
		gzipLimits.max, gzipLimits.max + 1, 5<<20 + 13, 10 << 20}
	for _, f := range formats {
		for _, n := range sizes {
			if n > 6<<20 && f.Level > 6 {
				continue
			}
			data := sample(uint64(n), n)
			got, _ := deflate(t, Options{Format: f}, data, 0)
			if !bytes.Equal(inflate(t, f, got), data) {
				t.Errorf("%v: %d bytes are not the same after decompression", f, n)
			}
		}
	}
}

// TestPrograms reads a stream with the programs of the two formats.
func TestPrograms(t *testing.T) {
	data := sample(1, 12<<20)
	for _, f := range []Format{{"gzip", 3}, {"zstd", 3}} {
		if _, err := exec.LookPath(f.Compression); err != nil {
			t.Skip("this test needs the programs gzip and zstd: ", err)
		}
		in, _ := deflate(t, Options{Format: f}, data, 0)
		cmd := exec.Command(f.Compression, "-dc")
		cmd.Stdin = bytes.NewReader(in)
		if out, err := cmd.Output(); err != nil || !bytes.Equal(out, data) {
			t.Errorf("%s -d: %d bytes, %v", f.Compression, len(out), err)
		}
	}
}

// TestSameBytes checks that the output depends neither on the sizes of the writes nor on the number
// of goroutines, nor on the earlier use of encoders.
func TestSameBytes(t *testing.T) {
	data := sample(2, 9<<20)
	for _, f := range []Format{{"gzip", 1}, {"gzip", 3}, {"gzip", 7}, {"zstd", 1}, {"zstd", 3}} {
		var want [32]byte
		for i, procs := range []int{1, 2, 7} {
			old := runtime.GOMAXPROCS(procs)
			for j, size := range []int{0, 100_003, 512} {
				got, _ := deflate(t, Options{Format: f}, data, size)
				sum := sha256.Sum256(got)
				if i+j == 0 {
					want = sum
				} else if sum != want {
					t.Errorf("%v, %d goroutines, writes of %d bytes: other bytes", f, procs, size)
				}
			}
			runtime.GOMAXPROCS(old)
		}
	}
}

// TestGolden fixes the bytes, since digests of layers depend on them. Change the sums only on
// purpose: all layers then get other digests.
func TestGolden(t *testing.T) {
	data := sample(3, 9<<20)
	for f, want := range map[Format]string{
		{"gzip", 1}: "d21539bec6b2a267", {"gzip", 3}: "3043cdbc4b72fde3",
		{"gzip", 9}: "1a379052b6243fb5", {"zstd", 1}: "e743217756d6c240",
		{"zstd", 3}: "0f96c74b5e87ebc6",
	} {
		got, _ := deflate(t, Options{Format: f}, data, 0)
		if sum := fmt.Sprintf("%x", sha256.Sum256(got))[:16]; sum != want {
			t.Errorf("%v: %d bytes with the sum %s, want %s", f, len(got), sum, want)
		}
	}
}

// cuts returns the ends of the blocks of data.
func cuts(l limits, data []byte) (ends []int) {
	for at := 0; ; {
		n, end := l.next(0, nil, data[at:])
		if at += n; !end {
			return ends
		}
		ends = append(ends, at)
	}
}

// TestCut checks that blocks end at the same places in whatever pieces the bytes come, that their
// sizes are in the limits, and that they end at the same content again after an insertion.
func TestCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := limits{min: 512 * rapid.IntRange(1, 40).Draw(t, "min"), mask: 1<<rapid.IntRange(0, 5).
			Draw(t, "bits") - 1}
		l.max = l.min + 512*rapid.IntRange(0, 60).Draw(t, "above min")
		data := sample(rapid.Uint64().Draw(t, "seed"), rapid.IntRange(0, 300_000).Draw(t, "size"))
		want := cuts(l, data)
		var got []int
		block := []byte{}
		for at := 0; at < len(data); {
			p := data[at:min(len(data), at+rapid.IntRange(1, 3000).Draw(t, "write"))]
			for len(p) > 0 {
				n, end := l.next(len(block), block, p)
				block = append(block, p[:n]...)
				at, p = at+n, p[n:]
				if end {
					got = append(got, at)
					block = block[:0]
				}
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("in pieces the blocks end at %d, at once at %d", got, want)
		}
		last := 0
		for _, end := range want {
			if n := end - last; n < l.min || n > l.max || n%pieceSize != 0 {
				t.Fatalf("a block has %d bytes, not %d to %d", n, l.min, l.max)
			}
			last = end
		}
		if len(data)-last >= l.max {
			t.Fatalf("the last block has %d bytes", len(data)-last)
		}
	})
}

// TestCutAfterInsertion counts the blocks that differ after a file was inserted in the middle.
func TestCutAfterInsertion(t *testing.T) {
	data := sample(4, 64<<20)
	blocks := func(data []byte) map[[32]byte]bool {
		m, at := map[[32]byte]bool{}, 0
		for _, end := range cuts(gzipLimits, data) {
			m[sha256.Sum256(data[at:end])] = true
			at = end
		}
		return m
	}
	before := blocks(data)
	middle := len(data) / 2 / 512 * 512
	for _, n := range []int{512, 5 * 512, 3000 * 512} {
		changed := append(append(bytes.Clone(data[:middle]), sample(5, n)...), data[middle:]...)
		added := 0
		for sum := range blocks(changed) {
			if !before[sum] {
				added++
			}
		}
		t.Logf("%d of %d blocks are new after %d bytes were inserted", added, len(before), n)
		if added > 8 {
			t.Errorf("%d of %d blocks are new after %d bytes were inserted", added, len(before), n)
		}
	}
}

func testKeys(t testing.TB) *Keys {
	t.Helper()
	k, err := NewKeys([SecretSize]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// found finds the blocks of a stream in its compressed form, and counts them.
type found struct {
	keys   *Keys
	pieces map[Key]Piece
	hits   atomic.Int64
}

func find(t testing.TB, table Table, stream []byte) *found {
	t.Helper()
	table, err := DecodeTable(table.Encode())
	if err != nil {
		t.Fatal(err)
	}
	f := &found{keys: testKeys(t), pieces: map[Key]Piece{}}
	at := table.Offset
	for _, e := range table.Entries {
		f.pieces[e.Key] = Piece{e, bytes.NewReader(stream), at}
		at += int64(e.Size)
	}
	return f
}

func (f *found) Keys() *Keys { return f.keys }

func (f *found) Find(k Key) (Piece, bool) {
	p, ok := f.pieces[k]
	if ok {
		f.hits.Add(1)
	}
	return p, ok
}

// TestEarlier checks that a changed stream has the same bytes whether or not blocks of the earlier
// one are used, also if these are damaged.
func TestEarlier(t *testing.T) {
	data := sample(6, 30<<20)
	changed := append(append(bytes.Clone(data[:17<<20]), sample(7, 4096)...), data[17<<20+512:]...)
	for _, f := range []Format{{"gzip", 3}, {"zstd", 3}} {
		first, table := deflate(t, Options{Format: f, Earlier: find(t, Table{}, nil)}, data, 1<<20)
		want, wantTable := deflate(t, Options{Format: f, Earlier: find(t, Table{}, nil)}, changed,
			1<<20)
		plain, none := deflate(t, Options{Format: f}, changed, 1<<20)
		if !bytes.Equal(plain, want) || len(none.Entries) > 0 {
			t.Errorf("%v: other bytes, or a table, without Earlier", f)
		}
		blocks := find(t, table, first)
		got, gotTable := deflate(t, Options{Format: f, Earlier: blocks}, changed, 1<<20)
		if !bytes.Equal(got, want) || !bytes.Equal(gotTable.Encode(), wantTable.Encode()) {
			t.Errorf("%v: other bytes when blocks of an earlier stream are used", f)
		}
		if n, hits := len(wantTable.Entries), int(blocks.hits.Load()); hits < n-4 || hits >= n {
			t.Errorf("%v: %d of %d blocks were found", f, hits, n)
		}
		for i := 0; i < len(first); i += 100_000 {
			first[i] ^= 1
		}
		if got, _ := deflate(t, Options{Format: f, Earlier: blocks}, changed, 0); !bytes.Equal(got,
			want) {
			t.Errorf("%v: other bytes when blocks of a damaged stream are used", f)
		}
		blocks = find(t, table, nil)
		if got, _ := deflate(t, Options{Format: f, Earlier: blocks}, changed, 0); !bytes.Equal(got,
			want) {
			t.Errorf("%v: other bytes when blocks of a truncated stream are used", f)
		}
		other := find(t, table, first)
		if deflate(t, Options{Format: Format{f.Compression, 2}, Earlier: other}, data,
			0); other.hits.Load() > 0 {
			t.Errorf("%v: %d blocks of another level were used", f, other.hits.Load())
		}
	}
}

// TestKeys checks that a key depends on everything on which a compressed block depends.
func TestKeys(t *testing.T) {
	other, err := NewKeys([SecretSize]byte{2})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[Key]string{}
	last := false
	add := func(what string, k *Keys, f Format, dict, content string) {
		b := &block{buf: make([]byte, headSize)}
		b.reset([]byte(dict))
		b.last = last
		b.buf = append(b.buf, content...)
		key := k.of(f, b)
		if seen[key] != "" {
			t.Errorf("%s has the same key as %s", what, seen[key])
		}
		seen[key] = what
	}
	k, gz := testKeys(t), Format{"gzip", 3}
	add("a block", k, gz, "dictionary", "content")
	add("other content", k, gz, "dictionary", "contenu")
	add("another dictionary", k, gz, "dictionarx", "content")
	add("a shorter dictionary", k, gz, "dictionar", "ycontent")
	add("no dictionary", k, gz, "", "dictionarycontent")
	add("another level", k, Format{"gzip", 4}, "dictionary", "content")
	add("another format", k, Format{"zstd", 3}, "dictionary", "content")
	last = true
	add("the last block", k, gz, "dictionary", "content")
	last = false
	add("another secret", other, gz, "dictionary", "content")
}

// TestEncoderVersion checks that keys contain the version of the library that compresses.
func TestEncoderVersion(t *testing.T) {
	mod, err := os.ReadFile(filepath.Join("..", "..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`github.com/(klauspost/compress v\S+)`).FindSubmatch(mod)
	if m == nil || string(m[1]) != encoder {
		t.Errorf("go.mod has %q, and the keys of blocks %q", m, encoder)
	}
}

type failingWriter struct {
	n   int // bytes until it fails
	err error
}

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.n -= len(p); w.n < 0 {
		return 0, w.err
	}
	return len(p), nil
}

// TestErrors checks that Write or Close returns the error of the destination or of the context, and
// that no goroutine remains.
func TestErrors(t *testing.T) {
	stop := errors.New("stop")
	data := sample(8, 12<<20)
	for _, f := range []Format{{"gzip", 3}, {"zstd", 3}} {
		for _, n := range []int{0, 5, 100_000, 3 << 20} {
			for _, size := range []int{1000, len(data)} {
				w, err := NewWriter(t.Context(), &failingWriter{n, stop}, Options{Format: f})
				if err != nil {
					t.Fatal(err)
				}
				_, err = w.Write(data[:size])
				if err = cmp.Or(err, w.Close()); err != stop && !(size < 100_000 && n >= 100_000) {
					t.Errorf("%v, a destination with room for %d of %d bytes: %v", f, n, size, err)
				}
				w.Abandon()
			}
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		w, err := NewWriter(ctx, io.Discard, Options{Format: f})
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.Write(data)
		cancel(stop)
		if _, err2 := w.Write(data); cmp.Or(err, err2, w.Close()) != stop {
			t.Errorf("%v: no error after the context is done", f)
		}
		w.Abandon()
		w, err = NewWriter(t.Context(), io.Discard, Options{Format: f})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Error(err)
		}
		w.Abandon()
		w.Abandon()
	}
	for _, f := range []Format{{"gzip", 0}, {"gzip", 10}, {"zstd", 0}, {"zstd", 257},
		{"brotli", 3}, {}} {
		if _, err := NewWriter(t.Context(), io.Discard, Options{Format: f}); err == nil {
			t.Errorf("no error for the format %v", f)
		}
	}
}

func TestCombineCRC(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.SliceOf(rapid.Byte()).Draw(t, "a"), rapid.SliceOf(rapid.Byte()).Draw(t, "b")
		want := crc32.ChecksumIEEE(append(bytes.Clone(a), b...))
		got := combineCRC(crc32.ChecksumIEEE(a), crc32.ChecksumIEEE(b), int64(len(b)))
		if got != want {
			t.Fatalf("combineCRC = %08x, want %08x", got, want)
		}
	})
}

func FuzzDecodeTable(f *testing.F) {
	f.Add([]byte(tableMagic + "12345678"))
	f.Add(Table{Offset: 10, Entries: []Entry{{Key{1}, 2, 3, 4}, {}}}.Encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		if table, err := DecodeTable(data); err == nil && !bytes.Equal(table.Encode(), data) {
			t.Errorf("%+v is encoded as other bytes", table)
		}
	})
}

// BenchmarkWriter compresses 64 MiB. Run it with -cpu 1,2.
func BenchmarkWriter(b *testing.B) {
	data := sample(9, 64<<20)
	if file := os.Getenv("LAYERBUILD_BENCH_TAR"); file != "" {
		var err error
		if data, err = os.ReadFile(file); err != nil {
			b.Fatal(err)
		}
	}
	for _, f := range []Format{{"gzip", 3}, {"zstd", 3}} {
		for _, o := range []Options{{Format: f}, {Format: f, Earlier: find(b, Table{}, nil)}} {
			name := f.Compression
			if o.Earlier != nil {
				name += "/keys"
			}
			b.Run(name, func(b *testing.B) {
				b.SetBytes(int64(len(data)))
				var n count
				for b.Loop() {
					n = 0
					w, err := NewWriter(b.Context(), &n, o)
					if err != nil {
						b.Fatal(err)
					}
					for p := data; len(p) > 0; p = p[min(len(p), 1<<20):] {
						if _, err := w.Write(p[:min(len(p), 1<<20)]); err != nil {
							b.Fatal(err)
						}
					}
					if err := w.Close(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(n)/float64(len(data)), "ratio")
			})
		}
	}
}

// TestOneBlock checks that a stream of one block has the bytes that the library writes.
func TestOneBlock(t *testing.T) {
	for _, n := range []int{0, 1, 100, 70_000, gzipLimits.min - 1} {
		data := sample(uint64(n), n)
		for level := 1; level <= 9; level++ {
			var want bytes.Buffer
			w, err := kgzip.NewWriterLevel(&want, level)
			if err == nil {
				_, err = w.Write(data)
			}
			if err = cmp.Or(err, w.Close()); err != nil {
				t.Fatal(err)
			}
			if got, _ := deflate(t, Options{Format: Format{"gzip", level}}, data,
				1000); !bytes.Equal(got, want.Bytes()) {
				t.Errorf("level %d, %d bytes: the gzip stream differs from the library's", level, n)
			}
		}
	}
}

// Rates in bytes per second, measured on one core of the machine of docs/BENCHMARKS.md with 246 MB
// of a Go distribution.
const (
	gzipRate   = 165e6  // compressing with gzip, level 3
	digestRate = 1526e6 // SHA-256: of the tar before, and of the blob after the compression
)

// sleeper takes the time for processing bytes that a core takes, but no core.
type sleeper struct {
	rate  float64
	start time.Time
	n     float64
}

func (s *sleeper) Write(p []byte) (int, error) {
	if s.start.IsZero() {
		s.start = time.Now()
	}
	s.n += float64(len(p))
	time.Sleep(time.Until(s.start.Add(time.Duration(s.n / s.rate * 1e9))))
	return len(p), nil
}

// simulated is a codec that sleeps instead of compressing.
type simulated struct{ gzipCodec }

func (*simulated) compress(dst, _, block []byte, _ bool) ([]byte, error) {
	time.Sleep(time.Duration(float64(len(block)) / gzipRate * 1e9))
	return append(dst, block[:len(block)*4/10]...), nil
}

// BenchmarkSimulatedCores shows the throughput of the pipeline on machines with more cores: each
// core that compresses sleeps for the time that it would need. Run it once for each number of
// cores: go test -run '^$' -bench SimulatedCores -cpu 16 ./internal/blocks.
func BenchmarkSimulatedCores(b *testing.B) {
	data := sample(10, 64<<20)
	const times = 8
	b.SetBytes(times * int64(len(data)))
	for b.Loop() {
		w := newWriter(b.Context(), &sleeper{rate: digestRate}, Options{}, &simulated{})
		tar := &sleeper{rate: digestRate}
		for range times {
			for p := data; len(p) > 0; p = p[min(len(p), 1<<20):] {
				_, _ = tar.Write(p[:min(len(p), 1<<20)]) // it returns no error
				if _, err := w.Write(p[:min(len(p), 1<<20)]); err != nil {
					b.Fatal(err)
				}
			}
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// count counts the bytes that are written to it.
type count int64

func (n *count) Write(p []byte) (int, error) { *n += count(len(p)); return len(p), nil }
