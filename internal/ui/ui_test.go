package ui

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/internal/event"
	"github.com/layerbuild/layerbuild/internal/goldentest"
	"github.com/layerbuild/layerbuild/internal/vttest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// build sends the events of a small build, with pauses between them, and calls at after each part.
func build(send event.Sink, at func(when string)) {
	const layer = "download sha256:4d5e6f0000000000000000000000000000000000000000000000000000000000"
	say := func(id, text string) {
		send(event.Log{ID: event.ID(id), Stream: 1, Data: []byte(text), Time: time.Now()})
	}
	start := func(id, name string) {
		send(event.Start{ID: event.ID(id), Name: name, Time: time.Now()})
	}
	done := func(id string, d event.Done) { d.ID, d.Time = event.ID(id), time.Now(); send(d) }
	send(event.Expect{Work: 6, Time: time.Now()})
	start("ctx", "load the build context")
	time.Sleep(30 * time.Millisecond)
	done("ctx", event.Done{})
	start("base", "pull docker.io/library/busybox:latest")
	send(event.Progress{ID: "base", Part: layer, Total: 10_000_000, Time: time.Now()})
	time.Sleep(2 * time.Second)
	send(event.Progress{ID: "base", Part: layer, Current: 3_500_000,
		Total: 10_000_000, Time: time.Now()})
	time.Sleep(time.Second)
	at("pulling")
	send(event.Progress{ID: "base", Part: layer, Current: 10_000_000, Total: 10_000_000,
		Done: true, Time: time.Now()})
	done("base", event.Done{Note: "sha256:abcd"})
	start("dir", "[build 2/4] WORKDIR /app")
	done("dir", event.Done{Cached: true})
	start("run", "[build 3/4] RUN make")
	send(event.Reason{ID: "run", Text: "src/main.c changed", Time: time.Now()})
	start("other", "[assets 2/2] RUN npm ci")
	send(event.Reason{ID: "other", Text: "line 7 is new", New: true, Time: time.Now()})
	send(event.Warning{ID: "run", Rule: "JSONArgsRecommended", Message: "use the JSON form",
		File: "Dockerfile", Line: 7, Time: time.Now()})
	for i := range 9 {
		time.Sleep(50 * time.Millisecond)
		say("run", fmt.Sprintf("cc -c file%d.c\n", i))
	}
	say("other", "10%\r20%\r30%")
	time.Sleep(300 * time.Millisecond)
	at("running")
	say("other", "\rdone\nadded 3 packages\n")
	time.Sleep(3 * time.Second)
	say("run", "ld: no such file\n")
	done("run", event.Done{Err: errors.New(
		`process "/bin/sh -c make" did not complete successfully: exit code: 2`)})
	time.Sleep(150 * time.Millisecond)
	done("other", event.Done{Err: context.Canceled})
	time.Sleep(220 * time.Millisecond)
	at("failed")
}

func TestPlainGolden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		u, err := New("plain", &out, Options{})
		if err != nil {
			t.Fatal(err)
		}
		build(u.Sink(), func(string) {})
		if err := u.Close(); err != nil {
			t.Error(err)
		}
		goldentest.Compare(t, "plain.txt", out.String())
	})
}

func TestJSONGolden(t *testing.T) {
	for _, mode := range []string{"json", "rawjson"} {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			u, err := New(mode, &out, Options{})
			if err != nil {
				t.Fatal(err)
			}
			send := u.Sink()
			build(send, func(string) {})
			send(event.Log{ID: "run", Stream: 2, Data: []byte("\x00\xff\x1b[31m"),
				Time: time.Now()})
			send(event.Warning{Rule: "StageNameCasing", Message: "Stage name 'A' should be lowercase",
				Detail: "Stage names should be lowercase", URL: "https://example.com/rule",
				File: "Dockerfile", Source: "FROM scratch \\\n AS A\n", Line: 1, End: 2,
				Time: time.Now()})
			send(event.Result{Names: []string{"docker.io/library/a:latest"},
				Digest: "sha256:ff", Time: time.Now()})
			if err := u.Close(); err != nil {
				t.Error(err)
			}
			goldentest.Compare(t, mode+".txt", out.String())
		})
	}
}

