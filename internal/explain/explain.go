package explain

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// Step is a step of a build and what its result depends on.
type Step struct {
	// Stage is the name of the stage or, if it has none, its number.
	Stage string
	// Number is the number of the step in its stage, as the progress shows it.
	Number   int
	Platform string
	// Line is the first line of the instruction, and Text the instruction as written.
	Line int
	Text string
	// Key is the key of the result, and Parent that of the file system on which the step runs.
	Key, Parent string
	// Took is the time that the step ran.
	Took  time.Duration `json:",omitempty"`
	Parts []Part
	Files []Files
}

// Kind is a kind of value on which the result of a step depends.
type Kind string

// The kinds of parts.
const (
	// Base is the image on which the stage is based; the value is its digest.
	Base Kind = "base"
	// Instruction is the instruction with variables expanded.
	Instruction Kind = "instruction"
	// Arg and Env are variables. Only a RUN depends on all of them.
	Arg Kind = "arg"
	Env Kind = "env"
	// Option is a flag of the build. Its value is shown.
	Option Kind = "option"
	// Source is an address from which the step takes files.
	Source Kind = "source"
	// Ignore is a file with patterns of ignored files.
	Ignore Kind = "ignore"
	// Content are files of which no list is kept.
	Content Kind = "content"
	// Setting is something else that an instruction before the step has set, such as USER.
	Setting Kind = "setting"
)

// Part is one of the values on which the result of a step depends.
type Part struct {
	Kind Kind   `json:"kind"`
	Name string `json:"name"`
	// Value is a digest, a checksum made by Sum, or for an Option the value itself.
	Value string `json:"value"`
}

// Sum returns a checksum of a value that must not be shown.
func Sum(value string) string {
	sum := sha256.Sum256([]byte(value))
	return hex.EncodeToString(sum[:8])
}

// Code is the kind of a reason.
type Code string

// The codes of reasons.
const (
	First   Code = "no-earlier-run" // of the Dockerfile
	New     Code = "new"            // the instruction was not in the earlier build
	Edited  Code = "edited"         // the instruction
	Moved   Code = "moved"          // the instruction was at another place
	Changed Code = "changed"        // see Reason.Changes
	Before  Code = "step-before"    // the step before it has another result
	Removed Code = "removed"        // an instruction before it
	Lost    Code = "no-result"      // an equal step has run, and its result is gone
	NoCache Code = "no-cache"       // the user does not want earlier results
	Expired Code = "expired"        // the earlier result is too old
)

// Reason tells why a step runs.
type Reason struct {
	Code Code `json:"code"`
	// Text is one line for the user.
	Text    string   `json:"text"`
	Changes []Change `json:"changes,omitempty"`
}

// How tells what happened to a part.
type How string

// What happens to a part.
const (
	IsChanged How = "changed"
	IsNew     How = "new"
	IsGone    How = "gone"
)

// Change is a difference between a step and an earlier one.
type Change struct {
	Kind Kind   `json:"kind,omitempty"` // "" for a file
	Name string `json:"name"`
	How  How    `json:"how"`
	// From is the name of the stage, image or context of a file; "" for the context of the build.
	From string `json:"from,omitempty"`
	// Old and New are the values of Base and Option.
	Old string `json:"old,omitempty"`
	New string `json:"new,omitempty"`
}

// Place describes where a step is in its build.
type Place struct {
	// Texts returns the instructions of the stage, as written, in their order. Only a step that
	// has an earlier run needs them.
	Texts func() []string
	// Above is the number of the step below which this one runs; 0: it runs on the base.
	Above int
	// AboveRan is set if that step has run in this build.
	AboveRan bool
	// OnStage is the stage on which the step's stage is based, if Above is 0; "": none.
	OnStage string
}

