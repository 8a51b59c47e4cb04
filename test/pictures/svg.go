package pictures

import (
	"encoding/xml"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/layerbuild/layerbuild/internal/vttest"
)

// theme is a set of colors.
type theme struct {
	name       string
	background string
	frame      string
	text       string
	dim        string
	bars       []string
	// colors are those of a terminal, by the number of the sequence that selects each.
	colors map[string]string
}

var themes = []theme{
	{name: "light", background: "#ffffff", frame: "#d0d7de", text: "#1f2328", dim: "#59636e",
		bars: []string{"#0969da", "#8c959f", "#bf8700"},
		colors: map[string]string{"31": "#cf222e", "32": "#116329", "33": "#7d4e00",
			"34": "#0550ae", "36": "#1b7c83"}},
	{name: "dark", background: "#0d1117", frame: "#3d444d", text: "#f0f6fc", dim: "#9198a1",
		bars: []string{"#4493f8", "#6e7681", "#d29922"},
		colors: map[string]string{"31": "#ff7b72", "32": "#3fb950", "33": "#d29922",
			"34": "#58a6ff", "36": "#39c5cf"}},
}

const (
	charWidth  = 8.4 // of a font of 14 pixels
	lineHeight = 19
	margin     = 16
	font       = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
)

// drawing is an SVG file that is being written.
type drawing struct {
	strings.Builder
	theme theme
}

// start begins a picture. title is read to people who do not see it.
func start(t theme, width, height int, title string) *drawing {
	d := &drawing{theme: t}
	fmt.Fprintf(d, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%[1]d" `+
		`height="%d" role="img">`+"\n<title>%s</title>\n", width, height, escape(title))
	fmt.Fprintf(d, `<rect x="0.5" y="0.5" width="%d" height="%d" rx="6" fill="%s" stroke="%s"/>`+
		"\n", width-1, height-1, t.background, t.frame)
	return d
}

func (d *drawing) end() string {
	d.WriteString("</svg>\n")
	return d.String()
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a strings.Builder returns no error
	return b.String()
}

// terminal draws the lines of a terminal of that number of columns.
func terminal(t theme, lines [][]vttest.Run, columns int, title string) string {
	d := start(t, int(float64(columns)*charWidth)+2*margin, len(lines)*lineHeight+2*margin, title)
	fmt.Fprintf(d, `<g font-family="%s" font-size="14" xml:space="preserve">`+"\n", font)
	for i, line := range lines {
		x := 0
		for _, run := range line {
			if strings.TrimSpace(run.Text) != "" {
				// textLength keeps the columns if the reader has another font
				n := utf8.RuneCountInString(run.Text)
				fmt.Fprintf(d, `<text x="%.1f" y="%d" fill="%s" textLength="%.1f"%s>%s</text>`+"\n",
					margin+float64(x)*charWidth, margin+(i+1)*lineHeight-5, t.color(run.Attr),
					float64(n)*charWidth, bold(run.Attr), escape(run.Text))
			}
			x += utf8.RuneCountInString(run.Text)
		}
	}
	d.WriteString("</g>\n")
	return d.end()
}

// color returns the color that an SGR sequence selects.
func (t theme) color(sequence string) string {
	for code := range codes(sequence) {
		if c := t.colors[code]; c != "" {
			return c
		}
		if code == "2" {
			return t.dim
		}
	}
	return t.text
}

func bold(sequence string) string {
	for code := range codes(sequence) {
		if code == "1" {
			return ` font-weight="bold"`
		}
	}
	return ""
}

func codes(sequence string) func(func(string) bool) {
	return strings.SplitSeq(strings.TrimSuffix(strings.TrimPrefix(sequence, "\x1b["), "m"), ";")
}