// onVT runs f with a live view on a virtual terminal.
func onVT(t *testing.T, width, height int, o Options,
	f func(t *testing.T, v *vttest.Terminal, u *UI)) {
	synctest.Test(t, func(t *testing.T) {
		v := vttest.New(t, width, height, RuneWidth)
		if o.Getenv == nil {
			o.Getenv = func(string) string { return "" }
		}
		u := &UI{}
		l := newLive(&u.mu, &u.record, v, o)
		u.mu.Lock()
		l.size = v.Size
		u.mu.Unlock()
		u.view = l
		f(t, v, u)
		if err := u.Close(); err != nil {
			t.Error(err)
		}
		if v.Hidden || v.NoWrap {
			t.Errorf("the terminal is left with the cursor hidden (%t) or lines not wrapping (%t)",
				v.Hidden, v.NoWrap)
		}
	})
}

func TestLiveGolden(t *testing.T) {
	for _, size := range []struct{ width, height int }{{80, 24}, {50, 10}, {30, 5}, {8, 3}} {
		t.Run(fmt.Sprintf("%dx%d", size.width, size.height), func(t *testing.T) {
			var shots strings.Builder
			onVT(t, size.width, size.height, Options{},
				func(t *testing.T, v *vttest.Terminal, u *UI) {
					build(u.Sink(), func(when string) {
						synctest.Wait()
						fmt.Fprintf(&shots, "--- %s\n%s", when, v.Shot(true))
					})
					if err := u.Close(); err != nil {
						t.Error(err)
					}
					fmt.Fprintf(&shots, "--- closed, with scrollback\n%s", v.All())
				})
			goldentest.Compare(t, fmt.Sprintf("live-%dx%d.txt", size.width, size.height),
				shots.String())
		})
	}
}

func TestLiveWithoutColor(t *testing.T) {
	for _, env := range []string{"NO_COLOR", "TERM"} {
		synctest.Test(t, func(t *testing.T) {
			v := vttest.New(t, 80, 24, RuneWidth)
			u, err := New("tty", v, Options{Getenv: func(name string) string {
				return map[string]string{env: "dumb"}[name]
			}})
			if err != nil {
				t.Fatal(err)
			}
			build(u.Sink(), func(string) {})
			if err := u.Close(); err != nil {
				t.Error(err)
			}
			if found := regexp.MustCompile(`\x1b\[[0-9;]*m`).FindString(
				v.Raw.String()); found != "" {
				t.Errorf("with %s there are colors: %q", env, found)
			}
		})
	}
}

// While only the elapsed time of a build changes, frames are drawn at most ten times a second.
// While no work runs, no frames are drawn.
func TestLiveWrites(t *testing.T) {
	onVT(t, 80, 24, Options{}, func(t *testing.T, v *vttest.Terminal, u *UI) {
		send := u.Sink()
		send(event.Start{ID: "a", Name: "a", Time: time.Now()})
		for range 100_000 {
			send(event.Log{ID: "a", Stream: 1, Data: []byte("x\n"), Time: time.Now()})
			time.Sleep(10 * time.Microsecond)
		}
		if n, _ := v.Sent(); n < 8 || n > 11 {
			t.Errorf("a second of a busy build took %d writes, want about 10", n)
		}
		send(event.Done{ID: "a", Time: time.Now()})
		time.Sleep(time.Second)
		before, _ := v.Sent()
		time.Sleep(time.Minute)
		if n, _ := v.Sent(); n != before {
			t.Errorf("a minute in which nothing happened took %d writes, want none", n-before)
		}
	})
}

// Unchanged lines are not sent again.
func TestLiveSendsLittle(t *testing.T) {
	onVT(t, 200, 50, Options{}, func(t *testing.T, v *vttest.Terminal, u *UI) {
		send := u.Sink()
		for i := range 20 {
			id := event.ID(fmt.Sprint(i))
			send(event.Start{ID: id, Name: strings.Repeat("x", 100), Time: time.Now()})
			if i > 0 {
				send(event.Done{ID: id, Time: time.Now()})
			}
		}
		time.Sleep(time.Second)
		_, before := v.Sent()
		time.Sleep(time.Second)
		if _, n := v.Sent(); n-before > 10*(2*200+200) {
			t.Errorf("a second in which two lines change ten times took %d bytes", n-before)
		}
	})
}

