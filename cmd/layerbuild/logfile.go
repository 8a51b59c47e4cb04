package main

import (
	"fmt"
	"os"

	"github.com/layerbuild/layerbuild/internal/hostfile"
	"github.com/layerbuild/layerbuild/internal/ui"
)

// openLog returns the file to which the progress is written: that of --logfile, or standard error.
// close closes the former.
func (f *buildFlags) openLog(e *env) (out *os.File, close func() error, err error) {
	if f.logFile == "" {
		return e.stderr, func() error { return nil }, nil
	}
	out, err = hostfile.Open(string(f.logFile), os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return nil, nil, fmt.Errorf("--logfile %q: %w", f.logFile, plainError(err))
	}
	return out, out.Close, nil
}

// displayMode returns the mode of the display. A log has the whole progress, even if --quiet or the
// mode auto is given.
func (f *buildFlags) displayMode(mode string) string {
	switch {
	case f.logFile == "", ui.ForPrograms(mode):
		return mode
	}
	return "plain"
}
