// Command layerbuild builds OCI images from Dockerfiles, without a daemon.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/executor/archive"
	"github.com/layerbuild/layerbuild/internal/ns"
	"github.com/spf13/pflag"
)

// Exit statuses, as the help has them.
const (
	exitOK        = 0
	exitFailed    = 1   // the build, or whatever was asked for, failed
	exitUsage     = 2   // the command line is wrong; nothing was done
	exitGate      = 3   // analyze: the image is not good enough
	exitInterrupt = 130 // SIGINT or SIGTERM ended it
)

// version is set by the linker.
var version = "devel"

// verb is one thing that the program can do.
type verb struct {
	name    string
	args    string // what stands after the flags in its usage line
	summary string
	// flags defines the verb's flags and returns what runs it.
	flags func(fs *pflag.FlagSet) runFunc
}

// runFunc does what a verb is for.
type runFunc func(ctx context.Context, e *env, args []string) error

// env is what a verb has of the world outside.
type env struct {
	stdin  *os.File
	stdout *os.File
	stderr *os.File
	getenv func(string) string
}

func verbs() []verb {
	return []verb{
		buildVerb(), runVerb(), imagesVerb(), historyVerb(), inspectVerb(), tagVerb(), removeVerb(),
		pullVerb(), pushVerb(), pruneVerb(), infoVerb(),
		analyzeVerb(), diffVerb(), pruneImageVerb(),
	}
}

func main() {
	executor.Main(archive.Unpack)
	e := &env{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv}
	os.Exit(run(e, os.Args[1:]))
}

// usageError is a command line that cannot be understood.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// exitError ends the program with a status of its own; what there was to say has been said.
type exitError struct{ code int }

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// run does what the command line says and returns the exit status.
func run(e *env, args []string) int {
	all := verbs()
	v := all[0]
	if len(args) > 0 {
		switch args[0] {
		case "help", "-h", "--help":
			return help(e, all, args[1:])
		case "version", "--version":
			fmt.Fprintf(e.stdout, "layerbuild %s\n", version)
			return exitOK
		}
		for _, one := range all {
			if one.name == args[0] {
				v, args = one, args[1:]
				break
			}
		}
	}
	fs := pflag.NewFlagSet(v.name, pflag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.SortFlags = false
	fs.SetInterspersed(v.name != "run")
	do := v.flags(fs)
	switch err := fs.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		verbHelp(e.stdout, v, fs)
		return exitOK
	case err != nil:
		return report(e, v, usageError{err})
	}
	// Every verb works where builds do: without root the files of the state belong to ids of a user namespace.
	if err := ns.Enter(ns.Options{}); err != nil {
		return report(e, v, err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	// A second signal ends the program at once: the first one's clean-up may take a while.
	context.AfterFunc(ctx, stop)
	err := do(ctx, e, fs.Args())
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) {
		fmt.Fprintln(e.stderr, "layerbuild: interrupted")
		return exitInterrupt
	}
	return report(e, v, err)
}

// report prints the error that ended a verb and returns the exit status.
func report(e *env, v verb, err error) int {
	var usage usageError
	var exit exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, &usage):
		fmt.Fprintf(e.stderr, "layerbuild %s: %v\nSee 'layerbuild help %s'.\n", v.name, err, v.name)
		return exitUsage
	}
	fmt.Fprintf(e.stderr, "layerbuild: %v\n", err)
	return exitFailed
}
