package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/layerbuild/layerbuild/diff"
)

const (
	sealGzip = "layerbuild, gzip"
	sealZstd = "layerbuild, zstd"
	stdlib   = "compress/gzip, level 6"
	tarXzf   = "tar xzf"

	// stdlibCPU is the time of compress/gzip for 1 GB, in seconds, on the machine for which the
	// goals for sealing were set.
	stdlibCPU = 24.5
)

// limits returns works that are compared with the basic operations of which they consist, and not
// with other builders.
func limits() []work {
	var each []goal
	for _, size := range full.layers {
		each = append(each, goal{of: layerSize(size), figure: memory, limit: 96e6})
	}
	return []work{
		{name: "seal", title: "Sealing 1 GB of binaries",
			what: "A directory becomes a compressed layer with both digests. The other tools " +
				"read a finished tar. compress/gzip also computes both digests, as builders with " +
				"the standard library do; gzip and zstd compute none.",
			goals: []goal{{of: sealGzip, figure: cpu, limit: 8},
				{of: sealGzip, figure: cpu, limit: 8 / stdlibCPU, than: stdlib},
				{of: sealGzip, figure: size, limit: 1.12, than: stdlib},
				{of: sealZstd, figure: cpu, limit: 6},
				{of: sealZstd, figure: cpu, limit: 6 / stdlibCPU, than: stdlib},
				{of: sealZstd, figure: size, limit: 1, than: stdlib}}, make: seal},
		{name: "unpack", title: "Unpacking a gzip layer of 47,000 entries",
			what: "With both digests, compared with tar alone.", unit: "entry",
			goals: []goal{{of: layerbuild, figure: cpu, limit: 1, than: tarXzf}}, make: unpack},
		{name: "memory", title: "Peak memory by layer size",
			what:  "layerbuild builds a COPY of binaries of the given size.",
			goals: each, make: memories},
	}
}

func seal(ctx context.Context, l *lab) ([]contender, error) {
	dir, err := l.fixture("seal", func(dir string) error {
		return binaries(dir, 0, l.sizes.sealBytes)
	})
	if err != nil {
		return nil, err
	}
	out, err := l.tempDir("seal")
	if err != nil {
		return nil, err
	}
	plain, blob := filepath.Join(out, "plain.tar"), filepath.Join(out, "blob")
	if err := l.child(ctx, "seal", "none", dir, plain); err != nil {
		return nil, err
	}
	size := sizeOf(blob)
	line := func(args ...string) func() ([]*exec.Cmd, error) {
		return func() ([]*exec.Cmd, error) {
			return []*exec.Cmd{exec.Command(args[0], args[1:]...)}, nil
		}
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return []contender{
		{name: sealGzip, group: l.group, commands: line(self, "seal", "gzip", dir, blob),
			after: size},
		{name: stdlib, group: l.group, commands: line(self, "stdlib", plain, blob), after: size},
		{name: "gzip -6", group: l.group, commands: line("sh", "-c", `exec gzip -6 -c "$1" >"$2"`,
			"sh", plain, blob), after: size},
		{name: sealZstd, group: l.group, commands: line(self, "seal", "zstd", dir, blob),
			after: size, own: true},
		{name: "zstd -3", group: l.group, commands: line("zstd", "-q", "-f", "-3", plain,
			"-o", blob), after: size},
	}, nil
}

// sizeOf returns a contender.after that sets the size of a sample to the size of a file.
func sizeOf(file string) func(context.Context, *sample, string) error {
	return func(_ context.Context, s *sample, _ string) error {
		info, err := os.Stat(file)
		if err == nil {
			s.size = info.Size()
		}
		return err
	}
}

func unpack(ctx context.Context, l *lab) ([]contender, error) {
	dir, err := l.fixture("entries", func(dir string) error {
		return entries(dir, l.sizes.entries, l.sizes.entryBytes)
	})
	if err != nil {
		return nil, err
	}
	out, err := l.tempDir("unpack")
	if err != nil {
		return nil, err
	}
	blob, to := filepath.Join(out, "layer.tar.gz"), filepath.Join(out, "to")
	if err := l.child(ctx, "seal", "gzip", dir, blob); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	empty := func(context.Context, int) error {
		return errors.Join(remove(to), os.Mkdir(to, 0o755))
	}
	size := sizeOf(blob)
	return []contender{
		{name: layerbuild, group: l.group, units: l.sizes.entries, before: empty, after: size,
			own: true, commands: func() ([]*exec.Cmd, error) {
				return []*exec.Cmd{exec.Command(self, "unpack", blob, to)}, nil
			}},
		{name: tarXzf, group: l.group, units: l.sizes.entries, before: empty, after: size,
			commands: func() ([]*exec.Cmd, error) {
				return []*exec.Cmd{exec.Command("tar", "xzf", blob, "-C", to)}, nil
			}},
	}, nil
}

func layerSize(size int64) string { return fmt.Sprintf("%d MB", size/1e6) }

func memories(_ context.Context, l *lab) ([]contender, error) {
	p, images, err := l.fixtures()
	if err != nil {
		return nil, err
	}
	var all []contender
	for _, size := range l.sizes.layers {
		dir, err := l.binaryContext(size)
		if err != nil {
			return nil, err
		}
		all = append(all, l.growing(p, layerSize(size), 0, dir, images))
	}
	return all, nil
}

// children are functions that run in a process of their own, so that they can be measured like
// commands.
var children = map[string]func(ctx context.Context, args []string) error{
	"seal": sealChild, "stdlib": stdlibChild, "unpack": unpackChild, "account": accountChild,
	"check": checkChild, "simulate": simulate,
}

// child runs one of children without measuring it.
func (l *lab) child(ctx context.Context, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return command(ctx, self, args...)
}

// sealChild COMPRESSION DIR BLOB makes a layer of a directory.
func sealChild(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return errors.New("usage: seal COMPRESSION DIR BLOB")
	}
	_, err := diff.Seal(ctx, file(args[2]), diff.Tree{Dir: args[1]},
		diff.Options{Compression: args[0]})
	return err
}

// file is a store of one blob: the path of a file.
type file string

// Ingest writes the blob, with the digest that a store would compute.
func (f file) Ingest(_ context.Context, mediaType string,
	write func(io.Writer) error) (ocispec.Descriptor, error) {
	out, err := os.Create(string(f))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	sum := sha256.New()
	if err := errors.Join(write(io.MultiWriter(out, sum)), out.Close()); err != nil {
		return ocispec.Descriptor{}, err
	}
	info, err := os.Stat(string(f))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: mediaType, Size: info.Size(),
		Digest: digest.NewDigest(digest.SHA256, sum)}, nil
}

// stdlibChild TAR BLOB compresses a tar as builders with the standard library do.
func stdlibChild(_ context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("usage: stdlib TAR BLOB")
	}
	in, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(args[1])
	if err != nil {
		return err
	}
	defer out.Close()
	plain, packed := sha256.New(), sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(out, packed), 1<<20)
	z, err := gzip.NewWriterLevel(w, 6)
	if err != nil {
		return err
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(plain, z)},
		struct{ io.Reader }{in}, make([]byte, 1<<20)); err != nil {
		return err
	}
	return errors.Join(z.Close(), w.Flush(), out.Close())
}

// unpackChild LAYER DIR unpacks a layer and computes its two digests.
func unpackChild(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("usage: unpack LAYER DIR")
	}
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	r := io.TeeReader(f, sum)
	ignore := func(string, int, int, error) {} // as for a user who may not change owners
	if _, err := diff.Apply(ctx, r, args[1], diff.ApplyOptions{OnOwnerError: ignore}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return err
}
