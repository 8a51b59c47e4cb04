package analyze

import (
	"fmt"

	"github.com/layerbuild/layerbuild/internal/sarif"
	"github.com/layerbuild/layerbuild/internal/units"
)

// wasteHelp is the page that explains the rules of AddSARIF.
const wasteHelp = "https://github.com/layerbuild/layerbuild/blob/main/docs/WASTE.md"

// AddSARIF adds the findings to a log: dead bytes and debris as warnings, secrets as errors,
// duplicates as notes. Findings that the user has accepted and those of the base image, which the
// Dockerfile cannot change, are left out. file is the name of the Dockerfile; "" is the recorded
// name.
func (r *Report) AddSARIF(l *sarif.Log, file string) {
	if file == "" {
		file = r.Dockerfile
	}
	w := sarifWriter{r, l, file}
	for i := range r.Findings {
		if f := &r.Findings[i]; f.Owner != BaseImage && !f.Accepted {
			w.finding(f)
		}
	}
	for i := range r.Debris {
		if d := &r.Debris[i]; d.Owner != BaseImage && !d.Accepted {
			w.debris(d)
		}
	}
	for i := range r.Duplicates {
		if d := &r.Duplicates[i]; d.Owner != BaseImage && d.Remedy != "" {
			w.duplicate(d)
		}
	}
}

type sarifWriter struct {
	r    *Report
	log  *sarif.Log
	file string
}

func (w *sarifWriter) finding(f *Finding) {
	id := "waste/" + f.Reason.String()
	text := fmt.Sprintf("%s in %s of the image are dead: %s", units.Size(f.Bytes),
		Printable(f.Path), f.Reason.Text())
	if f.Killer != f.Creator {
		text += " by " + w.r.named(f.Killer, 80)
	}
	result := sarif.Result{Message: withRemedy(text, f.Remedy), Locations: w.at(f.Creator)}
	if killer := w.at(f.Killer); f.Killer != f.Creator && len(killer) > 0 {
		killer[0].Message = &sarif.Message{Text: "made dead here"}
		result.Related = killer
	}
	w.log.Add(sarif.Rule{ID: id,
		Description:   &sarif.Message{Text: "Dead bytes: " + f.Reason.Text()},
		HelpURI:       wasteHelp + "#every-dead-unit-has-a-creator-a-killer-and-one-reason",
		Configuration: sarif.Configuration{Level: sarif.Warning}}, result)
}

func (w *sarifWriter) debris(d *Debris) {
	level := sarif.Warning
	if d.Kind == Secret {
		level = sarif.Error
	}
	text := fmt.Sprintf("%s: %s (%s)", Printable(d.Path), d.Kind.Text(), units.Size(d.Bytes))
	if d.Dead {
		text += ", hidden but still in a layer"
	}
	w.log.Add(sarif.Rule{ID: "debris/" + d.Kind.String(),
		Description:   &sarif.Message{Text: "Files that images rarely need: " + d.Kind.Text()},
		HelpURI:       wasteHelp + "#live-bytes-that-are-reported",
		Configuration: sarif.Configuration{Level: level}},
		sarif.Result{Message: withRemedy(text, d.Remedy), Locations: w.at(d.Layer)})
}

// duplicate adds a content that the image has several times, if there is a remedy. The place is the
// last layer that has a copy.
func (w *sarifWriter) duplicate(d *Duplicate) {
	text := fmt.Sprintf("%s is in the image %d times (%s too much)", Printable(d.Paths[0]),
		d.Copies, units.Size(d.Extra))
	w.log.Add(sarif.Rule{ID: "waste/duplicate",
		Description:   &sarif.Message{Text: "The same content at several paths"},
		HelpURI:       wasteHelp + "#live-bytes-that-are-reported",
		Configuration: sarif.Configuration{Level: sarif.Note}},
		sarif.Result{Message: withRemedy(text, d.Remedy),
			Locations: w.at(d.Layers[len(d.Layers)-1])})
}

func withRemedy(text, remedy string) sarif.Message {
	if remedy != "" {
		text += ". Remedy: " + Printable(remedy)
	}
	return sarif.Message{Text: text}
}

// at returns the place of the instruction that made a layer: its lines, if they are known, and its
// text.
func (w *sarifWriter) at(layer int) []sarif.Location {
	ins := w.r.Made(layer)
	var l sarif.Location
	if w.file != "" && ins.Line > 0 {
		l = sarif.Lines(w.file, ins.Line, ins.EndLine)
	}
	l.Logical = []sarif.LogicalLocation{{
		Name: fmt.Sprintf("layer %d: %s", layer+1, shorten(Printable(ins.Text), 200)),
		Kind: "layer"}}
	return []sarif.Location{l}
}
