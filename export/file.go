package export

import (
	"crypto/rand"
	"io"
	"os"
	"path/filepath"
)

// replace writes a file under another name in the same directory and then gives it its own, so that a reader sees
// the old file or the whole new one. What path leads to through links is replaced, not the link; what is no file
// (a fifo, /dev/null) is written to as it is.
func replace(path string, write func(io.Writer) error) (err error) {
	mode := os.FileMode(0)
	switch fi, err := os.Stat(path); {
	case err == nil && !fi.Mode().IsRegular():
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		return write(f)
	case err == nil:
		mode = fi.Mode().Perm()
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return err
		}
	}
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+rand.Text()[:10])
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(tmp)
		}
	}()
	if mode != 0 {
		if err := f.Chmod(mode); err != nil {
			return err
		}
	}
	if err := write(f); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// toDest writes to spec's destination, a file or the standard output.
func toDest(env Env, spec Spec, write func(io.Writer) error) error {
	if spec.Dest == "-" {
		return write(env.Stdout)
	}
	return replace(spec.Dest, write)
}
