package faults

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerbuild/layerbuild/test/lab"
)

// layout writes an OCI layout with one image, whose layers are streamed, so that this process stays
// small.
func layout(t *testing.T, dir, mediaType string, layers ...func(w io.Writer) error) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	blobs := filepath.Join(dir, "blobs/sha256")
	must(os.MkdirAll(blobs, 0o755))
	put := func(mediaType string, raw []byte) ocispec.Descriptor {
		d := digest.FromBytes(raw)
		must(os.WriteFile(filepath.Join(blobs, d.Encoded()), raw, 0o644))
		return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(raw))}
	}
	var img dockerspec.DockerOCIImage
	img.OS, img.Architecture, img.RootFS.Type = "linux", "amd64", "layers"
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest}
	for _, write := range layers {
		f, err := os.Create(filepath.Join(blobs, "layer"))
		must(err)
		buffered := bufio.NewWriterSize(f, 1<<20)
		packed, plain := digest.Canonical.Digester(), digest.Canonical.Digester()
		compress, err := compressor(mediaType, io.MultiWriter(buffered, packed.Hash()))
		must(err)
		must(write(io.MultiWriter(compress, plain.Hash())))
		must(compress.Close())
		must(buffered.Flush())
		info, err := f.Stat()
		must(err)
		must(f.Close())
		must(os.Rename(f.Name(), filepath.Join(blobs, packed.Digest().Encoded())))
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: mediaType,
			Digest: packed.Digest(), Size: info.Size()})
		img.RootFS.DiffIDs = append(img.RootFS.DiffIDs, plain.Digest())
	}
	raw, err := json.Marshal(img)
	must(err)
	m.Config = put(ocispec.MediaTypeImageConfig, raw)
	raw, err = json.Marshal(m)
	must(err)
	d := put(m.MediaType, raw)
	raw, err = json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{d}})
	must(err)
	must(os.WriteFile(filepath.Join(dir, "index.json"), raw, 0o644))
	must(os.WriteFile(filepath.Join(dir, "oci-layout"),
		[]byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
}

func compressor(mediaType string, w io.Writer) (io.WriteCloser, error) {
	switch mediaType {
	case ocispec.MediaTypeImageLayerGzip:
		return gzip.NewWriterLevel(w, gzip.BestSpeed)
	case ocispec.MediaTypeImageLayerZstd:
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest),
			zstd.WithEncoderConcurrency(1))
	}
	return nopCloser{w}, nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// entries returns a function that writes a tar of n entries. header makes the header of each.
func entries(n int, header func(i int) *tar.Header) func(io.Writer) error {
	return func(w io.Writer) error {
		tw := tar.NewWriter(w)
		for i := range n {
			if err := tw.WriteHeader(header(i)); err != nil {
				return err
			}
		}
		return tw.Close()
	}
}

