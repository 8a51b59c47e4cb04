package parser

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	bkparser "github.com/moby/buildkit/frontend/dockerfile/parser"
)

// ExperimentalRules lists the rules that run only when LintOptions.Experimental
// or the file names them.
func ExperimentalRules() []string {
	return []string{
		linter.RuleInvalidDefinitionDescription.Name,
		rulePackageLists.Name, ruleArchiveCopied.Name, ruleRecursiveChange.Name,
	}
}

// Rules on the size of images, which BuildKit does not have. They rely on guesses about shell
// commands, so they are experimental: off by default.
var (
	rulePackageLists = linter.LinterRule[func(string, string) string]{
		Name:         "PackageListsLeftBehind",
		Description:  "What a package manager downloads should not stay in the layer",
		Experimental: true,
		Format: func(tool, dir string) string {
			return fmt.Sprintf("%s leaves files in %s; remove them in the same RUN, or use RUN "+
				"--mount=type=cache,target=%s", tool, dir, dir)
		},
	}
	ruleArchiveCopied = linter.LinterRule[func(string, int) string]{
		Name: "ArchiveCopiedThenUnpacked",
		Description: "An archive that is copied in one layer and unpacked in another is in the " +
			"image twice",
		Experimental: true,
		Format: func(name string, line int) string {
			return fmt.Sprintf("Archive %q stays in the layer of line %d; unpack it with ADD, or "+
				"from RUN --mount=type=bind", name, line)
		},
	}
	ruleRecursiveChange = linter.LinterRule[func(string, string, string) string]{
		Name: "RecursiveChangeOfEarlierLayer",
		Description: "Changing owner or mode of files of an earlier layer puts all of them in " +
			"the image again",
		Experimental: true,
		Format: func(tool, dir, instead string) string {
			return fmt.Sprintf(
				"%s -R copies all files in %s from an earlier layer into this one; %s", tool, dir,
				instead)
		},
	}
)

// sizeRules holds facts about earlier instructions for the size rules.
type sizeRules struct {
	copied []copied
}

type copied struct {
	dest     string
	archives []string
	loc      []bkparser.Range
}

var recursiveFlag = pattern(`^-[A-Za-z]*R[A-Za-z]*$|^--recursive$`)

var archiveSuffixes = []string{".tar", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tgz", ".tbz",
	".tbz2", ".txz", ".zip", ".7z"}

func isArchiveName(name string) bool {
	name = strings.ToLower(name)
	return slices.ContainsFunc(archiveSuffixes,
		func(suffix string) bool { return strings.HasSuffix(name, suffix) })
}

// checkCopySize records the paths to which files are copied.
func (w *walker) checkCopySize(c instructions.Command, a *Copy) {
	e := copied{dest: path.Clean(a.Dest), loc: c.Location()}
	unpacks := a.Add && (a.Unpack == nil || *a.Unpack)
	for _, src := range a.Sources {
		kind, _ := SourceKind(src)
		remote := kind == HTTP && (a.Unpack == nil || !*a.Unpack)
		if isArchiveName(src) && (!unpacks || remote) {
			e.archives = append(e.archives, path.Base(src))
		}
	}
	w.state.sizes.copied = append(slices.Clip(w.state.sizes.copied), e)
}

// checkRunSize checks each command of a RUN.
func (w *walker) checkRunSize(c *instructions.RunCommand, run *Run) {
	script := strings.Join(run.Args, " ")
	commands := [][]string{run.Args}
	if c.PrependShell {
		script = run.Args[len(run.Args)-1]
		for _, f := range run.Files {
			script = string(f.Data)
		}
		commands = nil
		for line := range strings.FieldsFuncSeq(script,
			func(c rune) bool { return strings.ContainsRune(";&|\n", c) }) {
			commands = append(commands, strings.Fields(line))
		}
	}
	for _, words := range commands {
		// Variables and sudo in front of a command are skipped.
		for len(words) > 0 && (strings.Contains(words[0], "=") || words[0] == "sudo") {
			words = words[1:]
		}
		if len(words) == 0 {
			continue
		}
		w.checkPackages(c, run, script, words)
		w.checkUnpack(c, words)
		w.checkRecursive(c, words)
	}
}

