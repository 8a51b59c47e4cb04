package ui

import (
	"io"
	"sync"
	"time"
)

// writer writes to out from its own goroutine, many lines at a time, so that callers do not wait
// for a terminal or a pipe unless it is far behind.
type writer struct {
	mu    *sync.Mutex // the mutex of the UI
	out   io.Writer
	buf   []byte     // the bytes to be written next
	spare []byte     // the previous buffer, for reuse
	room  *sync.Cond // signaled when buf became shorter, or on closing
	wake  chan struct{}
	stop  chan struct{}
	done  chan struct{}
	err   error
	pause time.Duration
	// fill is called with mu held before each write, and adds the bytes that are due to buf. It
	// returns the time after which it must be called again; 0: not before the next poke.
	fill func(now time.Time) (next time.Duration)
}

// maxPending is the number of pending bytes for a slow output at which callers have to wait.
const maxPending = 8 << 20

// newWriter starts a writer. At most one write is begun every pause.
func newWriter(mu *sync.Mutex, out io.Writer, pause time.Duration,
	fill func(time.Time) time.Duration) *writer {
	w := &writer{mu: mu, out: out, pause: pause, fill: fill, room: sync.NewCond(mu),
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	go w.run()
	return w
}

// poke signals that there is something to write.
func (w *writer) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// throttle waits while too many bytes are pending. It is called with mu held and releases it
// while it waits.
func (w *writer) throttle(pending func() int) {
	for pending() > maxPending && w.err == nil {
		select {
		case <-w.stop:
			return
		default:
		}
		w.poke()
		w.room.Wait()
	}
}

func (w *writer) run() {
	defer close(w.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-w.wake:
		case <-timer.C:
		case <-w.stop:
			return
		}
		next := w.write()
		if next == 0 {
			next = time.Hour
		}
		// The pause collects the lines of this time into one write.
		select {
		case <-time.After(w.pause):
		case <-w.stop:
			return
		}
		timer.Reset(max(0, next-w.pause))
	}
}

// write writes the bytes that are due.
func (w *writer) write() time.Duration {
	select {
	case <-w.wake: // the pending signal's output is being written
	default:
	}
	w.mu.Lock()
	next := w.fill(time.Now())
	buf := w.buf
	w.buf = w.spare[:0]
	w.room.Broadcast()
	failed := w.err != nil
	w.mu.Unlock()
	if len(buf) == 0 || failed {
		w.spare = buf
		return next
	}
	_, err := w.out.Write(buf)
	w.mu.Lock()
	w.spare = buf[:0]
	if err != nil && w.err == nil {
		w.err = err
		w.room.Broadcast()
	}
	w.mu.Unlock()
	return next
}

// close ends the goroutine and writes the remaining bytes. It is called without mu held.
func (w *writer) close() error {
	close(w.stop)
	w.mu.Lock()
	w.room.Broadcast()
	w.mu.Unlock()
	<-w.done
	w.write()
	return w.err
}
