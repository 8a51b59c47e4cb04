package cdi

import (
	"fmt"
	"strings"
)

// checkKind returns an error for a kind that is not VENDOR/CLASS.
func checkKind(kind string) error {
	vendor, class, ok := strings.Cut(kind, "/")
	if !ok {
		return fmt.Errorf("kind %q: VENDOR/CLASS is expected", kind)
	}
	for _, name := range []string{vendor, class} {
		if !validName(name, isLetter, "_-.") {
			return fmt.Errorf("kind %q: a vendor or class begins with a letter, ends with a "+
				"letter or digit, and has only letters, digits and the characters _ - .", kind)
		}
	}
	return nil
}

// checkDeviceName returns an error for a name of a device that is not valid in its kind.
func checkDeviceName(name string) error {
	if !validName(name, isAlphanumeric, "_-.:") {
		return fmt.Errorf("device %q: a name begins and ends with a letter or digit, and has only "+
			"letters, digits and the characters _ - . :", name)
	}
	return nil
}

// validName reports whether the first character of a name is valid, the last one a letter or digit,
// and each other one a letter, a digit or one of others.
func validName(name string, first func(byte) bool, others string) bool {
	if name == "" || !first(name[0]) || !isAlphanumeric(name[len(name)-1]) {
		return false
	}
	for i := range len(name) {
		if !isAlphanumeric(name[i]) && strings.IndexByte(others, name[i]) < 0 {
			return false
		}
	}
	return true
}

func isLetter(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func isAlphanumeric(c byte) bool {
	return isLetter(c) || isDigit(c)
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
