package main

import "strings"

// list is the value of a flag that may be given several times. pflag's own writes the default as CSV when it is defined,
// by way of 4 kB of buffer: 52 kB for build's thirteen, nearly always for nothing.
type list []string

func (l *list) Set(s string) error {
	*l = append(*l, s)
	return nil
}

func (l *list) Type() string { return "stringArray" }

// String is empty for an empty list, which has the help say nothing of a default.
func (l *list) String() string { return strings.Join(*l, ",") }