// Explain returns why a step runs, by comparing it with the earlier steps.
func (h *History) Explain(s *Step, at Place) Reason {
	if len(h.Steps) == 0 {
		return Reason{Code: First, Text: "no earlier run is recorded"}
	}
	old, same := h.nearest(s)
	switch {
	case old == nil:
		return Reason{Code: New, Text: fmt.Sprintf("line %d is new", s.Line)}
	case old.Key == s.Key:
		return Reason{Code: Lost, Text: "its earlier result is no longer there"}
	case !same && slices.Contains(at.Texts(), old.Text):
		return Reason{Code: New, Text: fmt.Sprintf("line %d is new", s.Line)}
	case !same:
		return Reason{Code: Edited, Text: fmt.Sprintf("line %d was edited", s.Line)}
	}
	changes := compare(old, s)
	switch {
	case len(changes) == 1 && changes[0].Kind == Instruction: // for example a heredoc
		return Reason{Code: Edited, Text: fmt.Sprintf("line %d was edited", s.Line)}
	case len(changes) > 0:
		return Reason{Code: Changed, Text: describe(changes), Changes: changes}
	}
	if old.Parent == s.Parent {
		return Reason{Code: Lost, Text: "its earlier result is no longer there"}
	}
	if r, ok := h.rearranged(old, s, at); ok {
		return r
	}
	return Reason{Code: Before, Text: at.before()}
}

// maxText limits an instruction in a reason, in characters.
const maxText = 60

// rearranged reports whether the instructions before s are other ones, or in another order, than
// before old. It returns false if the step above has run: that has a reason of its own.
func (h *History) rearranged(old, s *Step, at Place) (Reason, bool) {
	if at.AboveRan {
		return Reason{}, false
	}
	texts := at.Texts()
	own := slices.Index(texts, s.Text)
	if own < 0 {
		return Reason{}, false
	}
	byKey := map[string]*Step{}
	for i := range h.Steps {
		byKey[h.Steps[i].Key] = &h.Steps[i]
	}
	next := own
	for e := byKey[old.Parent]; e != nil && e.Stage == s.Stage; e = byKey[e.Parent] {
		i := slices.Index(texts, e.Text)
		switch {
		case i < 0:
			return Reason{Code: Removed, Text: "removed before it: " + firstLine(e.Text)}, true
		case i > next:
			return Reason{Code: Moved,
				Text: fmt.Sprintf("line %d was at another place", s.Line)}, true
		}
		next = i
		delete(byKey, e.Key) // a file that is damaged may have a circle
	}
	return Reason{}, false
}

// firstLine returns the beginning of an instruction.
func firstLine(text string) string {
	text, _, more := strings.Cut(text, "\n")
	if r := []rune(text); len(r) > maxText {
		text, more = string(r[:maxText]), true
	}
	if more {
		text += "…"
	}
	return text
}

// before describes the step before the one that runs.
func (p Place) before() string {
	what := "the base image"
	switch {
	case p.Above > 0:
		what = fmt.Sprintf("step %d before it", p.Above)
	case p.OnStage != "":
		what = "stage " + p.OnStage
	}
	if p.AboveRan {
		return what + " ran again"
	}
	return what + " has another result"
}

// nearest returns the earlier step that is most like s, and reports whether its instruction is the
// same. It returns nil if there is none.
func (h *History) nearest(s *Step) (old *Step, same bool) {
	var best rank
	for i := range slices.Backward(h.Steps) { // of equal steps the latest
		e := &h.Steps[i]
		if e.Stage != s.Stage || e.Text != s.Text && e.Number != s.Number {
			continue
		}
		r := rank{[...]bool{e.Key == s.Key, e.Platform == s.Platform, e.Text == s.Text,
			slices.Contains(h.Last, e.Key)}, -differences(e, s),
			[...]bool{e.Number == s.Number, e.Parent == s.Parent}}
		if old == nil || r.compare(best) > 0 {
			old, best = e, r
		}
	}
	return old, old != nil && old.Text == s.Text
}

// rank tells how near an earlier step is. The first difference decides.
type rank struct {
	first       [4]bool
	differences int // negative
	then        [2]bool
}

