package main

import (
	"fmt"
	"strings"
)

// manPage is a page of the manual. It uses the macros of man(7), which man-db and mandoc support.
type manPage struct {
	name    string
	section string
	text    string
}

// file returns the name of the page's file.
func (p manPage) file() string { return p.name + "." + p.section }

// manPages returns the pages for the command, for each verb, and for its configuration.
func manPages(all []verb, date string) []manPage {
	pages := []manPage{commandPage(all, date), settingsPage(date)}
	for _, v := range all {
		pages = append(pages, verbPage(v, date))
	}
	return pages
}

func commandPage(all []verb, date string) manPage {
	r := newRoff("layerbuild", "1", date, "build OCI images from Dockerfiles")
	r.section("SYNOPSIS")
	r.line(`\fBlayerbuild\fR [\fIVERB\fR] [\fIflags\fR] [\fIarguments\fR]`)
	r.section("DESCRIPTION")
	r.paragraphs(overview + "\n\n" + defaultVerbText)
	r.section("VERBS")
	for _, v := range all {
		r.item(bold("layerbuild-"+v.name)+"(1)", v.summary)
	}
	r.section("NAMES OF IMAGES")
	r.paragraphs(identifierText() + "\n\n" + pathText(all))
	r.exitStatus("")
	r.examples(overviewExamples[:])
	r.section("SEE ALSO")
	r.line(`\fBlayerbuild\fR(5)`)
	return r.page()
}

func verbPage(v verb, date string) manPage {
	r := newRoff("layerbuild-"+v.name, "1", date, v.summary)
	r.section("SYNOPSIS")
	r.line(bold("layerbuild "+v.name) + " [" + italic("flags") + "] " + italic(v.args))
	if v.notes != "" {
		r.section("DESCRIPTION")
		r.paragraphs(v.allNotes())
	}
	r.section("OPTIONS")
	groups := flagsOf(v)
	for _, g := range groups {
		if len(groups) > 2 || g.heading == groupOfState {
			r.subsection(g.heading)
		}
		for _, f := range g.flags {
			tag := bold("--" + f.name)
			if f.short != "" {
				tag = bold("-"+f.short) + ", " + tag
			}
			switch {
			case f.optional && f.placeholder != "":
				tag += "[=" + italic(f.placeholder) + "]"
			case f.placeholder != "":
				tag += " " + italic(f.placeholder)
			}
			r.item(tag, f.text+". "+f.details)
		}
	}
	if v.namesImages() {
		r.section("NAMES OF IMAGES")
		r.paragraphs(v.imageText())
	}
	r.exitStatus(v.name)
	r.examples(v.examples)
	r.section("SEE ALSO")
	r.line(`\fBlayerbuild\fR(1), \fBlayerbuild\fR(5)`)
	return r.page()
}

func settingsPage(date string) manPage {
	r := newRoff("layerbuild", "5", date,
		"configuration files and environment variables of layerbuild")
	r.section("DESCRIPTION")
	r.paragraphs("A flag on the command line has precedence over an environment variable, and an " +
		"environment variable over a configuration file.")
	r.section("FILES")
	for _, f := range settingsFiles {
		r.item(italic(f.path), f.text)
		r.line(".RS")
		for _, k := range f.keys {
			r.item(bold(k.name), k.text+" An example is "+k.example+".")
		}
		r.line(".RE")
	}
	r.section("ENVIRONMENT")
	for _, v := range variables {
		r.item(bold(v.name), v.text)
	}
	r.section("SEE ALSO")
	r.line(`\fBlayerbuild\fR(1)`)
	return r.page()
}

// roff writes a page.
type roff struct {
	name, number string
	b            strings.Builder
}

// newRoff begins a page with its title and the section NAME.
func newRoff(name, section, date, summary string) *roff {
	r := &roff{name: name, number: section}
	r.line(fmt.Sprintf(`.TH "%s" "%s" "%s" "layerbuild %s" "layerbuild manual"`,
		strings.ToUpper(roffText(name)), section, date, roffText(toolVersion())))
	r.line(".nh\n.ad l") // no hyphenation, and no wide spaces around long names
	r.section("NAME")
	wrap(&r.b, roffText(name)+` \- `+roffText(summary), 0)
	return r
}

func (r *roff) page() manPage { return manPage{r.name, r.number, r.b.String()} }

// line writes a line of roff.
func (r *roff) line(s string) { r.b.WriteString(s + "\n") }

func (r *roff) section(name string) { r.line(`.SH "` + name + `"`) }

// subsection begins a part of a section.
func (r *roff) subsection(name string) { r.line(`.SS "` + roffText(name) + `"`) }

// item writes an item of a list: a tag, which is roff, and a text.
func (r *roff) item(tag, text string) {
	r.line(".TP")
	r.line(tag)
	r.sentences(text)
}

// paragraphs writes a text whose paragraphs are separated by empty lines.
func (r *roff) paragraphs(text string) {
	for i, p := range strings.Split(text, "\n\n") {
		if i > 0 {
			r.line(".PP")
		}
		r.sentences(p)
	}
}

// sentences writes a paragraph. Each sentence begins a new line, as is the custom in man pages.
func (r *roff) sentences(text string) {
	text = strings.Join(strings.Fields(text), " ")
	for sentence := range strings.SplitSeq(strings.ReplaceAll(text, ". ", ".\n"), "\n") {
		wrap(&r.b, roffText(sentence), 0)
	}
}

func (r *roff) exitStatus(verb string) {
	r.section("EXIT STATUS")
	for line := range strings.Lines(exitTable(verb)) {
		if code, text, ok := strings.Cut(strings.TrimSpace(line), " "); ok &&
			strings.HasPrefix(line, "  ") {
			r.item(bold(code), strings.TrimSpace(text)+".")
		}
	}
}

func (r *roff) examples(list []example) {
	r.section("EXAMPLES")
	for _, e := range list {
		r.item(bold(e.line), e.text+".")
	}
}

func bold(s string) string   { return `\fB` + roffText(s) + `\fR` }
func italic(s string) string { return `\fI` + roffText(s) + `\fR` }

// roffText escapes text, so that it is printed unchanged: hyphens can be copied to a command line,
// and no line of text is interpreted as a macro.
func roffText(s string) string {
	var b strings.Builder
	begin := true // at the beginning of a word, which may become the first of a line
	for _, c := range s {
		switch {
		case c == '\\':
			b.WriteString(`\e`)
		case c == '-':
			b.WriteString(`\-`)
		case c == '\'':
			b.WriteString(`\(aq`)
		case c == '~':
			b.WriteString(`\(ti`)
		case c == '.' && begin:
			b.WriteString(`\&.`)
		case c > 126:
			fmt.Fprintf(&b, `\[u%04X]`, c)
		default:
			b.WriteRune(c)
		}
		begin = c == ' '
	}
	return b.String()
}
