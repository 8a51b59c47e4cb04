package executor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// stdio holds the standard three of a step's command. The command gets a writer that is a file
// directly, and a pipe for any other writer.
type stdio struct {
	files [3]*os.File
	// ours are files to close in this process once the command has them.
	ours  []*os.File
	pipes []*pipe
}

type pipe struct {
	r    *os.File
	to   io.Writer
	done chan error
}

func openStdio(s *Spec, stdout, stderr io.Writer) (*stdio, error) {
	o := &stdio{}
	p, _ := s.Action.(*Process)
	err := o.open(p, stdout, stderr)
	if err != nil {
		o.close()
		return nil, fmt.Errorf("open the step's input and output: %w", err)
	}
	return o, nil
}

func (o *stdio) open(p *Process, stdout, stderr io.Writer) (err error) {
	if p != nil && p.Stdin != nil && !p.TTY {
		o.files[0] = p.Stdin
	} else if o.files[0], err = o.own(os.Open(os.DevNull)); err != nil {
		return err
	}
	if o.files[1], err = o.output(stdout); err != nil {
		return err
	}
	if same(stdout, stderr) {
		o.files[2] = o.files[1] // use one pipe, so that the order of writes to both is kept
		return nil
	}
	o.files[2], err = o.output(stderr)
	return err
}

// own records a file that is closed in this process once the command has it.
func (o *stdio) own(f *os.File, err error) (*os.File, error) {
	if err == nil {
		o.ours = append(o.ours, f)
	}
	return f, err
}

func same(a, b io.Writer) bool {
	defer func() { _ = recover() }() // types that cannot be compared
	return a == b
}

func (o *stdio) output(to io.Writer) (*os.File, error) {
	if to == nil || to == io.Discard {
		return o.own(os.OpenFile(os.DevNull, os.O_WRONLY, 0))
	}
	if f, ok := to.(*os.File); ok {
		return f, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	o.pipes = append(o.pipes, &pipe{r: r, to: to})
	return o.own(w, nil)
}

// started closes the files that were passed to the command, and starts reading the pipes.
func (o *stdio) started() {
	o.closeOurs()
	o.read()
}

// read starts reading the pipes, if it has not done so before.
func (o *stdio) read() {
	for _, p := range o.pipes {
		if p.done == nil {
			p.done = make(chan error, 1)
			go func() { p.done <- p.copy() }()
		}
	}
}

// copy copies the output to the writer. If the writer fails, copy continues to read: otherwise the
// command would get SIGPIPE or block.
func (p *pipe) copy() error {
	buf := make([]byte, 32<<10)
	var failed error
	for {
		n, err := p.r.Read(buf)
		if n > 0 && failed == nil {
			_, failed = p.to.Write(buf[:n])
		}
		if err != nil {
			return failed
		}
	}
}

// lateOutput limits the time in which wait reads output after all processes of a step have ended.
// By then the pipes are at their end, unless a process outside the step has a descriptor of one.
const lateOutput = 2 * time.Second

func (o *stdio) wait() error {
	o.closeOurs() // if the command was not started
	var errs []error
	for _, p := range o.pipes {
		p.r.SetReadDeadline(time.Now().Add(lateOutput))
	}
	for _, p := range o.pipes {
		if p.done != nil {
			errs = append(errs, <-p.done)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("write the step's output: %w", err)
	}
	return nil
}

func (o *stdio) closeOurs() {
	for _, f := range o.ours {
		f.Close()
	}
	o.ours = nil
}

func (o *stdio) close() {
	o.closeOurs()
	for _, p := range o.pipes {
		p.r.Close()
	}
}
