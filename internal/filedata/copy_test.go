package filedata

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/mount/mounttest"
)

func TestMain(m *testing.M) { os.Exit(mounttest.Main(m)) }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sample is a file of 4 MiB, with data at some offsets and holes between them.
func sample(t *testing.T, dir string, offsets ...int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "from"))
	check(t, err)
	t.Cleanup(func() { f.Close() })
	for _, at := range offsets {
		_, err := f.WriteAt(bytes.Repeat([]byte("data"), 25_001), at)
		check(t, err)
	}
	check(t, f.Truncate(4<<20))
	return f
}

// copied copies a file, checks that both have the same content, and returns the status of the copy.
func copied(t *testing.T, c *Copier, in *os.File) unix.Stat_t {
	t.Helper()
	out, err := os.Create(filepath.Join(filepath.Dir(in.Name()), "to"))
	check(t, err)
	defer out.Close()
	var st unix.Stat_t
	check(t, unix.Fstat(int(in.Fd()), &st))
	check(t, c.Copy(int(in.Fd()), int(out.Fd()), st.Size, st.Blocks))
	want, err := os.ReadFile(in.Name())
	check(t, err)
	got, err := os.ReadFile(out.Name())
	check(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("the copy has %d bytes, want the same %d", len(got), len(want))
	}
	check(t, unix.Fstat(int(out.Fd()), &st))
	return st
}

// TestCopy copies in each way, files with and without holes.
func TestCopy(t *testing.T) {
	for name, c := range map[string]Copier{
		"any way":          {},
		"without clone":    {clone: fails},
		"read and written": {clone: fails, ranged: fails},
		"small":            {Small: 8 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			for _, offsets := range [][]int64{nil, {0}, {1 << 20}, {0, 3 << 20}, {4<<20 - 5}} {
				c := c
				st := copied(t, &c, sample(t, t.TempDir(), offsets...))
				if c.Small == 0 && st.Blocks*512 > 1<<20 {
					t.Errorf("data at %d: %d blocks, want holes", offsets, st.Blocks)
				}
			}
		})
	}
}

// TestCopyShares copies on a file system on which files can share blocks.
func TestCopyShares(t *testing.T) {
	in := sample(t, mounttest.LoopMount(t, 512<<20, "mkfs.btrfs", "-q"), 0)
	var c Copier
	copied(t, &c, in)
	if c.clone != works || c.ranged != untried {
		t.Error("it was copied and not shared")
	}
}

// TestCopyTruncated copies a file that has become shorter.
func TestCopyTruncated(t *testing.T) {
	for _, c := range []Copier{{clone: fails}, {clone: fails, ranged: fails}} {
		in := sample(t, t.TempDir(), 0)
		out, err := os.Create(filepath.Join(filepath.Dir(in.Name()), "to"))
		check(t, err)
		defer out.Close()
		check(t, c.Copy(int(in.Fd()), int(out.Fd()), 8<<20, 1<<20))
		if st, err := out.Stat(); err != nil || st.Size() != 4<<20 {
			t.Errorf("the copy has %d bytes (%v), want the 4 MiB that there are", st.Size(), err)
		}
	}
}

// TestCopyEnds checks that a copy stops when Ended returns an error.
func TestCopyEnds(t *testing.T) {
	why := errors.New("enough")
	for _, c := range []Copier{{clone: fails}, {clone: fails, ranged: fails}} {
		c.Ended = func() error { return why }
		in := sample(t, t.TempDir(), 0)
		if err := c.Copy(int(in.Fd()), -1, 4<<20, 1<<20); err != why {
			t.Errorf("error = %v, want %v", err, why)
		}
	}
}
