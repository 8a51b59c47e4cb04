package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestPhases checks the times of a build with two stages whose steps overlap.
func TestPhases(t *testing.T) {
	const log = `{"type":"start","time":"2020-01-01T00:00:01Z","id":"c","name":"load build context and Dockerfile"}
{"type":"done","time":"2020-01-01T00:00:02Z","id":"c"}
{"type":"expect","time":"2020-01-01T00:00:02Z","work":5}
{"type":"start","time":"2020-01-01T00:00:03Z","id":"p","name":"pull docker.io/library/a:latest"}
{"type":"start","time":"2020-01-01T00:00:03Z","id":"q","name":"pull docker.io/library/b:latest"}
{"type":"done","time":"2020-01-01T00:00:05Z","id":"q"}
{"type":"done","time":"2020-01-01T00:00:06Z","id":"p"}
{"type":"start","time":"2020-01-01T00:00:06Z","id":"1","name":"[a 1/1] RUN a","line":2}
output of a program: {"type":"start"}
{"type":"start","time":"2020-01-01T00:00:07Z","id":"2","name":"[b 1/1] RUN b","line":4}
{"type":"start","time":"2020-01-01T00:00:08Z","id":"2","name":"[b 1/1] RUN b","line":4}
{"type":"done","time":"2020-01-01T00:00:09Z","id":"1","cached":true}
{"type":"done","time":"2020-01-01T00:00:10Z","id":"2"}
{"type":"done","time":"2020-01-01T00:00:11Z","id":"2"}
{"type":"done","time":"2020-01-01T00:00:11Z","id":"unknown"}
{"type":"start","time":"2020-01-01T00:00:13Z","id":"i","name":"exporting to image"}
{"type":"done","time":"2020-01-01T00:00:14Z","id":"i"}
{"type":"result","time":"2020-01-01T00:00:14Z"}
`
	at := func(s int) time.Time { return time.Date(2020, 1, 1, 0, 0, s, 0, time.UTC) }
	a := &account{of: "x", phases: phases([]byte(log), at(0), at(20)), usage: usage{Began: at(0),
		Ended: at(20), User: time.Second, System: 2 * time.Second, Read: 3e6, Written: 4e6,
		FromDisk: -1, ToDisk: 5e6, Processes: 1234}}
	var b strings.Builder
	a.markdown(&b)
	want := `
One more run of x: 20.0 s. CPU: 1.00 s user, 2.00 s system. Processes: 1,234. Read: 3.0 MB, from the disk: not known. Written: 4.0 MB, to the disk: 5.0 MB.

| phase | pieces | time |
| --- | --- | --- |
| start of the program |  | 1.00 s |
| load build context and Dockerfile | 1 | 1.00 s |
| pull | 2 | 3.00 s |
| steps | 2, 1 cached | 5.00 s |
| exporting to image | 1 | 1.00 s |
| between these |  | 3.00 s |
| end of the program |  | 6.00 s |
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if got := phases([]byte("no events\n"), at(0), at(1)); got != nil {
		t.Errorf("phases without events: %v", got)
	}
}

// TestAccount checks that the bytes and times of a command's children are counted.
func TestAccount(t *testing.T) {
	if readIO() == nil {
		t.Skip("/proc/self/io cannot be read")
	}
	dir := t.TempDir()
	out := filepath.Join(dir, "usage")
	err := accountChild(context.Background(), []string{out, "", "sh", "-c",
		`sh -c 'head -c 3000000 /dev/zero >"$1"' sh "$1"; true`, "sh", filepath.Join(dir, "f")})
	if err != nil {
		t.Fatal(err)
	}
	var u usage
	raw, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &u); err != nil {
		t.Fatal(err)
	}
	if u.Written < 3e6 || u.Written > 4e6 || u.Read < 3e6 || !u.Ended.After(u.Began) ||
		u.User+u.System <= 0 {
		t.Errorf("got %+v", u)
	}
	if u.Processes != -1 || u.ProcessesNotKnown == "" {
		t.Errorf("processes without tracefs: %d %q", u.Processes, u.ProcessesNotKnown)
	}
	if accountChild(context.Background(), []string{out, "", "false"}) == nil {
		t.Error("a command that failed has succeeded")
	}
}

func TestAddUsage(t *testing.T) {
	u := usage{Read: 1, Written: 2, FromDisk: -1, ToDisk: 3, Processes: 4}
	u.add(usage{Read: 10, Written: -1, FromDisk: 5, ToDisk: 7, Processes: -1,
		ProcessesNotKnown: "why"})
	want := usage{Read: 11, Written: -1, FromDisk: -1, ToDisk: 10, Processes: -1,
		ProcessesNotKnown: "why"}
	if d := cmp.Diff(want, u); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestTasks(t *testing.T) {
	for _, tt := range []struct {
		trace string
		want  int
		fails bool
	}{
		{trace: "# tracer: nop\n#\n# entries-in-buffer/entries-written: 12/12   #P:2\n", want: 12},
		{trace: "# entries-in-buffer/entries-written: 12/13   #P:2\n", fails: true},
		{trace: "# tracer: nop\n", fails: true},
	} {
		got, err := tasks(tt.trace)
		if got != tt.want || (err != nil) != tt.fails {
			t.Errorf("tasks(%q) = %d, %v", tt.trace, got, err)
		}
	}
}
