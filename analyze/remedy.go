package analyze

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// verbOf returns an instruction's first word, also for a history that BuildKit or docker has
// written.
func verbOf(text string) string {
	text = strings.TrimSpace(text)
	if rest, ok := strings.CutPrefix(text, "/bin/sh -c "); ok {
		rest = strings.TrimSpace(rest)
		if after, ok := strings.CutPrefix(rest, "#(nop)"); ok {
			text = strings.TrimSpace(after)
		} else {
			return "RUN"
		}
	}
	// docker's classic builder writes the number of arguments and the arguments first
	if strings.HasPrefix(text, "|") {
		return "RUN"
	}
	word, _, _ := strings.Cut(text, " ")
	return strings.ToUpper(word)
}

// At names an instruction within a sentence: "line 4", or its beginning if its lines are not
// known.
func (i *Instruction) At() string {
	if i.Line > 0 {
		if i.EndLine > i.Line {
			return fmt.Sprintf("lines %d-%d", i.Line, i.EndLine)
		}
		return fmt.Sprintf("line %d", i.Line)
	}
	return "‘" + shorten(i.Text, 40) + "’"
}

func shorten(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// Made returns the instruction that made a layer.
func (r *Report) Made(layer int) *Instruction {
	return &r.Instructions[r.Layers[layer].Instruction]
}

// Remedies are edits of the Dockerfile in fixed wording, so that they can be applied literally:
//
//	use RUN --mount=… at line 4 and line 6      give these RUNs the mount
//	add --FLAG to the COPY at line 3
//	leave out the COPY at line 3                the whole instruction
//	leave out ‘rm -rf /x’ at line 5             one command of a RUN
//	write ‘NEW’ instead of ‘OLD’ at line 5
//	join the RUNs of line 3 and line 5          with && in the place of the last one
//	begin the RUN at line 3 with ‘COMMAND &&’
//	append ‘&& COMMAND’ to the RUN at line 3
//	move the COPY at line 3 to a stage of its own: ‘FROM scratch AS copied’ …
//	add ‘PATTERN’ to .dockerignore
//
// They are joined by "; ". Any other remedy is advice: where no edit is certain to be right, it
// tells the user what to change and at which line.

// ats names several instructions: "line 3, line 4 and line 6".
func ats(list []*Instruction) string {
	var s []string
	for _, i := range list {
		s = append(s, i.At())
	}
	if n := len(s); n > 1 {
		return strings.Join(s[:n-1], ", ") + " and " + s[n-1]
	}
	return strings.Join(s, "")
}

// remedy returns the change that avoids a finding, as exactly as it can be determined.
func (r *Report) remedy(f *Finding) string {
	made, gone := r.Made(f.Creator), r.Made(f.Killer)
	switch {
	case f.Owner == BaseImage && (f.Creator == f.Killer || r.Layers[f.Killer].Owner == BaseImage):
		return "the base image has this waste: name a newer or smaller image in FROM"
	case f.Owner == BaseImage:
		return fmt.Sprintf("%s hides files of the base image, which frees nothing: name a smaller "+
			"image in FROM, or begin with ‘FROM scratch’ and take the files that the image needs "+
			"with COPY --from=%s", gone.At(), cmp.Or(r.Base.Name, "BASE"))
	case f.Creator == f.Killer:
		return "the layer has the path twice: build the image with a program that writes each " +
			"path once, such as layerbuild"
	case made.Stage != gone.Stage || made.Owner != gone.Owner:
		return r.stageRemedy(f)
	}
	if !plain(f.Path) {
		return r.newCure(f).withoutPath()
	}
	c := r.newCure(f)
	ranMade, ranGone := verbOf(made.Text) == "RUN", verbOf(gone.Text) == "RUN"
	copiedMade, copiedGone := copies(made), copies(gone)
	switch {
	case f.Reason == RewrittenMetadata && copiedMade && ranGone:
		return c.meta()
	case copiedMade && copiedGone:
		return c.each((*cure).copyTwice)
	case ranMade && copiedGone:
		return c.each((*cure).runThenCopy)
	case copiedMade && ranGone && (f.Reason == RewrittenSame || f.Reason == RewrittenTime):
		return c.rewritten()
	case copiedMade && ranGone && f.Reason == Overwritten:
		return fmt.Sprintf("change %[1]s before the build; or move the %[2]s at %[3]s and the "+
			"RUN at %[4]s to a new stage with the same FROM and the name changed, and write "+
			"‘COPY --from=changed %[1]s %[1]s’ in their place", f.Path, verbOf(made.Text),
			made.At(), gone.At())
	case copiedMade && ranGone:
		return c.each((*cure).copyThenRun)
	case ranMade && ranGone && cacheMount(f.Path) != "":
		return c.cache(cacheMount(f.Path))
	case ranMade && ranGone:
		return c.join()
	}
	return c.withoutPath()
}

// withoutPath returns the advice for a finding whose path cannot be written in an edit, or whose
// instructions are not of the usual kinds.
func (c cure) withoutPath() string {
	switch {
	case copies(c.made) && c.whole():
		return fmt.Sprintf("remove the %s at %s, because %s removes or replaces what it copies%s",
			verbOf(c.made.Text), c.made.At(), c.gone.At(), c.mountInstead())
	case copies(c.made):
		return c.copyLess("that path")
	case verbOf(c.made.Text) == "RUN" && verbOf(c.gone.Text) == "RUN":
		return fmt.Sprintf("write the commands of %s in one RUN, which creates and removes it",
			ats(append([]*Instruction{c.made}, c.between()...)))
	}
	return fmt.Sprintf("%s creates it, and %s removes or replaces it: create, use and remove it "+
		"in one RUN instead", c.made.At(), c.gone.At())
}

// copyLess returns the advice for a COPY that should not copy something.
func (c *cure) copyLess(what string) string {
	return fmt.Sprintf("copy only the files that stay after %s: name them at %s, or exclude %s "+
		"there with --exclude=PATTERN%s", c.gone.At(), c.made.At(), what, c.mountInstead())
}

// mountInstead returns the end of the advice to copy less, for RUNs that may read the files.
func (c *cure) mountInstead() string {
	runs := c.between()
	if len(runs) == 0 || len(runs) == 1 && runs[0] == c.gone {
		return ""
	}
	return "; a RUN that reads the other files needs --mount=type=bind,source=FILE,target=PATH"
}

// isAdvice reports whether the remedy of one path, as those that cure.each collects, is no edit.
func isAdvice(remedy string) bool {
	for _, begin := range []string{"copy ", "end ", "write the commands "} {
		if strings.HasPrefix(remedy, begin) {
			return true
		}
	}
	return false
}

// plain reports whether paths need no quotes in a shell command, in the value of --mount and in
// a pattern. Remedies for other paths would need several kinds of quotes, so they are advice in
// words.
func plain(paths ...string) bool {
	return !slices.ContainsFunc(paths, func(p string) bool {
		return strings.ContainsFunc(p, func(c rune) bool {
			return c >= utf8.RuneSelf || !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' ||
				'0' <= c && c <= '9' || strings.ContainsRune("/._-+@%:=", c))
		})
	})
}

