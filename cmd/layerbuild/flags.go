package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/layerbuild/layerbuild/internal/suggest"
	"github.com/spf13/pflag"
)

// newFlagSet returns the flag set of a verb, with the flag --help.
func newFlagSet(v verb) *pflag.FlagSet {
	fs := pflag.NewFlagSet(v.name, pflag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.SortFlags = false
	fs.SetInterspersed(v.name != "run")
	heading := groupOfState
	if v.stateless {
		heading = noGroup
	}
	usage := "print the long help; -h prints the short one"
	if v.name == "run" { // -h NAME is its host name
		usage = "print the long help; -h alone prints the short one"
	}
	group(fs, heading, func(fs *pflag.FlagSet) {
		fs.Var(helpFlag{}, "help", usage)
		fs.Lookup("help").NoOptDefVal = "true"
	})
	return fs
}

// errLongHelp is the error of parsing --help. For -h, which is not defined, pflag returns ErrHelp.
var errLongHelp = errors.New("help requested")

// isShortHelp reports whether the error of parsing a command line is that of -h. In the verb run
// the flag is docker's for the host name, and asks for help if no word follows.
func isShortHelp(err error) bool {
	var missing *pflag.ValueRequiredError
	return errors.Is(err, pflag.ErrHelp) ||
		errors.As(err, &missing) && missing.GetSpecifiedShortnames() == "h"
}

// helpFlag is the value of --help.
type helpFlag struct{}

func (helpFlag) Set(string) error { return errLongHelp }
func (helpFlag) String() string   { return "" }
func (helpFlag) Type() string     { return "bool" }

// list is the value of a flag that may be given several times. pflag's own type writes the
// default as CSV when it is defined, with a buffer of 4 kB: 52 kB for build's thirteen flags,
// which nearly always have no default.
type list []string

func (l *list) Set(s string) error {
	*l = append(*l, s)
	return nil
}

func (l *list) Type() string { return "stringArray" }

// String returns "" for an empty list, so that the help shows no default.
func (l *list) String() string { return strings.Join(*l, ",") }

// choice is the value of a flag with a fixed set of values.
type choice struct {
	value   *string
	allowed []string
}

// newChoice returns the value of a flag with the default def, which may be "".
func newChoice(value *string, def string, allowed ...string) choice {
	*value = def
	return choice{value, allowed}
}

func (c choice) Set(s string) error {
	if !slices.Contains(c.allowed, s) {
		return fmt.Errorf("%s is expected", orList(c.allowed))
	}
	*c.value = s
	return nil
}

func (c choice) String() string   { return *c.value }
func (c choice) Type() string     { return "string" }
func (c choice) values() []string { return c.allowed }

// defineFormat defines --format of a verb that prints text or JSON.
func defineFormat(fs *pflag.FlagSet, value *string) {
	fs.Var(newChoice(value, "text", "text", "json"), "format", "output format")
}

// directory is the value of a flag for a directory, which need not exist yet.
type directory string

func (d *directory) Set(s string) error {
	if s == "" {
		return errors.New("a directory is expected")
	}
	*d = directory(s)
	return nil
}

func (d *directory) String() string { return string(*d) }
func (d *directory) Type() string   { return "string" }

// orList joins words as "a, b or c".
func orList(words []string) string { return joinWords(words, "or") }

// joinWords joins words with commas, and the last one with a conjunction.
func joinWords(words []string, conjunction string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " " + conjunction + " " + words[last]
}

// badValue returns the error about the value of a flag: its name, the value, and the reason.
func badValue(flag, value string, why error) error {
	return fmt.Errorf("--%s %q: %w", flag, value, why)
}

// flagError rewrites an error of pflag so that it names the flag, its value and the expected
// values.
func flagError(fs *pflag.FlagSet, err error) error {
	var invalid *pflag.InvalidValueError
	var missing *pflag.ValueRequiredError
	var unknown *pflag.NotExistError
	switch {
	case errors.As(err, &invalid):
		f := invalid.GetFlag()
		if v, ok := f.Value.(*otherValue); ok && v.isSwitch(invalid.GetValue()) {
			return fmt.Errorf("--%s: %w", f.Name, errors.Unwrap(invalid))
		}
		return badValue(invalid.GetFlag().Name, invalid.GetValue(), whatIsExpected(invalid))
	case errors.As(err, &missing):
		return fmt.Errorf("--%s: %s is expected after it", missing.GetFlag().Name,
			describe(missing.GetFlag()).expected())
	case errors.As(err, &unknown):
		return unknownFlag(fs, unknown)
	}
	return err
}

// whatIsExpected returns an error that describes the values of a flag of one of pflag's types.
func whatIsExpected(e *pflag.InvalidValueError) error {
	switch e.GetFlag().Value.Type() {
	case "bool":
		return errors.New("true or false is expected")
	case "int":
		return errors.New("a whole number is expected")
	case "duration":
		return errors.New("a time such as 90m or 72h is expected")
	case "stringSlice":
		return fmt.Errorf("words separated by commas are expected: %w", errors.Unwrap(e))
	}
	return errors.Unwrap(e)
}

// unknownFlag returns the error for a flag that does not exist, with a similar flag.
func unknownFlag(fs *pflag.FlagSet, e *pflag.NotExistError) error {
	name := e.GetSpecifiedName()
	if short := e.GetSpecifiedShortnames(); short != "" {
		if len(short) > 1 {
			return fmt.Errorf("unknown flag -%c in -%s", name[0], short)
		}
		return fmt.Errorf("unknown flag -%s", name)
	}
	var names []string
	fs.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	if near := suggest.Near(name, names); near != "" {
		return fmt.Errorf("unknown flag --%s: did you mean --%s?", name, near)
	}
	return fmt.Errorf("unknown flag --%s", name)
}
