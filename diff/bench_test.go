package diff

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/mount/mounttest"
)

// benchTree makes a tree like that of an installed package: directories with files of some
// kilobytes, and a few large files. LAYERBUILD_BENCH_TREE is the path of another tree to use.
func benchTree(b *testing.B) (dir string, files int) {
	if dir := os.Getenv("LAYERBUILD_BENCH_TREE"); dir != "" {
		filepath.WalkDir(dir, func(string, os.DirEntry, error) error { files++; return nil })
		return dir, files
	}
	dir = mounttest.TempDir(b)
	rnd := rand.New(rand.NewPCG(1, 2))
	words := make([]byte, 1<<20)
	for i := range words { // compresses to about half its size
		words[i] = "etaoin shrdlu\n"[rnd.IntN(14)]
	}
	for d := range 100 {
		sub := mkdir(b, filepath.Join(dir, fmt.Sprintf("usr/share/package%d", d)))
		for f := range 50 {
			size := 200 + rnd.IntN(12000)
			at := rnd.IntN(len(words) - size)
			if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("file%d", f)),
				words[at:at+size], 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
	for f := range 20 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("large%d", f)),
			words, 0o755); err != nil {
			b.Fatal(err)
		}
	}
	return dir, 100*50 + 20
}

// report reports the CPU time of an iteration, which varies less than elapsed time on a busy
// machine.
func report(b *testing.B, files int, from syscall.Rusage) {
	var to syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &to)
	cpu := time.Duration(to.Utime.Nano() + to.Stime.Nano() - from.Utime.Nano() - from.Stime.Nano())
	b.ReportMetric(cpu.Seconds()*1000/float64(b.N), "cpu-ms/op")
	b.ReportMetric(float64(files)*float64(b.N)/b.Elapsed().Seconds(), "files/s")
}

func usage() (r syscall.Rusage) {
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return r
}

func BenchmarkWrite(b *testing.B) {
	dir, files := benchTree(b)
	b.ReportAllocs()
	from := usage()
	for b.Loop() {
		stats, err := Write(context.Background(), io.Discard, Tree{Dir: dir}, Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(stats.Size)
	}
	report(b, files, from)
}

// BenchmarkWriteUnchanged compares every file with an equal one.
func BenchmarkWriteUnchanged(b *testing.B) {
	dir, files := benchTree(b)
	from := usage()
	for b.Loop() {
		stats, err := Write(context.Background(), io.Discard,
			Tree{Dir: dir, Lower: []string{dir}, Full: true}, Options{})
		if err != nil || stats.Entries > 0 {
			b.Fatal(stats, err)
		}
	}
	report(b, files, from)
}

func BenchmarkSeal(b *testing.B) {
	dir, files := benchTree(b)
	for _, compression := range []string{"gzip", "zstd", "none"} {
		b.Run(compression, func(b *testing.B) {
			b.ReportAllocs()
			from := usage()
			for b.Loop() {
				layer, err := Seal(context.Background(), &memory{}, Tree{Dir: dir},
					Options{Compression: compression})
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(layer.Size)
				b.ReportMetric(float64(layer.Descriptor.Size)/float64(layer.Size), "ratio")
			}
			report(b, files, from)
		})
	}
}

func BenchmarkSealOneFile(b *testing.B) {
	dir := mustMake(b, b.TempDir(), "file etc/one 0644 content")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Seal(context.Background(), &memory{}, Tree{Dir: dir}, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkApply unpacks a gzip layer with both digests, compared with tar. LAYERBUILD_BENCH_LAYER
// is the path of another layer to use.
func BenchmarkApply(b *testing.B) {
	var blob []byte
	if name := os.Getenv("LAYERBUILD_BENCH_LAYER"); name != "" {
		var err error
		if blob, err = os.ReadFile(name); err != nil {
			b.Fatal(err)
		}
	} else {
		dir, _ := benchTree(b)
		_, blob = sealed(b, Tree{Dir: dir}, Options{})
	}
	top := mounttest.TempDir(b)
	n := 0
	fresh := func() string { n++; return mkdir(b, filepath.Join(top, fmt.Sprint(n))) }
	clean := func(dir string) {
		if err := os.RemoveAll(dir); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("layerbuild", func(b *testing.B) {
		b.ReportAllocs()
		from, entries := usage(), 0
		var spent int64
		for b.Loop() {
			to := fresh()
			applied, err := Apply(context.Background(), bytes.NewReader(blob), to,
				ApplyOptions{OnOwnerError: func(string, int, int, error) {}})
			if err != nil {
				b.Fatal(err)
			}
			entries = applied.Entries
			b.SetBytes(applied.Size)
			b.StopTimer()
			before := usage()
			clean(to)
			after := usage()
			spent += after.Utime.Nano() + after.Stime.Nano() -
				before.Utime.Nano() - before.Stime.Nano()
			b.StartTimer()
		}
		from.Stime = syscall.NsecToTimeval(from.Stime.Nano() + spent)
		report(b, entries, from)
	})
	b.Run("tar", func(b *testing.B) {
		file := filepath.Join(top, "layer.tar.gz")
		if err := os.WriteFile(file, blob, 0o644); err != nil {
			b.Fatal(err)
		}
		var cpu time.Duration
		for b.Loop() {
			to := fresh()
			cmd := exec.Command("tar", "xzf", file, "-C", to)
			if out, err := cmd.CombinedOutput(); err != nil {
				b.Skipf("tar: %v\n%s", err, out)
			}
			cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
			b.StopTimer()
			clean(to)
			b.StartTimer()
		}
		b.ReportMetric(cpu.Seconds()*1000/float64(b.N), "cpu-ms/op")
	})
}

// BenchmarkTarWriter compares tarWriter with archive/tar on 10,000 small files.
func BenchmarkTarWriter(b *testing.B) {
	const files = 10000
	name, content := []byte("usr/share/doc/some/path/of/usual/length"), []byte("content")
	writers := map[string]func(w io.Writer) error{
		"tarWriter": func(w io.Writer) error {
			chunk := make([]byte, 256<<10)
			t := tarWriter{chunk: chunk, flush: func(full []byte) ([]byte, error) {
				_, err := w.Write(full)
				return chunk, err
			}}
			for range files {
				err := t.header(&header{name: name, kind: tar.TypeReg, mode: 0o644, uid: 1, gid: 2,
					size: int64(len(content)), sec: 1700000000})
				if err == nil {
					err = t.bytes(content)
				}
				if err != nil {
					return err
				}
				t.pad()
			}
			return t.end()
		},
		"archive∕tar": func(w io.Writer) error {
			t := tar.NewWriter(w)
			for range files {
				err := t.WriteHeader(&tar.Header{Name: string(name), Typeflag: tar.TypeReg,
					Mode: 0o644, Uid: 1, Gid: 2, Size: int64(len(content)),
					ModTime: time.Unix(1700000000, 0)})
				if err == nil {
					_, err = t.Write(content)
				}
				if err != nil {
					return err
				}
			}
			return t.Close()
		},
	}
	for name, write := range writers {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := write(io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
