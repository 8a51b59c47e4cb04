package parser

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	ignorepattern "github.com/layerbuild/layerbuild/internal/pattern"
	"github.com/layerbuild/layerbuild/internal/reference"
	"github.com/layerbuild/layerbuild/internal/sorting"
	"github.com/layerbuild/layerbuild/internal/suggest"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	bkparser "github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// LintOptions configures the rules. The zero value runs all rules that are not
// experimental.
type LintOptions struct {
	// Skip names rules that do not run; "all": no rule runs.
	Skip []string
	// Experimental names experimental rules that run; "all": all of them.
	Experimental []string
	// Error makes Plan.Violations return an error if a rule has a finding.
	Error bool
	// Off disables all rules. It is for the further platforms of a build, where the rules would
	// only repeat their findings.
	Off bool
}

// ParseLintOptions parses the form of the check directive:
// skip=RULE,RULE;error=true;experimental=RULE.
func ParseLintOptions(s string) (LintOptions, error) {
	c, err := linter.ParseLintOptions(s)
	if err != nil {
		return LintOptions{}, err
	}
	o := LintOptions{Skip: c.SkipRules, Experimental: c.ExperimentalRules, Error: c.ReturnAsError}
	if c.SkipAll {
		o.Skip = []string{"all"}
	}
	if c.ExperimentalAll {
		o.Experimental = []string{"all"}
	}
	return o, nil
}

// Warning is a finding of a lint rule.
type Warning struct {
	// Rule is the name of the rule, such as StageNameCasing.
	Rule string
	// Description describes the rule.
	Description string
	// URL is the address of the rule's documentation; it may be empty.
	URL string
	// Msg is the finding.
	Msg string
	// Range is its position.
	Range Range
}

// lint collects warnings. Stages are walked concurrently, so a mutex protects it.
type lint struct {
	mu     sync.Mutex
	linter *linter.Linter
	fail   bool
	found  []Warning
	seen   map[Warning]bool
}

// LintArg is the build argument with options of the lint rules. It replaces the file's check
// directive.
const LintArg = "BUILDKIT_DOCKERFILE_CHECK"

// newLint merges the file's check directive with the options.
func newLint(f *File, o PlanOptions) (*lint, error) {
	text, _, loc, _ := bkparser.ParseDirective("check", f.src)
	if arg, ok := o.BuildArgs[LintArg]; ok {
		text, loc = arg, nil
	}
	c, err := linter.ParseLintOptions(text)
	if err != nil {
		return nil, f.fail(rangeOf(loc), fmt.Errorf("parse check options: %w", err))
	}
	l := &lint{fail: c.ReturnAsError || o.Lint.Error, seen: map[Warning]bool{}}
	c.SkipAll = c.SkipAll || slices.Contains(o.Lint.Skip, "all")
	c.ExperimentalAll = c.ExperimentalAll || slices.Contains(o.Lint.Experimental, "all")
	c.SkipRules = slices.Concat(c.SkipRules, o.Lint.Skip)
	c.ExperimentalRules = slices.Concat(c.ExperimentalRules, o.Lint.Experimental)
	if !o.Lint.Off {
		c.Warn = l.add
	}
	l.linter = linter.New(c)
	return l, nil
}

// add is called by rules with the mutex held.
func (l *lint) add(rule, description, url, msg string, loc []bkparser.Range) {
	w := Warning{Rule: rule, Description: description, URL: url, Msg: msg, Range: rangeOf(loc)}
	if !l.seen[w] {
		l.seen[w] = true
		l.found = append(l.found, w)
	}
}

// scope returns the rules that apply below the comments of one instruction.
func (l *lint) scope(comments []string) scope {
	return scope{l, l.linter.WithMergedConfigFromComments(comments)}
}

type scope struct {
	lint   *lint
	linter *linter.Linter
}

func (s scope) run(rule linter.LinterRuleI, loc []bkparser.Range, msg string) {
	s.lint.mu.Lock()
	defer s.lint.mu.Unlock()
	s.linter.Run(rule, loc, msg)
}

func (l *lint) warnings() []Warning {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := slices.Clone(l.found)
	sorting.StableFunc(out, func(a, b Warning) int {
		return cmp.Or(cmp.Compare(a.Range.Start, b.Range.Start), cmp.Compare(a.Rule, b.Rule),
			cmp.Compare(a.Msg, b.Msg))
	})
	return out
}

func (l *lint) err() error {
	if !l.fail {
		return nil
	}
	var rules []string
	for _, w := range l.warnings() {
		rules = append(rules, w.Rule)
	}
	if len(rules) == 0 {
		return nil
	}
	slices.Sort(rules)
	return &LintError{Rules: slices.Compact(rules)}
}

// checkContinuations reports empty lines inside instructions.
func (l *lint) checkContinuations(f *File) {
	s := l.scope(nil)
	for _, w := range f.warnings {
		if w.URL == linter.RuleNoEmptyContinuation.URL && w.Location != nil {
			s.run(&linter.RuleNoEmptyContinuation, []bkparser.Range{*w.Location},
				linter.RuleNoEmptyContinuation.Format())
		}
	}
}

// checkStages runs the rules on the names of stages and the case of keywords.
func (l *lint) checkStages(stages []instructions.Stage) {
	s := l.scope(nil)
	names := map[string]bool{}
	for _, st := range stages {
		if st.Name == "context" || st.Name == "scratch" {
			s.run(&linter.RuleReservedStageName, st.Location,
				linter.RuleReservedStageName.Format(st.Name))
		}
		if st.Name != "" && names[st.Name] {
			s.run(&linter.RuleDuplicateStageName, st.Location,
				linter.RuleDuplicateStageName.Format(st.Name))
		}
		names[st.Name] = true
	}
	l.checkCasing(s, stages)
}

