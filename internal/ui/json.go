package ui

import (
	"encoding/json"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/internal/event"
)

// jsonLines writes JSON objects, each on a line.
type jsonLines struct{ w *writer }

func newJSONLines(mu *sync.Mutex, out io.Writer) jsonLines {
	return jsonLines{newWriter(mu, out, 10*time.Millisecond, func(time.Time) time.Duration {
		return 0
	})}
}

// add adds an object. It is called with the UI's mutex held, which it may release for a while.
func (l jsonLines) add(v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	l.w.throttle(func() int { return len(l.w.buf) })
	l.w.buf = append(append(l.w.buf, line...), '\n')
	l.w.poke()
	return nil
}

func (l jsonLines) line(*work, []byte) {}

func (l jsonLines) close() error { return l.w.close() }

// schemaVersion is the version of the schema of jsonEvents. It changes if a field is renamed or
// changes its meaning, and not if one is added.
const schemaVersion = 1

// jsonEvents writes one JSON object per event, after one that names the version of the schema.
// docs/PROGRESS.md describes the schema.
type jsonEvents struct{ jsonLines }

// jsonEvent has the fields of all events. Text that is not UTF-8 is not exact, except for the
// data of a log.
type jsonEvent struct {
	Type    string     `json:"type"`
	Version int        `json:"version,omitempty"`
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
	New     bool       `json:"new,omitempty"`
	URL     string     `json:"url,omitempty"`
	Work    int        `json:"work,omitempty"`
	Names   []string   `json:"names,omitempty"`
	Digest  string     `json:"digest,omitempty"`
}

func newJSONEvents(mu *sync.Mutex, out io.Writer) jsonEvents {
	j := jsonEvents{newJSONLines(mu, out)}
	mu.Lock()
	defer mu.Unlock()
	now := time.Now()
	j.event(jsonEvent{Type: "version", Version: schemaVersion, Time: &now})
	return j
}

func (j jsonEvents) handle(e event.Event, w *work) {
	encoded := encode(e)
	if d, ok := e.(event.Done); ok && d.Err != nil {
		encoded.Cancel = w.state == canceled
	}
	j.event(encoded)
}

func (j jsonEvents) event(e jsonEvent) {
	if j.add(e) == nil {
		return
	}
	// Only a time outside of the years 0 to 9999 cannot be encoded.
	e.Time = nil
	if err := j.add(e); err != nil {
		panic("unreachable: " + err.Error())
	}
}

func encode(e event.Event) jsonEvent {
	switch e := e.(type) {
	case event.Start:
		return jsonEvent{Type: "start", Time: &e.Time, ID: string(e.ID), Name: e.Name,
			Stage: e.Stage, File: e.File, Line: e.Line}
	case event.Done:
		encoded := jsonEvent{Type: "done", Time: &e.Time, ID: string(e.ID), Cached: e.Cached,
			Repair: e.Repair, Note: e.Note}
		if e.Err != nil {
			encoded.Error = strings.ToValidUTF8(e.Err.Error(), "\uFFFD")
		}
		return encoded
	case event.Reason:
		return jsonEvent{Type: "reason", Time: &e.Time, ID: string(e.ID), Message: e.Text,
			New: e.New}
	case event.Log:
		return jsonEvent{Type: "log", Time: &e.Time, ID: string(e.ID),
			Stream: e.Stream, Data: e.Data}
	case event.Progress:
		return jsonEvent{Type: "progress", Time: &e.Time, ID: string(e.ID), Part: e.Part,
			Current: &e.Current, Total: e.Total, Done: e.Done}
	case event.Warning:
		return jsonEvent{Type: "warning", Time: &e.Time, ID: string(e.ID), Rule: e.Rule,
			Message: e.Message, URL: e.URL, File: e.File, Line: e.Line}
	case event.Expect:
		return jsonEvent{Type: "expect", Time: &e.Time, Work: e.Work}
	case event.Result:
		return jsonEvent{Type: "result", Time: &e.Time, Names: e.Names, Digest: e.Digest}
	}
	panic("unreachable")
}
