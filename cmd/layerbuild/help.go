package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/layerbuild/layerbuild/internal/store"
)

// exitStatus is an exit status with its meaning. The words in verbs are the verbs that have the
// status: "" stands for all verbs, and words that begin with "-" are the only verbs without it.
type exitStatus struct {
	code  string
	verbs string
	text  string
}

var exitStatuses = [...]exitStatus{
	{"0", "-run", "success"},
	{"1", "-run", "failure; the reason is on standard error"},
	{"2", "-run", "the command line is wrong; nothing was done"},
	{"3", "analyze build", "the image fails the gate (--fail-over, --fail-on)"},
	{"125", "run", "layerbuild itself failed, or its command line is wrong"},
	{"126", "run", "the command cannot be executed"},
	{"127", "run", "the command is not found"},
	{"128+N", "run", "signal N ended the command"},
	{"130", "", "interrupted by SIGINT, SIGTERM or SIGHUP; no partial output is left"},
	{"other", "run", "the exit status of the command"},
}

// of reports whether a verb can have the exit status.
func (s exitStatus) of(verb string) bool {
	words := strings.Fields(s.verbs)
	return len(words) == 0 || slices.Contains(words, verb) ||
		s.verbs[0] == '-' && !slices.Contains(words, "-"+verb)
}

// exitTable returns the exit statuses of a verb, or of all verbs for "".
func exitTable(verb string) string {
	var b strings.Builder
	b.WriteString("Exit status:\n")
	for _, s := range exitStatuses {
		if verb != "" && !s.of(verb) {
			continue
		}
		text := s.text
		if verb == "" && s.verbs != "" && s.verbs[0] != '-' {
			text = strings.ReplaceAll(s.verbs, " ", ", ") + ": " + text
		}
		fmt.Fprintf(&b, "  %-6s %s\n", s.code, text)
	}
	return b.String()
}

// overview is the text of 'layerbuild help' above the verbs.
const overview = "layerbuild builds OCI images from Dockerfiles, without a daemon, as root or not."

// overviewExamples are the examples of 'layerbuild help'.
var overviewExamples = [...]example{
	{"layerbuild -t app .", "build ./Dockerfile and name the image app"},
	{"layerbuild -t app -o type=oci,dest=app.tar .", "write the image as an OCI archive too"},
	{"layerbuild run app", "run the command of the image"},
}

// identifierText explains the ways to name an image on the command line.
func identifierText() string {
	return fmt.Sprintf("An image is given as a name (app, app:v2, "+
		"registry.example/app@sha256:…), as its image ID or another digest that layerbuild "+
		"prints, in full or as its first digits, at least %d. The image ID is the "+
		"digest of the image's configuration, or of the index of an image for several platforms: "+
		"the same that 'docker buildx build -q' prints.",
		store.MinShortID)
}

// pathText explains images that are not in the store.
func pathText(all []verb) string {
	var names []string
	for _, v := range all {
		if v.takesPaths {
			names = append(names, v.name)
		}
	}
	slices.Sort(names)
	return joinWords(names, "and") + " also take an image that is not in the store, as a path: " +
		"oci:DIR, oci-archive:FILE or docker-archive:FILE."
}

// defaultVerbText explains a command line without a verb.
const defaultVerbText = "Without a verb, the command is build: 'layerbuild -t app .' is the same " +
	"as 'layerbuild build -t app .'."

// manualText refers to further documentation.
const manualText = "'layerbuild help VERB' explains a verb. 'layerbuild VERB -h' is shorter."

// help prints the help for the command line as a whole.
func help(w io.Writer, all []verb) error {
	b := new(strings.Builder)
	b.WriteString(overview + "\n\nUsage: layerbuild [VERB] [flags] [arguments]\n\nVerbs:\n")
	for _, v := range visible(all) {
		fmt.Fprintf(b, "  %-12s %s\n", v.name, v.summary)
	}
	b.WriteByte('\n')
	paragraphs(b, defaultVerbText)
	paragraphs(b, manualText)
	paragraphs(b, identifierText()+"\n\n"+pathText(all))
	b.WriteString(exitTable("") + "\n")
	writeExamples(b, overviewExamples[:])
	_, err := io.WriteString(w, b.String())
	return err
}

// shortHelp prints the output of 'layerbuild VERB -h', which fits one screen: a line for each flag,
// or for each of v.common.
func shortHelp(w io.Writer, v verb) error {
	b := new(strings.Builder)
	groups, others := commonFlags(v)
	writeFlags(b, v, groups)
	examples := v.examples
	if others == 0 {
		fmt.Fprintf(b, "'layerbuild help %s' has the details.\n\n", v.name)
	} else {
		fmt.Fprintf(b, "'layerbuild help %s' explains these flags and %d others.\n\n",
			v.name, others)
		examples = examples[:min(3, len(examples))]
	}
	writeExamples(b, examples)
	_, err := io.WriteString(w, b.String())
	return err
}