// copies reports whether an instruction is a COPY or an ADD.
func copies(i *Instruction) bool { return verbOf(i.Text) == "COPY" || verbOf(i.Text) == "ADD" }

// cure finds the remedy of one finding whose creator and killer are of one stage.
type cure struct {
	r          *Report
	f          *Finding
	made, gone *Instruction
	path       string // without a slash at its end
	node       int32

	// paths are the dead paths of a finding in a directory that also has other files. This cure is
	// for one of them. all is set if the creator made no other paths.
	paths []string
	all   bool
}

// newCure returns the cure of a finding.
func (r *Report) newCure(f *Finding) cure {
	c := cure{r: r, f: f, made: r.Made(f.Creator), gone: r.Made(f.Killer),
		path: strings.TrimSuffix(f.Path, "/")}
	if n := r.Tree.Find(c.path); n != nil {
		c.node = n.id
	}
	return c
}

// each returns the remedy of a finding. If its path is a directory in which other files must stay,
// it returns one remedy for each dead file.
func (c *cure) each(remedy func(*cure) string) string {
	if !strings.HasSuffix(c.f.Path, "/") || c.r.Tree.onlyDirs(c.node, c.f.Killer) {
		return remedy(c)
	}
	advice := c.copyLess("the others of " + c.f.Path)
	if !copies(c.made) {
		advice = fmt.Sprintf("end the RUN at %s with an rm of the files that %s replaces, or put "+
			"the %s at %s before that RUN", c.made.At(), c.gone.At(), verbOf(c.gone.Text),
			c.gone.At())
	}
	sub := *c
	sub.all = c.whole()
	var nodes []int32
	for _, i := range c.r.byLayer().units[c.f.Creator] {
		if u := &c.r.Units[i]; int(u.Killer) == c.f.Killer && u.Reason == c.f.Reason &&
			u.Bytes > 0 && c.r.Tree.under(u.Node, c.node) {
			nodes = append(nodes, u.Node)
			sub.paths = append(sub.paths, c.r.Tree.Path(c.r.Tree.Node(u.Node)))
		}
	}
	if len(nodes) > maxKept || !plain(sub.paths...) {
		return advice
	}
	var edits []string
	written := 0
	for i, n := range nodes {
		one := sub
		one.node, one.path = n, sub.paths[i]
		for edit := range strings.SplitSeq(remedy(&one), "; ") {
			switch {
			case isAdvice(edit):
				return advice
			case slices.Contains(edits, edit):
				continue
			case strings.HasPrefix(edit, "write ‘") && strings.HasSuffix(edit, " at "+c.made.At()):
				written++
			}
			edits = append(edits, edit)
		}
	}
	if written > 1 { // each of them repeats the COPY without one file
		return advice
	}
	return strings.Join(edits, "; ")
}

// onlyDirs reports whether there are only directories at and below a node after a layer.
func (t *Tree) onlyDirs(n int32, layer int) bool {
	node := &t.nodes[n]
	if f := t.At(node, layer); f != nil && f.Type != Dir {
		return false
	}
	for c := range t.Children(node) {
		if !t.onlyDirs(c.id, layer) {
			return false
		}
	}
	return true
}

// layerIndex holds the contents of layers, for remedies.
type layerIndex struct {
	units [][]int32       // by layer
	links []bool          // whether a layer has a visible file without content, besides directories
	stage []string        // visible files of earlier stages
	both  map[[2]int]bool // pairs of layers that have the same path, the lower one first
}

// byLayer returns the index, which is made at the first call.
func (r *Report) byLayer() *layerIndex {
	if r.layerIndex != nil {
		return r.layerIndex
	}
	x := &layerIndex{units: make([][]int32, len(r.Layers)), links: make([]bool, len(r.Layers)),
		both: map[[2]int]bool{}}
	r.layerIndex = x
	for i := range r.Units {
		x.units[r.Units[i].Layer] = append(x.units[r.Units[i].Layer], int32(i))
	}
	for i := range r.Tree.nodes {
		n := &r.Tree.nodes[i]
		x.pairs(r.Tree, n)
		if n.cur == 0 {
			continue
		}
		f := &r.Tree.files[n.cur-1]
		if f.Type == Dir {
			continue
		}
		layer := f.Layer
		if f.Unit >= 0 {
			layer = r.Units[f.Unit].Layer
		} else {
			x.links[layer] = true
		}
		if r.Layers[layer].Owner == EarlierStage && len(x.stage) <= maxKept {
			x.stage = append(x.stage, r.Tree.Path(n))
		}
	}
	slices.Sort(x.stage)
	return x
}

