package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// A figure is one of the quantities of a sample.
type figure int

const (
	wall figure = iota
	cpu
	memory
	size
	wallPerUnit
	cpuPerUnit
	movedBytes
	requests
)

// of returns the figure of one sample: seconds or bytes.
func (f figure) of(s sample, units int) float64 {
	units = max(units, 1)
	switch f {
	case wall:
		return s.wall.Seconds()
	case cpu:
		return s.cpu.Seconds()
	case memory:
		return float64(s.memory)
	case size:
		return float64(s.size)
	case wallPerUnit:
		return s.wall.Seconds() / float64(units)
	case cpuPerUnit:
		return s.cpu.Seconds() / float64(units)
	case movedBytes:
		return float64(s.moved)
	case requests:
		return float64(s.requests)
	default:
		panic("unreachable")
	}
}

func (f figure) format(v float64) string {
	if f == requests {
		return fmt.Sprintf("%.0f", v)
	}
	if f == movedBytes && v < 1e6 {
		return fmt.Sprintf("%.1f kB", v/1e3)
	}
	if f == movedBytes || f == memory || f == size {
		return fmt.Sprintf("%.1f MB", v/1e6)
	}
	return span(v)
}

func (f figure) String() string {
	return []string{"wall", "CPU", "peak memory", "size", "wall", "CPU", "moved", "requests"}[f]
}

// span prints seconds with three significant digits.
func span(s float64) string {
	switch {
	case s >= 100:
		return fmt.Sprintf("%.0f s", s)
	case s >= 10:
		return fmt.Sprintf("%.1f s", s)
	case s >= 1:
		return fmt.Sprintf("%.2f s", s)
	case s >= 0.1:
		return fmt.Sprintf("%.0f ms", s*1e3)
	case s >= 0.001:
		return fmt.Sprintf("%.1f ms", s*1e3)
	}
	return fmt.Sprintf("%.3g µs", s*1e6)
}

// number prints a whole number with commas.
func number(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// median returns the middle value, or the mean of the two middle ones.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func (r row) values(f figure) []float64 {
	var all []float64
	for _, s := range r.samples {
		all = append(all, f.of(s, r.units))
	}
	return all
}

// ratio returns the median of the quotients of r's and other's runs with the same number. Other
// load on the machine affects both runs of a pair.
func (r row) ratio(f figure, other row) float64 {
	var all []float64
	for i := range min(len(r.samples), len(other.samples)) {
		if base := f.of(other.samples[i], other.units); base > 0 {
			all = append(all, f.of(r.samples[i], r.units)/base)
		}
	}
	return median(all)
}

// A goal is a limit for a contender's median.
type goal struct {
	of     string
	figure figure
	limit  float64
	than   string // the limit is a ratio to the figure of this contender
}

// judge returns the goal and the measured value as texts, and reports whether the goal is reached.
func (g goal) judge(r result) (want, got, reached string) {
	what := g.figure.String()
	if g.figure == wallPerUnit || g.figure == cpuPerUnit {
		what += " per " + r.unit
	}
	want = what + " at most " + g.figure.format(g.limit)
	if g.than != "" {
		want = fmt.Sprintf("%s at most %.2f of %s", what, g.limit, g.than)
	}
	if g.of != layerbuild {
		want = g.of + ": " + want
	}
	find := func(name string) row {
		for _, row := range r.rows {
			if row.name == name && row.failure == "" {
				return row
			}
		}
		return row{}
	}
	own := find(g.of)
	if len(own.samples) == 0 || g.than != "" && len(find(g.than).samples) == 0 {
		return want, "not measured", ""
	}
	value := median(own.values(g.figure))
	got = g.figure.format(value)
	if g.than != "" {
		value = own.ratio(g.figure, find(g.than))
		got = fmt.Sprintf("%.2f", value)
	}
	if reached = "no"; value <= g.limit {
		reached = "yes"
	}
	return want, got, reached
}

// A report is the content of the document.
type report struct {
	machine  []string
	measured string // for each result: the measured version and the time
	quick    bool
	results  []result
	kept     kept
}

