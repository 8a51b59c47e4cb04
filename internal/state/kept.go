package state

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"time"

	"github.com/layerbuild/layerbuild/internal/smallfile"
	"github.com/layerbuild/layerbuild/internal/sorting"
	digest "github.com/opencontainers/go-digest"
)

// ReadKept returns the data that Keep has written. It returns an error if they are damaged.
func (s *State) ReadKept(kind KeptKind, d digest.Digest) ([]byte, error) {
	if err := d.Validate(); err != nil {
		return nil, err
	}
	data, err := smallfile.Read(s.cachePath(string(kind), d.Encoded()))
	if err != nil {
		return nil, err
	}
	head, body, ok := bytes.Cut(data, []byte("\n"))
	if !ok || string(head) != keptHead(body) {
		return nil, fmt.Errorf("%s of %s are damaged", kind, d)
	}
	return body, nil
}

// Kept returns the blobs for which Keep has written data of a kind, the last written ones first.
func (s *State) Kept(kind KeptKind) []digest.Digest {
	entries, err := os.ReadDir(s.cachePath(string(kind)))
	if err != nil {
		return nil
	}
	type file struct {
		d       digest.Digest
		written time.Time
	}
	var files []file
	for _, e := range entries {
		d := digest.NewDigestFromEncoded(digest.SHA256, e.Name())
		if fi, err := e.Info(); err == nil && d.Validate() == nil {
			files = append(files, file{d, fi.ModTime()})
		}
	}
	sorting.Func(files, func(a, b file) int { return b.written.Compare(a.written) })
	list := make([]digest.Digest, len(files))
	for i, f := range files {
		list[i] = f.d
	}
	return list
}

// keptHead returns the first line of a file that Keep writes.
func keptHead(body []byte) string {
	return fmt.Sprintf("layerbuild-kept 1 %08x", crc32.Checksum(body, castagnoli))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Keep stores data about a blob. It writes nothing if the file already has the same data, as is
// usual.
func (s *State) Keep(kind KeptKind, d digest.Digest, data []byte) error {
	if err := d.Validate(); err != nil {
		return err
	}
	if have, err := s.ReadKept(kind, d); err == nil && bytes.Equal(have, data) {
		return nil
	}
	dir, err := s.Path(string(kind))
	if err != nil {
		return err
	}
	content := append([]byte(keptHead(data)+"\n"), data...)
	return s.Cache.Temp().ReplaceFile(filepath.Join(dir, d.Encoded()), content)
}

// dropKept removes the data about missing blobs.
func (s *State) dropKept() error {
	for _, kind := range keptKinds {
		dir := s.cachePath(string(kind))
		entries, err := os.ReadDir(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, e := range entries {
			path := s.Store.Path(digest.NewDigestFromEncoded(digest.SHA256, e.Name()))
			if path != "" {
				if _, err := os.Lstat(path); err == nil {
					continue
				}
			}
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
