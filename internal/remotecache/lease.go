package remotecache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/layerbuild/layerbuild/internal/cache"
	"github.com/layerbuild/layerbuild/internal/event"
)

const (
	// A machine that waits for another one asks for the result after firstPoll, and then at
	// intervals that double until they are lastPoll.
	firstPoll = 500 * time.Millisecond
	lastPoll  = 5 * time.Second
	// maxLeaseWait limits the time for which a build waits for one result. It ends a wait for a
	// machine whose step waits for something that this build would do later.
	maxLeaseWait = time.Hour
)

// Lease takes the lease of a key, in the first shared cache that has leases, before the step with
// the key runs here. While another machine has the lease, Lease waits, since that machine is making
// the result. It returns true if a machine has written a result, which Find returns then. A machine
// that fails to renew its lease loses it after LeaseTime. Two builds do not wait for each other for
// ever: a step that has a lease runs its command and sends its layer, and waits for no other lease.
//
// The lease ends when the result was published, or with Release.
func (im *Imports) Lease(ctx context.Context, key cache.Key, step string) (found bool) {
	if im == nil {
		return false
	}
	for _, s := range im.shared {
		if leaser, ok := s.store.(Leaser); ok && !s.place.ReadOnly {
			return s.lease(ctx, leaser, key, step)
		}
	}
	return false
}

// Release ends the lease of a key whose step has failed, if this machine has it.
func (im *Imports) Release(key cache.Key) {
	if im == nil {
		return
	}
	for _, s := range im.shared {
		s.release(key)
	}
}

// Apart ends the use of leases: the results of the machine that has the leases have other layers
// below them than the steps of this build, also in later steps.
func (im *Imports) Apart() {
	for _, s := range im.shared {
		s.stopLeasing()
	}
}

func (s *Shared) stopLeasing() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unleasable = true
}

// mayLease reports whether a step takes a lease. It does not if it has one, or if there are
// results, which do not fit this build.
func (s *Shared) mayLease(ctx context.Context, key cache.Key) bool {
	s.mu.Lock()
	off := s.unleasable || s.unreadable || s.unwritable || s.held[key] != nil
	s.mu.Unlock()
	return !off && len(s.find(ctx, key)) == 0
}

func (s *Shared) lease(ctx context.Context, leaser Leaser, key cache.Key,
	step string) (found bool) {
	if !s.mayLease(ctx, key) {
		return false
	}
	id := event.ID(fmt.Sprint(s.id, " lease ", nameOf(key)))
	waiting := false
	defer func() {
		note := "the step runs here"
		if found {
			note = "it has made the result"
		}
		if waiting {
			s.sink(event.Done{ID: id, Note: note, Time: time.Now()})
		}
	}()
	began, poll := time.Now(), firstPoll
	for {
		taken, err := s.take(ctx, leaser, key)
		if err != nil {
			if ctx.Err() == nil {
				s.fail(&s.unleasable, fmt.Errorf("the cache at %s has no leases, so several "+
					"machines may run a step at the same time: %w", s.place.Name(), err))
			}
			return false
		}
		// The machine that had the lease may have written the result since it was looked up.
		if s.findLater(ctx, key) {
			s.release(key)
			return true
		}
		if taken {
			return false
		}
		if time.Since(began) > maxLeaseWait {
			s.stopLeasing() // or a hostile cache makes each step wait so long
			return false
		}
		if !waiting {
			waiting = true
			s.sink(event.Start{ID: id, Name: "waiting for the machine that runs " + step,
				Time: time.Now()})
		}
		select {
		case <-time.After(poll):
		case <-ctx.Done():
			return false
		}
		poll = min(2*poll, lastPoll)
	}
}

// take takes the lease of a key and reports whether it has succeeded.
func (s *Shared) take(ctx context.Context, leaser Leaser, key cache.Key) (bool, error) {
	timed, cancel := context.WithTimeoutCause(ctx, lookupTime, errors.New("no answer"))
	defer cancel()
	l, err := leaser.Lease(timed, nameOf(key))
	if l == nil || err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[key] = l
	return true, nil
}

// findLater reads the document of a key again, and reports whether it has a result.
func (s *Shared) findLater(ctx context.Context, key cache.Key) bool {
	list := s.read(ctx, nameOf(key))
	s.mu.Lock()
	defer s.mu.Unlock()
	list = slices.DeleteFunc(list, func(r Found) bool {
		return r.Key != key || r.Layer == nil || s.rejected[r.Layer.Descriptor.Digest]
	})
	s.later[key] = list
	return len(list) > 0
}

// release ends the lease of a key, if this machine has it. If that fails, the lease ends by itself.
func (s *Shared) release(key cache.Key) {
	s.mu.Lock()
	l := s.held[key]
	delete(s.held, key)
	s.mu.Unlock()
	if l != nil {
		l.Close()
	}
}

// Close ends the leases that were not ended. The caller calls it when the build has ended.
func (s *Shared) Close() {
	s.mu.Lock()
	held := s.held
	s.held = map[cache.Key]io.Closer{}
	s.unleasable = true
	s.mu.Unlock()
	for _, l := range held {
		s.wg.Go(func() { l.Close() })
	}
	s.wg.Wait()
}
