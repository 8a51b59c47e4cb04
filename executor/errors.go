package executor

import "fmt"

// ExitError says that the command of a Process ran and did not exit with 0.
type ExitError struct {
	// Code is the exit code; 128+Signal for a command that a signal ended, 127 and 126 for one that could not be
	// started because it was not found or not executable.
	Code int
	// Signal is the signal that ended the command, or 0.
	Signal int
	// Reason says why a command could not be started; otherwise it is empty.
	Reason string
	// Machine is the architecture of a command's program if this machine cannot run it without an emulator that is
	// missing; otherwise it is empty.
	Machine string
}

func (e *ExitError) Error() string {
	if e.Reason != "" {
		return e.Reason
	}
	return fmt.Sprintf("exit code: %d", e.Code)
}