// packageTool describes the files that a package manager leaves behind, and the commands that
// remove them.
type packageTool struct {
	names, verbs []string
	dir          string
	clean        func() *regexp.Regexp
}

var packageTools = []packageTool{
	{[]string{"apt-get", "apt"}, []string{"update"}, "/var/lib/apt/lists",
		pattern(`rm\s+-\S*r\S*\s.*?/var/lib/apt`)},
	{[]string{"apk"}, []string{"add", "update", "upgrade"}, "/var/cache/apk",
		pattern(`--no-cache|rm\s+-\S*r\S*\s.*?/var/cache/apk`)},
	{[]string{"yum"}, []string{"install", "update", "upgrade"}, "/var/cache/yum",
		pattern(`yum\s.*?clean\s+all|rm\s+-\S*r\S*\s.*?/var/cache`)},
	{[]string{"dnf", "microdnf"}, []string{"install", "update", "upgrade"}, "/var/cache/dnf",
		pattern(`dnf\s.*?clean\s+all|rm\s+-\S*r\S*\s.*?/var/cache`)},
	{[]string{"zypper"}, []string{"in", "install", "update", "up"}, "/var/cache/zypp",
		pattern(`zypper\s.*?(clean|cc)\b|rm\s+-\S*r\S*\s.*?/var/cache`)},
}

func (w *walker) checkPackages(c *instructions.RunCommand, run *Run,
	script string, words []string) {
	for _, t := range packageTools {
		if !slices.Contains(t.names, words[0]) ||
			!slices.ContainsFunc(words[1:], func(s string) bool {
				return slices.Contains(t.verbs, s)
			}) || t.clean().MatchString(script) {
			continue
		}
		mounted := slices.ContainsFunc(run.Mounts, func(m RunMount) bool {
			return (m.Type == MountCache || m.Type == MountTmpfs) && within(t.dir, m.Target)
		})
		if !mounted {
			w.rules.run(&rulePackageLists, c.Location(), rulePackageLists.Format(words[0], t.dir))
		}
	}
}

func (w *walker) checkUnpack(c *instructions.RunCommand, words []string) {
	if !slices.Contains([]string{"tar", "bsdtar", "unzip", "7z", "gunzip"}, words[0]) {
		return
	}
	for _, e := range w.state.sizes.copied {
		for _, name := range e.archives {
			if slices.ContainsFunc(words[1:], func(s string) bool { return path.Base(s) == name }) {
				w.rules.run(&ruleArchiveCopied, c.Location(),
					ruleArchiveCopied.Format(name, rangeOf(e.loc).Start))
			}
		}
	}
}

func (w *walker) checkRecursive(c *instructions.RunCommand, words []string) {
	instead := map[string]string{"chown": "use COPY --chown", "chmod": "use COPY --chmod"}[words[0]]
	if instead == "" || !slices.ContainsFunc(words, recursiveFlag().MatchString) {
		return
	}
	args := slices.DeleteFunc(slices.Clone(words[1:]),
		func(s string) bool { return strings.HasPrefix(s, "-") })
	for i, arg := range args {
		if i == 0 {
			continue // owner or mode
		}
		dir := arg
		if !path.IsAbs(dir) {
			dir = path.Join(w.state.dir, dir)
		}
		dir = path.Clean(strings.Trim(dir, `"'`))
		earlier := slices.ContainsFunc(w.state.sizes.copied,
			func(e copied) bool {
				return within(e.dest, dir) || within(dir, e.dest) && e.dest != "/"
			})
		if earlier || slices.Contains([]string{"/", "/usr", "/etc", "/var", "/home", "/opt"}, dir) {
			w.rules.run(&ruleRecursiveChange, c.Location(),
				ruleRecursiveChange.Format(words[0], dir, instead))
		}
	}
}

// within reports whether p is dir or below it.
func within(p, dir string) bool {
	return dir == "/" || p == dir || strings.HasPrefix(p, dir+"/")
}
