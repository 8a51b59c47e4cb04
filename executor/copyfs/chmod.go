package copyfs

import (
	"fmt"
	"strconv"
	"strings"
)

// modeChange is the value of --chmod: an octal mode, which sets all twelve bits, or a symbolic mode
// of chmod(1).
type modeChange struct {
	octal   uint32
	clauses []modeClause // nil: use octal
}

// modeClause is one clause of a symbolic mode, such as go=rX.
type modeClause struct {
	who  uint32 // mask of the bits that it changes
	op   byte
	perm uint32 // rwx for all three classes, setuid and setgid, sticky
	bigX bool   // X: x only for directories and files that have an x bit already
	from int    // copy the user's (6), group's (3) or others' (0) bits; -1: none
}

func parseMode(s string) (*modeChange, error) {
	if n, err := strconv.ParseUint(s, 8, 32); err == nil && n <= 0o7777 {
		return &modeChange{octal: uint32(n)}, nil
	}
	if s == "" || s[0] >= '0' && s[0] <= '9' {
		return nil, fmt.Errorf(
			"invalid chmod parameter: '%s'. it should be octal string and between 0 and 07777", s)
	}
	var c modeChange
	for _, part := range strings.Split(s, ",") {
		if err := c.parse(part); err != nil {
			return nil, fmt.Errorf("invalid chmod parameter: '%s': %w", s, err)
		}
	}
	return &c, nil
}

const (
	userBits  = 0o4700
	groupBits = 0o2070
	otherBits = 0o0007
	sticky    = 0o1000
)

func (c *modeChange) parse(part string) error {
	i, who := 0, uint32(0)
	for ; i < len(part); i++ {
		switch part[i] {
		case 'u':
			who |= userBits
			continue
		case 'g':
			who |= groupBits
			continue
		case 'o':
			who |= otherBits
			continue
		case 'a':
			who |= userBits | groupBits | otherBits
			continue
		}
		break
	}
	if who == 0 {
		who = userBits | groupBits | otherBits // as with a umask of 0
	}
	if i == len(part) {
		return fmt.Errorf("%q has no +, - or =", part)
	}
	for i < len(part) {
		cl := modeClause{who: who | sticky, op: part[i], from: -1}
		if cl.op != '+' && cl.op != '-' && cl.op != '=' {
			return fmt.Errorf("unexpected %q in %q", part[i], part)
		}
		for i++; i < len(part) && !strings.ContainsRune("+-=", rune(part[i])); i++ {
			if err := cl.add(part[i]); err != nil {
				return fmt.Errorf("%w in %q", err, part)
			}
		}
		c.clauses = append(c.clauses, cl)
	}
	return nil
}

func (cl *modeClause) add(letter byte) error {
	switch letter {
	case 'r':
		cl.perm |= 0o444
	case 'w':
		cl.perm |= 0o222
	case 'x':
		cl.perm |= 0o111
	case 'X':
		cl.bigX = true
	case 's':
		cl.perm |= 0o6000
	case 't':
		cl.perm |= sticky
	case 'u':
		cl.from = 6
	case 'g':
		cl.from = 3
	case 'o':
		cl.from = 0
	default:
		return fmt.Errorf("unexpected %q", letter)
	}
	return nil
}

// apply returns the new mode of something with a mode of twelve bits.
func (c *modeChange) apply(mode uint32, dir bool) uint32 {
	if c.clauses == nil {
		return c.octal
	}
	for _, cl := range c.clauses {
		perm := cl.perm
		if cl.bigX && (dir || mode&0o111 != 0) {
			perm |= 0o111
		}
		if cl.from >= 0 {
			bits := mode >> cl.from & 7
			perm |= bits<<6 | bits<<3 | bits
		}
		perm &= cl.who
		switch cl.op {
		case '+':
			mode |= perm
		case '-':
			mode &^= perm
		case '=':
			clear := cl.who &^ sticky
			if dir {
				clear &^= 0o6000 // like chmod(1), which clears a directory's only if they are named
			}
			if cl.who&(userBits|groupBits|otherBits) == userBits|groupBits|otherBits {
				clear |= sticky
			}
			mode = mode&^clear | perm
		}
	}
	return mode
}