// pairs adds the pairs of layers that both change a node. A layer that only adds to a directory is
// in a pair with the layer that made the directory, and with no other.
func (x *layerIndex) pairs(t *Tree, n *Node) {
	if n.parent < 0 {
		return // the root is there before the first layer
	}
	var layers []int
	made := -1 // the layer that made the node a directory, if it is one
	for f := range t.Files(n) {
		layer := int(f.Layer)
		if made >= 0 && f.Type == Dir {
			x.both[[2]int{made, layer}] = true
			continue
		}
		for _, l := range layers {
			x.both[[2]int{l, layer}] = true
		}
		layers = append(layers, layer)
		if made = -1; f.Type == Dir {
			made = layer
		}
	}
}

// maxKept is the largest number of files of an earlier stage that a remedy names individually.
const maxKept = 8

// under reports whether a node is top or below it.
func (t *Tree) under(n, top int32) bool {
	for ; n > top; n = t.nodes[n].parent { // parents have lower numbers
	}
	return n == top
}

// each calls f for a node and all nodes below it.
func (t *Tree) each(n *Node, f func(*Node)) {
	f(n)
	for c := range t.Children(n) {
		t.each(c, f)
	}
}

// between returns the RUNs after the creator, up to the killer.
func (c *cure) between() (runs []*Instruction) {
	for i := c.r.Layers[c.f.Creator].Instruction + 1; i <= c.r.Layers[c.f.Killer].Instruction; i++ {
		if ins := &c.r.Instructions[i]; verbOf(ins.Text) == "RUN" {
			runs = append(runs, ins)
		}
	}
	return runs
}

// whole reports whether this finding has all files of the creator, so that its instruction can be
// removed.
func (c *cure) whole() bool {
	if c.all {
		return true
	}
	for _, i := range c.r.byLayer().units[c.f.Creator] {
		if u := &c.r.Units[i]; int(u.Killer) != c.f.Killer || !c.r.Tree.under(u.Node, c.node) {
			return false
		}
	}
	return !c.r.byLayer().links[c.f.Creator]
}

// plainCommands are commands that read only the files that their arguments name.
var plainCommands = []string{"echo", "printf", "true", "mkdir", "rm", "ln", "touch", "chmod",
	"chown", "useradd", "groupadd", "adduser", "addgroup", "apt-get", "apk"}

// unrelated reports whether a RUN certainly does not need the path. Any program may read any file,
// so this holds only for a few commands.
func (c *cure) unrelated(i *Instruction) bool {
	p := parseInstruction(i.Text)
	list, ok := p.commands()
	if !ok || strings.ContainsAny(i.Text, "*?[") || strings.Contains(i.Text, path.Base(c.path)) {
		return false
	}
	return !slices.ContainsFunc(list, func(cmd command) bool {
		name, args := cmd.applet()
		return !slices.Contains(plainCommands, name) ||
			slices.ContainsFunc(args, func(a string) bool { return concerns(a, "/", c.path) })
	})
}

// writes reports whether a layer after the creator's and up to the killer's wrote a file at or
// below the path.
func (c *cure) writes() bool {
	last := c.f.Killer
	if copies(c.gone) {
		last--
	}
	for l := c.f.Creator + 1; l <= last; l++ {
		for _, i := range c.r.byLayer().units[l] {
			if c.r.Tree.under(c.r.Units[i].Node, c.node) {
				return true
			}
		}
	}
	return false
}

// without returns the edits that remove the commands with the given names that concern the path
// from the killer. all reports that no command remains, and ok that such commands exist and can
// be separated from the others.
func (c *cure) without(path string, names ...string) (edits []string, all, ok bool) {
	p := parseInstruction(c.gone.Text)
	list, ok := p.commands()
	if !ok {
		return nil, false, false
	}
	cwd := c.r.workdir(c.r.Layers[c.f.Killer].Instruction)
	left, found := len(list), map[string]bool{}
	for _, cmd := range list {
		name, _ := cmd.applet()
		if !slices.Contains(names, name) {
			continue
		}
		operands := cmd.operands()
		if name == "chmod" || name == "chown" || name == "chgrp" {
			operands = operands[min(1, len(operands)):]
		}
		mine := slices.DeleteFunc(slices.Clone(operands),
			func(o string) bool { return !c.mine(o, cwd, path) })
		for _, o := range mine {
			found[absolute(o, cwd)] = true
		}
		switch {
		case len(mine) == 0:
			continue
		case len(mine) == len(operands):
			edits = append(edits, fmt.Sprintf("leave out ‘%s’ at %s", cmd.text, c.gone.At()))
			left--
		case p.json:
			return nil, false, false
		default:
			kept := slices.DeleteFunc(strings.Fields(cmd.text),
				func(w string) bool { return slices.Contains(mine, strings.Trim(w, `'"`)) })
			edits = append(edits, fmt.Sprintf("write ‘%s’ instead of ‘%s’ at %s",
				strings.Join(kept, " "), cmd.text, c.gone.At()))
		}
	}
	for _, p := range c.paths {
		if !found[p] {
			return nil, false, false
		}
	}
	if left == 0 {
		edits = []string{fmt.Sprintf("leave out the RUN at %s", c.gone.At())}
	}
	return edits, left == 0, len(edits) > 0
}

// mine reports whether an operand of a command concerns the path. If the cure has several paths,
// the operand must name exactly this one.
func (c *cure) mine(operand, cwd, p string) bool {
	if c.paths != nil {
		return slices.Contains(c.paths, absolute(operand, cwd))
	}
	return concerns(operand, cwd, p)
}

// absolute returns an operand as an absolute path.
func absolute(operand, cwd string) string {
	if !strings.HasPrefix(operand, "/") {
		operand = cwd + "/" + operand
	}
	return path.Clean(operand)
}

