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

// TestCanceled cancels calls that wait for data of a pipe.
func TestCanceled(t *testing.T) {
	canceled := errors.New("canceled")
	for name, call := range map[string]func(context.Context, *Store) error{
		"Read": func(ctx context.Context, s *Store) error {
			_, _, err := s.Read(ctx, "GIT_AUTH_TOKEN")
			return err
		},
		"HTTPAuthorization": func(ctx context.Context, s *Store) error {
			if got := s.HTTPAuthorization(ctx, "host"); got != "" {
				t.Errorf("HTTPAuthorization = %q", got)
			}
			return context.Cause(ctx)
		},
		"GitAuthorization": func(ctx context.Context, s *Store) error {
			if got := s.GitAuthorization(ctx, "host"); got != "" {
				t.Errorf("GitAuthorization = %q", got)
			}
			return context.Cause(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			pipe := filepath.Join(t.TempDir(), "pipe")
			if err := syscall.Mkfifo(pipe, 0o600); err != nil {
				t.Fatal(err)
			}
			s := &Store{Warn: func(m string) { t.Errorf("warning: %s", m) },
				Secrets: []Secret{{ID: "HTTP_AUTH_TOKEN_host", File: pipe},
					{ID: "GIT_AUTH_TOKEN", File: pipe}}}
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			done := make(chan error, 1)
			go func() { done <- call(ctx, s) }()
			w, err := os.OpenFile(pipe, os.O_WRONLY, 0) // waits for the reader
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			cancel(canceled)
			select {
			case err := <-done:
				if !errors.Is(err, canceled) {
					t.Errorf("%v, want the cause", err)
				}
			case <-time.After(20 * time.Second): // only a failing test takes this long
				t.Error("the canceled call does not end")
			}
		})
	}
}
