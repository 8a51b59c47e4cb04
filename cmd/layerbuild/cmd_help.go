package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

func helpVerb() verb {
	return verb{
		name: "help", args: "[VERB]", stateless: true,
		summary: "explain a verb and its flags",
		notes:   "Without VERB, it lists the verbs.",
		examples: []example{
			{"layerbuild help", "list the verbs"},
			{"layerbuild help build", "explain build and its flags"},
		},
		flags: func(*pflag.FlagSet) prepareFunc { return prepareHelp },
	}
}

// prepareHelp checks the arguments of help.
func prepareHelp(e *env, args []string) (runFunc, error) {
	all := verbs()
	if len(args) == 0 {
		return func(context.Context) error { return help(e.stdout, all) }, nil
	}
	name, _, rest := unalias(args[0], args[1:]) // of image prune, both words
	if len(rest) == 0 {
		for _, v := range all {
			if v.name == name {
				return func(context.Context) error { return longHelp(e.stdout, v) }, nil
			}
		}
		return nil, unknownVerb(all, args[0])
	}
	return nil, fmt.Errorf("help explains one verb, not %d: %s", len(args),
		strings.Join(args, " "))
}
