package units

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	units "github.com/docker/go-units"
)

// Size returns n bytes as text with three significant digits: 999B, 1.23kB, 45.6MB, 789GB. A
// negative n is printed as 0B.
func Size(n int64) string {
	names := [...]string{"B", "kB", "MB", "GB", "TB", "PB"}
	f, i := float64(max(0, n)), 0
	// Rounded to three digits, 999.5 is 1000.
	for f >= 999.5 && i < len(names)-1 {
		f, i = f/1000, i+1
	}
	digits := 2
	switch {
	case i == 0 || f >= 99.95:
		digits = 0
	case f >= 9.995:
		digits = 1
	}
	return fmt.Sprintf("%.*f%s", digits, f, names[i])
}

// Share returns part as a percentage of all, with one decimal; "0%" if all is not positive.
func Share(part, all int64) string {
	if all <= 0 {
		return "0%"
	}
	return strconv.FormatFloat(100*float64(part)/float64(all), 'f', 1, 64) + "%"
}

// Parse reads a number of bytes with an optional unit, such as 5MB (5,000,000), 512KiB (524,288) or
// 1.5g.
func Parse(s string) (int64, error) {
	if strings.Contains(strings.ToLower(s), "ib") {
		return parse(s, units.RAMInBytes)
	}
	return parse(s, units.FromHumanSize)
}

// ParseDocker reads a number of bytes in the syntax of docker's flags: 64m and 64MB are both
// 67,108,864.
func ParseDocker(s string) (int64, error) { return parse(s, units.RAMInBytes) }

var errSize = errors.New("a size such as 64m or 10g is expected")

func parse(s string, read func(string) (int64, error)) (int64, error) {
	n, err := read(strings.TrimSpace(s))
	// go-units does not check for overflow, and the result of an overflow depends on the processor.
	if err != nil || n < 0 || n > 1<<62 {
		return 0, errSize
	}
	return n, nil
}
