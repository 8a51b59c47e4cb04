package ui

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/layerbuild/layerbuild/internal/buildkittest"
	"github.com/layerbuild/layerbuild/internal/event"
)

// The objects of rawjson have the form of BuildKit's.
func TestStatusAsBuildKit(t *testing.T) {
	const graph, ops = "client/graph.go", "solver/pb/ops.pb.go"
	for _, tt := range []struct {
		ours   any
		theirs buildkittest.Struct
	}{
		{solveStatus{}, buildkittest.Struct{File: graph, Name: "SolveStatus"}},
		{vertex{}, buildkittest.Struct{File: graph, Name: "Vertex",
			Without: []string{"progressGroup"}}},
		{vertexStatus{}, buildkittest.Struct{File: graph, Name: "VertexStatus",
			Without: []string{"name"}}},
		{vertexLog{}, buildkittest.Struct{File: graph, Name: "VertexLog"}},
		{vertexWarning{}, buildkittest.Struct{File: graph, Name: "VertexWarning"}},
		{sourceInfo{}, buildkittest.Struct{File: ops, Name: "SourceInfo",
			Without: []string{"definition"}}},
		{sourceRange{}, buildkittest.Struct{File: ops, Name: "Range"}},
		{sourcePosition{}, buildkittest.Struct{File: ops, Name: "Position",
			Without: []string{"character"}}},
	} {
		buildkittest.Compare(t, tt.ours, tt.theirs)
	}
}

// statusOf returns the objects that rawjson writes for events.
func statusOf(t *testing.T, events ...event.Event) (list []solveStatus) {
	t.Helper()
	var out bytes.Buffer
	u, err := New("rawjson", &out, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		u.Sink()(e)
	}
	if err := u.Close(); err != nil {
		t.Error(err)
	}
	for dec := json.NewDecoder(&out); dec.More(); {
		var s solveStatus
		if err := dec.Decode(&s); err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
	return list
}

// The vertex of a piece of work comes before all that refers to it.
func TestStatusVertexFirst(t *testing.T) {
	for _, e := range []event.Event{
		event.Log{ID: "a", Stream: 1, Data: []byte("x")},
		event.Progress{ID: "a", Part: "download", Current: 1},
		event.Done{ID: "a", Note: "sha256:ff"},
	} {
		list := statusOf(t, e)
		if len(list) != 1 || len(list[0].Vertexes) != 1 || list[0].Vertexes[0].Name != "a" ||
			list[0].Vertexes[0].Started == nil {
			t.Errorf("%T: %+v", e, list)
			continue
		}
		of := ""
		for _, s := range list[0].Statuses {
			of = s.Vertex
			if s.Started == nil {
				t.Errorf("%T: a status without a beginning: %+v", e, s)
			}
		}
		for _, l := range list[0].Logs {
			of = l.Vertex
		}
		if want := list[0].Vertexes[0].Digest; of != want || !strings.HasPrefix(of, "sha256:") {
			t.Errorf("%T: belongs to %q, want %q", e, of, want)
		}
	}
	// A warning without work belongs to the first piece of work; if there is none, to nothing.
	warn := event.Warning{Message: "m"}
	list := statusOf(t, warn, event.Start{ID: "a"}, event.Start{ID: "b"},
		event.Warning{Message: "n"})
	if first, last := list[0].Warnings[0].Vertex, list[3].Warnings[0].Vertex; first != "" ||
		last != list[1].Vertexes[0].Digest {
		t.Errorf("the warnings belong to %q and %q", first, last)
	}
}

// Each run of equal work begins once and ends once. Only a failure has an error that does not end
// in BuildKit's text for canceled work.
func TestStatusRuns(t *testing.T) {
	at := func(n int) time.Time { return time.Unix(int64(n), 0) }
	start := func(n int) event.Event { return event.Start{ID: "a", Time: at(n)} }
	done := func(n int, err error) event.Event { return event.Done{ID: "a", Err: err, Time: at(n)} }
	damage := errors.New("damage")
	for _, tt := range []struct {
		events []event.Event
		want   string
	}{
		{[]event.Event{start(1), start(2), done(3, nil), done(4, nil)}, "1- 1-4"},
		{[]event.Event{start(1), done(2, nil), start(3), done(4, nil)}, "1- 1-2 3- 3-4"},
		{[]event.Event{start(1), event.Done{ID: "a", Cached: true, Time: at(2)}}, "1- 1-2:cached"},
		{[]event.Event{start(1), done(2, damage)}, "1- 1-2:damage"},
		{[]event.Event{start(1), done(2, context.Canceled)}, "1- 1-2:context canceled"},
		{[]event.Event{start(1), done(2, fmt.Errorf("%w at 7", context.Canceled))},
			"1- 1-2:context canceled at 7: context canceled"},
		{[]event.Event{start(1), event.Done{ID: "a", Err: damage, Repair: true, Time: at(2)},
			start(3), done(4, nil)}, "1- 1-2 3- 3-4"},
		{[]event.Event{event.Start{ID: "a", Time: time.Unix(1<<40, 0)}}, "-62135596800-"},
	} {
		var got []string
		for _, s := range statusOf(t, tt.events...) {
			for _, v := range s.Vertexes {
				text := fmt.Sprintf("%d-", v.Started.Unix())
				if v.Completed != nil {
					text += fmt.Sprint(v.Completed.Unix())
				}
				if v.Cached {
					text += ":cached"
				}
				if v.Error != "" {
					text += ":" + v.Error
				}
				got = append(got, text)
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%v: %q, want %q", tt.events, got, tt.want)
		}
	}
}

// The inputs of a vertex are vertexes that were written before, each once.
func TestStatusInputs(t *testing.T) {
	list := statusOf(t, event.Start{ID: "a"}, event.Done{ID: "a"}, event.Start{ID: "b",
		Inputs: []event.ID{"a", "other", "a"}}, event.Done{ID: "b"})
	for _, s := range list[2:] {
		got := s.Vertexes[0].Inputs
		if len(got) != 1 || got[0] != list[0].Vertexes[0].Digest {
			t.Errorf("the inputs are %q, want those of %+v", got, list[0])
		}
	}
}