// TestManyEntries checks that layers of millions of entries are unpacked within the memory limit,
// or that the error names a limit.
func TestManyEntries(t *testing.T) {
	lab.Root(t)
	n := 10_000
	if whole() {
		n = 5_000_000
	}
	tests := []struct {
		name   string
		header func(i int) *tar.Header
		err    string // an accepted error
	}{
		{"files", func(i int) *tar.Header {
			return &tar.Header{Typeflag: tar.TypeReg,
				Name: fmt.Sprintf("d%d/f%d", i/1000, i), Mode: 0o644}
		}, ""},
		{"directories", func(i int) *tar.Header {
			return &tar.Header{Typeflag: tar.TypeDir,
				Name: fmt.Sprintf("d%d/d%d/", i/1000, i), Mode: 0o755}
		}, ""},
		{"directories without entries", func(i int) *tar.Header {
			return &tar.Header{Typeflag: tar.TypeReg,
				Name: fmt.Sprintf("d%d/d%d/f", i/1000, i), Mode: 0o644}
		}, "directories that have no entry of their own"},
		{"one name", func(i int) *tar.Header {
			return &tar.Header{Typeflag: []byte{tar.TypeReg, tar.TypeDir, tar.TypeFifo}[i%3],
				Name: "name", Mode: 0o644}
		}, ""},
		{"hard links", func(i int) *tar.Header {
			if i == 0 {
				return &tar.Header{Typeflag: tar.TypeReg, Name: "f", Mode: 0o644}
			}
			return &tar.Header{Typeflag: tar.TypeLink, Name: fmt.Sprint("l", i), Linkname: "f"}
		}, "too many links"},
		{"whiteouts", func(i int) *tar.Header {
			return &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprint(".wh.f", i), Mode: 0o644}
		}, "too many whiteouts"},
	}
	const unpacked = "FROM base AS b\nWORKDIR /w\nFROM scratch\nCOPY --from=b /w /w\n"
	for _, way := range []struct{ name, driver, dockerfile string }{
		{"overlay", "overlay", unpacked},
		{"copy", "copy", unpacked},
		{"outline", "overlay", "FROM base\nWORKDIR /w\n"},
	} {
		for _, tt := range tests {
			t.Run(way.name+"/"+tt.name, func(t *testing.T) {
				l := lab.New(t)
				// The check holds the merged tree in memory: 2.1 GB with five million files.
				l.Env = append(l.Env, "LAYERBUILD_CHECK_LAYERS=")
				if whole() { // removing millions of files from a disk takes many minutes
					mountOn(t, l.State, "tmpfs", "size=20g,nr_inodes=0")
				}
				layout(t, filepath.Join(l.Dir, "base"), ocispec.MediaTypeImageLayerGzip,
					entries(n, tt.header))
				l.Write(".dockerignore", "*\n", "Dockerfile", way.dockerfile)
				r := run(t, build(l, "--driver="+way.driver,
					"--build-context=base=oci-layout://"+filepath.Join(l.Dir, "base"),
					"--platform=linux/amd64"))
				t.Logf("%d entries: status %d, %d MiB", n, r.status, r.peak>>20)
				if r.status != 0 && (tt.err == "" || !strings.Contains(r.log, tt.err)) {
					t.Errorf("status %d\n%s", r.status, tail(r.log))
				}
			})
		}
	}
}

// TestBombs checks that unpacking data that expand to a large size needs little memory.
func TestBombs(t *testing.T) {
	lab.Root(t)
	size := int64(1 << 30)
	if whole() {
		size = 20 << 30
	}
	zeros := func(w io.Writer) error {
		tw := tar.NewWriter(w)
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "zeros", Mode: 0o644,
			Size: size}); err != nil {
			return err
		}
		buf := make([]byte, 1<<20)
		for range size >> 20 {
			if _, err := tw.Write(buf); err != nil {
				return err
			}
		}
		return tw.Close()
	}
	sparse := func(w io.Writer) error {
		// GNU's old format: no segment, a size of 4 TiB.
		var b [512]byte
		copy(b[:], "sparse")
		copy(b[100:], "0000644\x000000000\x000000000\x0000000000000\x0000000000000\x00")
		b[156] = 'S'
		copy(b[257:], "ustar  \x00")
		b[483] = 0x80
		b[489] = 4 // 4 << 40
		copy(b[148:156], "        ")
		sum := 0
		for _, c := range b {
			sum += int(c)
		}
		copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
		_, err := w.Write(append(b[:], make([]byte, 1024)...))
		return err
	}
	specials := func(w io.Writer) error {
		tw := tar.NewWriter(w)
		for i := range 400 { // extended headers before an entry, each below the limit for one
			body := strings.Repeat("x", 900_000)
			record := fmt.Sprintf("%d SCHILY.xattr.user.a%03d=%s\n", len(body)+30, i, body)
			record = fmt.Sprintf("%d SCHILY.xattr.user.a%03d=%s\n",
				len(record)-len(fmt.Sprint(len(body)+30))+len(fmt.Sprint(len(record))), i, body)
			if err := rawHeader(w, 'x', int64(len(record))); err != nil {
				return err
			}
			if _, err := io.WriteString(w, record+strings.Repeat("\x00",
				(512-len(record)%512)%512)); err != nil {
				return err
			}
		}
		return tw.Close()
	}
	tests := []struct {
		name, mediaType string
		layers          []func(io.Writer) error
		err             string
	}{
		{"gzip", ocispec.MediaTypeImageLayerGzip, []func(io.Writer) error{zeros}, ""},
		{"zstd", ocispec.MediaTypeImageLayerZstd, []func(io.Writer) error{zeros}, ""},
		{"sparse", ocispec.MediaTypeImageLayer, []func(io.Writer) error{sparse}, ""},
		{"extended headers", ocispec.MediaTypeImageLayerGzip,
			[]func(io.Writer) error{specials}, "extended headers"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := lab.New(t)
			layout(t, filepath.Join(l.Dir, "base"), tt.mediaType, tt.layers...)
			l.Write(".dockerignore", "*\n", "Dockerfile", "FROM base\nWORKDIR /w\n")
			cmd := build(l, "--build-context=base=oci-layout://"+filepath.Join(l.Dir, "base"),
				"--platform=linux/amd64")
			if tt.err != "" {
				refused(t, cmd, tt.err)
				return
			}
			r := accepted(t, cmd)
			t.Logf("%d MiB", r.peak>>20)
		})
	}
}

