package suggest

import "strings"

// limit is one more than the number of letters that may be wrong.
const limit = 3

// Closest returns the option closest to word, with at most two letters changed, added or left out.
// It returns "" if there is none, or if word itself is an option, because it is then spelled
// correctly.
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

// ClosestFold is like Closest, but ignores the case of letters.
func ClosestFold(word string, options []string) string {
	lower := make([]string, len(options))
	for i, o := range options {
		lower[i] = strings.ToLower(o)
	}
	match := Closest(strings.ToLower(word), lower)
	for i, l := range lower {
		if match != "" && l == match {
			return options[i]
		}
	}
	return ""
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
