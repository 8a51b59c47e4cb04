package ci

import (
	"fmt"
	"strings"
)

// jenkinsScripts returns the scripts of the sh steps of a Jenkinsfile: the strings in single or
// triple single quotes after the word sh. It returns an error if brackets or quotes do not match.
// It does not know the rest of Groovy.
func jenkinsScripts(text string) (scripts []string, err error) {
	var open []byte
	for i := 0; i < len(text); {
		rest := text[i:]
		switch c := text[i]; {
		case strings.HasPrefix(rest, "//"):
			end := strings.IndexByte(rest, '\n')
			if end < 0 {
				end = len(rest)
			}
			i += end
			continue
		case strings.HasPrefix(rest, "'"):
			value, size, ok := groovyString(rest)
			if !ok {
				return nil, fmt.Errorf("line %d: a quote is not closed", lineAt(text, i))
			}
			if strings.HasSuffix(strings.TrimRight(text[:i], " "), " sh") {
				scripts = append(scripts, value)
			}
			i += size
			continue
		case strings.IndexByte("{([", c) >= 0:
			open = append(open, c)
		case strings.IndexByte("})]", c) >= 0:
			if len(open) == 0 || open[len(open)-1] != "{(["[strings.IndexByte("})]", c)] {
				return nil, fmt.Errorf("line %d: %c closes nothing", lineAt(text, i), c)
			}
			open = open[:len(open)-1]
		}
		i++
	}
	if len(open) > 0 {
		return nil, fmt.Errorf("%c is not closed", open[len(open)-1])
	}
	return scripts, nil
}

// lineAt returns the number of the line of a byte.
func lineAt(text string, i int) int { return strings.Count(text[:i], "\n") + 1 }

// groovyString returns the value and the size of the string at the beginning of text. A string in
// single quotes ends on its line.
func groovyString(text string) (value string, size int, ok bool) {
	quote := "'"
	if strings.HasPrefix(text, "'''") {
		quote = "'''"
	}
	var b strings.Builder
	for i := len(quote); i < len(text); i++ {
		switch {
		case strings.HasPrefix(text[i:], quote):
			return b.String(), i + len(quote), true
		case text[i] == '\\' && i+1 < len(text):
			i++
			switch text[i] {
			case 'n':
				b.WriteByte('\n')
			default:
				b.WriteByte(text[i])
			}
		case text[i] == '\n' && quote == "'":
			return "", 0, false
		default:
			b.WriteByte(text[i])
		}
	}
	return "", 0, false
}
