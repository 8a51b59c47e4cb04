package browse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/layerbuild/layerbuild/analyze"
	"github.com/layerbuild/layerbuild/analyze/analyzetest"
	"github.com/layerbuild/layerbuild/internal/goldentest"
	"github.com/layerbuild/layerbuild/internal/ui"
	"github.com/layerbuild/layerbuild/internal/vttest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// onVT returns a screen on a virtual terminal, which accepts only the sequences that the browser
// may send.
func onVT(t testing.TB, r *analyze.Report, width, height int,
	color bool) (*screen, *vttest.Terminal) {
	v := vttest.New(t, width, height, ui.RuneWidth)
	v.FullScreen = true
	io.WriteString(v, enterScreen)
	return &screen{out: v, size: v.Size, model: newModel(r), color: color}, v
}

// press presses keys, separated by spaces, and draws after each.
func press(t testing.TB, s *screen, keys string) {
	t.Helper()
	for k := range strings.FieldsSeq(keys) {
		s.model.press(key(k))
		if err := s.draw(); err != nil {
			t.Fatal(err)
		}
	}
}

// typed returns the keys that type text.
func typed(text string) string { return strings.Join(strings.Split(text, ""), " ") }

// TestGolden compares the screens of a walk through an image with golden files.
func TestGolden(t *testing.T) {
	r := analyzetest.Sample(t)
	for _, size := range [][2]int{{120, 26}, {60, 18}, {30, 8}} {
		s, v := onVT(t, r, size[0], size[1], true)
		var shots strings.Builder
		for _, keys := range []string{
			"?", "x", "down down down", "down tab", "right right", "tab down down ctrl+u",
			"tab ctrl+space", "end", "/ " + typed("id_rsa") + " ctrl+m",
			"ctrl+a ctrl+r ctrl+m", "ctrl+a ctrl+r ctrl+m ctrl+u ctrl+d",
			"ctrl+d ctrl+f " + typed(`\.bin$`) + " ctrl+m", "esc s ctrl+b", "tab end",
		} {
			press(t, s, keys)
			fmt.Fprintf(&shots, "--- %s\n%s", keys, v.Shot(true))
		}
		goldentest.Compare(t, fmt.Sprintf("walk-%dx%d.txt", size[0], size[1]), shots.String())
	}
}

// TestEverySize checks that no line is too long at any size, for which the virtual terminal would
// report an error, and that returning to a size draws the same picture as before.
func TestEverySize(t *testing.T) {
	s, v := onVT(t, analyzetest.Sample(t), 120, 30, true)
	press(t, s, "tab ctrl+space")
	before := v.Screen()
	for width := 1; width < 200; width += 7 {
		for _, height := range []int{1, 2, 4, 5, 9, 15, 16, 17, 60} {
			v.Resize(width, height)
			press(t, s, "down tab up tab")
		}
	}
	v.Resize(120, 30)
	press(t, s, "home")
	if diff := cmp.Diff(before, v.Screen()); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
}

// TestHostile checks that no text of an image reaches the terminal as a control sequence. vttest
// fails on sequences that the browser does not send.
func TestHostile(t *testing.T) {
	r := analyzetest.Sample(t)
	bad := strings.Join(analyzetest.Hostile, " ")
	r.Image = bad
	for i := range r.Instructions {
		r.Instructions[i].Text, r.Instructions[i].Line = bad, 0
	}
	for i := range r.Findings {
		r.Findings[i].Remedy, r.Findings[i].Path = bad, "/"
	}
	for i := range r.Layers {
		r.Layers[i].Digest = bad
	}
	for _, width := range []int{200, 61, 20} {
		s, v := onVT(t, r, width, 60, true)
		for range len(r.Layers) + 1 {
			press(t, s, "down tab ctrl+space end up up up home down tab")
		}
		press(t, s, "/ \x1b \u202e \x9b x ctrl+m ctrl+f [ \u202e ctrl+m")
		if strings.ContainsAny(v.Screen(), "\u202e\u2028\ufffd") {
			t.Errorf("the terminal received a bidirectional control character:\n%s", v.Screen())
		}
	}
	s, v := onVT(t, r, 200, 60, true)
	press(t, s, "end tab ctrl+space")
	for _, want := range []string{`a\u001b[31mred\u001b[0m`, `new\u000aline`, `not\xff\xfeutf8`,
		`turn\u202egnp.exe`, "漢字かな"} {
		if !strings.Contains(v.Screen(), want) {
			t.Errorf("%s is not on the screen", want)
		}
	}
}

