package gotemplate

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"text/template"
	"time"
)

type inner struct {
	Env    []string
	Labels map[string]string
	User   string
	hidden int
}

type outer struct {
	ID      string `json:"Id"`
	Size    int64
	Ratio   float64
	Config  inner
	None    *inner
	Ports   map[string]struct{}
	Any     any
	Created time.Time
}

func data() outer {
	return outer{ID: "sha256:abcd", Size: 42, Ratio: 1.5,
		Config: inner{Env: []string{"A=1", "B=<2>"},
			Labels: map[string]string{"b": "2", "a": "1"}, hidden: 1},
		Ports: map[string]struct{}{"80/tcp": {}}, Any: []any{"x", 1, nil}}
}

// templates are templates that text/template executes too.
var templates = []string{
	"", "plain", "{{.ID}}", "{{.ID}} {{.Size}}\n", "{{.Config.Env}}", "{{.Config.Labels}}",
	"{{.Config.Labels.a}} {{.Config.Labels.none}}", `{{index .Config.Labels "b"}}`,
	`{{index .Config.Labels "none"}}|`, "{{index .Config.Env 1}}",
	"{{len .Config.Env}} {{len .ID}}",
	"{{range .Config.Env}}[{{.}}]{{end}}", "{{range $i, $e := .Config.Env}}{{$i}}={{$e}} {{end}}",
	"{{range $k, $v := .Config.Labels}}{{$k}}:{{$v}};{{end}}",
	"{{range $p, $x := .Ports}}{{$p}}{{end}}",
	"{{range $p, $p := .Config.Env}}{{$p}}{{end}}",
	"{{$k := 0}}{{$v := 0}}{{range $k, $v = .Config.Env}}{{$k}}{{$v}}{{end}}{{$k}}{{$v}}",
	"{{$v := 0}}{{range $v = .Config.Env}}{{$v}}{{end}}{{$v}}",
	"{{range .Any}}{{.}},{{end}}",
	"{{range .Config.Env}}{{break}}{{end}}", "{{range .Config.Env}}a{{continue}}b{{end}}",
	"{{if .Config.User}}user{{else if .Size}}size{{else}}none{{end}}", "{{if .None}}x{{end}}",
	"{{with .Config}}{{.Env}}{{end}}{{with .Config.User}}x{{else}}y{{end}}",
	"{{with $x := .ID}}{{$x}} {{$.Size}}{{end}}", "{{$x := 1}}{{$x}}{{$x = 2}}{{$x}}",
	"{{$x := 1}}{{if true}}{{$x = 3}}{{end}}{{$x}}", "{{.ID | printf \"%q %d\" | len}}",
	`{{printf "%s-%d-%v" .ID .Size .Config.Env}}`, `{{print 1 2 "a" "b"}}`, "{{println .Size}}",
	"{{and .ID .Size}} {{and .ID .Config.User}}| {{or .Config.User .ID}} {{not .ID}}",
	`{{eq .ID "sha256:abcd"}} {{eq .ID "a" "sha256:abcd"}} {{ne .ID "x"}} {{lt .Size 43}}`,
	"{{le .Size 42}} {{gt .Size 42}} {{ge .Size 43}} {{eq .Ratio 1.5}} {{eq true false}}",
	`{{slice .ID 7}} {{slice .ID 0 6}} {{slice .Config.Env 1}}`, "{{(index .Config.Env 0)}}",
	"{{.Config.Labels | len}} {{(.Config).Env}}", "{{- .ID -}}   x", "{{/* comment */}}x",
	"{{`raw`}} {{'a'}} {{0x10}} {{1.5}} {{-3}}",
	`{{printf "%T %T %T %T %T" 1.0 1e3 0x1e '.' 0x1p4}} {{printf "%T %T %T" -0x1e 00. 1_0}}`,
	`{{.None}} {{print .None}} {{printf "%v %T" .None .None}} {{index .Any 2}}`,
	"{{range .Any}}{{print .}} {{end}}", "{{range .Ports}}x{{.}}{{end}}",
	"{{json .Config}} {{json .None}} {{json .Any}}", `{{join .Config.Env ", "}}`,
	`{{split .ID ":"}} {{upper .ID}} {{lower "ABC"}}`, `{{title "ab cd"}}`, `{{title "'a «b c_d 1e é-f"}}`,
	`{{pad .ID 1 2}}|{{pad "" 1 2}}|{{truncate .ID 3}}`,
	// errors of both
	"{{.Nope}}", "{{.ID.Nope}}", "{{.None.Env}}", "{{.Config.hidden}}", "{{index .Config.Env 7}}",
	"{{index .Config.Env \"a\"}}", "{{slice .ID 9 3}}", "{{len .Size}}", "{{range .Size.X}}{{end}}",
	"{{lt .ID .Size}}", "{{eq .ID .Size}}", "{{.ID 1}}", "{{1 | .ID}}", "{{", "{{end}}", "{{nope}}",
	"{{if}}{{end}}", "{{$x}}", "{{break}}", "{{and}}", "{{printf}}", "{{nil}}",
}

