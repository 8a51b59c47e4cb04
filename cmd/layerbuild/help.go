package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/spf13/pflag"
)

const exitTable = `Exit status:
  0    success
  1    failure; the reason is on standard error
  2    the command line is wrong; nothing was done
  3    analyze, build with a gate (--fail-over, --fail-on): the image does not pass
  125  run: layerbuild itself failed, or its command line is wrong
  126  run: the command cannot be executed
  127  run: the command is not found
  130  interrupted by SIGINT, SIGTERM or SIGHUP; nothing unfinished is left behind
  Otherwise run exits with the status of its command, or with 128+N if signal N ended the command.
`

// prepareVersion checks the arguments of version.
func prepareVersion(e *env, args []string) (runFunc, error) {
	switch {
	case len(args) == 0:
		return func(context.Context) error { return printVersion(e.stdout) }, nil
	case len(args) == 1 && (args[0] == "--help" || args[0] == "-h"):
		return func(context.Context) error {
			_, err := fmt.Fprint(e.stdout, "layerbuild version: print the version\n\nUsage: layerbuild version\n")
			return err
		}, nil
	}
	return nil, fmt.Errorf("version: %w", noArgs(args))
}

// prepareHelp checks the arguments of help.
func prepareHelp(e *env, all []verb, args []string) (runFunc, error) {
	if len(args) > 1 {
		return nil, fmt.Errorf("help explains one verb, not %d: %s", len(args), strings.Join(args, " "))
	}
	if len(args) == 0 || args[0] == "help" {
		return func(context.Context) error { return help(e.stdout, all) }, nil
	}
	if args[0] == "version" {
		return prepareVersion(e, []string{"--help"})
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
State (images, layers, cache) is kept in --root DIR; without the flag in $LAYERBUILD_ROOT, or else in
/var/lib/layerbuild for root, and in $XDG_DATA_HOME/layerbuild (~/.local/share/layerbuild) for others.

A build that has run a step ends by removing the least recently used part of the build cache until the
rest fits --keep-storage SIZE. Without the flag the size is that of $LAYERBUILD_KEEP_STORAGE, or of the
line "keep-storage = SIZE" in /etc/layerbuild/config or $XDG_CONFIG_HOME/layerbuild/config
(~/.config/layerbuild/config), which comes first. Images with a name, and what running processes use,
are never removed.

`)
	b.WriteString(exitTable)
	_, err := io.WriteString(w, b.String())
	return err
}

// identifierText explains the ways to name an image on the command line.
const identifierText = `An image is given as a name (app, app:v2, registry.example/app@sha256:…), as its image ID or another
digest that layerbuild prints, in full or its first 4 digits or more, or as a path: oci:DIR,
oci-archive:FILE, docker-archive:FILE. The image ID is the digest of the image's configuration, or of
the index of an image for several platforms: the same that docker buildx build -q prints.
`

func verbHelp(w io.Writer, v verb, fs *pflag.FlagSet) error {
	var b strings.Builder
	usage := strings.TrimSpace(fmt.Sprintf("layerbuild %s [flags] %s", v.name, v.args))
	fmt.Fprintf(&b, "layerbuild %s: %s\n\nUsage: %s\n", v.name, v.summary, usage)
	own, common := "", ""
	fs.VisitAll(func(f *pflag.Flag) {
		switch {
		case f.Hidden:
		case isStateFlag(f.Name):
			common += flagText(f)
		default:
			own += flagText(f)
		}
	})
	if own != "" {
		fmt.Fprintf(&b, "\nFlags:\n%s", own)
	}
	fmt.Fprintf(&b, "\nFlags of all verbs, which may also stand before the verb:\n%s\n", common)
	if v.notes != "" {
		b.WriteString(v.notes + "\n")
	}
	if strings.Contains(v.args, "IMAGE") || v.name == "build" || v.name == "images" {
		b.WriteString(identifierText + "\n")
	}
	b.WriteString(exitTable)
	_, err := io.WriteString(w, b.String())
	return err
}

// The columns of the help: where the explanation of a flag begins and ends.
const (
	helpIndent = 30
	helpWidth  = 100
)

// flagText returns the help for one flag. The usage of a flag with a value begins with the
// value's name in backquotes.
func flagText(f *pflag.Flag) string {
	left := "      --" + f.Name
	if f.Shorthand != "" {
		left = "  -" + f.Shorthand + ", --" + f.Name
	}
	text := f.Usage
	if rest, ok := strings.CutPrefix(f.Usage, "`"); ok {
		name, explanation, _ := strings.Cut(rest, "` ")
		text = explanation
		if f.NoOptDefVal != "" {
			left += "[=" + name + "]"
		} else {
			left += " " + name
		}
	}
	if def := f.DefValue; def != "" && def != "false" && def != "[]" && def != "0s" {
		text += " (default: " + def + ")"
	}
	var b strings.Builder
	b.WriteString(left)
	if len(left)+2 > helpIndent {
		b.WriteString("\n" + strings.Repeat(" ", helpIndent))
	} else {
		b.WriteString(strings.Repeat(" ", helpIndent-len(left)))
	}
	column := helpIndent
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i > 0 && column+1+n > helpWidth:
			b.WriteString("\n" + strings.Repeat(" ", helpIndent))
			column = helpIndent
		case i > 0:
			b.WriteString(" ")
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String() + "\n"
}

func printVersion(w io.Writer) error {
	_, err := fmt.Fprintf(w, "layerbuild %s\n", version)
	return err
}
