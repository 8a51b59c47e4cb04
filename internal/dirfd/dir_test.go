package dirfd

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// record returns a struct linux_dirent64 as getdents64(2) writes it: the name has a NUL, and zeros
// fill the record up to a multiple of eight bytes.
func record(ino uint64, typ uint8, name string) []byte {
	size := (nameOffset + len(name) + 1 + 7) &^ 7
	b := make([]byte, size)
	binary.NativeEndian.PutUint64(b, ino)
	binary.NativeEndian.PutUint16(b[16:], uint16(size))
	b[18] = typ
	copy(b[nameOffset:], name)
	return b
}

// TestNextRecord parses buffers whose last record, which is shorter than unix.Dirent, ends exactly
// at the end of an allocation. The race detector (checkptr) reports accesses beyond it.
func TestNextRecord(t *testing.T) {
	tests := [][]Record{
		{{[]byte("a"), 1, unix.DT_REG}},
		{{[]byte("fits123"), 1 << 40, unix.DT_DIR}}, // the NUL is the last byte
		{{[]byte("."), 1, unix.DT_DIR}, {[]byte(".."), 2, unix.DT_DIR},
			{[]byte("a b\n"), 3, unix.DT_UNKNOWN}},
		{{[]byte(strings.Repeat("n", 255)), 7, unix.DT_LNK}, {[]byte("x"), 8, unix.DT_FIFO}},
	}
	for _, want := range tests {
		var b []byte
		for _, d := range want {
			b = append(b, record(d.Ino, d.Type, string(d.Name))...)
		}
		b = append(make([]byte, 0, len(b)), b...)
		for i, w := range want {
			var got Record
			if got, b = NextRecord(b); string(got.Name) != string(w.Name) || got.Ino != w.Ino ||
				got.Type != w.Type {
				t.Errorf("record %d of %d is %q, %d, %d, want %q, %d, %d", i+1, len(want),
					got.Name, got.Ino, got.Type, w.Name, w.Ino, w.Type)
			}
		}
		if len(b) != 0 {
			t.Errorf("%d bytes are left after %d records", len(b), len(want))
		}
	}
}

// TestRead lists a directory that needs several calls of getdents64(2).
func TestRead(t *testing.T) {
	dir := t.TempDir()
	want := makeFiles(t, dir, 2000)
	f := openDir(t, dir)
	var names Names
	if err := names.Read(int(f.Fd())); err != nil {
		t.Fatal(err)
	}
	if len(names.Entries) != len(want) {
		t.Fatalf("%d names, want %d", len(names.Entries), len(want))
	}
	names.Sort()
	for i, e := range names.Entries {
		if got := string(names.Name(e)); got != want[i] {
			t.Fatalf("name %d is %q, want %q", i, got, want[i])
		}
	}
}

// TestReadSome reads a directory in parts.
func TestReadSome(t *testing.T) {
	dir := t.TempDir()
	want := makeFiles(t, dir, 6000)
	f := openDir(t, dir)
	var got []string
	parts := 0
	for more := true; more; parts++ {
		var names Names
		var err error
		if more, err = names.ReadSome(int(f.Fd()), 1000); err != nil {
			t.Fatal(err)
		}
		if more && len(names.Entries) < 1000 {
			t.Errorf("a part has %d names", len(names.Entries))
		}
		for _, e := range names.Entries {
			got = append(got, string(names.Name(e)))
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%d names, want %d", len(got), len(want))
	}
	if parts < 2 {
		t.Errorf("the directory was read in %d parts", parts)
	}
}

// TestList lists a directory twice through the same descriptor, the second time from its beginning.
func TestList(t *testing.T) {
	dir := t.TempDir()
	want := makeFiles(t, dir, 2000)
	f := openDir(t, dir)
	for range 2 {
		got, err := List(int(f.Fd()))
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("List: %d names, %v, want %d names in order", len(got), err, len(want))
		}
	}
	if _, err := List(-1); err != unix.EBADF {
		t.Errorf("List of a closed descriptor: %v, want %v", err, unix.EBADF)
	}
}

func openDir(t testing.TB, dir string) *os.File {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// makeFiles makes n empty files and returns their names in order.
func makeFiles(t testing.TB, dir string, n int) []string {
	t.Helper()
	var names []string
	for i := range n {
		name := fmt.Sprintf("file-%06d.txt", i)
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	return names
}

// BenchmarkRead lists a directory of 10,000 files.
func BenchmarkRead(b *testing.B) {
	dir := b.TempDir()
	const n = 10_000
	makeFiles(b, dir, n)
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(fd)
	var names Names
	b.ReportAllocs()
	for b.Loop() {
		if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
			b.Fatal(err)
		}
		if err := names.Read(fd); err != nil {
			b.Fatal(err)
		}
		if len(names.Entries) != n {
			b.Fatalf("%d names, want %d", len(names.Entries), n)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "files/s")
}

// BenchmarkList lists directories of 10 and 10,000 files.
func BenchmarkList(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			dir := b.TempDir()
			makeFiles(b, dir, n)
			fd := int(openDir(b, dir).Fd())
			b.ReportAllocs()
			for b.Loop() {
				if list, err := List(fd); err != nil || len(list) != n {
					b.Fatalf("%d names, %v, want %d", len(list), err, n)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "files/s")
		})
	}
}

// BenchmarkParse parses the records of 1,000 files, without system calls.
func BenchmarkParse(b *testing.B) {
	var buf []byte
	for i := range 1000 {
		buf = append(buf, record(uint64(i), unix.DT_REG, fmt.Sprintf("file-%06d.txt", i))...)
	}
	var names Names
	b.ReportAllocs()
	for b.Loop() {
		names.Entries, names.arena = names.Entries[:0], names.arena[:0]
		names.parse(buf)
	}
	b.ReportMetric(1000*float64(b.N)/b.Elapsed().Seconds(), "files/s")
}
