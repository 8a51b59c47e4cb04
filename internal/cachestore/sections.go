package cachestore

import (
	"errors"
	"io"
)

// sections reads the parts of a blob in their order from one reader. A part that is read again has
// the blob opened again.
type sections struct {
	open func() (io.ReadCloser, error)
	r    io.ReadCloser
	off  int64 // of the next byte of r
}

// at returns a body with a part of the blob.
func (s *sections) at(off, size int64) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		if s.r != nil && s.off != off {
			s.close()
		}
		if s.r == nil {
			var err error
			if s.r, err = s.open(); err != nil {
				return nil, err
			}
			if s.off, err = io.CopyN(io.Discard, s.r, off); err != nil {
				return nil, err
			}
		}
		return &section{s: s, left: size}, nil
	}
}

// finish reads to the end of the blob, where its reader reports a wrong digest.
func (s *sections) finish() error {
	if s.r == nil {
		return nil
	}
	n, err := io.Copy(io.Discard, s.r)
	if err == nil && n > 0 {
		err = errors.New("the blob is larger than the size in its descriptor")
	}
	return err
}

func (s *sections) close() {
	if s.r != nil {
		s.r.Close()
	}
	s.r = nil
}

// section is one part.
type section struct {
	s    *sections
	left int64
}

func (p *section) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	n, err := p.s.r.Read(b[:min(int64(len(b)), p.left)])
	p.left -= int64(n)
	p.s.off += int64(n)
	if err == io.EOF && p.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Close implements io.Closer. The reader is used for the next part.
func (p *section) Close() error { return nil }
