package html

import (
	"strconv"

	"github.com/layerbuild/layerbuild/analyze"
	"github.com/layerbuild/layerbuild/internal/ui"
	"github.com/layerbuild/layerbuild/internal/units"
)

func (p *page) instructions() {
	r := p.r
	p.table("instructions", "Instructions",
		"What each instruction added to the image, and how much of it is dead."+
			more(len(r.Instructions), maxInstructions, "the first"), p.owners(),
		"s n:#", "s n:Line", "s w:Instruction", "s n:Size", "s n:Live", "s n:Dead",
		"s n:Made dead", "b:Live and dead")
	var largest int64 = 1
	for i := range r.Layers {
		largest = max(largest, r.Layers[i].Bytes)
	}
	for i := range r.Instructions[:min(len(r.Instructions), maxInstructions)] {
		in := &r.Instructions[i]
		p.raw(`<tr role="row" data-owner="`, in.Owner.String(), `">`)
		p.raw(`<td role="cell" class="n" data-v="`, strconv.Itoa(i+1), `" data-label="#">`,
			strconv.Itoa(i+1), `</td>`)
		p.line(in)
		note := ""
		if len(r.Owners) > 1 {
			note = ownerText(in.Owner)
		}
		if in.Stage != "" {
			if note != "" {
				note += " · "
			}
			note += "stage " + escape(in.Stage)
		}
		p.cell("w", "", "<code>"+escape(in.Text)+"</code><small>"+note+"</small>")
		if in.Layer < 0 || in.Layer >= len(r.Layers) {
			for range 4 {
				p.raw(`<td role="cell" class="n" data-v="-1"></td>`)
			}
			p.cell("b", "", "")
			p.raw("</tr>\n")
			continue
		}
		l := &r.Layers[in.Layer]
		p.bytes("", "Size", l.Bytes, p.mapButton(in.Layer))
		p.bytes("", "Live", l.Live, "")
		p.bytes("lost-n", "Dead", l.Dead, compressed(l.DeadCompressed))
		p.bytes("", "Made dead", l.Killed, "")
		p.cell("b", "", bar(in.Owner, l.Live, l.Dead, largest))
		p.raw("</tr>\n")
	}
	p.endTable()
}

func (p *page) line(in *analyze.Instruction) {
	if in.Line == 0 {
		p.raw(`<td role="cell" class="n" data-v="0"></td>`)
		return
	}
	p.raw(`<td role="cell" class="n" data-label="Line" data-v="`, strconv.Itoa(in.Line), `">`,
		strconv.Itoa(in.Line), `</td>`)
}

// mapButton links a layer to its treemap; the script makes it visible.
func (p *page) mapButton(layer int) string {
	if p.viewOf[layer] < 0 {
		return ""
	}
	return ` <button type="button" hidden="" data-view="` + strconv.Itoa(p.viewOf[layer]) +
		`" aria-label="Treemap of layer ` + strconv.Itoa(layer+1) + `">map</button>`
}

// bar draws a layer's size relative to the size of the largest layer.
func bar(o analyze.Owner, live, dead, largest int64) string {
	if live+dead == 0 {
		return ""
	}
	a, b := 100*float64(live)/float64(largest), 100*float64(dead)/float64(largest)
	s := `<svg class="bar" role="img" aria-label="live ` + units.Size(live) + ", dead " +
		units.Size(dead) + `">`
	if live > 0 {
		s += `<rect class="` + o.String() + `" width="` + coord(a) + `%" height="100%" />`
	}
	if dead > 0 {
		s += `<rect fill="url(#hatch)" x="` + coord(a) + `%" width="` + coord(max(b, 1)) +
			`%" height="100%" />`
	}
	return s + "</svg>"
}

// compressed writes the size of the bytes in the blob, below their number.
func compressed(c analyze.Compressed) string {
	if c.Bytes == 0 {
		return ""
	}
	about := ""
	if c.Estimate {
		about = "about "
	}
	return "<small>" + about + units.Size(c.Bytes) + " compressed</small>"
}

