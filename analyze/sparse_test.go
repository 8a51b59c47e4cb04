package analyze

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"testing"
)

// run is a stored part of a sparse file.
type run struct {
	offset int64
	data   string
}

// sparseTar makes a layer of one sparse file in GNU's old form (tar.h of GNU tar, oldgnu_header),
// which archive/tar reads and does not write. Four runs fit into it.
func sparseTar(name string, size int64, runs ...run) []byte {
	number := func(n int64) []byte { // the form for numbers that have no 11 octal digits
		var b [12]byte
		binary.BigEndian.PutUint64(b[4:], uint64(n))
		b[0] = 0x80
		return b[:]
	}
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	stored := ""
	for i, r := range runs {
		copy(h[386+24*i:], number(r.offset))
		copy(h[398+24*i:], number(int64(len(r.data))))
		stored += r.data
	}
	copy(h[124:], fmt.Sprintf("%011o\x00%011o\x00", len(stored), 0))
	h[156] = 'S'
	copy(h[257:], "ustar  \x00")
	copy(h[483:], number(size))
	copy(h[148:], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	b := append(h, stored...)
	b = append(b, make([]byte, -len(b)&511)...)
	return append(b, make([]byte, 1024)...)
}

// TestSparse checks that a layer of two kilobytes with a file of a tebibyte is analyzed quickly,
// and that the positions of its holes do not change its Content.
func TestSparse(t *testing.T) {
	const tebi = 1 << 40
	one := sparseTar("a", tebi, run{tebi - 4, "tail"})
	before := analyzed(t, 0, one, sparseTar("a", tebi, run{4095, "x"}, run{8 << 30, "y"}),
		pack(t, []item{file("b", "b")}))
	if l := before.Layers[0]; l.Bytes != tebi || l.Dead != tebi ||
		l.DeadCompressed.Bytes > l.Compressed {
		t.Errorf("%+v", l)
	}
	out, p := pruned(t, 0, [][]byte{one, sparseTar("a", tebi, run{8 << 30, "y"}),
		pack(t, []item{file("b", "b")})})
	if p.Bytes != tebi || len(unpackedNames(t, out[0])) != 0 || len(unpackedNames(t, out[1])) != 1 {
		t.Errorf("%d bytes pruned, %q %q stay", p.Bytes, unpackedNames(t, out[0]),
			unpackedNames(t, out[1]))
	}
	if _, err := Image(context.Background(),
		input(0, sparseTar("a", 1<<62, run{0, "a"}),
			sparseTar("b", 1<<62, run{0, "a"}))); err == nil {
		t.Error("sizes whose sum overflows were taken")
	}
}

func unpackedNames(t *testing.T, layer []byte) (names []string) {
	t.Helper()
	table, err := Scan(context.Background(), bytes.NewReader(layer))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entriesOf(t, table) {
		names = append(names, e.Path)
	}
	return names
}

// TestSparseContent checks that a file has the same Content whether its zeros are stored, omitted
// or partly omitted, and another Content if a byte differs or is at another offset.
func TestSparseContent(t *testing.T) {
	content := func(layer []byte) Content {
		t.Helper()
		table, err := Scan(context.Background(), bytes.NewReader(layer))
		if err != nil {
			t.Fatal(err)
		}
		return entriesOf(t, table)[0].Content
	}
	for _, size := range []int64{100 << 10, largeFile, largeFile + 1, largeFile + 4097} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			dense := make([]byte, size)
			put := func(offset int64, s string) { copy(dense[offset:], s) }
			put(0, "begin")
			put(4094, "across")
			put(50_000, "middle")
			put(size-3, "end")
			runs := []run{{0, "begin"}, {4094, "across"}, {50_000, "middle"}, {size - 3, "end"}}
			want := content(pack(t, []item{file("f", string(dense))}))
			if got := content(sparseTar("f", size, runs...)); got != want {
				t.Errorf("with holes %x, without %x", got, want)
			}
			// Runs with other boundaries.
			wider := []run{{0, string(dense[:4096])}, {4096, string(dense[4096:6000])},
				{49_999, string(dense[49_999:60_000])}, {size - 100, string(dense[size-100:])}}
			if got := content(sparseTar("f", size, wider...)); got != want {
				t.Errorf("with other holes %x, without %x", got, want)
			}
			for i := range runs {
				other := append([]run(nil), runs...)
				other[i].data = "x" + other[i].data[1:]
				if content(sparseTar("f", size, other...)) == want {
					t.Errorf("another byte in run %d is the same content", i)
				}
				other[i] = runs[i]
				if i > 0 && i < 3 {
					other[i].offset += 4096
					if content(sparseTar("f", size, other...)) == want {
						t.Errorf("run %d elsewhere is the same content", i)
					}
				}
			}
		})
	}
}

// TestRewriteManyInARow drops many consecutive entries of a layer and sends the rest through a pipe
// to a buffered reader. Empty writes would become empty reads there, and bufio.Reader accepts no
// more than 100 of those.
func TestRewriteManyInARow(t *testing.T) {
	items := []item{dir("d")}
	for i := range 300 {
		items = append(items, file(fmt.Sprintf("d/%03d", i), "x"))
	}
	items = append(items, file("keep", "k"))
	layer := pack(t, items)
	drop := make([]bool, len(items))
	for i := range 301 {
		drop[i] = true
	}
	r, w := io.Pipe()
	go func() {
		w.CloseWithError(Rewrite(context.Background(), bytes.NewReader(layer), drop, nil, w))
	}()
	table, err := Scan(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	if list := entriesOf(t, table); len(list) != 1 || list[0].Path != "keep" {
		t.Errorf("%+v stay", list)
	}
}
