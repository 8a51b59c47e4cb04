package fstree

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Type is the type of an entry. Its value is the first word of the entry's line.
type Type string

// The types of entries.
const (
	Dir      Type = "dir"
	File     Type = "file"
	Link     Type = "link"
	Hardlink Type = "hardlink"
	Char     Type = "char"
	Block    Type = "block"
	Fifo     Type = "fifo"
	Socket   Type = "socket"
	Whiteout Type = "whiteout" // overlay's: a 0:0 character device
	Opaque   Type = "opaque"   // the directory of that path hides the files of lower layers
)

// Unset is the owner or time of an entry without one.
const Unset = -1

// Entry is one line.
type Entry struct {
	Type         Type
	Path         string
	Mode         uint32 // permission, setuid, setgid and sticky bits
	HasMode      bool
	UID, GID     int   // Unset: not given
	MTime        int64 // seconds; Unset: not given
	Xattrs       map[string]string
	Content      string // File
	Target       string // Link, Hardlink
	Major, Minor uint32 // Char, Block
}

var (
	modeRE  = regexp.MustCompile(`^[0-7]{4}$`)
	ownerRE = regexp.MustCompile(`^(root|[0-9]+):(root|[0-9]+)$`)
	timeRE  = regexp.MustCompile(`^@[0-9]+$`)
)

