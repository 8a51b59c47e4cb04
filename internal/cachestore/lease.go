package cachestore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/layerbuild/layerbuild/internal/remotecache"
	digest "github.com/opencontainers/go-digest"
)

// s3Lease is a lease that this process has. It is an object that is only written if it does not
// exist (If-None-Match) or is still the one that was read (If-Match). The content changes with each
// write, since the ETag of an object is often a sum of it.
type s3Lease struct {
	s       *s3Store
	key, id string
	n       int    // of writes
	etag    string // of the last one
	lost    bool
	stopped chan struct{} // closed when it is not to be renewed any more
	done    chan struct{} // closed when renew has returned
}

func (s *s3Store) lease(name string) string { return s.prefix + "lease/" + name }

// errTaken is returned if another machine has a lease.
var errTaken = errors.New("another machine has the lease")

// Lease implements remotecache.Leaser.
func (s *s3Store) Lease(ctx context.Context, name string) (io.Closer, error) {
	l := &s3Lease{s: s, key: s.lease(name), id: rand.Text(),
		stopped: make(chan struct{}), done: make(chan struct{})}
	old, err := l.write(ctx, "If-None-Match", "*")
	switch {
	case !errors.Is(err, errTaken):
	case old == nil: // the machine has just ended its lease
		_, err = l.write(ctx, "If-None-Match", "*")
	case ageOf(old) > remotecache.LeaseTime:
		// The machine has not renewed the lease, by the clock of the server.
		_, err = l.write(ctx, "If-Match", old.Get("ETag"))
	}
	if errors.Is(err, errTaken) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	go l.renew(context.WithoutCancel(ctx))
	return l, nil
}

// write writes the object under a condition. If another machine has the lease, the error is
// errTaken, and old has the header of the object of that machine, if there still is one.
func (l *s3Lease) write(ctx context.Context, condition, value string) (old http.Header,
	err error) {
	l.n++
	data := fmt.Appendf(nil, "%s %d\n", l.id, l.n)
	resp, err := l.s.do(ctx, object{method: http.MethodPut, key: l.key,
		header: http.Header{"Content-Type": {"text/plain"}, condition: {value}},
		body:   bytesBody(data), size: int64(len(data)),
		sum: digest.FromBytes(data).Encoded()}, http.StatusOK)
	switch statusOf(err) {
	case http.StatusPreconditionFailed, http.StatusConflict, http.StatusNotFound:
		// The answer to an earlier attempt of the same request may have been lost.
		header, got, err1 := l.s.read(ctx, object{method: http.MethodGet, key: l.key})
		switch {
		case err1 == nil && string(got) == string(data):
			l.etag = header.Get("ETag")
			return nil, nil
		case err1 != nil && !isMissing(err1):
			return nil, err1
		case err1 != nil:
			header = nil
		}
		return header, errTaken
	}
	if err != nil {
		return nil, err
	}
	if l.etag = resp.Header.Get("ETag"); l.etag == "" {
		return nil, errors.New("the server has written a lease without an ETag")
	}
	return nil, nil
}

// renew renews the lease until Close is called or another machine has the lease.
func (l *s3Lease) renew(ctx context.Context) {
	defer close(l.done)
	ticker := time.NewTicker(l.s.renew)
	defer ticker.Stop()
	for !l.lost {
		select {
		case <-l.stopped:
			return
		case <-ticker.C:
		}
		// A request that has begun is not canceled by Close, which needs the ETag that it results
		// in. Another error than errTaken may be gone at the next attempt.
		timed, cancel := context.WithTimeout(ctx, remotecache.LeaseTime/6)
		_, err := l.write(timed, "If-Match", l.etag)
		l.lost = errors.Is(err, errTaken)
		cancel()
	}
}

// Close ends the lease.
func (l *s3Lease) Close() error {
	close(l.stopped)
	<-l.done
	if l.lost {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := l.s.do(ctx, object{method: http.MethodDelete, key: l.key,
		header: http.Header{"If-Match": {l.etag}}}, http.StatusNoContent, http.StatusOK)
	switch statusOf(err) {
	case http.StatusPreconditionFailed, http.StatusNotFound, http.StatusConflict:
		return nil // it is the one of another machine
	case http.StatusNotImplemented, http.StatusBadRequest: // a DELETE without conditions
		return l.s.remove(ctx, l.key)
	}
	return err
}
