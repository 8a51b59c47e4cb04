// Package ui shows a person, or a program, how a build goes.
//
// A UI takes the events of a build and renders them in one of four ways: as a live view on a terminal, as lines of
// text for logs, as JSON for programs, or not at all. It also prints what is said when a build is over: why it
// failed, and what it warned of. What a step's command prints is hostile: nothing that reaches a terminal from here
// can do more than put visible characters on it. The one exception is rawjson, which is exact, and whose reader
// must know; its schema is in docs/PROGRESS.md.
package ui

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/internal/event"
	"golang.org/x/term"
)

// Modes are the names of the ways to render a build that New takes.
var Modes = [...]string{"auto", "plain", "tty", "rawjson", "quiet"}

// Options are how a build is shown. The zero value is right for a program run by a person.
type Options struct {
	// NoColor turns colours off; they are off without it too where NO_COLOR is set and not empty, or TERM is dumb.
	NoColor bool
	// Width and Height are the terminal's size; 0: what the terminal says, 80 and 24 where it does not.
	Width, Height int
	// LogLines is how many lines of a running step's output the live view shows; 0: six.
	LogLines int
	// Getenv reads the environment (CI, NO_COLOR, TERM); nil: os.Getenv.
	Getenv func(string) string
}

// UI renders one build. Its methods may be called concurrently.
type UI struct {
	mu       sync.Mutex
	record   record
	view     view
	closed   bool
	closeErr error
}

// view is one way of rendering. handle and line are called with the UI's lock held, after the record was brought up
// to date. close is called once, without the lock, after the last of them, and returns when everything is written.
type view interface {
	// handle takes an event; w is the work that it is about, nil where it is about none.
	handle(e event.Event, w *work)
	// line takes a line of w's output, without its end and fit for a terminal; it is good until line returns.
	line(w *work, line []byte)
	close() error
}

// New starts rendering to out in the way that mode names; "" and "auto" are the live view where out is a terminal
// that a person looks at, and plain otherwise. The caller calls Close when the build is over, and writes nothing to
// out before.
func New(mode string, out io.Writer, o Options) (*UI, error) {
	if o.Getenv == nil {
		o.Getenv = os.Getenv
	}
	o.NoColor = o.NoColor || plainText(o.Getenv)
	if mode == "" || mode == "auto" {
		mode = "plain"
		if isTerminal(out) && o.Getenv("CI") == "" && o.Getenv("TERM") != "dumb" {
			mode = "tty"
		}
	}
	u := &UI{}
	switch mode {
	case "plain":
		u.view = newPlain(&u.mu, &u.record, out)
	case "tty":
		u.view = newLive(&u.mu, &u.record, out, o)
	case "rawjson":
		u.view = newRawJSON(&u.mu, out)
	case "quiet":
		u.view = quiet{}
	default:
		return nil, fmt.Errorf("unknown progress mode %q (known: %s)", mode, strings.Join(Modes[:], ", "))
	}
	return u, nil
}

// Sink returns where the build's events go. It keeps nothing of a Log's data when it returns. Events that come after
// Close are dropped.
func (u *UI) Sink() event.Sink {
	return func(e event.Event) {
		u.mu.Lock()
		defer u.mu.Unlock()
		if !u.closed {
			u.handle(e)
		}
	}
}

func (u *UI) handle(e event.Event) {
	now := time.Now
	switch e := e.(type) {
	case event.Start:
		e.Time = orNow(e.Time, now)
		u.view.handle(e, u.record.start(e))
	case event.Done:
		e.Time = orNow(e.Time, now)
		if w, last := u.record.done(e); last {
			u.view.handle(e, w)
			w.forget()
		}
	case event.Log:
		e.Time = orNow(e.Time, now)
		w := u.record.at(e.ID, e.Time)
		u.view.handle(e, w)
		w.log(e.Stream, e.Data, u.view.line)
	case event.Progress:
		e.Time = orNow(e.Time, now)
		if w, news := u.record.progress(e); news {
			u.view.handle(e, w)
		}
	case event.Expect:
		u.record.expected = e.Work
		u.view.handle(e, nil)
	case event.Warning:
		e.Time = orNow(e.Time, now)
		if u.record.warn(e) {
			u.view.handle(e, u.record.work[e.ID])
		}
	case event.Result:
		e.Time = orNow(e.Time, now)
		u.record.result = &e
		u.view.handle(e, nil)
	default:
		panic(fmt.Sprintf("unreachable: %T", e))
	}
}

func orNow(t time.Time, now func() time.Time) time.Time {
	if t.IsZero() {
		return now()
	}
	return t
}

// Close renders what is left and ends the rendering. It returns the first error that writing met. Calling it again
// does nothing.
func (u *UI) Close() error {
	u.mu.Lock()
	if u.closed {
		defer u.mu.Unlock()
		return u.closeErr
	}
	for _, w := range u.record.order {
		w.flush()
	}
	u.closed = true
	u.mu.Unlock()
	err := u.view.close()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closeErr = err
	return err
}

// Warnings returns the build's warnings so far, each once, by file and line.
func (u *UI) Warnings() []event.Warning {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.record.sortedWarnings()
}

// Output returns the name of a piece of work that failed, or that has not ended, and the last lines that its command
// printed, at most 20, fit for a terminal. It is what a Failure wants, in every mode. An unknown id has neither.
func (u *UI) Output(id event.ID) (name string, lines []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if w := u.record.work[id]; w != nil {
		return w.name, w.tail.last(tailLines)
	}
	return "", nil
}

// Failed returns the first piece of work that failed and was not merely given up; ok is false where there is none.
func (u *UI) Failed() (id event.ID, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if w := u.record.failed; w != nil {
		return w.id, true
	}
	return "", false
}

// Color reports whether what is printed to out should have colours: it is a terminal, and nothing in the environment
// (nil: os.Getenv) speaks against it.
func Color(out io.Writer, getenv func(string) string) bool {
	if getenv == nil {
		getenv = os.Getenv
	}
	return isTerminal(out) && !plainText(getenv)
}

// plainText reports whether the environment wants no colours (https://no-color.org).
func plainText(getenv func(string) string) bool {
	return getenv("NO_COLOR") != "" || getenv("TERM") == "dumb"
}

func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// quiet shows nothing.
type quiet struct{}

func (quiet) handle(event.Event, *work) {}
func (quiet) line(*work, []byte)        {}
func (quiet) close() error              { return nil }