func TestLiveResize(t *testing.T) {
	onVT(t, 80, 24, Options{}, func(t *testing.T, v *vttest.Terminal, u *UI) {
		io.WriteString(v, "$ layerbuild .\r\n")
		send := u.Sink()
		for i := range 4 {
			send(event.Start{ID: event.ID(fmt.Sprint(i)),
				Name: fmt.Sprintf("step %d", i), Time: time.Now()})
		}
		for _, size := range [][2]int{{40, 24}, {20, 24}, {100, 24}, {100, 12}, {60, 30}, {79, 8}} {
			time.Sleep(1030 * time.Millisecond) // between two pictures
			v.Resize(size[0], size[1])
			time.Sleep(time.Second)
			screen := v.Screen()
			if n := strings.Count(screen, "[+] Building"); n != 1 {
				t.Errorf("after resizing to %v there are %d headers:\n%s", size, n, screen)
			}
			if n := strings.Count(screen, "=> step"); n != 4 {
				t.Errorf("after resizing to %v there are %d steps, want 4:\n%s", size, n, screen)
			}
			if all := v.All(); !strings.Contains(all, "$ layerbuild .") {
				t.Errorf("after resizing to %v what was there before is gone:\n%s", size, all)
			}
		}
	})
}

// The frame fits the terminal for any number of steps, and the lines above it are kept.
func TestLiveFits(t *testing.T) {
	for _, height := range []int{1, 2, 3, 5, 10, 24} {
		for _, steps := range []int{1, 3, 20, 200} {
			onVT(t, 40, height, Options{}, func(t *testing.T, v *vttest.Terminal, u *UI) {
				io.WriteString(v, "before\r\n")
				send := u.Sink()
				for i := range steps {
					id := event.ID(fmt.Sprint(i))
					send(event.Start{ID: id, Name: fmt.Sprintf("step %d", i), Time: time.Now()})
					for j := range 10 {
						send(event.Log{ID: id, Stream: 1, Data: []byte("line\n"), Time: time.Now()})
						send(event.Progress{ID: id, Part: fmt.Sprint(j), Total: 10,
							Current: int64(j), Time: time.Now()})
					}
					time.Sleep(50 * time.Millisecond)
					if i%3 == 0 {
						send(event.Done{ID: id, Time: time.Now()})
					}
				}
				time.Sleep(time.Second)
				screen := v.Screen()
				if height > 2 && !strings.Contains(screen, "[+] Building") {
					t.Errorf("height %d, %d steps: no header:\n%s", height, steps, screen)
				}
				if err := u.Close(); err != nil {
					t.Error(err)
				}
				all := v.All()
				if height > 2 && (v.Highest != 0 ||
					!strings.HasPrefix(all, "before\n[+] Building")) {
					t.Errorf(
						"height %d, %d steps: the picture is not below what was there before:\n%s",
						height, steps, all)
				}
				if n := strings.Count(all, "=> step"); height > 2 && n != steps {
					t.Errorf("height %d: %d steps at the end, want %d:\n%s", height, n, steps, all)
				}
			})
		}
	}
}

var hostile = []string{
	"\x1b]0;title\x07", "\x1b]0;title\x1b\\", "\x1b[2J\x1b[H", "\x1b[10A", "\x1bc", "\x1b(0",
	"\x1b[?1049h", "\x9b2J",
	"\u009b2J", "\u009d0;x\u009c", "\x1bP+q\x1b\\", "\x1b_x\x1b\\", "\x1b^x\x1b\\", "\x1bX\x1b\\",
	"\x07\x08\x0b\x0c\x0e\x0f",
	"\u202egnp.exe\u202c", "\u2066x\u2069", "\x1b[31mred\x1b[0m", "\x1b[", "\x1b", "\x1b]", "\x00",
	"\xff\xfe", "\xe4\xbd",
	"\x1b[6n", "\x1b[5i", "\x1b#8", "\x1b[38;2;1;2;3m", "漢字かな", "e\u0301\u0302", "👩\u200d👧",
	"\t\ttab", "a\rb\r\r", "\r\n\r\n", "\u2028",
	strings.Repeat("x", 300), strings.Repeat("漢", 300), strings.Repeat("\u0301", 5000),
}

