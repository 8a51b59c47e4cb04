package html

import (
	"bufio"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	stdhtml "html"
	"io"
	"strconv"
	"strings"

	"github.com/layerbuild/layerbuild/analyze"
	"github.com/layerbuild/layerbuild/internal/ui"
	"github.com/layerbuild/layerbuild/internal/units"
)

//go:embed page.css
var css string

//go:embed page.js
var js string

// Limits of the tables, so that the page is small for every image.
const (
	maxInstructions = 500
	maxFindings     = 500
	maxDuplicates   = 200
	maxDebris       = 200
	maxWarnings     = 50
	maxText         = 500 // columns
)

// Write writes r as a page.
//
// It does not use html/template: that package calls methods by name, for which the linker would
// have to keep every exported method of the program.
func Write(w io.Writer, r *analyze.Report) error {
	out := bufio.NewWriterSize(w, 64<<10)
	p := &page{out: out, r: r}
	p.views, p.viewOf = views(r)
	p.head()
	p.summary()
	p.treemap()
	p.instructions()
	p.findings()
	p.debris()
	p.duplicates()
	p.foot()
	return out.Flush()
}

// page writes the page; out keeps the error of the first write that failed.
type page struct {
	out    *bufio.Writer
	r      *analyze.Report
	views  []view
	viewOf []int // of a layer
}

// raw writes our own markup. It must not be called with text of the image.
func (p *page) raw(parts ...string) {
	for _, s := range parts {
		p.out.WriteString(s)
	}
}

// text writes text that may be from the image.
func (p *page) text(s string) { p.raw(escape(s)) }

// escape escapes s as the text of an element or of an attribute in quotes.
func escape(s string) string { return stdhtml.EscapeString(ui.Cut(ui.Visible(s), maxText)) }

func number(n int64) string { return strconv.FormatInt(n, 10) }

// hash returns the hash of a script or a style for the Content-Security-Policy.
func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func (p *page) head() {
	p.raw(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8" />
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src `, hash(css), `; script-src `, hash(js),
		`; base-uri 'none'; form-action 'none'" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<meta name="color-scheme" content="light dark" />
<meta name="referrer" content="no-referrer" />
<meta name="generator" content="layerbuild analyze" />
<title>`, escape(p.r.Image), ` – layerbuild analyze</title>
<style>`, css, `</style>
</head>
<body>
<a class="skip" href="#instructions-title">Skip to the tables</a>
<svg width="0" height="0" aria-hidden="true"><defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">`,
		`<rect class="deadfill" width="6" height="6" /><line class="deadline" x1="0" y1="0" x2="0" y2="6" /></pattern></defs></svg>
`)
}

// summary writes the totals of the image.
func (p *page) summary() {
	r := p.r
	p.raw("<header>\n<h1>", escape(r.Image), "</h1>\n<p class=\"sub\">")
	for i, s := range []string{r.Platform, r.Digest, baseText(r.Base)} {
		if s != "" {
			if i > 0 {
				p.raw(" · ")
			}
			p.text(s)
		}
	}
	p.raw("</p>\n<dl class=\"tiles\">\n")
	p.tile("", "Content", r.Total.Bytes, strconv.Itoa(len(r.Layers))+" layers")
	p.tile("", "Live", r.Total.Live, units.Share(r.Total.Live, r.Total.Bytes))
	p.tile("dead", "Dead", r.Total.Dead, units.Share(r.Total.Dead, r.Total.Bytes))
	for _, o := range r.Owners {
		if o.Dead > 0 && len(r.Owners) > 1 {
			p.tile("dead", "Dead, "+ownerText(o.Owner), o.Dead,
				units.Share(o.Dead, o.Bytes)+" of it")
		}
	}
	p.raw("</dl>\n")
	p.ownersBar()
	p.gate()
	p.raw("</header>\n<main>\n")
}

func (p *page) tile(class, name string, n int64, note string) {
	p.raw(`<div class="`, class, `"><dt>`, name, `</dt><dd title="`, number(n), ` bytes">`,
		units.Size(n), ` <small>`, note, "</small></dd></div>\n")
}

// ownersBar writes all bytes as one bar, divided by owner and into live and dead bytes.
func (p *page) ownersBar() {
	total := p.r.Total.Bytes
	if total <= 0 {
		return
	}
	var label, bar strings.Builder
	x := 0.0
	rect := func(class string, n int64) {
		if n <= 0 {
			return
		}
		w := 100 * float64(n) / float64(total)
		bar.WriteString(`<rect class="` + class + `" x="` + coord(x) + `%" width="` +
			coord(w) + `%" height="100%"`)
		if class == "hatch" {
			bar.WriteString(` fill="url(#hatch)"`)
		}
		bar.WriteString(" />")
		x += w
	}
	for _, o := range p.r.Owners {
		rect(o.Owner.String(), o.Live)
		rect("hatch", o.Dead)
		label.WriteString(ownerText(o.Owner) + ": live " + units.Size(o.Live) + ", dead " +
			units.Size(o.Dead) + ". ")
	}
	// The widths are percentages: a view box would stretch the hatching.
	p.raw(`<svg class="bar" role="img" aria-label="`, label.String(), `">`,
		bar.String(), "</svg>\n")
	p.raw(`<ul class="key">`)
	for _, o := range p.r.Owners {
		p.raw(`<li><svg aria-hidden="true"><rect class="`, o.Owner.String(),
			`" width="100%" height="100%" /></svg>`, ownerText(o.Owner), " ",
			units.Size(o.Bytes), "</li>")
	}
	p.raw(`<li><svg aria-hidden="true"><rect fill="url(#hatch)" width="100%" height="100%" /></svg>dead: in the image, but no path of the final file system refers to it</li></ul>`, "\n")
}

