package analyze

import (
	"encoding/json"
	"errors"
	"path"
	"slices"
	"strings"

	"github.com/layerbuild/layerbuild/internal/giturl"
)

// parsed holds the parts of an instruction that a remedy needs.
type parsed struct {
	verb    string
	flags   []string // "--from=b"
	args    []string // operands; the command for a RUN in exec form
	rest    string   // the text after the flags
	json    bool     // exec form, or COPY ["a", "b"]
	heredoc bool
}

// parseInstruction parses the text of an instruction.
func parseInstruction(text string) parsed {
	p := parsed{verb: verbOf(text)}
	_, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	for rest = strings.TrimSpace(rest); strings.HasPrefix(rest,
		"--"); rest = strings.TrimSpace(rest) {
		var flag string
		flag, rest, _ = strings.Cut(rest, " ")
		p.flags = append(p.flags, flag)
	}
	p.rest = rest
	p.heredoc = strings.Contains(rest, "<<")
	if strings.HasPrefix(rest, "[") && json.Unmarshal([]byte(rest), &p.args) == nil {
		p.json = true
		return p
	}
	p.args = strings.Fields(rest)
	return p
}

// flag returns the value of a flag.
func (p *parsed) flag(name string) (string, bool) {
	for _, f := range p.flags {
		if value, ok := strings.CutPrefix(f, "--"+name+"="); ok {
			return value, true
		}
		if f == "--"+name {
			return "", true
		}
	}
	return "", false
}

// command is a simple command of a shell's list.
type command struct {
	text  string
	words []string // without quotes
}

// commands returns the simple commands of a RUN that are joined by && or ;. It returns false for a
// RUN with a pipe, a condition, a substitution or a here-document.
func (p *parsed) commands() ([]command, bool) {
	if p.verb != "RUN" || p.heredoc {
		return nil, false
	}
	if p.json {
		if len(p.args) == 3 && p.args[1] == "-c" && strings.HasSuffix(path.Base(p.args[0]), "sh") {
			return splitCommands(p.args[2])
		}
		return []command{{p.rest, p.args}}, len(p.args) > 0
	}
	return splitCommands(p.rest)
}

// shellWords are the words that begin a compound command.
var shellWords = []string{"if", "for", "while", "until", "case", "select", "function", "!", "{",
	"}", "set", "cd", "exit", "exec", "export", "[", "test"}

func splitCommands(text string) ([]command, bool) {
	var list []command
	var quote byte
	start := 0
	end := func(at int) bool {
		s := strings.TrimSpace(text[start:at])
		words := strings.Fields(strings.NewReplacer("'", "", `"`, "").Replace(s))
		if len(words) == 0 || slices.Contains(shellWords, words[0]) {
			return false
		}
		list = append(list, command{s, words})
		return true
	}
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
			if c == '\\' || c == '`' || c == '$' && quote == '"' {
				return nil, false
			}
		case c == '\'' || c == '"':
			quote = c
		case c == ';' || c == '&' && strings.HasPrefix(text[i:], "&&"):
			if !end(i) {
				return nil, false
			}
			if c == '&' {
				i++
			}
			start = i + 1
		case strings.IndexByte("|&()`$\\<{\n", c) >= 0:
			return nil, false
		}
	}
	return list, quote == 0 && end(len(text))
}

// applet returns the command's name and its arguments. For "busybox NAME" it returns NAME.
func (c command) applet() (name string, args []string) {
	words := c.words
	if len(words) > 1 && path.Base(words[0]) == "busybox" {
		words = words[1:]
	}
	return path.Base(words[0]), words[1:]
}

// operands returns the arguments of a command that are not options.
func (c command) operands() []string {
	_, args := c.applet()
	return slices.DeleteFunc(slices.Clone(args),
		func(a string) bool { return strings.HasPrefix(a, "-") })
}

// within reports whether a path is d or below it.
func within(p, d string) bool { return p == d || d == "/" || strings.HasPrefix(p, d+"/") }

// concerns reports whether an operand of rm, chmod or the like concerns the path p: it names p, a
// directory above p or a file below p, or is a shell pattern that matches one of these.
func concerns(operand, cwd, p string) bool {
	if !strings.HasPrefix(operand, "/") {
		if cwd == "" {
			return false
		}
		operand = cwd + "/" + operand
	}
	operand = path.Clean(operand)
	if within(p, operand) || within(operand, p) {
		return true
	}
	// A pattern: as many parts of p as it has must match.
	parts, pattern := strings.Split(p, "/"), strings.Split(operand, "/")
	n := min(len(parts), len(pattern))
	ok, err := path.Match(strings.Join(pattern[:n], "/"), strings.Join(parts[:n], "/"))
	return ok && err == nil
}

// workdir returns the working directory at an instruction, "" if it is not known.
func (r *Report) workdir(instruction int) string {
	dir := "/"
	for _, ins := range r.Instructions[:instruction] {
		p := parseInstruction(ins.Text)
		switch {
		case p.verb != "WORKDIR":
		case strings.Contains(p.rest, "$"):
			dir = ""
		case strings.HasPrefix(p.rest, "/"):
			dir = path.Clean(p.rest)
		case dir != "":
			dir = path.Join(dir, p.rest)
		}
	}
	return dir
}

// copied describes the files of a COPY or an ADD.
type copied struct {
	parsed
	sources []string
	dest    string // absolute; "": not known
	destDir bool   // dest is a directory, into which a file is copied under its own name
}

