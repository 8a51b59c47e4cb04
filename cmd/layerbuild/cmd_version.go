package main

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"
)

// version is set by the linker.
var version = "devel"

func versionVerb() verb {
	return verb{
		name: "version", stateless: true,
		summary:  "print the version",
		examples: []example{{"layerbuild version", "print the version"}},
		flags: func(*pflag.FlagSet) prepareFunc {
			return func(e *env, args []string) (runFunc, error) {
				return func(context.Context) error {
					_, err := fmt.Fprintf(e.stdout, "layerbuild %s\n", version)
					return err
				}, noArgs(args)
			}
		},
	}
}
