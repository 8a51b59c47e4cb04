package pictures

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// result is the time of one tool in a case of the benchmarks.
type result struct {
	tool  string
	wall  time.Duration
	times string // how many times as long as the first tool; "" for that
}

// benchmark is a table of the section "Each case" of docs/BENCHMARKS.md.
type benchmark struct {
	name    string
	results []result // in the order of the table
}

// benchmarks reads the tables that compare layerbuild with other tools.
func benchmarks(page string) ([]benchmark, error) {
	_, cases, ok := strings.Cut(page, "\n## Each case\n")
	if !ok {
		return nil, fmt.Errorf("there is no section %q", "Each case")
	}
	cases, _, _ = strings.Cut(cases, "\n## ")
	var all []benchmark
	for part := range strings.SplitSeq(cases, "\n### ") {
		name, rest, _ := strings.Cut(part, "\n")
		b := benchmark{name: strings.TrimSpace(name)}
		ratio := -1 // the column
		for line := range strings.Lines(rest) {
			fields := strings.Split(strings.TrimSpace(line), "|")
			if len(fields) < 4 {
				continue
			}
			tool := strings.TrimSpace(fields[1])
			wall, _, _ := strings.Cut(strings.TrimSpace(fields[2]), " (")
			d, err := time.ParseDuration(strings.ReplaceAll(wall, " ", ""))
			if tool == "" { // the head of the table
				ratio = slices.Index(fields, " × wall ")
			}
			if err != nil || tool == "" {
				continue
			}
			r := result{tool: tool, wall: d}
			if ratio > 0 && ratio < len(fields) {
				r.times = strings.TrimSpace(fields[ratio])
			}
			b.results = append(b.results, r)
		}
		if len(b.results) > 1 && b.results[0].tool == "layerbuild" {
			all = append(all, b)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no table compares layerbuild with another tool")
	}
	return all, nil
}

// of returns the result of a tool; the zero value if there is none.
func (b benchmark) of(tool string) result {
	for _, r := range b.results {
		if r.tool == tool {
			return r
		}
	}
	return result{}
}

const (
	chartWidth = 860
	labelWidth = 300
	valueWidth = 130
	barHeight  = 13
	groupGap   = 14
	headHeight = 64
)

// chart draws the time that each tool needs in each case, as bars. The longest bar of a case has
// the full length: cases take from milliseconds to minutes.
func chart(t theme, all []benchmark, tools []string) string {
	group := len(tools)*barHeight + groupGap
	d := start(t, chartWidth, headHeight+len(all)*group+margin,
		"Time of builds with "+strings.Join(tools, ", "))
	fmt.Fprintf(d, `<g font-family="system-ui, sans-serif" font-size="12" fill="%s">`+"\n", t.text)
	fmt.Fprintf(d, `<text x="%d" y="26" font-size="15" font-weight="bold">Wall time, `+
		`less is better</text>`+"\n", margin)
	x := margin
	for i, tool := range tools {
		fmt.Fprintf(d, `<rect x="%d" y="38" width="12" height="12" fill="%s"/>`+
			`<text x="%d" y="49">%s</text>`+"\n", x, t.bars[i], x+18, escape(tool))
		x += 34 + 8*len(tool)
	}
	for i, b := range all {
		y := headHeight + i*group
		fmt.Fprintf(d, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", labelWidth,
			y+(group-groupGap)/2+4, escape(b.name))
		d.bars(b, tools, y)
	}
	d.WriteString("</g>\n")
	return d.end()
}

func (d *drawing) bars(b benchmark, tools []string, y int) {
	var longest time.Duration
	for _, tool := range tools {
		longest = max(longest, b.of(tool).wall)
	}
	const full = chartWidth - labelWidth - valueWidth - margin
	for i, tool := range tools {
		r := b.of(tool)
		if r.wall == 0 {
			continue
		}
		width := max(2, float64(full)*r.wall.Seconds()/longest.Seconds())
		text := short(r.wall)
		if r.times != "" {
			text += ", " + r.times + " ×"
		}
		fmt.Fprintf(d, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`+
			`<text x="%.1f" y="%d" font-size="11" fill="%s">%s</text>`+"\n", labelWidth+10,
			y+i*barHeight, width, barHeight-2, d.theme.bars[i], labelWidth+16+width,
			y+i*barHeight+9, d.theme.dim, escape(text))
	}
}

// short returns a duration with two or three digits.
func short(d time.Duration) string {
	switch {
	case d < time.Second:
		return strconv.FormatFloat(d.Seconds()*1000, 'f', 0, 64) + " ms"
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	default:
		return strconv.FormatFloat(d.Seconds(), 'f', 0, 64) + " s"
	}
}
