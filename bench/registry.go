package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// A registry is Debian's docker-registry on a loopback port.
type registry struct {
	host string
	cmd  *exec.Cmd
}

// registry starts an empty registry. It is stopped after the work, or when the next one is started.
func (l *lab) registry(ctx context.Context) (*registry, error) {
	l.endRegistry()
	dir, err := l.tempDir("registry")
	if err != nil {
		return nil, err
	}
	l.served, err = newRegistry(ctx, dir)
	return l.served, err
}

func (l *lab) endRegistry() {
	if l.served != nil {
		l.served.close()
		l.served = nil
	}
	for _, f := range l.cleanup {
		f()
	}
	l.cleanup = nil
}

// newRegistry starts a registry that keeps its blobs in dir; close ends it.
func newRegistry(ctx context.Context, dir string) (*registry, error) {
	bin, err := exec.LookPath("docker-registry")
	if err != nil {
		return nil, errors.New("docker-registry is not installed")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0") // find a free port
	if err != nil {
		return nil, err
	}
	r := &registry{host: listener.Addr().String()}
	listener.Close()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"+
		"storage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %s}\n",
		filepath.Join(dir, "data"), r.host)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	r.cmd = exec.Command(bin, "serve", config)
	r.cmd.Stdout, r.cmd.Stderr = log, log
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	if err := appears(ctx, "tcp", r.host); err != nil {
		r.close()
		return nil, fmt.Errorf("docker-registry: %w: %s", err, tail(log.Name()))
	}
	return r, nil
}

func (r *registry) close() {
	r.cmd.Process.Signal(syscall.SIGTERM)
	r.cmd.Wait()
}
