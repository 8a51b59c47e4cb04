package parser

import (
	"regexp"
	"sync"
)

// pattern is a regular expression that is compiled when it is first used. Compiling all of them
// takes 0.4 ms at each start of the program, which may use none.
func pattern(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}
