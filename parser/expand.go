package parser

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

// Limits of a file. Each instruction copies the values that earlier instructions have set, so the
// time for n instructions grows with n².
const (
	// maxLines is the limit of lines. BuildKit's parser uses 300 bytes for an empty line.
	maxLines = 250_000
	// maxInstructions is the limit of instructions in a file.
	maxInstructions = 10_000
	// maxVariables is the limit of variables in a stage.
	maxVariables = 10_000
	// maxCopied is the limit of labels, volumes and ports that are copied in all.
	maxCopied = 4_000_000
)

// Limits of variable expansion. ARG a=$a$a doubles a value: after 60 such lines it would have an
// exabyte.
const (
	// maxValue is the limit of one value, and of all values of a plan together.
	maxValue = 64 << 20
	// maxModified is the limit of an expansion with a modifier, ${a%b} or ${a/b/c}. BuildKit's
	// lexer needs many times the memory of the value.
	maxModified = 4 << 20
	// maxPatternWork limits the work of a plan for patterns: the sum, over all searches, of the
	// length of the value times the length of the pattern. The time of a search is proportional to
	// that product.
	maxPatternWork = 1 << 28
	// maxNesting limits the depth of ${a:-${b:-…}}. The lexer is recursive.
	maxNesting = 200
	// longDisplay is the length from which a step's name has its variables unexpanded.
	longDisplay = 1 << 20
)

var (
	errLongValue   = fmt.Errorf("variables expand to more than %d MiB", maxValue>>20)
	errLongPattern = fmt.Errorf(
		"a value is too long for ${…} with a modifier: more than %d MiB, or a long pattern",
		maxModified>>20)
	errManyVariables = errors.New("too many variables, labels, volumes or ports are set")
	errNesting       = fmt.Errorf("${…} is nested more than %d deep", maxNesting)
)

// A resource is a quantity whose use by a plan is limited.
type resource int

const (
	valueBytes  resource = iota // bytes of expanded variables
	patternWork                 // lengths of values times lengths of patterns
	// entries of labels, volumes and ports that are copied for the next instruction
	copiedSets
	resources
)

func (r resource) limit() int64 { return [...]int64{maxValue, maxPatternWork, maxCopied}[r] }
func (r resource) err() error {
	return [...]error{errLongValue, errLongPattern, errManyVariables}[r]
}

// budget counts the resources that a plan uses. It is safe for concurrent use.
type budget struct {
	mu sync.Mutex
	// by stage, -1 before the first stage: Steps can walk a stage several times
	used map[int]*[resources]int64
}

// begin resets the use by an earlier walk of a stage.
func (b *budget) begin(stage int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.used, stage)
}

// take adds to the use of a resource and returns an error if the limit is exceeded.
func (b *budget) take(stage int, r resource, n int64) error {
	if n == 0 {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used == nil {
		b.used = map[int]*[resources]int64{}
	}
	if b.used[stage] == nil {
		b.used[stage] = &[resources]int64{}
	}
	b.used[stage][r] += n
	var all int64
	for _, used := range b.used {
		all += used[r]
	}
	if all > r.limit() {
		return r.err()
	}
	return nil
}

// spent returns the use of a resource by the last walk of a stage.
func (b *budget) spent(stage int, r resource) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if used := b.used[stage]; used != nil {
		return used[r]
	}
	return 0
}

// expander expands words within the limits above.
type expander struct {
	lex    *shell.Lex
	escape rune
	budget *budget
	stage  int // the index of the stage, -1 before the first
}

func (p *Plan) expander(stage int) expander {
	return expander{shell.NewLex(p.file.escape), p.file.escape, &p.budget, stage}
}

// raw returns an expander for the content of a here-document: quotes are ordinary characters,
// and the escape character is always the backslash.
func (x expander) raw() expander {
	x.lex, x.escape = shell.NewLex('\\'), '\\'
	x.lex.SkipProcessQuotes = true
	return x
}