// Neither the output of a command nor the name of a step can send a control sequence to the
// terminal (which vttest checks) or make a line too long.
func TestLiveHostile(t *testing.T) {
	for _, width := range []int{80, 21, 5, 1} {
		onVT(t, width, 24, Options{}, func(t *testing.T, v *vttest.Terminal, u *UI) {
			send := u.Sink()
			for i, h := range hostile {
				id := event.ID(h)
				send(event.Start{ID: id, Name: h, Time: time.Now()})
				for _, c := range []byte(h) { // in single bytes
					send(event.Log{ID: id, Stream: 1, Data: []byte{c}, Time: time.Now()})
				}
				send(event.Log{ID: id, Stream: 2, Data: []byte(h), Time: time.Now()})
				send(event.Progress{ID: id, Part: h, Current: -5, Total: 3, Time: time.Now()})
				send(event.Warning{ID: id, Rule: h, Message: h, File: h,
					Line: -1, Time: time.Now()})
				time.Sleep(200 * time.Millisecond)
				if i%2 == 0 {
					send(event.Done{ID: id, Err: errors.New(h), Note: h, Time: time.Now()})
				}
			}
		})
	}
}

func TestPlainHostile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := vttest.New(t, 100_000, 24, RuneWidth)
		u, err := New("plain", &crlf{v}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		send := u.Sink()
		for _, h := range hostile {
			id := event.ID(h)
			send(event.Start{ID: id, Name: h, Time: time.Now()})
			send(event.Log{ID: id, Stream: 1, Data: []byte(h), Time: time.Now()})
			send(event.Progress{ID: id, Part: h, Done: true, Time: time.Now()})
			send(event.Warning{ID: id, Rule: h, Message: h, File: h, Time: time.Now()})
			send(event.Done{ID: id, Err: errors.New(h), Note: h, Time: time.Now()})
		}
		if err := u.Close(); err != nil {
			t.Error(err)
		}
		if strings.Contains(v.Raw.String(), "\x1b") {
			t.Errorf("plain output has escape sequences: %q", v.Raw.String())
		}
	})
}

// crlf converts line ends like a terminal's line discipline.
type crlf struct{ w io.Writer }

func (c *crlf) Write(p []byte) (int, error) {
	_, err := c.w.Write(bytes.ReplaceAll(p, []byte("\n"), []byte("\r\n")))
	return len(p), err
}

// If two steps print at the same time, the output stays with one of them for a while, and no line
// is lost or split.
func TestPlainInterleaved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		u, err := New("plain", &out, Options{})
		if err != nil {
			t.Fatal(err)
		}
		send := u.Sink()
		for _, id := range []event.ID{"a", "b"} {
			send(event.Start{ID: id, Name: "step " + string(id), Time: time.Now()})
		}
		for i := range 1200 {
			for _, id := range []event.ID{"a", "b"} {
				send(event.Log{ID: id, Stream: 1,
					Data: fmt.Appendf(nil, "%s%d\n", id, i), Time: time.Now()})
			}
			time.Sleep(10 * time.Millisecond)
		}
		send(event.Done{ID: "a", Time: time.Now()})
		send(event.Done{ID: "b", Time: time.Now()})
		if err := u.Close(); err != nil {
			t.Error(err)
		}
		text := out.String()
		if n := strings.Count(text, " ...\n"); n < 1 || n > 4 {
			t.Errorf("the block changed hands %d times in 12 s, want about every 5 s", n)
		}
		next := map[string]int{}
		for l := range strings.Lines(text) {
			var step int
			var at float64
			var id string
			var n int
			if c, _ := fmt.Sscanf(l, "#%d %f %1s%d", &step, &at, &id, &n); c != 4 {
				continue
			}
			if want := map[string]int{"a": 1, "b": 2}[id]; step != want || n != next[id] {
				t.Fatalf("line %q: step %d number %d, want step %d number %d", l,
					step, n, want, next[id])
			}
			next[id]++
		}
		if next["a"] != 1200 || next["b"] != 1200 {
			t.Errorf("lines of a: %d, of b: %d, want 1200 each", next["a"], next["b"])
		}
	})
}

