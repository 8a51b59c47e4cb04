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

// catch returns a context that ends with the first SIGINT, SIGTERM or SIGHUP, unless forward was called before. A second
// signal ends the program at once: the first one's clean-up may take a while. A SIGHUP that the program was told to
// ignore, as nohup(1) does, stays ignored. more are further signals of the kind.
func catch(parent context.Context, more ...os.Signal) (context.Context, *interrupts) {
	ctx, cancel := context.WithCancel(parent)
	i := &interrupts{ch: make(chan os.Signal, 16)}
	for _, s := range append(more, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP) {
		if s != syscall.SIGHUP || !signal.Ignored(s) {
			signal.Notify(i.ch, s)
		}
	}
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

// forCommands are the signals that the run verb gives to the command, besides those that all verbs catch.
func forCommands(verb string) []os.Signal {
	if verb != "run" {
		return nil
	}
	return []os.Signal{syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}
}

// forward gives the signals that are for a command to f from now on, and reports whether it does: not if one has
// come before.
func (i *interrupts) forward(ctx context.Context, f func(syscall.Signal)) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if ctx.Err() != nil {
		return false
	}
	i.to = f
	return true
}
