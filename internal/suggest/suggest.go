package suggest

import (
	"slices"
	"strings"
)

// limit is one more than the number of letters that may be wrong.
const limit = 3

// Closest returns the option closest to word, with at most two letters changed, added or left out.
// It returns "" if there is none, or if word itself is an option, because it is then spelled
// correctly. This is the rule of BuildKit, for the messages that must be the same.
func Closest(word string, options []string) string {
	best, match := limit, ""
	for _, o := range options {
		if o == word {
			return ""
		}
		if d := distance(word, o, best); d < best {
			best, match = d, o
		}
	}
	return match
}

// shortWord is the largest number of letters of a word in which only one may be wrong, and
// abbreviation the smallest number of letters that may stand for a longer word.
const (
	shortWord    = 5
	abbreviation = 3
)

// Near returns the option that a user may have meant by word; "" if there is none, or if word is an
// option. It is stricter than Closest with short words, of which nearly any other is two letters
// away. One letter may be wrong in a word of at most five letters, and two in a longer word. Two
// letters in the wrong order count as one. The first letter of a word of at most four letters may
// not be replaced. Letters may also be left out, in any number, if at least three are there and one
// option alone has them in this order, from its first letter on.
func Near(word string, options []string) string {
	if slices.Contains(options, word) {
		return ""
	}
	allowed := 1
	if len(word) > shortWord {
		allowed = 2
	}
	best, match := allowed+1, ""
	for _, o := range options {
		d := edits(word, o, allowed+1)
		if d > allowed || replacesFirst(word, o) {
			continue
		}
		if d < best || d == best && abbreviates(word, o) && !abbreviates(word, match) {
			best, match = d, o
		}
	}
	if match != "" || len(word) < abbreviation {
		return match
	}
	return longForm(word, options)
}

// NearFold is like Near, but ignores the case of letters.
func NearFold(word string, options []string) string {
	lower := make([]string, len(options))
	for i, o := range options {
		lower[i] = strings.ToLower(o)
	}
	match := Near(strings.ToLower(word), lower)
	for i, l := range lower {
		if match != "" && l == match {
			return options[i]
		}
	}
	return ""
}

// replacesFirst reports whether a word of at most four letters differs from an option in its first
// letter alone.
func replacesFirst(word, option string) bool {
	return len(word) < shortWord && len(word) == len(option) && word != "" &&
		word[0] != option[0] && word[1:] == option[1:]
}

// longForm returns the option that a word abbreviates. If several options begin with one another,
// such as image and images, it is the shortest; otherwise they must be one.
func longForm(word string, options []string) string {
	for _, is := range []func(word, option string) bool{begins, abbreviates} {
		match := ""
		for _, o := range options {
			switch {
			case !is(word, o):
			case match == "" || strings.HasPrefix(match, o):
				match = o
			case !strings.HasPrefix(o, match):
				return ""
			}
		}
		if match != "" {
			return match
		}
	}
	return ""
}

// begins reports whether an option begins with the word.
func begins(word, option string) bool { return strings.HasPrefix(option, word) }

// abbreviates reports whether the word begins as the option does, and has at least half of its
// letters, in their order.
func abbreviates(word, option string) bool {
	if word == "" || option == "" || word[0] != option[0] || 2*len(word) < len(option) {
		return false
	}
	for i := range len(option) {
		if word != "" && option[i] == word[0] {
			word = word[1:]
		}
	}
	return word == ""
}

// edits returns the number of single edits between a and b, of which one may be to exchange two
// letters beside each other, or limit if that number is not smaller.
func edits(a, b string, limit int) int {
	best := distance(a, b, limit)
	if d := len(a) - len(b); d >= limit || -d >= limit {
		return best
	}
	for i := range len(a) - 1 {
		swapped := a[:i] + a[i+1:i+2] + a[i:i+1] + a[i+2:]
		best = min(best, 1+distance(swapped, b, limit))
	}
	return min(best, limit)
}

// distance returns the number of single edits between a and b (Levenshtein's), or limit if that
// number is not smaller.
func distance(a, b string, limit int) int {
	if d := len(a) - len(b); d >= limit || -d >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diag
			if a[i] != b[j] {
				cost++
			}
			diag = row[j+1]
			row[j+1] = min(cost, diag+1, row[j]+1)
		}
	}
	return min(row[len(b)], limit)
}
