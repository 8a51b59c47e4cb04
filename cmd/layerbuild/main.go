package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/executor/archive"
	"github.com/layerbuild/layerbuild/internal/ns"
	"github.com/layerbuild/layerbuild/internal/ui"
	"github.com/spf13/pflag"
)

// Exit statuses, as in the help.
const (
	exitOK        = 0
	exitFailed    = 1   // the verb failed
	exitUsage     = 2   // the command line is wrong; nothing was done
	exitGate      = 3   // analyze: the gate failed
	exitInterrupt = 130 // SIGINT, SIGTERM or SIGHUP ended it

	// exitRunFailed is the status of the run verb, as in docker run, if the command line is wrong
	// or layerbuild failed: the command was not run, or its status is not known. The other statuses
	// of run are the command's.
	exitRunFailed = 125
)

// verb is a verb of the command line.
type verb struct {
	name     string
	args     string // the arguments in its usage line
	summary  string // one line
	notes    string // paragraphs of its long help, separated by empty lines
	examples []example
	// common has the names of the flags that the short help shows; nil: all.
	common []string
	// stateless is true for a verb that does not use the state: it has no --root and --driver, and
	// needs no namespaces.
	stateless bool
	// takesPaths is true if an image of the verb may be a path, of a layout or an archive.
	takesPaths bool
	// words are the values of the first argument, for completions; nil: it has no fixed values.
	words []string
	// hidden is true for a verb that no help, man page or completion lists.
	hidden bool
	// flags defines the verb's flags and returns the function that checks the command line.
	flags func(fs *pflag.FlagSet) prepareFunc
	// withOthers is like flags, with the flags of other programs; nil: there are none. Most command
	// lines have none of them, and to define them takes as long as to define the verb's own flags.
	withOthers func(fs *pflag.FlagSet) prepareFunc
	// moreNotes returns further paragraphs of the long help; nil: there are none.
	moreNotes func() string
}

// example is a command line with an explanation, for the help of its verb.
type example struct{ line, text string }

// prepareFunc checks a verb's flags and arguments and returns the function that does the verb's
// work. It changes nothing. Every error is a mistake in the command line or in the environment.
type prepareFunc func(e *env, args []string) (runFunc, error)

// runFunc does the work of a verb.
type runFunc func(ctx context.Context) error

// env holds a verb's standard streams and environment.
type env struct {
	stdin  *os.File
	stdout *os.File
	stderr *os.File
	getenv func(string) string
	// interrupts is set before a verb's work starts.
	interrupts *interrupts
	// noState is set by the prepare function of a command line that does not use the state, other
	// than most of its verb.
	noState bool
}

func verbs() []verb {
	return []verb{
		buildVerb(), bakeVerb(), executorVerb(),
		runVerb(), imagesVerb(), imageVerb(), imagePruneVerb(), historyVerb(), inspectVerb(),
		tagVerb(), removeVerb(), pullVerb(), pushVerb(), copyVerb(), saveVerb(), loadVerb(),
		loginVerb(), logoutVerb(), indexVerb(), duVerb(), pruneVerb(), cacheVerb(), explainVerb(),
		planVerb(),
		infoVerb(), analyzeVerb(),
		diffVerb(), pruneImageVerb(), sbomVerb(), helpVerb(), versionVerb(), docsVerb(),
	}
}

// visible returns the verbs that are not hidden.
func visible(all []verb) []verb {
	return slices.DeleteFunc(slices.Clone(all), func(v verb) bool { return v.hidden })
}

func main() {
	executor.Main(archive.Unpack)
	e := &env{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv}
	setHome(e)
	args := os.Args[1:]
	if isExecutor(os.Args[0]) {
		args = append([]string{"executor"}, args...)
	}
	os.Exit(run(e, args))
}

// usageError is the error for an invalid command line.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// exitError ends the program with a status of its own. Its message has been printed already.
type exitError struct{ code int }

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// run runs the command line and returns the exit status.
func run(e *env, args []string) int {
	c, err := parseCommand(e, args)
	if err != nil {
		return report(e, c.verb, usageError{err})
	}
	if c.usesState {
		// Every verb runs in the same namespaces as builds: without root, the files of the state
		// belong to ids of a user namespace.
		if err := ns.Enter(ns.Options{}); err != nil {
			return report(e, c.verb, err)
		}
	}
	var ctx context.Context
	ctx, e.interrupts = catch(context.Background(), forCommands(c.verb)...)
	err = c.run(ctx)
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		fmt.Fprintln(e.stderr, "layerbuild: interrupted")
		return exitInterrupt
	}
	return report(e, c.verb, err)
}

// command is a command line that has been parsed and checked.
type command struct {
	verb      string
	usesState bool
	run       runFunc
}

// parseCommand parses a command line, and checks it as far as possible without side effects. An
// error is a mistake in the command line; the command then has only the verb, or "" if that is the
// mistake.
func parseCommand(e *env, args []string) (command, error) {
	v, args, err := findVerb(verbs(), args)
	if err != nil {
		return command{}, err
	}
	c := command{verb: v.name}
	fs := newFlagSet(v)
	prepare := v.flags(fs)
	err = fs.Parse(args)
	if errors.As(err, new(*pflag.NotExistError)) && v.withOthers != nil {
		fs = newFlagSet(v)
		prepare = v.withOthers(fs)
		err = fs.Parse(args)
	}
	switch {
	case isShortHelp(err):
		c.run = func(context.Context) error { return shortHelp(e.stdout, v) }
		return c, nil
	case errors.Is(err, errLongHelp):
		c.run = func(context.Context) error { return longHelp(e.stdout, v) }
		return c, nil
	case err != nil:
		return c, flagError(fs, err)
	}
	c.run, err = prepare(e, fs.Args())
	c.usesState = !v.stateless && !e.noState
	return c, err
}

// report prints the error that ended a verb and returns the exit status. For run, the statuses 1
// and 2 are always the command's. A failure of layerbuild or a wrong command line has another
// status, as in docker run.
func report(e *env, verb string, err error) int {
	code := printError(e, verb, err)
	if verb == "run" && err != nil && !errors.As(err, new(exitError)) {
		return exitRunFailed
	}
	return code
}

// printError prints an error and returns its exit status for most verbs.
func printError(e *env, verb string, err error) int {
	var usage usageError
	var exit exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &exit):
		return exit.code
	case errors.Is(err, syscall.EPIPE):
		return exitFailed // the reader closed the pipe, as head(1) does: no message
	case errors.As(err, &usage):
		see := "layerbuild help"
		if verb != "" {
			verb, see = " "+verb, see+" "+verb
		}
		fmt.Fprintf(e.text(e.stderr), "layerbuild%s: %s\nSee '%s'.\n", verb, printable(err), see)
		return exitUsage
	}
	fmt.Fprintf(e.text(e.stderr), "layerbuild: %s\n", printable(err))
	return exitFailed
}

// printable escapes an error's text for a terminal: it may contain names from command lines,
// images and registries.
func printable(err error) string {
	lines := strings.Split(strings.TrimRight(err.Error(), "\n"), "\n")
	for i, line := range lines {
		lines[i] = ui.Visible(line)
	}
	return strings.Join(lines, "\n")
}
