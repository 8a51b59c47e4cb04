package diff

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSameSparse compares files of a tebibyte that consist almost entirely of holes. If sameSparse
// read the holes, the test would exceed its time limit.
func TestSameSparse(t *testing.T) {
	const size = 1 << 40
	type write struct {
		at   int64
		text string
	}
	zeros := string(make([]byte, 8192))
	for _, test := range []struct {
		name string
		a, b []write
		want bool
	}{
		{"only a hole", nil, nil, true},
		{"equal data", []write{{size / 2, "x"}, {size - 1, "y"}},
			[]write{{size / 2, "x"}, {size - 1, "y"}}, true},
		{"other data", []write{{size / 2, "x"}}, []write{{size / 2, "z"}}, false},
		{"data only in one", []write{{size / 2, "x"}}, nil, false},
		{"data only in the other", nil, []write{{size - 1, "x"}}, false},
		{"data elsewhere", []write{{1 << 30, "x"}}, []write{{1 << 31, "x"}}, false},
		{"zeros, and a hole", []write{{1 << 30, zeros}}, nil, true},
		{"more data than is read at once", []write{{4096, string(make([]byte, 300<<10)) + "x"}},
			[]write{{4096, string(make([]byte, 300<<10)) + "y"}}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			var fds []int
			for i, list := range [][]write{test.a, test.b} {
				f, err := os.Create(filepath.Join(dir, string(rune('a'+i))))
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				for _, w := range list {
					if _, err := f.WriteAt([]byte(w.text), w.at); err != nil {
						t.Skip("no files of this size here: ", err)
					}
				}
				if err := f.Truncate(size); err != nil {
					t.Skip("no files of this size here: ", err)
				}
				if at, err := unix.Seek(int(f.Fd()), size/4, unix.SEEK_HOLE); err != nil ||
					at != size/4 {
					t.Skip("no holes here")
				}
				fds = append(fds, int(f.Fd()))
			}
			for range 2 { // second with other file offsets
				if got, err := sameSparse(fds[0], fds[1], size); got != test.want || err != nil {
					t.Errorf("sameSparse = %v, %v, want %v", got, err, test.want)
				}
			}
		})
	}
}
