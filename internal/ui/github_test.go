package ui

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/goldentest"
)

// hostileEvents sends the events of a build whose commands and names contain workflow commands.
func hostileEvents(send event.Sink) {
	send(event.Start{ID: "a", Name: "[1/3] RUN echo '##[add-mask]x'", File: "Dockerfile", Line: 2,
		Time: time.Now()})
	send(event.Log{ID: "a", Stream: 1, Data: []byte("::set-output name=a::b\n##[save-state]c\n"),
		Time: time.Now()})
	time.Sleep(time.Second)
	send(event.Warning{ID: "a", Rule: "Rule", Message: "use ##[error]", Detail: "why",
		File: "Dockerfile", Line: 2, End: 3, Time: time.Now()})
	send(event.Done{ID: "a", Time: time.Now()})
	send(event.Start{ID: "b", Name: "[2/3] COPY a|b /", File: "Dockerfile", Line: 4,
		Time: time.Now()})
	send(event.Done{ID: "b", Cached: true, Time: time.Now()})
	send(event.Start{ID: "c", Name: "[3/3] RUN <b>false</b>", File: "Dockerfile", Line: 5,
		Time: time.Now()})
	send(event.Start{ID: "d", Name: "pull base", Time: time.Now()})
	// not at the moment in which the writer looks again, or either could be the first
	time.Sleep(stayIdle - plainPause/2)
	send(event.Done{ID: "c", Err: errors.New("*it* ::failed"), Time: time.Now()})
}

func hostileBuild(t *testing.T, mode string, o Options) (out string, u *UI) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		var err error
		if u, err = New(mode, &b, o); err != nil {
			t.Fatal(err)
		}
		hostileEvents(u.Sink())
		if err := u.Close(); err != nil {
			t.Fatal(err)
		}
		out = b.String()
	})
	return out, u
}

func none(string) string { return "" }

// TestGitHub renders hostile text for a runner of GitHub Actions: no line is a command but those of
// the groups.
func TestGitHub(t *testing.T) {
	for _, mode := range []string{"plain", "tty", "json", "rawjson", "quiet"} {
		for _, groups := range []bool{false, true} {
			out, _ := hostileBuild(t, mode, Options{GitHub: true, Groups: groups, Getenv: none})
			depth, found := 0, 0
			for line := range strings.Lines(out) {
				switch {
				case strings.HasPrefix(line, "::group::"):
					depth, found = depth+1, found+1
					continue
				case strings.HasPrefix(line, "::endgroup::"):
					depth--
					continue
				}
				if strings.HasPrefix(strings.TrimSpace(line), "::") ||
					strings.Contains(line, "##[") {
					t.Errorf("%s: a line is a command: %q", mode, line)
				}
				if groups && mode == "plain" && depth != 1 {
					t.Errorf("a line is in %d groups: %q", depth, line)
				}
			}
			if want := groups && mode == "plain"; depth != 0 || (found > 0) != want {
				t.Errorf("%s, groups %v: %d groups, %d of them open", mode, groups, found, depth)
			}
		}
	}
	out, _ := hostileBuild(t, "plain", Options{GitHub: true, Groups: true, Getenv: none})
	goldentest.Compare(t, "github.txt", out)
	if out, _ := hostileBuild(t, "plain", Options{Getenv: none}); !strings.Contains(out, "##[") {
		t.Error("elsewhere the text is not changed")
	}
}

func TestWriteSummary(t *testing.T) {
	_, u := hostileBuild(t, "quiet", Options{Getenv: none})
	var b bytes.Buffer
	err := u.WriteSummary(&b, Summary{Title: "app`", Err: errors.New("*it* <failed>\ntwice")})
	if err != nil {
		t.Fatal(err)
	}
	goldentest.Compare(t, "summary.md", b.String())
}

// TestSummaryLong checks that a summary of a large build is bounded.
func TestSummaryLong(t *testing.T) {
	u, err := New("quiet", nil, Options{Getenv: none})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		id := event.ID(strings.Repeat("x", i+1))
		u.Sink()(event.Start{ID: id, Name: strings.Repeat("n", 10000)})
		u.Sink()(event.Warning{ID: id, Message: string(id)})
	}
	var b bytes.Buffer
	if err := u.WriteSummary(&b, Summary{}); err != nil {
		t.Fatal(err)
	}
	if b.Len() > 200_000 || !strings.Contains(b.String(), "and 800 more") {
		t.Errorf("%d bytes", b.Len())
	}
}

func TestJSONWarnings(t *testing.T) {
	_, u := hostileBuild(t, "quiet", Options{Getenv: none})
	data, err := u.JSONWarnings()
	if err != nil {
		t.Fatal(err)
	}
	short := base64.StdEncoding.EncodeToString([]byte("Rule: use ##[error] (line 2)"))
	for _, want := range []string{`"vertex":"sha256:`, `"short":"` + short, `"level":1`,
		`"range":[{"start":{"line":2},"end":{"line":2}},{"start":{"line":3},"end":{"line":3}}]`} {
		if !strings.Contains(string(data), want) {
			t.Errorf("no %s in %s", want, data)
		}
	}
	u, err = New("quiet", nil, Options{Getenv: none})
	if data, err2 := u.JSONWarnings(); data != nil || err != nil || err2 != nil {
		t.Errorf("without warnings: %s, %v, %v", data, err, err2)
	}
}
