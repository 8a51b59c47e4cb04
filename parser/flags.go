package parser

import (
	"unicode/utf8"

	bkparser "github.com/moby/buildkit/frontend/dockerfile/parser"
)

// repairFlags undoes an error of BuildKit's parser, which takes each byte of UTF-8 in a flag for
// a character (extractBuilderFlags in split_command.go), so that --exclude=é does not match é. A
// flag with a byte 0x85 or 0xa0 is split there, and is not repaired.
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
