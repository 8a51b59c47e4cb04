package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/layerbuild/layerbuild/executor"
	"github.com/layerbuild/layerbuild/internal/source"
	"github.com/layerbuild/layerbuild/parser"
)

// MaxSecret is the number of bytes that a secret may have, as in BuildKit.
const MaxSecret = 500 << 10

// mountSecret gives a command a secret, as a file in memory or as a variable.
func (r *runner) mountSecret(ctx context.Context, p *executor.Process, m parser.RunMount) error {
	i := slices.IndexFunc(r.opts.Run.Secrets, func(s Secret) bool { return s.ID == m.ID })
	if i < 0 {
		if m.Required {
			return fmt.Errorf("secret %s: not found; give it with --secret id=%s,src=FILE", m.ID, m.ID)
		}
		return nil
	}
	data, err := r.readSecret(ctx, i)
	if err != nil {
		return err
	}
	if m.Env != "" {
		p.Env = append(p.Env, m.Env+"="+string(data))
	}
	if m.Target == "" {
		return nil
	}
	d := executor.Data{Data: data, Mode: 0o400}
	if m.Mode != nil {
		d.Mode = *m.Mode
	}
	if m.UID != nil {
		d.UID = *m.UID
	}
	if m.GID != nil {
		d.GID = *m.GID
	}
	p.Mounts = append(p.Mounts, executor.Mount{Target: m.Target, Source: d, ReadOnly: true})
	return nil
}

// readSecret returns the value of a secret of the options. It is read once in a build: a pipe can be read once only,
// and the commands of a build are to see the same.
func (b *builder) readSecret(ctx context.Context, i int) ([]byte, error) {
	return b.secrets.do(ctx, i, func() ([]byte, error) { return b.opts.Run.Secrets[i].read(ctx) })
}

func (s Secret) read(ctx context.Context) ([]byte, error) {
	if s.File == "" {
		value, ok := os.LookupEnv(s.Env)
		if !ok {
			return nil, fmt.Errorf("secret %s: there is no variable %s in the environment", s.ID, s.Env)
		}
		return []byte(value), nil
	}
	data, err := source.ReadHostFile(ctx, s.File, MaxSecret)
	if err != nil {
		return nil, fmt.Errorf("secret %s: %w", s.ID, err)
	}
	return data, nil
}

// mountSSH gives a command the socket of an agent. The socket that it sees is one of our own, with the owner and the
// mode that were asked for, and every connection is passed on.
func (r *runner) mountSSH(ctx context.Context, p *executor.Process, i int, m parser.RunMount, release *releaser) error {
	k := slices.IndexFunc(r.opts.Run.SSH, func(s SSH) bool { return s.ID == m.ID })
	if k < 0 {
		if m.Required {
			return fmt.Errorf("ssh agent %s: not found; give it with --ssh %s", m.ID, m.ID)
		}
		return nil
	}
	dir, err := r.tempDir("ssh")
	if err != nil {
		return err
	}
	socket := filepath.Join(dir, "agent")
	// A socket's name has at most 108 bytes (unix(7)), and a state directory may lie deeper than that.
	top, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("ssh agent %s: %w", m.ID, err)
	}
	release.add(top.Close)
	l, err := net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/agent", top.Fd()))
	if err != nil {
		return fmt.Errorf("ssh agent %s: %w", m.ID, err)
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	release.add(func() error {
		cancel()
		err := l.Close()
		wg.Wait()
		return err
	})
	mode := os.FileMode(0o600)
	if m.Mode != nil {
		mode = os.FileMode(*m.Mode & 0o777)
	}
	var uid, gid uint32
	if m.UID != nil {
		uid = *m.UID
	}
	if m.GID != nil {
		gid = *m.GID
	}
	if err := errors.Join(os.Chmod(socket, mode), os.Chown(socket, int(uid), int(gid))); err != nil {
		return fmt.Errorf("ssh agent %s: %w", m.ID, err)
	}
	wg.Go(func() { forward(ctx, l, r.opts.Run.SSH[k].Socket, &wg) })
	target := m.Target
	if target == "" {
		target = fmt.Sprintf("/run/buildkit/ssh_agent.%d", i)
	}
	p.Env = append(p.Env, "SSH_AUTH_SOCK="+target)
	p.Mounts = append(p.Mounts, executor.Mount{Target: target, Source: executor.Bind{Source: socket}})
	return nil
}

// forward passes connections on to another socket until l is closed.
func forward(ctx context.Context, l net.Listener, to string, wg *sync.WaitGroup) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer in.Close()
			var d net.Dialer
			out, err := d.DialContext(ctx, "unix", to)
			if err != nil {
				return // the command sees a closed connection, as from an agent that went away
			}
			defer out.Close()
			stop := context.AfterFunc(ctx, func() { in.Close(); out.Close() })
			defer stop()
			done := make(chan struct{})
			go func() {
				defer close(done)
				io.Copy(out, in)
				out.(*net.UnixConn).CloseWrite()
			}()
			io.Copy(in, out)
			in.(*net.UnixConn).CloseWrite()
			<-done
		})
	}
}
