package unpack

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// maxContent limits the content that read and readStandard read, since holes of a sparse file may
// have any size.
const maxContent = 1 << 20

// read returns a description of every entry of a stream, with its content.
func read(data []byte) (string, error) {
	return readWith(data, func(r *Reader, h *Header) ([]byte, error) { return io.ReadAll(r) })
}

// readData is like read, with Reader.Data.
func readData(data []byte) (string, error) {
	return readWith(data, func(r *Reader, h *Header) ([]byte, error) {
		content := make([]byte, h.Size)
		for {
			at, b, err := r.Data()
			if err == io.EOF {
				return content, nil
			}
			if err != nil {
				return nil, err
			}
			copy(content[at:], b)
		}
	})
}

func readWith(data []byte, contentOf func(*Reader, *Header) ([]byte, error)) (string, error) {
	var b strings.Builder
	r := NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return b.String(), nil
		}
		if err != nil {
			return b.String(), err
		}
		var content []byte
		if h.Size <= maxContent {
			if content, err = contentOf(r, h); err != nil {
				return b.String(), err
			}
		}
		fmt.Fprintf(&b, "%c %q %q %o %d:%d %d %d.%d %d,%d %q", h.Type, h.Name, h.Link, h.Mode,
			h.UID, h.GID, h.Size, h.Sec, h.Nsec, h.Major, h.Minor, content)
		x := map[string]string{}
		for _, a := range h.Xattrs {
			if _, twice := x[a.Name]; twice {
				return b.String(), fmt.Errorf("attribute %q twice", a.Name)
			}
			x[a.Name] = string(a.Value)
		}
		fmt.Fprintf(&b, " %q\n", x)
	}
}

// readStandard is like read, with the standard library.
func readStandard(data []byte) (string, error) {
	var b strings.Builder
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return b.String(), nil
		}
		if err != nil {
			return b.String(), err
		}
		if h.Typeflag == tar.TypeXGlobalHeader || h.Typeflag == 'V' {
			continue
		}
		var content []byte
		if h.Size <= maxContent {
			if content, err = io.ReadAll(r); err != nil {
				return b.String(), err
			}
		}
		kind, size := h.Typeflag, h.Size
		switch kind {
		case tar.TypeReg:
		case tar.TypeGNUSparse, tar.TypeCont:
			kind = tar.TypeReg
		default:
			size = 0 // archive/tar returns the size in the header, but no content
		}
		major, minor := h.Devmajor, h.Devminor
		if kind != tar.TypeChar && kind != tar.TypeBlock {
			major, minor = 0, 0
		}
		fmt.Fprintf(&b, "%c %q %q %o %d:%d %d %d.%d %d,%d %q", kind, h.Name, h.Linkname,
			h.Mode&0o7777, owner(h.Uid), owner(h.Gid), size,
			h.ModTime.Unix(), h.ModTime.Nanosecond(), major, minor, content)
		x := map[string]string{}
		for k, v := range h.PAXRecords {
			if name, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
				x[name] = v
			}
		}
		fmt.Fprintf(&b, " %q\n", x)
	}
}

// owner returns the id that chown(2) uses for a small negative number.
func owner(id int) int {
	if id < 0 && id >= math.MinInt32 {
		return int(uint32(id))
	}
	return id
}

