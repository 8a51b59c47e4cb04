package parser

import (
	"unicode/utf8"

	bkparser "github.com/moby/buildkit/frontend/dockerfile/parser"
)

// repairFlags repairs flags that BuildKit's parser has decoded wrongly: it treats each byte of
// UTF-8 in a flag as a character (extractBuilderFlags in split_command.go), so that --exclude=é
// does not match é. BuildKit splits a flag at a byte 0x85 or 0xa0; such a flag is not repaired.
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
