package executor

import "fmt"

// ExitError is returned when the command of a Process could not be started, was ended by a signal,
// or exited with another code than 0.
type ExitError struct {
	// Code is the exit code. It is 128+Signal for a command that a signal ended, and 127 or 126 for
	// one that could not be started because it was not found or is not executable.
	Code int
	// Signal is the signal that ended the command, or 0.
	Signal int
	// Reason is why the command could not be started; otherwise it is empty.
	Reason string
	// Machine is the architecture of the command's program, if this machine cannot run it because
	// no emulator is available; otherwise it is empty.
	Machine string
}

// Error returns the reason if there is one, and the exit code otherwise.
func (e *ExitError) Error() string {
	if e.Reason != "" {
		return e.Reason
	}
	return fmt.Sprintf("exit code: %d", e.Code)
}