// copyThenRun returns the remedy for a path that was copied and that a RUN removed.
func (c *cure) copyThenRun() string {
	removal, all, removes := c.without(c.path, "rm", "unlink", "rmdir")
	if !removes {
		if s := c.moved(); s != "" {
			return s
		}
	}
	users := c.between()
	if all {
		users = slices.DeleteFunc(users, func(i *Instruction) bool { return i == c.gone })
	}
	users = slices.DeleteFunc(users, c.unrelated)
	what, known := c.r.copied(c.r.Layers[c.f.Creator].Instruction)
	verb := what.verb
	edits, leaves := c.withoutIt(what, known)
	if len(users) == 0 {
		if !leaves {
			return c.copyLess(c.f.Path)
		}
		return strings.Join(append(edits, removal...), "; ")
	}
	source, sure := c.r.source(what, c.f.Creator, c.path)
	_, mode := what.flag("chmod")
	_, owner := what.flag("chown")
	number, _ := what.flag("from")
	if _, err := strconv.Atoi(number); err == nil {
		sure = false // a mount accepts a stage only by its name
	}
	if !known || !sure || mode || owner {
		return c.ownStage(what, users, removal)
	}
	from, ok := what.flag("from")
	if ok {
		from = "from=" + from + ","
	}
	if !removes && !copies(c.gone) && !c.r.there(c.f.Killer, c.path) {
		return c.bindElsewhere(edits, leaves, from, source, users)
	}
	rw := ""
	if !removes && !copies(c.gone) || c.writes() {
		// the RUN's writes to the mount are discarded; without the remedy, a later RUN removes the
		// files
		rw = ",rw"
	}
	mount := fmt.Sprintf("RUN --mount=type=bind,%ssource=%s,target=%s%s", from, source, c.path, rw)
	if rw != "" && len(users) > 1 && c.writes() {
		edits = append(edits, c.joined(users),
			fmt.Sprintf("use %s at %s", mount, users[len(users)-1].At()))
		return strings.Join(append(edits, removal...), "; ")
	}
	if c.whole() {
		edits[0] = fmt.Sprintf("use %s at %s instead of the %s at %s", mount,
			ats(users), verb, c.made.At())
	} else {
		edits = append([]string{fmt.Sprintf("use %s at %s", mount, ats(users))}, edits...)
		if !leaves {
			edits = append(edits, fmt.Sprintf("leave %s out of the %s at %s",
				c.f.Path, verb, c.made.At()))
		}
	}
	return strings.Join(append(edits, removal...), "; ")
}

// withoutIt removes the path from the COPY that made it, or the whole COPY. leaves reports whether
// an edit can do so.
func (c *cure) withoutIt(what copied, known bool) (edits []string, leaves bool) {
	switch exclude, ok := c.exclude(what, known, c.f.Creator); {
	case c.whole():
		return []string{fmt.Sprintf("leave out the %s at %s", what.verb, c.made.At())}, true
	case ok:
		return []string{fmt.Sprintf("add --exclude=%s to the %s at %s", exclude,
			what.verb, c.made.At())}, true
	case known && len(what.sources) > 1 && !what.json:
		edits = c.fewer(what)
		return edits, edits != nil
	}
	return nil, false
}

// bindElsewhere returns the remedy for a RUN that must keep the command that removes the path. A
// command cannot remove a mount, so the RUN copies the files from a mount elsewhere to the path.
func (c *cure) bindElsewhere(edits []string, leaves bool, from, source string,
	users []*Instruction) string {
	mnt := "/mnt/" + path.Base(c.path)
	mount := fmt.Sprintf("RUN --mount=type=bind,%ssource=%s,target=%s", from, source, mnt)
	begin := fmt.Sprintf("mkdir -p %s && cp -a %s %s &&", path.Dir(c.path), mnt, c.path)
	if !leaves || slices.ContainsFunc(users, func(i *Instruction) bool { return !appendable(i) }) {
		return fmt.Sprintf("copy %s in the RUN that removes it: write ‘%s %s COMMANDS’ instead "+
			"of %s, with the commands of %s for COMMANDS, and do not copy it at %s", c.path, mount,
			begin, ats(users), ats(users), c.made.At())
	}
	at := users[len(users)-1].At()
	if len(users) > 1 {
		edits = append(edits, c.joined(users))
	}
	return strings.Join(append(edits, fmt.Sprintf("use %s at %s", mount, at),
		fmt.Sprintf("begin the RUN at %s with ‘%s’", at, begin)), "; ")
}

// exclude returns the pattern that excludes the path from the COPY of directories that made a
// layer.
func (c *cure) exclude(what copied, known bool, layer int) (string, bool) {
	if !known || what.verb != "COPY" || strings.ContainsAny(strings.Join(what.sources, ""),
		"*?[") || c.path == what.dest || !within(c.path, what.dest) {
		return "", false
	}
	rel := strings.TrimPrefix(strings.TrimPrefix(c.path, what.dest), "/")
	if len(what.sources) > 1 {
		// The source must be a directory: the pattern does not apply to a named file.
		source, ok := c.r.source(what, layer, c.path)
		return rel, ok && !strings.ContainsAny(rel, `*?[]!\ `) &&
			slices.ContainsFunc(what.sources, func(s string) bool {
				return strings.TrimPrefix(path.Clean("/"+s)+"/"+rel,
					"/") == strings.TrimPrefix(source, "/")
			})
	}
	return rel, !strings.ContainsAny(rel, `*?[]!\ `) &&
		!(what.destDir && rel == path.Base(path.Clean("/"+what.sources[0])) &&
			c.r.others(layer, what.dest, c.path) == 0)
}

// fewer returns the edit that removes one file from a COPY of several.
func (c *cure) fewer(what copied) []string {
	left := slices.DeleteFunc(slices.Clone(what.sources), func(s string) bool {
		return !strings.ContainsAny(s, "*?[") &&
			path.Join(what.dest, path.Base(path.Clean("/"+s))) == c.path
	})
	if len(left) != len(what.sources)-1 || len(left) == 0 {
		return nil
	}
	dest := what.args[len(what.args)-1]
	return []string{fmt.Sprintf("write ‘%s’ instead of ‘%s’ at %s",
		strings.Join(append(left, dest), " "), what.rest, c.made.At())}
}

