package parser

import (
	"fmt"
	"strings"
)

// closest gives the option that is a typing mistake away from val: at most two
// letters changed, added or left out. It is empty when there is none, and also
// when val itself is an option, since then its spelling is not what is wrong.
func closest(val string, options []string, sameCase bool) string {
	if !sameCase {
		val = strings.ToLower(val)
	}
	best, match := 3, ""
	for _, o := range options {
		cmp := o
		if !sameCase {
			cmp = strings.ToLower(o)
		}
		if cmp == val {
			return ""
		}
		if d := distance(val, cmp, best); d < best {
			best, match = d, o
		}
	}
	return match
}

// didYouMean adds the closest option to an error.
func didYouMean(err error, val string, options []string) error {
	if m := closest(val, options, true); m != "" {
		return fmt.Errorf("%w (did you mean %s?)", err, m)
	}
	return err
}

// distance is the Levenshtein distance, or limit if it is not below that.
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