// TestWithoutColor checks that the screen shows all information without colors, too.
func TestWithoutColor(t *testing.T) {
	s, v := onVT(t, analyzetest.Sample(t), 120, 40, false)
	press(t, s, "down down down down down down tab ctrl+space end")
	for _, sgr := range regexp.MustCompile(`\x1b\[[0-9;]*m`).FindAllString(v.Raw.String(), -1) {
		if !slices.Contains([]string{"\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[4m", "\x1b[7m"}, sgr) {
			t.Errorf("%q was sent", sgr)
		}
	}
	for _, want := range []string{"- ", "~ ", "source.tar.gz"} {
		if !strings.Contains(v.Screen(), want) {
			t.Errorf("no %q in\n%s", want, v.Screen())
		}
	}
}

// names returns the paths of the rows.
func names(m *model) []string {
	m.current()
	var all []string
	for _, row := range m.rows.list {
		all = append(all, m.view.Tree.Path(m.view.Tree.Node(row.node)))
	}
	return all
}

// TestFilters checks that each filter hides the rows of its kind and no others.
func TestFilters(t *testing.T) {
	r := analyzetest.Sample(t)
	layer := slices.IndexFunc(r.Instructions,
		func(i analyze.Instruction) bool { return i.Line == 10 })
	m := newModel(r)
	m.layer, m.rows.allOpen, m.onTree = r.Instructions[layer].Layer, true, true
	all := names(m)
	for _, tt := range []struct {
		keys string
		keep analyze.Change
	}{
		{"ctrl+a ctrl+r ctrl+u", analyze.Changed}, {"ctrl+a ctrl+m ctrl+u", analyze.Removed},
		{"ctrl+r m ctrl+u", analyze.Added}, {"ctrl+a ctrl+r ctrl+m", analyze.Unchanged},
	} {
		for k := range strings.FieldsSeq(tt.keys) {
			m.press(key(k))
		}
		got := names(m)
		for _, path := range all {
			n := r.Tree.Find(path)
			file := m.view.File(n)
			if file != nil && file.Type == analyze.Dir {
				continue // directories are shown because of their contents
			}
			if want := m.view.Change(n) == tt.keep; slices.Contains(got, path) != want {
				t.Errorf("after %s: %s is shown: %t", tt.keys, path, !want)
			}
		}
		for k := range strings.FieldsSeq(tt.keys) {
			m.press(key(k))
		}
	}
	if diff := cmp.Diff(all, names(m)); diff != "" {
		t.Errorf("filters off again (-before +after):\n%s", diff)
	}
	m.layer, m.view = 4, nil // a layer with much that later layers make dead
	m.press("ctrl+d")
	dead := int64(0)
	for _, path := range names(m) {
		n := r.Tree.Find(path)
		if m.view.Dead(n) == 0 {
			t.Errorf("%s is not dead", path)
		}
		if file := m.view.File(n); file.Type == analyze.Regular {
			dead += m.view.Dead(n)
		}
	}
	if want := m.view.Dead(r.Tree.Root()); dead != want || want == 0 {
		t.Errorf("%d bytes are shown as dead, want %d", dead, want)
	}
}

// TestModes checks which files each mode marks as changed.
func TestModes(t *testing.T) {
	r := analyzetest.Sample(t)
	m := newModel(r)
	m.layer, m.rows.allOpen = 5, true
	marked := func(k key) string {
		m.onTree = false
		m.press(k)
		var out []string
		for _, path := range names(m) {
			n := r.Tree.Find(path)
			if f := m.view.File(n); f != nil && f.Type == analyze.Regular {
				out = append(out, marks[m.view.Change(n)].sign+path)
			}
		}
		slices.Sort(out)
		return strings.Join(out, "\n")
	}
	own := marked("ctrl+e")
	if want := "~/srv/app/app\n~/srv/app/data/a.bin\n~/srv/app/main.o"; own != want {
		t.Errorf("own entries are\n%s\nwant\n%s", own, want)
	}
	full, all := marked("ctrl+l"), marked("ctrl+a")
	for _, tt := range []struct{ path, full, all string }{
		{"/srv/app/app", "~", "+"}, {"/srv/app/data/b.bin", " ", "+"}, {"/usr/bin/bash", " ", " "},
		{"/usr/bin/make", " ", "+"},
	} {
		if !strings.Contains("\n"+full+"\n", "\n"+tt.full+tt.path+"\n") {
			t.Errorf("%s is not %q after the layer", tt.path, tt.full)
		}
		if !strings.Contains("\n"+all+"\n", "\n"+tt.all+tt.path+"\n") {
			t.Errorf("%s is not %q in all", tt.path, tt.all)
		}
	}
}