// streams returns seeds and test data: each format of headers, and rare features of each.
func streams(t testing.TB) map[string][]byte {
	all := map[string][]byte{
		"ordinary": stream(t, "dir d 0755 1:2 @3\nfile d/f 0644 5:6 @7 content\nlink l 0777 1:1 @2 -> d/f\nhardlink h => d/f\nfifo p 0600\nchar c 0600 1:3\nfile x 0600 [user.k=\"\\x00v\"]"),
		"empty":    make([]byte, 1024),
		"nothing":  nil,
	}
	long := strings.Repeat("a/long/name/", 30) + "end"
	for _, format := range []tar.Format{tar.FormatPAX, tar.FormatGNU, tar.FormatUSTAR} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		name := long
		mtime := time.Unix(-5, 250_000_000)
		uid := 3_000_000
		if format == tar.FormatUSTAR {
			name, mtime, uid = strings.Repeat("d", 100)+"/"+strings.Repeat("n", 90),
				time.Unix(5, 0), 5
		}
		if format == tar.FormatGNU {
			mtime = time.Unix(-5, 0)
		}
		for _, h := range []*tar.Header{
			{Name: name, Size: 3, Uid: uid, Gid: 7, ModTime: mtime, Mode: 0o4755},
			{Name: "l", Linkname: long[:90], Typeflag: tar.TypeSymlink},
			{Name: name + "/", Typeflag: tar.TypeDir, Mode: 0o1777},
		} {
			h.Format = format
			if h.Typeflag == tar.TypeSymlink && format != tar.FormatUSTAR {
				h.Linkname = long
			}
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(format, err)
			}
			if h.Size > 0 {
				io.WriteString(w, "abc")
			}
		}
		w.Close()
		all[format.String()] = b.Bytes()
	}
	return all
}

func TestReaderReadsAsTheStandardLibrary(t *testing.T) {
	for name, data := range streams(t) {
		want, err := readStandard(data)
		if err != nil {
			t.Fatal(err)
		}
		got, err := read(data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s differs (-want +got):\n%s", name, d)
		}
	}
}

// TestReaderSparse reads archives of sparse files that GNU tar has made, in each of its formats.
func TestReaderSparse(t *testing.T) {
	gnu, err := exec.LookPath("tar")
	if err != nil {
		t.Skip("needs GNU tar")
	}
	dir := t.TempDir()
	sizes := map[string]int64{"end": 1 << 20, "all": 1 << 20, "many": 8 << 20}
	for name, size := range sizes {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		switch name {
		case "end":
			f.WriteAt([]byte("the end"), size-7)
		case "many": // more segments than fit into the header and one block
			for at := int64(0); at < size; at += 128 << 10 {
				f.WriteAt([]byte(fmt.Sprint("at ", at)), at+5)
			}
		}
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	for _, args := range [][]string{
		{"--format=gnu"},
		{"--format=pax", "--sparse-version=0.0"}, {"--format=pax", "--sparse-version=0.1"},
		{"--format=pax", "--sparse-version=1.0"},
	} {
		data, err := exec.Command(gnu, append(args, "-cS", "-C", dir, "end",
			"all", "many")...).Output()
		if err != nil {
			t.Skipf("needs GNU tar: %v", err)
		}
		if len(data) > 5<<20 {
			t.Fatalf("%v: %d bytes: not sparse", args, len(data))
		}
		to := t.TempDir()
		if _, err := apply(t, to, data, mine(Options{})); err != nil {
			t.Errorf("%v: %v", args, err)
			continue
		}
		r := NewReader(bytes.NewReader(data))
		for range sizes {
			h, err := r.Next()
			if err != nil {
				t.Fatalf("%v: %v", args, err)
			}
			want, err := os.ReadFile(filepath.Join(dir, string(h.Name)))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%v: Read of %s differs: %d bytes of %d, %v", args, h.Name,
					len(got), len(want), err)
			}
			if got, err := os.ReadFile(filepath.Join(to, string(h.Name))); err != nil ||
				!bytes.Equal(got, want) {
				t.Errorf("%v: unpacked %s differs: %d bytes of %d, %v", args, h.Name,
					len(got), len(want), err)
			}
		}
	}
}

// patch changes a header of a stream and corrects its checksum.
func patch(data []byte, at int, with string) []byte {
	data = bytes.Clone(data)
	copy(data[at:], with)
	header := data[:512]
	sum := int64(256)
	for i, c := range header {
		if i < 148 || i >= 156 {
			sum += int64(c)
		}
	}
	copy(header[148:], fmt.Sprintf("%06o\x00 ", sum))
	return data
}