// Parse parses the notation.
func Parse(text string) ([]Entry, error) {
	var entries []Entry
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimLeft(line, " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		e, err := parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("line %d (%s): %w", i+1, line, err)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func parseLine(line string) (Entry, error) {
	s := scanner{rest: line}
	e := Entry{UID: Unset, GID: Unset, MTime: Unset}
	word, _ := s.field()
	e.Type = Type(word)
	e.Path, _ = s.field()
	if s.err == nil && e.Path == "" {
		return e, fmt.Errorf("no path")
	}
	if e.Type != Link && e.Type != Hardlink {
		s.attributes(&e)
	}
	switch e.Type {
	case Dir, Fifo, Socket, Whiteout, Opaque:
	case File:
		e.Content = s.content()
	case Link, Hardlink:
		arrow := map[Type]string{Link: "->", Hardlink: "=>"}[e.Type]
		s.attributes(&e)
		if f, _ := s.field(); f != arrow {
			return e, fmt.Errorf("want %q, have %q", arrow, f)
		}
		e.Target, _ = s.field()
	case Char, Block:
		f, _ := s.field()
		if _, err := fmt.Sscanf(f, "%d:%d", &e.Major, &e.Minor); err != nil {
			return e, fmt.Errorf("want MAJOR:MINOR, have %q", f)
		}
	default:
		return e, fmt.Errorf("no type %q", word)
	}
	if s.err == nil && s.rest != "" {
		return e, fmt.Errorf("left over: %q", s.rest)
	}
	return e, s.err
}

// scanner removes fields from the beginning of a line.
type scanner struct {
	rest string
	err  error
}

// field returns the next field. quoted reports whether it was a Go string.
func (s *scanner) field() (f string, quoted bool) {
	if s.err != nil || s.rest == "" {
		return "", false
	}
	if s.rest[0] == '"' {
		q, err := strconv.QuotedPrefix(s.rest)
		if err != nil {
			s.err = err
			return "", true
		}
		s.rest = strings.TrimLeft(s.rest[len(q):], " \t")
		f, s.err = strconv.Unquote(q)
		return f, true
	}
	f, s.rest, _ = strings.Cut(s.rest, " ")
	s.rest = strings.TrimLeft(s.rest, " \t")
	return f, false
}

// attributes parses mode, owner, time and extended attributes, as far as they are present.
func (s *scanner) attributes(e *Entry) {
	next := func(re *regexp.Regexp) (string, bool) {
		f, _, _ := strings.Cut(s.rest, " ")
		// MAJOR:MINOR has the form of an owner. The field is an owner only if another field of this
		// form follows.
		if re == ownerRE && (e.Type == Char || e.Type == Block) {
			if _, after, _ := strings.Cut(s.rest, " "); strings.TrimSpace(after) == "" {
				return "", false
			}
		}
		if s.err != nil || !re.MatchString(f) {
			return "", false
		}
		s.field()
		return f, true
	}
	if f, ok := next(modeRE); ok {
		m, _ := strconv.ParseUint(f, 8, 32)
		e.Mode, e.HasMode = uint32(m), true
	}
	if f, ok := next(ownerRE); ok {
		u, g, _ := strings.Cut(f, ":")
		e.UID, e.GID = id(u), id(g)
	}
	if f, ok := next(timeRE); ok {
		e.MTime, _ = strconv.ParseInt(f[1:], 10, 64)
	}
	for s.err == nil && strings.HasPrefix(s.rest, "[") {
		s.rest = s.rest[1:]
		var key, value string
		key, s.rest, _ = strings.Cut(s.rest, "=")
		if strings.HasPrefix(s.rest, `"`) {
			value, _ = s.field()
			s.rest = strings.TrimPrefix(s.rest, "]")
		} else {
			value, s.rest, _ = strings.Cut(s.rest, "]")
		}
		s.rest = strings.TrimLeft(s.rest, " \t")
		if e.Xattrs == nil {
			e.Xattrs = map[string]string{}
		}
		e.Xattrs[key] = value
	}
}

func (s *scanner) content() string {
	if strings.HasPrefix(s.rest, `"`) {
		f, _ := s.field()
		return f
	}
	f := s.rest
	s.rest = ""
	return f
}

func id(s string) int {
	if s == "root" {
		return 0
	}
	n, _ := strconv.Atoi(s)
	return n
}

// String returns the entry's line.
func (e Entry) String() string {
	var b strings.Builder
	b.WriteString(string(e.Type) + " " + quote(e.Path))
	if e.HasMode {
		fmt.Fprintf(&b, " %04o", e.Mode)
	}
	if e.UID != Unset {
		b.WriteString(" " + name(e.UID) + ":" + name(e.GID))
	}
	if e.MTime != Unset {
		fmt.Fprintf(&b, " @%d", e.MTime)
	}
	for _, k := range slices.Sorted(maps.Keys(e.Xattrs)) {
		v := e.Xattrs[k]
		if q := quote(v); q != v || strings.Contains(v, "]") {
			v = strconv.Quote(v)
		}
		fmt.Fprintf(&b, " [%s=%s]", k, v)
	}
	switch e.Type {
	case File:
		if e.Content != "" {
			b.WriteString(" " + quoteContent(e.Content))
		}
	case Link:
		b.WriteString(" -> " + quote(e.Target))
	case Hardlink:
		b.WriteString(" => " + quote(e.Target))
	case Char, Block:
		fmt.Fprintf(&b, " %d:%d", e.Major, e.Minor)
	}
	return b.String()
}

func name(id int) string {
	if id == 0 {
		return "root"
	}
	return strconv.Itoa(id)
}

// quote returns a field unchanged if it is parsed as the same field, and otherwise as a Go string.
func quote(s string) string {
	if q := strconv.Quote(s); s == "" || q != `"`+s+`"` || strings.ContainsAny(s, " \t") {
		return q
	}
	return s
}

func quoteContent(s string) string {
	first, _, _ := strings.Cut(s, " ")
	plain := strconv.Quote(s) == `"`+s+`"` && strings.TrimSpace(s) == s && s[0] != '[' &&
		!modeRE.MatchString(first) && !ownerRE.MatchString(first) && !timeRE.MatchString(first)
	if plain {
		return s
	}
	return strconv.Quote(s)
}

// Format returns entries as text, one line each.
func Format(entries []Entry) string {
	var b strings.Builder
	for _, e := range entries {
		b.WriteString(e.String() + "\n")
	}
	return b.String()
}
