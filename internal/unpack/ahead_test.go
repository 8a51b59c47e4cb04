package unpack

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

// TestAhead reads streams of several sizes to their end or to a part of it, by chunks and by Read,
// and compares the data that each user received.
func TestAhead(t *testing.T) {
	damage := errors.New("damage")
	for _, size := range []int{0, 1, aheadSize - 1, aheadSize, aheadSize + 1,
		(aheadCount+3)*aheadSize + 7} {
		want := make([]byte, size)
		for i := range want {
			want[i] = byte(i / 1000)
		}
		for name, fails := range map[string]error{"whole": nil, "damaged": damage} {
			stream := func() io.Reader {
				if fails == nil {
					return iotest.DataErrReader(bytes.NewReader(want))
				}
				return io.MultiReader(bytes.NewReader(want), iotest.ErrReader(fails))
			}
			for _, by := range []string{"chunk", "read", "drain", "stop"} {
				var got, tee, side bytes.Buffer
				a := ReadAhead(t.Context(), stream(), AheadOptions{
					Tee:  func(p []byte) error { _, err := tee.Write(p); return err },
					Side: func(p []byte) { side.Write(p) },
				})
				var err error
				switch by {
				case "chunk":
					for err == nil {
						var p []byte
						p, err = a.Chunk()
						got.Write(p)
						if len(p)%512 != 0 && got.Len() != size {
							t.Errorf("%d bytes, %s: a chunk of %d bytes is not the last", size,
								name, len(p))
						}
					}
				case "read":
					_, err = io.Copy(&got, struct{ io.Reader }{iotest.HalfReader(a)})
				case "drain":
					io.CopyN(&got, a, 10)
					err = a.Drain()
				case "stop":
					a.Chunk()
				}
				a.Stop()
				if by == "stop" {
					continue // the position at which reading stopped is not determined
				}
				if err == io.EOF {
					err = nil
				}
				if !errors.Is(err, fails) {
					t.Errorf("%d bytes, %s, by %s: error %v, want %v", size, name, by, err, fails)
				}
				if by != "drain" && !bytes.Equal(got.Bytes(), want) {
					t.Errorf("%d bytes, %s, by %s: %d bytes, or others", size, name, by, got.Len())
				}
				if !bytes.Equal(tee.Bytes(), want) || !bytes.Equal(side.Bytes(), want) ||
					a.Size != int64(size) {
					t.Errorf("%d bytes, %s, by %s: Tee got %d, Side got %d, and Size is %d", size,
						name, by, tee.Len(), side.Len(), a.Size)
				}
			}
		}
	}
}

// TestAheadTeeFails checks that an error of Tee ends the stream, and that the chunk passed to it is
// not returned.
func TestAheadTeeFails(t *testing.T) {
	full := errors.New("the disk is full")
	n := 0
	a := ReadAhead(t.Context(), bytes.NewReader(make([]byte, 5*aheadSize)), AheadOptions{
		Tee: func([]byte) error {
			if n++; n == 3 {
				return full
			}
			return nil
		},
	})
	defer a.Stop()
	for range 2 {
		if err := a.Drain(); err != full {
			t.Errorf("Drain = %v, want %v", err, full)
		}
	}
	if a.Size != 2*aheadSize {
		t.Errorf("%d bytes were returned, want %d", a.Size, 2*aheadSize)
	}
}

// TestAheadCancelled checks that a stream without an end ends with its context.
func TestAheadCancelled(t *testing.T) {
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	a := ReadAhead(ctx, endless{}, AheadOptions{Side: func([]byte) {}})
	defer a.Stop()
	if _, err := a.Chunk(); err != nil {
		t.Fatal(err)
	}
	cancel(gone)
	if err := a.Drain(); err != gone {
		t.Errorf("Drain = %v, want %v", err, gone)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
