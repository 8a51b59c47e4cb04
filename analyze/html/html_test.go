package html

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/analyze"
	"github.com/layerbuild/layerbuild/analyze/analyzetest"
)

func write(t testing.TB, r *analyze.Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, r); err != nil {
		t.Fatal(err)
	}
	if to := os.Getenv("HTML_TO"); to != "" { // for viewing in a browser
		if err := os.WriteFile(to, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

// split removes the script, the style and the data from a page. It returns the remaining markup,
// and the data.
func split(t *testing.T, page string) (markup, data string) {
	t.Helper()
	for _, own := range []string{css, js} {
		if strings.Count(page, own) != 1 {
			t.Fatal("the page has not its script and style once each")
		}
		page = strings.Replace(page, own, "", 1)
	}
	const begin, end = `<script type="application/json" id="data">`, `</script>`
	before, after, ok := strings.Cut(page, begin)
	data, after, ok2 := strings.Cut(after, end)
	if !ok || !ok2 {
		t.Fatal("the page has no data")
	}
	return before + begin + end + after, data
}

// node is a node of a treemap, in the format that page.js reads.
type node struct {
	name                string
	small               int
	live, dead          int64
	children            []node
	reason, by, killer  int
	hasReason, hasBelow bool
}

func (n *node) UnmarshalJSON(b []byte) error {
	var parts []json.RawMessage
	if err := json.Unmarshal(b, &parts); err != nil {
		return err
	}
	into := []any{&n.name, &n.live, &n.dead, &n.children, &n.reason, &n.by, &n.killer}
	if len(parts) < 3 || len(parts) > len(into) {
		return errors.New("a node of " + string(b))
	}
	if parts[0][0] != '"' {
		into[0] = &n.small
	}
	if n.hasReason = len(parts) > 4; n.hasReason && string(parts[3]) == "0" {
		into[3] = new(int)
	}
	n.hasBelow = len(parts) > 3 && parts[3][0] == '['
	for i, p := range parts {
		if err := json.Unmarshal(p, into[i]); err != nil {
			return err
		}
	}
	return nil
}

type pageData struct {
	Views []struct {
		Label, Short string
		Tree         node
	}
	Steps, Reasons []string
}

func read(t *testing.T, data string) pageData {
	t.Helper()
	var d pageData
	if err := json.Unmarshal([]byte(data), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// count checks that a directory is at least as large as its contents, and returns the number of
// nodes.
func (n *node) count(t *testing.T) int {
	sum, live, dead := 1, int64(0), int64(0)
	for i := range n.children {
		c := &n.children[i]
		sum += c.count(t)
		live, dead = live+c.live, dead+c.dead
	}
	if n.hasBelow && (live > n.live || dead > n.dead ||
		live+dead != n.live+n.dead && !n.hasReason) {
		t.Errorf("%q has %d+%d, below it are %d+%d", n.name, n.live, n.dead, live, dead)
	}
	return sum
}

// TestWellFormed checks that the page is well-formed XML in addition to HTML, so that no element is
// left open.
func TestWellFormed(t *testing.T) {
	markup, _ := split(t, write(t, analyzetest.Sample(t)))
	markup = strings.Replace(markup, "<!DOCTYPE html>", "", 1)
	dec := xml.NewDecoder(strings.NewReader(markup))
	ids := map[string]bool{}
	var labels []string
	for {
		tok, err := dec.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		e, ok := tok.(xml.StartElement)
		if !ok {
			continue
		}
		for _, a := range e.Attr {
			switch name := strings.ToLower(a.Name.Local); {
			case name == "id":
				if ids[a.Value] {
					t.Errorf("two elements are %q", a.Value)
				}
				ids[a.Value] = true
			case name == "aria-labelledby", name == "for":
				labels = append(labels, a.Value)
			case strings.HasPrefix(name, "on"), name == "style", name == "src",
				name == "href" && !strings.HasPrefix(a.Value, "#"):
				t.Errorf("<%s> has %s=%q", e.Name.Local, name, a.Value)
			}
		}
	}
	for _, id := range labels {
		if !ids[id] {
			t.Errorf("there is no %q, which a label is for", id)
		}
	}
	for _, id := range regexp.MustCompile(`\$\("([a-z-]+)"\)`).FindAllStringSubmatch(js, -1) {
		if !ids[id[1]] {
			t.Errorf("the script looks for %q, which is not there", id[1])
		}
	}
}

// TestNoNetwork checks that nothing in the page refers to a network address, and that its policy
// forbids connections.
func TestNoNetwork(t *testing.T) {
	page := write(t, analyzetest.Sample(t))
	outside := regexp.MustCompile(`(?i)https?:|//[a-z0-9]+\.|@import|url\([^#]`)
	if at := outside.FindString(page); at != "" {
		t.Errorf("the page has %q", at)
	}
	for _, want := range []string{`content="default-src 'none'; style-src ` + hash(css) +
		"; script-src " + hash(js) + ";"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %q", want)
		}
	}
	for _, call := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write",
		"eval(", "fetch(", "XMLHttpRequest", "import("} {
		if strings.Contains(js, call) {
			t.Errorf("the script has %s", call)
		}
	}
}

// TestHostile checks that names of an image and of its files appear only as text.
func TestHostile(t *testing.T) {
	r := analyzetest.Sample(t)
	bad := strings.Join(analyzetest.Hostile[:20], "")
	r.Image, r.Digest, r.Platform, r.Base.Name = bad, bad, bad, bad
	r.Base.Source, r.Base.Note = analyze.BaseGuess, bad
	r.Warnings = append(r.Warnings, bad)
	r.Gate = &analyze.Gate{Failures: []string{bad}}
	r.Debris = append(r.Debris, analyze.Debris{Kind: analyze.Secret, Path: "/" + bad,
		Remedy: bad, Dead: true})
	r.Duplicates = append(r.Duplicates, analyze.Duplicate{Copies: 2, Paths: []string{bad, bad}})
	for i := range r.Instructions {
		r.Instructions[i].Text, r.Instructions[i].Stage = bad, bad
	}
	for i := range r.Findings {
		r.Findings[i].Path, r.Findings[i].Remedy = bad, bad
	}
	markup, data := split(t, write(t, r))
	tame, _ := split(t, write(t, analyzetest.Sample(t)))
	elements := func(s, name string) int {
		return len(regexp.MustCompile(`(?i)<`+name+`[\s>]`).FindAllString(s, -1))
	}
	for _, name := range []string{"script", "img", "b", "h1", "style"} {
		if got, want := elements(markup, name), elements(tame, name); got != want {
			t.Errorf("the page has %d <%s>, want %d", got, name, want)
		}
	}
	for what, s := range map[string]string{"markup": markup, "data": data} {
		for _, c := range s {
			if c < ' ' && c != '\n' || c >= 0x7f && c < 0xa0 ||
				c >= 0x202a && c <= 0x202e || c == 0xfffd {
				t.Errorf("the %s has %q", what, c)
			}
		}
	}
	if strings.ContainsAny(data, "<>&\u2028") {
		t.Error("the data has characters that mean something in markup")
	}
	if err := xml.Unmarshal([]byte(strings.Replace(markup, "<!DOCTYPE html>", "", 1)),
		new(struct{})); err != nil {
		t.Error(err)
	}
}

// TestViews compares the sums of the treemaps with those of the report.
func TestViews(t *testing.T) {
	r := analyzetest.Sample(t)
	_, data := split(t, write(t, r))
	d := read(t, data)
	sums := func(i int) [2]int64 { return [2]int64{d.Views[i].Tree.live, d.Views[i].Tree.dead} }
	if got, want := sums(0), [2]int64{r.Total.Live, r.Total.Dead}; got != want {
		t.Errorf("everything is %v, want %v", got, want)
	}
	if got, want := sums(1), [2]int64{r.Total.Live, 0}; got != want {
		t.Errorf("the final file system is %v, want %v", got, want)
	}
	_, of := views(r)
	for i, l := range r.Layers {
		switch {
		case of[i] < 0 && l.Bytes > 0:
			t.Errorf("layer %d is not shown", i)
		case of[i] >= 0 && sums(of[i]) != [2]int64{l.Live, l.Dead}:
			t.Errorf("layer %d is %v, want %d and %d", i, sums(of[i]), l.Live, l.Dead)
		}
	}
	for i := range d.Views {
		d.Views[i].Tree.count(t)
	}
	at := d.Views[0].Tree
	for _, name := range []string{"tmp", "source.tar.gz"} {
		for _, c := range at.children {
			if c.name == name {
				at = c
				break
			}
		}
	}
	if at.dead != 6_400_000 || analyze.Reason(at.reason) != analyze.Deleted ||
		!strings.Contains(d.Steps[at.by], "line 7: COPY") ||
		!strings.Contains(d.Steps[at.killer], "line 10: RUN rm") {
		t.Errorf("source.tar.gz is %+v", at)
	}
	if got := d.Reasons[at.reason]; got != analyze.Deleted.Text() {
		t.Errorf("its reason is %q", got)
	}
}

// TestBounded checks that the page of a large image is small, and that nodes beyond the limit are
// merged.
func TestBounded(t *testing.T) {
	files := 60_000
	if testing.Short() {
		files = 30_000
	}
	r := analyzetest.Large(t, files)
	page := write(t, r)
	_, data := split(t, page)
	d := read(t, data)
	nodes, small := 0, 0
	for i := range d.Views {
		nodes += d.Views[i].Tree.count(t)
	}
	var rest func(n *node)
	rest = func(n *node) {
		small += n.small
		for i := range n.children {
			rest(&n.children[i])
		}
	}
	rest(&d.Views[0].Tree)
	if nodes > 2*maxNodes || nodes < maxNodes/2 {
		t.Errorf("the page has %d nodes, want about %d", nodes, maxNodes)
	}
	if small < files/2 {
		t.Errorf("%d files are put together of %d", small, files)
	}
	if d.Views[0].Tree.live != r.Total.Live {
		t.Errorf("the bytes of what is put together are lost: %d, want %d",
			d.Views[0].Tree.live, r.Total.Live)
	}
	if len(page) > 3<<20 {
		t.Errorf("the page has %d bytes", len(page))
	}
}

// TestBoundedTables checks that the page is small for many findings with long names, too.
func TestBoundedTables(t *testing.T) {
	r := analyzetest.Sample(t)
	long := strings.Repeat(`"`, 100_000)
	for range 20_000 {
		r.Findings = append(r.Findings, analyze.Finding{Path: long, Remedy: long,
			Reason: analyze.Deleted})
		r.Instructions = append(r.Instructions,
			analyze.Instruction{Text: long, Stage: long, Layer: -1})
		r.Debris = append(r.Debris, analyze.Debris{Path: long, Kind: analyze.Logs})
		r.Warnings = append(r.Warnings, long)
	}
	if page := write(t, r); len(page) > 8<<20 {
		t.Errorf("the page has %d bytes", len(page))
	}
}

// TestWithoutTree checks that a report that was read from JSON has tables but no treemap, and that
// the page of an empty report can be written.
func TestWithoutTree(t *testing.T) {
	r := analyzetest.Sample(t)
	r.Tree, r.Units = nil, nil
	for _, r := range []*analyze.Report{r, {}} {
		markup, data := split(t, write(t, r))
		if d := read(t, data); len(d.Views) != 0 || strings.Contains(markup, `id="map"`) {
			t.Error("there is a treemap")
		}
		if err := xml.Unmarshal([]byte(strings.Replace(markup, "<!DOCTYPE html>", "", 1)),
			new(struct{})); err != nil {
			t.Error(err)
		}
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestWriteError(t *testing.T) {
	if err := Write(broken{}, analyzetest.Sample(t)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("Write = %v", err)
	}
}

func BenchmarkWrite(b *testing.B) {
	r := analyzetest.Large(b, 100_000)
	b.ReportAllocs()
	for b.Loop() {
		if err := Write(io.Discard, r); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*float64(r.Tree.Len())/b.Elapsed().Seconds(), "entries/s")
}
