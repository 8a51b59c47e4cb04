package executor

import (
	"context"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// runProcessOnThread runs a command that is this program's own child, beside the first process of its pid namespace.
func runProcessOnThread(ctx context.Context, s *Spec, p *Process, stdout, stderr io.Writer, r *Result) error {
	files, err := openStdio(s, stdout, stderr)
	if err != nil {
		return err
	}
	defer files.close()
	b := &sandbox{spec: s, p: p, result: r, resolvConf: resolvConf()}
	c := &command{spec: s, p: p, root: -1}
	err = onThread(namespaces(p), func() error {
		err := b.standBeside()
		if err == nil {
			err = b.runBeside(ctx, c, files)
		}
		if b.one != nil {
			b.one.end()
		}
		if cerr := b.clean(); err == nil {
			err = cerr
		}
		c.close()
		b.close()
		return err
	})
	if err == errChild {
		return err
	}
	if oerr := files.wait(); err == nil {
		err = oerr
	}
	return err
}

// procDir is where on the stage the first process mounts /proc.
const procDir = "proc"

func (b *sandbox) standBeside() error {
	if err := b.stand(); err != nil {
		return err
	}
	if err := unix.Mkdirat(b.stgFD, procDir, 0o555); err != nil {
		return err
	}
	one, err := startProcessOne(b.stage + "/" + procDir)
	if err != nil {
		return errChild
	}
	b.one = one
	// From here on new processes of this thread are in the namespace, but not itself.
	if err := unix.Setns(one.fd, unix.CLONE_NEWPID); err != nil {
		return errChild
	}
	return nil
}

func (b *sandbox) runBeside(ctx context.Context, c *command, files *stdio) error {
	stop := context.AfterFunc(ctx, b.one.kill)
	defer stop()
	if err := b.nameHost(); err != nil {
		return err
	}
	if err := c.readIDs(); err != nil {
		return err
	}
	if err := b.build(); err != nil {
		return err
	}
	if err := c.prepare(); err != nil {
		return err
	}
	pid, err := c.start(files.descriptors())
	if err != nil {
		return err
	}
	files.started()
	if b.p.Signals != nil {
		// The process must not be reaped while a signal is sent to it: its number may be another's then.
		stop := forward(b.p.Signals, pid)
		_, err := retry(func() (int, error) { return 0, unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) })
		stop()
		if err != nil {
			return fmt.Errorf("wait for the command: %w", err)
		}
	}
	var ws unix.WaitStatus
	if _, err := retry(func() (int, error) { return unix.Wait4(pid, &ws, 0, nil) }); err != nil {
		return fmt.Errorf("wait for the command: %w", err)
	}
	return exitError(ws)
}

// descriptors are those of the command's standard three.
func (o *stdio) descriptors() (fds [3]int) {
	for i, f := range o.files {
		fds[i] = int(f.Fd())
	}
	return fds
}