// TestSearch searches through all rows, in open and closed directories, and beyond the last one to
// the first.
func TestSearch(t *testing.T) {
	r := analyzetest.Sample(t)
	for _, byName := range []bool{false, true} {
		m := newModel(r)
		m.layer, m.rows.byName = len(r.Layers), byName
		m.press("/")
		for k := range strings.FieldsSeq(typed("B.BIN") + " ctrl+u " + typed("lib")) {
			m.press(key(k))
		}
		m.press("ctrl+m")
		var found []string
		at := func() string { return r.Tree.Path(r.Tree.Node(m.rows.selected())) }
		first := at()
		for {
			found = append(found, at())
			if m.press("n"); at() == first || len(found) > 20 {
				break
			}
		}
		sorted := slices.Sorted(slices.Values(found))
		if want := []string{"/usr/lib", "/usr/lib/libc.so.6", "/usr/lib/libcrypto.so.3",
			"/usr/libexec", "/var/lib"}; !slices.Equal(sorted, want) {
			t.Errorf("found %q, want %q", sorted, want)
		}
		rows := names(m)
		if !slices.IsSortedFunc(found, func(a, b string) int {
			return slices.Index(rows, a) - slices.Index(rows, b)
		}) {
			t.Errorf("found %q in another order than the rows %q", found, rows)
		}
		if m.press("N"); at() != found[len(found)-1] {
			t.Errorf("before the first is %s, want %s", at(), found[len(found)-1])
		}
		m.press("/")
		for k := range strings.FieldsSeq(typed("nothing") + " ctrl+m") {
			m.press(key(k))
		}
		if m.note != "not found: nothing" {
			t.Errorf("note is %q", m.note)
		}
	}
}

// TestOpenClose checks that closing the opened directories restores the rows, and that opening all
// directories at once gives the same rows as opening one after the other.
func TestOpenClose(t *testing.T) {
	m := newModel(analyzetest.Sample(t))
	m.layer, m.onTree = 4, true
	closed := names(m)
	m.press("ctrl+space")
	open := names(m)
	m.press("ctrl+space")
	if diff := cmp.Diff(closed, names(m)); diff != "" {
		t.Errorf("(-closed +closed again):\n%s", diff)
	}
	m.press("home")
	for range 2 * len(open) {
		m.press("right")
		if n := m.rows.selected(); m.rows.pass[n] != parent {
			m.press("down")
		}
	}
	if diff := cmp.Diff(open, names(m)); diff != "" {
		t.Errorf("(-all at once +one by one):\n%s", diff)
	}
	for range 3 * len(open) {
		m.press("left")
		if m.rows.at > 0 && m.rows.list[m.rows.at].depth == 0 && !m.rows.isOpen(m.rows.selected()) {
			m.press("up")
		}
	}
	if diff := cmp.Diff(closed, names(m)); diff != "" {
		t.Errorf("(-closed +closed one by one):\n%s", diff)
	}
}

// TestEmpty checks that an image without layers and a report without a tree can be shown.
func TestEmpty(t *testing.T) {
	without := analyzetest.Sample(t)
	without.Tree, without.Units = nil, nil
	for _, r := range []*analyze.Report{{}, without} {
		s, _ := onVT(t, r, 100, 30, true)
		press(t, s, "down up tab down space ctrl+space right left / a ctrl+m n N ctrl+f a ctrl+m pgdn end tab ctrl+a ctrl+l ctrl+e s")
	}
}

// TestKeys checks that keys are recognized in whatever pieces their bytes arrive.
func TestKeys(t *testing.T) {
	const in = "a\x1b[A\x1bOB\x1b[1;5C\x1b[5~ \x00\x01\x7f漢\x1b[<0;1;1M\r\t\xffz"
	want := []key{"a", "up", "down", "right", "pgup", "space", "ctrl+space", "ctrl+a", "backspace",
		"漢", "ctrl+m", "tab", "z"}
	for size := 1; size <= len(in); size++ {
		var k keys
		var got []key
		for p := range slices.Chunk([]byte(in), size) {
			got = append(got, k.add(p, true)...)
		}
		if got = append(got, k.add(nil, false)...); !slices.Equal(got, want) {
			t.Errorf("in pieces of %d: %q, want %q", size, got, want)
		}
	}
	var k keys
	if got := append(k.add([]byte{0x1b}, true),
		k.add(nil, false)...); !slices.Equal(got, []key{"esc"}) {
		t.Errorf("ESC alone is %q", got)
	}
}

