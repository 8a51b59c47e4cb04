package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/layerbuild/layerbuild/internal/suggest"
	"github.com/spf13/pflag"
)

// others maps verbs of other tools to a hint about layerbuild's equivalent.
var others = map[string]string{
	"buildx":  "leave it out; layerbuild takes the flags of 'docker buildx build'",
	"ls":      "see 'layerbuild images'",
	"list":    "see 'layerbuild images'",
	"system":  "see 'layerbuild du' and 'layerbuild prune'",
	"builder": "see 'layerbuild build' and 'layerbuild prune'", "gc": "see 'layerbuild prune'",
	"exec": "see 'layerbuild run'", "start": "see 'layerbuild run'",
	"create": "see 'layerbuild run'",
	"export": "see 'layerbuild build -o DIR'",
	"cp": "see 'layerbuild copy' for an image, and 'layerbuild run -v ./:/out IMAGE cp FILE " +
		"/out' for a file in one",
	"commit":   "write a Dockerfile, and see 'layerbuild build'",
	"import":   "see 'layerbuild load', or write FROM scratch and ADD in a Dockerfile",
	"manifest": "see 'layerbuild index'", "imagetools": "see 'layerbuild index'",
	"slim": "see 'layerbuild prune-image'", "squash": "see 'layerbuild prune-image'",
	"dive": "see 'layerbuild analyze'", "scout": "see 'layerbuild sbom'",
	"ps": noContainer, "attach": noContainer, "container": noContainer, "kill": noContainer,
	"logs": noContainer, "stop": noContainer, "top": noContainer, "wait": noContainer,
}

// noContainer is the hint about verbs for containers.
const noContainer = "'layerbuild run' removes its container when the command ends"

// aliases are other names of verbs.
var aliases = map[string]string{"bud": "build", "rmi": "rm", "untag": "rm"}

// buildxVerbs are the commands of 'docker buildx' and 'docker builder' with a verb that does the
// same.
var buildxVerbs = map[string]string{"b": "build", "bake": "bake", "build": "build", "du": "du",
	"f": "bake", "prune": "prune"}

// imageVerbs are the commands of 'docker image' and 'podman image', with the verbs that do the
// same.
var imageVerbs = map[string]string{
	"build": "build", "diff": "diff", "history": "history", "inspect": "inspect", "list": "images",
	"load": "load", "ls": "images", "prune": "image prune", "pull": "pull", "push": "push",
	"rm": "rm", "remove": "rm", "save": "save", "tag": "tag", "untag": "rm",
}

// imageVerb is the verb for 'image' without one of its commands: findVerb finds the others.
func imageVerb() verb {
	words := slices.Sorted(maps.Keys(imageVerbs))
	return verb{
		name: "image", args: "COMMAND [ARG…]", stateless: true, words: words,
		summary: "work with images, with the commands of 'docker image'",
		notes: "The commands are " + joinWords(words, "and") + ". 'image ls' and " +
			"'image list' are the verb images, 'image remove' and 'image untag' are rm, 'image " +
			"prune' is explained by 'layerbuild help image prune', and each of the others is the " +
			"verb of its name, with the same flags: see 'layerbuild help VERB'.",
		examples: []example{
			{"layerbuild image ls -q", "print the IDs of the images"},
			{"layerbuild image rm app:v1", "remove a name"},
			{"layerbuild image prune", "remove the images without a name"},
		},
		flags: func(*pflag.FlagSet) prepareFunc {
			return func(_ *env, args []string) (runFunc, error) {
				if len(args) == 0 {
					return nil, fmt.Errorf("a command is expected: %s", orList(words))
				}
				if near := suggest.Near(args[0], words); near != "" {
					return nil, fmt.Errorf("unknown command %q: did you mean %s?", args[0], near)
				}
				return nil, fmt.Errorf("unknown command %q; %s is expected", args[0],
					orList(words))
			}
		},
	}
}

// unalias returns the name of the verb, and the words after it, for a word that may be an alias.
// given are arguments of the verb for which the alias stands.
func unalias(word string, words []string) (name string, given, rest []string) {
	if name, ok := aliases[word]; ok {
		return name, nil, words
	}
	if len(words) == 0 {
		return word, nil, nil
	}
	command, rest := words[0], words[1:]
	switch word {
	case "executor":
		switch command {
		case "version", "login":
			return command, nil, rest
		case "help": // kaniko's commands are flags and those two
			return "help", []string{"executor"}, nil
		}
	case "buildx", "builder":
		if command == "imagetools" {
			if len(rest) == 0 {
				return "index", nil, nil
			}
			return "index", []string{rest[0], "--registry"}, rest[1:]
		}
		name, ok := buildxVerbs[command]
		if ok && name == "prune" { // docker's command concerns no images
			given = []string{"--keep-images"}
		}
		if ok {
			return name, given, rest
		}
	case "image":
		if name, ok := imageVerbs[command]; ok {
			return name, nil, rest
		}
	}
	return word, nil, words
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
	word, given, rest := unalias(word, rest)
	rest = slices.Concat(given, rest)
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
	if near := suggest.Near(word, names); near != "" {
		return fmt.Errorf("unknown verb %q: did you mean %s?", word, near)
	}
	slices.Sort(names)
	return fmt.Errorf("unknown verb %q, and there is no such directory to build (verbs: %s)", word,
		strings.Join(names, ", "))
}
