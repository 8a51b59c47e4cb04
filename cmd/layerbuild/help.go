package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

const exitTable = `Exit status:
  0    success
  1    failure; the reason is on standard error
  2    the command line is wrong; nothing was done
  3    analyze, build --analyze: the image does not pass the gate
  130  interrupted (SIGINT, SIGTERM); everything that was begun is cleaned up
  'layerbuild run' exits with the status of the command that it ran.
`

// prepareHelp checks what help is asked about.
func prepareHelp(e *env, all []verb, args []string) (runFunc, error) {
	if len(args) > 1 {
		return nil, fmt.Errorf("help explains one verb, not %d: %s", len(args), strings.Join(args, " "))
	}
	if len(args) == 0 || args[0] == "help" {
		return func(context.Context) error { return help(e.stdout, all) }, nil
	}
	for _, v := range all {
		if v.name == args[0] {
			fs := newFlagSet(v)
			v.flags(fs)
			return func(context.Context) error { return verbHelp(e.stdout, v, fs) }, nil
		}
	}
	return nil, unknownVerb(all, args[0])
}

func help(w io.Writer, all []verb) error {
	var b strings.Builder
	b.WriteString(`layerbuild builds OCI images from Dockerfiles, without a daemon, as root or not.

  layerbuild -t app .                         build ./Dockerfile and name the image app
  layerbuild -t app -o type=oci,dest=app.tar . and write it as an OCI archive
  layerbuild run app                          try the image out

Usage: layerbuild [verb] [flags] [arguments]; without a verb it is 'build'.

Verbs:
`)
	for _, v := range all {
		fmt.Fprintf(&b, "  %-12s %s\n", v.name, v.summary)
	}
	fmt.Fprintf(&b, "  %-12s %s\n", "help", "explain a verb and its flags: layerbuild help VERB")
	fmt.Fprintf(&b, "  %-12s %s\n\n", "version", "print the version")
	b.WriteString(identifierText)
	b.WriteString(`
State (images, layers, cache) is kept in --root DIR: $LAYERBUILD_ROOT if it is set, else /var/lib/layerbuild for
root, and $XDG_DATA_HOME/layerbuild (~/.local/share/layerbuild) for everybody else.

`)
	b.WriteString(exitTable)
	_, err := io.WriteString(w, b.String())
	return err
}

// identifierText explains what may stand for IMAGE.
const identifierText = `An IMAGE is a name (app, app:v2, registry.example/app@sha256:…), an image ID or another digest that layerbuild
prints, in full or the first 4 digits or more, or a path: oci:DIR, oci-archive:FILE, docker-archive:FILE. The image ID is
the digest of the configuration, and for an image for several platforms the digest of the index, as with buildx.
`

func verbHelp(w io.Writer, v verb, fs *pflag.FlagSet) error {
	usage := strings.TrimSpace(fmt.Sprintf("layerbuild %s [flags] %s", v.name, v.args))
	text := fmt.Sprintf("layerbuild %s: %s\n\nUsage: %s\n\nFlags:\n%s\n", v.name, v.summary, usage, fs.FlagUsagesWrapped(110))
	if strings.Contains(v.args, "IMAGE") {
		text += identifierText + "\n"
	}
	_, err := io.WriteString(w, text+exitTable)
	return err
}

func printVersion(w io.Writer) error {
	_, err := fmt.Fprintf(w, "layerbuild %s\n", version)
	return err
}
