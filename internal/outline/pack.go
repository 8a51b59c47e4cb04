package outline

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
)

// The two parts of a packed outline, in their order.
const (
	packedList = "list"
	packedTree = "tree"
)

// maxPacked limits each part of a packed outline.
const maxPacked = 2 * maxMemory

// Pack writes an outline in the form that Unpack reads, for other machines: a tar with the list of
// files and the tree.
func (b *Builder) Pack(w io.Writer) error {
	var size counter
	if err := b.Write(&size); err != nil {
		return err
	}
	t := tar.NewWriter(w)
	list := b.List()
	if err := t.WriteHeader(&tar.Header{Name: packedList, Size: int64(len(list))}); err != nil {
		return err
	}
	if _, err := t.Write(list); err != nil {
		return err
	}
	if err := t.WriteHeader(&tar.Header{Name: packedTree, Size: int64(size)}); err != nil {
		return err
	}
	if err := b.Write(t); err != nil {
		return err
	}
	return t.Close()
}

// counter counts the bytes that are written to it.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// Unpack reads a packed outline. It returns the list, which is one for Parse, and the tree as a
// tar. The outline may come from another machine: Unpack limits what it reads, and the tree has to
// be unpacked like a layer.
func Unpack(r io.Reader) (list []byte, tree io.Reader, err error) {
	t := tar.NewReader(r)
	for _, name := range []string{packedList, packedTree} {
		h, err := t.Next()
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, nil, fmt.Errorf("packed outline: %w", err)
		}
		if h.Name != name || h.Typeflag != tar.TypeReg || h.Size < 0 || h.Size > maxPacked {
			return nil, nil, fmt.Errorf("packed outline: an entry %q of %d bytes where %s is "+
				"expected", h.Name, h.Size, name)
		}
		if name == packedTree {
			break
		}
		if list, err = io.ReadAll(t); err != nil {
			return nil, nil, fmt.Errorf("packed outline: %w", err)
		}
	}
	if _, err := Parse(list); err != nil {
		return nil, nil, errors.Join(errors.New("packed outline"), err)
	}
	return list, t, nil
}