// checkCasing reports instructions whose case differs from that of most instructions.
func (l *lint) checkCasing(s scope, stages []instructions.Stage) {
	type word struct {
		text string
		loc  []bkparser.Range
	}
	var words []word
	for _, st := range stages {
		words = append(words, word{st.OrigCmd, st.Location})
		for _, c := range st.Commands {
			words = append(words, word{c.Name(), c.Location()})
		}
	}
	var lower, upper int
	for _, w := range words {
		switch w.text {
		case strings.ToLower(w.text):
			lower++
		case strings.ToUpper(w.text):
			upper++
		}
	}
	want, convert := "uppercase", strings.ToUpper
	if lower > upper {
		want, convert = "lowercase", strings.ToLower
	}
	for _, w := range words {
		if convert(w.text) != w.text {
			s.run(&linter.RuleConsistentInstructionCasing, w.loc,
				linter.RuleConsistentInstructionCasing.Format(w.text, want))
		}
	}
}

// checkDefaultBases reports FROMs with a name that is invalid unless a --build-arg is given.
func (l *lint) checkDefaultBases(stages []instructions.Stage, x expander, defaults env) {
	for _, st := range stages {
		m, err := x.word(st.BaseName, defaults)
		if err != nil {
			return
		}
		if _, err := reference.Parse(m.Result); err != nil {
			l.scope(nil).run(&linter.RuleInvalidDefaultArgInFrom, st.Location,
				linter.RuleInvalidDefaultArgInFrom.Format(st.BaseName))
		}
	}
}

// fromArgs reports variables in FROM that no ARG declares.
func (s scope) fromArgs(declared []string, unmatched map[string]struct{}, loc []bkparser.Range) {
	for _, k := range sortedKeys(unmatched) {
		if !slices.Contains(declared, k) {
			s.run(&linter.RuleUndefinedArgInFrom, loc,
				linter.RuleUndefinedArgInFrom.Format(k, suggest.Closest(k, declared)))
		}
	}
}

// fromPlatform checks the --platform of a FROM.
func (s scope) fromPlatform(st *instructions.Stage, m shell.ProcessWordResult, globals env) {
	if _, ok := m.Matched["TARGETPLATFORM"]; ok && len(m.Matched) == 1 && len(m.Unmatched) == 0 {
		if v, _ := globals.Get("TARGETPLATFORM"); v == m.Result {
			s.run(&linter.RuleRedundantTargetPlatform, st.Location,
				linter.RuleRedundantTargetPlatform.Format(st.Platform))
		}
	}
	if len(m.Matched) > 0 || len(m.Unmatched) > 0 {
		return
	}
	p, err := ParsePlatform(m.Result)
	if err != nil || strings.Contains(st.Name, p.OS) || strings.Contains(st.Name, p.Architecture) {
		return
	}
	s.run(&linter.RuleFromPlatformFlagConstDisallowed, st.Location,
		linter.RuleFromPlatformFlagConstDisallowed.Format(m.Result))
}

// basePlatform compares the platform of a base image with the expected one.
func (s scope) basePlatform(name string, want, got ocispec.Platform, loc []bkparser.Range) {
	want, got = NormalizePlatform(want), NormalizePlatform(got)
	if want.OS == got.OS && want.Architecture == got.Architecture {
		return
	}
	s.run(&linter.RuleInvalidBaseImagePlatform, loc,
		linter.RuleInvalidBaseImagePlatform.Format(name,
			FormatPlatform(want), FormatPlatform(got)))
}

var (
	secretWords = []string{"apikey", "auth", "credential", "credentials", "key", "password",
		"pword", "passwd", "secret", "token"}
	publicWords = []string{"public", "file", "version"}
)

// hasWord reports whether one of the words of key, which are separated by underscores, is in
// words.
func hasWord(key string, words []string) bool {
	for part := range strings.SplitSeq(key, "_") {
		if slices.ContainsFunc(words, func(word string) bool {
			return strings.EqualFold(part, word)
		}) {
			return true
		}
	}
	return false
}

// IsSecretName reports whether an argument or variable has the name of a secret, such as API_TOKEN.
func IsSecretName(key string) bool {
	return hasWord(key, secretWords) && !hasWord(key, publicWords)
}

func (s scope) secretKey(instruction, key string, loc []bkparser.Range) {
	if IsSecretName(key) {
		s.run(&linter.RuleSecretsUsedInArgOrEnv, loc,
			linter.RuleSecretsUsedInArgOrEnv.Format(instruction, key))
	}
}

// ignoreFile reports whether sources of COPY are excluded from the context.
type ignoreFile struct {
	m     *ignorepattern.Matcher
	texts []string
}

// newIgnoreFile returns nil if the rule cannot decide: if there are no patterns, or if there are
// exceptions, since an excluded directory may contain files that are not excluded.
func newIgnoreFile(patterns []string) *ignoreFile {
	if len(patterns) == 0 {
		return nil
	}
	m, err := ignorepattern.New(patterns)
	if err != nil {
		return nil
	}
	texts, exceptions := m.Patterns()
	if exceptions {
		return nil
	}
	return &ignoreFile{m, texts}
}

func (i *ignoreFile) matches(src string) (string, bool) {
	src = path.Clean(src)
	if src == "." || src == "/" {
		// The root is never excluded. It is empty only if all files are excluded.
		all := slices.ContainsFunc(i.texts, func(p string) bool {
			return p == "*" || p == "**" || p == "**/*"
		})
		if !all {
			return src, false
		}
	}
	ok, _ := i.m.Path(src)
	return src, ok
}