// moved returns the remedy for a RUN that only renames copied files.
func (c *cure) moved() string {
	what, ok := c.r.copied(c.r.Layers[c.f.Creator].Instruction)
	p := parseInstruction(c.gone.Text)
	list, simple := p.commands()
	if !ok || !simple || !c.whole() || what.json || len(what.sources) != 1 || what.destDir ||
		what.dest != c.path || len(c.between()) > 1 {
		return ""
	}
	for _, cmd := range list {
		name, _ := cmd.applet()
		operands := cmd.operands()
		if name != "mv" || len(operands) != 2 || path.Clean(operands[0]) != c.path ||
			!strings.HasPrefix(operands[1], "/") {
			continue
		}
		dest := operands[1]
		if c.r.dirIn(c.f.Killer-1, path.Clean(dest)) {
			dest = path.Join(dest, path.Base(c.path))
		}
		edit := fmt.Sprintf("write ‘%s %s’ instead of ‘%s’ at %s", what.sources[0], dest,
			what.rest, c.made.At())
		if len(list) == 1 {
			return edit + fmt.Sprintf("; leave out the RUN at %s", c.gone.At())
		}
		return edit + fmt.Sprintf("; leave out ‘%s’ at %s", cmd.text, c.gone.At())
	}
	return ""
}

// ownStage returns the remedy for a COPY or an ADD whose files have no source that a mount could
// name: the instruction is moved to a stage of its own, and the stage is mounted.
func (c *cure) ownStage(what copied, users []*Instruction, removal []string) string {
	at := c.r.Layers[c.f.Creator].Instruction
	name := "copied"
	for slices.ContainsFunc(c.r.Instructions, func(i Instruction) bool { return i.Stage == name }) {
		name += "2"
	}
	stage := []string{"‘FROM scratch AS " + name + "’"}
	for _, ins := range c.r.Instructions[:at] {
		if v := verbOf(ins.Text); (v == "ARG" || v == "ENV") && ins.Stage == c.made.Stage &&
			ins.Owner == c.made.Owner && strings.Contains(what.rest, "$") {
			stage = append(stage, "‘"+ins.Text+"’")
		}
	}
	if n := len(what.args); n > 0 && !strings.HasPrefix(what.args[n-1], "/") &&
		!strings.HasPrefix(what.args[n-1], "$") {
		if cwd := c.r.workdir(at); cwd != "" {
			stage = append(stage, "‘WORKDIR "+cwd+"’")
		}
	}
	_, _, removes := c.without(c.path, "rm", "unlink", "rmdir")
	move := fmt.Sprintf("move the %s at %s to a stage of its own: %s", what.verb, c.made.At(),
		strings.Join(stage, ", "))
	if c.whole() && !removes && !copies(c.gone) && !c.r.there(c.f.Killer, c.path) {
		return c.bindElsewhere([]string{move}, true, "from="+name+",", c.path, users)
	}
	rw := ""
	if !removes || c.writes() {
		rw = ",rw"
	}
	if !c.whole() {
		return fmt.Sprintf("copy only %s in a new stage before this one, ‘FROM scratch AS %s’; "+
			"copy the other files at %s; use RUN --mount=type=bind,from=%s,source=%s,target=%s%s "+
			"at %s",
			c.f.Path, name, c.made.At(), name, c.path, c.path, rw, ats(users))
	}
	edits := []string{
		move,
		fmt.Sprintf("use RUN --mount=type=bind,from=%s,source=%s,target=%s%s at %s", name, c.path,
			c.path, rw, ats(users)),
	}
	return strings.Join(append(edits, removal...), "; ")
}

// copyTwice returns the remedy for a path that was copied twice.
func (c *cure) copyTwice() string {
	first, known := c.r.copied(c.r.Layers[c.f.Creator].Instruction)
	if c.f.Reason == RewrittenSame || c.f.Reason == RewrittenTime {
		// Instructions before the second COPY need the first one.
		second, ok := c.r.copied(c.r.Layers[c.f.Killer].Instruction)
		if c.r.Layers[c.f.Killer].Units == c.f.Units {
			return fmt.Sprintf("leave out the %s at %s", second.verb, c.gone.At())
		}
		if exclude, can := c.exclude(second, ok, c.f.Killer); can {
			return fmt.Sprintf("add --exclude=%s to the %s at %s", exclude,
				second.verb, c.gone.At())
		}
		return fmt.Sprintf("copy %s only at %s: name the other files at %s, or add "+
			"--exclude=PATTERN there", c.f.Path, c.made.At(), c.gone.At())
	}
	if len(c.between()) > 0 {
		return c.copyThenRun()
	}
	if c.whole() {
		return fmt.Sprintf("leave out the %s at %s", first.verb, c.made.At())
	}
	if exclude, can := c.exclude(first, known, c.f.Creator); can {
		return fmt.Sprintf("add --exclude=%s to the %s at %s", exclude, first.verb, c.made.At())
	}
	if known && len(first.sources) > 1 && !first.json {
		if edits := c.fewer(first); edits != nil {
			return edits[0]
		}
	}
	return c.copyLess(c.f.Path)
}

// runThenCopy returns the remedy for a path that a RUN made and a COPY replaces.
func (c *cure) runThenCopy() string {
	runs := c.between()
	switch {
	case len(runs) == 0 && appendable(c.made):
		return fmt.Sprintf("append ‘&& rm -rf %s’ to the RUN at %s", c.path, c.made.At())
	case len(runs) == 0:
		return fmt.Sprintf("end the RUN at %s with ‘rm -rf %s’, because %s replaces it",
			c.made.At(), c.path, c.gone.At())
	}
	return fmt.Sprintf("write the commands of %s in one RUN that ends with ‘rm -rf %s’, because "+
		"%s replaces it", ats(append([]*Instruction{c.made}, runs...)), c.path, c.gone.At())
}

// rewritten returns the remedy for a RUN that rewrites a copied file with the same content and
// changes at most its time.
func (c *cure) rewritten() string {
	if edits, _, ok := c.without(c.path, "touch", "cp"); ok {
		return strings.Join(edits, "; ")
	}
	return fmt.Sprintf("remove the command of %s that writes %s again: its content stays the same",
		c.gone.At(), c.f.Path)
}

