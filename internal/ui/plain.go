package ui

import (
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/github"
)

// plain renders a build as text for logs: a block of lines for each piece of work. Each line begins
// with the number of the work. If several run at the same time, it writes the output of one of them
// for a while, so that blocks are not fragmented. The output of the others waits.
type plain struct {
	rec     *record
	w       *writer
	now     time.Time           // time of the Log that is being processed
	waiting []*work             // work with pending output, in the order of waiting
	partial map[*work]time.Time // work that may have an unfinished line, and since when
	pending int                 // number of waiting bytes
	current *work               // the work whose block is being written
	since   time.Time           // when current was set
	spoke   time.Time           // when current last had output
	begun   bool                // something has been written
	escape  bool                // for Options.GitHub
	groups  bool                // each block is a group
}

// plainWork is the plain view's state of a piece of work.
type plainWork struct {
	text []byte // waiting lines
	said bool   // the work is on the waiting list, or current
}

const (
	plainPause = 100 * time.Millisecond // between writes
	// an unfinished line is shown after this time without additions
	partialAfter = time.Second
	partEvery    = 5 * time.Second // interval between reports of the progress of one part
	// time for which a block is kept for work without output, if others wait
	stayIdle  = time.Second
	stayBusy  = 5 * time.Second // the same, for work with output
	stayBytes = 1 << 20         // unless more than this number of bytes waits
)

func newPlain(mu *sync.Mutex, rec *record, out io.Writer, o Options) *plain {
	p := &plain{rec: rec, partial: map[*work]time.Time{}, escape: o.GitHub, groups: o.Groups}
	p.w = newWriter(mu, out, plainPause, p.fill)
	return p
}

func (p *plain) handle(e event.Event, w *work) {
	switch e := e.(type) {
	case event.Start:
		p.say(w, "")
	case event.Done:
		p.done(w)
	case event.Reason:
		p.say(w, w.runsBecause())
	case event.Log:
		p.w.throttle(func() int { return p.pending })
		p.now, p.partial[w] = e.Time, e.Time
	case event.Progress:
		p.progress(e, w)
	case event.Warning:
		if w != nil {
			p.say(w, "WARN: "+warningText(e)+place(e))
		}
	case event.Expect, event.Result:
	default:
		panic(fmt.Sprintf("unreachable: %T", e))
	}
}

func (p *plain) done(w *work) {
	delete(p.partial, w)
	if w.note != "" {
		p.say(w, w.note)
	}
	switch w.state {
	case cached:
		p.say(w, "CACHED")
	case canceled:
		p.say(w, "CANCELED")
	case failed:
		p.say(w, "ERROR: "+clean(w.err.Error()))
	case repaired:
		p.say(w, "REPAIRING: "+clean(w.err.Error()))
	case succeeded:
		p.say(w, "DONE "+seconds(w.elapsed(w.end)))
	default:
		panic("unreachable: a piece of work is done and runs")
	}
}

func (p *plain) progress(e event.Progress, w *work) {
	for _, part := range w.parts {
		if part.name != e.Part {
			continue
		}
		if part.printed.IsZero() {
			part.printed = e.Time
		}
		if !e.Done && e.Time.Sub(part.printed) < partEvery {
			return
		}
		part.printed = e.Time
		text := clean(part.name) + " " + amount(part.current, part.total) + " " +
			seconds(part.last.Sub(part.begun))
		if e.Done {
			text += " done"
		}
		p.say(w, text)
		return
	}
}

// say adds a line to w's block. An empty line only ensures that there is a block.
func (p *plain) say(w *work, text string) {
	if text != "" {
		p.append(w, func(b []byte) []byte { return append(append(b, text...), '\n') })
		return
	}
	p.wait(w)
	p.w.poke()
}

func (p *plain) line(w *work, line []byte) {
	p.append(w, func(b []byte) []byte {
		b = strconv.AppendFloat(b, max(0, p.now.Sub(w.begun).Seconds()), 'f', 3, 64)
		if len(line) > 0 {
			b = append(append(b, ' '), line...)
		}
		return append(b, '\n')
	})
}