func (p *page) findings() {
	r := p.r
	if len(r.Findings) == 0 {
		p.raw("<section><h2>Dead bytes</h2><p>No byte of the image is dead.</p></section>\n")
		return
	}
	why := pick{key: "reason", label: "Why"}
	for _, s := range r.Reasons {
		if s.Reason != analyze.Live {
			why.options = append(why.options, [2]string{s.Reason.String(), s.Reason.Text()})
		}
	}
	p.table("findings", "Dead bytes",
		"Files that are in a layer but not in the final file system, the instruction that added "+
			"each, and how to avoid it."+more(len(r.Findings), maxFindings, "the largest"),
		append([]pick{why}, p.owners()...), "s w:Path", "s n:Bytes", "s:Why", "s w:Created by",
		"s w:Made dead by", "w:Remedy")
	for i := range r.Findings[:min(len(r.Findings), maxFindings)] {
		f := &r.Findings[i]
		p.raw(`<tr role="row" data-reason="`, f.Reason.String(), `" data-owner="`,
			f.Owner.String(), `">`)
		note := ""
		if f.Units > 1 {
			note = "<small>" + strconv.Itoa(f.Units) + " files</small>"
		}
		if f.Accepted {
			note += ` <span class="tag">accepted</span>`
		}
		if len(r.Owners) > 1 && f.Owner != analyze.Own {
			note += ` <span class="tag">` + ownerText(f.Owner) + `</span>`
		}
		p.cell("w path", "", escape(f.Path)+note)
		p.bytes("lost-n", "Bytes", f.Bytes, compressed(f.Compressed))
		p.cell("", "Why", f.Reason.Text())
		p.cell("w", "Created by", p.step(f.Creator))
		p.cell("w", "Made dead by", p.step(f.Killer))
		p.cell("w", "Remedy", escape(f.Remedy))
		p.raw("</tr>\n")
	}
	p.endTable()
}

// step writes a layer's instruction in a cell; it is empty if there is none.
func (p *page) step(layer int) string {
	if layer < 0 || layer >= len(p.r.Layers) {
		return ""
	}
	s := "<small>layer " + strconv.Itoa(layer+1)
	i := p.r.Layers[layer].Instruction
	if i < 0 || i >= len(p.r.Instructions) {
		return s + "</small>"
	}
	in := &p.r.Instructions[i]
	if in.Line > 0 {
		s += ", line " + strconv.Itoa(in.Line)
	}
	return s + "</small><code>" + escape(ui.Cut(ui.Visible(in.Text), 120)) + "</code>"
}

func (p *page) debris() {
	r := p.r
	if len(r.Debris) == 0 {
		return
	}
	kinds := pick{key: "kind", label: "Kind"}
	have := map[analyze.DebrisKind]bool{}
	for i := range r.Debris {
		if k := r.Debris[i].Kind; !have[k] {
			have[k] = true
			kinds.options = append(kinds.options, [2]string{k.String(), debrisText(k)})
		}
	}
	p.table("debris", "Debris",
		"Files that are rarely needed in an image. They are visible, so they are not counted as "+
			"dead. Secrets are listed even if a later layer hides them, because everyone who has "+
			"the image can read them."+
			more(len(r.Debris), maxDebris, "the first"),
		append([]pick{kinds}, p.owners()...), "s:Kind",
		"s w:Path", "s n:Bytes", "s n:Files", "s w:Created by", "w:Remedy")
	for i := range r.Debris[:min(len(r.Debris), maxDebris)] {
		d := &r.Debris[i]
		p.raw(`<tr role="row" data-kind="`, d.Kind.String(), `" data-owner="`,
			d.Owner.String(), `">`)
		class := "tag"
		if d.Kind == analyze.Secret {
			class = "tag bad"
		}
		kind := `<span class="` + class + `">` + debrisText(d.Kind) + `</span>`
		if d.Dead {
			kind += ` <span class="tag bad">hidden, not removed</span>`
		}
		if d.Accepted {
			kind += ` <span class="tag">accepted</span>`
		}
		p.cell("", "", kind)
		p.cell("w path", "", escape(d.Path))
		p.bytes("", "Bytes", d.Bytes, "")
		p.raw(`<td role="cell" class="n" data-label="Files" data-v="`, strconv.Itoa(d.Files), `">`,
			strconv.Itoa(d.Files), `</td>`)
		p.cell("w", "Created by", p.step(d.Layer))
		p.cell("w", "Remedy", escape(d.Remedy))
		p.raw("</tr>\n")
	}
	p.endTable()
}