// meta returns the remedy for a copied path that got another mode or owner.
func (c *cure) meta() string {
	advice := fmt.Sprintf("set the mode and the owner with --chmod=MODE --chown=USER:GROUP of "+
		"the %s at %s, and remove the chmod and chown of %s at %s", verbOf(c.made.Text),
		c.made.At(), c.f.Path, c.gone.At())
	removal, _, ok := c.without(c.path, "chmod", "chown", "chgrp")
	flags, can := c.metaFlags()
	if !ok || !can || !c.whole() || len(c.between()) > 1 {
		return advice
	}
	dirs := c.dirsChanged()
	if len(dirs) > 0 {
		if removal = c.onlyDirs(dirs); removal == nil {
			return advice
		}
	}
	edits := []string{fmt.Sprintf("add %s to the %s at %s", strings.Join(flags, " "),
		verbOf(c.made.Text), c.made.At())}
	return strings.Join(append(edits, removal...), "; ")
}

// dirsChanged returns the directories at and below the path that existed before the COPY and got
// another mode or owner together with the files. The flags of the COPY do not reach them.
func (c *cure) dirsChanged() (dirs []string) {
	c.r.Tree.each(c.r.Tree.Node(c.node), func(n *Node) {
		before, now := c.r.Tree.At(n, c.f.Creator-1), c.r.Tree.At(n, c.f.Killer)
		if before != nil && now != nil && before.Type == Dir && now.Type == Dir &&
			!sameMeta(before, now) {
			dirs = append(dirs, c.r.Tree.Path(n))
		}
	})
	return dirs
}

// onlyDirs rewrites chmod and chown of a RUN so that they concern directories only, each by its
// name. It returns nil if that is not possible.
func (c *cure) onlyDirs(dirs []string) (edits []string) {
	p := parseInstruction(c.gone.Text)
	list, ok := p.commands()
	if !ok || p.json || len(dirs) > maxKept {
		return nil
	}
	for _, cmd := range list {
		name, _ := cmd.applet()
		operands := cmd.operands()
		if (name == "chmod" || name == "chown" || name == "chgrp") && len(operands) == 2 {
			edits = append(edits, fmt.Sprintf("write ‘%s %s %s’ instead of ‘%s’ at %s", name,
				operands[0], strings.Join(dirs, " "), cmd.text, c.gone.At()))
		}
	}
	return edits
}

// metaFlags returns the flags with which a COPY sets modes and owners as the killer does. All
// files must have the same mode and owner, and so must all directories.
func (c *cure) metaFlags() (flags []string, ok bool) {
	p := parseInstruction(c.made.Text)
	if _, has := p.flag("chmod"); has {
		return nil, false
	}
	if _, has := p.flag("chown"); has {
		return nil, false
	}
	modes, owners := map[uint16]bool{}, map[[2]uint32]bool{}
	var chmod, chown bool
	c.r.Tree.each(c.r.Tree.Node(c.node), func(n *Node) {
		var was *File
		for f := range c.r.Tree.Files(n) {
			if int(f.Layer) == c.f.Creator && f.Type != Gone && !f.Implied {
				was = f
			}
		}
		now := c.r.Tree.At(n, c.f.Killer)
		if was == nil || now == nil || was.Type == Symlink {
			return
		}
		if before := c.r.Tree.At(n, c.f.Creator-1); was.Type == Dir &&
			before != nil && before.Type == Dir {
			return // not made by the COPY
		}
		modes[now.Mode], owners[[2]uint32{now.UID, now.GID}] = true, true
		chmod = chmod || was.Mode != now.Mode
		chown = chown || was.UID != now.UID || was.GID != now.GID
	})
	if chmod {
		if len(modes) != 1 {
			return nil, false
		}
		for m := range modes {
			flags = append(flags, fmt.Sprintf("--chmod=%04o", m))
		}
	}
	if chown {
		if len(owners) != 1 {
			return nil, false
		}
		for o := range owners {
			flags = append(flags, fmt.Sprintf("--chown=%d:%d", o[0], o[1]))
		}
	}
	return flags, len(flags) > 0
}

// cache returns the remedy for files of a cache that one RUN left and another removed. The RUNs
// in between may need them.
func (c *cure) cache(dir string) string {
	removal, all, _ := c.without(dir, "rm")
	runs := append([]*Instruction{c.made}, c.between()...)
	if all {
		runs = slices.DeleteFunc(runs, func(i *Instruction) bool { return i == c.gone })
	}
	edits := []string{fmt.Sprintf("use RUN --mount=type=cache,target=%s at %s", dir, ats(runs))}
	return strings.Join(append(edits, removal...), "; ")
}

// join returns the remedy for files that one RUN made and another removed.
func (c *cure) join() string {
	runs := append([]*Instruction{c.made}, c.between()...)
	if c.changes(runs) != nil {
		return c.joined(runs)
	}
	return c.joined(runs) + ", so that it is removed in the layer that creates it"
}

// joined returns the edit that puts RUNs into one, in the place of the last; or advice, if their
// commands cannot be joined with && as they are.
func (c *cure) joined(runs []*Instruction) string {
	if changes := c.changes(runs); changes != nil {
		return fmt.Sprintf("write the commands of %s in one RUN, in the place of the last; %s",
			ats(runs), strings.Join(changes, "; "))
	}
	return fmt.Sprintf("join the RUNs of %s", ats(runs))
}

