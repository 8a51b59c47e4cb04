package ui

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/github"
	"golang.org/x/term"
)

// Modes are the names of the ways to render a build, for New.
var Modes = [...]string{"auto", "plain", "tty", "rawjson", "json", "quiet", "none"}

// Silent reports whether nothing is rendered in a mode, and nothing but errors is printed.
func Silent(mode string) bool { return mode == "quiet" || mode == "none" }

// ForPrograms reports whether programs read what is rendered in a mode.
func ForPrograms(mode string) bool { return mode == "rawjson" || mode == "json" }

// Options are the options of New. The zero value is suitable for a program that a person runs.
type Options struct {
	// NoColor turns colors off. They are also off if NO_COLOR is set and not empty, or if TERM
	// is dumb.
	NoColor bool
	// Width and Height are the terminal's size; 0: the size that the terminal reports, or else
	// 80 and 24.
	Width, Height int
	// LogLines is the number of lines of a running step's output in the live view; 0: six.
	LogLines int
	// GitHub is set if a runner of GitHub Actions reads the output: no line becomes a workflow
	// command.
	GitHub bool
	// Groups makes each block of the plain rendering a group in GitHub's log.
	Groups bool
	// Getenv reads the environment (BUILDKIT_COLORS, CI, NO_COLOR, TERM); nil: os.Getenv.
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

// view is one way of rendering. handle and line are called with the UI's mutex held, after the
// record was updated. close is called once, without the mutex, after the last of these calls,
// and returns when everything is written.
type view interface {
	// handle handles an event; w is the work that it concerns, or nil if there is none.
	handle(e event.Event, w *work)
	// line handles a line of w's output, without its end and safe for a terminal; it is valid
	// until line returns.
	line(w *work, line []byte)
	close() error
}

// New starts rendering to out in the given mode; "" and "auto" are the live view if out is an
// interactive terminal, and plain otherwise. The caller must call Close after the build, and not
// write to out before that.
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
	out = guarded(mode, out, o)
	if !o.NoColor && (mode == "tty" || mode == "plain" && isTerminal(out)) {
		if _, problems := parseColors(o.Getenv(colorsVariable)); problems != "" {
			u.record.warn(event.Warning{Message: problems, Time: time.Now()})
		}
	}
	switch mode {
	case "plain":
		u.view = newPlain(&u.mu, &u.record, out, o)
	case "tty":
		u.view = newLive(&u.mu, &u.record, out, o)
	case "rawjson":
		u.view = newStatuses(&u.mu, &u.record, out)
	case "json":
		u.view = newJSONEvents(&u.mu, out)
	case "quiet", "none":
		u.view = quiet{}
	default:
		return nil, fmt.Errorf("unknown progress mode %q (known: %s)", mode,
			strings.Join(Modes[:], ", "))
	}
	return u, nil
}

// guarded returns out, or for GitHub a writer to it that escapes workflow commands. The plain view
// escapes its text itself, since it writes such commands for groups.
func guarded(mode string, out io.Writer, o Options) io.Writer {
	switch {
	case !o.GitHub || mode == "plain":
		return out
	case ForPrograms(mode):
		return github.NewJSONWriter(out)
	}
	return github.NewWriter(out)
}

// Sink returns the receiver of the build's events. It does not keep the data of a Log. Events
// after Close are dropped.
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
	case event.Reason:
		e.Time = orNow(e.Time, now)
		u.view.handle(e, u.record.explained(e))
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

// Close renders the remaining events and ends the rendering. It returns the first error of
// writing. Calling it again has no effect.
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

// Output returns the name of a piece of work that failed, or that has not ended, and the last
// lines of its command's output, at most 20, safe for a terminal. They are for a Failure, in
// every mode. For an unknown id both are empty.
func (u *UI) Output(id event.ID) (name string, lines []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if w := u.record.work[id]; w != nil {
		return w.name, w.tail.last(tailLines)
	}
	return "", nil
}

// Failed returns the first piece of work that failed for a reason other than a cancelation. ok is
// false if there is none.
func (u *UI) Failed() (id event.ID, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if w := u.record.failed; w != nil {
		return w.id, true
	}
	return "", false
}

// Color reports whether text for out should have colors: out is a terminal, and the environment
// (nil: os.Getenv) permits them.
func Color(out io.Writer, getenv func(string) string) bool {
	if getenv == nil {
		getenv = os.Getenv
	}
	return isTerminal(out) && !plainText(getenv)
}

// plainText reports whether the environment requests no colors (https://no-color.org).
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