// dockers are the functions of docker's --format, for text/template.
var dockers = template.FuncMap{
	"json": func(v any) (string, error) {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		err := enc.Encode(v)
		return strings.TrimSuffix(b.String(), "\n"), err
	},
	"join": strings.Join, "split": strings.Split, "lower": strings.ToLower,
	"upper": strings.ToUpper, "title": strings.Title,
	"pad": func(s string, a, b int) string {
		if s == "" {
			return s
		}
		return strings.Repeat(" ", a) + s + strings.Repeat(" ", b)
	},
	"truncate": func(s string, n int) string { return s[:min(n, len(s))] },
}

// execute returns the output of text/template.
func execute(text string, value any) (string, error) {
	t, err := template.New("template").Funcs(dockers).Parse(text)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = t.Execute(&b, value)
	return b.String(), err
}

// ours returns the output of this package.
func ours(text string, value any) (string, error) {
	t, err := Parse(text)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = t.Execute(&b, value)
	return b.String(), err
}

func TestSame(t *testing.T) {
	for _, text := range templates {
		got, err := ours(text, data())
		want, wantErr := execute(text, data())
		if (err == nil) != (wantErr == nil) || err == nil && got != want {
			t.Errorf("%s:\ngot  %q, %v\nwant %q, %v", text, got, err, want, wantErr)
		}
	}
}

func TestOwn(t *testing.T) {
	for _, test := range []struct{ in, want, err string }{
		{in: "{{.Created}}", want: "2026-01-02T03:04:05Z"},
		{in: "{{range .None}}a{{else}}b{{end}}", want: "b"},
		{in: "{{.Nope}}", err: "there is no field Nope; the fields are Id, Size, Ratio, Config"},
		{in: "{{.Created.Unix}}", err: "there is no field Unix"},
		{in: `{{define "x"}}a{{end}}`, err: "define and block are not available"},
		{in: `{{template "x"}}`, err: "not available"},
		{in: "{{2i}}", err: "the complex number 2i is not available"},
		{in: "{{call .ID}}", err: `function "call" not defined`},
		{in: "{{.ID", err: "1: unclosed action"},
	} {
		d := data()
		d.Created = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		got, err := ours(test.in, d)
		if test.err == "" && (err != nil || got != test.want) ||
			test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%s: %q, %v, want %q, %q", test.in, got, err, test.want, test.err)
		}
	}
}

// FuzzExecute checks that what this package executes without an error has the output of
// text/template.
func FuzzExecute(f *testing.F) {
	for _, text := range templates {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1000 || strings.Contains(text, "%") || strings.Count(text, "range") > 2 {
			return // formats with huge widths, and long loops
		}
		got, err := ours(text, data())
		if err != nil || strings.Contains(text, ".Created") || strings.Contains(text, "pad") {
			return
		}
		want, wantErr := execute(text, data())
		if wantErr == nil && got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	})
}