// changes returns what to change so that the commands of several RUNs have the same effect in the
// place of the last one; nil if nothing.
func (c *cure) changes(runs []*Instruction) (changes []string) {
	last := runs[len(runs)-1]
	var flags, forms, state []*Instruction
	for _, run := range runs {
		p := parseInstruction(run.Text)
		if len(p.flags) > 0 {
			flags = append(flags, run)
		}
		if p.json || p.heredoc {
			forms = append(forms, run)
		} else if run != last && p.lasts() {
			state = append(state, run)
		}
	}
	if flags != nil {
		changes = append(changes, "give it the flags of "+ats(flags))
	}
	if forms != nil {
		changes = append(changes, fmt.Sprintf("write those of %s for the shell", ats(forms)))
	}
	if state != nil {
		changes = append(changes, fmt.Sprintf("put those of %s in parentheses, since they change "+
			"the shell that runs them, or do not end as a command does", ats(state)))
	}
	var before []*Instruction
	for i := range c.r.Instructions {
		ins := &c.r.Instructions[i]
		if ins == last {
			break
		}
		if slices.Contains(runs, ins) {
			before = append(before, ins)
		}
		if before == nil {
			continue
		}
		switch verb := verbOf(ins.Text); verb {
		case "WORKDIR":
			changes = append(changes, fmt.Sprintf("put ‘cd %s &&’ before those after %s",
				operand(ins, "DIR"), ins.At()))
		case "USER":
			changes = append(changes, fmt.Sprintf(
				"run those after %s as user %s, for example with su",
				ins.At(), operand(ins, "USER")))
		case "SHELL":
			changes = append(changes, fmt.Sprintf("run those after %s with its shell", ins.At()))
		case "COPY", "ADD":
			both := slices.DeleteFunc(slices.Clone(before), func(run *Instruction) bool {
				return !c.r.byLayer().both[[2]int{run.Layer, ins.Layer}]
			})
			if len(both) > 0 {
				changes = append(changes, fmt.Sprintf("keep %s before the %s at %s, which changes "+
					"the same files", ats(both), verb, ins.At()))
			}
		}
	}
	return changes
}

// lasts reports whether a RUN may have an effect on the commands that are put after it with &&: it
// changes the directory, variables or options of its shell, or does not end as a command does.
func (p *parsed) lasts() bool {
	if p.open() {
		return true
	}
	for part := range strings.FieldsFuncSeq(p.rest, func(r rune) bool {
		return strings.ContainsRune(";&|(){}`\n", r)
	}) {
		words := strings.Fields(part)
		for len(words) > 0 && slices.Contains(shellKeywords, words[0]) {
			words = words[1:]
		}
		variables := 0
		for variables < len(words) && isAssignment(words[variables]) {
			variables++
		}
		switch {
		case len(words) == 0:
		case variables == len(words), slices.Contains(shellState, words[variables]):
			return true
		}
	}
	return false
}