// kept has, by title, the parts of an earlier report about works that are not measured again.
type kept struct{ goals, sections map[string]string }

// readKept reads the parts of a report.
func readKept(text string) kept {
	k := kept{map[string]string{}, map[string]string{}}
	var measured, title string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			title = ""
		}
		if date, ok := strings.CutPrefix(line, "- Date: "); ok {
			measured, _, _ = strings.Cut(date, ";")
		} else if version, ok := strings.CutPrefix(line, "- "+layerbuild+": "); ok {
			measured = strings.TrimSpace(version) + ", " + measured
		} else if t, ok := strings.CutPrefix(line, "### "); ok {
			title = strings.TrimSpace(t)
		}
		if title != "" {
			k.sections[title] += line
		} else if cells := strings.Split(line, " | "); len(cells) == 4 &&
			strings.HasPrefix(line, "| ") {
			k.goals[strings.TrimPrefix(cells[0], "| ")] += line
		}
	}
	for title, section := range k.sections {
		section = strings.TrimSpace(section) + "\n"
		if !strings.Contains(section, "\n"+measuredMark) {
			section += "\n" + measuredMark + measured + "\n"
		}
		k.sections[title] = "\n" + section
	}
	return k
}

// statesAre begins the fact about the file system.
const statesAre = "State and contexts: "

const measuredMark = "Measured: layerbuild "

// add sets the facts about the machine. If there are facts, it adds only the file system.
func (r *report) add(facts []string) {
	if r.machine == nil {
		r.machine = facts
		return
	}
	for _, fact := range facts {
		if strings.HasPrefix(fact, statesAre) && !slices.Contains(r.machine, fact) {
			at := slices.IndexFunc(r.machine, func(f string) bool {
				return strings.HasPrefix(f, statesAre)
			})
			r.machine = slices.Insert(r.machine, at+1, fact)
		}
	}
}

// section returns the section of a work, "" if it was never measured.
func (r *report) section(title string) string {
	var b strings.Builder
	for _, result := range r.of(title) {
		if b.Len() == 0 {
			fmt.Fprintf(&b, "\n### %s\n%s\n", title, result.what)
		}
		if result.fs != "" {
			fmt.Fprintf(&b, "\nOn %s:\n", result.fs)
		}
		result.markdown(&b)
	}
	if b.Len() == 0 {
		return r.kept.sections[title]
	}
	if r.measured != "" {
		b.WriteString("\n" + measuredMark + r.measured + "\n")
	}
	return b.String()
}

// of returns the results of a work, one for each file system.
func (r *report) of(title string) []result {
	var all []result
	for _, result := range r.results {
		if result.title == title {
			all = append(all, result)
		}
	}
	return all
}

// works returns the works of which the report has results.
func (r *report) works() []work {
	if len(r.kept.sections) == 0 {
		var all []work
		for i, result := range r.results {
			if !slices.ContainsFunc(r.results[:i], result.same) {
				all = append(all, result.work)
			}
		}
		return all
	}
	return slices.DeleteFunc(allWork(), func(w work) bool { return r.section(w.title) == "" })
}

// same reports whether two results are of the same work.
func (r result) same(other result) bool { return r.title == other.title }

func (r *report) markdown() string {
	var b strings.Builder
	b.WriteString("## The machine\n")
	for _, fact := range r.machine {
		fmt.Fprintf(&b, "- %s\n", fact)
	}
	if r.quick {
		b.WriteString("\nThis was a trial with tiny sizes (-quick): the figures mean nothing.\n")
	} else {
		r.goals(&b)
	}
	for _, curve := range []bool{false, true} {
		title := "\n## Each case\n"
		if curve {
			title = "\n## How it grows\n"
		}
		for _, w := range r.works() {
			if w.curve == curve {
				b.WriteString(title + r.section(w.title))
				title = ""
			}
		}
	}
	return b.String()
}

