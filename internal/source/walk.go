package source

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/layerbuild/layerbuild/internal/dirfd"
)

// readNames fills names from the open directory fd, sorted. The caller reuses names, so that a walk
// does not allocate memory for each file.
func readNames(names *dirfd.Names, fd int) error {
	if err := names.Read(fd); err != nil {
		return err
	}
	names.Sort()
	return nil
}

// openat opens a name that ends with a zero byte. It never follows a link.
func openat(dir int, name []byte, flags int) (int, error) {
	return dirfd.Open(dir, name, flags|unix.O_NOFOLLOW|unix.O_NOCTTY, 0)
}

func nanos(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }

// arena allocates strings that share large blocks of memory.
type arena struct{ free []byte }

func (a *arena) string(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if len(a.free) < len(b) {
		a.free = make([]byte, max(64<<10, len(b)))
	}
	n := copy(a.free, b)
	s := unsafe.String(&a.free[0], n) // these bytes are never written again
	a.free = a.free[n:]
	return s
}