func (r rank) compare(o rank) int {
	return cmp.Or(compareBools(r.first[:], o.first[:]), cmp.Compare(r.differences, o.differences),
		compareBools(r.then[:], o.then[:]))
}

func compareBools(a, b []bool) int {
	for i := range a {
		if a[i] != b[i] {
			if a[i] {
				return 1
			}
			return -1
		}
	}
	return 0
}

// maxCompared limits the files that are compared to find the nearest step.
const maxCompared = 20_000

func differences(old, s *Step) int {
	n := 0
	for i := range s.Files {
		n += len(s.Files[i].List)
	}
	if n > maxCompared {
		return 0
	}
	return len(compare(old, s))
}

// compare returns what differs between two steps with the same instruction, the most important
// first.
func compare(old, s *Step) []Change {
	var list []Change
	if old.Platform != s.Platform {
		list = append(list, Change{Kind: Option, Name: "--platform", How: IsChanged,
			Old: old.Platform, New: s.Platform})
	}
	expands := value(old, Instruction, "") != value(s, Instruction, "")
	list = append(list, compareBase(old, s)...)
	for _, kind := range []Kind{Option, Setting, Arg, Env, Source} {
		for _, c := range compareParts(old, s, kind) {
			switch kind {
			case Arg, Env:
				if !s.runs() && !(expands && s.uses(c.Name)) {
					continue
				}
			case Setting:
				if !s.runs() && !expands {
					continue
				}
			}
			list = append(list, c)
		}
	}
	files := compareFiles(old, s)
	if len(files) == 0 {
		for _, c := range compareParts(old, s, Content) {
			if c.How == IsChanged {
				list = append(list, c)
			}
		}
	} else {
		list = append(list, compareParts(old, s, Ignore)...)
		list = append(list, files...)
	}
	if expands && !slices.ContainsFunc(list, func(c Change) bool {
		return c.Kind == Arg || c.Kind == Env || c.Kind == Setting
	}) {
		list = append(list, Change{Kind: Instruction, How: IsChanged})
	}
	return list
}

// runs reports whether the step runs a command, which gets all variables.
func (s *Step) runs() bool { return strings.HasPrefix(strings.ToUpper(s.Text), "RUN") }

// uses reports whether the instruction has a reference to a variable. Text lacks heredocs, which
// may have one.
func (s *Step) uses(name string) bool {
	for _, before := range []string{"$", "${"} {
		for rest := s.Text; ; {
			_, after, ok := strings.Cut(rest, before+name)
			if !ok {
				break
			}
			if after == "" || !isNameByte(after[0]) { // not the beginning of another name
				return true
			}
			rest = after
		}
	}
	return strings.Contains(s.Text, "<<")
}

func isNameByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
}

func value(s *Step, kind Kind, name string) string {
	for _, p := range s.Parts {
		if p.Kind == kind && p.Name == name {
			return p.Value
		}
	}
	return ""
}

// compareBase compares the base images, of which a step has at most one.
func compareBase(old, s *Step) []Change {
	base := func(s *Step) (name, digest string) {
		for _, p := range s.Parts {
			if p.Kind == Base {
				return p.Name, p.Value
			}
		}
		return "", ""
	}
	wasName, was := base(old)
	name, is := base(s)
	switch {
	case was == is || was == "" || is == "":
		return nil
	case wasName != name:
		return []Change{{Kind: Base, Name: name, How: IsNew, Old: wasName, New: name}}
	}
	return []Change{{Kind: Base, Name: name, How: IsChanged, Old: was, New: is}}
}

