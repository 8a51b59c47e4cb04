package main

import (
	"strings"

	"github.com/spf13/pflag"
)

// flagInfo describes a flag for help, man pages and completions. Its only source is the definition
// of the flag: the name, the type and default of the value, the group, and the usage text
//
//	`PLACEHOLDER` one line
//	details, of any number of lines
//
// A boolean flag has no placeholder. Nor has a flag with a fixed set of values, whose values are
// shown instead. The one line fits beside the flag in the help.
type flagInfo struct {
	name, short string // short is "" or a letter
	group       string // the heading under which it is listed
	placeholder string // "" for a boolean flag
	optional    bool   // the value may be missing
	values      []string
	text        string // one line
	details     string // "" or sentences
}

// groupKey is the annotation of a flag for its group.
const groupKey = "group"

// The headings of flags without a group, and of the flags that all verbs have that use the state.
const (
	noGroup      = "Flags"
	groupOfState = "Flags of all verbs, also allowed before the verb"
)

// group calls define and adds the flags that define defines to the group with a heading.
func group(fs *pflag.FlagSet, heading string, define func(*pflag.FlagSet)) {
	before, n := 0, 0
	fs.VisitAll(func(*pflag.Flag) { before++ })
	define(fs)
	annotations := map[string][]string{groupKey: {heading}}
	fs.VisitAll(func(f *pflag.Flag) {
		if n++; n > before { // the flags are in the order of their definition
			f.Annotations = annotations
		}
	})
}

// describe returns the description of a flag.
func describe(f *pflag.Flag) flagInfo {
	info := flagInfo{name: f.Name, short: f.Shorthand, group: noGroup,
		optional: f.NoOptDefVal != ""}
	if g := f.Annotations[groupKey]; len(g) > 0 {
		info.group = g[0]
	}
	info.text, info.details, _ = strings.Cut(f.Usage, "\n")
	if rest, ok := strings.CutPrefix(info.text, "`"); ok {
		info.placeholder, info.text, _ = strings.Cut(rest, "` ")
	}
	if v, ok := f.Value.(interface{ placeholder() string }); ok {
		info.placeholder = v.placeholder()
	}
	info.values = words(info.placeholder)
	if v, ok := f.Value.(interface{ values() []string }); ok {
		info.values = v.values()
		info.placeholder = strings.Join(info.values, "|")
	}
	switch f.Value.Type() {
	case "stringArray":
		info.text += " (repeatable)"
	case "stringSlice", "strings":
		info.placeholder += ",…"
	}
	if def := f.DefValue; def != "" && def != "false" && def != "[]" && def != "0s" {
		info.text += " (default: " + def + ")"
	}
	return info
}

// words returns the alternatives of a placeholder that stand for themselves, such as
// network.host|security.insecure. The others are in capital letters.
func words(placeholder string) []string {
	if !strings.Contains(placeholder, "|") {
		return nil
	}
	var list []string
	for word := range strings.SplitSeq(placeholder, "|") {
		if strings.Trim(word, "abcdefghijklmnopqrstuvwxyz.-") == "" {
			list = append(list, word)
		}
	}
	return list
}

// expected describes the values that a flag accepts, for an error.
func (f flagInfo) expected() string {
	placeholder := strings.TrimSuffix(f.placeholder, ",…")
	switch placeholder {
	case "":
		return "a value"
	case strings.Join(f.values, "|"):
		return orList(f.values)
	}
	return placeholder
}

// flagGroup is a heading and its flags.
type flagGroup struct {
	heading string
	flags   []flagInfo
}

// flagsOf returns the visible flags of a verb, in the order of their definition. The group
// groupOfState comes last.
func flagsOf(v verb) []flagGroup {
	fs := newFlagSet(v)
	v.flags(fs)
	var groups []flagGroup
	common := flagGroup{heading: groupOfState}
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		info := describe(f)
		if info.group == groupOfState {
			common.flags = append(common.flags, info)
			return
		}
		for i := range groups {
			if groups[i].heading == info.group {
				groups[i].flags = append(groups[i].flags, info)
				return
			}
		}
		groups = append(groups, flagGroup{info.group, []flagInfo{info}})
	})
	if len(common.flags) == 0 {
		return groups
	}
	return append(groups, common)
}
