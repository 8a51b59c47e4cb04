package ui

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/sorting"
)

// record is the state of a build in every mode. The views render it, and it is kept after they are
// closed.
type record struct {
	work     map[event.ID]*work
	order    []*work // in the order in which they began
	failed   *work   // the first that failed
	begun    time.Time
	ended    int // number of pieces of work that have ended
	expected int // the last Expect event; 0: none
	warnings []event.Warning
	said     map[event.Warning]bool // without their times and details
	result   *event.Result
}

// work is one piece of work.
type work struct {
	id         event.ID
	number     int // from 1, in the order in which work began
	line       int // in the Dockerfile; 0: none
	name       string
	begun, end time.Time
	state      state
	running    int // number of Starts without a Done: equal work has equal IDs
	err        error
	note       string
	reason     string // why it runs: the text of a Reason; "" for none
	isNew      bool   // see Reason.New
	parts      []*part
	streams    [2]*lines
	tail       *tail
	plain      plainWork
}

// state is the state of a piece of work.
type state uint8

const (
	running state = iota
	succeeded
	cached
	failed
	canceled
	repaired // it failed because of damage, and will begin again
)

// part is a part of a piece of work that has a size.
type part struct {
	name           string
	current, total int64
	begun, last    time.Time
	done           bool
	printed        time.Time // when the plain view last wrote it
}

// start records that e's work has begun and returns it.
func (r *record) start(e event.Start) *work {
	w := r.at(e.ID, e.Time)
	if w.running++; w.running == 1 {
		if w.state != running {
			r.ended--
		}
		w.state, w.begun, w.end = running, e.Time, time.Time{}
	}
	if e.Name != "" {
		w.name = clean(e.Name)
	}
	if e.Line > 0 {
		w.line = e.Line
	}
	return w
}

// done records that e's work has ended. last is false while other Done events for the same work are
// outstanding, and if the work had already ended. A failure ends the work at once.
func (r *record) done(e event.Done) (w *work, last bool) {
	w = r.at(e.ID, e.Time)
	w.running = max(0, w.running-1)
	if w.state != running || w.running > 0 && e.Err == nil {
		return w, false
	}
	r.ended++
	w.running, w.end, w.err, w.note = 0, e.Time, e.Err, clean(e.Note)
	w.flush()
	switch {
	case errors.Is(e.Err, context.Canceled):
		w.state = canceled
	case e.Repair:
		w.state = repaired
	case e.Err != nil:
		w.state = failed
		if r.failed == nil {
			r.failed = w
		}
	case e.Cached:
		w.state = cached
	default:
		w.state = succeeded
	}
	return w, true
}

// explained records why e's work runs.
func (r *record) explained(e event.Reason) *work {
	w := r.at(e.ID, e.Time)
	w.reason, w.isNew = clean(e.Text), e.New
	return w
}

// runsBecause returns the line for the reason why w runs.
func (w *work) runsBecause() string {
	if w.isNew {
		return "runs: " + w.reason
	}
	return "runs again: " + w.reason
}

// forget drops data that only running or failed work needs.
func (w *work) forget() {
	w.streams = [2]*lines{}
	if w.state != failed {
		w.parts, w.tail = nil, nil
	}
}

// at returns the piece of work with an ID. If it has not begun, it begins now, with its ID as name.
func (r *record) at(id event.ID, now time.Time) *work {
	w := r.work[id]
	if w == nil {
		if r.work == nil {
			r.work, r.begun = map[event.ID]*work{}, now
		}
		w = &work{id: id, number: len(r.order) + 1, name: clean(string(id)), begun: now}
		r.work[id] = w
		r.order = append(r.order, w)
	}
	return w
}

// progress records the progress of a part; it returns false if nothing has changed.
func (r *record) progress(e event.Progress) (*work, bool) {
	w := r.at(e.ID, e.Time)
	i := slices.IndexFunc(w.parts, func(p *part) bool { return p.name == e.Part })
	if i < 0 {
		i = len(w.parts)
		w.parts = append(w.parts, &part{name: e.Part, begun: e.Time})
	}
	p := w.parts[i]
	if p.done && e.Done {
		return w, false
	}
	p.current, p.total, p.last = e.Current, e.Total, e.Time
	p.done = e.Done
	return w, true
}

// warn records a warning; it returns false for a repeated one.
func (r *record) warn(e event.Warning) bool {
	key := event.Warning{Rule: e.Rule, Message: e.Message, File: e.File, Line: e.Line}
	if r.said[key] {
		return false
	}
	if r.said == nil {
		r.said = map[event.Warning]bool{}
	}
	r.said[key] = true
	r.warnings = append(r.warnings, e)
	return true
}

func (r *record) sortedWarnings() []event.Warning {
	list := slices.Clone(r.warnings)
	sorting.StableFunc(list, func(a, b event.Warning) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	return list
}

// total returns the number of pieces of work of the build, as far as known.
func (r *record) total() int { return max(r.expected, len(r.order)) }

// log adds output of w's command and calls emit for each line of it. The two streams have
// separate lines: output on one must not be inserted into a line of the other.
func (w *work) log(stream int, data []byte, emit func(w *work, line []byte)) {
	i := 0
	if stream == 2 {
		i = 1
	}
	if w.streams[i] == nil {
		if w.tail == nil {
			w.tail = &tail{}
		}
		w.streams[i] = &lines{emit: func(line []byte) {
			w.tail.add(line)
			emit(w, line)
		}}
	}
	w.streams[i].write(data)
}

// flush ends the unfinished lines.
func (w *work) flush() {
	for _, s := range w.streams {
		if s != nil {
			s.flush()
		}
	}
}

// elapsed returns the duration of w, up to now if it is running.
func (w *work) elapsed(now time.Time) time.Duration {
	if !w.end.IsZero() {
		now = w.end
	}
	return max(0, now.Sub(w.begun))
}

// tail keeps the last lines of an output, and reuses its buffers.
type tail struct {
	ring [tailLines][]byte
	next int
	full bool
}

// tailLines is the number of lines of a step's output that are kept for the message about its
// failure.
const tailLines = 20

func (t *tail) add(line []byte) {
	t.ring[t.next] = append(t.ring[t.next][:0], line...)
	if t.next++; t.next == len(t.ring) {
		t.next, t.full = 0, true
	}
}

// last returns copies of the last lines, n at most, oldest first.
func (t *tail) last(n int) []string {
	if t == nil {
		return nil
	}
	n = min(n, t.count())
	out := make([]string, 0, n)
	for i := range n {
		out = append(out, string(t.ring[(t.next-n+i+len(t.ring))%len(t.ring)]))
	}
	return out
}

// count returns the number of kept lines.
func (t *tail) count() int {
	if t.full {
		return len(t.ring)
	}
	return t.next
}