// word is like shell.Lex.ProcessWordWithMatches, but the Words of its result are those of
// ProcessWords.
func (x expander) word(word string, e shell.EnvGetter) (shell.ProcessWordResult, error) {
	if !utf8.ValidString(word) {
		// the lexer does the same, but prints a message to standard error
		word = string([]rune(word))
	}
	if !strings.Contains(word, "$") {
		return x.lex.ProcessWordWithMatches(word, e)
	}
	size, work, err := x.measure(word, e)
	if err != nil {
		return shell.ProcessWordResult{}, err
	}
	if err := x.budget.take(x.stage, patternWork, work); err != nil {
		return shell.ProcessWordResult{}, err
	}
	var r shell.ProcessWordResult
	if size > maxModified {
		r.Result, err = x.concatenate(word, e, size)
		r.Words = []string{r.Result}
	} else {
		r, err = x.lex.ProcessWordWithMatches(word, e)
	}
	if err != nil {
		return r, err
	}
	return r, x.budget.take(x.stage, valueBytes, int64(len(r.Result)))
}

// display expands the text of an instruction for Step.Name. It returns the text unchanged if it
// cannot be expanded or would be long.
func (x expander) display(text string, e shell.EnvGetter) string {
	if size, work, err := x.measure(text, e); err != nil ||
		size > longDisplay || work > longDisplay {
		return text
	}
	out, _, err := x.lex.ProcessWord(text, e)
	if err != nil {
		return text
	}
	return out
}

// measure returns upper bounds of the length of a word's expansion and of the work for patterns,
// without expanding it.
func (x expander) measure(word string, e shell.EnvGetter) (size, work int64, err error) {
	s := scanner{lex: x.lex, escape: x.escape, s: word, env: e}
	size, err = s.word(0, 0)
	if err == nil && size > maxValue {
		err = errLongValue
	}
	return size, s.work, err
}

// concatenate expands a word without modifiers. For a word with a modifier it returns
// errLongPattern.
//
// The lexer processes values rune by rune and keeps three copies. concatenate copies a value of 64
// MiB once.
func (x expander) concatenate(word string, e shell.EnvGetter, size int64) (string, error) {
	// Return the memory of earlier large values to the system. After runtime.GC alone, the process
	// has up to 277 MiB for values of 64 MiB, instead of 186.
	debug.FreeOSMemory()
	var out strings.Builder
	out.Grow(int(size))
	s := scanner{lex: x.lex, escape: x.escape, s: word, env: e, out: &out}
	if _, err := s.word(0, 0); err != nil {
		return "", err
	}
	return out.String(), nil
}

// scanner reads a word as shell.Lex does. If out is nil, it only measures: the results of its
// methods are upper bounds in bytes.
type scanner struct {
	lex    *shell.Lex
	escape rune
	s      string
	env    shell.EnvGetter
	out    *strings.Builder
	work   int64
}

const end rune = -1

func (s *scanner) peek() rune {
	if s.s == "" {
		return end
	}
	r, _ := utf8.DecodeRuneInString(s.s)
	return r
}

func (s *scanner) next() rune {
	if s.s == "" {
		return end
	}
	r, n := utf8.DecodeRuneInString(s.s)
	s.s = s.s[n:]
	return r
}

// literal adds a character to the result.
func (s *scanner) literal(r rune) int64 {
	if r == end {
		return 0
	}
	if s.out != nil {
		s.out.WriteRune(r)
	}
	return utf8.UTFMax
}

// word reads up to stop, or to the end if stop is 0.
func (s *scanner) word(stop rune, depth int) (int64, error) {
	var size int64
	for s.s != "" && size <= maxValue {
		// Most of a long word is plain text, which need not be decoded to be measured.
		if n := strings.IndexFunc(s.s, func(r rune) bool {
			return r == '$' || r == '\'' || r == '"' || r == s.escape ||
				stop != 0 && r == stop || r == utf8.RuneError
		}); n != 0 {
			if n < 0 {
				n = len(s.s)
			}
			if s.out != nil {
				s.out.WriteString(s.s[:n])
			}
			size += int64(n)
			s.s = s.s[n:]
			continue
		}
		n, err := s.special(stop, depth)
		if err != nil {
			return 0, err
		}
		if n < 0 {
			return size, nil
		}
		size += n
	}
	return size, nil
}

// special reads the text that begins with a character that may be special. It returns -1 at the end
// of the word.
func (s *scanner) special(stop rune, depth int) (int64, error) {
	switch r := s.next(); {
	case r == '$':
		return s.dollar(depth)
	case stop != 0 && r == stop:
		return -1, nil
	case r == s.escape:
		var size int64
		if s.lex.RawEscapes || stop != 0 {
			size += s.literal(r)
		}
		return size + s.literal(s.next()), nil
	case r == '\'' && !s.lex.SkipProcessQuotes:
		return s.single(), nil
	case r == '"' && !s.lex.SkipProcessQuotes:
		return s.double(depth)
	default:
		return s.literal(r), nil
	}
}