// open reports whether && may not follow the text of a RUN: it ends with a separator or a comment.
func (p *parsed) open() bool {
	text := strings.TrimSpace(p.rest)
	return strings.ContainsAny(text[max(len(text)-1, 0):], `;&\`) ||
		strings.Contains(" "+text, " #")
}

// shellKeywords are words before a command.
var shellKeywords = []string{"if", "then", "elif", "else", "while", "until", "do", "!", "command",
	"builtin"}

// shellState are the commands that change the shell that runs them, or end it.
var shellState = []string{"cd", "pushd", "popd", "export", "readonly", "unset", "set", "shopt",
	"umask", "ulimit", "alias", "unalias", "trap", "exec", "exit", ".", "source", "eval"}

// isAssignment reports whether a word gives a value to a variable of the shell.
func isAssignment(word string) bool {
	name, _, ok := strings.Cut(word, "=")
	return ok && name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz"+
		"ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789") == ""
}

// operand returns the operand of an instruction, or other if a command cannot have it as it is.
func operand(ins *Instruction, other string) string {
	if rest := parseInstruction(ins.Text).rest; rest != "" && plain(rest) {
		return rest
	}
	return other
}

// appendable reports whether a command can be appended to a RUN.
func appendable(i *Instruction) bool {
	p := parseInstruction(i.Text)
	return p.verb == "RUN" && !p.json && !p.heredoc && !p.open()
}

// stageRemedy returns the remedy for files that an earlier stage has made.
func (r *Report) stageRemedy(f *Finding) string {
	made := r.Made(f.Creator)
	kept := r.byLayer().stage
	base := cmp.Or(r.Base.Name, "scratch")
	if made.Stage == "" || len(kept) == 0 || len(kept) > maxKept {
		stage := cmp.Or(made.Stage, "STAGE")
		return fmt.Sprintf("an earlier stage creates it, at %s: write ‘FROM %s’ instead of ‘FROM "+
			"%s’, and ‘COPY --from=%s PATH PATH’ for each path that the image needs", made.At(),
			base, stage, stage)
	}
	edits := []string{"‘FROM " + base + "’"}
	for _, p := range kept {
		edits = append(edits, fmt.Sprintf("‘COPY --from=%s %s %s’", made.Stage, p, p))
	}
	return fmt.Sprintf(
		"use %s instead of ‘FROM %s’, because what it created at %s stays in the image",
		strings.Join(edits, ", "), made.Stage, made.At())
}

// duplicateRemedy returns an edit that replaces one of the copies by a symbolic link: the last copy
// for which a single edit is enough. A hard link would not help, since a layer with a new name for
// a file has its content, too.
func (r *Report) duplicateRemedy(units []int32, owner Owner) string {
	if owner == BaseImage {
		return ""
	}
	units = slices.Clone(units)
	slices.SortStableFunc(units, func(a, b int32) int {
		return int(r.Units[a].Layer - r.Units[b].Layer)
	})
	first := r.livePath(&r.Units[units[0]], units[0])
	for _, i := range slices.Backward(units[1:]) {
		u := &r.Units[i]
		l := &r.Layers[u.Layer]
		if made := r.Made(int(u.Layer)); copies(made) && plain(first, r.livePath(u, i)) &&
			l.Units == 1 && l.Owner != BaseImage && !r.byLayer().links[u.Layer] {
			p := r.livePath(u, i)
			return fmt.Sprintf("if a link will do there, use ‘RUN mkdir -p %s && ln -s %s %s’ "+
				"instead of the %s at %s", path.Dir(p), first, p, verbOf(made.Text), made.At())
		}
	}
	return ""
}

// cacheMount returns the directory at which to mount a cache for a file; "" if the file does not
// belong to a cache.
func cacheMount(file string) string {
	for p := strings.TrimSuffix(file, "/"); p != "/" && p != "."; p = path.Dir(p) {
		switch kind := debrisDir(path.Base(p), func() string { return p }); kind {
		case PackageLists, LanguageCache:
			return p
		}
	}
	return ""
}

// runsFrom returns the RUN that made a layer and those after it.
func (r *Report) runsFrom(layer int) (runs []*Instruction) {
	for i := r.Layers[layer].Instruction; i < len(r.Instructions); i++ {
		if ins := &r.Instructions[i]; verbOf(ins.Text) == "RUN" {
			runs = append(runs, ins)
		}
	}
	return runs
}

// debrisRemedy returns the remedy for debris; paths are some of its files, for the text.
func (r *Report) debrisRemedy(d *Debris, paths []string) string {
	made := r.Made(d.Layer)
	if d.Owner == BaseImage && d.Kind != Secret {
		return "the base image has it, and an rm here would free nothing: name an image without " +
			"it in FROM"
	}
	if d.Kind == Secret {
		return r.secretRemedy(d)
	}
	dir := strings.TrimSuffix(d.Path, "/")
	if !plain(append([]string{dir}, paths...)...) {
		if copies(made) {
			return fmt.Sprintf(
				"add a pattern for it to .dockerignore, or add --exclude=PATTERN to %s",
				made.At())
		}
		return fmt.Sprintf("end %s with an rm of it", made.At())
	}
	if copies(made) {
		p := parseInstruction(made.Text)
		if _, from := p.flag("from"); from {
			return fmt.Sprintf("add --exclude=%s to the COPY at %s",
				ignorePattern(d.Kind, dir), made.At())
		}
		return fmt.Sprintf("add ‘%s’ to .dockerignore", ignorePattern(d.Kind, dir))
	}
	remove := "rm -rf " + dir
	switch d.Kind {
	case PackageLists, LanguageCache:
		if m := cacheMount(d.Path); m != "" && verbOf(made.Text) == "RUN" {
			return fmt.Sprintf("use RUN --mount=type=cache,target=%s at %s", m,
				ats(r.runsFrom(d.Layer)))
		}
	case VersionControl:
		for p := dir; p != "/" && p != "."; p = path.Dir(p) {
			if debrisDir(path.Base(p), func() string { return p }) == VersionControl {
				remove = "rm -rf " + p
			}
		}
	case Bytecode:
		// PYTHONDONTWRITEBYTECODE has no effect on pip and on the scripts of packages, which
		// compile explicitly.
		remove = fmt.Sprintf("find %s -name '*.pyc' -exec rm -f {} +", dir)
	case Logs, CoreFile:
		if len(paths) > 0 {
			remove = "rm -f " + strings.Join(paths, " ")
		} else {
			remove = fmt.Sprintf("find %s -type f -exec rm -f {} +", dir)
		}
	}
	if !appendable(made) {
		return fmt.Sprintf("end %s with the command ‘%s’", made.At(), remove)
	}
	return fmt.Sprintf("append ‘&& %s’ to the RUN at %s", remove, made.At())
}

// ignorePattern returns the pattern that excludes debris of a kind from a context.
func ignorePattern(kind DebrisKind, dir string) string {
	for p := dir; p != "/" && p != "."; p = path.Dir(p) {
		if debrisDir(path.Base(p), func() string { return p }) == kind {
			return "**/" + path.Base(p)
		}
	}
	if kind == Bytecode {
		return "**/*.pyc"
	}
	return "**/" + path.Base(dir)
}

// everyone begins the remedy for a secret in a layer.
const everyone = "everyone who has the image can read it: "

// secretRemedy returns the remedy for a file that looks like a key or a password.
func (r *Report) secretRemedy(d *Debris) string {
	made := r.Made(d.Layer)
	id, target := "ID", "PATH"
	if plain(d.Path) {
		id, target = path.Base(d.Path), d.Path
	}
	mount := fmt.Sprintf("RUN --mount=type=secret,id=%s,target=%s", id, target)
	given := fmt.Sprintf("with --secret id=%s,src=FILE", id)
	switch {
	case d.Owner == BaseImage && !d.Dead:
		return "if it is a secret: name an image without it in FROM, and replace the secret by a " +
			"new one"
	case d.Owner == BaseImage:
		return everyone + "name an image without it in FROM, and replace the secret by a new one"
	case !d.Dead:
		return fmt.Sprintf("if it is a secret: keep it out of %s, use %s for the commands that "+
			"read it, %s, and replace the secret by a new one", made.At(), mount, given)
	case !copies(made) || !plain(d.Path):
		return fmt.Sprintf(everyone+"keep it out of %s, use %s for the commands that read it, %s, "+
			"and replace the secret by a new one", made.At(), mount, given)
	}
	var runs []*Instruction
	n := r.Tree.Find(d.Path)
	for f := range r.Tree.Files(n) {
		if int(f.Layer) <= d.Layer || runs != nil {
			continue
		}
		c := r.newCure(&Finding{Path: d.Path, Creator: d.Layer, Killer: int(f.Layer)})
		removal, all, _ := c.without(d.Path, "rm", "unlink")
		runs = c.between()
		if all {
			runs = slices.DeleteFunc(runs, func(i *Instruction) bool { return i == c.gone })
		}
		if len(runs) == 0 {
			break
		}
		edits := []string{fmt.Sprintf(everyone+"use %s at %s instead of the %s at %s, %s, and "+
			"replace the secret by a new one", mount, ats(runs), verbOf(made.Text), made.At(),
			given)}
		return strings.Join(append(edits, removal...), "; ")
	}
	return fmt.Sprintf(everyone+"keep it out of the %s at %s, and replace the secret by a new one",
		verbOf(made.Text), made.At())
}