func rawHeader(w io.Writer, kind byte, size int64) error {
	var b [512]byte
	copy(b[:], "header")
	copy(b[100:], "0000644\x000000000\x000000000\x00")
	copy(b[124:], fmt.Sprintf("%011o\x0000000000000\x00", size))
	b[156] = kind
	copy(b[257:], "ustar\x0000")
	copy(b[148:156], "        ")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	copy(b[148:], fmt.Sprintf("%06o\x00 ", sum))
	_, err := w.Write(b[:])
	return err
}

// TestArchiveBombs checks that ADD unpacks half a gigabyte of zeros, compressed in several ways,
// within the memory limit.
func TestArchiveBombs(t *testing.T) {
	lab.Need(t, "xz", "bzip2")
	size := "320M" // more than maxMemory
	if whole() {
		size = "2G"
	}
	for _, compress := range []string{"xz -0", "xz -0 --block-size=1MiB", "bzip2 -1"} {
		t.Run(compress, func(t *testing.T) {
			l := lab.New(t)
			l.Write(".dockerignore", "raw\n", "Dockerfile", "FROM scratch\nADD bomb.tar /\n")
			script := "mkdir raw && truncate -s " + size + " raw/zeros && tar -C raw -c zeros | " +
				compress + " >bomb.tar"
			lab.Output(t, "sh", "-c", "cd "+l.Dir+" && "+script)
			r := accepted(t, build(l))
			t.Logf("%d MiB", r.peak>>20)
		})
	}
}

// TestWindows checks that four layers with zstd's largest windows are unpacked within the memory
// limit, and that larger windows, and xz dictionaries of gigabytes, are refused.
func TestWindows(t *testing.T) {
	lab.Root(t)
	lab.Need(t, "zstd", "xz")
	l := lab.New(t)
	raw := filepath.Join(t.TempDir(), "raw")
	f, err := os.Create(raw)
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(1)
	buf := make([]byte, 1<<20)
	for range 160 { // random data, which fill the window
		for i := range buf {
			seed = seed*6364136223846793005 + 1442695040888963407
			buf[i] = byte(seed >> 56)
		}
		if _, err := f.Write(buf); err != nil {
			t.Fatal(err)
		}
	}
	f.Close()
	lab.Output(t, "tar", "-C", filepath.Dir(raw), "-cf", raw+".tar", "raw")
	lines := "FROM scratch AS all\n"
	for i := range 4 {
		name := fmt.Sprintf("l%d.tar.zst", i)
		lab.Output(t, "zstd", "-q", "-1", "--long=27", raw+".tar", "-o", filepath.Join(l.Dir, name))
		lines = fmt.Sprintf("FROM scratch AS s%d\nADD %s /\n", i,
			name) + lines + fmt.Sprintf("COPY --from=s%d / /%d\n", i, i)
	}
	l.Write("Dockerfile", lines)
	r := accepted(t, build(l, "-o", "type=local,dest=out"))
	t.Logf("%d MiB", r.peak>>20)
	lab.Output(t, "zstd", "-q", "-1", "--long=28", "--zstd=wlog=28", raw+".tar", "-o",
		filepath.Join(l.Dir, "large.tar.zst"))
	l.Write("Dockerfile", "FROM scratch\nADD large.tar.zst /\n")
	refused(t, build(l), "a window of")
	lab.Output(t, "sh", "-c", "head -c 1000000 "+raw+".tar | xz -0 --lzma2=preset=0,dict=1GiB > "+
		filepath.Join(l.Dir, "large.tar.xz"))
	l.Write("Dockerfile", "FROM scratch\nADD large.tar.xz /\n")
	refused(t, build(l), "dictionary")
}
