package secret

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/layerbuild/layerbuild/internal/dirfd"
)

// Proxy is a socket that passes connections on to an ssh agent. It has an owner and a mode of its
// own, which the agent's socket does not have.
type Proxy struct {
	// Path is the path of the socket.
	Path string

	cancel   context.CancelFunc
	listener net.Listener
	dir      *os.File
	wg       sync.WaitGroup
}

// Owner is the owner and the mode of a Proxy's socket.
type Owner struct {
	UID, GID uint32
	Mode     os.FileMode
}

// NewProxy makes a socket in dir, and accepts connections on it until Close is called or ctx ends.
// The caller removes dir.
func NewProxy(ctx context.Context, dir string, o Owner, agent string) (_ *Proxy, err error) {
	p := &Proxy{Path: filepath.Join(dir, "agent")}
	// A socket's name has at most 108 bytes (unix(7)), and dir may be longer.
	if p.dir, err = os.Open(dir); err != nil {
		return nil, err
	}
	if p.listener, err = net.Listen("unix",
		dirfd.FDPath(int(p.dir.Fd()))+"/agent"); err != nil {
		return nil, errors.Join(err, p.dir.Close())
	}
	ctx, p.cancel = context.WithCancel(ctx)
	if err := errors.Join(os.Chmod(p.Path, o.Mode),
		os.Chown(p.Path, int(o.UID), int(o.GID))); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	p.wg.Go(func() { p.accept(ctx, agent) })
	return p, nil
}

// Close ends all connections and waits for them.
func (p *Proxy) Close() error {
	p.cancel()
	err := p.listener.Close()
	p.wg.Wait()
	return errors.Join(err, p.dir.Close())
}

// accept passes connections on to an agent until the listener is closed.
func (p *Proxy) accept(ctx context.Context, agent string) {
	for {
		in, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() {
			defer in.Close()
			var d net.Dialer
			out, err := d.DialContext(ctx, "unix", agent)
			if err != nil {
				return // the command gets a closed connection, as from an agent that has ended
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
