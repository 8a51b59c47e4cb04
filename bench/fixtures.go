package main

import (
	"archive/tar"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// sizes are the sizes of the contexts and images.
type sizes struct {
	pool         int
	steps        int
	sleep        string
	editFiles    int
	contextFiles int
	copyFiles    int
	copyBytes    int64
	layerBytes   int64
	baseBytes    int64
	sealBytes    int64
	entries      int
	entryBytes   int64 // size of the largest entries
	layers       []int64
	trees        []int
	sparse       []int64 // sizes in GiB
	stepCounts   []int
	layerCounts  []int
}

var full = sizes{
	pool:  32 << 20,
	steps: 50, sleep: "2", editFiles: 2000, contextFiles: 50_000,
	copyFiles: 25_000, copyBytes: 180e6,
	layerBytes: 600e6, baseBytes: 500e6, sealBytes: 1e9, entries: 47_000, entryBytes: 128 << 10,
	layers: []int64{100e6, 300e6, 1000e6}, trees: []int{100_000, 200_000, 500_000, 1_000_000},
	sparse:     []int64{1, 5, 10, 20},
	stepCounts: []int{100, 200, 300, 400, 500}, layerCounts: []int{50, 100, 200, 400},
}

var quick = sizes{
	pool:  1 << 20,
	steps: 3, sleep: "0.1", editFiles: 20, contextFiles: 200, copyFiles: 100, copyBytes: 500e3,
	layerBytes: 3e6, baseBytes: 2e6, sealBytes: 3e6, entries: 100, entryBytes: 32 << 10,
	layers: []int64{1e6, 2e6}, trees: []int{100, 200}, sparse: []int64{1}, stepCounts: []int{2, 4},
	layerCounts: []int{2, 4},
}

// fixture makes a directory once, for all works that use it.
func (l *lab) fixture(name string, fill func(dir string) error) (string, error) {
	if dir, ok := l.made[name]; ok {
		return dir, nil
	}
	dir := l.path("fixtures", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if err := fill(dir); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	l.made[name] = dir
	return dir, nil
}

// tempDir makes an empty directory that is removed after the work.
func (l *lab) tempDir(name string) (string, error) {
	dir := l.path("temp", name)
	if err := remove(dir); err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// dockerfile makes a context that contains only a Dockerfile.
func (l *lab) dockerfile(name string, lines ...string) (string, error) {
	return l.fixture(name, func(dir string) error {
		return write(filepath.Join(dir, "Dockerfile"), lines...)
	})
}

func write(path string, lines ...string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o644)
}

// baseImage and debianImage are the base images of the Dockerfiles. They are made in each peer's
// own store.
const (
	baseImage   = "localhost/base"
	debianImage = "localhost/debian"
)

// base makes the context of baseImage: the machine's busybox.
func (l *lab) base() (string, error) {
	return l.fixture("base", func(dir string) error {
		if err := write(filepath.Join(dir, "Dockerfile"), "FROM scratch", "ADD rootfs.tar /",
			`CMD ["sh"]`); err != nil {
			return err
		}
		bin, err := exec.LookPath("busybox")
		if err != nil {
			return errors.New("busybox is not installed (Debian: busybox-static)")
		}
		if !static(bin) {
			return errors.New("busybox needs libraries (Debian: busybox-static)")
		}
		raw, err := os.ReadFile(bin)
		if err != nil {
			return err
		}
		f, err := os.Create(filepath.Join(dir, "rootfs.tar"))
		if err != nil {
			return err
		}
		defer f.Close()
		w := tar.NewWriter(f)
		for _, name := range []string{"bin/", "dev/", "etc/", "proc/", "root/", "sys/",
			"tmp/", "usr/", "var/"} {
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name,
				Mode: 0o755}); err != nil {
				return err
			}
		}
		if err := w.WriteHeader(&tar.Header{Name: "bin/busybox", Mode: 0o755,
			Size: int64(len(raw))}); err != nil {
			return err
		}
		if _, err := w.Write(raw); err != nil {
			return err
		}
		for _, name := range []string{"sh", "true", "sleep", "echo", "ls", "wc",
			"test", "truncate", "cat"} {
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name,
				Linkname: "busybox"}); err != nil {
				return err
			}
		}
		return errors.Join(w.Close(), f.Close())
	})
}

func static(bin string) bool {
	f, err := elf.Open(bin)
	if err != nil {
		return false
	}
	defer f.Close()
	libraries, err := f.ImportedLibraries()
	return err == nil && len(libraries) == 0
}

// debian makes the context of debianImage. It does not compress the tar: dockerd 20.10 cannot read
// zstd.
func (l *lab) debian(ctx context.Context) (string, error) {
	return l.fixture("debian", func(dir string) error {
		if _, err := os.Stat(l.options.rootfs); err != nil {
			return fmt.Errorf("no Debian to start from: %w (make rootfs makes it)", err)
		}
		if err := command(ctx, "zstd", "-q", "-d", l.options.rootfs, "-o",
			filepath.Join(dir, "rootfs.tar")); err != nil {
			return err
		}
		return write(filepath.Join(dir, "Dockerfile"), "FROM scratch", "ADD rootfs.tar /")
	})
}

