package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// interrupts handles the signals that end a program.
type interrupts struct {
	ch chan os.Signal

	mu sync.Mutex
	to func(syscall.Signal) // nil: the first signal cancels the context
}

// catch returns a context that ends with the first SIGINT, SIGTERM or SIGHUP, unless forward was
// called before. A second signal ends the program at once, since the clean-up after the first
// one may take a while. A SIGHUP that was ignored when the program was started, as with
// nohup(1), stays ignored. more are further signals to handle.
func catch(parent context.Context, more ...os.Signal) (context.Context, *interrupts) {
	ctx, cancel := context.WithCancel(parent)
	i := &interrupts{ch: make(chan os.Signal, 16)}
	for _, s := range append(more, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP) {
		if s != syscall.SIGHUP || !signal.Ignored(s) {
			signal.Notify(i.ch, s)
		}
	}
	// The goroutine runs until the program ends, since signals may come until then. run calls catch
	// once.
	go func() {
		for s := range i.ch {
			i.mu.Lock()
			if i.to != nil {
				i.to(s.(syscall.Signal))
			} else {
				signal.Stop(i.ch)
				cancel()
			}
			i.mu.Unlock()
		}
	}()
	return ctx, i
}

// forCommands returns the signals that the run verb forwards to the command, in addition to the
// signals that all verbs handle.
func forCommands(verb string) []os.Signal {
	if verb != "run" {
		return nil
	}
	return []os.Signal{syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}
}

// forward passes later signals to f, for a command. It reports whether it does so; it does not if a
// signal has been received before.
func (i *interrupts) forward(ctx context.Context, f func(syscall.Signal)) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if ctx.Err() != nil {
		return false
	}
	i.to = f
	return true
}
