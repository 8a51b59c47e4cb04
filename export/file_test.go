package export

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
)

// TestInterruptible ends the context while the reader of a pipe has stopped. The bytes that the
// reader gets when it goes on are those that were passed to Write, whatever the caller has done to
// its buffer meanwhile, and nothing is written after them.
func TestInterruptible(t *testing.T) {
	r, w := io.Pipe()
	ctx, cancel := context.WithCancelCause(t.Context())
	i := &interruptible{ctx: ctx, w: w}
	p := []byte("first")
	cause := errors.New("the build has failed")
	read := make([]byte, len(p))
	started := make(chan struct{})
	go func() {
		// One byte is read, so Write has begun, and waits for the reader of the others.
		io.ReadFull(r, read[:1])
		close(started)
	}()
	go func() {
		<-started
		cancel(cause)
	}()
	if n, err := i.Write(p); n != 0 || err != cause {
		t.Errorf("Write = %d, %v, want 0, %v", n, err, cause)
	}
	copy(p, "XXXXX")
	if n, err := i.Write(p); n != 0 || err != cause {
		t.Errorf("the next Write = %d, %v, want 0, %v", n, err, cause)
	}
	if _, err := io.ReadFull(r, read[1:]); err != nil || !bytes.Equal(read, []byte("first")) {
		t.Errorf("the reader gets %q, %v, want %q", read, err, "first")
	}
	r.Close()
}