func (r *report) goals(b *strings.Builder) {
	b.WriteString("\n## Goals\n| work | goal | measured | reached |\n|---|---|---|---|\n")
	for _, w := range r.works() {
		all := r.of(w.title)
		if len(all) == 0 {
			b.WriteString(r.kept.goals[w.title])
		}
		for _, result := range all {
			for _, g := range w.goals {
				want, got, reached := g.judge(result)
				if result.fs != "" {
					want += ", on " + result.fs
				}
				fmt.Fprintf(b, "| %s | %s | %s | %s |\n", w.title, want, got, reached)
			}
		}
	}
}

func (r *result) markdown(b *strings.Builder) {
	b.WriteString("\n")
	if r.note != "" {
		fmt.Fprintf(b, "Left out: %s\n", line(r.note))
		return
	}
	sizes, units, moved := false, false, false
	for _, row := range r.rows {
		units = units || row.units > 0
		sizes = sizes || slices.ContainsFunc(row.samples, func(s sample) bool { return s.size > 0 })
		moved = moved || slices.ContainsFunc(row.samples,
			func(s sample) bool { return s.requests > 0 })
	}
	head := []string{"", "wall (least to most)", "CPU", "peak memory"}
	if sizes {
		head = append(head, "size")
	}
	if moved {
		head = append(head, "moved", "requests")
	}
	if units {
		head = append(head, "wall per "+r.unit, "CPU per "+r.unit)
	}
	if !r.curve {
		head = append(head, "× wall", "× CPU", "× memory")
	}
	cells(b, head)
	cells(b, slices.Repeat([]string{"---"}, len(head)))
	for i, row := range r.rows {
		if row.failure != "" {
			fmt.Fprintf(b, "| %s | failed: %s |\n", row.name, line(row.failure))
			continue
		}
		cells(b, r.cells(i, sizes, moved, units))
	}
	if r.account != nil {
		r.account.markdown(b)
	} else if r.accountErr != "" {
		fmt.Fprintf(b, "\nOne more run failed: %s\n", line(r.accountErr))
	}
}

// cells returns the cells of a row of the table. All rows but the first are compared with the first
// one.
func (r *result) cells(i int, sizes, moved, units bool) []string {
	row := r.rows[i]
	show := func(f figure) string { return f.format(median(row.values(f))) }
	walls := row.values(wall)
	all := []string{row.name, fmt.Sprintf("%s (%s to %s)", show(wall), span(slices.Min(walls)),
		span(slices.Max(walls))), show(cpu), show(memory)}
	if sizes {
		all = append(all, show(size))
	}
	if moved {
		all = append(all, show(movedBytes), show(requests))
	}
	if units {
		all = append(all, show(wallPerUnit), show(cpuPerUnit))
	}
	if r.curve {
		return all
	}
	for _, f := range []figure{wall, cpu, memory} {
		text := ""
		if i > 0 && r.rows[0].failure == "" {
			text = fmt.Sprintf("%.1f", row.ratio(f, r.rows[0]))
		}
		all = append(all, text)
	}
	return all
}

func cells(b *strings.Builder, all []string) {
	fmt.Fprintf(b, "| %s |\n", strings.Join(all, " | "))
}

// line makes an error fit into a cell of a table.
func line(text string) string {
	text = strings.ReplaceAll(strings.Join(strings.Fields(text), " "), "|", "/")
	if len(text) > 300 {
		text = strings.ToValidUTF8(text[:300], "") + "…"
	}
	return text
}

const (
	beginMark = "<!-- written by make bench: begin -->"
	endMark   = "<!-- written by make bench: end -->"
)

// splice puts text between the marks of a file.
func splice(name, text string) error {
	before, _, after, err := cut(name)
	if err != nil {
		return err
	}
	return os.WriteFile(name, []byte(before+beginMark+"\n"+text+endMark+after), 0o644)
}

// cut returns the text between the marks of a file, and the texts before and after it.
func cut(name string) (before, text, after string, err error) {
	raw, err := os.ReadFile(name)
	if err != nil {
		return "", "", "", err
	}
	before, rest, ok := strings.Cut(string(raw), beginMark)
	text, after, ok2 := strings.Cut(rest, endMark)
	if !ok || !ok2 {
		return "", "", "", fmt.Errorf(
			"%s has no place for results: it needs a line %s and a line %s", name, beginMark,
			endMark)
	}
	return before, text, after, nil
}
