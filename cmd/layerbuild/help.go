package main

import (
	"fmt"
	"io"

	"github.com/spf13/pflag"
)

const exitTable = `Exit status:
  0    it was done
  1    it failed; the reason is on standard error
  2    the command line is wrong; nothing was done
  3    analyze, build --analyze: the image is not good enough for the gate
  130  interrupted (SIGINT, SIGTERM); everything that was begun is cleaned up
  'layerbuild run' exits with the status of the command that it ran.
`

func help(e *env, all []verb, args []string) int {
	if len(args) > 0 {
		for _, v := range all {
			if v.name == args[0] {
				fs := pflag.NewFlagSet(v.name, pflag.ContinueOnError)
				fs.SortFlags = false
				v.flags(fs)
				verbHelp(e.stdout, v, fs)
				return exitOK
			}
		}
		fmt.Fprintf(e.stderr, "layerbuild: there is no verb %q\n", args[0])
		return exitUsage
	}
	w := e.stdout
	fmt.Fprint(w, `layerbuild builds OCI images from Dockerfiles, without a daemon, as root or not.

  layerbuild -t app .                         build ./Dockerfile and name the image app
  layerbuild -t app -o type=oci,dest=app.tar . and write it as an OCI archive
  layerbuild run app                          try the image out

Usage: layerbuild [verb] [flags] [arguments]; without a verb it is 'build'.

Verbs:
`)
	for _, v := range all {
		fmt.Fprintf(w, "  %-12s %s\n", v.name, v.summary)
	}
	fmt.Fprintf(w, "  %-12s %s\n\n", "help", "explain a verb and its flags: layerbuild help VERB")
	fmt.Fprint(w, `State (images, layers, cache) is kept in --root DIR: /var/lib/layerbuild for root,
$XDG_DATA_HOME/layerbuild otherwise.

`, exitTable)
	return exitOK
}

func verbHelp(w io.Writer, v verb, fs *pflag.FlagSet) {
	fmt.Fprintf(w, "layerbuild %s: %s\n\nUsage: layerbuild %s [flags] %s\n\nFlags:\n%s\n%s", v.name, v.summary, v.name, v.args, fs.FlagUsagesWrapped(110), exitTable)
}
