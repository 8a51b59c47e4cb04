package executor

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// forward sends the signals received from the channel from to a child of this process, until stop
// is called.
func forward(from <-chan syscall.Signal, pid int) (stop func()) {
	if from == nil {
		return func() {}
	}
	return each(from, func(s syscall.Signal) { unix.Kill(pid, s) })
}

// forwardByChild sends the signals received from the channel from to the step's child, which sends
// them to the command.
func forwardByChild(from <-chan syscall.Signal, socket *os.File) (stop func()) {
	if from == nil {
		return func() {}
	}
	return each(from, func(s syscall.Signal) { socket.Write([]byte{byte(s)}) })
}

// each calls f with each signal, one at a time, until stop is called. stop waits for the last call.
func each(from <-chan syscall.Signal, f func(syscall.Signal)) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case s := <-from:
				f(s)
			}
		}
	}()
	return func() { close(done); <-ended }
}

// receiveSignals runs in the step's child and sends the signals of forwardByChild to the command.
// It ends with this process.
func receiveSignals(pid int) {
	// use a pidfd: another process may get the pid once the command is reaped
	command, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	var b [1]byte
	for {
		n, err := retry(func() (int, error) { return unix.Read(socketFD, b[:]) })
		if err != nil || n == 0 {
			return
		}
		unix.PidfdSendSignal(command, unix.Signal(b[0]), nil, 0)
	}
}
