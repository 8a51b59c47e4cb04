package parser

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/shell"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
)

// TestExpansionLimits checks that a value that is too long is refused before it is expanded, with
// its line.
func TestExpansionLimits(t *testing.T) {
	double := func(first, next string, n int) string {
		return first + "\n" + strings.Repeat(next+"\n", n)
	}
	tests := []struct {
		name, body string
		line       int // 0: no error
		err        error
	}{
		// 16 bytes become 64 MiB in the 22nd doubling, but the earlier doublings count too.
		{"arg", double("FROM scratch\nARG a=0123456789abcdef", "ARG a=$a$a", 60), 24, errLongValue},
		{"global arg", double("ARG a=0123456789abcdef", "ARG a=$a$a", 60) + "FROM scratch\n", 23,
			errLongValue},
		{"env", double("FROM scratch\nENV a=0123456789abcdef", "ENV a=$a$a", 60), 24, errLongValue},
		{"within the limit", double("FROM scratch\nENV a=0123456789abcdef", "ENV a=$a$a", 20), 0,
			nil},
		{"stages", double("FROM scratch AS a\nARG a=0123456789abcdef", "ARG a=$a$a", 20) +
			"FROM a AS b\nARG b=$a$a\nFROM b AS c\nARG c=$a$b\n", 26, errLongValue},
		{"many in a line", double("FROM scratch\nENV a=0123456789abcdef", "ENV a=$a$a", 18) +
			"LABEL " + strings.Repeat("a=$a ", 100) + "\n", 21, errLongValue},
		{"heredoc", double("FROM scratch\nENV a=0123456789abcdef", "ENV a=$a$a", 18) +
			"COPY <<E /\n" + strings.Repeat("$a\n", 100) + "E\n", 21, errLongValue},
		{"replacement", double("FROM scratch\nENV a=0123456789abcdef", "ENV a=${a//?/$a}", 10), 5,
			errLongValue},
		{"whole match", double("FROM scratch\nENV a=0123456789abcdef", `ENV a=${a//*/\$0\$0\$0\$0}`,
			30), 9, errLongPattern},
		{"trimmed", double("FROM scratch\nENV a=0123456789abcdef", "ENV a=$a$a", 19) +
			"ENV b=${a%x}\n", 22, errLongPattern},
		{"long pattern", double("FROM scratch\nENV a=0123456789abcdef", "ENV a=$a$a", 15) +
			"ENV b=${a#$a}\n", 18, errLongPattern},
		{"nested", "FROM scratch\nENV a=" + repeat("${b:-", 1_000_000) + "\n", 2, errNesting},
		{"nested from", "FROM " + repeat("${b:-", 1_000_000) + "\n", 1, errNesting},
		{"nested in quotes", "FROM scratch\nENV a=" + repeat(`"${b:-`, 1_000_000) + "\n", 2,
			errNesting},
		{"nested --from", "FROM scratch\nCOPY --from=" + repeat("${b:-", 1_000_000) + " / /\n", 2,
			errNesting},
		{"instructions", "FROM scratch\n" + strings.Repeat("USER a\n", 100_000),
			maxInstructions + 1, nil},
		{"lines", "FROM scratch\n" + strings.Repeat("\n", 1_000_000), maxLines + 1, nil},
		{"variables", "FROM scratch\nENV " + numbered(100_001) + "\n", 2, errManyVariables},
		{"labels", "FROM scratch\nLABEL " + numbered(50_001) + "\n" +
			strings.Repeat("LABEL a=b\n", 9000), 131, errManyVariables},
		{"args", "FROM scratch\nARG " + numbered(100_001) + "\n", 2, errManyVariables},
		{"global args", "ARG " + numbered(100_001) + "\nFROM scratch\n", 1, errManyVariables},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := walk(tt.body)
			if tt.line == 0 {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var e *Error
			if !errors.As(err, &e) || e.Range.Start != tt.line ||
				tt.err != nil && !errors.Is(err, tt.err) {
				t.Errorf("got %.300v, want %v in line %d", err, tt.err, tt.line)
			}
		})
	}
}

func numbered(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "a%d=1 ", i)
		if i%1000 == 999 {
			b.WriteString("\\\n")
		}
	}
	return b.String()
}

// repeat is like strings.Repeat, with line breaks so that lines are short enough for the parser.
func repeat(s string, n int) string {
	return strings.Repeat(strings.Repeat(s, 1000)+"\\\n", n/1000)
}

// walk parses a file and expands all its steps.
func walk(body string) error {
	f, err := Parse("Dockerfile", []byte(body))
	if err != nil {
		return err
	}
	p, err := f.Plan(PlanOptions{})
	if err != nil {
		return err
	}
	for _, s := range p.Stages {
		var image dockerspec.DockerOCIImage
		if in, ok := s.Base.(StageInput); ok {
			image = in.Stage.final.Load().img
		}
		for _, err := range s.Steps(image) {
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// FuzzExpand checks that the measured bound is an upper bound, and concatenate gives the result of
// the lexer.
func FuzzExpand(f *testing.F) {
	for _, word := range []string{
		"a$b$c", "${b}${c:-d}", "'$b'\"$b\"", `\$b"\$c\'"`, "${b//x/$c}", "${b/*/\\$0\\$0}",
		"${b#$c}", "${b%%*y}", "$1$@${b+${c+$d}}", "<<E $b", "`$b", "${b:?}",
		"\xff$b", "${a/b", "${", "$", "é$bé", "${b//$x}/y}", "\"${b/'/\"/x}\"", "${b-\"}\"}",
		"'\\'$b", "$bb", "${bb}", "${0}${12a}",
		"${0/*/}", "${long_name#" + strings.Repeat("a", 50) + "}",
		"${long_name:-" + strings.Repeat("a", 50) + "}",
	} {
		f.Add(word, "xx", "y/y", uint8(0))
		f.Add(word, "", "\xff$b", uint8(7))
	}
	f.Fuzz(func(t *testing.T, word, b, c string, flags uint8) {
		if len(word) > 1000 || len(b) > 100 || len(c) > 100 {
			return
		}
		word = string([]rune(word)) // as expander.word does
		escape := '\\'
		if flags&1 != 0 {
			escape = '`'
		}
		x := expander{lex: shell.NewLex(escape), escape: escape, budget: &budget{}}
		x.lex.SkipProcessQuotes = flags&2 != 0
		x.lex.SkipUnsetEnv = flags&4 != 0
		x.lex.RawQuotes = flags&8 != 0
		x.lex.RawEscapes = flags&16 != 0
		e := env{}.set("b", b).set("c", c)
		size, _, err := x.measure(word, e)
		if err != nil {
			return
		}
		want, _, err := x.lex.ProcessWord(word, e)
		if err != nil {
			return
		}
		if int64(len(want)) > size {
			t.Errorf("measured %d for %q, which has %d bytes", size, want, len(want))
		}
		if flags&28 != 0 {
			return // used only for display, which does not concatenate
		}
		got, err := x.concatenate(word, e, size)
		if err == nil && got != want {
			t.Errorf("concatenated %q, want %q", got, want)
		}
	})
}
