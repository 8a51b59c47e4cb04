package state

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/layerbuild/layerbuild/internal/smallfile"
)

// secretSize is the size of Secret's result. Its type is that of the argument of blocks.NewKeys.
const secretSize = 16

// Secret returns random bytes that stay the same as long as the state exists. Their file is
// readable by the state's owner only. A damaged file is replaced.
func (s *State) Secret() (secret [secretSize]byte, err error) {
	path := s.cachePath(secretName)
	for range 2 {
		data, err := smallfile.Read(path)
		if err == nil && len(data) == secretSize {
			return [secretSize]byte(data), nil
		}
		if err == nil {
			err = os.Remove(path)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return secret, fmt.Errorf("read the secret of the state: %w", err)
		}
		if err := s.makeSecret(path); err != nil && !errors.Is(err, fs.ErrExist) {
			return secret, fmt.Errorf("make the secret of the state: %w", err)
		}
	}
	return secret, fmt.Errorf("%s is damaged", path)
}

// makeSecret makes the file at path. It returns fs.ErrExist if another process has made it.
func (s *State) makeSecret(path string) error {
	data := make([]byte, secretSize)
	rand.Read(data) // it never returns an error
	temp := s.Cache.Temp()
	name := filepath.Join(temp.Dir, temp.Prefix+rand.Text())
	err := os.WriteFile(name, data, 0o600)
	if err == nil {
		err = os.Link(name, path)
	}
	if removeErr := os.Remove(name); !errors.Is(removeErr, fs.ErrNotExist) {
		err = errors.Join(err, removeErr)
	}
	return err
}