func (p *plain) append(w *work, add func([]byte) []byte) {
	before := len(w.plain.text)
	w.plain.text = add(append(strconv.AppendInt(append(w.plain.text, '#'), int64(w.number), 10),
		' '))
	if p.escape {
		// A line begins with a number, so its bytes change only after an unusual "##[".
		w.plain.text = append(w.plain.text[:before], github.Inert(w.plain.text[before:])...)
	}
	p.pending += len(w.plain.text) - before
	p.wait(w)
	p.w.poke()
}

func (p *plain) wait(w *work) {
	if !w.plain.said {
		w.plain.said = true
		p.waiting = append(p.waiting, w)
	}
}

// fill passes the lines that are due to the writer.
func (p *plain) fill(now time.Time) time.Duration {
	next := p.flushPartial(now)
	for {
		if w := p.current; w != nil {
			if len(w.plain.text) > 0 {
				p.take(w)
				p.spoke = now
			}
			if stay := p.stay(w, now); stay > 0 {
				return sooner(next, stay)
			}
		}
		if len(p.waiting) == 0 {
			return next
		}
		p.turn(now)
	}
}

// stay returns the time for which the block still belongs to w; 0: no longer.
func (p *plain) stay(w *work, now time.Time) time.Duration {
	if w.state != running {
		return 0
	}
	if p.pending > stayBytes {
		return 0
	}
	return max(0, min(p.spoke.Add(stayIdle).Sub(now), p.since.Add(stayBusy).Sub(now)))
}

// turn gives the block to the work that has waited longest.
func (p *plain) turn(now time.Time) {
	if old := p.current; old != nil {
		old.plain.said = false
		if old.state == running {
			p.w.buf = fmt.Appendf(p.w.buf, "#%d ...\n", old.number)
		}
	}
	p.endBlock()
	w := p.waiting[0]
	p.waiting = p.waiting[1:]
	p.current, p.since, p.spoke, p.begun = w, now, now, true
	header := fmt.Sprintf("#%d %s", w.number, cut(w.name, maxName))
	switch {
	case p.groups:
		p.w.buf = append(p.w.buf, github.Group(header)...)
		return
	case p.escape:
		header = string(github.Inert([]byte(header)))
	}
	p.w.buf = append(append(p.w.buf, header...), '\n')
}

// endBlock ends the current block, if there is one. Groups need no empty lines between them.
func (p *plain) endBlock() {
	switch {
	case !p.begun:
	case p.groups:
		p.w.buf = append(p.w.buf, github.EndGroup...)
	default:
		p.w.buf = append(p.w.buf, '\n')
	}
}

// maxName is the largest length of a step's name in a header.
const maxName = 160

func (p *plain) take(w *work) {
	p.pending -= len(w.plain.text)
	if len(p.w.buf) == 0 {
		p.w.buf, w.plain.text = w.plain.text, p.w.buf
	} else {
		p.w.buf = append(p.w.buf, w.plain.text...)
	}
	if w.plain.text = w.plain.text[:0]; w.state != running {
		w.plain.text = nil
	}
}

// flushPartial shows lines that have been unfinished for too long: the command may be waiting for
// an answer or drawing a bar.
func (p *plain) flushPartial(now time.Time) time.Duration {
	var next time.Duration
	for w, since := range p.partial {
		open := false
		for _, s := range w.streams {
			open = open || s != nil && s.dirty
		}
		switch left := since.Add(partialAfter).Sub(now); {
		case !open:
			delete(p.partial, w)
		case left <= 0:
			delete(p.partial, w)
			p.now = since
			w.flush()
		default:
			next = sooner(next, left)
		}
	}
	return next
}

// sooner returns the earlier of two times; 0: none.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

func (p *plain) close() error {
	p.w.mu.Lock()
	// Work that is still running has no more output.
	p.w.fill = func(now time.Time) time.Duration {
		for {
			if p.current != nil {
				p.take(p.current)
			}
			if len(p.waiting) == 0 {
				break
			}
			p.turn(now)
		}
		if p.groups && p.begun {
			p.endBlock()
			p.begun = false
		}
		return 0
	}
	p.w.mu.Unlock()
	return p.w.close()
}
