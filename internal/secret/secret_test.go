package secret

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestReadWaits has two callers read a secret from a pipe to which nothing is written. The second
// one, whose context has ended, does not wait for the first one, which gets the whole secret.
func TestReadWaits(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	s := &Store{Secrets: []Secret{{ID: "a", File: pipe}}}
	type result struct {
		data string
		err  error
	}
	read := func(ctx context.Context) chan result {
		done := make(chan result, 1)
		go func() {
			data, _, err := s.Read(ctx, "a")
			done <- result{string(data), err}
		}()
		return done
	}
	first := read(t.Context())
	w, err := os.OpenFile(pipe, os.O_WRONLY, 0) // waits for the reader
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	select {
	case r := <-read(ctx):
		if !errors.Is(r.err, context.Canceled) {
			t.Errorf("Read = %q, %v, want context.Canceled", r.data, r.err)
		}
	case <-time.After(20 * time.Second): // only a failing test takes this long
		t.Error("a caller whose context has ended waits for another one")
	}
	if _, err := w.WriteString("secret"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if r := <-first; r.data != "secret" || r.err != nil {
		t.Errorf("Read = %q, %v, want the secret", r.data, r.err)
	}
	if data, ok, err := s.Read(t.Context(), "a"); string(data) != "secret" || !ok || err != nil {
		t.Errorf("the next Read = %q, %v, %v, want the secret", data, ok, err)
	}
}
