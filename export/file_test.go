package export

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/event"
	"golang.org/x/sys/unix"
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

// TestFifo ends the context while the reader of a fifo has stopped: a blob that is a file is not
// copied there by the kernel, which could not be interrupted.
func TestFifo(t *testing.T) {
	dir := t.TempDir()
	blob, fifo := filepath.Join(dir, "blob"), filepath.Join(dir, "fifo")
	content := strings.Repeat("0123456789abcdef", 20_000) // more than a pipe holds
	if err := os.WriteFile(blob, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	from, err := os.Open(blob)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- toDest(ctx, Env{}, Spec{Dest: fifo}, func(w io.Writer) error {
			return copyBlob(ctx, w, &knownFile{from}, int64(len(content)), make([]byte, 1000),
				&job{sink: event.Discard})
		})
	}()
	if _, err := reader.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want %v", err, context.Canceled)
		}
	case <-time.After(20 * time.Second):
		t.Error("the export waits for the reader")
	}
	reader.Close()
}

// TestFifoWithoutReader ends the context while no process has opened the fifo, and then writes to a
// fifo whose reader comes late.
func TestFifoWithoutReader(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	export := func(ctx context.Context) <-chan error {
		done := make(chan error, 1)
		go func() {
			done <- toDest(ctx, Env{}, Spec{Dest: fifo}, func(w io.Writer) error {
				_, err := io.WriteString(w, strings.Repeat("text", 50_000)) // more than a pipe
				return err
			})
		}()
		return done
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := export(ctx)
	time.AfterFunc(50*time.Millisecond, cancel)
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want %v", err, context.Canceled)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the export waits for a reader")
	}
	done = export(t.Context())
	time.Sleep(50 * time.Millisecond)
	got, err := os.ReadFile(fifo)
	if err != nil || len(got) != 200_000 {
		t.Errorf("the reader gets %d bytes, %v, want 200,000", len(got), err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// knownFile is a blob whose file is known to have its digest.
type knownFile struct{ *os.File }

func (k *knownFile) Unchanged() (*os.File, bool) { return k.File, true }
