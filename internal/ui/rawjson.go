package ui

import (
	"encoding/json"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/internal/event"
)

// rawJSON writes one JSON object per event, each on a line. docs/PROGRESS.md describes the
// schema; fields are added to it and never renamed.
type rawJSON struct{ w *writer }

// rawEvent has the fields of all events. Text that is not UTF-8 is not exact, except for the
// data of a log.
type rawEvent struct {
	Type    string     `json:"type"`
	Time    *time.Time `json:"time,omitempty"`
	ID      string     `json:"id,omitempty"`
	Name    string     `json:"name,omitempty"`
	Stage   string     `json:"stage,omitempty"`
	File    string     `json:"file,omitempty"`
	Line    int        `json:"line,omitempty"`
	Cached  bool       `json:"cached,omitempty"`
	Error   string     `json:"error,omitempty"`
	Cancel  bool       `json:"canceled,omitempty"`
	Repair  bool       `json:"repair,omitempty"`
	Note    string     `json:"note,omitempty"`
	Stream  int        `json:"stream,omitempty"`
	Data    []byte     `json:"data,omitempty"` // base64
	Part    string     `json:"part,omitempty"`
	Current *int64     `json:"current,omitempty"`
	Total   int64      `json:"total,omitempty"`
	Done    bool       `json:"done,omitempty"`
	Rule    string     `json:"rule,omitempty"`
	Message string     `json:"message,omitempty"`
	URL     string     `json:"url,omitempty"`
	Work    int        `json:"work,omitempty"`
	Names   []string   `json:"names,omitempty"`
	Digest  string     `json:"digest,omitempty"`
}

func newRawJSON(mu *sync.Mutex, out io.Writer) *rawJSON {
	return &rawJSON{w: newWriter(mu, out, 10*time.Millisecond, func(time.Time) time.Duration {
		return 0
	})}
}

func (r *rawJSON) handle(e event.Event, w *work) {
	raw := encode(e)
	if d, ok := e.(event.Done); ok && d.Err != nil {
		raw.Cancel = w.state == canceled
	}
	line, err := json.Marshal(raw)
	if err != nil {
		// Only a time outside of the years 0 to 9999 cannot be encoded.
		raw.Time = nil
		if line, err = json.Marshal(raw); err != nil {
			panic("unreachable: " + err.Error())
		}
	}
	r.w.throttle(func() int { return len(r.w.buf) })
	r.w.buf = append(append(r.w.buf, line...), '\n')
	r.w.poke()
}

func encode(e event.Event) rawEvent {
	switch e := e.(type) {
	case event.Start:
		return rawEvent{Type: "start", Time: &e.Time, ID: string(e.ID), Name: e.Name,
			Stage: e.Stage, File: e.File, Line: e.Line}
	case event.Done:
		raw := rawEvent{Type: "done", Time: &e.Time, ID: string(e.ID), Cached: e.Cached,
			Repair: e.Repair, Note: e.Note}
		if e.Err != nil {
			raw.Error = strings.ToValidUTF8(e.Err.Error(), "\uFFFD")
		}
		return raw
	case event.Log:
		return rawEvent{Type: "log", Time: &e.Time, ID: string(e.ID),
			Stream: e.Stream, Data: e.Data}
	case event.Progress:
		return rawEvent{Type: "progress", Time: &e.Time, ID: string(e.ID), Part: e.Part,
			Current: &e.Current, Total: e.Total, Done: e.Done}
	case event.Warning:
		return rawEvent{Type: "warning", Time: &e.Time, ID: string(e.ID), Rule: e.Rule,
			Message: e.Message, URL: e.URL, File: e.File, Line: e.Line}
	case event.Expect:
		return rawEvent{Type: "expect", Time: &e.Time, Work: e.Work}
	case event.Result:
		return rawEvent{Type: "result", Time: &e.Time, Names: e.Names, Digest: e.Digest}
	}
	panic("unreachable")
}

func (r *rawJSON) line(*work, []byte) {}

func (r *rawJSON) close() error { return r.w.close() }