// compareParts compares the parts of one kind.
func compareParts(old, s *Step, kind Kind) []Change {
	before := map[string]string{}
	for _, p := range old.Parts {
		if p.Kind == kind {
			before[p.Name] = p.Value
		}
	}
	var list []Change
	add := func(name string, how How, old, value string) {
		c := Change{Kind: kind, Name: name, How: how}
		if kind == Option {
			c.Old, c.New = old, value
		}
		list = append(list, c)
	}
	for _, p := range s.Parts {
		if p.Kind != kind {
			continue
		}
		was, ok := before[p.Name]
		delete(before, p.Name)
		switch {
		case !ok:
			add(p.Name, IsNew, "", p.Value)
		case was != p.Value:
			add(p.Name, IsChanged, was, p.Value)
		}
	}
	for _, p := range old.Parts {
		if was, ok := before[p.Name]; ok && p.Kind == kind {
			add(p.Name, IsGone, was, "")
		}
	}
	return list
}

// describe returns changes as one line.
func describe(changes []Change) string {
	var texts []string
	var files []Change
	ignore := ""
	for _, c := range changes {
		switch c.Kind {
		case "":
			files = append(files, c)
		case Ignore:
			ignore = c.Name
		default:
			texts = append(texts, c.String())
		}
	}
	if len(texts) > 3 {
		texts = append(texts[:3], fmt.Sprintf("%d more changes", len(texts)-3))
	}
	if len(files) > 0 {
		texts = append(texts, describeFiles(files, ignore))
	}
	return strings.Join(texts, ", ")
}

// String describes the change, such as "ARG VERSION changed".
func (c Change) String() string {
	switch c.Kind {
	case "":
		if c.From != "" {
			return c.Name + " of " + c.From + " " + c.How.text()
		}
	case Base:
		if c.How == IsChanged {
			return fmt.Sprintf("base %s moved: %s → %s", c.Name, short(c.Old), short(c.New))
		}
		return fmt.Sprintf("the base was %s and is %s", c.Old, c.New)
	case Instruction:
		return "the instruction was edited"
	case Arg:
		return "ARG " + c.Name + " " + c.How.text()
	case Env:
		return "ENV " + c.Name + " " + c.How.text()
	case Option:
		if c.How == IsChanged && len(c.Old)+len(c.New) < 60 {
			return fmt.Sprintf("%s changed: %s → %s", c.Name, c.Old, c.New)
		}
		return c.Name + " " + c.How.text()
	case Content:
		return "the files of " + c.Name + " changed"
	}
	return c.Name + " " + c.How.text()
}

func (h How) text() string {
	if h == IsChanged {
		return "changed"
	}
	return "is " + string(h)
}

// short returns a digest as it is shown: with the first digits.
func short(digest string) string {
	if algorithm, hex, ok := strings.Cut(digest, ":"); ok && len(hex) > 12 {
		return algorithm + ":" + hex[:12] + "…"
	}
	return digest
}

// describeFiles describes changes of files. ignore is the name of the file of patterns, if it has
// changed.
func describeFiles(files []Change, ignore string) string {
	first := files[0]
	if i := slices.IndexFunc(files, func(c Change) bool { return c.How != IsChanged }); i >= 0 &&
		ignore != "" {
		verb := " lets in "
		if files[i].How == IsGone {
			verb = " leaves out "
		}
		var names []string
		rest := slices.DeleteFunc(slices.Clone(files), func(c Change) bool {
			if c.How == files[i].How {
				names = append(names, c.Name)
			}
			return c.How == files[i].How
		})
		return ignore + verb + common(names) + more(len(rest))
	}
	return first.String() + more(len(files)-1)
}

func more(n int) string {
	switch n {
	case 0:
		return ""
	case 1:
		return " (and 1 more file)"
	}
	return fmt.Sprintf(" (and %d more files)", n)
}

// common returns the directory, with a slash, in which all of some files are, or the only file.
func common(names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	dir := strings.TrimSuffix(names[0], "/") + "/"
	for _, name := range names[1:] {
		for !strings.HasPrefix(strings.TrimSuffix(name, "/")+"/", dir) {
			dir, _ = path.Split(strings.TrimSuffix(dir, "/"))
			if dir == "" {
				return fmt.Sprintf("%s and %d more", names[0], len(names)-1)
			}
		}
	}
	return dir
}