// single reads to the end of a single-quoted string. If the string does not end, the lexer reports
// the error.
func (s *scanner) single() int64 {
	text, rest, _ := strings.Cut(s.s, "'")
	s.s = rest
	if s.out != nil {
		s.out.WriteString(text)
	}
	// Invalid UTF-8 becomes U+FFFD, three bytes for one. An escape character may be doubled.
	return 3*int64(len(text)) + 2
}

func (s *scanner) double(depth int) (int64, error) {
	var size int64
	for s.s != "" && size <= maxValue {
		switch r := s.next(); r {
		case '"':
			return size + 2, nil
		case '$':
			n, err := s.dollar(depth)
			if err != nil {
				return 0, err
			}
			size += n
		case s.escape:
			switch next := s.peek(); next {
			case '"', '$', s.escape:
				size += s.literal(s.next())
			case end:
			default:
				size += s.literal(r)
			}
			size += utf8.UTFMax
		default:
			size += s.literal(r)
		}
	}
	return size, nil
}

// dollar reads a variable after its "$".
func (s *scanner) dollar(depth int) (int64, error) {
	if s.peek() != '{' {
		name := s.name()
		if name == "" {
			return s.literal('$'), nil
		}
		return s.value(name, 1), nil
	}
	if depth >= maxNesting {
		return 0, errNesting
	}
	s.next()
	name := s.name()
	extra := int64(4)
	r := s.next()
	if r == ':' {
		r = s.next()
	}
	if r == '}' {
		return s.value(name, extra), nil
	}
	if s.out != nil {
		return 0, errLongPattern
	}
	value := s.value(name, extra)
	written := int64(0) // of a variable that is not set, the size without the word
	if _, ok := s.env.Get(name); !ok && s.lex.SkipUnsetEnv {
		written = value
	}
	switch r {
	case '+', '-', '?':
		word, err := s.word('}', depth+1)
		return max(value, written+word) + extra, err
	case '#', '%':
		pattern, err := s.word('}', depth+1)
		if err != nil {
			return 0, err
		}
		// 3: invalid UTF-8 becomes U+FFFD
		return max(3*value, written+pattern) + extra, s.pattern(value, pattern)
	case '/':
		return s.replacement(value, depth)
	}
	if written > 0 { // a colon and any character
		word, err := s.word('}', depth+1)
		return written + word + extra, err
	}
	return value, nil // the lexer reports the error
}

// replacement measures ${name/pattern/replacement} after the first slash. There are at most as many
// matches as the value has characters, plus one, and $0 in the replacement is the matched text.
func (s *scanner) replacement(value int64, depth int) (int64, error) {
	if s.peek() == '/' {
		s.next()
	}
	pattern, err := s.word('/', depth+1)
	if err != nil {
		return 0, err
	}
	text, err := s.word('}', depth+1)
	if err != nil {
		return 0, err
	}
	if err := s.pattern(value, pattern); err != nil {
		return 0, err
	}
	if text > maxValue {
		return 0, errLongValue
	}
	if size := value + (2*value+1)*text; size <= maxValue {
		return size + pattern + 1, nil // 1: the second slash of a variable that is not set
	}
	return 0, errLongValue
}

// pattern counts the work of searching a value for a pattern.
func (s *scanner) pattern(value, pattern int64) error {
	if value > maxModified || pattern > maxModified {
		return errLongPattern
	}
	if s.work += value * pattern; s.work > maxPatternWork {
		return errLongPattern
	}
	return nil
}

// value returns the size of a variable's value, or of the text as written if it is not set.
func (s *scanner) value(name string, extra int64) int64 {
	v, ok := s.env.Get(name)
	if s.out != nil {
		s.out.WriteString(v)
	}
	if !ok {
		return int64(len(name)) + extra
	}
	return int64(len(v))
}

// name reads the name of a variable as the lexer does.
func (s *scanner) name() string {
	start := s.s
	switch r := s.peek(); {
	case unicode.IsDigit(r):
		for unicode.IsDigit(s.peek()) {
			s.next()
		}
		return start[:len(start)-len(s.s)]
	case r != end && strings.ContainsRune("@*#?-$!0", r):
		s.next()
		return start[:len(start)-len(s.s)]
	}
	for r := s.peek(); unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_'; r = s.peek() {
		s.next()
	}
	return start[:len(start)-len(s.s)]
}