func FuzzKeys(f *testing.F) {
	f.Add([]byte("\x1b[A\x1b\x1b[1;5C/abc\r"))
	r := analyzetest.Sample(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		s, _ := onVT(t, r, 100, 20, true)
		var k keys
		for _, c := range in {
			s.keys(k.add([]byte{c}, true))
		}
		if len(k.rest) > 64+4 {
			t.Errorf("%d bytes are kept", len(k.rest))
		}
		s.keys(k.add(nil, false))
		if err := s.draw(); err != nil {
			t.Fatal(err)
		}
	})
}

// start runs a screen with a pipe for a keyboard.
func start(t *testing.T, ctx context.Context, out io.Writer) (keyboard *os.File, done chan error) {
	t.Helper()
	in, keyboard, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); keyboard.Close() })
	s := &screen{out: out, size: func() (int, int) { return 80, 24 },
		model: newModel(analyzetest.Sample(t))}
	done = make(chan error, 1)
	go func() { done <- s.run(ctx, in, nil) }()
	return keyboard, done
}

func TestRunEnds(t *testing.T) {
	ended := func(done chan error) error {
		select {
		case err := <-done:
			return err
		case <-time.After(30 * time.Second):
			t.Fatal("run does not end")
			return nil
		}
	}
	keyboard, done := start(t, t.Context(), io.Discard)
	io.WriteString(keyboard, "jj\tjq")
	if err := ended(done); err != nil {
		t.Errorf("after q: %v", err)
	}
	keyboard, done = start(t, t.Context(), io.Discard)
	keyboard.Close()
	if err := ended(done); err != nil {
		t.Errorf("after the end of the input: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	_, done = start(t, ctx, io.Discard)
	why := errors.New("enough")
	cancel(why)
	if err := ended(done); err != why {
		t.Errorf("after the end of the context: %v", err)
	}
	_, done = start(t, t.Context(), broken{})
	if err := ended(done); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("after the terminal went away: %v", err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestNoTerminal(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Run(t.Context(), &analyze.Report{}, f, f); err != ErrNoTerminal {
		t.Errorf("Run = %v", err)
	}
}

// TestSendsLittle checks that moving the selection sends only the rows that changed.
func TestSendsLittle(t *testing.T) {
	s, v := onVT(t, analyzetest.Sample(t), 120, 50, true)
	press(t, s, "end tab ctrl+space down")
	_, before := v.Sent()
	press(t, s, "down down down down")
	if _, after := v.Sent(); after-before > 4*1500 {
		t.Errorf("a step sends %d bytes", (after-before)/4)
	}
	before, _ = v.Sent()
	press(t, s, "x x")
	if after, _ := v.Sent(); after != before {
		t.Error("a key without a meaning sends something")
	}
}

// BenchmarkLayer draws screens of an image of 300,000 files: the first one of a layer, the next
// selection, and one with all directories open.
func BenchmarkLayer(b *testing.B) {
	benchmark(b, "", func(s *screen) { s.model.view = nil })
}
func BenchmarkMove(b *testing.B) {
	benchmark(b, "tab ctrl+space", func(s *screen) { s.model.press("down") })
}
func BenchmarkOpenAll(b *testing.B) {
	benchmark(b, "tab", func(s *screen) { s.model.press("ctrl+space") })
}
func BenchmarkFilter(b *testing.B) {
	benchmark(b, "tab ctrl+space", func(s *screen) { s.model.press("ctrl+u") })
}

func BenchmarkSearch(b *testing.B) {
	benchmark(b, "tab", func(s *screen) {
		s.model.search = search{text: "module-77"}
		s.model.press("n")
	})
}

var large *analyze.Report

func benchmark(b *testing.B, keys string, step func(*screen)) {
	if large == nil {
		large = analyzetest.Large(b, 300_000)
	}
	s := &screen{out: new(bytes.Buffer), size: func() (int, int) { return 160, 50 },
		model: newModel(large), color: true}
	s.model.layer = 2
	press(b, s, keys)
	b.ReportAllocs()
	for b.Loop() {
		step(s)
		if err := s.draw(); err != nil {
			b.Fatal(err)
		}
		s.out.(*bytes.Buffer).Reset()
	}
}
