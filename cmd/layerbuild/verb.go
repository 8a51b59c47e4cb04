package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/layerbuild/layerbuild/internal/suggest"
)

// others maps verbs of other tools to a hint about layerbuild's equivalent.
var others = map[string]string{
	"buildx": "leave it out; layerbuild takes the flags of 'docker buildx build'",
	"image":  "see 'layerbuild images' and 'layerbuild help'", "ls": "see 'layerbuild images'",
	"list": "see 'layerbuild images'",
	"rmi":  "see 'layerbuild rm'", "system": "see 'layerbuild prune'",
	"builder": "see 'layerbuild prune'", "gc": "see 'layerbuild prune'",
	"ps":   "'layerbuild run' removes its container when the command ends",
	"exec": "see 'layerbuild run'", "start": "see 'layerbuild run'",
	"save":   "see 'layerbuild build -o type=docker,dest=FILE'",
	"export": "see 'layerbuild build -o DIR'",
	"slim":   "see 'layerbuild prune-image'", "squash": "see 'layerbuild prune-image'",
	"dive": "see 'layerbuild analyze'",
}

// findVerb returns the verb of a command line, and the other words. --root and --driver may come
// before the verb; they are dropped for verbs that do not have them. The default verb is build.
func findVerb(all []verb, args []string) (verb, []string, error) {
	before := stateFlagsBefore(args)
	if before == len(args) && before > 0 {
		return all[0], args, nil
	}
	word, rest := "help", args[before:]
	if len(rest) > 0 {
		word, rest = rest[0], rest[1:]
	}
	switch word {
	case "-h", "--help":
		word = "help"
	case "--version":
		word = "version"
	}
	for _, v := range all {
		switch {
		case v.name == word && v.stateless:
			return v, rest, nil
		case v.name == word:
			return v, slices.Concat(args[:before], rest), nil
		}
	}
	if !strings.HasPrefix(word, "-") && !mayBeContext(word) {
		return verb{}, nil, unknownVerb(all, word)
	}
	return all[0], args, nil
}

// stateFlagsBefore counts the arguments at the beginning that are --root and --driver with their
// values.
func stateFlagsBefore(args []string) int {
	n := 0
	for n < len(args) {
		name, _, value := strings.Cut(args[n], "=")
		switch {
		case !strings.HasPrefix(name, "--") || !isStateFlag(name[2:]):
			return n
		case value:
			n++
		default:
			n = min(n+2, len(args))
		}
	}
	return n
}

// isStateFlag reports whether a flag is one that all verbs have that use the state.
func isStateFlag(name string) bool { return name == "root" || name == "driver" }

// mayBeContext reports whether a word without a verb before it can be the context of a build.
func mayBeContext(word string) bool {
	if word == "" || strings.ContainsAny(word, "/:.") {
		return true
	}
	_, err := os.Stat(word)
	return err == nil
}

// unknownVerb returns an error for a word that is not a verb, with a hint or the list of verbs.
func unknownVerb(all []verb, word string) error {
	var names []string
	for _, v := range visible(all) {
		names = append(names, v.name)
	}
	if hint := others[word]; hint != "" {
		return fmt.Errorf("unknown verb %q; %s", word, hint)
	}
	if near := suggest.Closest(word, names); near != "" {
		return fmt.Errorf("unknown verb %q: did you mean %s?", word, near)
	}
	slices.Sort(names)
	return fmt.Errorf("unknown verb %q, and there is no such directory to build (verbs: %s)", word,
		strings.Join(names, ", "))
}
