package sarif

import (
	"encoding/json"
	"testing"

	"github.com/layerbuild/layerbuild/internal/schematest"
)

const schemaFile = "testdata/sarif-2.1.0-rtm.5.json"

func openSchema(t testing.TB) schematest.Schema {
	t.Helper()
	s, err := schematest.Open(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func example() *Log {
	l := New(Driver{Name: "layerbuild", Version: "1.2", InformationURI: "https://example.com"})
	rule := Rule{ID: "StageNameCasing", Description: &Message{"Stage names"},
		HelpURI: "https://example.com/a", Configuration: Configuration{Warning}}
	l.Add(rule, Result{Message: Message{"one"}, Locations: []Location{Lines("Dockerfile", 3, 4)}})
	l.Add(Rule{ID: "other", Configuration: Configuration{Note}}, Result{Message: Message{"two"},
		Locations: []Location{{Logical: []LogicalLocation{{"layer 3", "layer"}}}}})
	l.Add(rule, Result{Level: Error, Message: Message{"three"},
		Related: []Location{Lines("a b/Dockerfile", 1, 1)}})
	l.Fail("it ended")
	return l
}

// TestSchema validates logs against the published schema.
func TestSchema(t *testing.T) {
	schema := openSchema(t)
	for name, log := range map[string]*Log{"empty": New(Driver{Name: "layerbuild", Version: "1",
		InformationURI: "https://example.com"}), "example": example()} {
		if err := schema.CheckValue(log); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The validator finds mistakes.
	for name, change := range map[string]func(*Log){
		"version":    func(l *Log) { l.Version = "2.0" },
		"level":      func(l *Log) { l.Runs[0].Results[0].Level = "fatal" },
		"line":       func(l *Log) { l.Runs[0].Results[0].Locations[0].Physical.Region.StartLine = -1 },
		"help":       func(l *Log) { l.Runs[0].Tool.Driver.Rules[0].HelpURI = "no URI" },
		"no results": func(l *Log) { l.Runs[0].Results = nil },
	} {
		log := example()
		change(log)
		if err := schema.CheckValue(log); err == nil {
			t.Errorf("%s: the validator finds no mistake", name)
		}
	}
}

func TestAdd(t *testing.T) {
	l := example()
	rules := l.Runs[0].Tool.Driver.Rules
	if len(rules) != 2 {
		t.Fatalf("%d rules, want 2", len(rules))
	}
	for i, want := range []struct {
		rule  int
		level Level
	}{{0, Warning}, {1, Note}, {0, Error}} {
		r := l.Runs[0].Results[i]
		if r.RuleIndex != want.rule || r.RuleID != rules[want.rule].ID || r.Level != want.level {
			t.Errorf("result %d: rule %d (%s), level %s", i, r.RuleIndex, r.RuleID, r.Level)
		}
	}
	if l.Runs[0].Invocations[0].Successful {
		t.Error("the run has succeeded, and an error ended it")
	}
}

func TestLines(t *testing.T) {
	for _, tt := range []struct{ file, uri, base string }{
		{"Dockerfile", "Dockerfile", "%SRCROOT%"},
		{"./app/../app/Dockerfile", "app/Dockerfile", "%SRCROOT%"},
		{"a b/Docker%file", "a%20b/Docker%25file", "%SRCROOT%"},
		{"a:b", "./a:b", "%SRCROOT%"},
		{"/srv/Dockerfile", "file:///srv/Dockerfile", ""},
		{"https://example.com/Dockerfile", "https://example.com/Dockerfile", ""},
	} {
		a := Lines(tt.file, 1, 0).Physical.Artifact
		if a.URI != tt.uri || a.URIBaseID != tt.base {
			t.Errorf("Lines(%q): %q in %q, want %q in %q", tt.file, a.URI, a.URIBaseID, tt.uri,
				tt.base)
		}
	}
	if r := Lines("f", 0, 0).Physical.Region; r != nil {
		t.Errorf("no lines: %v", r)
	}
	if r := Lines("f", 2, 2).Physical.Region; r.EndLine != 0 {
		t.Errorf("one line: %v", r)
	}
}

// FuzzLog makes logs with hostile names and texts: each matches the schema, and the texts are
// unchanged.
func FuzzLog(f *testing.F) {
	schema := openSchema(f)
	f.Add("Dockerfile", "rule", "text", 1, 2)
	f.Add("a\x00b\nc", "", "\u202e\xff", -1, 1<<40)
	f.Add("://%zz", "a/b", "}", 3, 1)
	f.Add("1:// ", ":", "", 0, 0)
	f.Add("A://::", "", "", 0, 0)
	f.Add("A:\\://", "", "", 0, 0)
	f.Add("git+ssh://h/r", "", "", 0, 0)
	f.Add("https://[::1]:80/f", "", "", 0, 0)
	f.Fuzz(func(t *testing.T, file, id, text string, start, end int) {
		l := New(Driver{Name: "layerbuild", Version: "1", InformationURI: "https://example.com"})
		l.Add(Rule{ID: id, Configuration: Configuration{Warning}}, Result{Message: Message{text},
			Locations: []Location{Lines(file, start, end)}})
		data, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Check(data); err != nil {
			t.Errorf("%q: %v", file, err)
		}
		var back Log
		if err := json.Unmarshal(data, &back); err != nil {
			t.Fatal(err)
		}
		// The encoder replaces each byte that is not UTF-8, as this conversion does.
		if got := back.Runs[0].Results[0].Message.Text; got != string([]rune(text)) {
			t.Errorf("the text %q became %q", text, got)
		}
	})
}
