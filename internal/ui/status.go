package ui

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/layerbuild/layerbuild/internal/event"
)

// statuses writes a build as docker buildx build --progress=rawjson does: for each event the JSON
// form of BuildKit's client.SolveStatus. The types below have the fields of that type and of those
// that it refers to; TestStatusAsBuildKit compares them. Readers ignore a log, status or warning of
// a vertex that they do not know, so the vertex of a piece of work is written before them, or with
// the first of them.
type statuses struct {
	jsonLines
	rec     *record
	digests map[*work]string // the vertexes that were written
	inputs  map[*work][]event.ID
}

type solveStatus struct {
	Vertexes []vertex        `json:"vertexes,omitempty"`
	Statuses []vertexStatus  `json:"statuses,omitempty"`
	Logs     []vertexLog     `json:"logs,omitempty"`
	Warnings []vertexWarning `json:"warnings,omitempty"`
}

// vertex is a piece of work. Readers tell its runs apart by Started.
type vertex struct {
	Digest    string     `json:"digest,omitempty"`
	Inputs    []string   `json:"inputs,omitempty"`
	Name      string     `json:"name,omitempty"`
	Started   *time.Time `json:"started,omitempty"`
	Completed *time.Time `json:"completed,omitempty"`
	Cached    bool       `json:"cached,omitempty"`
	Error     string     `json:"error,omitempty"`
}

// vertexStatus is a part of a piece of work, which ID names within it.
type vertexStatus struct {
	ID        string     `json:"id"`
	Vertex    string     `json:"vertex,omitempty"`
	Total     int64      `json:"total,omitempty"`
	Current   int64      `json:"current"`
	Timestamp time.Time  `json:"timestamp"`
	Started   *time.Time `json:"started,omitempty"`
	Completed *time.Time `json:"completed,omitempty"`
}

type vertexLog struct {
	Vertex    string    `json:"vertex,omitempty"`
	Stream    int       `json:"stream,omitempty"`
	Data      []byte    `json:"data"`
	Timestamp time.Time `json:"timestamp"`
}

type vertexWarning struct {
	Vertex     string        `json:"vertex,omitempty"`
	Level      int           `json:"level,omitempty"`
	Short      []byte        `json:"short,omitempty"`
	Detail     [][]byte      `json:"detail,omitempty"`
	URL        string        `json:"url,omitempty"`
	SourceInfo *sourceInfo   `json:"sourceInfo,omitempty"`
	Range      []sourceRange `json:"range,omitempty"`
}

type sourceInfo struct {
	Filename string `json:"filename,omitempty"`
	Data     []byte `json:"data,omitempty"`
	Language string `json:"language,omitempty"`
}

// sourceRange is a line of a file. BuildKit, too, has a range for each line of an instruction, and
// no columns.
type sourceRange struct {
	Start sourcePosition `json:"start"`
	End   sourcePosition `json:"end"`
}

type sourcePosition struct {
	Line int `json:"line,omitempty"`
}

func newStatuses(mu *sync.Mutex, rec *record, out io.Writer) *statuses {
	return &statuses{jsonLines: newJSONLines(mu, out), rec: rec, digests: map[*work]string{},
		inputs: map[*work][]event.ID{}}
}

func (s *statuses) handle(e event.Event, w *work) {
	var out solveStatus
	switch e := e.(type) {
	case event.Start:
		if w.running > 1 {
			return // equal work runs already
		}
		if len(e.Inputs) > 0 {
			s.inputs[w] = e.Inputs
		}
		s.vertex(&out, w)
	case event.Done:
		s.done(&out, e, w)
	case event.Reason:
		at := encodable(e.Time)
		out.Statuses = []vertexStatus{{ID: w.runsBecause(), Vertex: s.digest(&out, w),
			Timestamp: at, Started: &at, Completed: &at}}
	case event.Log:
		out.Logs = []vertexLog{{Vertex: s.digest(&out, w), Stream: e.Stream, Data: e.Data,
			Timestamp: encodable(e.Time)}}
	case event.Progress:
		s.progress(&out, e, w)
	case event.Warning:
		s.warning(&out, e, w)
	case event.Expect, event.Result:
		return // BuildKit has nothing like them
	default:
		panic(fmt.Sprintf("unreachable: %T", e))
	}
	if err := s.add(out); err != nil {
		panic("unreachable: " + err.Error())
	}
}