// copied parses a COPY or an ADD. It returns false if the sources are not paths: a here-document, a
// URL, an archive that is unpacked, digests instead of names (as other builders write them), and
// names with variables.
func (r *Report) copied(instruction int) (copied, bool) {
	c := copied{parsed: parseInstruction(r.Instructions[instruction].Text)}
	if c.heredoc || len(c.args) < 2 {
		return c, false
	}
	n := len(c.args) - 1
	c.sources, c.dest = c.args[:n], c.args[n]
	c.destDir = n > 1 || strings.HasSuffix(c.dest, "/") || c.dest == "."
	if !strings.HasPrefix(c.dest, "/") {
		cwd := r.workdir(instruction)
		if cwd == "" {
			return c, false
		}
		c.dest = cwd + "/" + c.dest
	}
	if c.dest = path.Clean(c.dest); strings.Contains(c.rest, "$") {
		return c, false
	}
	for _, s := range c.sources {
		if strings.HasPrefix(s, "file:") || strings.HasPrefix(s, "dir:") ||
			strings.HasPrefix(s, "multi:") || c.verb == "ADD" && fetched(s) {
			return c, false
		}
	}
	for _, f := range c.flags {
		if name, _, _ := strings.Cut(f, "="); !slices.Contains([]string{"--from", "--link",
			"--exclude", "--chmod", "--chown"}, name) {
			return c, false
		}
	}
	return c, true
}

// fetched reports whether ADD fetches or unpacks a source, or may do so: not every builder takes
// the same addresses for git repositories.
func fetched(s string) bool {
	if _, err := giturl.Parse(s); !errors.Is(err, giturl.ErrNotGit) || strings.Contains(s, "://") {
		return true
	}
	s = strings.ToLower(s)
	for _, end := range []string{".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tzst", ".tar.gz",
		".tar.bz2", ".tar.xz", ".tar.zst"} {
		if strings.HasSuffix(s, end) {
			return true
		}
	}
	return strings.ContainsAny(s, "*?[") // it may be an archive
}

// dirIn reports whether a layer has a directory at a path.
func (r *Report) dirIn(layer int, p string) bool {
	n := r.Tree.Find(p)
	if n == nil {
		return false
	}
	f := r.Tree.At(n, layer)
	return f != nil && f.Type == Dir
}

// there reports whether a path exists after a layer.
func (r *Report) there(layer int, p string) bool {
	n := r.Tree.Find(p)
	return n != nil && r.Tree.At(n, layer) != nil
}

// fileIn reports whether a layer has an entry at a path that is not a directory.
func (r *Report) fileIn(layer int, p string) bool {
	n := r.Tree.Find(p)
	if n == nil {
		return false
	}
	for f := range r.Tree.Files(n) {
		if int(f.Layer) == layer && f.Type != Dir && f.Type != Gone {
			return true
		}
	}
	return false
}

// others counts the entries of a layer below a directory other than one path. The count is more
// than 0 if the whole directory was copied.
func (r *Report) others(layer int, dir, but string) (n int) {
	for _, i := range r.byLayer().units[layer] {
		if p := r.Tree.Path(r.Tree.Node(r.Units[i].Node)); p != but && within(p, dir) {
			n++
		}
	}
	return n
}

// source returns the source from which a COPY has made a path, for a bind mount at that path. It
// returns false if that is not certain, for example for a directory that a wildcard matched.
func (r *Report) source(c copied, layer int, p string) (string, bool) {
	if !within(p, c.dest) {
		return "", false
	}
	rel := strings.TrimPrefix(strings.TrimPrefix(p, c.dest), "/")
	isDir := r.dirIn(layer, p)
	clean := func(s string) (string, bool) {
		_, from := c.flag("from")
		s = path.Clean("/" + s)
		if !from && s != "/" {
			s = s[1:]
		} else if !from {
			s = "."
		}
		return s, !strings.ContainsAny(s, ", ")
	}
	if len(c.sources) == 1 && !strings.ContainsAny(c.sources[0], "*?[") {
		s := c.sources[0]
		switch {
		case rel == "":
			return clean(s)
		case rel == path.Base(path.Clean("/"+s)) && !isDir && r.others(layer, c.dest, p) == 0:
			return clean(s) // a file that was copied into a directory
		}
		return clean(s + "/" + rel)
	}
	if rel == "" {
		// A pattern for the whole content of a directory: each file was copied under its own
		// name.
		dir, ok := strings.CutSuffix(c.sources[0], "/*")
		if len(c.sources) > 1 || !ok || strings.ContainsAny(dir, "*?[") || r.deep(layer, c.dest) {
			return "", false
		}
		return clean(dir)
	}
	first, rest, _ := strings.Cut(rel, "/")
	var files, dirs []string
	for _, s := range c.sources {
		dir, base := path.Split(path.Clean("/" + s))
		wild := strings.ContainsAny(s, "*?[")
		hit, err := path.Match(base, first)
		switch {
		case wild && (strings.ContainsAny(dir, "*?[") || err != nil):
			return "", false
		case hit && rest == "" && !isDir:
			files = append(files, dir+first)
		case wild:
			dirs = append(dirs, "", "") // any directory may have matched
		case !r.fileIn(layer, c.dest+"/"+base):
			dirs = append(dirs, s+"/"+rel)
		}
	}
	switch {
	case len(files) == 1:
		return clean(files[0])
	case len(files) == 0 && len(dirs) == 1:
		return clean(dirs[0])
	}
	return "", false
}

// deep reports whether a layer has files in subdirectories of a directory.
func (r *Report) deep(layer int, dir string) bool {
	for _, i := range r.byLayer().units[layer] {
		p := r.Tree.Path(r.Tree.Node(r.Units[i].Node))
		if within(p, dir) && path.Dir(p) != dir {
			return true
		}
	}
	return false
}