// commonFlags returns the flags that the short help shows, and counts the others.
func commonFlags(v verb) (groups []flagGroup, others int) {
	for _, g := range flagsOf(v) {
		all := len(g.flags)
		if v.common != nil {
			g.flags = slices.DeleteFunc(g.flags,
				func(f flagInfo) bool { return !slices.Contains(v.common, f.name) })
		}
		others += all - len(g.flags)
		if len(g.flags) > 0 {
			groups = append(groups, g)
		}
	}
	return groups, others
}

// longHelp prints the output of 'layerbuild help VERB'.
func longHelp(w io.Writer, v verb) error {
	b := new(strings.Builder)
	groups := flagsOf(v)
	writeFlags(b, v, groups)
	details := new(strings.Builder)
	for _, g := range groups {
		for _, f := range g.flags {
			if f.details != "" {
				fmt.Fprintf(details, "  --%s\n", f.name)
				wrap(details, f.details, 6)
			}
		}
	}
	if details.Len() > 0 {
		b.WriteString("Details:\n" + details.String() + "\n")
	}
	paragraphs(b, v.allNotes())
	if v.namesImages() {
		paragraphs(b, v.imageText())
	}
	b.WriteString(exitTable(v.name) + "\n")
	writeExamples(b, v.examples)
	_, err := io.WriteString(w, b.String())
	return err
}

// allNotes returns the paragraphs of the long help.
func (v verb) allNotes() string {
	if v.moreNotes == nil {
		return v.notes
	}
	return v.notes + "\n\n" + v.moreNotes()
}

// namesImages reports whether the help of a verb explains how an image is given.
func (v verb) namesImages() bool {
	return strings.Contains(v.args, "IMAGE")
}

// imageText explains how an image of the verb is given.
func (v verb) imageText() string {
	if v.takesPaths {
		return identifierText() + "\n\n" + pathText(verbs())
	}
	return identifierText()
}

// usage returns the command line of a verb.
func (v verb) usage() string {
	return strings.TrimSpace("layerbuild " + v.name + " [flags] " + v.args)
}

// writeFlags writes the common beginning of the short and the long help.
func writeFlags(b *strings.Builder, v verb, groups []flagGroup) {
	fmt.Fprintf(b, "layerbuild %s: %s\n\nUsage: %s\n\n", v.name, v.summary, v.usage())
	for _, g := range groups {
		b.WriteString(g.heading + ":\n")
		for _, f := range g.flags {
			writeFlag(b, f)
		}
		b.WriteByte('\n')
	}
}

// The columns of the help: where the text of a flag begins, and where lines end.
const (
	helpIndent = 30
	helpWidth  = 80
)

// writeFlag writes a flag and its text, which is beside the flag or, if that is too long, below it.
func writeFlag(b *strings.Builder, f flagInfo) {
	left := "      --" + f.name
	if f.short != "" {
		left = "  -" + f.short + ", --" + f.name
	}
	switch {
	case f.optional && f.placeholder != "":
		left += "[=" + f.placeholder + "]"
	case f.placeholder != "":
		left += " " + f.placeholder
	}
	b.WriteString(left)
	column := utf8.RuneCountInString(left)
	if column+2 > helpIndent {
		b.WriteByte('\n')
		column = 0
	}
	fmt.Fprintf(b, "%*s%s\n", helpIndent-column, "", f.text)
}

// writeExamples writes command lines, each with its explanation below it.
func writeExamples(b *strings.Builder, list []example) {
	b.WriteString("Examples:\n")
	for _, e := range list {
		fmt.Fprintf(b, "  %s\n      %s\n", e.line, e.text)
	}
}

// paragraphs writes a text whose paragraphs are separated by empty lines, and an empty line after
// each.
func paragraphs(b *strings.Builder, text string) {
	for p := range strings.SplitSeq(text, "\n\n") {
		if p != "" {
			wrap(b, p, 0)
			b.WriteByte('\n')
		}
	}
}

// wrap writes the words of a text in lines of at most helpWidth columns, indented.
func wrap(b *strings.Builder, text string, indent int) {
	column := 0
	for word := range strings.FieldsSeq(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case column == 0:
			column = indent
			fmt.Fprintf(b, "%*s", indent, "")
		case column+1+n > helpWidth:
			fmt.Fprintf(b, "\n%*s", indent, "")
			column = indent
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	b.WriteByte('\n')
}