// The progress of a download is shown at intervals, and its end. Of a short download only the end
// is shown.
func TestPlainProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		u, err := New("plain", &out, Options{})
		if err != nil {
			t.Fatal(err)
		}
		send := u.Sink()
		send(event.Start{ID: "a", Name: "pull", Time: time.Now()})
		for i := range 121 {
			send(event.Progress{ID: "a", Part: "long", Current: int64(i) * 1e6, Total: 120e6,
				Done: i == 120, Time: time.Now()})
			send(event.Progress{ID: "a", Part: "short", Current: 5, Done: i > 0, Time: time.Now()})
			time.Sleep(100 * time.Millisecond)
		}
		if err := u.Close(); err != nil {
			t.Error(err)
		}
		want := `#1 pull
#1 short 5B 0.1s done
#1 long 50.0MB / 120MB 5.0s
#1 long 100MB / 120MB 10.0s
#1 long 120MB / 120MB 12.0s done
`
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("plain progress differs (-want +got):\n%s", diff)
		}
	})
}

// A question without a line end is shown when no further output follows.
func TestPlainPartialLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out syncBuffer
		u, err := New("plain", &out, Options{})
		if err != nil {
			t.Fatal(err)
		}
		send := u.Sink()
		send(event.Start{ID: "a", Name: "ask", Time: time.Now()})
		send(event.Log{ID: "a", Stream: 1, Data: []byte("Continue? [y/n] "), Time: time.Now()})
		time.Sleep(500 * time.Millisecond)
		if got := out.String(); strings.Contains(got, "Continue") {
			t.Errorf("after half a second there is %q, want no line without an end", got)
		}
		time.Sleep(2 * time.Second)
		if got := out.String(); !strings.Contains(got, "#1 0.000 Continue? [y/n]") {
			t.Errorf("after 2.5 s there is %q, want the line without an end", got)
		}
		send(event.Log{ID: "a", Stream: 1, Data: []byte("no\n"), Time: time.Now()})
		if err := u.Close(); err != nil {
			t.Error(err)
		}
		if got := out.String(); !strings.HasSuffix(got, "#1 2.500 no\n") {
			t.Errorf("at the end there is %q, want the rest of the line", got)
		}
	})
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// stuck is an output whose writes block until it is released.
type stuck struct {
	gate chan struct{}
	n    int
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.gate
	s.n += len(p)
	return len(p), nil
}

