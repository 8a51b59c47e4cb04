package analyze

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"go.uber.org/goleak"
)

func entriesOf(t *testing.T, table *Table) []Entry {
	t.Helper()
	var list []Entry
	for e, err := range table.All() {
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, *e)
	}
	return list
}

func TestTable(t *testing.T) {
	defer goleak.VerifyNone(t)
	plain := pack(t, []item{
		dir("d"), file("d/"+strings.Repeat("n", 200), "x").chown(70000).attr("v").at(-5),
		file("d/b", size('b', 700<<10)), link("d/c", "d/b"),
		symlink("s", "/d/b"), whiteout("d/w"), opaque("d"), {kind: 'p', path: "p", mode: 0o600},
		file(".wh..wh.plnk/1.2", "aufs"), file("empty", ""),
	})
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(plain)
	z.Close()
	a, err := Scan(context.Background(), bytes.NewReader(plain))
	if err != nil {
		t.Fatal(err)
	}
	b, err := Scan(context.Background(), iotest.OneByteReader(&packed))
	if err != nil {
		t.Fatal(err)
	}
	if a.Tar != int64(len(plain)) || a.Entries != 9 {
		t.Errorf("%d bytes, %d entries, want %d, 9", a.Tar, a.Entries, len(plain))
	}
	data, err := b.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var c Table
	if err := c.UnmarshalBinary(data); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(entriesOf(t, a), entriesOf(t, &c)) || c.Tar != a.Tar {
		t.Errorf("read again: %+v\nwant %+v", entriesOf(t, &c), entriesOf(t, a))
	}
	for i := range data {
		bad := slices.Clone(data)
		bad[i] ^= 1
		if err := new(Table).UnmarshalBinary(bad); err == nil {
			t.Fatalf("a table with a wrong byte %d was taken", i)
		}
	}
}

func TestScanErrors(t *testing.T) {
	defer goleak.VerifyNone(t)
	plain := pack(t, []item{file("a", size('a', 3<<20)), file("b", "b")})
	if _, err := Scan(context.Background(), bytes.NewReader(plain[:2<<20])); !errors.Is(err,
		io.ErrUnexpectedEOF) {
		t.Errorf("a layer cut short: %v", err)
	}
	broken := errors.New("broken")
	if _, err := Scan(context.Background(),
		io.MultiReader(bytes.NewReader(plain[:1<<20]), iotest.ErrReader(broken))); !errors.Is(err,
		broken) {
		t.Errorf("a reader's error: %v", err)
	}
	if _, err := Scan(context.Background(),
		bytes.NewReader(pack(t, []item{file(".wh.d/x", "x")}))); err == nil {
		t.Error("a name below a whiteout was taken")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Scan(ctx, bytes.NewReader(plain)); err != nil &&
		!errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// FuzzTable checks that reading any input as a table ends and does not panic.
func FuzzTable(f *testing.F) {
	t, err := Scan(context.Background(), bytes.NewReader(pack(f,
		[]item{dir("d"), file("d/a", "x"), link("d/b", "d/a"), whiteout("w"), symlink("s", "d")})))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(t.data, t.Entries)
	f.Fuzz(func(t *testing.T, data []byte, entries int) {
		n := 0
		for e, err := range (&Table{data: data, Entries: entries}).All() {
			if err != nil {
				break
			}
			if n++; e.Type > Fifo {
				t.Errorf("entry %+v", e)
			}
		}
		b := newBuilder()
		_ = b.apply(&Table{data: data, Entries: entries}, &Layer{})
	})
}

// TestEncodeJSON checks that characters that a terminal interprets are escaped, and that decoding
// restores the value.
func TestEncodeJSON(t *testing.T) {
	in := "a\u009b2J\u202eb\u2028 ü 日本 \x1b[0m \u00ad"
	var b bytes.Buffer
	if err := EncodeJSON(&b, map[string]string{"k": in}); err != nil {
		t.Fatal(err)
	}
	for _, r := range b.String() {
		if r != '\n' && !plainRune(r) {
			t.Errorf("%q has %U", b.String(), r)
		}
	}
	var out map[string]string
	if err := json.Unmarshal(b.Bytes(), &out); err != nil || out["k"] != in {
		t.Errorf("%q became %q, %v", in, out["k"], err)
	}
	if !strings.Contains(b.String(), "ü 日本") {
		t.Errorf("letters are escaped: %s", b.String())
	}
}
