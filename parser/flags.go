package parser

import (
	"unicode/utf8"

	bkparser "github.com/moby/buildkit/frontend/dockerfile/parser"
)

// repairFlags undoes what BuildKit's parser does to flags: it takes each byte of UTF-8 for a character
// (extractBuilderFlags in split_command.go), so that --exclude=é is not about é. A flag in which a byte is 0x85 or 0xa0 is
// split there, and stays so.
func repairFlags(n *bkparser.Node) {
	if n == nil {
		return
	}
	for i, flag := range n.Flags {
		n.Flags[i] = repairFlag(flag)
	}
	for _, c := range n.Children {
		repairFlags(c)
	}
	repairFlags(n.Next)
}

func repairFlag(flag string) string {
	b := make([]byte, 0, len(flag))
	for _, r := range flag {
		if r > 0xff {
			return flag
		}
		b = append(b, byte(r))
	}
	if !utf8.Valid(b) {
		return flag
	}
	return string(b)
}
