package browse

import (
	"strings"
	"unicode/utf8"
)

// key is a pressed key: a character, or a name such as "up" or "ctrl+a".
type key string

// keys converts the bytes from a terminal to keys. A sequence may arrive in pieces. Of an
// unterminated sequence, at most the size of one read is kept.
type keys struct{ rest []byte }

// controls are the keys that send one byte. Ctrl+space, ctrl+m and ctrl+i are the same bytes as
// NUL, Return and Tab.
var controls = map[byte]key{0: "ctrl+space", '\t': "tab", '\r': "ctrl+m", '\n': "ctrl+m",
	0x7f: "backspace", '\b': "backspace", ' ': "space"}

// sequences are the keys that send several bytes, without ESC, for VT220, xterm and the Linux
// console.
var sequences = map[string]key{
	"[A": "up", "[B": "down", "[C": "right", "[D": "left", "OA": "up", "OB": "down",
	"OC": "right", "OD": "left",
	"[H": "home", "[F": "end", "OH": "home", "OF": "end", "[1~": "home", "[4~": "end",
	"[7~": "home", "[8~": "end",
	"[5~": "pgup", "[6~": "pgdn", "[Z": "tab", "[3~": "delete",
}

// add appends p to the pending bytes and returns the keys that are complete. more is set if further
// bytes may follow, as after a read: ESC is the key of that name only if no byte follows it.
func (k *keys) add(p []byte, more bool) []key {
	in := append(k.rest, p...)
	var out []key
	for len(in) > 0 {
		n, found := one(in, more)
		if n == 0 {
			break
		}
		if found != "" {
			out = append(out, found)
		}
		in = in[n:]
	}
	k.rest = append([]byte(nil), in...)
	return out
}

// one returns the first key of in, which must not be empty, and its length, which is 0 if the key
// is not complete.
func one(in []byte, more bool) (int, key) {
	c := in[0]
	if c == 0x1b {
		return escaped(in, more)
	}
	if k, ok := controls[c]; ok {
		return 1, k
	}
	if c < ' ' {
		return 1, key("ctrl+" + string(rune(c|0x60)))
	}
	if !utf8.FullRune(in) && more {
		return 0, ""
	}
	r, n := utf8.DecodeRune(in)
	if r == utf8.RuneError && n == 1 || r >= 0x80 && r < 0xa0 {
		return n, ""
	}
	return n, key(in[:n])
}

func escaped(in []byte, more bool) (int, key) {
	if len(in) == 1 {
		if more {
			return 0, ""
		}
		return 1, "esc"
	}
	switch in[1] {
	case '[':
		for i := 2; i < len(in); i++ {
			if c := in[i]; c >= 0x40 && c <= 0x7e {
				return i + 1, sequences[plainSequence(string(in[1:i+1]))]
			} else if c < 0x20 || c > 0x7e {
				return i, "" // not a valid sequence
			}
		}
		if !more || len(in) > 64 {
			return len(in), ""
		}
		return 0, ""
	case 'O':
		if len(in) > 2 {
			return 3, sequences[string(in[1:3])]
		}
		if more {
			return 0, ""
		}
		return 2, ""
	case 0x1b:
		return 1, "esc"
	}
	return 2, "" // Alt and a character
}

// plainSequence removes the modifiers: "[1;2A" is an arrow with Shift.
func plainSequence(s string) string {
	if before, after, ok := strings.Cut(s, ";"); ok {
		if before == "[1" {
			before = "["
		}
		return before + after[len(after)-1:]
	}
	return s
}