// vertex adds the vertex of w, which is running, to out.
func (s *statuses) vertex(out *solveStatus, w *work) *vertex {
	sum := s.digests[w]
	if sum == "" {
		sum = vertexDigest(w)
		s.digests[w] = sum
	}
	begun := encodable(w.begun)
	var inputs []string
	for _, id := range s.inputs[w] {
		// A step begins before it waits for another stage, so its end may have more inputs.
		input := s.digests[s.rec.work[id]]
		if input != "" && !slices.Contains(inputs, input) {
			inputs = append(inputs, input)
		}
	}
	out.Vertexes = append(out.Vertexes, vertex{Digest: sum, Inputs: inputs, Name: w.name,
		Started: &begun})
	return &out.Vertexes[len(out.Vertexes)-1]
}

// digest returns the digest of w's vertex. It adds the vertex to out if none was written.
func (s *statuses) digest(out *solveStatus, w *work) string {
	if sum := s.digests[w]; sum != "" {
		return sum
	}
	return s.vertex(out, w).Digest
}

// done adds the end of w. Work that failed because of damage has no error here, since readers would
// take the build for failed; it begins again.
func (s *statuses) done(out *solveStatus, e event.Done, w *work) {
	v := s.vertex(out, w)
	end := encodable(w.end)
	v.Completed, v.Cached = &end, w.state == cached
	switch w.state {
	case failed:
		v.Error = e.Err.Error()
	case canceled:
		// Readers know by the end of the text that the work did not fail.
		v.Error = e.Err.Error()
		if stopped := context.Canceled.Error(); !strings.HasSuffix(v.Error, stopped) {
			v.Error += ": " + stopped
		}
	}
	if e.Note != "" {
		out.Statuses = []vertexStatus{{ID: e.Note, Vertex: v.Digest, Timestamp: end,
			Started: &end, Completed: &end}}
	}
}

func (s *statuses) progress(out *solveStatus, e event.Progress, w *work) {
	at := encodable(e.Time)
	status := vertexStatus{ID: e.Part, Vertex: s.digest(out, w), Total: e.Total,
		Current: e.Current, Timestamp: at}
	for _, p := range w.parts {
		if p.name == e.Part {
			begun := encodable(p.begun)
			status.Started = &begun
		}
	}
	if e.Done {
		status.Completed = &at
	}
	out.Statuses = []vertexStatus{status}
}

// warning adds a warning. One that is about no piece of work has the vertex of the first: in
// BuildKit, findings about a Dockerfile have the vertex of the work that loaded it.
func (s *statuses) warning(out *solveStatus, e event.Warning, w *work) {
	if w == nil && len(s.rec.order) > 0 {
		w = s.rec.order[0]
	}
	v := newVertexWarning(e)
	if w != nil {
		v.Vertex = s.digest(out, w)
	}
	out.Warnings = []vertexWarning{v}
}

// newVertexWarning returns a warning in BuildKit's form, without a vertex.
func newVertexWarning(e event.Warning) vertexWarning {
	v := vertexWarning{Level: 1, Short: []byte(e.Message), URL: e.URL}
	if e.Rule != "" {
		text := e.Rule + ": " + e.Message
		if e.Line > 0 {
			text += fmt.Sprintf(" (line %d)", e.Line)
		}
		v.Short = []byte(text)
	}
	if e.Detail != "" {
		v.Detail = [][]byte{[]byte(e.Detail)}
	}
	if e.File != "" {
		v.SourceInfo = &sourceInfo{Filename: e.File, Data: []byte(e.Source),
			Language: "Dockerfile"}
	}
	for line := e.Line; line > 0 && line <= max(e.Line, e.End); line++ {
		at := sourcePosition{line}
		v.Range = append(v.Range, sourceRange{at, at})
	}
	return v
}

// JSONWarnings returns the build's warnings so far in the form of client.VertexWarning, as a JSON
// array; nil if there are none. It is the value of buildx.build.warnings in the metadata of a
// build.
func (u *UI) JSONWarnings() (json.RawMessage, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	var list []vertexWarning
	for _, e := range u.record.sortedWarnings() {
		v := newVertexWarning(e)
		w := u.record.work[e.ID]
		if w == nil && len(u.record.order) > 0 {
			w = u.record.order[0]
		}
		if w != nil {
			v.Vertex = vertexDigest(w)
		}
		list = append(list, v)
	}
	if list == nil {
		return nil, nil
	}
	return json.Marshal(list)
}

// vertexDigest returns a digest that identifies a piece of work within its build.
func vertexDigest(w *work) string {
	hash := sha256.Sum256([]byte(w.id))
	return "sha256:" + hex.EncodeToString(hash[:])
}

// encodable returns t, or the zero time if t has no form in JSON: its year must have four digits.
func encodable(t time.Time) time.Time {
	if y := t.Year(); y < 0 || y > 9999 {
		return time.Time{}
	}
	return t
}