func coord(f float64) string { return strconv.FormatFloat(f, 'f', 2, 64) }

func (p *page) gate() {
	g := p.r.Gate
	if g == nil {
		return
	}
	if g.Passed {
		p.raw(`<p><span class="tag">Gate passed</span> `, units.Size(g.Dead),
			" of own bytes are dead.</p>\n")
		return
	}
	p.raw(`<p><span class="tag bad">Gate failed</span></p><ul>`)
	for _, f := range g.Failures[:min(len(g.Failures), maxWarnings)] {
		p.raw("<li>", escape(f), "</li>")
	}
	p.raw("</ul>\n")
}

func (p *page) treemap() {
	if len(p.views) == 0 {
		return
	}
	p.raw(`<noscript><p>Without JavaScript the page shows its tables, but no treemap.</p></noscript>
<section id="treemap" aria-labelledby="treemap-title" hidden="">
<h2 id="treemap-title">Where the bytes are</h2>
<div class="tools">
<label for="view">Show <select id="view"></select></label>
<label class="check"><input type="checkbox" id="only-dead" /> only dead bytes</label>
</div>
<nav aria-label="Directory"><ol id="crumbs"></ol></nav>
<div id="map" role="group" aria-label="Treemap"></div>
<div id="told" aria-live="polite"></div>
<p class="sub">Click or tap a directory to enter it; with the keyboard: arrows, Enter, and Escape for the directory above. Hatched is dead.`,
		` Where there are too many files to show, the smallest are put together as “smaller files”.</p>
<table aria-label="Contents of the directory" role="table"><caption id="contents-note"></caption>
<thead role="rowgroup"><tr role="row"><th scope="col" role="columnheader">Name</th><th scope="col" class="n" role="columnheader">Size</th>`,
		`<th scope="col" class="n" role="columnheader">Dead</th><th scope="col" role="columnheader">Why</th></tr></thead>
<tbody id="contents" role="rowgroup"></tbody></table>
</section>
`)
}

// table starts a table with a title and filters; columns are names, with flags before a colon: s
// sorts, n is a number.
func (p *page) table(id, title, note string, picks []pick, columns ...string) {
	p.raw(`<section aria-labelledby="`, id, `-title">
<h2 id="`, id, `-title">`, title, `</h2>
<form class="tools" id="`, id, `-tools" hidden=""><label>Filter <input type="search" autocomplete="off" spellcheck="false" /></label>`)
	for _, k := range picks {
		p.raw(`<label>`, k.label, ` <select data-key="`, k.key, `"><option value="">all</option>`)
		for _, o := range k.options {
			p.raw(`<option value="`, o[0], `">`, o[1], `</option>`)
		}
		p.raw(`</select></label>`)
	}
	p.raw(`<span class="count" role="status"></span></form>
<table class="sort" id="`, id, `" role="table"><caption>`, note, `</caption>
<thead role="rowgroup"><tr role="row">`)
	for _, c := range columns {
		flags, name, _ := strings.Cut(c, ":")
		p.raw(`<th scope="col" role="columnheader" class="`, flags, `">`, name, `</th>`)
	}
	p.raw("</tr></thead>\n<tbody role=\"rowgroup\">\n")
}

func (p *page) endTable() { p.raw("</tbody></table>\n</section>\n") }

// pick is a filter on an attribute of the rows.
type pick struct {
	key, label string
	options    [][2]string // value, text
}

// cell writes a cell: markup is our own and already escaped.
func (p *page) cell(class, label, markup string) {
	p.raw(`<td role="cell" class="`, class, `"`)
	if label != "" {
		p.raw(` data-label="`, label, `"`)
	}
	p.raw(`>`, markup, `</td>`)
}

// bytes writes a cell with a number of bytes; it is empty for 0.
func (p *page) bytes(class, label string, n int64, note string) {
	p.raw(`<td role="cell" class="n `, class, `" data-label="`, label, `" data-v="`, number(n), `"`)
	if n == 0 && note == "" {
		p.raw(`></td>`)
		return
	}
	p.raw(` title="`, number(n), ` bytes">`, units.Size(n), note, `</td>`)
}

func ownerText(o analyze.Owner) string {
	switch o {
	case analyze.Own:
		return "this stage"
	case analyze.EarlierStage:
		return "earlier stage"
	case analyze.BaseImage:
		return "base image"
	}
	panic("unreachable")
}

// owners returns the filter by owner; nothing if there is only one owner.
func (p *page) owners() []pick {
	if len(p.r.Owners) < 2 {
		return nil
	}
	k := pick{key: "owner", label: "Whose"}
	for _, o := range p.r.Owners {
		k.options = append(k.options, [2]string{o.Owner.String(), ownerText(o.Owner)})
	}
	return []pick{k}
}

func baseText(b analyze.Base) string {
	if b.Layers == 0 {
		return ""
	}
	s := "base " + b.Name
	if b.Name == "" {
		s = "base: the lowest layer"
		if b.Layers > 1 {
			s = "base: the lowest " + strconv.Itoa(b.Layers) + " layers"
		}
	}
	if b.Source == analyze.BaseGuess {
		s += " (a guess"
		if b.Note != "" {
			s += ": " + b.Note
		}
		s += ")"
	}
	return s
}
