package smallfile

import (
	"bytes"
	"io/fs"

	"golang.org/x/sys/unix"
)

// Read returns the contents of a file. Its errors are those of os.ReadFile. It does not wait for a
// fifo that is in the place of a file: a fifo without a writer is empty.
func Read(path string) ([]byte, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var first [1024]byte // on the stack; large enough for nearly all files
	data := first[:0]
	for {
		n, err := retry(func() (int, error) { return unix.Read(fd, data[len(data):cap(data)]) })
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			return bytes.Clone(data), nil
		}
		data = data[:len(data)+n]
		if len(data) == cap(data) {
			data = append(make([]byte, 0, 2*len(data)), data...)
		}
	}
}

// retry repeats a call that a signal has interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		if n, err := call(); err != unix.EINTR {
			return n, err
		}
	}
}