// fresh empties a peer's store and builds images in it. images has the directory of each image's
// context, by the image's name.
func (l *lab) fresh(ctx context.Context, p *peer, images map[string]string) error {
	if err := p.reset(ctx); err != nil {
		return err
	}
	build := p.build
	if p.base != nil {
		build = p.base
	}
	for tag, dir := range images {
		if err := l.do(ctx, p, build(dir, tag)); err != nil {
			return err
		}
	}
	return nil
}

// errEnough ends a walk.
var errEnough = errors.New("enough")

// machineFiles calls f with the files of the machine's own /usr, in order, in one round after
// another until f returns errEnough.
func machineFiles(f func(round int, path string, d fs.DirEntry) error) error {
	for round := range 1000 {
		err := filepath.WalkDir("/usr", func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return nil // cannot be read: use the others
			}
			return f(round, path, d)
		})
		if err == errEnough {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return errors.New("/usr is almost empty")
}

// machineContents is like machineFiles. It opens regular files for f, and leaves out other files.
func machineContents(f func(round int, file *os.File) error) error {
	return machineFiles(func(round int, path string, d fs.DirEntry) error {
		if !d.Type().IsRegular() {
			return nil
		}
		file, err := os.Open(path)
		if err != nil {
			return nil
		}
		defer file.Close()
		return f(round, file)
	})
}

// binaries fills dir with copies of the machine's programs and libraries: size bytes in all, after
// skipping about skip bytes. Random or repeated bytes would not show how fast compression is.
func binaries(dir string, skip, size int64) error {
	return machineContents(func(round int, f *os.File) error {
		info, err := f.Stat()
		if err != nil || !isELF(f) {
			return nil
		}
		if skip > 0 {
			skip -= info.Size()
			return nil
		}
		n, err := copyTo(filepath.Join(dir, fmt.Sprint(round), f.Name()),
			io.NewSectionReader(f, 0, size))
		if size -= n; size <= 0 && err == nil {
			return errEnough
		}
		return err
	})
}

func isELF(r io.ReaderAt) bool {
	var magic [4]byte
	_, err := r.ReadAt(magic[:], 0)
	return err == nil && string(magic[:]) == elf.ELFMAG
}

// entries fills dir with n copies of directories, files and links of the machine. It leaves out
// files of more than largest bytes.
func entries(dir string, n int, largest int64) error {
	return machineFiles(func(round int, path string, d fs.DirEntry) error {
		to := filepath.Join(dir, fmt.Sprint(round), path)
		if d.Type().IsRegular() {
			if info, err := d.Info(); err != nil || info.Size() > largest {
				return nil
			}
			f, err := os.Open(path)
			if err != nil {
				return nil
			}
			defer f.Close()
			if _, err := copyTo(to, f); err != nil {
				return err
			}
		} else if d.IsDir() {
			if err := os.MkdirAll(to, 0o755); err != nil {
				return err
			}
		} else if target, err := os.Readlink(path); err == nil {
			if err := os.Symlink(target, to); err != nil {
				return err
			}
		}
		if n--; n <= 0 {
			return errEnough
		}
		return nil
	})
}

func copyTo(path string, r io.Reader) (int64, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return 0, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(f, r)
	return n, errors.Join(err, f.Close())
}

// pool returns the beginnings of files of all kinds of the machine. The contents of small files are
// taken from it.
func pool(size int) ([]byte, error) {
	const piece = 8 << 10
	all := make([]byte, 0, size)
	err := machineContents(func(_ int, f *os.File) error {
		n, err := f.Read(all[len(all):min(len(all)+piece, size)])
		if err != nil && err != io.EOF {
			return nil
		}
		if all = all[:len(all)+n]; len(all) == size {
			return errEnough
		}
		return nil
	})
	return all, err
}

// files fills dir with n files of size bytes on average, 50 to a directory.
func (l *lab) files(dir string, n int, size int) error {
	if l.pool == nil {
		var err error
		if l.pool, err = pool(l.sizes.pool); err != nil {
			return err
		}
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		path := filepath.Join(dir, fileName(i))
		if i%50 == 0 {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
		}
		length := size/2 + rnd.IntN(size+1)
		at := rnd.IntN(len(l.pool) - length)
		if err := os.WriteFile(path, l.pool[at:at+length], 0o644); err != nil {
			return err
		}
	}
	return nil
}

// fileName returns the path of the file with number i that files makes.
func fileName(i int) string {
	return fmt.Sprintf("package%03d/source%02d/module%06d.go", i/2500, i/50%50, i)
}