// With a blocked output, the build waits before pending output uses too much memory, and no output
// is lost.
func TestStuckOutput(t *testing.T) {
	for _, mode := range []string{"plain", "json", "rawjson"} {
		synctest.Test(t, func(t *testing.T) {
			out := &stuck{gate: make(chan struct{})}
			u, err := New(mode, out, Options{})
			if err != nil {
				t.Fatal(err)
			}
			send := u.Sink()
			data := bytes.Repeat([]byte("0123456789abcde\n"), 64<<10/16)
			const pieces = 250
			var sent atomic.Int64
			var finished atomic.Bool
			go func() {
				send(event.Start{ID: "a", Name: "a", Time: time.Now()})
				for range pieces {
					send(event.Log{ID: "a", Stream: 1, Data: data, Time: time.Now()})
					sent.Add(1)
				}
				finished.Store(true)
			}()
			time.Sleep(time.Second)
			synctest.Wait()
			if n := sent.Load(); finished.Load() || n < 10 || n > 230 {
				t.Errorf("%s: %d of %d pieces went into an output that takes none (finished: %t)",
					mode, n, pieces, finished.Load())
			}
			close(out.gate)
			time.Sleep(time.Minute)
			if !finished.Load() {
				t.Errorf("%s: the build still waits", mode)
			}
			if err := u.Close(); err != nil {
				t.Error(err)
			}
			if out.n < pieces*len(data) {
				t.Errorf("%s: %d bytes came out, want at least %d", mode, out.n, pieces*len(data))
			}
		})
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// Close returns the error of a closed output, and other calls do not return it.
func TestBrokenOutput(t *testing.T) {
	for _, mode := range []string{"plain", "tty", "json", "rawjson"} {
		u, err := New(mode, broken{}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		send := u.Sink()
		for range 1000 { // more than the limit for pending output
			send(event.Log{ID: "a", Stream: 1, Data: bytes.Repeat([]byte("0123456789abcde\n"),
				1000)})
		}
		if err := u.Close(); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("%s: Close() = %v, want %v", mode, err, io.ErrClosedPipe)
		}
		if err := u.Close(); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("%s: second Close() = %v, want %v", mode, err, io.ErrClosedPipe)
		}
		send(event.Start{ID: "late"})
	}
}

func TestNew(t *testing.T) {
	if _, err := New("fancy", io.Discard, Options{}); err == nil ||
		!strings.Contains(err.Error(), "plain, tty") {
		t.Errorf("New(fancy) = %v, want an error with the modes", err)
	}
	if getenv := func(string) string { return "" }; Color(io.Discard, getenv) {
		t.Error("there are colors where there is no terminal")
	}
	var out bytes.Buffer
	u, err := New("auto", &out, Options{})
	if err != nil {
		t.Fatal(err)
	}
	u.Sink()(event.Start{ID: "a", Name: "step"})
	if err := u.Close(); err != nil {
		t.Error(err)
	}
	if out.String() != "#1 step\n" {
		t.Errorf("auto wrote %q to a buffer, want it plain", out.String())
	}
}

// In every mode, the results of a build can be read after its end.
func TestOutput(t *testing.T) {
	for _, mode := range Modes {
		u, err := New(mode, io.Discard, Options{})
		if err != nil {
			t.Fatal(err)
		}
		send := u.Sink()
		send(event.Start{ID: "ok", Name: "fine"})
		send(event.Log{ID: "ok", Stream: 1, Data: []byte("fine\n")})
		send(event.Done{ID: "ok"})
		send(event.Start{ID: "bad", Name: "RUN \x1b[31mfalse"})
		for i := range 50 {
			send(event.Log{ID: "bad", Stream: 1, Data: fmt.Appendf(nil, "line %d\n", i)})
		}
		send(event.Log{ID: "bad", Stream: 2, Data: []byte("the \x1b[1mend")})
		send(event.Done{ID: "gone", Err: context.Canceled})
		send(event.Done{ID: "bad", Err: errors.New("no")})
		send(event.Done{ID: "later", Err: errors.New("no")})
		for _, line := range []int{3, 1, 3} {
			send(event.Warning{Rule: "R", Message: "m", File: "Dockerfile", Line: line})
		}
		if err := u.Close(); err != nil {
			t.Error(err)
		}
		id, ok := u.Failed()
		name, lines := u.Output(id)
		if !ok || id != "bad" || name != "RUN false" || len(lines) != 20 || lines[0] != "line 31" ||
			lines[19] != "the end" {
			t.Errorf("%s: failed %q %t, name %q, lines %q", mode, id, ok, name, lines)
		}
		if ws := u.Warnings(); len(ws) != 2 || ws[0].Line != 1 || ws[1].Line != 3 {
			t.Errorf("%s: warnings %v, want lines 1 and 3", mode, ws)
		}
	}
}

// TestRepair checks that damage that the build repairs is shown as such in every mode, and not as a
// failure.
func TestRepair(t *testing.T) {
	send := func(t *testing.T, u *UI) {
		sink := u.Sink()
		sink(event.Start{ID: "a", Name: "RUN a"})
		sink(event.Done{ID: "a", Err: errors.New("blob x is damaged"), Repair: true})
		time.Sleep(time.Second)
		synctest.Wait()
		if id, ok := u.Failed(); ok {
			t.Errorf("Failed = %q", id)
		}
	}
	finish := func(t *testing.T, u *UI) {
		u.Sink()(event.Start{ID: "a", Name: "RUN a"})
		u.Sink()(event.Done{ID: "a"})
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	}
	for mode, want := range map[string]string{
		"plain": "#1 RUN a\n#1 REPAIRING: blob x is damaged\n#1 DONE 0.0s\n",
		"json":  `"error":"blob x is damaged","repair":true}`,
	} {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			u, err := New(mode, &out, Options{})
			if err != nil {
				t.Fatal(err)
			}
			send(t, u)
			finish(t, u)
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: %q, want %q", mode, out.String(), want)
			}
		})
	}
	onVT(t, 60, 10, Options{}, func(t *testing.T, v *vttest.Terminal, u *UI) {
		send(t, u)
		if shot := v.Shot(true); !strings.Contains(shot, "REPAIRING RUN a") ||
			strings.Contains(shot, "ERROR") {
			t.Errorf("the terminal shows\n%s", shot)
		}
		finish(t, u)
		if all := v.All(); strings.Contains(v.Raw.String(), colors.failed) ||
			!strings.Contains(all, "FINISHED") || strings.Contains(all, "REPAIRING") {
			t.Errorf("in the end the terminal shows\n%s", all)
		}
	})
}