func TestReaderErrors(t *testing.T) {
	file := stream(t, "file f 0600 content")
	pax := stream(t, "file f 0600 [user.k=v] content")
	for _, test := range []struct {
		name string
		data []byte
		is   error
	}{
		{"cut in a header", file[:100], io.ErrUnexpectedEOF},
		{"cut in content", file[:515], io.ErrUnexpectedEOF},
		{"cut in an extended header", pax[:520], io.ErrUnexpectedEOF},
		{"noise", bytes.Repeat([]byte("noise..."), 200), ErrFormat},
		{"one block of zeros", append(make([]byte, 512), file...), ErrFormat},
		{"negative size", patch(file, 124, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
			ErrFormat},
		{"size beyond all bounds", patch(file, 124,
			"\x80\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00"), ErrFormat},
		{"size that is no number", patch(file, 124, "12x45678901"), ErrFormat},
		{"owner -1", patch(file, 108, "\xff\xff\xff\xff\xff\xff\xff\xff"), ErrFormat},
		{"owner 2^32", patch(file, 108, "\x80\x00\x00\x01\x00\x00\x00\x00"), ErrFormat},
		{"unknown type", patch(file, 156, "Q"), ErrFormat},
		{"huge extended header", patch(pax, 124, "77777777777"), ErrFormat},
		{"huge long name", patch(patch(file, 156, "L"), 124, "77777777777"), ErrFormat},
		{"record longer than its header", bytes.Replace(pax, []byte(" SCHILY"),
			[]byte("9SCHILY"), 1), ErrFormat},
	} {
		if _, err := read(test.data); !errors.Is(err, test.is) {
			t.Errorf("%s: %v, want %v", test.name, err, test.is)
		}
	}
	slash := rawFile("unusual/", "")
	if _, err := read([]byte(slash)); err == nil || strings.Count(err.Error(), "unusual/") != 1 {
		t.Errorf("a file with a slash: %v, want an error with its name once", err)
	}
	if got, err := read(patch(file, 108, "\xff\xff\xff\xff\xff\xff\xff\xfe")); err != nil ||
		!strings.Contains(got, "4294967294:") {
		t.Errorf("owner -2 (nobody) reads as %q, %v", got, err)
	}
}

func TestReaderAllocates(t *testing.T) {
	data := stream(t, strings.Repeat("file some/path/of/usual/length 0644 1:2 @3 content\n", 2000))
	allocs := testing.AllocsPerRun(5, func() {
		r := NewReader(bytes.NewReader(data))
		for {
			if _, err := r.Next(); err == io.EOF {
				return
			} else if err != nil {
				t.Fatal(err)
			}
		}
	})
	if allocs > 20 {
		t.Errorf("reading 2000 entries allocates %v times", allocs)
	}
}

func TestIsTar(t *testing.T) {
	for name, data := range streams(t) {
		if got, want := IsTar(data), len(data) > 1024; got != want {
			t.Errorf("IsTar(%s) = %v, want %v", name, got, want)
		}
	}
	if IsTar(bytes.Repeat([]byte("#!/bin/sh\n"), 100)) {
		t.Error("a script is taken for a tar stream")
	}
}

// BenchmarkReader compares Reader with archive/tar on 10,000 small files.
func BenchmarkReader(b *testing.B) {
	data := stream(b, strings.Repeat(
		"file usr/share/doc/some/path/of/usual/length 0644 1:2 @3 content\n", 10000))
	readers := map[string]func() error{
		"Reader": func() error {
			r := NewReader(bytes.NewReader(data))
			for {
				if _, err := r.Next(); err != nil {
					return err
				}
			}
		},
		"archive∕tar": func() error {
			r := tar.NewReader(bytes.NewReader(data))
			for {
				if _, err := r.Next(); err != nil {
					return err
				}
			}
		},
	}
	for name, read := range readers {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if err := read(); err != io.EOF {
					b.Fatal(err)
				}
			}
		})
	}
}
