package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// errEmptyValue is returned for a flag with an empty value. --fail-over "$LIMIT" is such a flag if
// LIMIT is not set: without this error, the gate would silently be missing.
var errEmptyValue = errors.New("the value is empty (is a variable unset?)")

// given is the value of a flag that must not be empty.
type given string

func (g *given) Set(s string) error {
	if strings.TrimSpace(s) == "" {
		return errEmptyValue
	}
	*g = given(s)
	return nil
}

func (g *given) Type() string   { return "string" }
func (g *given) String() string { return string(*g) }

// givenBool is the value of a flag that is true, false, or "" if it is not given.
type givenBool string

func (g *givenBool) Set(s string) error {
	on, err := strconv.ParseBool(s)
	if err != nil {
		return errors.New("true or false is expected")
	}
	*g = givenBool(strconv.FormatBool(on))
	return nil
}

func (g *givenBool) Type() string   { return "bool" }
func (g *givenBool) String() string { return string(*g) }

// givenList is the value of a flag that may be given several times, each time with a value that is
// not empty.
type givenList []string

func (l *givenList) Set(s string) error {
	if strings.TrimSpace(s) == "" {
		return errEmptyValue
	}
	*l = append(*l, s)
	return nil
}

func (l *givenList) Type() string   { return "stringArray" }
func (l *givenList) String() string { return strings.Join(*l, ",") }

// commaList is the value of a flag that may be given several times, each time with several items.
// No item is empty.
type commaList []string

func (l *commaList) Set(s string) error {
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item == "" {
			return errEmptyValue
		}
		*l = append(*l, item)
	}
	return nil
}

func (l *commaList) Type() string   { return "strings" }
func (l *commaList) String() string { return strings.Join(*l, ",") }

// oneFile is the value of --file. buildah and podman take several files and join them, and docker
// takes the last: no file is left out, or added, without a word.
type oneFile string

func (o *oneFile) Set(s string) error {
	if *o != "" && string(*o) != s {
		return fmt.Errorf("--file is %s already; docker would read this file alone, and buildah "+
			"both in turn: give one, or join them, as in cat %[1]s %[2]s | layerbuild -f -", *o, s)
	}
	*o = oneFile(s)
	return nil
}

func (o *oneFile) Type() string   { return "string" }
func (o *oneFile) String() string { return string(*o) }

// maxAge is the value of a flag for the largest age of results.
type maxAge struct {
	time.Duration
	given bool
}

func (a *maxAge) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return errors.New("a time such as 90m or 72h is expected")
	}
	a.Duration, a.given = d, true
	return nil
}

func (a *maxAge) Type() string { return "duration" }

func (a *maxAge) String() string {
	if !a.given {
		return ""
	}
	return a.Duration.String()
}