// Equal work has equal IDs. It ends when there is a Done for each Start, or when one of them fails.
func TestEqualWork(t *testing.T) {
	start := event.Start{ID: "a", Name: "pull"}
	done, fail, give := event.Done{ID: "a"}, event.Done{ID: "a", Err: errors.New("no")},
		event.Done{ID: "a", Err: context.Canceled}
	for _, tt := range []struct {
		events []event.Event
		want   string
	}{
		{[]event.Event{start, start, done}, "#1 pull\n"},
		{[]event.Event{start, start, done, done}, "#1 pull\n#1 DONE 0.0s\n"},
		{[]event.Event{start, done, start, done}, "#1 pull\n#1 DONE 0.0s\n#1 DONE 0.0s\n"},
		{[]event.Event{start, start, fail, done}, "#1 pull\n#1 ERROR: no\n"},
		{[]event.Event{start, start, fail, give}, "#1 pull\n#1 ERROR: no\n"},
		{[]event.Event{start, start, fail, done, start, done},
			"#1 pull\n#1 ERROR: no\n#1 DONE 0.0s\n"},
		{[]event.Event{done}, "#1 a\n#1 DONE 0.0s\n"},
	} {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			u, err := New("plain", &out, Options{})
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range tt.events {
				u.Sink()(e)
			}
			if err := u.Close(); err != nil {
				t.Error(err)
			}
			if out.String() != tt.want {
				t.Errorf("%v gives %q, want %q", tt.events, out.String(), tt.want)
			}
		})
	}
}

// Many goroutines send events of many steps concurrently.
func TestConcurrent(t *testing.T) {
	for _, mode := range Modes {
		u, err := New(mode, io.Discard, Options{})
		if err != nil {
			t.Fatal(err)
		}
		send := u.Sink()
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				id := event.ID(fmt.Sprint(i % 5)) // some have the same work
				for range 200 {
					send(event.Start{ID: id, Name: "x", Time: time.Now()})
					send(event.Log{ID: id, Stream: 1, Data: []byte("x\ny"), Time: time.Now()})
					send(event.Progress{ID: id, Part: "p", Current: 1, Time: time.Now()})
					u.Output(id)
					send(event.Done{ID: id, Time: time.Now()})
				}
			})
		}
		wg.Wait()
		if err := u.Close(); err != nil {
			t.Error(err)
		}
		if u.record.ended != 5 || u.record.total() != 5 {
			t.Errorf("%s: %d of %d pieces of work have ended, want 5 of 5", mode,
				u.record.ended, u.record.total())
		}
	}
}

func BenchmarkPlainLog(b *testing.B) { benchmarkLog(b, "plain") }
func BenchmarkLiveLog(b *testing.B)  { benchmarkLog(b, "tty") }
func BenchmarkJSON(b *testing.B)     { benchmarkLog(b, "json") }
func BenchmarkRawJSON(b *testing.B)  { benchmarkLog(b, "rawjson") }

// benchmarkLog renders the output of a command that prints lines of 80 characters, in pieces of 4
// KiB.
func benchmarkLog(b *testing.B, mode string) {
	u, err := New(mode, io.Discard, Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer u.Close()
	send := u.Sink()
	piece := bytes.Repeat([]byte(strings.Repeat("x", 79)+"\n"), 51)
	now := time.Now()
	send(event.Start{ID: "a", Name: "a", Time: now})
	b.SetBytes(int64(len(piece)))
	b.ReportAllocs()
	for b.Loop() {
		send(event.Log{ID: "a", Stream: 1, Data: piece, Time: now})
	}
	b.ReportMetric(float64(b.N)*51/b.Elapsed().Seconds(), "lines/s")
}