func debrisText(k analyze.DebrisKind) string {
	switch k {
	case analyze.PackageLists:
		return "package lists and archives"
	case analyze.LanguageCache:
		return "language cache"
	case analyze.VersionControl:
		return "version control"
	case analyze.Logs:
		return "logs"
	case analyze.Bytecode:
		return "bytecode"
	case analyze.CoreFile:
		return "core file"
	case analyze.Secret:
		return "looks like a secret"
	}
	return escape(k.String())
}

// maxPathsShown limits the number of paths in a row.
const maxPathsShown = 6

func (p *page) duplicates() {
	r := p.r
	if len(r.Duplicates) == 0 {
		return
	}
	p.table("duplicates", "Duplicates",
		"The same content at several visible paths that are not links to each other."+
			more(len(r.Duplicates), maxDuplicates, "the first"), p.owners(),
		"s n:Extra bytes", "s n:Size", "s n:Copies", "s w:Paths")
	for i := range r.Duplicates[:min(len(r.Duplicates), maxDuplicates)] {
		d := &r.Duplicates[i]
		p.raw(`<tr role="row" data-owner="`, d.Owner.String(), `">`)
		p.bytes("", "Extra", d.Extra, "")
		p.bytes("", "Size", d.Size, "")
		p.raw(`<td role="cell" class="n" data-label="Copies" data-v="`, strconv.Itoa(d.Copies),
			`">`, strconv.Itoa(d.Copies), `</td><td role="cell" class="w path">`)
		for j, path := range d.Paths[:min(len(d.Paths), maxPathsShown)] {
			if j > 0 {
				p.raw("<br />")
			}
			p.text(path)
		}
		if n := d.Copies - min(len(d.Paths), maxPathsShown); n > 0 {
			p.raw("<small>and ", strconv.Itoa(n), " more</small>")
		}
		p.raw("</td></tr>\n")
	}
	p.endTable()
}

// more writes a note if a table is incomplete.
func more(have, limit int, which string) string {
	if have <= limit {
		return ""
	}
	return " Here are " + which + " " + strconv.Itoa(limit) + " of " + strconv.Itoa(have) +
		"; <code>layerbuild analyze --format json</code> has all."
}

func (p *page) foot() {
	r := p.r
	p.raw("</main>\n<footer>\n")
	if len(r.Warnings) > 0 {
		p.raw("<h2>Warnings</h2><ul>")
		for _, w := range r.Warnings[:min(len(r.Warnings), maxWarnings)] {
			p.raw("<li>", escape(w), "</li>")
		}
		p.raw("</ul>")
		if n := len(r.Warnings) - maxWarnings; n > 0 {
			p.raw("<p>and ", strconv.Itoa(n), " more.</p>")
		}
	}
	p.raw(`<p>Sizes are bytes of file content, uncompressed and exact, each hard link group counted once per layer. Compressed sizes marked “about” are estimates from the layer’s mean compression ratio.`)
	p.raw(` Written by layerbuild analyze.</p>
</footer>
<script type="application/json" id="data">`)
	p.out.Write(appendData(nil, r, p.views))
	p.raw("</script>\n<script>", js, "</script>\n</body>\n</html>\n")
}
