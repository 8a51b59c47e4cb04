package job

import (
	"errors"
	"fmt"
	"strings"

	"github.com/layerbuild/layerbuild/executor"
)

// processError turns an *executor.ExitError into a *CommandError. It returns other errors
// unchanged.
func processError(args []string, err error) error {
	var exit *executor.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	return &CommandError{Args: args, Exit: exit}
}

// CommandError is returned when the command of a RUN ends with an exit code other than 0 or by a
// signal. Its text is the same as in docker build.
type CommandError struct {
	Args []string
	Exit *executor.ExitError
}

// Error returns the command and the way in which it ended.
func (e *CommandError) Error() string {
	how := fmt.Sprintf("exit code: %d", e.Exit.Code)
	if e.Exit.Signal != 0 {
		how += fmt.Sprintf(", ended by signal %d", e.Exit.Signal)
	}
	if e.Exit.Reason != "" {
		how = fmt.Sprintf("%s: %s", how, e.Exit.Reason)
	}
	if e.Exit.Machine != "" {
		how += ", or run the step in a stage FROM --platform=$BUILDPLATFORM"
	}
	return fmt.Sprintf("process %q did not complete successfully: %s",
		strings.Join(e.Args, " "), how)
}

// Unwrap returns the *executor.ExitError.
func (e *CommandError) Unwrap() error { return e.Exit }
