package ui

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/layerbuild/layerbuild/internal/event"
)

func TestParseColors(t *testing.T) {
	for _, tt := range []struct {
		text     string
		want     func(p *palette)
		problems string
	}{
		{"", func(*palette) {}, ""},
		{"run=green:warning=yellow:error=red:cancel=255,165,0", func(p *palette) {
			p.done, p.warning, p.failed, p.canceled = "\x1b[32m", "\x1b[33m", "\x1b[31m",
				"\x1b[38;5;214m"
		}, ""},
		{"RUN=Light-Blue::error=default:", func(p *palette) {
			p.done, p.failed = "\x1b[94m", "\x1b[39m"
		}, ""},
		{"run=0,0,0:error=255,255,255", func(p *palette) {
			p.done, p.failed = "\x1b[38;5;16m", "\x1b[38;5;231m"
		}, ""},
		{"stop=red:run=blue:run", func(p *palette) { p.done = "\x1b[34m" },
			`$BUILDKIT_COLORS: "stop=red" has no effect: run, cancel, error or warning is ` +
				`expected before =; "run" has no effect: the name of a color or three numbers up ` +
				`to 255 are expected after =`},
		{"run=256,0,0", func(*palette) {}, `$BUILDKIT_COLORS: "run=256,0,0" has no effect: the ` +
			`name of a color or three numbers up to 255 are expected after =`},
	} {
		want := colors
		tt.want(&want)
		if p, problems := parseColors(tt.text); p != want || problems != tt.problems {
			t.Errorf("parseColors(%q) = %q, %q, want %q, %q", tt.text, p, problems, want,
				tt.problems)
		}
	}
}

// BUILDKIT_COLORS changes the live view and the messages after a build. A mistake in it is one
// warning. NO_COLOR and a dumb terminal have precedence.
func TestColorsOfEnvironment(t *testing.T) {
	for _, tt := range []struct {
		env      map[string]string
		want     string
		warnings int
	}{
		{map[string]string{"BUILDKIT_COLORS": "run=magenta"}, "\x1b[35m", 0},
		{map[string]string{"BUILDKIT_COLORS": "run=magenta:a=b:c=d"}, "\x1b[35m", 1},
		{map[string]string{"BUILDKIT_COLORS": "run=magenta:a=b", "NO_COLOR": "1"}, "", 0},
		{map[string]string{"BUILDKIT_COLORS": "run=magenta:a=b", "TERM": "dumb"}, "", 0},
		{nil, colors.done, 0},
	} {
		var out bytes.Buffer
		getenv := func(name string) string { return tt.env[name] }
		u, err := New("tty", &out, Options{Getenv: getenv})
		if err != nil {
			t.Fatal(err)
		}
		u.Sink()(event.Start{ID: "a"})
		u.Sink()(event.Done{ID: "a"})
		if err := u.Close(); err != nil {
			t.Error(err)
		}
		color := regexp.MustCompile("\x1b\\[[0-9;]*m").FindString(out.String())
		if n := len(u.Warnings()); color != tt.want || n != tt.warnings {
			t.Errorf("%v: the color is %q and there are %d warnings, want %q and %d", tt.env, color,
				n, tt.want, tt.warnings)
		}
	}
	var out bytes.Buffer
	o := PrintOptions{Color: true, Colors: "error=blue:warning=green"}
	warnings := []event.Warning{{Message: "m"}}
	err := errors.Join(Failure{Err: errors.New("no")}.Print(&out, o),
		PrintWarnings(&out, warnings, o), PrintFindings(&out, warnings, nil, o))
	for _, want := range []string{"\x1b[34merror:\x1b[0m no\n", "\x1b[32m 1 warning found:\x1b[0m\n",
		"\x1b[32mWARNING:\x1b[0m\nm\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in %q (%v)", want, out.String(), err)
		}
	}
}

// FuzzColors checks that a value makes nothing but sequences that set a color.
func FuzzColors(f *testing.F) {
	f.Add("run=green:warning=yellow:error=red:cancel=255,165,0")
	f.Add("run=light-default:\x1b]0;=1,2,3:error=999,0,-1")
	f.Add("::=:==:cancel=,,")
	sequence := regexp.MustCompile("^\x1b\\[(39|[39][0-7]|38;5;[0-9]{2,3})m$")
	f.Fuzz(func(t *testing.T, text string) {
		p, problems := parseColors(text)
		for _, s := range []string{p.done, p.failed, p.canceled, p.warning} {
			if !sequence.MatchString(s) {
				t.Errorf("%q makes %q", text, s)
			}
		}
		if strings.Count(problems, "\n") > 0 {
			t.Errorf("%q makes several lines: %q", text, problems)
		}
	})
}
