package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/layerbuild/layerbuild/parser"
	"github.com/spf13/pflag"
)

// docsVerb is the verb for packagers. Its name is unlikely to be that of a directory:
// 'layerbuild docs' builds the directory docs.
func docsVerb() verb {
	return verb{
		name: "gen-docs", args: "man DIR|completion SHELL", stateless: true, hidden: true,
		summary: "write man pages, or a completion for a shell",
		notes:   "SHELL is bash, zsh or fish. The completion is written to standard output.",
		examples: []example{
			{"layerbuild gen-docs man man1", "write the man pages to the directory man1"},
			{"layerbuild gen-docs completion bash", "print the completion for bash"},
		},
		flags: func(*pflag.FlagSet) prepareFunc { return prepareDocs },
	}
}

// prepareDocs checks the arguments of gen-docs.
func prepareDocs(e *env, args []string) (runFunc, error) {
	usage := errors.New("'man DIR' or 'completion bash|zsh|fish' is expected")
	if len(args) != 2 {
		return nil, usage
	}
	all := visible(verbs())
	switch args[0] {
	case "man":
		date, err := manDate(e)
		if err != nil {
			return nil, err
		}
		return func(context.Context) error { return writeManPages(args[1], manPages(all, date)) },
			nil
	case "completion":
		for _, shell := range shells {
			if shell.name == args[1] {
				return func(context.Context) error {
					_, err := io.WriteString(e.stdout, shell.script(completionsOf(all)))
					return err
				}, nil
			}
		}
	}
	return nil, usage
}

// manDate returns the date in the man pages: that of SOURCE_DATE_EPOCH, or that of the commit from
// which the program was built, or today.
func manDate(e *env) (string, error) {
	at, err := time.Parse(time.RFC3339, thisRelease().Date)
	if err != nil { // it is not known
		at = time.Now()
	}
	if s := e.getenv(parser.EpochArg); s != "" {
		epoch, err := parser.ParseEpoch(s)
		if err != nil {
			return "", err
		}
		if epoch != nil {
			at = time.Unix(*epoch, 0)
		}
	}
	return at.UTC().Format(time.DateOnly), nil
}

// writeManPages writes pages into a directory. It makes the directory if it is missing.
func writeManPages(dir string, pages []manPage) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, p := range pages {
		if err := os.WriteFile(filepath.Join(dir, p.file()), []byte(p.text), 0o644); err != nil {
			return fmt.Errorf("write man page: %w", err)
		}
	}
	return nil
}
